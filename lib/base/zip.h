/* zip.h - read a ZIP archive: the container of torch's .pt files and of numpy's .npz. And gzip files.
 *
 *   zip_open(path) -> zip_find(archive, "archive/data.pkl") -> zip_read -> zip_close
 *
 * The file is mapped. Entries are stored or deflated, sizes may be 64 bits wide; encrypted, split and self-extracting
 * archives are refused. Every offset and length is checked before it is used, and contents are checked against their CRC.
 * Thread rule: one archive, one thread at a time. Failure rule: -errno and a line that names the file and the entry. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct zip_entry {
    char *name;                 /* as in the directory; no NUL inside */
    uint64_t size;              /* bytes when unpacked */
    uint64_t packed_size;       /* bytes in the file */
    uint64_t offset;            /* of its local header */
    uint32_t crc;
    bool deflated;              /* else stored */
};

struct zip_archive {
    char *path;                 /* for messages */
    const uint8_t *bytes;       /* the whole file */
    size_t size;
    bool mapped;                /* ours to unmap */
    struct zip_entry *entries;  /* in the directory's order */
    int count;
};

/* -EINVAL: not a ZIP file, or a damaged one. */
int zip_open(const char *path, struct zip_archive **ret, struct error *error);
/* From memory: borrows bytes; `name` stands for the path in messages. */
int zip_parse(const char *name, const void *bytes, size_t n, struct zip_archive **ret, struct error *error);
struct zip_archive *zip_close(struct zip_archive *archive);
DEFINE_FREEP(struct zip_archive, zip_close)

/* The entry of exactly this name, or NULL. */
const struct zip_entry *zip_find(const struct zip_archive *archive, const char *name);

/* An entry's contents, CRC checked. *ret points into the archive when the entry is stored (*ret_memory is NULL then),
 * else into *ret_memory, which the caller frees. -EFBIG: larger than `limit`.  -EBADMSG: damaged. */
int zip_read(const struct zip_archive *archive, const struct zip_entry *entry, size_t limit, const uint8_t **ret, size_t *ret_n,
             void **ret_memory, struct error *error);

/* A whole .gz file unpacked, a NUL behind it. Caller frees. -EFBIG: larger than `limit`.  -EBADMSG: not gzip, or damaged. */
int gzip_read(const char *path, size_t limit, char **ret, size_t *ret_n, struct error *error);
