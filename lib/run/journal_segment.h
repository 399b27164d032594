/* journal_segment.h - the bytes of one journal segment. Private to lib/run and its tests.
 *
 *   header | record* | [footer]         each is a struct journal_header, then its payload
 *
 * Integers are little-endian (the structs are written as they lie: gantry runs on little-endian machines; the magic would
 * read backwards on others). The footer's payload is an array of struct journal_index; it is found through the last 16 bytes. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "run/journal.h"

#define JOURNAL_MAGIC 0x314a5447u           /* "GTJ1" */
#define JOURNAL_END_MAGIC 0x454a5447u       /* "GTJE" */
enum journal_kind { JOURNAL_SEGMENT = 1, JOURNAL_TRAJECTORY = 2, JOURNAL_FOOTER = 3 };
enum { JOURNAL_META_MAX = 16 << 20 };       /* bytes of one packed Trajectory */
#define JOURNAL_FRAMES_MAX (2ull << 30)     /* bytes of one episode's frames, raw */

struct journal_header {         /* 96 bytes */
    uint32_t magic;
    uint32_t kind;
    uint32_t meta_size;         /* payload = meta, then packed frames */
    uint32_t packed_size;
    uint64_t frames_size;       /* raw; 0: no frames */
    uint64_t key;               /* trajectory: episode; segment: run id; footer: records */
    uint64_t durable;           /* bytes of this segment that were durable when this was written */
    uint32_t stage, iteration;
    uint8_t digest[SHA256_SIZE];
    uint64_t run;               /* record, footer: whose it is; 0: written before this was kept */
    uint32_t payload_crc;
    uint32_t header_crc;        /* of the 92 bytes before it */
};
_Static_assert(sizeof(struct journal_header) == 96, "journal_header is a file format");

struct journal_index {          /* 64 bytes: one per record in the footer */
    uint64_t episode, offset, frames_size;
    uint32_t meta_size, packed_size;
    uint8_t digest[SHA256_SIZE];
};
_Static_assert(sizeof(struct journal_index) == 64, "journal_index is a file format");

struct journal_trailer {        /* the last 16 bytes of a sealed segment */
    uint64_t footer;            /* offset of its header */
    uint32_t crc;               /* of footer */
    uint32_t magic;
};

void journal_header_seal(struct journal_header *header);            /* fill header_crc */
bool journal_header_valid(const struct journal_header *header);     /* magic, CRC, sizes in their limits */

/* Read exactly n bytes at offset. -ENODATA: the file ends before. */
int journal_pread(int fd, void *bytes, size_t n, uint64_t offset);
int journal_pwrite(int fd, const void *bytes, size_t n, uint64_t offset);   /* fault point journal.write */

/* Whose records a segment holds. */
struct journal_owner {
    uint64_t run;
    uint32_t stage, iteration;
};

/* Called for each record found, in file order; < 0 ends the scan. */
typedef int journal_found(void *user, const struct journal_entry *entry);

/* Read an unsealed segment through, checking every CRC. *ret_end: where the good records end, < file size: a torn tail.
 * -EBADMSG: damage before something that was acknowledged; -EXDEV: another run's. */
int journal_scan(int fd, const char *path, const struct journal_owner *owner, journal_found *found, void *user, uint64_t *ret_end,
                 struct error *error);
/* Read a sealed one's footer. -EBADMSG: no valid footer; -EXDEV: another run's. */
int journal_scan_footer(int fd, const char *path, const struct journal_owner *owner, journal_found *found, void *user,
                        struct error *error);
