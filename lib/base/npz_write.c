#include "base/npz_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct npz_entry {
    char name[72];
    uint32_t crc, packed, size, offset;
};

int npz_create(const char *path, struct npz *ret, struct error *error)
{
    struct npz npz = {.file = fopen(path, "wbe"), .path = strdup(path)};

    if (!npz.file || !npz.path) {
        int r = error_set(error, npz.file ? ENOMEM : errno, "%s: %s", path, strerror(npz.file ? ENOMEM : errno));

        if (npz.file)
            fclose(npz.file);
        free(npz.path);
        return r;
    }
    *ret = npz;
    return 0;
}

static void put(uint8_t **at, uint32_t value, int bytes)
{
    for (; bytes > 0; bytes--, value >>= 8)         /* beyond the fourth: zeros */
        *(*at)++ = (uint8_t)value;
}

/* The parts that local header and directory have in common: from "version needed" to the name's length. */
static void put_common(uint8_t **at, const struct npz_entry *e)
{
    put(at, 20, 2);
    put(at, 0, 2);
    put(at, 8, 2); /* deflated */
    put(at, 0, 2);
    put(at, 0x21, 2); /* 1980-01-01: the same bytes whenever it is written */
    put(at, e->crc, 4);
    put(at, e->packed, 4);
    put(at, e->size, 4);
    put(at, (uint32_t)strlen(e->name), 2);
}

static int fail(struct npz *npz, struct error *error)
{
    return error_set(error, errno ? errno : EIO, "%s: %s", npz->path, strerror(errno ? errno : EIO));
}

static int write_entry(struct npz *npz, struct npz_entry *e, const uint8_t *packed, struct error *error)
{
    uint8_t head[30], *at = head;
    long offset = ftell(npz->file);

    if (offset < 0 || (uint64_t)offset > UINT32_MAX)
        return error_set(error, EFBIG, "%s: more than 4 GB", npz->path);
    e->offset = (uint32_t)offset;
    put(&at, 0x04034b50, 4);
    put_common(&at, e);
    put(&at, 0, 2);
    errno = 0;
    if (fwrite(head, 1, sizeof head, npz->file) != sizeof head ||
        fwrite(e->name, 1, strlen(e->name), npz->file) != strlen(e->name) || fwrite(packed, 1, e->packed, npz->file) != e->packed)
        return fail(npz, error);
    return 0;
}

/* magic, version 1.0, a header padded so that the elements begin at a multiple of 64. */
static int npy_header(const char *descr, const size_t *shape, int dims, char *ret, size_t size)
{
    char dict[160];
    int n = snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr), total;

    for (int i = 0; i < dims; i++)
        n += snprintf(dict + n, sizeof dict - (size_t)n, "%zu%s", shape[i], i + 1 < dims || dims == 1 ? ", " : "");
    n += snprintf(dict + n, sizeof dict - (size_t)n, "), }");
    total = (10 + n + 1 + 63) / 64 * 64;
    if ((size_t)total > size)
        return -ENOSPC;
    memcpy(ret, "\x93NUMPY\x01\x00", 8);
    ret[8] = (char)((total - 10) & 0xff);
    ret[9] = (char)((total - 10) >> 8);
    memset(ret + 10, ' ', (size_t)total - 10);
    memcpy(ret + 10, dict, (size_t)n);
    ret[total - 1] = '\n';
    return total;
}

static int element_size(const char *descr) { return (int)strtol(descr + 2, NULL, 10) * (descr[1] == 'U' ? 4 : 1); }

int npz_add(struct npz *npz, const char *name, const char *descr, const size_t *shape, int dims, const void *bytes,
            struct error *error)
{
    struct npz_entry e = {0}, *larger = realloc(npz->entries, (size_t)(npz->n + 1) * sizeof *larger);
    size_t n = (size_t)element_size(descr);
    _cleanup_free_ uint8_t *packed = NULL;
    z_stream z = {0};
    char head[256];
    int length = npy_header(descr, shape, dims, head, sizeof head), r;

    if (!larger)
        return error_set(error, ENOMEM, "out of memory");
    npz->entries = larger;
    for (int i = 0; i < dims; i++)
        n *= shape[i];
    if (length < 0 || n > (size_t)3 << 30 || snprintf(e.name, sizeof e.name, "%s.npy", name) >= (int)sizeof e.name)
        return error_set(error, EFBIG, "%s: %s: an array of %zu bytes does not fit", npz->path, name, n);
    if (deflateInit2(&z, 1, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return error_set(error, ENOMEM, "out of memory");
    z.avail_out = (uInt)(deflateBound(&z, n + (size_t)length) + 64);
    packed = malloc(z.avail_out);
    z.next_out = packed;
    z.next_in = (Bytef *)head;
    z.avail_in = (uInt)length;
    r = packed ? deflate(&z, Z_NO_FLUSH) : Z_MEM_ERROR;
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)n;
    r = r == Z_OK ? deflate(&z, Z_FINISH) : r;
    e.packed = (uint32_t)z.total_out;
    deflateEnd(&z);
    if (r != Z_STREAM_END)
        return error_set(error, ENOMEM, "%s: %s: cannot be packed", npz->path, name);
    e.size = (uint32_t)(n + (size_t)length);
    e.crc = (uint32_t)crc32(crc32(0, (const Bytef *)head, (uInt)length), bytes, (uInt)n);
    r = write_entry(npz, &e, packed, error);
    if (r >= 0)
        npz->entries[npz->n++] = e;
    return r;
}

int npz_add_text(struct npz *npz, const char *name, const char *text, struct error *error)
{
    size_t n = strlen(text);
    _cleanup_free_ uint32_t *points = calloc(n + 1, sizeof *points);
    char descr[16];
    size_t k = 0;

    if (!points)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < n;) { /* UTF-8 to code points; what is no UTF-8 becomes itself, byte by byte */
        const uint8_t *c = (const uint8_t *)text + i;
        int more = c[0] < 0xc0 ? 0 : c[0] < 0xe0 ? 1 : c[0] < 0xf0 ? 2 : 3;
        uint32_t point = more ? c[0] & (0x3fu >> more) : c[0];

        if ((size_t)more >= n - i)
            return error_set(error, EINVAL, "%s: %s: a text that ends inside a character", npz->path, name);
        for (int m = 1; m <= more; m++)
            point = point << 6 | (c[m] & 0x3fu);
        points[k++] = point;
        i += (size_t)more + 1;
    }
    snprintf(descr, sizeof descr, "<U%zu", MAX(k, (size_t)1));
    return npz_add(npz, name, descr, NULL, 0, points, error);
}

int npz_close(struct npz *npz, struct error *error)
{
    long start = npz->file ? ftell(npz->file) : -1;
    int r = start < 0 ? -EINVAL : 0;
    size_t bytes = 0;
    uint8_t end[22], *at = end;

    errno = 0;
    for (int i = 0; i < npz->n && r >= 0; i++) {
        uint8_t head[46], *to = head;
        size_t length = strlen(npz->entries[i].name);

        put(&to, 0x02014b50, 4);
        put(&to, 20, 2);
        put_common(&to, &npz->entries[i]);
        put(&to, 0, 2 + 2 + 2 + 2);
        put(&to, 0, 4);
        put(&to, npz->entries[i].offset, 4);
        if (fwrite(head, 1, sizeof head, npz->file) != sizeof head ||
            fwrite(npz->entries[i].name, 1, length, npz->file) != length)
            r = fail(npz, error);
        bytes += sizeof head + length;
    }
    put(&at, 0x06054b50, 4);
    put(&at, 0, 4);
    put(&at, (uint32_t)npz->n, 2);
    put(&at, (uint32_t)npz->n, 2);
    put(&at, (uint32_t)bytes, 4);
    put(&at, (uint32_t)start, 4);
    put(&at, 0, 2);
    if (r >= 0 && fwrite(end, 1, sizeof end, npz->file) != sizeof end)
        r = fail(npz, error);
    if (npz->file && fclose(npz->file) != 0 && r >= 0)
        r = fail(npz, error);
    free(npz->path);
    free(npz->entries);
    *npz = (struct npz){0};
    return r;
}
