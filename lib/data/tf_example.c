#include "data/tf_example.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "nn/wire_format.h"

/* ---- records ------------------------------------------------------------------------------------- */

int tf_records_open(const char *path, struct tf_records *ret, struct error *error)
{
    struct tf_records records = {.mapped = true};
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    struct stat st;
    void *bytes;

    if (fd < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0)
        r = error_set(error, errno, "%s: %s", path, strerror(errno));
    else if (!st.st_size)
        r = error_set(error, EBADMSG, "%s: an empty file, expected TFRecords", path);
    if (r >= 0) {
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            r = error_set(error, errno, "%s: cannot be mapped: %s", path, strerror(errno));
        records.bytes = bytes;
        records.size = (size_t)st.st_size;
    }
    close(fd);
    if (r < 0)
        return r;
    records.path = strdup(path);
    if (!records.path) {
        tf_records_close(&records);
        return error_set(error, ENOMEM, "out of memory");
    }
    *ret = records;
    return 0;
}

void tf_records_parse(const void *bytes, size_t n, struct tf_records *ret)
{
    *ret = (struct tf_records){.bytes = bytes, .size = n};
}

void tf_records_close(struct tf_records *records)
{
    if (records->mapped)
        munmap((void *)records->bytes, records->size);
    free(records->path);
    *records = (struct tf_records){0};
}

static uint32_t u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t masked(const uint8_t *bytes, size_t n)
{
    uint32_t crc = crc32c(0, bytes, n);

    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static int bad(const struct tf_records *r, size_t at, const char *what, struct error *error)
{
    return error_set(error, EBADMSG, "%s: the record at byte %zu %s", r->path ? r->path : "record", at, what);
}

/* The length of the record at `at`, whose header is checked. */
static int length_at(const struct tf_records *r, size_t at, uint64_t *ret, struct error *error)
{
    const uint8_t *head = r->bytes + at;
    uint64_t length;

    if (r->size - at < 16)
        return bad(r, at, "is cut short", error);
    if (masked(head, 8) != u32(head + 8))
        return bad(r, at, "has a length with a wrong checksum: no TFRecord, or a damaged one", error);
    length = (uint64_t)u32(head) | (uint64_t)u32(head + 4) << 32;
    if (length > r->size - at - 16)
        return bad(r, at, "is cut short", error);
    *ret = length;
    return 0;
}

int tf_records_next(struct tf_records *records, const uint8_t **ret, size_t *ret_n, struct error *error)
{
    const uint8_t *body = records->bytes + records->at + 12;
    uint64_t length;
    int r;

    if (records->at == records->size)
        return 0;
    r = length_at(records, records->at, &length, error);
    if (r < 0)
        return r;
    if (masked(body, length) != u32(body + length))
        return bad(records, records->at, "has a wrong checksum: it is damaged", error);
    records->at += 16 + length;
    *ret = body;
    *ret_n = length;
    return 1;
}

int tf_records_count(const struct tf_records *records, struct error *error)
{
    int n = 0, r;
    uint64_t length;

    for (size_t at = 0; at < records->size; at += 16 + length, n++) {
        r = length_at(records, at, &length, error);
        if (r < 0)
            return r;
    }
    return n;
}

/* ---- examples ------------------------------------------------------------------------------------ */

/* The single field `number` of a message, as bytes; the last one counts, as protobuf has it. */
static int only_field(const uint8_t *bytes, size_t n, uint32_t number, struct wire_field *ret)
{
    struct wire_reader reader = wire_reader(bytes, n);
    struct wire_field field;
    bool found = false;
    int k;

    while ((k = wire_next(&reader, &field)) > 0)
        if (field.number == number && field.type == WIRE_BYTES) {
            *ret = field;
            found = true;
        }
    return k < 0 ? k : found ? 0 : -ENOENT;
}

/* ret NULL: only counted. */
static void put_number(double number, size_t *count, double *ret)
{
    if (ret)
        ret[*count] = number;
    ++*count;
}

static void floats(const uint8_t *bytes, size_t n, size_t *count, double *ret)
{
    for (size_t i = 0; i < n / 4; i++) {
        float x;

        memcpy(&x, bytes + 4 * i, sizeof x);
        put_number((double)x, count, ret);
    }
}

static int varints(const uint8_t *bytes, size_t n, size_t *count, double *ret)
{
    uint64_t value = 0;
    int shift = 0;

    for (size_t i = 0; i < n; i++) {
        if (shift > 63)
            return -EBADMSG;
        value |= (uint64_t)(bytes[i] & 0x7f) << shift;
        shift += 7;
        if (bytes[i] & 0x80)
            continue;
        put_number((double)(int64_t)value, count, ret);
        value = 0;
        shift = 0;
    }
    return shift ? -EBADMSG : 0;
}

/* Walk a list: how many, and where wanted which. Numbers come packed or one by one. */
static int walk(enum tf_kind kind, const uint8_t *list, size_t n, size_t *ret_count, double *ret)
{
    struct wire_reader reader = wire_reader(list, n);
    struct wire_field field;
    size_t count = 0;
    int k, r = 0;

    while (r >= 0 && (k = wire_next(&reader, &field)) > 0) {
        if (field.number != 1)
            continue;
        if (kind == TF_BYTES && field.type == WIRE_BYTES) {
            count++;
        } else if (kind == TF_INTEGERS && field.type == WIRE_BYTES) {
            r = varints(field.bytes, field.n, &count, ret);
        } else if (kind == TF_INTEGERS && field.type == WIRE_VARINT) {
            put_number((double)(int64_t)field.value, &count, ret);
        } else if (kind == TF_FLOATS && field.type == WIRE_BYTES && field.n % 4 == 0) {
            floats(field.bytes, field.n, &count, ret);
        } else if (kind == TF_FLOATS && field.type == WIRE_FIXED32) {
            put_number((double)wire_float(&field), &count, ret);
        } else {
            r = -EBADMSG;
        }
    }
    if (r < 0 || k < 0)
        return -EBADMSG;
    *ret_count = count;
    return 0;
}

static int read_feature(const uint8_t *bytes, size_t n, struct tf_feature *ret)
{
    struct wire_reader reader = wire_reader(bytes, n);
    struct wire_field field;
    struct tf_feature feature = {0};
    int k, r;

    while ((k = wire_next(&reader, &field)) > 0)
        if (field.number >= TF_BYTES && field.number <= TF_INTEGERS && field.type == WIRE_BYTES)
            feature = (struct tf_feature){.kind = (enum tf_kind)field.number, .list = field.bytes, .n = field.n};
    if (k < 0)
        return k;
    if (!feature.kind)
        return -ENOENT;
    r = walk(feature.kind, feature.list, feature.n, &feature.count, NULL);
    if (r < 0)
        return r;
    *ret = feature;
    return 0;
}

int tf_example_find(const void *bytes, size_t n, const char *name, struct tf_feature *ret)
{
    struct wire_field features, entry, key, value;
    struct wire_reader reader;
    int r = only_field(bytes, n, 1, &features), k;

    if (r < 0)
        return r;
    reader = wire_reader(features.bytes, features.n);
    while ((k = wire_next(&reader, &entry)) > 0) {
        if (entry.number != 1 || entry.type != WIRE_BYTES)
            continue;
        if (only_field(entry.bytes, entry.n, 1, &key) < 0)
            return -EBADMSG;
        if (key.n != strlen(name) || memcmp(key.bytes, name, key.n))
            continue;
        r = only_field(entry.bytes, entry.n, 2, &value);
        return r < 0 ? r : read_feature(value.bytes, value.n, ret);
    }
    return k < 0 ? k : -ENOENT;
}

int tf_feature_numbers(const struct tf_feature *feature, double *ret)
{
    size_t count;

    return feature->kind == TF_BYTES ? -EINVAL : walk(feature->kind, feature->list, feature->n, &count, ret);
}

int tf_feature_bytes(const struct tf_feature *feature, size_t i, const uint8_t **ret, size_t *ret_n)
{
    struct wire_reader reader = wire_reader(feature->list, feature->n);
    struct wire_field field;

    if (feature->kind != TF_BYTES)
        return -EINVAL;
    while (wire_next(&reader, &field) > 0)
        if (field.number == 1 && field.type == WIRE_BYTES && i-- == 0) {
            *ret = field.bytes;
            *ret_n = field.n;
            return 0;
        }
    return -ENOENT;
}

void tf_example_names(const void *bytes, size_t n, char *ret, size_t size)
{
    struct wire_field features, entry, key;
    struct wire_reader reader;
    size_t used = 0;

    ret[0] = '\0';
    if (only_field(bytes, n, 1, &features) < 0)
        return;
    reader = wire_reader(features.bytes, features.n);
    while (wire_next(&reader, &entry) > 0 && used < size)
        if (entry.number == 1 && entry.type == WIRE_BYTES && only_field(entry.bytes, entry.n, 1, &key) == 0)
            used += (size_t)snprintf(ret + used, size - used, "%s%.*s", used ? ", " : "", (int)MIN(key.n, (size_t)80),
                                     (const char *)key.bytes);
}
