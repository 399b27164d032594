/* client_internal.h - what the client's two files share.
 *
 *   client.c         the connection: its life, its silence, its deadlines
 *   client_call.c    calls: sent, repeated, answered, ended */
#pragma once

#include <uthash.h>

#include "base/clock.h"
#include "wire/address.h"
#include "wire/budget.h"
#include "wire/client.h"
#include "wire/monitor.h"
#include "wire/zsock.h"

struct call {
    uint64_t id;
    const struct wire_kind *kind;
    struct outgoing *out;
    enum wire_call_flags flags;
    wire_reply_fn *on_reply;
    void *arg;
    uint64_t deadline_ms, repeat_ms;    /* monotonic; UINT64_MAX: never */
    unsigned sent, refused;             /* how often; for the backoffs */
    bool free;                          /* the next repetition only waits for a version: it takes nothing from the budget */
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
    struct budget budget;       /* of repetitions */
    uint64_t jitter;            /* state of a linear congruential generator */
    uint64_t reopen_ms;         /* connect anew then; UINT64_MAX: no need */
    uint64_t reached_ms;        /* the present handshake began */
    uint32_t handshake_ms, socket_handshake_ms;     /* how long the next one may take, and those of the present socket */
    unsigned broken;            /* handshakes in a row that ended soon and without a reason */
    bool connected;             /* a handshake is through, and ZeroMQ has not said that the connection broke: nothing is sent
                                 * else */
    bool up, closing;           /* up: it answers */
    struct error why;           /* the last answer that could not be read */
};

/* client_call.c */
void client_want_out(struct wire_client *client);       /* hear when the connection takes more, if anything waits and there is
                                                         * one */
void client_set_waiting(struct wire_client *client, struct call *call, bool waiting);
/* End all calls that `pick` chooses (NULL: all). */
void client_finish_all(struct wire_client *client, int result, bool (*pick)(const struct call *call, uint64_t now_ms),
                       uint64_t now_ms);
void client_send_waiting(struct wire_client *client);
void client_ping(struct wire_client *client);
void client_set_up(struct wire_client *client, bool up);
void client_on_in(struct zsock *z, void *arg);
void client_on_out(struct zsock *z, void *arg);

/* client.c */
void client_wake_at(struct wire_client *client, uint64_t at_ms);        /* the timer fires then at the latest */
void client_on_timer(uv_timer_t *timer);
void client_on_connection(enum monitor_event event, void *arg);
