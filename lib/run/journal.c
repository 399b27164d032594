/* The index over all segments, and reading. journal_write.c appends. */
#include "run/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/crc32c.h"
#include "run/journal_internal.h"
#include "run/journal_segment.h"

void journal_segment_path(const struct journal *journal, const struct segment *segment, char ret[JOURNAL_PATH])
{
    snprintf(ret, JOURNAL_PATH, "%s/%04u-%06u.%s", journal->dir, segment->stage, segment->iteration,
             segment->sealed ? "seg" : "open");
}

struct segment *journal_find_segment(struct journal *journal, uint32_t stage, uint32_t iteration)
{
    struct segment *s;

    pthread_mutex_lock(&journal->lock);
    for (s = journal->segments; s; s = s->next)
        if (s->stage == stage && s->iteration == iteration)
            break;
    pthread_mutex_unlock(&journal->lock);
    return s;
}

int journal_add_segment(struct journal *journal, uint32_t stage, uint32_t iteration, bool sealed, struct segment **ret)
{
    struct segment *segment = calloc(1, sizeof *segment);

    if (!segment)
        return -ENOMEM;
    *segment = (struct segment) {.stage = stage, .iteration = iteration, .sealed = sealed, .fd = -1, .next = journal->segments};
    journal->segments = segment;
    *ret = segment;
    return 0;
}

int journal_index_add(struct journal *journal, struct segment *segment, const struct journal_entry *entry, struct error *error)
{
    struct node *node, *old;

    HASH_FIND(hh, journal->index, &entry->episode, sizeof entry->episode, old);
    if (old)
        return error_set(error, EBADMSG,
                         "%s: episode %" PRIu64 " is in segments %04u-%06u and %04u-%06u: move the later file away",
                         journal->dir, entry->episode, old->entry.stage, old->entry.iteration, entry->stage, entry->iteration);
    node = calloc(1, sizeof *node);
    if (!node)
        return error_set(error, ENOMEM, "%s: out of memory for the index", journal->dir);
    node->entry = *entry;
    node->segment = segment;
    HASH_ADD(hh, journal->index, entry.episode, sizeof node->entry.episode, node);
    if (!node->hh.tbl) {
        free(node);
        return error_set(error, ENOMEM, "%s: out of memory for the index", journal->dir);
    }
    return 0;
}

struct scan { struct journal *journal; struct segment *segment; struct error *error; };

static int scan_found(void *user, const struct journal_entry *entry)
{
    struct scan *scan = user;

    return journal_index_add(scan->journal, scan->segment, entry, scan->error);
}

/* A descriptor; -errno. What a reader saw open, the writer, in another process, may have sealed since: it has its other name
 * then. */
static int open_segment(struct journal *journal, struct segment *segment, int mode, char path[JOURNAL_PATH])
{
    int flags = mode | O_CLOEXEC, fd;

    journal_segment_path(journal, segment, path);
    fd = open(path, flags);
    if (fd < 0 && errno == ENOENT && journal->mode == JOURNAL_READ && !segment->sealed) {
        segment->sealed = true;
        journal_segment_path(journal, segment, path);
        fd = open(path, flags);
    }
    return fd < 0 ? -errno : fd;
}

static int index_segment(struct journal *journal, struct segment *segment, struct error *notice, struct error *error)
{
    const struct journal_owner owner = {journal->run, segment->stage, segment->iteration};
    struct scan scan = {journal, segment, error};
    int mode = journal->mode == JOURNAL_WRITE && !segment->sealed ? O_RDWR : O_RDONLY;
    char path[JOURNAL_PATH];
    _cleanup_close_ int fd = open_segment(journal, segment, mode, path);
    struct stat st;
    int r;

    if (fd < 0)
        return error_set(error, -fd, "%s: cannot be opened: %s", path, strerror(-fd));
    if (fstat(fd, &st) < 0)
        return error_set(error, errno, "%s: fstat: %m", path);
    segment->size = (uint64_t)st.st_size;
    /* Whoever wrote this may have died before its sync: what we find is durable only from now on. */
    if (journal->mode == JOURNAL_WRITE && !segment->sealed && fsync(fd) < 0)
        return error_set(error, errno, "%s: fsync: %m", path);
    if (segment->sealed)
        return journal_scan_footer(fd, path, &owner, scan_found, &scan, error);
    r = journal_scan(fd, path, &owner, scan_found, &scan, &segment->end, error);
    if (r < 0)
        return r;
    if (segment->end < segment->size && journal->mode == JOURNAL_WRITE) {
        /* Nothing behind `end` was acknowledged; cut it off, durably, before anything is appended. */
        if (ftruncate(fd, (off_t)segment->end) < 0 || fsync(fd) < 0)
            return error_set(error, errno, "%s: cutting the torn tail failed: %m", path);
        (void)error_set(notice, EUCLEAN, "%s: cut %" PRIu64 " bytes of an unacknowledged tail at offset %" PRIu64, path,
                        segment->size - segment->end, segment->end);
        segment->size = segment->end;
    }
    segment->synced = segment->end;
    return 0;
}

/* ---- the directory ------------------------------------------------------------------------------------- */

struct name { unsigned stage, iteration; bool sealed; };
struct names { struct name *items; size_t n; };

static void names_release(struct names *names) { free(names->items); }

static int by_name(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    return x->stage != y->stage           ? (x->stage < y->stage ? -1 : 1)
         : x->iteration != y->iteration   ? (x->iteration < y->iteration ? -1 : 1)
                                          : x->sealed - y->sealed;
}

static bool names_equal(const struct names *a, const struct names *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (by_name(&a->items[i], &b->items[i]))
            return false;
    return true;
}

static int names_add(struct names *names, struct name name)
{
    struct name *larger = realloc(names->items, (names->n + 1) * sizeof *larger);

    if (!larger)
        return -ENOMEM;
    names->items = larger;
    larger[names->n++] = name;
    return 0;
}

/* The segments that are there, in order; -errno. */
static int look_once(const struct journal *journal, struct names *ret)
{
    _cleanup_(names_release) struct names names = {0};
    DIR *dir = opendir(journal->dir);
    struct dirent *item;
    int r = dir ? 0 : -errno;

    while (r == 0 && (item = readdir(dir))) {
        struct name name;
        char ending[8] = "", back[64];

        if (sscanf(item->d_name, "%u-%u.%7s", &name.stage, &name.iteration, ending) != 3 ||
            (strcmp(ending, "seg") && strcmp(ending, "open")))
            continue;
        snprintf(back, sizeof back, "%04u-%06u.%s", name.stage, name.iteration, ending);
        if (strcmp(back, item->d_name))
            continue;           /* somebody's copy: 0001-000002.seg.bak and the like */
        name.sealed = !strcmp(ending, "seg");
        r = names_add(&names, name);
    }
    if (dir)
        closedir(dir);
    if (r < 0)
        return r;
    if (names.n)
        qsort(names.items, names.n, sizeof *names.items, by_name);
    *ret = names;
    names = (struct names) {0};
    return 0;
}

/* What a writer elsewhere renames while we read the directory, readdir may show under both names or under none: what two looks
 * agree on is so. (It renames a segment once, when it seals it.) */
static int look(const struct journal *journal, struct names *ret)
{
    struct names before = {0};
    int r = look_once(journal, &before);

    while (r == 0) {
        struct names now;

        r = look_once(journal, &now);
        if (r == 0 && names_equal(&before, &now)) {
            names_release(&before);
            *ret = now;
            return 0;
        }
        names_release(&before);
        before = r == 0 ? now : (struct names) {0};
    }
    return r;
}

static int index_name(struct journal *journal, const struct name *name, struct error *notice, struct error *error)
{
    struct segment *segment;
    int r;

    if (journal_find_segment(journal, name->stage, name->iteration))
        return error_set(error, EBADMSG, "%s: %04u-%06u is there both sealed and open: move one away", journal->dir, name->stage,
                         name->iteration);
    r = journal_add_segment(journal, name->stage, name->iteration, name->sealed, &segment);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", journal->dir);
    r = index_segment(journal, segment, notice, error);
    if (r == -ENOENT && journal->mode == JOURNAL_READ) {        /* the writer dropped it since (journal_retain) */
        journal->segments = segment->next;
        free(segment);
        return 0;
    }
    return r;
}

static int index_directory(struct journal *journal, struct error *notice, struct error *error)
{
    _cleanup_(names_release) struct names names = {0};
    int r = look(journal, &names);

    if (r < 0)
        return error_set(error, -r, "%s: cannot be read: %s", journal->dir, strerror(-r));
    for (size_t i = 0; i < names.n && r == 0; i++)
        r = index_name(journal, &names.items[i], notice, error);
    return r;
}

int journal_open(const char *dir, uint64_t run, enum journal_mode mode, struct journal **ret, struct error *notice,
                 struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = calloc(1, sizeof *journal);
    int r;

    if (!journal)
        return error_set(error, ENOMEM, "%s: out of memory", dir);
    if (notice)
        *notice = (struct error) {0};
    pthread_mutex_init(&journal->lock, NULL);
    journal->run = run;
    journal->mode = mode;
    if ((size_t)snprintf(journal->dir, sizeof journal->dir, "%s", dir) >= sizeof journal->dir)
        return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
    if (mode == JOURNAL_WRITE) {
        r = mkdir_p(dir, 0755);
        if (r < 0)
            return error_set(error, -r, "%s: cannot be made: %s", dir, strerror(-r));
        journal->compressor = ZSTD_createCCtx();
        if (!journal->compressor)
            return error_set(error, ENOMEM, "%s: out of memory", dir);
    }
    r = index_directory(journal, notice, error);
    if (r == 0 && mode == JOURNAL_WRITE && (r = fsync_directory(dir)) < 0)      /* the names that an earlier life gave,
                                                                                 * likewise */
        r = error_set(error, -r, "%s: fsync: %s", dir, strerror(-r));
    if (r < 0)
        return r;
    *ret = TAKE_PTR(journal);
    return 0;
}

struct journal *journal_close(struct journal *journal)
{
    struct node *node, *next_node;
    struct segment *segment, *next;

    if (!journal)
        return NULL;
    HASH_ITER(hh, journal->index, node, next_node) {
        HASH_DEL(journal->index, node);
        free(node);
    }
    for (segment = journal->segments; segment; segment = next) {
        next = segment->next;
        closep(&segment->fd);
        free(segment);
    }
    ZSTD_freeCCtx(journal->compressor);
    pthread_mutex_destroy(&journal->lock);
    free(journal->buffer);
    free(journal);
    return NULL;
}

static struct journal_entry entry_now(const struct node *node)
{
    struct journal_entry entry = node->entry;

    entry.sealed = node->segment->sealed;
    entry.durable = entry.sealed || entry.offset < node->segment->synced;
    return entry;
}

int journal_find(struct journal *journal, uint64_t episode, struct journal_entry *ret)
{
    struct node *node;

    pthread_mutex_lock(&journal->lock);
    HASH_FIND(hh, journal->index, &episode, sizeof episode, node);
    if (node)
        *ret = entry_now(node);
    pthread_mutex_unlock(&journal->lock);
    return node ? 0 : -ENOENT;
}

static int by_episode(const void *a, const void *b)
{
    const struct journal_entry *x = a, *y = b;

    return x->episode < y->episode ? -1 : x->episode > y->episode;
}

int journal_list(struct journal *journal, uint32_t stage, uint32_t iteration, struct journal_entry **ret, size_t *ret_n)
{
    struct journal_entry *entries;
    struct node *node;
    size_t n = 0;

    pthread_mutex_lock(&journal->lock);
    entries = calloc(HASH_COUNT(journal->index) + 1, sizeof *entries);
    for (node = journal->index; entries && node; node = node->hh.next)
        if ((stage == JOURNAL_ALL || node->entry.stage == stage) &&
            (iteration == JOURNAL_ALL || node->entry.iteration == iteration))
            entries[n++] = entry_now(node);
    pthread_mutex_unlock(&journal->lock);
    if (!entries)
        return -ENOMEM;
    qsort(entries, n, sizeof *entries, by_episode);
    *ret = entries;
    *ret_n = n;
    return 0;
}

/* Find the entry and open its file; the lock keeps a rename from coming between. */
static int locate(struct journal *journal, uint64_t episode, struct journal_entry *ret, char path[JOURNAL_PATH], int *ret_fd,
                  struct error *error)
{
    struct node *node;
    int fd = -1, r = 0;

    pthread_mutex_lock(&journal->lock);
    HASH_FIND(hh, journal->index, &episode, sizeof episode, node);
    if (node) {
        *ret = node->entry;
        fd = open_segment(journal, node->segment, O_RDONLY, path);
        r = MIN(fd, 0);
    }
    pthread_mutex_unlock(&journal->lock);
    if (!node)
        return error_set(error, ENOENT, "%s: episode %" PRIu64 " is not in the journal", journal->dir, episode);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be opened: %s", path, strerror(-r));
    *ret_fd = fd;
    return 0;
}

static int unpack_frames(const uint8_t *packed, const struct journal_entry *entry, uint8_t **ret)
{
    _cleanup_free_ uint8_t *frames = malloc(entry->frames_size + 1);
    size_t n;

    if (!frames)
        return -ENOMEM;
    n = entry->frames_size ? ZSTD_decompress(frames, entry->frames_size, packed, entry->packed_size) : 0;
    if (ZSTD_isError(n) || n != entry->frames_size)
        return -EBADMSG;
    *ret = TAKE_PTR(frames);
    return 0;
}

/* The record that was read is the one that was looked for, and whole. payload: as long as the entry says. */
static bool is_record_of(const struct journal *journal, const struct journal_entry *entry, const struct journal_header *header,
                         const uint8_t *payload)
{
    return journal_header_valid(header) && header->kind == JOURNAL_TRAJECTORY && header->key == entry->episode &&
           (!header->run || header->run == journal->run) && !memcmp(header->digest, entry->digest, SHA256_SIZE) &&
           header->meta_size == entry->meta_size && header->packed_size == entry->packed_size &&
           header->frames_size == entry->frames_size &&
           header->payload_crc == crc32c(0, payload, (size_t)entry->meta_size + entry->packed_size);
}

int journal_load(struct journal *journal, uint64_t episode, uint8_t **ret_meta, size_t *ret_n_meta, uint8_t **ret_frames,
                 size_t *ret_n_frames, struct error *error)
{
    _cleanup_free_ uint8_t *payload = NULL, *pixels = NULL;
    _cleanup_close_ int fd = -1;
    struct journal_header header;
    struct journal_entry entry = {0};
    char path[JOURNAL_PATH];
    uint8_t *meta;
    int r;

    r = locate(journal, episode, &entry, path, &fd, error);
    if (r < 0)
        return r;
    payload = malloc((size_t)entry.meta_size + entry.packed_size + 1);
    if (!payload)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    r = journal_pread(fd, &header, sizeof header, entry.offset);
    if (r == 0)
        r = journal_pread(fd, payload, (size_t)entry.meta_size + entry.packed_size, entry.offset + sizeof header);
    if (r < 0 && r != -ENODATA)
        return error_set(error, -r, "%s: reading at offset %" PRIu64 " failed: %s", path, entry.offset, strerror(-r));
    if (r == 0 && !is_record_of(journal, &entry, &header, payload))
        r = -EBADMSG;
    if (r == 0 && ret_frames)
        r = unpack_frames(payload + entry.meta_size, &entry, &pixels);
    if (r == -ENOMEM)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    if (r < 0)
        return error_set(error, EBADMSG, "%s: episode %" PRIu64 " at offset %" PRIu64 " is damaged: restore the file from a copy",
                         path, episode, entry.offset);
    meta = realloc(payload, (size_t)entry.meta_size + 1);
    *ret_meta = meta ? meta : payload;      /* what cannot be made smaller is whole all the same */
    payload = NULL;
    *ret_n_meta = entry.meta_size;
    if (ret_frames) {
        *ret_frames = TAKE_PTR(pixels);
        if (ret_n_frames)
            *ret_n_frames = entry.frames_size;
    }
    return 0;
}

uint64_t journal_bytes(const struct journal *journal)
{
    struct journal *unconst = (struct journal *)journal;    /* the lock is no part of its value */
    uint64_t sum = 0;

    pthread_mutex_lock(&unconst->lock);
    for (const struct segment *s = journal->segments; s; s = s->next)
        sum += s->sealed ? s->size : s->end;
    pthread_mutex_unlock(&unconst->lock);
    return sum;
}
