/* server.h - a ROUTER socket: requests come in, are answered now or later; pushes go out to known peers.
 *
 *   on_request(request, arg)      runs on the loop thread for every well-formed request or one-way message
 *     wire_reply(request, (ProtobufCMessage *)&reply, parts, n)         ... answers and ends it
 *     wire_refuse(request, GANTRY__STATUS__STATUS_LOADING, "...")       ... likewise
 *     request_take(request)       ... keeps it past the callback, e.g. for a compute thread. Then one of the two above,
 *                                 or request_drop, later, on the loop thread. The peer may be gone by then: no matter.
 * A request that is neither answered nor taken when on_request returns is refused as INTERNAL; one-way messages
 * (request_is_one_way) need no answer.
 *
 * Before on_request sees it, a message has passed: limits, CRCs, protobuf, protocol major, run id, epoch, key and role of
 * the sender, credits (`credits` outstanding a peer: BUSY beyond). A repeated request that is still being worked on is
 * dropped: it will be answered once. Bad input is answered with a line that says why, and counted; it never reaches the
 * daemon. A peer silent for WIRE_SILENT_MS is gone (clients ping by themselves).
 *
 * Thread rule: the loop's thread only (reading a taken request's body and parts: any thread). */
#pragma once

#include "wire/message.h"
#include "wire/wire.h"

struct wire_server;

struct request {
    struct message *message;    /* request->message->body, ->envelope, message_part(request->message, i, &size) */
    uint64_t peer;              /* number of the connection, never reused; for wire_push */
    Gantry__Role role;          /* of the sender's key; ROLE_NONE on ipc (anyone who may enter the directory) */
    const char *user;           /* the sender's public key, Z85; "" on ipc */
    uint64_t received_ms;       /* clock_mono_ms() */
    struct wire_server *server; /* NULL once the server is freed: answers go nowhere */
};

struct wire_server_options {
    const char *address;        /* ipc:///..., tcp://IP:PORT; tcp://IP:* takes a free port. tcp needs wire->security */
    unsigned credits;           /* outstanding requests per peer; 0 = WIRE_CREDITS */
    uint32_t frame_max;         /* bytes of the largest frame that is received at all; 0 = WIRE_FRAME_MAX */
    void (*on_request)(struct request *request, void *arg);
    void (*on_peer)(uint64_t peer, bool here, void *arg);   /* first message of a connection / silent too long; may be NULL */
    void *arg;
};

struct wire_server_stats {      /* monotone totals */
    uint64_t received, refused, malformed, busy, repeated;
    unsigned peers, outstanding;    /* now */
};

/* Binds. -EADDRINUSE, -ENAMETOOLONG (ipc path), -EACCES (tcp without keys), ...: the line says what to do. */
int wire_server_new(struct wire *wire, const struct wire_server_options *options, struct wire_server **ret, struct error *error);

/* Requests still held by others stay readable; answering them then only frees them. */
struct wire_server *wire_server_free(struct wire_server *server);
DEFINE_FREEP(struct wire_server, wire_server_free)

/* Where others reach it: the port is filled in, a wildcard is this host's name. */
const char *wire_server_address(const struct wire_server *server);
const struct wire_server_stats *wire_server_stats(const struct wire_server *server);

struct request *request_take(struct request *request);
bool request_is_one_way(const struct request *request);

/* Answer and end a request. The reply's kind is the request's + 1. Parts: see message.h.
 * -EHOSTUNREACH: the peer has gone (the client will ask again); -EMSGSIZE: the reply breaks its kind's limits (an INTERNAL
 * refusal was sent). The request is gone in every case. */
int wire_reply(struct request *request, const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts);
/* The same, but the request stays readable until request_drop. */
int wire_reply_and_keep(struct request *request, const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts);
int wire_refuse(struct request *request, Gantry__Status status, const char *format, ...) _printf_(3, 4);
void request_drop(struct request *request);     /* end it without an answer (the client will time out or ask again) */

/* One way to a peer that has spoken before. -EHOSTUNREACH: gone; -EAGAIN: it does not read (drop it or try later). */
int wire_push(struct wire_server *server, uint64_t peer, Gantry__Kind kind, uint64_t version, const ProtobufCMessage *body);
