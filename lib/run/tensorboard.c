#include "run/tensorboard.h"

#include <errno.h>
#include <inttypes.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/crc32c.h"

struct tensorboard { FILE *file; };

/* TFRecord stores CRCs rotated and offset, so that a CRC of data that holds CRCs stays a good one. */
static uint32_t masked_crc(const void *bytes, size_t n)
{
    uint32_t crc = crc32c(0, bytes, n);

    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static int put_record(struct tensorboard *tb, const void *payload, size_t n)
{
    uint64_t length = n;
    uint32_t head = masked_crc(&length, sizeof length), body = masked_crc(payload, n);

    if (fwrite(&length, sizeof length, 1, tb->file) != 1 || fwrite(&head, sizeof head, 1, tb->file) != 1
        || fwrite(payload, 1, n, tb->file) != n || fwrite(&body, sizeof body, 1, tb->file) != 1)
        return -EIO;
    return 0;
}

/* Protobuf by hand: field << 3 | wire type (0 varint, 1 double, 2 bytes, 5 float). */
struct packer { uint8_t bytes[512]; size_t n; };

static void put_varint(struct packer *p, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        p->bytes[p->n++] = (uint8_t)(value | 0x80);
    p->bytes[p->n++] = (uint8_t)value;
}

static void put_tag(struct packer *p, unsigned field, unsigned wire) { put_varint(p, field << 3 | wire); }

static void put_fixed(struct packer *p, unsigned field, unsigned wire, const void *value, size_t n)
{
    put_tag(p, field, wire);
    memcpy(p->bytes + p->n, value, n);
    p->n += n;
}

static void put_bytes(struct packer *p, unsigned field, const void *bytes, size_t n)
{
    put_tag(p, field, 2);
    put_varint(p, n);
    memcpy(p->bytes + p->n, bytes, n);
    p->n += n;
}

int tensorboard_open(const char *dir, struct tensorboard **ret)
{
    _cleanup_(tensorboard_closep) struct tensorboard *tb = calloc(1, sizeof *tb);
    double wall = (double)clock_wall_ms() / 1e3;
    struct packer event = {0};
    char host[64] = "", path[640];
    int r;

    if (!tb)
        return -ENOMEM;
    r = mkdir_p(dir, 0755);
    if (r < 0)
        return r;
    (void)gethostname(host, sizeof host - 1);
    if ((size_t)snprintf(path, sizeof path, "%s/events.out.tfevents.%010.0f.%s", dir, wall, host) >= sizeof path)
        return -ENAMETOOLONG;
    tb->file = fopen(path, "ae");
    if (!tb->file)
        return -errno;
    put_fixed(&event, 1, 1, &wall, sizeof wall);
    put_bytes(&event, 3, "brain.Event:2", strlen("brain.Event:2"));
    r = put_record(tb, event.bytes, event.n);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(tb);
    return 0;
}

int tensorboard_scalar(struct tensorboard *tb, uint64_t wall_ms, int64_t step, const char *tag, float value)
{
    struct packer one = {0}, summary = {0}, event = {0};
    double wall = (double)wall_ms / 1e3;
    size_t n = strlen(tag);

    if (n > 200)
        return -ENAMETOOLONG;
    put_bytes(&one, 1, tag, n);
    put_fixed(&one, 2, 5, &value, sizeof value);
    put_bytes(&summary, 1, one.bytes, one.n);
    put_fixed(&event, 1, 1, &wall, sizeof wall);
    put_tag(&event, 2, 0);
    put_varint(&event, (uint64_t)step);
    put_bytes(&event, 5, summary.bytes, summary.n);
    return put_record(tb, event.bytes, event.n);
}

int tensorboard_flush(struct tensorboard *tb)
{
    return fflush(tb->file) ? -errno : 0;
}

struct tensorboard *tensorboard_close(struct tensorboard *tb)
{
    if (!tb)
        return NULL;
    if (tb->file)
        (void)fclose(tb->file);
    free(tb);
    return NULL;
}
