/* client.h - one server as seen by who asks: requests with deadlines and retries over one DEALER socket.
 *
 * wire_call() never blocks and always ends in exactly one on_reply, by the deadline at the latest. Kinds marked idempotent in
 * kinds.c are repeated with the same request id (after 1 s, doubling to 8 s, with jitter; at once after a reconnect)
 * until the deadline; the others fail with -ECONNRESET when the connection is lost under them. BUSY and STALE_EPOCH are repeated
 * likewise; a budget for each server keeps all of that from multiplying its load (budget.h). LOADING and WRONG_VERSION come to
 * the caller, unless WIRE_WAIT_VERSION asks to repeat them too. The client pings when idle and says on_state when the server has
 * gone silent or come back; a server that is down or not yet up is no error, calls wait for it.
 *
 * Results of on_reply:  0 (reply->body has the type of kind + 1), or
 *   -EBADMSG    BAD_REQUEST       -ESTALE     WRONG_VERSION    -EAGAIN  LOADING        -EBUSY  BUSY
 *   -ESHUTDOWN  SHUTTING_DOWN     -EREMOTEIO  INTERNAL         -EPROTO  PROTOCOL       -ESRCH  STALE_EPOCH
 *   -ETIMEDOUT  DEADLINE, or no answer in time                 -EACCES  DENIED, or our key is not let in
 *   -EKEYREJECTED  what listens there does not hold server_key's secret (three handshakes in a row that ended at once)
 *   -ECANCELED  client freed      -ECONNRESET see above        -EIO     the reply was malformed
 * `reply` is there (with envelope.error) whenever the server said something, else NULL. It is valid during the callback.
 *
 * Thread rule: the loop's thread only. Calls, also wire_client_free, may be made inside callbacks. */
#pragma once

#include "wire/message.h"
#include "wire/wire.h"

struct wire_client;
typedef void wire_reply_fn(int result, const struct message *reply, void *arg);

struct wire_client_options {
    const char *address;        /* "": not known yet, calls wait until wire_client_move */
    const char *server_key;     /* Z85 of the server's public key; NULL or "" on ipc */
    unsigned credits;           /* calls outstanding at once; 0 = WIRE_CREDITS */
    void (*on_push)(const struct message *message, void *arg);  /* one-way messages from the server; may be NULL */
    void (*on_state)(bool up, void *arg);   /* the server answers / has gone silent; may be NULL. Starts as down. */
    void *arg;
};

/* -EINVAL, -ENAMETOOLONG: the address; -EACCES: tcp without keys. Connecting goes on in the background. */
int wire_client_new(struct wire *wire, const struct wire_client_options *options, struct wire_client **ret, struct error *error);

/* Open calls end with -ECANCELED, before this returns. */
struct wire_client *wire_client_free(struct wire_client *client);
DEFINE_FREEP(struct wire_client, wire_client_free)

/* The server has a new address: connect there; open calls go on there as after a reconnect. */
int wire_client_move(struct wire_client *client, const char *address, const char *server_key, struct error *error);

bool wire_client_up(const struct wire_client *client);
unsigned wire_client_outstanding(const struct wire_client *client);     /* calls without an answer */
const char *wire_client_address(const struct wire_client *client);      /* "": none yet */
/* Why the last call that ended without a reply message had none, when an answer came and could not be read; else "". */
const char *wire_client_why(const struct wire_client *client);

enum wire_call_flags {
    WIRE_WAIT_VERSION = 1,      /* repeat on LOADING and WRONG_VERSION until the deadline */
    WIRE_ONCE = 2,              /* never repeat, whatever the kind */
};

struct wire_call {
    Gantry__Kind kind;
    uint64_t version;
    const ProtobufCMessage *body;       /* packed during the call */
    const struct wire_part *parts;      /* see message.h; borrowed ones are released after the last repetition */
    unsigned n_parts;
    uint32_t deadline_ms;               /* from now; must not be 0 */
    enum wire_call_flags flags;
    wire_reply_fn *on_reply;
    void *arg;
};

/* *ret_id (may be NULL) for wire_cancel. -ENOBUFS: no credit left, wait for a reply; -ECANCELED: the client is being freed;
 * -EMSGSIZE; -ENOMEM: on_reply is not called then, and parts are released. */
int wire_call(struct wire_client *client, const struct wire_call *call, uint64_t *ret_id);

/* Forget a call: on_reply is not called. No harm if it has ended. */
void wire_cancel(struct wire_client *client, uint64_t id);
