#include "wire/message.h"

#include <errno.h>
#include <unistd.h>
#include <zmq.h>

#include "base/crc32c.h"
#include "wire/proto_arena.h"

/* ---- going out ---------------------------------------------------------------------------------------- */

struct outgoing {
    struct envelope envelope;
    struct part_table parts;
    unsigned n;                 /* frames initialised: the body, then the raw ones */
    zmq_msg_t frames[];
};

/* ZeroMQ's release has two arguments, ours has one and a name of its own. */
struct loan {
    void (*release)(void *arg);
    void *arg;
};

static void end_loan(void *bytes, void *hint)
{
    struct loan *loan = hint;

    (void)bytes;
    loan->release(loan->arg);
    free(loan);
}

static int wrap_part(zmq_msg_t *frame, const struct wire_part *part)
{
    struct loan *loan;

    if (!part->release) {
        if (zmq_msg_init_size(frame, part->size))
            return -ENOMEM;
        if (part->size)
            memcpy(zmq_msg_data(frame), part->bytes, part->size);
        return 0;
    }
    loan = malloc(sizeof *loan);
    if (!loan)
        return -ENOMEM;
    *loan = (struct loan) {.release = part->release, .arg = part->arg};
    if (zmq_msg_init_data(frame, (void *)part->bytes, part->size, end_loan, loan)) {
        free(loan);
        return -ENOMEM;
    }
    return 0;
}

static int wrap_body(zmq_msg_t *frame, const ProtobufCMessage *body)
{
    size_t n = body ? protobuf_c_message_get_packed_size(body) : 0;

    if (n > WIRE_BODY_MAX)
        return -EMSGSIZE;
    if (zmq_msg_init_size(frame, n))
        return -ENOMEM;
    if (body)
        protobuf_c_message_pack(body, zmq_msg_data(frame));
    return 0;
}

static int add_frame(struct outgoing *out)
{
    zmq_msg_t *frame = &out->frames[out->n];
    size_t size = zmq_msg_size(frame);

    out->n++;
    if (size > WIRE_FRAME_MAX)
        return -EMSGSIZE;
    out->parts.size[out->parts.n] = (uint32_t)size;
    out->parts.crc[out->parts.n] = crc32c(0, zmq_msg_data(frame), size);
    out->parts.n++;
    return 0;
}

int outgoing_new(const struct envelope *envelope, const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts,
                 struct outgoing **ret)
{
    _cleanup_(outgoing_freep) struct outgoing *out = NULL;
    unsigned wrapped = 0;
    int r = -EMSGSIZE;

    if (n_parts > WIRE_PARTS_MAX)
        goto fail;
    r = -ENOMEM;
    out = malloc(sizeof *out + (1 + n_parts) * sizeof out->frames[0]);
    if (!out)
        goto fail;
    out->envelope = *envelope;
    out->parts.n = out->n = 0;
    r = wrap_body(&out->frames[0], body);
    if (r < 0)
        goto fail;
    r = add_frame(out);
    while (r == 0 && wrapped < n_parts) {
        r = wrap_part(&out->frames[out->n], &parts[wrapped]);
        if (r < 0)
            goto fail;
        wrapped++;
        r = add_frame(out);
    }
    if (r == 0)
        r = envelope_check_limits(&out->envelope, &out->parts, NULL) ? -EMSGSIZE : 0;
    if (r < 0)
        goto fail;
    *ret = TAKE_PTR(out);
    return 0;

fail:
    for (unsigned i = wrapped; i < n_parts; i++)        /* those wrapped are released with their frames */
        if (parts[i].release)
            parts[i].release(parts[i].arg);
    return r;
}

struct outgoing *outgoing_free(struct outgoing *out)
{
    if (!out)
        return NULL;
    for (unsigned i = 0; i < out->n; i++)
        zmq_msg_close(&out->frames[i]);
    free(out);
    return NULL;
}

struct envelope *outgoing_envelope(struct outgoing *out)
{
    return &out->envelope;
}

/* Sending and receiving may be interrupted (EINTR) between any two frames; half a message must not be the end of it. */
static int send_frame(void *socket, zmq_msg_t *frame, bool more)
{
    if (TEMP_FAILURE_RETRY(zmq_msg_send(frame, socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0))) < 0) {
        int r = -errno;

        zmq_msg_close(frame);
        return r;
    }
    return 0;
}

int outgoing_send(struct outgoing *out, void *socket, const void *peer, size_t peer_size)
{
    size_t size = envelope_size(&out->envelope, &out->parts);
    zmq_msg_t frame;
    int r;

    /* Only the first frame can fail with EAGAIN or EHOSTUNREACH: ZeroMQ takes a message whole or not at all. */
    if (peer && TEMP_FAILURE_RETRY(zmq_send(socket, peer, peer_size, ZMQ_DONTWAIT | ZMQ_SNDMORE)) < 0)
        return -errno;
    if (zmq_msg_init_size(&frame, size))
        return -ENOMEM;
    (void)envelope_pack(&out->envelope, &out->parts, zmq_msg_data(&frame), size);
    r = send_frame(socket, &frame, true);
    for (unsigned i = 0; i < out->n && r == 0; i++) {
        zmq_msg_init(&frame);
        zmq_msg_copy(&frame, &out->frames[i]);          /* shares the bytes, counts the reference */
        r = send_frame(socket, &frame, i + 1 < out->n);
    }
    return r;
}

/* ---- coming in ---------------------------------------------------------------------------------------- */

struct incoming {
    struct message message;
    struct proto_arena arena;
    unsigned n;                 /* frames received */
    zmq_msg_t frames[];
};

struct message *message_free(struct message *message)
{
    struct incoming *in = (struct incoming *)message;

    if (!in)
        return NULL;
    for (unsigned i = 0; i < in->n; i++)
        zmq_msg_close(&in->frames[i]);
    proto_arena_release(&in->arena);
    free(in);
    return NULL;
}

const uint8_t *message_part(const struct message *message, unsigned i, size_t *ret_size)
{
    struct incoming *in = (struct incoming *)message;

    if (ret_size)
        *ret_size = zmq_msg_size(&in->frames[1 + i]);
    return zmq_msg_data(&in->frames[1 + i]);
}

static int receive_frame(void *socket, zmq_msg_t *frame)
{
    return TEMP_FAILURE_RETRY(zmq_msg_recv(frame, socket, ZMQ_DONTWAIT)) < 0 ? -errno : 0;
}

/* Throw away what is left of the message being received. */
static void drain(void *socket, bool more)
{
    while (more) {
        zmq_msg_t frame;

        zmq_msg_init(&frame);
        more = receive_frame(socket, &frame) == 0 && zmq_msg_more(&frame);
        zmq_msg_close(&frame);
    }
}

static int receive_peer(void *socket, struct wire_origin *origin, bool *more)
{
    zmq_msg_t frame;
    int r;

    zmq_msg_init(&frame);
    r = receive_frame(socket, &frame);
    if (r == 0) {
        *more = zmq_msg_more(&frame);
        origin->peer_size = MIN(zmq_msg_size(&frame), sizeof origin->peer);
        memcpy(origin->peer, zmq_msg_data(&frame), origin->peer_size);
    }
    zmq_msg_close(&frame);
    return r;
}

static int receive_envelope(void *socket, struct wire_origin *origin, struct part_table *parts, bool *more, struct error *error)
{
    const char *user;
    zmq_msg_t frame;
    int r;

    zmq_msg_init(&frame);
    r = receive_frame(socket, &frame);
    if (r < 0) {
        *more = false;
    } else {
        *more = zmq_msg_more(&frame);
        user = zmq_msg_gets(&frame, "User-Id");
        snprintf(origin->user, sizeof origin->user, "%s", user ? user : "");
        r = envelope_unpack(zmq_msg_data(&frame), zmq_msg_size(&frame), &origin->envelope, parts, error);
    }
    zmq_msg_close(&frame);
    return r;
}

static int receive_parts(void *socket, struct incoming *in, const struct part_table *parts, bool *more, struct error *error)
{
    int r;

    while (*more) {
        zmq_msg_t *frame;

        if (in->n == parts->n)
            return error_set(error, EBADMSG, "more frames than the %u the envelope announces", parts->n);
        frame = &in->frames[in->n];
        zmq_msg_init(frame);
        in->n++;
        r = receive_frame(socket, frame);
        if (r < 0) {
            *more = false;
            return r;
        }
        *more = zmq_msg_more(frame);
        r = envelope_check_part(parts, in->n - 1, zmq_msg_data(frame), zmq_msg_size(frame), error);
        if (r < 0)
            return r;
    }
    if (in->n != parts->n)
        return error_set(error, EBADMSG, "%u frames behind the envelope, it announces %u", in->n, parts->n);
    return 0;
}

static int unpack_body(struct incoming *in, struct error *error)
{
    const struct wire_kind *kind = wire_kind(in->message.envelope.kind);

    in->message.body_bytes = zmq_msg_data(&in->frames[0]);
    in->message.body_size = zmq_msg_size(&in->frames[0]);
    in->message.n_parts = in->n - 1;
    if (!kind->body)
        return 0;
    in->message.body = proto_unpack(kind->body, in->message.body_bytes, in->message.body_size, &in->arena);
    if (!in->message.body)
        return error_set(error, EBADMSG, "%s: the body is not a %s, or unpacks to more than %zu bytes", kind->name,
                         kind->body->short_name, in->arena.cap);
    return 0;
}

static int receive_rest(void *socket, const struct wire_origin *origin, const struct part_table *parts, bool *more,
                        struct message **ret_message, struct error *error)
{
    struct incoming *in;
    int r;

    r = envelope_check_limits(&origin->envelope, parts, error);
    if (r < 0)
        return r;
    in = malloc(sizeof *in + parts->n * sizeof in->frames[0]);
    if (!in)
        return -ENOMEM;
    in->message = (struct message) {.envelope = origin->envelope};
    in->n = 0;
    proto_arena_init(&in->arena, proto_arena_cap(parts->size[0]));
    r = receive_parts(socket, in, parts, more, error);
    if (r == 0)
        r = unpack_body(in, error);
    if (r < 0) {
        message_free(&in->message);
        return r;
    }
    *ret_message = &in->message;
    return 0;
}

int message_receive(void *socket, bool router, struct wire_origin *ret_origin, struct message **ret_message, struct error *error)
{
    struct part_table parts;
    bool more = true;
    int r;

    ret_origin->peer_size = 0;
    ret_origin->user[0] = '\0';
    ret_origin->envelope = (struct envelope) {0};
    if (router) {
        r = receive_peer(socket, ret_origin, &more);
        if (r < 0)
            return r;
        if (!more)
            return error_set(error, EBADMSG, "a message without frames");
    }
    r = receive_envelope(socket, ret_origin, &parts, &more, error);
    if (r == 0)
        r = receive_rest(socket, ret_origin, &parts, &more, ret_message, error);
    if (r < 0)
        drain(socket, more);
    return r;
}
