/* zip.c - PKWARE APPNOTE 6.3: end record (and its 64-bit twin), central directory, local headers. */
#include "base/zip.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"

enum {
    END_RECORD = 0x06054b50, END_SIZE = 22, END_SEARCH = END_SIZE + 65535,
    END64_LOCATOR = 0x07064b50, END64_LOCATOR_SIZE = 20, END64_RECORD = 0x06064b50, END64_SIZE = 56,
    DIRECTORY_RECORD = 0x02014b50, DIRECTORY_SIZE = 46,
    LOCAL_RECORD = 0x04034b50, LOCAL_SIZE = 30,
    EXTRA_ZIP64 = 1, METHOD_STORED = 0, METHOD_DEFLATED = 8,
    FLAG_ENCRYPTED = 1, MAX_ENTRIES = 1 << 20,
};

static uint64_t load(const uint8_t *p, int bytes)
{
    uint64_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | p[bytes];
    return value;
}

static int damaged(const struct zip_archive *archive, const char *what, struct error *error)
{
    return error_set(error, EINVAL, "%s: not a readable ZIP archive: %s", archive->path, what);
}

/* Sizes and offset that did not fit 32 bits stand in the extra field, in this order, only those that did not fit. */
static int read_zip64(const uint8_t *extra, size_t n, uint64_t *wide[3])
{
    bool needed = false;

    for (int i = 0; i < 3; i++)
        needed |= *wide[i] == UINT32_MAX;
    if (!needed)
        return 0;
    while (n >= 4) {
        size_t length = load(extra + 2, 2);

        if (length > n - 4)
            return -EINVAL;
        if (load(extra, 2) == EXTRA_ZIP64) {
            const uint8_t *at = extra + 4;

            for (int i = 0; i < 3; i++) {
                if (*wide[i] != UINT32_MAX)
                    continue;
                if (length < 8)
                    return -EINVAL;
                *wide[i] = load(at, 8);
                at += 8;
                length -= 8;
            }
            return 0;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return -EINVAL;
}

/* One directory record at `at`, `left` bytes to the directory's end. *ret_used: its length. */
static int read_entry(const struct zip_archive *archive, const uint8_t *at, uint64_t left, struct zip_entry *entry,
                      uint64_t *ret_used, struct error *error)
{
    uint64_t name_length, extra_length, used, *wide[3] = { &entry->size, &entry->packed_size, &entry->offset };
    unsigned flags, method;

    if (left < DIRECTORY_SIZE || load(at, 4) != DIRECTORY_RECORD)
        return damaged(archive, "a directory record is missing or cut off", error);
    flags = (unsigned)load(at + 8, 2);
    method = (unsigned)load(at + 10, 2);
    entry->crc = (uint32_t)load(at + 16, 4);
    entry->packed_size = load(at + 20, 4);
    entry->size = load(at + 24, 4);
    name_length = load(at + 28, 2);
    extra_length = load(at + 30, 2);
    entry->offset = load(at + 42, 4);
    used = DIRECTORY_SIZE + name_length + extra_length + load(at + 32, 2);
    if (used > left)
        return damaged(archive, "a directory record is cut off", error);
    if (memchr(at + DIRECTORY_SIZE, 0, name_length))
        return damaged(archive, "an entry's name holds a NUL", error);
    if (read_zip64(at + DIRECTORY_SIZE + name_length, extra_length, wide) < 0)
        return damaged(archive, "an entry's 64-bit sizes are missing", error);

    entry->name = text_copy(at + DIRECTORY_SIZE, name_length);
    if (!entry->name)
        return error_set(error, ENOMEM, "%s: out of memory", archive->path);
    if (flags & FLAG_ENCRYPTED)
        return error_set(error, EINVAL, "%s: entry %s is encrypted", archive->path, entry->name);
    if (method != METHOD_STORED && method != METHOD_DEFLATED)
        return error_set(error, EINVAL, "%s: entry %s is packed by method %u; stored (0) and deflated (8) can be read",
                         archive->path, entry->name, method);
    entry->deflated = method == METHOD_DEFLATED;
    if (!entry->deflated && entry->size != entry->packed_size)
        return error_set(error, EINVAL, "%s: entry %s is stored, but has two sizes", archive->path, entry->name);
    *ret_used = used;
    return 0;
}

/* Where the directory lies and how many records it has; both 64-bit where the archive says so. */
static int find_directory(const struct zip_archive *archive, uint64_t *ret_count, uint64_t *ret_bytes, uint64_t *ret_offset,
                          struct error *error)
{
    const uint8_t *end, *stop;
    uint64_t at;

    if (archive->size < END_SIZE)
        return damaged(archive, "shorter than the smallest one", error);
    end = archive->bytes + archive->size - END_SIZE;
    stop = archive->size > END_SEARCH ? archive->bytes + archive->size - END_SEARCH : archive->bytes;
    while (load(end, 4) != END_RECORD || load(end + 20, 2) != (uint64_t)(archive->bytes + archive->size - end - END_SIZE))
        if (end-- == stop)
            return damaged(archive, "its end record is missing (is the file cut off?)", error);
    *ret_count = load(end + 10, 2);
    *ret_bytes = load(end + 12, 4);
    *ret_offset = load(end + 16, 4);

    if (end - archive->bytes >= END64_LOCATOR_SIZE && load(end - END64_LOCATOR_SIZE, 4) == END64_LOCATOR) {
        at = load(end - END64_LOCATOR_SIZE + 8, 8);
        if (at > archive->size || archive->size - at < END64_SIZE || load(archive->bytes + at, 4) != END64_RECORD)
            return damaged(archive, "its 64-bit end record is missing", error);
        *ret_count = load(archive->bytes + at + 32, 8);
        *ret_bytes = load(archive->bytes + at + 40, 8);
        *ret_offset = load(archive->bytes + at + 48, 8);
    }
    if (*ret_offset > archive->size || *ret_bytes > archive->size - *ret_offset)
        return damaged(archive, "its directory lies outside the file", error);
    if (*ret_count > MAX_ENTRIES || *ret_count > *ret_bytes / DIRECTORY_SIZE)
        return damaged(archive, "its directory is too small for its entries", error);
    return 0;
}

static int parse(struct zip_archive *archive, struct error *error)
{
    uint64_t count = 0, left = 0, offset = 0, used = 0;
    int r;

    r = find_directory(archive, &count, &left, &offset, error);
    if (r < 0)
        return r;
    archive->entries = calloc(count + 1, sizeof(*archive->entries));
    if (!archive->entries)
        return error_set(error, ENOMEM, "%s: out of memory", archive->path);
    for (uint64_t i = 0; i < count; i++) {
        archive->count++;       /* before: read_entry may leave a name to free */
        r = read_entry(archive, archive->bytes + offset, left, &archive->entries[i], &used, error);
        if (r < 0)
            return r;
        offset += used;
        left -= used;
    }
    return 0;
}

static int open_bytes(const char *name, const uint8_t *bytes, size_t n, bool mapped, struct zip_archive **ret,
                      struct error *error)
{
    _cleanup_(zip_closep) struct zip_archive *archive = calloc(1, sizeof(*archive));
    int r;

    if (!archive) {
        if (mapped)
            munmap((void *)(uintptr_t)bytes, n);
        return error_set(error, ENOMEM, "%s: out of memory", name);
    }
    *archive = (struct zip_archive) { .path = strdup(name), .bytes = bytes, .size = n, .mapped = mapped };
    if (!archive->path)
        return error_set(error, ENOMEM, "%s: out of memory", name);
    r = parse(archive, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(archive);
    return 0;
}

int zip_parse(const char *name, const void *bytes, size_t n, struct zip_archive **ret, struct error *error)
{
    return open_bytes(name, bytes, n, false, ret, error);
}

int zip_open(const char *path, struct zip_archive **ret, struct error *error)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *bytes;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size < END_SIZE)
        return error_set(error, EINVAL, "%s: not a ZIP archive", path);
    bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return error_set(error, errno, "%s: cannot be mapped: %s", path, strerror(errno));
    return open_bytes(path, bytes, (size_t)st.st_size, true, ret, error);
}

struct zip_archive *zip_close(struct zip_archive *archive)
{
    if (!archive)
        return NULL;
    for (int i = 0; i < archive->count; i++)
        free(archive->entries[i].name);
    if (archive->mapped)
        munmap((void *)(uintptr_t)archive->bytes, archive->size);
    free(archive->entries);
    free(archive->path);
    free(archive);
    return NULL;
}

const struct zip_entry *zip_find(const struct zip_archive *archive, const char *name)
{
    for (int i = 0; i < archive->count; i++)
        if (strcmp(archive->entries[i].name, name) == 0)
            return &archive->entries[i];
    return NULL;
}

/* The entry's bytes as they lie in the file. */
static int find_packed(const struct zip_archive *archive, const struct zip_entry *entry, const uint8_t **ret, struct error *error)
{
    const uint8_t *local = archive->bytes + entry->offset;
    uint64_t header;

    if (entry->offset > archive->size || archive->size - entry->offset < LOCAL_SIZE || load(local, 4) != LOCAL_RECORD)
        return error_set(error, EBADMSG, "%s: entry %s: its header is missing", archive->path, entry->name);
    header = LOCAL_SIZE + load(local + 26, 2) + load(local + 28, 2);
    if (archive->size - entry->offset < header || archive->size - entry->offset - header < entry->packed_size)
        return error_set(error, EBADMSG, "%s: entry %s is cut off", archive->path, entry->name);
    *ret = local + header;
    return 0;
}

static int unpack(const uint8_t *packed, const struct zip_entry *entry, uint8_t *out)
{
    z_stream stream = { .next_in = (Bytef *)(uintptr_t)packed, .next_out = out };
    uint64_t in_left = entry->packed_size, out_left = entry->size;
    int r;

    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        return -ENOMEM;
    do {        /* zlib counts in 32 bits */
        stream.avail_in = (uInt)MIN(in_left, (uint64_t)1 << 30);
        stream.avail_out = (uInt)MIN(out_left, (uint64_t)1 << 30);
        in_left -= stream.avail_in;
        out_left -= stream.avail_out;
        r = inflate(&stream, Z_NO_FLUSH);
        in_left += stream.avail_in;
        out_left += stream.avail_out;
    } while (r == Z_OK && (in_left || out_left));
    inflateEnd(&stream);
    return r == Z_STREAM_END && in_left == 0 && out_left == 0 ? 0 : -EBADMSG;
}

static uint32_t crc_of(const uint8_t *bytes, uint64_t n)
{
    uLong crc = crc32(0, NULL, 0);

    while (n) {
        uInt part = (uInt)MIN(n, (uint64_t)1 << 30);

        crc = crc32(crc, bytes, part);
        bytes += part;
        n -= part;
    }
    return (uint32_t)crc;
}

int zip_read(const struct zip_archive *archive, const struct zip_entry *entry, size_t limit, const uint8_t **ret, size_t *ret_n,
             void **ret_memory, struct error *error)
{
    _cleanup_free_ uint8_t *memory = NULL;
    const uint8_t *contents = NULL;
    int r;

    if (entry->size > limit)
        return error_set(error, EFBIG, "%s: entry %s holds %llu bytes; at most %zu were expected", archive->path, entry->name,
                         (unsigned long long)entry->size, limit);
    r = find_packed(archive, entry, &contents, error);
    if (r < 0)
        return r;
    if (entry->deflated) {
        if (entry->size / 1032 > entry->packed_size)    /* deflate's largest ratio: a lie, before memory is asked for */
            return error_set(error, EBADMSG, "%s: entry %s: sizes that deflate cannot reach", archive->path, entry->name);
        memory = malloc(entry->size ? entry->size : 1);
        if (!memory)
            return error_set(error, ENOMEM, "%s: entry %s: out of memory", archive->path, entry->name);
        r = unpack(contents, entry, memory);
        if (r < 0)
            return error_set(error, -r, "%s: entry %s does not unpack to its size", archive->path, entry->name);
        contents = memory;
    }
    if (crc_of(contents, entry->size) != entry->crc)
        return error_set(error, EBADMSG, "%s: entry %s is damaged (CRC)", archive->path, entry->name);
    *ret = contents;
    *ret_n = entry->size;
    *ret_memory = TAKE_PTR(memory);
    return 0;
}

int gzip_read(const char *path, size_t limit, char **ret, size_t *ret_n, struct error *error)
{
    _cleanup_free_ char *packed = NULL, *out = NULL;
    z_stream stream = {0};
    size_t n, room;
    int r = file_read(path, limit, &packed, &n);

    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    if (n < 18)
        return error_set(error, EBADMSG, "%s: not a gzip file", path);
    room = load((const uint8_t *)packed + n - 4, 4);    /* what the file says it holds, modulo 2^32: zlib checks it */
    if (room > limit || room / 1032 > n)
        return error_set(error, EFBIG, "%s: unpacks to %zu bytes; at most %zu were expected", path, room, limit);
    out = malloc(room + 1);
    if (!out || inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    stream.next_in = (Bytef *)packed;
    stream.avail_in = (uInt)n;
    stream.next_out = (Bytef *)out;
    stream.avail_out = (uInt)room;
    r = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    if (r != Z_STREAM_END || stream.avail_out)
        return error_set(error, EBADMSG, "%s: not a gzip file, or damaged", path);
    out[room] = '\0';
    *ret = TAKE_PTR(out);
    *ret_n = room;
    return 0;
}
