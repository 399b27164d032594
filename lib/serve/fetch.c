#include "serve/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "proto/train.pb-c.h"
#include "serve/policy_version.h"
#include "serve/pull.h"
#include "wire/address.h"

enum { KIB = 1 << 10, MIB = 1 << 20, BASES_MAX = 4, MANIFEST_MOST = 64 * MIB, UNDER_WAY = 16 * MIB, KEEP_MAX = 16 };

static const struct pull_limits limits = {.chunk_least = 256 * KIB, .chunk_most = WIRE_CHUNK, .under_way = UNDER_WAY, .unsized = MANIFEST_MOST};

/* One chunk that was asked for: from the request until its bytes are written. */
struct chunk {
    struct fetch *fetch;
    uint32_t file;
    uint64_t offset, call;              /* call 0: answered */
    uint8_t *bytes; size_t n;
    struct chunk *next;
};

struct target { int kind; uint64_t number; uint8_t digest[SHA256_SIZE]; };

enum step { STEP_LOOK, STEP_WRITE, STEP_COMMIT };   /* what the worker is at */

struct fetch {
    struct loop *loop;
    struct wire *wire;
    struct worker *worker;
    struct wire_client *client;
    Gantry__VersionKind kind;
    fetch_done_fn *done;
    void *arg;
    struct cache cache;

    bool active, cancelled;
    struct target wanted, now;          /* now: it, or a base below it */
    int bases;
    uint64_t keep[KEEP_MAX]; size_t n_keep;
    bool for_manifest;                  /* the pull in hand is of manifest.json alone */
    bool pulling;
    struct pull pull;
    struct chunk *chunks;
    struct { struct pull_event items[PULL_WINDOW]; size_t n; } later;       /* events that arose while effects were carried out */
    uint64_t bytes_total, started_ms, started_bytes;

    /* the job in hand; the worker's until it is posted back */
    bool job;
    enum step step;
    int result;
    struct error error;
    char dir[VERSION_PATH];             /* being brought, or whole */
    int lock;                           /* of the .pull directory */
    bool whole, has_base;
    struct target base;
    struct manifest manifest;
    struct pull_file files[PULL_FILES];
    uint8_t digests[PULL_FILES][SHA256_SIZE];
    size_t n_files;
    struct { struct chunk *chunk; bool last; } write;
    int fd; uint32_t fd_file; uint64_t fd_offset;       /* the file that is being written */
    struct sha256 sha;                  /* of its first fd_offset bytes */
};

/* ---- the disk: the worker's thread ----------------------------------------------------------------------------- */

static void close_file(struct fetch *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static void let_go(struct fetch *f)
{
    close_file(f);
    if (f->lock >= 0)
        close(f->lock);
    f->lock = -1;
}

/* The manifest is there: which files, and how much of each. */
static int list_files(struct fetch *f)
{
    uint64_t missing = 0;
    int r;

    manifest_release(&f->manifest);
    r = manifest_read(f->dir, &f->manifest, &f->error);
    if (r < 0)
        return r;
    f->n_files = 0;
    for (size_t i = 0; i < f->manifest.n_files; i++) {
        const struct manifest_file *file = &f->manifest.files[i];
        char path[VERSION_PATH + 136];
        struct stat st;

        if (!version_file_is_served(file->name))
            continue;
        if (f->n_files == PULL_FILES)
            return error_set(&f->error, E2BIG, "%s: more than %d files in a version", f->dir, PULL_FILES);
        snprintf(path, sizeof path, "%s/%s", f->dir, file->name);
        f->files[f->n_files] = (struct pull_file) {.name = file->name, .size = file->size, .sized = true,
                                                   .have = lstat(path, &st) == 0 ? (uint64_t)st.st_size : 0};
        missing += file->size - MIN(f->files[f->n_files].have, file->size);
        memcpy(f->digests[f->n_files++], file->sha256, SHA256_SIZE);
    }
    return cache_has_room(&f->cache, missing, &f->error);
}

/* Is it here? If not: what is to be brought. */
static int look(struct fetch *f)
{
    char path[VERSION_PATH + 16];
    uint8_t found[SHA256_SIZE];
    int r;

    let_go(f);
    r = cache_find(&f->cache, f->now.kind, f->now.number, f->now.digest, f->dir);
    if (r < 0)
        return error_set(&f->error, -r, "%s: %s", f->cache.dir, strerror(-r));
    f->whole = r == 1;
    if (f->whole) {
        r = cache_base_of(f->dir, f->now.kind, &f->base.kind, &f->base.number, f->base.digest, &f->error);
        f->has_base = r == 1;
        if (r == 0)                     /* all is here; only now is it known which bases are needed */
            cache_retain(&f->cache, (int)f->kind, f->keep, f->n_keep);
        return MIN(r, 0);
    }
    r = cache_begin(&f->cache, f->now.kind, f->now.number, f->now.digest, f->dir, &f->lock, &f->error);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/manifest.json", f->dir);
    f->for_manifest = sha256_file(path, found) < 0 || memcmp(found, f->now.digest, SHA256_SIZE);
    if (!f->for_manifest)
        return list_files(f);
    f->files[0] = (struct pull_file) {.name = "manifest.json"};
    memcpy(f->digests[0], f->now.digest, SHA256_SIZE);
    f->n_files = 1;
    return 0;
}

/* The file that a chunk belongs to, cut to its offset; what lies before it counts for the digest. */
static int open_at(struct fetch *f, const struct chunk *chunk)
{
    char path[VERSION_PATH + 136], *block;
    uint64_t done = 0;
    ssize_t n = 0;

    if (f->fd >= 0 && f->fd_file == chunk->file && f->fd_offset == chunk->offset)
        return 0;
    close_file(f);
    snprintf(path, sizeof path, "%s/%s", f->dir, f->files[chunk->file].name);
    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0 || ftruncate(f->fd, (off_t)chunk->offset) < 0)
        return -errno;
    sha256_init(&f->sha);
    block = malloc(MIB);
    if (!block)
        return -ENOMEM;
    while (done < chunk->offset && (n = pread(f->fd, block, (size_t)MIN(chunk->offset - done, (uint64_t)MIB), (off_t)done)) > 0) {
        sha256_add(&f->sha, block, (size_t)n);
        done += (uint64_t)n;
    }
    free(block);
    f->fd_file = chunk->file;
    f->fd_offset = chunk->offset;
    return n < 0 ? -EIO : 0;
}

static int write_chunk(struct fetch *f)
{
    const struct chunk *chunk = f->write.chunk;
    uint8_t digest[SHA256_SIZE];
    size_t done = 0;
    int r = open_at(f, chunk);

    if (r == 0)
        r = fault_errno("pull.write");
    if (r < 0)
        return r;
    while (done < chunk->n) {
        ssize_t n = pwrite(f->fd, chunk->bytes + done, chunk->n - done, (off_t)(chunk->offset + done));

        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    if (chunk->n > 0)
        sha256_add(&f->sha, chunk->bytes, chunk->n);
    f->fd_offset += chunk->n;
    if (!f->write.last)
        return 0;
    sha256_end(&f->sha, digest);
    close_file(f);
    return memcmp(digest, f->digests[chunk->file], SHA256_SIZE) ? -EBADMSG : 0;
}

static int commit(struct fetch *f)
{
    int r;

    close_file(f);
    r = cache_commit(&f->cache, f->now.kind, f->now.number, f->dir, &f->error);
    let_go(f);
    return r;
}

static void on_job(void *arg);

static void work(void *arg)
{
    struct fetch *f = arg;

    f->error.text[0] = '\0';
    switch (f->step) {
    case STEP_LOOK: f->result = look(f); break;
    case STEP_WRITE: f->result = write_chunk(f); break;
    case STEP_COMMIT: f->result = commit(f); break;
    }
    (void)loop_post(f->loop, on_job, f);
}

/* ---- the loop's thread ------------------------------------------------------------------------------------------- */

static void chunk_free(struct chunk *chunk)
{
    free(chunk->bytes);
    free(chunk);
}

static struct chunk *take_chunk(struct fetch *f, uint32_t file, uint64_t offset)
{
    for (struct chunk **at = &f->chunks; *at; at = &(*at)->next)
        if ((*at)->file == file && (*at)->offset == offset) {
            struct chunk *chunk = *at;

            *at = chunk->next;
            return chunk;
        }
    return NULL;
}

static void drop_chunk(struct fetch *f, struct chunk *chunk)
{
    if (!chunk)
        return;
    if (chunk->call && f->client)
        wire_cancel(f->client, chunk->call);
    chunk_free(chunk);
}

static void finish(struct fetch *f, int result, const char *text)
{
    while (f->chunks)
        drop_chunk(f, take_chunk(f, f->chunks->file, f->chunks->offset));
    f->active = f->pulling = false;
    let_go(f);
    manifest_release(&f->manifest);
    f->done(result, f->wanted.number, f->dir, text, f->arg);
}

static void submit(struct fetch *f, enum step step)
{
    int r;

    f->step = step;
    f->job = true;
    r = f->worker ? worker_submit(f->worker, work, f) : -ESHUTDOWN;
    if (r == 0)
        return;
    f->job = false;
    finish(f, -EAGAIN, "the loader thread's queue is full");
}

static void step(struct fetch *f, const struct pull_event *event);

static void step_later(struct fetch *f, uint32_t file, uint64_t offset, int result, const char *text)
{
    if (f->later.n < PULL_WINDOW)
        f->later.items[f->later.n++] = (struct pull_event) {.kind = PULL_CHUNK, .file = file, .offset = offset, .result = result, .text = text};
}

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct chunk *chunk = arg;
    struct fetch *f = chunk->fetch;
    struct pull_event event = {.kind = PULL_CHUNK, .file = chunk->file, .offset = chunk->offset, .result = result};
    size_t n = 0;

    chunk->call = 0;
    if (result == -ECANCELED)
        return;                         /* the client is being freed, and we with it */
    if (result == 0) {
        const uint8_t *bytes = reply->n_parts ? message_part(reply, 0, &n) : NULL;

        chunk->bytes = malloc(n + 1);
        if (!chunk->bytes)
            event.result = -ENOMEM;
        else if (n > 0)
            memcpy(chunk->bytes, bytes, n);
        chunk->n = n;
        f->bytes_total += n;
        event.size = (uint32_t)n;
        event.file_size = ((const Gantry__WeightsReply *)reply->body)->file_size;
    } else if (reply) {
        event.text = reply->envelope.error;
    }
    if (event.result < 0)
        drop_chunk(f, take_chunk(f, event.file, event.offset));
    step(f, &event);
}

static void ask(struct fetch *f, const struct pull_effect *effect)
{
    Gantry__WeightsRequest body = GANTRY__WEIGHTS_REQUEST__INIT;
    struct chunk *chunk;
    int r;

    if (!f->client) {
        step_later(f, effect->file, effect->offset, -EAGAIN, "no learner is there");
        return;
    }
    chunk = calloc(1, sizeof *chunk);
    if (!chunk) {
        step_later(f, effect->file, effect->offset, -ENOMEM, NULL);
        return;
    }
    *chunk = (struct chunk) {.fetch = f, .file = effect->file, .offset = effect->offset, .next = f->chunks};
    body.kind = (Gantry__VersionKind)f->now.kind;
    body.version = f->now.number;
    body.file = (char *)f->files[effect->file].name;
    body.offset = effect->offset;
    body.size = effect->size;
    /* once: on a slow link a repetition would ask for bytes that are on their way; pull.c asks again */
    r = wire_call(f->client, &(struct wire_call) {.kind = GANTRY__KIND__KIND_WEIGHTS, .version = f->now.number, .body = &body.base,
                                                  .deadline_ms = effect->timeout_ms, .flags = WIRE_ONCE, .on_reply = on_reply, .arg = chunk},
                  &chunk->call);
    if (r < 0) {
        free(chunk);
        step_later(f, effect->file, effect->offset, r, NULL);
        return;
    }
    f->chunks = chunk;
}

static void write_out(struct fetch *f, const struct pull_effect *effect)
{
    struct chunk *chunk = take_chunk(f, effect->file, effect->offset);

    if (!chunk) {                       /* a file of no bytes, or one that is all there: nothing was asked for */
        chunk = calloc(1, sizeof *chunk);
        if (!chunk) {
            finish(f, -EAGAIN, "out of memory");
            return;
        }
        *chunk = (struct chunk) {.fetch = f, .file = effect->file, .offset = effect->offset};
    }
    f->write.chunk = chunk;
    f->write.last = effect->last;
    submit(f, STEP_WRITE);
}

static void carry_out(struct fetch *f, const struct pull_effect *effect)
{
    switch (effect->kind) {
    case PULL_ASK: ask(f, effect); break;
    case PULL_WRITE: write_out(f, effect); break;
    case PULL_FORGET: drop_chunk(f, take_chunk(f, effect->file, effect->offset)); break;
    case PULL_RESTART:
        log_warn("a file came damaged and is brought again", "version=%" PRIu64 " file=%s", f->now.number, LOG_Q(f->files[effect->file].name));
        break;
    case PULL_DONE:
        f->pulling = false;
        submit(f, f->for_manifest ? STEP_LOOK : STEP_COMMIT);
        break;
    case PULL_FAILED:
        finish(f, effect->result, effect->text);
        break;
    }
}

static void step(struct fetch *f, const struct pull_event *event)
{
    struct pull_effects effects;

    f->later.n = 0;
    pull_step(&f->pull, event, loop_now_ms(f->loop), &effects);
    for (size_t i = 0; i < effects.n && f->active; i++)
        carry_out(f, &effects.items[i]);
    while (f->active && f->pulling && f->later.n > 0) {
        struct pull_event next = f->later.items[--f->later.n];

        pull_step(&f->pull, &next, loop_now_ms(f->loop), &effects);
        for (size_t i = 0; i < effects.n && f->active; i++)
            carry_out(f, &effects.items[i]);
    }
}

static void begin_pull(struct fetch *f)
{
    uint64_t seed = 0;
    int r;

    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = clock_mono_ns();
    r = pull_init(&f->pull, f->files, f->n_files, &limits, seed);
    if (r < 0) {
        finish(f, -EBADMSG, "the manifest names no files");
        return;
    }
    f->pulling = true;
    if (!f->for_manifest)
        log_info("bringing a version over from the learner", "version=%" PRIu64 " bytes=%" PRIu64 " here=%" PRIu64 " to=%s", f->now.number,
                 f->pull.total, f->pull.written, LOG_Q(f->dir));
    step(f, &(struct pull_event) {.kind = PULL_TICK});
}

static void on_looked(struct fetch *f)
{
    if (!f->whole) {
        begin_pull(f);
        return;
    }
    if (f->has_base && f->bases++ == BASES_MAX) {
        finish(f, -ELOOP, "adapters upon adapters upon adapters");
    } else if (f->has_base) {
        f->now = f->base;
        submit(f, STEP_LOOK);
    } else {
        (void)version_path(f->cache.dir, f->wanted.kind, f->wanted.number, f->dir);
        finish(f, 0, "");
    }
}

static void on_job(void *arg)
{
    struct fetch *f = arg;
    enum step was = f->step;
    int result = f->result;

    f->job = false;
    if (f->cancelled || !f->worker) {
        if (was == STEP_WRITE)
            chunk_free(f->write.chunk);
        finish(f, -ECANCELED, "not wanted any more");
    } else if (was == STEP_WRITE) {
        struct pull_event event = {.kind = PULL_WRITTEN, .file = f->write.chunk->file, .offset = f->write.chunk->offset, .result = result};

        chunk_free(f->write.chunk);
        step(f, &event);
    } else if (result < 0) {
        finish(f, result, error_text(&f->error, result));
    } else if (was == STEP_LOOK) {
        on_looked(f);
    } else {
        uint64_t took_ms = loop_now_ms(f->loop) - f->started_ms;

        log_info("version brought over", "version=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64, f->now.number, f->bytes_total - f->started_bytes,
                 took_ms);
        submit(f, STEP_LOOK);           /* it has a base, perhaps */
    }
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

int fetch_new(struct loop *loop, struct wire *wire, struct worker *worker, Gantry__VersionKind kind, fetch_done_fn *done, void *arg,
              struct fetch **ret)
{
    struct fetch *f = calloc(1, sizeof *f);

    if (!f)
        return -ENOMEM;
    *f = (struct fetch) {.loop = loop, .wire = wire, .worker = worker, .kind = kind, .done = done, .arg = arg, .lock = -1, .fd = -1,
                         .cache = {.lock = -1}};
    *ret = f;
    return 0;
}

struct fetch *fetch_free(struct fetch *f)
{
    if (!f)
        return NULL;
    while (f->chunks)
        drop_chunk(f, take_chunk(f, f->chunks->file, f->chunks->offset));
    wire_client_free(f->client);
    let_go(f);
    manifest_release(&f->manifest);
    cache_close(&f->cache);
    free(f);
    return NULL;
}

int fetch_cache(struct fetch *f, const char *given, uint64_t run, const char *role, struct error *error)
{
    return f->cache.dir[0] ? 0 : cache_open(&f->cache, given, run, role, error);
}

int fetch_learner(struct fetch *f, const char *address, const char *server_key, struct error *error)
{
    if (f->client)
        return strcmp(wire_client_address(f->client), address) ? wire_client_move(f->client, address, server_key, error) : 0;
    return wire_client_new(f->wire, &(struct wire_client_options) {.address = address, .server_key = server_key}, &f->client, error);
}

int fetch_start(struct fetch *f, uint64_t version, const uint8_t digest[SHA256_SIZE], const uint64_t *keep, size_t n_keep)
{
    if (f->active)
        return -EBUSY;
    f->active = true;
    f->cancelled = f->pulling = false;
    f->bases = 0;
    f->wanted = (struct target) {.kind = (int)f->kind, .number = version};
    memcpy(f->wanted.digest, digest, SHA256_SIZE);
    f->now = f->wanted;
    f->n_keep = MIN(n_keep, (size_t)KEEP_MAX - 1);
    memcpy(f->keep, keep, f->n_keep * sizeof *keep);
    f->keep[f->n_keep++] = version;
    f->started_ms = loop_now_ms(f->loop);
    f->started_bytes = f->bytes_total;
    submit(f, STEP_LOOK);
    return 0;
}

void fetch_cancel(struct fetch *f)
{
    if (!f->active)
        return;
    f->cancelled = true;
    if (!f->job)
        finish(f, -ECANCELED, "not wanted any more");
}

bool fetch_busy(const struct fetch *f, uint64_t *ret_version)
{
    if (f->active)
        *ret_version = f->wanted.number;
    return f->active;
}

void fetch_tick(struct fetch *f)
{
    if (f->active && f->pulling)
        step(f, &(struct pull_event) {.kind = PULL_TICK});
}

void fetch_damaged(struct fetch *f, uint64_t version)
{
    cache_remove(&f->cache, (int)f->kind, version);
}

uint64_t fetch_bytes_total(const struct fetch *f)
{
    return f->bytes_total;
}

bool fetch_text(const struct fetch *f, char *ret, size_t size)
{
    uint64_t ms = loop_now_ms(f->loop) - f->started_ms, got = f->bytes_total - f->started_bytes;
    double rate = ms ? (double)got / 1e3 / (double)ms : 0;       /* MB/s */

    if (!f->active || !f->pulling || f->for_manifest)
        return false;
    snprintf(ret, size, "bringing version %" PRIu64 ": %.0f of %.0f MB, %.1f MB/s, %.0f s left", f->now.number, (double)f->pull.written / 1e6,
             (double)f->pull.total / 1e6, rate, rate > 0 ? (double)(f->pull.total - MIN(f->pull.written, f->pull.total)) / 1e6 / rate : 0);
    return true;
}
