/* message.h - one message: envelope, unpacked body, raw frames as they came (zero copy).
 *
 * Received messages are checked (sizes, CRCs, limits) and their body is unpacked by the kind's type before anyone
 * sees them: `(const Gantry__Lease *)message->body` just works. Everything a message points to lives as long as it.
 *
 * Thread rule: created and freed on the loop thread or any other, by one thread at a time; reading body and parts
 * from a compute thread is fine. */
#pragma once

#include "base/error.h"
#include "wire/envelope.h"

struct message {
    struct envelope envelope;
    const ProtobufCMessage *body;       /* of the kind's type; NULL when the kind has none */
    const uint8_t *body_bytes;          /* frame 1 as it came */
    size_t body_size;
    unsigned n_parts;                   /* raw frames behind the body */
};

/* Raw frame i (< n_parts), frame 2 + i on the wire. */
const uint8_t *message_part(const struct message *message, unsigned i, size_t *ret_size);
struct message *message_free(struct message *message);
DEFINE_FREEP(struct message, message_free)

/* A raw frame to send.
 * release == NULL: the bytes are copied during the call.
 * release != NULL: they are borrowed, never copied, until release(arg) is called, once, also when the call fails;
 * on ANY thread (usually ZeroMQ's), so it should only drop an atomic count or free memory. */
struct wire_part {
    const void *bytes;
    size_t size;
    void (*release)(void *arg);
    void *arg;
};

/* ---- for client.c, server.c and tests ---------------------------------------------------------------- */

/* A message ready to go out, which can be sent more than once (frames are shared by reference count). */
struct outgoing;

/* Packs `body` (NULL: empty) and wraps the parts; the releases are taken over whether it succeeds or not.
 * -EMSGSIZE: over the limits of the kind.  -ENOMEM. */
int outgoing_new(const struct envelope *envelope, const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts,
                 struct outgoing **ret);
struct outgoing *outgoing_free(struct outgoing *out);
DEFINE_FREEP(struct outgoing, outgoing_free)
struct envelope *outgoing_envelope(struct outgoing *out);      /* may be changed between sends */

/* Send without blocking; peer (routing id) NULL on a DEALER. -EAGAIN: not now; -EHOSTUNREACH: the peer is gone. */
int outgoing_send(struct outgoing *out, void *socket, const void *peer, size_t peer_size);

/* Receive one message without blocking; consumes all its frames in every case but -EAGAIN.
 * router: the socket is a ROUTER, and frame 0 the sender's routing id. *ret_origin is set on a refusal too, as far as it could be
 * read, so that it can be answered; *ret_message, the caller's to free, only with 0.
 * -EBADMSG, -EMSGSIZE, -EPROTO, -ENOMEM: refused, with the reason in *error. */
enum { WIRE_PEER_ID_MAX = 64, WIRE_USER_MAX = 64 };
struct wire_origin {
    uint8_t peer[WIRE_PEER_ID_MAX];
    size_t peer_size;
    char user[WIRE_USER_MAX];       /* ZAP user id: the Z85 public key; "" without CURVE */
    struct envelope envelope;       /* as far as it was understood; kind 0: not at all */
};
int message_receive(void *socket, bool router, struct wire_origin *ret_origin, struct message **ret_message, struct error *error);
