#include "nn/wire_format.h"

#include <errno.h>
#include <string.h>

static int read_varint(struct wire_reader *r, uint64_t *ret)
{
    uint64_t value = 0;

    for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        uint8_t byte = *r->at++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return 0;
        }
    }
    return -EBADMSG;
}

static int read_fixed(struct wire_reader *r, size_t n, uint64_t *ret)
{
    uint64_t value = 0;

    if ((size_t)(r->end - r->at) < n)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)r->at[i] << (8 * i);
    r->at += n;
    *ret = value;
    return 0;
}

int wire_next(struct wire_reader *r, struct wire_field *ret)
{
    struct wire_field field = {0};
    uint64_t key;
    int result;

    if (r->at == r->end)
        return 0;
    if (read_varint(r, &key) < 0 || key >> 3 == 0 || key >> 3 > 0x1fffffff)
        return -EBADMSG;
    field.number = (uint32_t)(key >> 3);
    field.type = (enum wire_type)(key & 7);
    switch (field.type) {
    case WIRE_VARINT: result = read_varint(r, &field.value); break;
    case WIRE_FIXED64: result = read_fixed(r, 8, &field.value); break;
    case WIRE_FIXED32: result = read_fixed(r, 4, &field.value); break;
    case WIRE_BYTES:
        result = read_varint(r, &field.value);
        if (result < 0 || field.value > (uint64_t)(r->end - r->at))
            return -EBADMSG;
        field.bytes = r->at;
        field.n = (size_t)field.value;
        r->at += field.n;
        break;
    default: result = -EBADMSG;
    }
    if (result < 0)
        return result;
    *ret = field;
    return 1;
}

float wire_float(const struct wire_field *field)
{
    uint32_t bits = (uint32_t)field->value;
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}
