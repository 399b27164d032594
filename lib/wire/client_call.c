/* client_call.c - calls: sent, repeated, answered; each ends in exactly one callback. */
#include "wire/client_internal.h"

#include <errno.h>
#include <zmq.h>

#include "base/fault.h"

enum {
    REPEAT_FIRST_MS = 1000, REPEAT_MOST_MS = 8000,  /* nothing came back */
    BUSY_FIRST_MS = 25, BUSY_MOST_MS = 1000,        /* the server said: later */
    LOADING_MS = 100,                               /* a version is on its way */
    SPENT_MS = 1000,                                /* the budget of repetitions is used up */
};

/* ---- ending calls ------------------------------------------------------------------------------------- */

void client_want_out(struct wire_client *client)
{
    if (client->zsock)
        zsock_want_out(client->zsock, client->connected && client->n_waiting > 0);
}

void client_set_waiting(struct wire_client *client, struct call *call, bool waiting)
{
    if (call->waiting != waiting)
        client->n_waiting += waiting ? 1 : -1u;
    call->waiting = waiting;
    client_want_out(client);
}

static void call_free(struct wire_client *client, struct call *call)
{
    client_set_waiting(client, call, false);
    HASH_DEL(client->calls, call);
    outgoing_free(call->out);
    free(call);
}

/* The callback may do anything, also free the client (its memory stays until the loop's next turn). */
static void finish(struct wire_client *client, struct call *call, int result, const struct message *reply)
{
    wire_reply_fn *on_reply = call->on_reply;
    void *arg = call->arg;

    call_free(client, call);
    if (on_reply)
        on_reply(result, reply, arg);
}

/* End all calls that `pick` chooses. Callbacks may start and cancel others, so look from the start after each. */
void client_finish_all(struct wire_client *client, int result, bool (*pick)(const struct call *call, uint64_t now_ms),
                       uint64_t now_ms)
{
    struct call *call, *next;

again:
    HASH_ITER(hh, client->calls, call, next)
        if (!pick || pick(call, now_ms)) {
            finish(client, call, result, NULL);
            goto again;
        }
}

static uint64_t with_jitter(struct wire_client *client, uint64_t first_ms, uint64_t most_ms, unsigned times)
{
    uint64_t ms = MIN(first_ms << MIN(times, 16u), most_ms);

    client->jitter = client->jitter * 6364136223846793005u + 1442695040888963407u;
    return ms * 3 / 4 + (client->jitter >> 33) % (ms / 2 + 1);      /* +- 25 % */
}

static void repeat_after(struct wire_client *client, struct call *call, uint64_t ms, uint64_t now_ms)
{
    call->repeat_ms = now_ms + ms;
    client_wake_at(client, call->repeat_ms);
}

/* ---- sending ------------------------------------------------------------------------------------------ */

static void stamp(struct wire_client *client, struct envelope *envelope)
{
    envelope->protocol = WIRE_PROTOCOL;
    envelope->epoch = client->wire->epoch;
    envelope->run = client->wire->run;
}

/* A first time, a repetition that only waits for a version, or one that the budget has a token for? */
static bool may_send(struct wire_client *client, struct call *call, uint64_t now_ms)
{
    if (!call->sent)
        budget_on_request(&client->budget);
    else if (!call->free && !budget_take(&client->budget, now_ms))
        return false;
    call->free = false;
    return true;
}

/* -EAGAIN: no connection, or it takes nothing now. Not asked of ZeroMQ alone: for a moment after a connection has died it still
 * takes messages, and loses them; what was repeated into that moment waited for its next repetition, 8 s and more after the cable
 * was whole. */
static int transmit(struct wire_client *client, struct call *call, uint64_t now_ms)
{
    struct envelope *envelope = outgoing_envelope(call->out);
    int r = 0;

    if (!client->connected)
        return -EAGAIN;
    if (!may_send(client, call, now_ms)) {
        client_set_waiting(client, call, false);
        repeat_after(client, call, with_jitter(client, SPENT_MS, SPENT_MS, 0), now_ms);
        return 0;
    }
    stamp(client, envelope);
    envelope->remaining_ms = (uint32_t)(call->deadline_ms > now_ms ? call->deadline_ms - now_ms : 1);
    if (fault_point("wire.request") != FAULT_DROP && !wire_loses(envelope->kind, "send"))
        r = outgoing_send(call->out, zsock_socket(client->zsock), NULL, 0);
    if (r < 0)
        return r;
    client->sent_ms = now_ms;
    client_set_waiting(client, call, false);
    call->sent++;
    call->repeat_ms = UINT64_MAX;
    if (call->kind->idempotent && !(call->flags & WIRE_ONCE))
        repeat_after(client, call, with_jitter(client, REPEAT_FIRST_MS, REPEAT_MOST_MS, call->sent - 1), now_ms);
    return 0;
}

void client_send_waiting(struct wire_client *client)
{
    uint64_t now_ms = clock_mono_ms();
    struct call *call, *next;

    HASH_ITER(hh, client->calls, call, next)
        if (call->waiting && transmit(client, call, now_ms) < 0)
            return;
}

void client_on_out(struct zsock *z, void *arg)
{
    (void)z;
    client_send_waiting(arg);
}

void client_ping(struct wire_client *client)
{
    _cleanup_(outgoing_freep) struct outgoing *out = NULL;
    struct envelope envelope = {.kind = WIRE_KIND(PING), .request = ++client->last_id};

    client->sent_ms = clock_mono_ms();          /* also if it could not go out: the next try is a heartbeat away */
    stamp(client, &envelope);
    if (!client->zsock || outgoing_new(&envelope, NULL, NULL, 0, &out) < 0 || fault_point("wire.request") == FAULT_DROP ||
        wire_loses(WIRE_KIND(PING), "send"))
        return;
    (void)outgoing_send(out, zsock_socket(client->zsock), NULL, 0);
}

int wire_call(struct wire_client *client, const struct wire_call *call, uint64_t *ret_id)
{
    struct envelope envelope = {.kind = call->kind, .version = call->version};
    uint64_t now_ms = clock_mono_ms();
    struct call *c = NULL;
    int r;

    if (client->closing || HASH_COUNT(client->calls) >= client->options.credits)
        r = client->closing ? -ECANCELED : -ENOBUFS;
    else
        r = (c = calloc(1, sizeof *c)) ? 0 : -ENOMEM;
    if (r < 0) {
        for (unsigned i = 0; i < call->n_parts; i++)
            if (call->parts[i].release)
                call->parts[i].release(call->parts[i].arg);
        return r;
    }
    *c = (struct call){
        .id = ++client->last_id,
        .kind = wire_kind(call->kind),
        .flags = call->flags,
        .on_reply = call->on_reply,
        .arg = call->arg,
        .deadline_ms = now_ms + MAX(call->deadline_ms, 1u),
        .repeat_ms = UINT64_MAX,
    };
    envelope.request = c->id;
    r = outgoing_new(&envelope, call->body, call->parts, call->n_parts, &c->out);
    if (r < 0) {
        free(c);
        return r;
    }
    HASH_ADD(hh, client->calls, id, sizeof c->id, c);
    client_wake_at(client, c->deadline_ms);
    if (transmit(client, c, now_ms) < 0)
        client_set_waiting(client, c, true);
    if (ret_id)
        *ret_id = c->id;
    return 0;
}

void wire_cancel(struct wire_client *client, uint64_t id)
{
    struct call *call;

    HASH_FIND(hh, client->calls, &id, sizeof id, call);
    if (call)
        call_free(client, call);
}

/* ---- receiving ---------------------------------------------------------------------------------------- */

void client_set_up(struct wire_client *client, bool up)
{
    if (client->up == up)
        return;
    client->up = up;
    if (client->options.on_state)
        client->options.on_state(up, client->options.arg);
}

/* A refusal: ask again, or tell the caller? */
static void on_refused(struct wire_client *client, struct call *call, const struct message *reply, uint64_t now_ms)
{
    uint32_t status = reply->envelope.status;
    bool again = false;
    uint64_t after_ms = with_jitter(client, BUSY_FIRST_MS, BUSY_MOST_MS, call->refused);

    if (status == WIRE_STATUS(BUSY)) {
        again = true;
    } else if (status == WIRE_STATUS(STALE_EPOCH)) {
        again = client->wire->on_stale || reply->envelope.epoch <= client->wire->epoch;     /* ours may have risen meanwhile */
        if (client->wire->on_stale)
            client->wire->on_stale(client->wire->on_stale_arg);
    } else if (status == WIRE_STATUS(LOADING) || status == WIRE_STATUS(WRONG_VERSION)) {
        again = call->flags & WIRE_WAIT_VERSION;
        after_ms = LOADING_MS;
        call->free = again;
    }
    if (!again || call->flags & WIRE_ONCE) {
        finish(client, call, wire_status_errno(status), reply);
        return;
    }
    call->refused++;
    repeat_after(client, call, after_ms, now_ms);
}

static void on_message(struct wire_client *client, const struct message *message, uint64_t now_ms)
{
    const struct envelope *e = &message->envelope;
    struct call *call;

    if (e->request == 0) {
        if (client->options.on_push && e->kind != WIRE_KIND(ERROR))
            client->options.on_push(message, client->options.arg);
        return;
    }
    HASH_FIND(hh, client->calls, &e->request, sizeof e->request, call);
    if (!call)
        return;         /* a pong, or the answer to a call that has ended */
    if (e->kind == call->kind->kind + 1)
        finish(client, call, 0, message);
    else if (e->kind == WIRE_KIND(ERROR) && e->status != WIRE_STATUS(OK))
        on_refused(client, call, message, now_ms);
    else
        finish(client, call, -EIO, message);
}

void client_on_in(struct zsock *z, void *arg)
{
    struct wire_client *client = arg;
    _cleanup_(message_freep) struct message *message = NULL;
    struct wire_origin origin;
    struct error why = {0};
    uint64_t now_ms;
    struct call *call;
    int r;

    r = message_receive(zsock_socket(z), false, &origin, &message, &why);
    if (r == -EAGAIN || r == -ETERM)
        return;
    if (wire_loses(origin.envelope.kind, "arrive"))
        return;
    now_ms = clock_mono_ms();
    client->heard_ms = now_ms;
    client_set_up(client, true);
    if (client->closing)
        return;
    /* another run's replies and pushes are not for us, but its refusal says just that */
    if (r == 0 && (!origin.envelope.run || !client->wire->run || origin.envelope.run == client->wire->run ||
                   origin.envelope.kind == WIRE_KIND(ERROR))) {
        on_message(client, message, now_ms);
        return;
    }
    if (r < 0)
        client->why = why;
    HASH_FIND(hh, client->calls, &origin.envelope.request, sizeof origin.envelope.request, call);
    if (call)
        finish(client, call, r == 0 ? -EACCES : r == -EPROTO ? -EPROTO : -EIO, NULL);
}
