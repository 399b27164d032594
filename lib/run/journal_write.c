/* Appending, making durable, sealing, removing. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "base/atomic_file.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "run/journal_internal.h"
#include "run/journal_segment.h"

/* Forget everything since the last good sync, in the index and in the file. */
static void take_back(struct journal *journal, struct segment *segment)
{
    struct node *node, *next;

    pthread_mutex_lock(&journal->lock);
    HASH_ITER(hh, journal->index, node, next)
        if (node->segment == segment && node->entry.offset >= segment->synced) {
            HASH_DEL(journal->index, node);
            free(node);
        }
    segment->end = segment->synced;
    pthread_mutex_unlock(&journal->lock);
    if (ftruncate(segment->fd, (off_t)segment->synced) < 0)
        segment->broken = true;
}

/* Nothing is written behind what could not be taken back; it is tried again first. */
static int mend(const struct journal *journal, struct segment *segment, struct error *error)
{
    if (!segment->broken)
        return 0;
    if (ftruncate(segment->fd, (off_t)segment->end) < 0)
        return error_set(error, errno, "%s: a failed write cannot be taken back: %m; it is tried again with each delivery",
                         journal->dir);
    segment->broken = false;
    return 0;
}

static int write_owner(struct journal *journal, struct segment *segment)
{
    struct journal_header header = {
        .magic = JOURNAL_MAGIC,
        .kind = JOURNAL_SEGMENT,
        .key = journal->run,
        .stage = segment->stage,
        .iteration = segment->iteration,
    };
    int r;

    journal_header_seal(&header);
    r = journal_pwrite(segment->fd, &header, sizeof header, 0);
    if (r == 0)
        r = fault_errno("journal.fsync");
    if (r == 0 && fsync(segment->fd) < 0)
        r = -errno;
    if (r == 0)
        r = fsync_directory(journal->dir);
    if (r < 0) {
        (void)ftruncate(segment->fd, 0);
        return r;
    }
    pthread_mutex_lock(&journal->lock);
    segment->end = segment->synced = sizeof header;
    pthread_mutex_unlock(&journal->lock);
    return 0;
}

int journal_segment(struct journal *journal, uint32_t stage, uint32_t iteration, struct error *error)
{
    struct segment *segment = journal_find_segment(journal, stage, iteration);
    char path[JOURNAL_PATH];
    int r = 0;

    if (journal->mode != JOURNAL_WRITE)
        return error_set(error, EROFS, "%s: opened for reading", journal->dir);
    if (journal->current && journal->current != segment && journal->current->end > journal->current->synced) {
        r = journal_sync(journal, error);
        if (r < 0)
            return r;
    }
    if (!segment) {
        pthread_mutex_lock(&journal->lock);
        r = journal_add_segment(journal, stage, iteration, false, &segment);
        pthread_mutex_unlock(&journal->lock);
        if (r < 0)
            return error_set(error, -r, "%s: out of memory", journal->dir);
    }
    journal_segment_path(journal, segment, path);
    if (segment->sealed)
        return error_set(error, EROFS, "%s: is sealed", path);
    if (segment->fd < 0) {
        segment->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (segment->fd < 0)
            return error_set(error, errno, "%s: cannot be made: %m", path);
    }
    if (segment->end == 0)
        r = write_owner(journal, segment);
    if (r < 0)
        return error_set(error, -r, "%s: writing its header failed: %s", path, strerror(-r));
    journal->current = segment;
    return 0;
}

/* header | meta | packed frames in journal->buffer; *ret_n its size. */
static int put_together(struct journal *journal, struct journal_header *header, const void *meta, const void *frames,
                        size_t *ret_n)
{
    size_t bound = sizeof *header + header->meta_size + ZSTD_compressBound(header->frames_size), packed = 0;

    if (bound > journal->buffer_size) {
        char *more = realloc(journal->buffer, bound);

        if (!more)
            return -ENOMEM;
        journal->buffer = more;
        journal->buffer_size = bound;
    }
    if (header->meta_size)
        memcpy(journal->buffer + sizeof *header, meta, header->meta_size);
    if (header->frames_size) {
        size_t at = sizeof *header + header->meta_size;

        packed = ZSTD_compressCCtx(journal->compressor, journal->buffer + at, bound - at, frames, header->frames_size, 1);
        if (ZSTD_isError(packed))
            return -ENOMEM;
        if (packed > UINT32_MAX)
            return -EFBIG;
    }
    header->packed_size = (uint32_t)packed;
    header->payload_crc = crc32c(0, journal->buffer + sizeof *header, header->meta_size + packed);
    journal_header_seal(header);
    memcpy(journal->buffer, header, sizeof *header);
    *ret_n = sizeof *header + header->meta_size + packed;
    return 0;
}

static void digest_of(const void *meta, size_t n_meta, const void *frames, size_t n_frames, uint8_t ret[SHA256_SIZE])
{
    struct sha256 s;

    sha256_init(&s);
    sha256_add(&s, meta, n_meta);
    sha256_add(&s, frames, n_frames);
    sha256_end(&s, ret);
}

int journal_append(struct journal *journal, uint64_t episode, const void *meta, size_t n_meta, const void *frames,
                   size_t n_frames, uint8_t ret_digest[SHA256_SIZE], struct error *error)
{
    struct segment *segment = journal->current;
    struct journal_header header;
    struct journal_entry entry;
    size_t n;
    int r;

    if (!segment || segment->sealed)
        return error_set(error, EINVAL, "%s: no segment is open", journal->dir);
    if ((r = mend(journal, segment, error)) < 0)
        return r;
    if (n_meta > JOURNAL_META_MAX || n_frames > JOURNAL_FRAMES_MAX)
        return error_set(error, EFBIG, "episode %" PRIu64 ": %zu bytes of trajectory, %zu of frames: over the limit", episode,
                         n_meta, n_frames);
    if (journal_find(journal, episode, &entry) == 0) {
        memcpy(ret_digest, entry.digest, SHA256_SIZE);
        return -EEXIST;
    }
    header = (struct journal_header){
        .magic = JOURNAL_MAGIC,
        .kind = JOURNAL_TRAJECTORY,
        .meta_size = (uint32_t)n_meta,
        .frames_size = n_frames,
        .key = episode,
        .durable = segment->synced,
        .stage = segment->stage,
        .iteration = segment->iteration,
        .run = journal->run,
    };
    digest_of(meta, n_meta, frames, n_frames, header.digest);
    r = put_together(journal, &header, meta, frames, &n);
    if (r < 0)
        return error_set(error, -r, "episode %" PRIu64 ": out of memory", episode);
    r = journal_pwrite(segment->fd, journal->buffer, n, segment->end);
    if (r < 0) {
        take_back(journal, segment);
        return error_set(error, -r, "%s: writing episode %" PRIu64 " failed: %s", journal->dir, episode, strerror(-r));
    }
    entry = (struct journal_entry) {
        .episode = episode, .stage = segment->stage, .iteration = segment->iteration, .offset = segment->end,
        .meta_size = header.meta_size, .packed_size = header.packed_size, .frames_size = n_frames,
    };
    memcpy(entry.digest, header.digest, SHA256_SIZE);
    pthread_mutex_lock(&journal->lock);
    r = journal_index_add(journal, segment, &entry, error);
    if (r == 0)
        segment->end += n;
    pthread_mutex_unlock(&journal->lock);
    if (r < 0) {
        take_back(journal, segment);
        return r;
    }
    memcpy(ret_digest, header.digest, SHA256_SIZE);
    return 0;
}

int journal_sync(struct journal *journal, struct error *error)
{
    struct segment *segment = journal->current;
    int r;

    if (!segment || segment->end == segment->synced)
        return 0;
    r = fault_errno("journal.fsync");
    if (r == 0 && fdatasync(segment->fd) < 0)
        r = -errno;
    if (r < 0) {
        take_back(journal, segment);
        return error_set(error, -r, "%s: fsync failed: %s; deliveries since the last one are refused", journal->dir,
                         strerror(-r));
    }
    pthread_mutex_lock(&journal->lock);
    segment->synced = segment->end;
    pthread_mutex_unlock(&journal->lock);
    return 0;
}

/* The footer behind the records: index, trailer, all durable. */
static int write_footer(struct journal *journal, struct segment *segment)
{
    struct journal_header header = {
        .magic = JOURNAL_MAGIC, .kind = JOURNAL_FOOTER, .durable = segment->synced, .stage = segment->stage,
        .iteration = segment->iteration, .run = journal->run,
    };
    struct journal_trailer trailer = {.footer = segment->end, .magic = JOURNAL_END_MAGIC};
    _cleanup_free_ struct journal_entry *entries = NULL;
    _cleanup_free_ char *footer = NULL;
    struct journal_index *index;
    size_t n, total;
    int r = journal_list(journal, segment->stage, segment->iteration, &entries, &n);

    if (r < 0)
        return r;
    total = sizeof header + n * sizeof *index + sizeof trailer;
    footer = calloc(1, total);
    if (!footer)
        return -ENOMEM;
    index = (struct journal_index *)(footer + sizeof header);
    for (size_t i = 0; i < n; i++) {
        index[i] = (struct journal_index) {
            .episode = entries[i].episode, .offset = entries[i].offset, .frames_size = entries[i].frames_size,
            .meta_size = entries[i].meta_size, .packed_size = entries[i].packed_size,
        };
        memcpy(index[i].digest, entries[i].digest, SHA256_SIZE);
    }
    header.key = n;
    header.meta_size = (uint32_t)(n * sizeof *index);
    header.payload_crc = crc32c(0, index, n * sizeof *index);
    journal_header_seal(&header);
    memcpy(footer, &header, sizeof header);
    trailer.crc = crc32c(0, &trailer.footer, sizeof trailer.footer);
    memcpy(footer + total - sizeof trailer, &trailer, sizeof trailer);
    r = fault_errno("journal.seal");
    if (r == 0)
        r = journal_pwrite(segment->fd, footer, total, segment->end);
    if (r == 0)
        r = fault_errno("journal.fsync");
    if (r == 0 && fsync(segment->fd) < 0)
        r = -errno;
    if (r < 0) {
        segment->broken = ftruncate(segment->fd, (off_t)segment->end) < 0;
        return r;
    }
    segment->size = segment->end + total;
    return 0;
}

int journal_seal(struct journal *journal, uint32_t stage, uint32_t iteration, struct error *error)
{
    struct segment *segment = journal_find_segment(journal, stage, iteration);
    char from[JOURNAL_PATH], to[JOURNAL_PATH];
    int r;

    if (segment && segment->sealed)
        return 0;
    if (!segment)
        return error_set(error, ENOENT, "%s: no segment %u-%u", journal->dir, stage, iteration);
    r = journal_segment(journal, stage, iteration, error);      /* makes it current: its fd is open, others are synced */
    if (r == 0)
        r = journal_sync(journal, error);
    if (r == 0)
        r = mend(journal, segment, error);      /* or the footer would not be the end of the file */
    if (r < 0)
        return r;
    journal_segment_path(journal, segment, from);
    r = write_footer(journal, segment);
    if (r < 0)
        return error_set(error, -r, "%s: sealing failed: %s", from, strerror(-r));
    r = fault_errno("journal.rename");
    pthread_mutex_lock(&journal->lock);
    if (r == 0) {
        segment->sealed = true;
        journal_segment_path(journal, segment, to);
        r = rename_noreplace(from, to);
        segment->sealed = r == 0 || access(from, F_OK) < 0;     /* renamed, and only the directory's fsync failed */
    }
    if (segment->sealed) {      /* from here on another thread's journal_retain may free it */
        closep(&segment->fd);
        segment->fd = -1;
        journal->current = NULL;
    }
    pthread_mutex_unlock(&journal->lock);
    return r < 0 ? error_set(error, -r, "%s: renaming failed: %s", from, strerror(-r)) : 0;
}

/* Out of the index and off the list; its file is gone already. Sealed, so nobody appends to it. Under the lock. */
static void forget(struct journal *journal, struct segment *segment)
{
    struct segment **link;
    struct node *node, *next;

    HASH_ITER(hh, journal->index, node, next)
        if (node->segment == segment) {
            HASH_DEL(journal->index, node);
            free(node);
        }
    for (link = &journal->segments; *link != segment; link = &(*link)->next)
        ;
    *link = segment->next;
    free(segment);
}

static int drop(struct journal *journal, struct segment *segment)
{
    char path[JOURNAL_PATH];

    journal_segment_path(journal, segment, path);
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    forget(journal, segment);
    return 0;
}

int journal_retain(struct journal *journal, uint32_t stage, uint32_t first)
{
    struct segment *segment, *next;
    int r = 0, dropped = 0;

    pthread_mutex_lock(&journal->lock);
    for (segment = journal->segments; segment && r == 0; segment = next) {
        next = segment->next;
        if (segment->stage != stage || segment->iteration >= first || !segment->sealed)
            continue;
        r = drop(journal, segment);
        dropped++;
    }
    pthread_mutex_unlock(&journal->lock);
    return r < 0 || !dropped ? r : fsync_directory(journal->dir);
}
