#include "learner/collective.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sha256.h"
#include "proto/train.pb-c.h"

/* A rank may be far behind another, and rank 0 writes a large version for minutes. Who is gone is noticed otherwise: a connection
 * that is lost is made again, and whoever answers there then is in another plan, or at its beginning. */
enum { CALL_MS = 3600000, IDLE = 1 };

#define END UINT64_MAX          /* the sequence of a part that asks how the plan ended */

struct collective {
    struct loop *loop;
    struct wire *wire;
    unsigned rank, ranks;
    struct wire_client *client;         /* rank > 0: to rank 0 */
    struct request *waiting[COLLECTIVE_RANKS_MAX];      /* rank 0: parts that are here; loop's thread */
    struct { uint64_t peer, request; } answered[COLLECTIVE_RANKS_MAX];  /* the last of each rank */
    collective_anew_fn *anew; void *anew_arg;           /* NULL: nobody wants to know */

    pthread_mutex_t lock;               /* what follows is shared with the train thread */
    pthread_cond_t done;
    uint8_t plan[SHA256_SIZE];
    uint64_t sequence;                  /* of the gather in progress, or the next */
    const void *mine; size_t bytes; void *all;
    int result;                         /* IDLE while it goes on */
    bool active, aborted;
    uint64_t since_ms;                  /* the gather in progress began */
    uint8_t ended[SHA256_SIZE]; int ended_result;       /* rank 0: the last plan that came to its end, and how */
    bool has_ended;
};

int collective_new(struct loop *loop, struct wire *wire, unsigned rank, unsigned ranks, struct collective **ret)
{
    struct collective *c;

    if (ranks < 1 || ranks > COLLECTIVE_RANKS_MAX || COLLECTIVE_RANKS_MAX % ranks || rank >= ranks)
        return -EINVAL;
    c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    *c = (struct collective) {.loop = loop, .wire = wire, .rank = rank, .ranks = ranks};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->done, NULL);
    *ret = c;
    return 0;
}

struct collective *collective_free(struct collective *c)
{
    if (!c)
        return NULL;
    for (unsigned i = 0; i < c->ranks; i++)
        if (c->waiting[i])
            request_drop(c->waiting[i]);
    wire_client_free(c->client);
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
    free(c);
    return NULL;
}

int collective_connect(struct collective *c, const char *address, const char *key, struct error *error)
{
    if (c->client)
        return strcmp(wire_client_address(c->client), address) ? wire_client_move(c->client, address, key, error) : 0;
    return wire_client_new(c->wire, &(struct wire_client_options) {.address = address, .server_key = key}, &c->client, error);
}

void collective_on_anew(struct collective *c, collective_anew_fn *anew, void *arg)
{
    c->anew = anew;
    c->anew_arg = arg;
}

/* End the gather in progress; the lock is held. */
static void finish(struct collective *c, int result)
{
    if (!c->active)
        return;
    c->active = false;
    c->result = result;
    pthread_cond_signal(&c->done);
}

/* ---- rank 0, on the loop's thread --------------------------------------------------------------------- */

static const Gantry__Reduce *body_of(const struct request *request)
{
    return (const Gantry__Reduce *)request->message->body;
}

/* A repetition may have been on its way to us when the answer was on its way back: it is none of the next gather. */
static bool is_answered(const struct collective *c, unsigned rank, const struct request *request)
{
    return c->answered[rank].request && c->answered[rank].peer == request->peer &&
           c->answered[rank].request == request->message->envelope.request;
}

static void note_answered(struct collective *c, unsigned rank)
{
    c->answered[rank].peer = c->waiting[rank]->peer;
    c->answered[rank].request = c->waiting[rank]->message->envelope.request;
}

static void refuse(struct collective *c, unsigned rank, const char *text)
{
    note_answered(c, rank);
    wire_refuse(c->waiting[rank], GANTRY__STATUS__STATUS_INTERNAL, "%s", text);
    c->waiting[rank] = NULL;
}

static bool is_of(const Gantry__Reduce *body, const uint8_t plan[SHA256_SIZE])
{
    return body->check.len == SHA256_SIZE && !memcmp(body->check.data, plan, SHA256_SIZE);
}

/* Somebody has got to the end of a plan that is over here: is its version there? Under the lock. */
static bool tell_end(struct collective *c, unsigned rank)
{
    Gantry__Reduce reply = GANTRY__REDUCE__INIT;
    const Gantry__Reduce *body = body_of(c->waiting[rank]);

    if (body->sequence != END || !c->has_ended || !is_of(body, c->ended))
        return false;
    if (c->ended_result < 0) {
        refuse(c, rank, "rank 0 has not committed the version");
        return true;
    }
    reply.sequence = END;
    note_answered(c, rank);
    wire_reply(c->waiting[rank], &reply.base, NULL, 0);
    c->waiting[rank] = NULL;
    return true;
}

/* A part that is here while a gather goes on: of this gather, of another plan, or from a rank that began anew. Under the lock. */
static bool is_ours(struct collective *c, unsigned rank)
{
    const Gantry__Reduce *body = body_of(c->waiting[rank]);
    size_t size = 0;

    if (!is_of(body, c->plan)) {
        refuse(c, rank, "rank 0 is in another plan");
        return false;
    }
    if (body->sequence == END) {        /* of the go before: at its first gather now */
        refuse(c, rank, "rank 0 has begun the plan again");
        return false;
    }
    if (c->waiting[rank]->message->n_parts == 1)
        (void)message_part(c->waiting[rank]->message, 0, &size);
    if (body->sequence == c->sequence && size == c->bytes)
        return true;
    log_warn("learner ranks are out of step; the plan is begun again", "rank=%u sequence=%" PRIu64 " ours=%" PRIu64, rank,
             body->sequence, c->sequence);
    refuse(c, rank, "out of step with rank 0");
    finish(c, -ECONNRESET);
    return false;
}

static void answer_all(struct collective *c)
{
    Gantry__Reduce reply = GANTRY__REDUCE__INIT;
    struct wire_part part = {.bytes = c->all, .size = c->bytes * c->ranks};

    for (unsigned i = 1; i < c->ranks; i++) {
        size_t size;

        memcpy((char *)c->all + i * c->bytes, message_part(c->waiting[i]->message, 0, &size), c->bytes);
    }
    memcpy(c->all, c->mine, c->bytes);
    reply.sequence = c->sequence;
    for (unsigned i = 1; i < c->ranks; i++) {
        note_answered(c, i);
        wire_reply(c->waiting[i], &reply.base, &part, 1);
        c->waiting[i] = NULL;
    }
    finish(c, 0);
}

static void look(void *arg)
{
    struct collective *c = arg;
    unsigned here = 1;

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 1; i < c->ranks; i++)     /* a part that comes before its gather waits */
        here += c->waiting[i] && !tell_end(c, i) && c->active && is_ours(c, i);
    if (c->active && here == c->ranks)
        answer_all(c);
    pthread_mutex_unlock(&c->lock);
}

/* A part of a gather of this plan that is over. Under the lock. */
static bool is_anew(const struct collective *c, const Gantry__Reduce *body)
{
    return !c->active && is_of(body, c->plan) && body->sequence < c->sequence && c->sequence != END;
}

void collective_request(struct collective *c, struct request *request)
{
    uint32_t rank = body_of(request)->rank;
    bool anew;

    if (c->rank != 0 || rank < 1 || rank >= c->ranks) {
        wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "rank %u has no place in a group of %u led by rank %u", rank,
                    c->ranks, c->rank);
        return;
    }
    request = request_take(request);
    if (is_answered(c, rank, request)) {
        c->answered[rank].request = 0;          /* once: if it comes again, the answer has been lost */
        request_drop(request);
        return;
    }
    if (c->waiting[rank])
        request_drop(c->waiting[rank]);         /* an older life of that rank */
    c->waiting[rank] = request;
    pthread_mutex_lock(&c->lock);
    anew = c->anew && is_anew(c, body_of(request));
    pthread_mutex_unlock(&c->lock);
    if (anew)
        c->anew(rank, c->anew_arg);
    look(c);
}

/* ---- rank > 0, on the loop's thread ------------------------------------------------------------------- */

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct collective *c = arg;
    size_t size = 0;
    const uint8_t *all = result == 0 && reply->n_parts == 1 ? message_part(reply, 0, &size) : NULL;
    bool whole;

    pthread_mutex_lock(&c->lock);
    if (!c->active || (result == 0 && ((const Gantry__Reduce *)reply->body)->sequence != c->sequence)) {
        pthread_mutex_unlock(&c->lock);
        return;
    }
    whole = result == 0 && size == c->bytes * c->ranks;
    if (whole && size)
        memcpy(c->all, all, size);
    finish(c, whole ? 0 : -ECONNRESET);
    pthread_mutex_unlock(&c->lock);
}

static void send_part(void *arg)
{
    struct collective *c = arg;
    Gantry__Reduce body = GANTRY__REDUCE__INIT;
    int r = -ENOTCONN;

    pthread_mutex_lock(&c->lock);
    body.sequence = c->sequence;
    body.rank = c->rank;
    body.check = (ProtobufCBinaryData) {SHA256_SIZE, c->plan};
    if (c->active && c->client)
        r = wire_call(c->client, &(struct wire_call) {
            .kind = GANTRY__KIND__KIND_REDUCE, .body = &body.base,
            .parts = &(struct wire_part) {.bytes = c->mine, .size = c->bytes}, .n_parts = c->bytes > 0,
            .deadline_ms = CALL_MS, .on_reply = on_reply, .arg = c }, NULL);
    if (r < 0)
        finish(c, r);
    pthread_mutex_unlock(&c->lock);
}

/* ---- the train thread ------------------------------------------------------------------------------------ */

void collective_begin(struct collective *c, const void *plan_digest)
{
    pthread_mutex_lock(&c->lock);
    memcpy(c->plan, plan_digest, SHA256_SIZE);
    c->sequence = 0;
    c->has_ended = c->has_ended && memcmp(c->ended, c->plan, SHA256_SIZE);
    pthread_mutex_unlock(&c->lock);
}

int collective_gather(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    struct collective *c = arg;
    int r;

    pthread_mutex_lock(&c->lock);
    c->mine = mine;
    c->bytes = bytes;
    c->all = ret_all;
    c->result = IDLE;
    c->active = !c->aborted;
    c->since_ms = clock_mono_ms();
    if (c->aborted || loop_post(c->loop, c->rank == 0 ? look : send_part, c) < 0)
        finish(c, -ECANCELED);
    while (c->active)
        pthread_cond_wait(&c->done, &c->lock);
    r = c->aborted ? -ECANCELED : c->result;
    c->sequence++;
    pthread_mutex_unlock(&c->lock);
    return r;
}

int collective_end(struct collective *c, int result)
{
    pthread_mutex_lock(&c->lock);
    if (c->rank == 0) {
        memcpy(c->ended, c->plan, SHA256_SIZE);
        c->ended_result = result;
        c->has_ended = true;
    }
    c->sequence = END;
    pthread_mutex_unlock(&c->lock);
    if (c->rank > 0)
        return result < 0 ? result : collective_gather(c, NULL, 0, NULL);
    (void)loop_post(c->loop, look, c);          /* or it is seen with the next part that comes */
    return result;
}

uint32_t collective_late(struct collective *c, uint64_t now_ms)
{
    uint32_t late = 0;

    pthread_mutex_lock(&c->lock);
    if (c->active && c->sequence != END && now_ms >= c->since_ms + COLLECTIVE_LATE_MS) {
        late = c->rank > 0;
        for (unsigned i = 1; c->rank == 0 && i < c->ranks; i++)
            late |= c->waiting[i] ? 0 : 1u << i;
    }
    pthread_mutex_unlock(&c->lock);
    return late;
}

void collective_abort(struct collective *c)
{
    pthread_mutex_lock(&c->lock);
    c->aborted = true;
    finish(c, -ECANCELED);
    pthread_mutex_unlock(&c->lock);
}
