#include "serve/fetch_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "proto/train.pb-c.h"
#include "wire/address.h"

enum { BASES_MAX = 4 };

static const struct pull_limits limits = {
    .chunk_least = 256 << 10, .chunk_most = WIRE_CHUNK, .under_way = 16 * FETCH_MIB, .unsized = 64 * FETCH_MIB
};

static void on_job(void *arg);

static void work(void *arg)
{
    struct fetch *f = arg;

    fetch_disk_work(f);
    (void)loop_post(f->loop, on_job, f);
}

static void chunk_free(struct chunk *chunk)
{
    if (!chunk)
        return;
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
    chunk_free(f->write.chunk);
    f->write.chunk = NULL;
    f->active = f->pulling = false;
    fetch_disk_let_go(f);
    manifest_release(&f->manifest);
    f->done(result, f->wanted.number, f->dir, text, f->arg);
}

/* Files and their names are the worker's while it has a job: what ends the bringing meanwhile is told when the job is back. */
static void end(struct fetch *f, int result, const char *text)
{
    if (!f->job) {
        finish(f, result, text);
        return;
    }
    f->pulling = false;
    f->ended = result;
    snprintf(f->why, sizeof f->why, "%s", text);
}

static void submit(struct fetch *f, enum step step)
{
    int r;

    f->step = step;
    f->job = true;
    r = worker_submit(f->worker, work, f);
    if (r == 0)
        return;
    f->job = false;
    finish(f, -EAGAIN, "the loader thread's queue is full");
}

static void step(struct fetch *f, const struct pull_event *event);

static void step_later(struct fetch *f, uint32_t file, uint64_t offset, int result, const char *text)
{
    if (f->later.n < PULL_WINDOW)
        f->later.items[f->later.n++] = (struct pull_event) {.kind = PULL_CHUNK, .file = file, .offset = offset, .result = result,
                                                            .text = text};
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
    r = wire_call(f->client,
                  &(struct wire_call) {.kind = GANTRY__KIND__KIND_WEIGHTS, .version = f->now.number, .body = &body.base,
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
        log_warn("a file came damaged and is brought again", "version=%" PRIu64 " file=%s", f->now.number,
                 LOG_Q(f->files[effect->file].name));
        break;
    case PULL_DONE:
        f->pulling = false;
        submit(f, f->for_manifest ? STEP_LOOK : STEP_COMMIT);
        break;
    case PULL_FAILED:
        end(f, effect->result, effect->text);
        break;
    }
}

static void step(struct fetch *f, const struct pull_event *event)
{
    struct pull_effects effects;

    f->later.n = 0;
    pull_step(&f->pull, event, loop_now_ms(f->loop), &effects);
    for (size_t i = 0; i < effects.n && f->pulling; i++)
        carry_out(f, &effects.items[i]);
    while (f->pulling && f->later.n > 0) {
        struct pull_event next = f->later.items[--f->later.n];

        pull_step(&f->pull, &next, loop_now_ms(f->loop), &effects);
        for (size_t i = 0; i < effects.n && f->pulling; i++)
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
        log_info("bringing a version over from the learner", "version=%" PRIu64 " bytes=%" PRIu64 " here=%" PRIu64 " to=%s",
                 f->now.number, f->pull.total, f->pull.written, LOG_Q(f->dir));
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
    if (f->ended < 0) {
        finish(f, f->ended, f->why);
    } else if (was == STEP_WRITE) {
        struct pull_event event = {.kind = PULL_WRITTEN, .file = f->write.chunk->file, .offset = f->write.chunk->offset,
                                   .result = result};

        chunk_free(f->write.chunk);
        f->write.chunk = NULL;
        step(f, &event);
    } else if (result < 0) {
        finish(f, result, error_text(&f->error, result));
    } else if (was == STEP_LOOK) {
        on_looked(f);
    } else {
        uint64_t took_ms = loop_now_ms(f->loop) - f->started_ms;

        log_info("version brought over", "version=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64, f->now.number,
                 f->bytes_total - f->started_bytes, took_ms);
        submit(f, STEP_LOOK);           /* it has a base, perhaps */
    }
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

int fetch_new(struct loop *loop, struct wire *wire, struct worker *worker, Gantry__VersionKind kind, fetch_done_fn *done,
              void *arg, struct fetch **ret)
{
    struct fetch *f = calloc(1, sizeof *f);

    if (!f)
        return -ENOMEM;
    *f = (struct fetch) {.loop = loop, .wire = wire, .worker = worker, .kind = kind, .done = done, .arg = arg, .lock = -1,
                         .fd = -1, .cache = {.lock = -1}};
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
    fetch_disk_let_go(f);
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
    return wire_client_new(f->wire, &(struct wire_client_options) {.address = address, .server_key = server_key}, &f->client,
                           error);
}

int fetch_start(struct fetch *f, uint64_t version, const uint8_t digest[SHA256_SIZE], const uint64_t *keep, size_t n_keep)
{
    if (f->active)
        return -EBUSY;
    f->active = true;
    f->pulling = false;
    f->ended = f->bases = 0;
    f->wanted = (struct target) {.kind = (int)f->kind, .number = version};
    memcpy(f->wanted.digest, digest, SHA256_SIZE);
    f->now = f->wanted;
    f->n_keep = MIN(n_keep, (size_t)KEEP_MAX - 1);
    if (f->n_keep)
        memcpy(f->keep, keep, f->n_keep * sizeof *keep);
    f->keep[f->n_keep++] = version;
    f->started_ms = loop_now_ms(f->loop);
    f->started_bytes = f->bytes_total;
    submit(f, STEP_LOOK);
    return 0;
}

void fetch_cancel(struct fetch *f)
{
    if (f->active)
        end(f, -ECANCELED, "not wanted any more");
}

bool fetch_busy(const struct fetch *f, uint64_t *ret_version)
{
    if (f->active)
        *ret_version = f->wanted.number;
    return f->active;
}

void fetch_tick(struct fetch *f)
{
    if (f->pulling)
        step(f, &(struct pull_event) {.kind = PULL_TICK});
}

uint64_t fetch_bytes_total(const struct fetch *f)
{
    return f->bytes_total;
}

bool fetch_text(const struct fetch *f, char *ret, size_t size)
{
    uint64_t ms = loop_now_ms(f->loop) - f->started_ms, got = f->bytes_total - f->started_bytes;
    double rate = ms ? (double)got / 1e3 / (double)ms : 0;       /* MB/s */
    double written = (double)MIN(f->pull.written, f->pull.total) / 1e6, total = (double)f->pull.total / 1e6;

    if (!f->pulling || f->for_manifest)
        return false;
    snprintf(ret, size, "bringing version %" PRIu64 ": %.0f of %.0f MB, %.1f MB/s, %.0f s left", f->now.number,
             written, total, rate, rate > 0 ? (total - written) / rate : 0);
    return true;
}
