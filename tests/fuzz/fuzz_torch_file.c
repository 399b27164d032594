/* A .pt file from anyone. The input is taken twice: as the archive, and, since no random change gets past an archive's checksums,
 * as the pickle inside one that is sound. What is accepted must be readable to the last byte. */
#include <zlib.h>

#include "nn/torch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { LIMIT = 1 << 16 };

struct out { uint8_t *bytes; size_t n; };

static void put(struct out *out, uint64_t value, int width)
{
    for (int i = 0; i < width; i++)
        out->bytes[out->n++] = (uint8_t)(value >> 8 * i);
}

static void put_bytes(struct out *out, const void *bytes, size_t n)
{
    memcpy(out->bytes + out->n, bytes, n);
    out->n += n;
}

struct entry { const char *name; const void *bytes; size_t n; size_t offset; };

/* What local header and directory record have in common, from the version needed on. */
static void put_common(struct out *out, const struct entry *e)
{
    put(out, 20, 2);
    put(out, 0, 8);                                         /* flags, stored, time, date */
    put(out, crc32(0, e->bytes, (uInt)e->n), 4);
    put(out, e->n, 4);
    put(out, e->n, 4);
    put(out, strlen(e->name), 2);
    put(out, 0, 2);
}

static void put_archive(struct out *out, struct entry *entries, int n)
{
    size_t begin, end;

    for (int i = 0; i < n; i++) {
        entries[i].offset = out->n;
        put(out, 0x04034b50, 4);
        put_common(out, &entries[i]);
        put_bytes(out, entries[i].name, strlen(entries[i].name));
        put_bytes(out, entries[i].bytes, entries[i].n);
    }
    begin = out->n;
    for (int i = 0; i < n; i++) {
        put(out, 0x02014b50, 4);
        put(out, 20, 2);
        put_common(out, &entries[i]);
        put(out, 0, 2);                                     /* comment, disk, attributes */
        put(out, 0, 8);
        put(out, entries[i].offset, 4);
        put_bytes(out, entries[i].name, strlen(entries[i].name));
    }
    end = out->n;
    put(out, 0x06054b50, 4);
    put(out, 0, 4);
    put(out, (uint64_t)n, 2);
    put(out, (uint64_t)n, 2);
    put(out, end - begin, 4);
    put(out, begin, 4);
    put(out, 0, 2);
}

static void look(const void *bytes, size_t n)
{
    static volatile unsigned long sink;
    struct torch_file *file = NULL;
    struct error error;
    const struct st_tensor *list;
    int count;

    if (torch_file_parse("fuzz", bytes, n, &file, &error) < 0)
        return;
    list = torch_file_tensors(file, &count);
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < list[i].bytes; k++)
            sink += ((const uint8_t *)list[i].data)[k];
    torch_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint8_t storage[96] = {1, 2, 3};
    struct entry entries[] = {
        {"a/data.pkl", bytes, n, 0}, {"a/data/0", storage, sizeof(storage), 0}, {"a/data/1", storage, 48, 0},
        {"a/data/2", storage, 0, 0},
    };
    struct out out = {0};

    look(bytes, n);
    if (n > LIMIT)
        return 0;
    out.bytes = malloc(n + 2048);
    if (!out.bytes)
        abort();
    put_archive(&out, entries, ARRAY_SIZE(entries));
    look(out.bytes, out.n);
    free(out.bytes);
    return 0;
}
