#include "wire/client.h"

#include <errno.h>
#include <uthash.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fault.h"
#include "wire/address.h"
#include "wire/monitor.h"
#include "wire/socket.h"
#include "wire/zsock.h"

enum {
    REPEAT_FIRST_MS = 1000, REPEAT_MOST_MS = 8000,  /* nothing came back */
    BUSY_FIRST_MS = 25, BUSY_MOST_MS = 1000,        /* the server said: later */
    LOADING_MS = 100,                               /* a version is on its way */
    REOPEN_MS = 1000,                               /* our key was refused: it may be let in later */
    BROKEN_MOST = 3,                                /* handshakes that end without a reason, in a row */
};

struct call {
    uint64_t id;
    const struct wire_kind *kind;
    struct outgoing *out;
    enum wire_call_flags flags;
    wire_reply_fn *on_reply;
    void *arg;
    uint64_t deadline_ms, repeat_ms;    /* monotonic; UINT64_MAX: never */
    unsigned sent, refused;             /* how often; for the backoffs */
    bool waiting;                       /* wants to be sent as soon as the socket takes it */
    UT_hash_handle hh;                  /* in order of calling */
};

struct wire_client {
    struct wire *wire;
    struct zsock *zsock;
    struct monitor *monitor;
    uv_timer_t timer;           /* next deadline, repetition or ping; its close callback frees the client */
    uint64_t timer_ms;          /* when it fires */
    struct wire_client_options options;
    char address[ADDRESS_MAX], server_key[41];
    struct call *calls;
    unsigned n_waiting;
    uint64_t last_id;
    uint64_t heard_ms, sent_ms;
    uint64_t jitter;            /* state of a linear congruential generator */
    uint64_t reopen_ms;         /* connect anew then; UINT64_MAX: no need */
    unsigned broken;            /* handshakes in a row that ended without a reason */
    bool up, connected, closing;
    struct error why;           /* the last answer that could not be read */
};

static void reopen(struct wire_client *client);

/* ---- ending calls ------------------------------------------------------------------------------------- */

static void set_waiting(struct wire_client *client, struct call *call, bool waiting)
{
    if (call->waiting != waiting)
        client->n_waiting += waiting ? 1 : -1u;
    call->waiting = waiting;
    if (client->zsock)
        zsock_want_out(client->zsock, client->n_waiting > 0);
}

static void call_free(struct wire_client *client, struct call *call)
{
    set_waiting(client, call, false);
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
static void finish_all(struct wire_client *client, int result, bool (*pick)(const struct call *call, uint64_t now_ms),
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

/* ---- the timer ---------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

static void wake_at(struct wire_client *client, uint64_t at_ms)
{
    uint64_t now_ms;

    if (client->closing || at_ms >= client->timer_ms)
        return;
    client->timer_ms = at_ms;
    now_ms = clock_mono_ms();
    uv_update_time(client->wire->loop);         /* libuv counts from its cached time */
    uv_timer_start(&client->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
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
    wake_at(client, call->repeat_ms);
}

/* ---- sending ------------------------------------------------------------------------------------------ */

static void stamp(struct wire_client *client, struct envelope *envelope)
{
    envelope->protocol = WIRE_PROTOCOL;
    envelope->epoch = client->wire->epoch;
    envelope->run = client->wire->run;
}

/* -EAGAIN: the socket takes nothing now. */
static int transmit(struct wire_client *client, struct call *call, uint64_t now_ms)
{
    struct envelope *envelope = outgoing_envelope(call->out);
    int r = 0;

    stamp(client, envelope);
    envelope->remaining_ms = (uint32_t)(call->deadline_ms > now_ms ? call->deadline_ms - now_ms : 1);
    if (fault_point("wire.request") != FAULT_DROP && !wire_loses(envelope->kind, "send"))
        r = outgoing_send(call->out, zsock_socket(client->zsock), NULL, 0);
    if (r < 0)
        return r;
    client->sent_ms = now_ms;
    set_waiting(client, call, false);
    call->sent++;
    call->repeat_ms = UINT64_MAX;
    if (call->kind->idempotent && !(call->flags & WIRE_ONCE))
        repeat_after(client, call, with_jitter(client, REPEAT_FIRST_MS, REPEAT_MOST_MS, call->sent - 1), now_ms);
    return 0;
}

static void send_waiting(struct wire_client *client)
{
    uint64_t now_ms = clock_mono_ms();
    struct call *call, *next;

    HASH_ITER(hh, client->calls, call, next)
        if (call->waiting && transmit(client, call, now_ms) < 0)
            return;
}

static void on_out(struct zsock *z, void *arg)
{
    (void)z;
    send_waiting(arg);
}

static int send_once(struct wire_client *client, Gantry__Kind kind, uint64_t request, uint64_t version,
                     const ProtobufCMessage *body)
{
    _cleanup_(outgoing_freep) struct outgoing *out = NULL;
    struct envelope envelope = {.kind = kind, .version = version, .request = request};
    int r;

    stamp(client, &envelope);
    r = outgoing_new(&envelope, body, NULL, 0, &out);
    if (r < 0)
        return r;
    if (fault_point("wire.request") == FAULT_DROP || wire_loses(kind, "send"))
        return 0;
    r = outgoing_send(out, zsock_socket(client->zsock), NULL, 0);
    if (r == 0)
        client->sent_ms = clock_mono_ms();
    return r;
}

int wire_send(struct wire_client *client, Gantry__Kind kind, uint64_t version, const ProtobufCMessage *body)
{
    return send_once(client, kind, 0, version, body);
}

static void ping(struct wire_client *client)
{
    client->sent_ms = clock_mono_ms();          /* also if it could not go out: the next try is a heartbeat away */
    (void)send_once(client, WIRE_KIND(PING), ++client->last_id, 0, NULL);
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
    wake_at(client, c->deadline_ms);
    if (transmit(client, c, now_ms) < 0)
        set_waiting(client, c, true);
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

static void set_up(struct wire_client *client, bool up)
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

static void on_in(struct zsock *z, void *arg)
{
    struct wire_client *client = arg;
    _cleanup_(message_freep) struct message *message = NULL;
    struct wire_origin origin;
    struct error why = {0};
    uint64_t now_ms;
    struct call *call;
    int r;

    r = message_receive(zsock_socket(z), false, &origin, &message, &why);
    if (r == -EAGAIN || r == -ETERM || r == -EINTR)
        return;
    if (wire_loses(origin.envelope.kind, "arrive"))
        return;
    now_ms = clock_mono_ms();
    client->heard_ms = now_ms;
    set_up(client, true);
    if (client->closing)
        return;
    if (r == 0 && (!origin.envelope.run || !client->wire->run || origin.envelope.run == client->wire->run)) {
        on_message(client, message, now_ms);
        return;
    }
    if (r < 0)
        client->why = why;
    HASH_FIND(hh, client->calls, &origin.envelope.request, sizeof origin.envelope.request, call);
    if (call)
        finish(client, call, r == 0 ? -EACCES : r == -EPROTO ? -EPROTO : -EIO, NULL);
}

/* ---- time and connection ------------------------------------------------------------------------------ */

static bool is_late(const struct call *call, uint64_t now_ms)
{
    return call->deadline_ms <= now_ms;
}

/* Sent on a connection that is gone, and not to be sent again. */
static bool is_lost(const struct call *call, uint64_t now_ms)
{
    (void)now_ms;
    return call->sent && !call->waiting && call->repeat_ms == UINT64_MAX;
}

static void reschedule(struct wire_client *client, uint64_t now_ms)
{
    uint64_t at_ms = MIN(client->heard_ms, client->sent_ms) + WIRE_HEARTBEAT_MS;
    struct call *call, *next;

    if (at_ms <= now_ms)        /* heard nothing for long: pings go on at their pace */
        at_ms = MAX(client->sent_ms + WIRE_HEARTBEAT_MS, now_ms + 1);
    at_ms = MIN(at_ms, client->reopen_ms);
    HASH_ITER(hh, client->calls, call, next)
        at_ms = MIN(at_ms, MIN(call->deadline_ms, call->repeat_ms));
    client->timer_ms = UINT64_MAX;
    wake_at(client, at_ms);
}

static void on_timer(uv_timer_t *timer)
{
    struct wire_client *client = timer->data;
    uint64_t now_ms = clock_mono_ms();
    struct call *call, *next;

    finish_all(client, -ETIMEDOUT, is_late, now_ms);
    if (client->closing)
        return;
    if (client->reopen_ms <= now_ms)
        reopen(client);
    HASH_ITER(hh, client->calls, call, next)
        if (call->repeat_ms <= now_ms) {
            call->repeat_ms = UINT64_MAX;
            set_waiting(client, call, true);
        }
    if (client->n_waiting)
        send_waiting(client);
    if (now_ms - client->heard_ms >= WIRE_SILENT_MS) {
        set_up(client, false);
        if (client->closing)
            return;
    }
    if (MIN(client->heard_ms, client->sent_ms) + WIRE_HEARTBEAT_MS <= now_ms && client->sent_ms + WIRE_HEARTBEAT_MS <= now_ms)
        ping(client);
    reschedule(client, now_ms);
}

/* What ZeroMQ says about the connection only makes things faster: silence is judged by our own pings. */
static void on_connection(enum monitor_event event, void *arg)
{
    struct wire_client *client = arg;
    struct call *call, *next;

    switch (event) {
    case MONITOR_CONNECTED:
        client->connected = true;
        client->broken = 0;
        ping(client);                   /* its answer says that the server is up */
        send_waiting(client);
        break;
    case MONITOR_DISCONNECTED:
        if (!client->connected)
            break;
        client->connected = false;
        finish_all(client, -ECONNRESET, is_lost, 0);
        if (client->closing)
            return;
        HASH_ITER(hh, client->calls, call, next)
            set_waiting(client, call, true);
        set_up(client, false);
        break;
    case MONITOR_DENIED:
        client->reopen_ms = clock_mono_ms() + REOPEN_MS;
        wake_at(client, client->reopen_ms);
        finish_all(client, -EACCES, NULL, 0);
        break;
    case MONITOR_BROKEN:                /* once may be a server that died just then */
        if (++client->broken % BROKEN_MOST == 0)
            finish_all(client, -EKEYREJECTED, NULL, 0);
        break;
    }
}

/* ---- life --------------------------------------------------------------------------------------------- */

static int connect_to(struct wire_client *client, const char *address, const char *server_key, struct error *error)
{
    void *socket = NULL;
    int r;

    r = address_check(address, error);
    if (r == 0)
        r = wire_socket_connect(client->wire, address, server_key, &socket, error);
    if (r < 0)
        return r;
    r = monitor_new(client->wire, socket, on_connection, client, &client->monitor);
    if (r == 0)
        r = zsock_new(client->wire->loop, socket, on_in, on_out, client, &client->zsock);
    if (r < 0) {
        client->monitor = monitor_free(client->monitor);
        zmq_close(socket);
        return error_set(error, -r, "%s: %s", address, zmq_strerror(-r));
    }
    if (zmq_connect(socket, address)) {
        r = error_set(error, errno, "cannot connect to %s: %s", address, zmq_strerror(errno));
        client->monitor = monitor_free(client->monitor);
        client->zsock = zsock_free(client->zsock);
        return r;
    }
    if (address != client->address)
        snprintf(client->address, sizeof client->address, "%s", address);
    if (server_key != client->server_key)
        snprintf(client->server_key, sizeof client->server_key, "%s", server_key ? server_key : "");
    client->reopen_ms = UINT64_MAX;
    return 0;
}

int wire_client_new(struct wire *wire, const struct wire_client_options *options, struct wire_client **ret, struct error *error)
{
    struct wire_client *client = calloc(1, sizeof *client);
    int r;

    if (!client)
        return -ENOMEM;
    client->wire = wire;
    client->options = *options;
    if (!client->options.credits)
        client->options.credits = WIRE_CREDITS;
    client->heard_ms = client->sent_ms = clock_mono_ms();
    client->timer_ms = client->reopen_ms = UINT64_MAX;
    client->jitter = clock_mono_ns() ^ (uintptr_t)client;
    r = connect_to(client, options->address, options->server_key, error);
    if (r < 0) {
        free(client);
        return r;
    }
    client->options.address = client->address;      /* the caller's may go */
    client->options.server_key = NULL;
    uv_timer_init(wire->loop, &client->timer);
    client->timer.data = client;
    reschedule(client, client->sent_ms);
    *ret = client;
    return 0;
}

int wire_client_move(struct wire_client *client, const char *address, const char *server_key, struct error *error)
{
    struct zsock *old = client->zsock;
    struct monitor *old_monitor = client->monitor;
    int r;

    client->zsock = NULL;
    client->monitor = NULL;
    r = connect_to(client, address, server_key, error);
    if (r < 0) {
        client->zsock = old;
        client->monitor = old_monitor;
        return r;
    }
    monitor_free(old_monitor);
    zsock_free(old);
    on_connection(MONITOR_DISCONNECTED, client);
    return 0;
}

static void reopen(struct wire_client *client)
{
    if (wire_client_move(client, client->address, client->server_key, NULL) < 0)
        client->reopen_ms = clock_mono_ms() + REOPEN_MS;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct wire_client *wire_client_free(struct wire_client *client)
{
    if (!client || client->closing)
        return NULL;
    client->closing = true;
    finish_all(client, -ECANCELED, NULL, 0);
    client->monitor = monitor_free(client->monitor);
    client->zsock = zsock_free(client->zsock);
    uv_close((uv_handle_t *)&client->timer, on_closed);
    return NULL;
}

bool wire_client_up(const struct wire_client *client)
{
    return client->up;
}

unsigned wire_client_outstanding(const struct wire_client *client)
{
    return HASH_COUNT(client->calls);
}

const char *wire_client_address(const struct wire_client *client)
{
    return client->address;
}

const char *wire_client_why(const struct wire_client *client)
{
    return client->why.text;
}
