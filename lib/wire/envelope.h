/* envelope.h - frame 0 as a plain struct, and the check that the other frames are what it says.
 *
 * A message is: frame 0 the envelope, frame 1 the body (a protobuf, maybe empty), frames 2.. raw bytes. The
 * envelope carries size and CRC32C of every frame behind it; nothing is parsed before they agree (an empty
 * or cut-off buffer can be a valid protobuf).
 *
 * Pure functions: no sockets, any thread.  Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "wire/kinds.h"
#include "wire/limits.h"

struct envelope {
    uint32_t protocol;          /* major << 16 | minor, of the sender */
    uint32_t kind;              /* Gantry__Kind */
    uint32_t status;            /* Gantry__Status; not 0 only in KIND_ERROR */
    uint32_t remaining_ms;      /* time the sender still waits, 0 = no deadline */
    uint64_t request;           /* chosen by the client, echoed in the reply; 0 = one way */
    uint64_t epoch;             /* the coordinator epoch the sender lives under; 0 before Welcome */
    uint64_t version;           /* policy or PRM version the request is about */
    uint64_t run;               /* run id; 0 before Welcome */
    char error[WIRE_ERROR_MAX]; /* one line; "" = none */
};

struct part_table {
    unsigned n;                 /* frames behind frame 0: the body, then the raw ones */
    uint32_t size[1 + WIRE_PARTS_MAX];
    uint32_t crc[1 + WIRE_PARTS_MAX];
};

/* Bytes of frame 0. At most WIRE_ENVELOPE_MAX. */
size_t envelope_size(const struct envelope *envelope, const struct part_table *parts);

/* Write frame 0. -EMSGSIZE: `size` is less than envelope_size(). */
int envelope_pack(const struct envelope *envelope, const struct part_table *parts, void *bytes, size_t size);

/* Read frame 0. -EBADMSG: not an envelope, or sizes and checksums differ in number. -EMSGSIZE: over the limits.
 * -EPROTO: another protocol major; then *ret_envelope holds at least protocol, kind and request. */
int envelope_unpack(const void *bytes, size_t size, struct envelope *ret_envelope, struct part_table *ret_parts,
                    struct error *error);

/* Do the table's numbers respect the kind's limits? -EBADMSG: unknown kind or too many frames; -EMSGSIZE. */
int envelope_check_limits(const struct envelope *envelope, const struct part_table *parts, struct error *error);

/* Is this frame the i-th (0 = body) that the table speaks of? -EBADMSG. */
int envelope_check_part(const struct part_table *parts, unsigned i, const void *bytes, size_t size, struct error *error);
