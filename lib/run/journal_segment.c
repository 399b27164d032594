#include "run/journal_segment.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/fault.h"

void journal_header_seal(struct journal_header *header)
{
    header->header_crc = crc32c(0, header, offsetof(struct journal_header, header_crc));
}

bool journal_header_valid(const struct journal_header *h)
{
    return h->magic == JOURNAL_MAGIC && h->header_crc == crc32c(0, h, offsetof(struct journal_header, header_crc))
        && h->meta_size <= (h->kind == JOURNAL_FOOTER ? UINT32_MAX : (uint32_t)JOURNAL_META_MAX)
        && h->frames_size <= JOURNAL_FRAMES_MAX;
}

int journal_pread(int fd, void *bytes, size_t n, uint64_t offset)
{
    char *at = bytes;

    while (n) {
        ssize_t got = pread(fd, at, n, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return -ENODATA;
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int journal_pwrite(int fd, const void *bytes, size_t n, uint64_t offset)
{
    const char *at = bytes;
    enum fault_action fault = fault_point("journal.write");

    if (fault == FAULT_EIO)
        return -EIO;
    if (fault == FAULT_ENOSPC || fault == FAULT_SHORT)
        n /= 2;                 /* a full disk takes what fits, then says no */
    while (n) {
        ssize_t put = pwrite(fd, at, n, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        at += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return fault == FAULT_ENOSPC || fault == FAULT_SHORT ? -ENOSPC : 0;
}

/* CRC of the payload behind `header` without holding all of it. -ENODATA: the file ends before. */
static int payload_crc(int fd, const struct journal_header *header, uint64_t offset, uint32_t *ret)
{
    char block[64 * 1024];
    uint64_t left = (uint64_t)header->meta_size + header->packed_size;
    uint32_t crc = 0;

    for (offset += sizeof *header; left; ) {
        size_t n = (size_t)MIN(left, (uint64_t)sizeof block);
        int r = journal_pread(fd, block, n, offset);

        if (r < 0)
            return r;
        crc = crc32c(crc, block, n);
        offset += n;
        left -= n;
    }
    *ret = crc;
    return 0;
}

/* 1: a whole record lies at offset; 0: not; -errno of the disk. */
static int record_at(int fd, uint64_t offset, struct journal_header *ret)
{
    uint32_t crc;
    int r = journal_pread(fd, ret, sizeof *ret, offset);

    if (r == -ENODATA)
        return 0;
    if (r < 0)
        return r;
    if (!journal_header_valid(ret))
        return 0;
    r = payload_crc(fd, ret, offset, &crc);
    if (r == -ENODATA)
        return 0;
    if (r < 0)
        return r;
    return crc == ret->payload_crc;
}

/* Does any valid record header from `damage` on say that the bytes there had been durable? -> they were acknowledged. */
static int acknowledged_behind(int fd, uint64_t damage, uint64_t size, bool *ret)
{
    char block[64 * 1024 + sizeof(struct journal_header)];

    for (uint64_t at = damage; at + sizeof(struct journal_header) <= size; at += 64 * 1024) {
        size_t n = (size_t)MIN(size - at, (uint64_t)sizeof block);
        int r = journal_pread(fd, block, n, at);

        if (r < 0)
            return r;
        for (size_t i = 0; i + sizeof(struct journal_header) <= n; i++) {
            struct journal_header header;

            memcpy(&header, block + i, sizeof header);
            if (header.magic == JOURNAL_MAGIC && journal_header_valid(&header) && header.durable > damage) {
                *ret = true;
                return 0;
            }
        }
    }
    *ret = false;
    return 0;
}

static int check_owner(const struct journal_header *h, const char *path, const struct journal_owner *owner, struct error *error)
{
    if (h->kind != JOURNAL_SEGMENT)
        return error_set(error, EBADMSG, "%s: does not begin with a segment header: not a journal segment", path);
    if (h->key != owner->run)
        return error_set(error, EXDEV,
                         "%s: belongs to run %" PRIx64 ", this is run %" PRIx64 ": move it out of the run directory", path,
                         h->key, owner->run);
    if (h->stage != owner->stage || h->iteration != owner->iteration)
        return error_set(error, EBADMSG, "%s: its header says stage %u iteration %u: was it renamed?", path, h->stage,
                         h->iteration);
    return 0;
}

/* A record or footer with good checksums that was written into another segment is damage, too: a disk or a copy misplaced it. */
static bool misplaced(const struct journal_header *h, const struct journal_owner *owner)
{
    return (h->run && h->run != owner->run) || h->stage != owner->stage || h->iteration != owner->iteration;
}

static struct journal_entry entry_of(const struct journal_header *h, uint64_t offset)
{
    struct journal_entry entry = {
        .episode = h->key, .stage = h->stage, .iteration = h->iteration, .offset = offset, .meta_size = h->meta_size,
        .packed_size = h->packed_size, .frames_size = h->frames_size, .durable = true,
    };

    memcpy(entry.digest, h->digest, SHA256_SIZE);
    return entry;
}

int journal_scan(int fd, const char *path, const struct journal_owner *owner, journal_found *found, void *user, uint64_t *ret_end,
                 struct error *error)
{
    struct journal_header header;
    struct stat st;
    uint64_t at = 0, size;
    bool acknowledged;
    int r;

    if (fstat(fd, &st) < 0)
        return error_set(error, errno, "%s: cannot be read", path);
    size = (uint64_t)st.st_size;
    while (at < size) {
        r = record_at(fd, at, &header);
        if (r < 0)
            return error_set(error, -r, "%s: reading at offset %" PRIu64 " failed", path, at);
        if (r == 0 || (at && (misplaced(&header, owner) || header.durable > at)))
            break;              /* more was durable than lies before it: it was written further behind */
        if (at == 0) {
            r = check_owner(&header, path, owner, error);
        } else if (header.kind == JOURNAL_TRAJECTORY) {
            struct journal_entry entry = entry_of(&header, at);

            r = found(user, &entry);
        } else if (header.kind == JOURNAL_FOOTER) {
            break;              /* sealing was interrupted before the rename: the footer is written again */
        }
        if (r < 0)
            return r;
        at += sizeof header + header.meta_size + header.packed_size;
    }
    if (at < size) {
        r = acknowledged_behind(fd, at, size, &acknowledged);
        if (r < 0)
            return error_set(error, -r, "%s: reading behind offset %" PRIu64 " failed", path, at);
        if (acknowledged)
            return error_set(error, EBADMSG, "%s: damaged at offset %" PRIu64 ", and trajectories behind it were acknowledged: "
                             "restore the file from a copy, or move it away and the episodes are played again", path, at);
    }
    *ret_end = at;
    return 0;
}

/* The footer's place and header. False: it is damaged, or another segment's. */
static bool find_footer(int fd, uint64_t size, const struct journal_owner *owner, struct journal_trailer *trailer,
                        struct journal_header *header)
{
    return size >= 2 * sizeof *header + sizeof *trailer &&
           journal_pread(fd, trailer, sizeof *trailer, size - sizeof *trailer) == 0 && trailer->magic == JOURNAL_END_MAGIC &&
           trailer->crc == crc32c(0, &trailer->footer, sizeof trailer->footer) &&
           trailer->footer <= size && record_at(fd, trailer->footer, header) == 1 && header->kind == JOURNAL_FOOTER &&
           header->meta_size == header->key * sizeof(struct journal_index) && !misplaced(header, owner);
}

int journal_scan_footer(int fd, const char *path, const struct journal_owner *owner, journal_found *found, void *user,
                        struct error *error)
{
    struct journal_trailer trailer;
    struct journal_header header, first;
    struct journal_index index;
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return error_set(error, errno, "%s: cannot be read", path);
    if (journal_pread(fd, &first, sizeof first, 0) < 0 || !journal_header_valid(&first))
        return error_set(error, EBADMSG, "%s: its header is damaged: restore the file from a copy", path);
    r = check_owner(&first, path, owner, error);
    if (r < 0)
        return r;
    if (!find_footer(fd, (uint64_t)st.st_size, owner, &trailer, &header))
        return error_set(error, EBADMSG,
                         "%s: its footer is damaged: restore the file from a copy, or rename it to %u-%u.open and it "
                         "is indexed again",
                         path, owner->stage, owner->iteration);
    for (uint64_t i = 0; i < header.key; i++) {
        struct journal_entry entry;

        r = journal_pread(fd, &index, sizeof index, trailer.footer + sizeof header + i * sizeof index);
        if (r < 0)
            return error_set(error, -r, "%s: reading the footer failed", path);
        entry = (struct journal_entry){
            .episode = index.episode,
            .stage = owner->stage,
            .iteration = owner->iteration,
            .offset = index.offset,
            .meta_size = index.meta_size,
            .packed_size = index.packed_size,
            .frames_size = index.frames_size,
            .durable = true,
            .sealed = true,
        };
        memcpy(entry.digest, index.digest, SHA256_SIZE);
        r = found(user, &entry);
        if (r < 0)
            return r;
    }
    return 0;
}
