/* wire_format.h - reading protobuf's wire format field by field, in place, with every length checked.
 *
 *   struct wire_reader r = wire_reader(bytes, n);
 *   while ((k = wire_next(&r, &field)) > 0) switch (field.number) ...
 *   if (k < 0) the bytes are no such message
 *
 * For messages that are not gantry's own: tokenizer.model of a model directory, tf.train.Example of RLDS files. Groups are
 * refused. */
#pragma once

#include "base/macro.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct wire_reader { const uint8_t *at, *end; };
struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;             /* VARINT, FIXED32, FIXED64 */
    const uint8_t *bytes;       /* BYTES: points into the message */
    size_t n;
};

/* Borrows the bytes. */
static inline struct wire_reader wire_reader(const void *bytes, size_t n)
{
    return (struct wire_reader) {bytes, (const uint8_t *)bytes + n};
}
/* 1: *ret is the next field; 0: the end; -EBADMSG: malformed. */
int wire_next(struct wire_reader *reader, struct wire_field *ret);
float wire_float(const struct wire_field *field);       /* of a FIXED32 */
