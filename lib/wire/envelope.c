#include "wire/envelope.h"

#include <errno.h>

#include "base/crc32c.h"
#include "base/plain.h"
#include "wire/proto_arena.h"

/* The plain struct as protobuf-c wants it; points into its arguments. */
static Gantry__Envelope to_proto(const struct envelope *envelope, const struct part_table *parts)
{
    Gantry__Envelope e = GANTRY__ENVELOPE__INIT;

    e.protocol = envelope->protocol;
    e.kind = (Gantry__Kind)envelope->kind;
    e.request = envelope->request;
    e.epoch = envelope->epoch;
    e.version = envelope->version;
    e.remaining_ms = envelope->remaining_ms;
    e.status = (Gantry__Status)envelope->status;
    e.error = (char *)envelope->error;
    e.run = envelope->run;
    e.n_part_size = e.n_part_crc32c = parts->n;
    e.part_size = (uint32_t *)parts->size;
    e.part_crc32c = (uint32_t *)parts->crc;
    return e;
}

size_t envelope_size(const struct envelope *envelope, const struct part_table *parts)
{
    Gantry__Envelope e = to_proto(envelope, parts);

    return gantry__envelope__get_packed_size(&e);
}

int envelope_pack(const struct envelope *envelope, const struct part_table *parts, void *bytes, size_t size)
{
    Gantry__Envelope e = to_proto(envelope, parts);

    if (gantry__envelope__get_packed_size(&e) > size)
        return -EMSGSIZE;
    gantry__envelope__pack(&e, bytes);
    return 0;
}

static struct envelope from_proto(const Gantry__Envelope *e)
{
    struct envelope envelope = {
        .protocol = e->protocol, .kind = (uint32_t)e->kind, .status = (uint32_t)e->status,
        .remaining_ms = e->remaining_ms, .request = e->request, .epoch = e->epoch,
        .version = e->version, .run = e->run,
    };

    snprintf(envelope.error, sizeof envelope.error, "%s", e->error);
    make_plain(envelope.error, '?');        /* a stranger's, and may end up in a log line */
    return envelope;
}

static int unpack(const void *bytes, size_t size, struct proto_arena *arena, struct envelope *ret_envelope,
                  struct part_table *ret_parts, struct error *error)
{
    const Gantry__Envelope *e;

    if (size == 0 || size > WIRE_ENVELOPE_MAX)
        return error_set(error, EMSGSIZE, "frame 0 has %zu bytes, an envelope has 1 to %d", size, WIRE_ENVELOPE_MAX);
    e = (const Gantry__Envelope *)proto_unpack(&gantry__envelope__descriptor, bytes, size, arena);
    if (!e)
        return error_set(error, EBADMSG, "frame 0 is not a gantry envelope");
    if (e->protocol >> 16 != WIRE_PROTOCOL_MAJOR) {
        *ret_envelope = from_proto(e);
        return error_set(error, EPROTO, "peer speaks protocol %u.%u, this side speaks %d.%d: run the same gantry on both sides",
                         e->protocol >> 16, e->protocol & 0xffff, WIRE_PROTOCOL_MAJOR, WIRE_PROTOCOL_MINOR);
    }
    if (e->n_part_size != e->n_part_crc32c)
        return error_set(error, EBADMSG, "envelope lists %zu sizes but %zu checksums", e->n_part_size, e->n_part_crc32c);
    if (e->n_part_size < 1 || e->n_part_size > 1 + WIRE_PARTS_MAX)
        return error_set(error, EMSGSIZE, "envelope announces %zu frames, 1 to %d are allowed", e->n_part_size,
                         1 + WIRE_PARTS_MAX);

    *ret_envelope = from_proto(e);
    ret_parts->n = (unsigned)e->n_part_size;
    memcpy(ret_parts->size, e->part_size, e->n_part_size * sizeof e->part_size[0]);
    memcpy(ret_parts->crc, e->part_crc32c, e->n_part_crc32c * sizeof e->part_crc32c[0]);
    return 0;
}

int envelope_unpack(const void *bytes, size_t size, struct envelope *ret_envelope, struct part_table *ret_parts,
                    struct error *error)
{
    struct proto_arena arena;
    int r;

    proto_arena_init(&arena, proto_arena_cap(WIRE_ENVELOPE_MAX));
    r = unpack(bytes, size, &arena, ret_envelope, ret_parts, error);
    proto_arena_release(&arena);
    return r;
}

int envelope_check_limits(const struct envelope *envelope, const struct part_table *parts, struct error *error)
{
    const struct wire_kind *kind = wire_kind(envelope->kind);

    if (!kind)
        return error_set(error, EBADMSG, "there is no message kind %u in protocol %d.%d", envelope->kind, WIRE_PROTOCOL_MAJOR,
                         WIRE_PROTOCOL_MINOR);
    if (parts->n < 1 || parts->n - 1 > kind->parts_max)
        return error_set(error, EBADMSG, "%s comes with %u frames behind the envelope, 1 to %u are allowed", kind->name, parts->n,
                         1u + kind->parts_max);
    if (parts->size[0] > kind->body_max)
        return error_set(error, EMSGSIZE, "%s: body of %u bytes, at most %u are allowed", kind->name, parts->size[0],
                         kind->body_max);
    for (unsigned i = 1; i < parts->n; i++)
        if (parts->size[i] > kind->part_max)
            return error_set(error, EMSGSIZE, "%s: frame %u of %u bytes, at most %u are allowed", kind->name, i + 1,
                             parts->size[i], kind->part_max);
    return 0;
}

int envelope_check_part(const struct part_table *parts, unsigned i, const void *bytes, size_t size, struct error *error)
{
    uint32_t crc;

    if (i >= parts->n)
        return error_set(error, EBADMSG, "frame %u is one more than the envelope announces", i + 1);
    if (size != parts->size[i])
        return error_set(error, EBADMSG, "frame %u has %zu bytes, the envelope says %u", i + 1, size, parts->size[i]);
    crc = crc32c(0, bytes, size);
    if (crc != parts->crc[i])
        return error_set(error, EBADMSG, "frame %u has CRC32C %08x, the envelope says %08x", i + 1, crc, parts->crc[i]);
    return 0;
}
