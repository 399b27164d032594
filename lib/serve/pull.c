#include "serve/pull.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"

enum {
    TIMEOUT_MS = 10000,                     /* for one chunk; the allowance keeps what is under way to a second or two */
    QUICK_MS = 500, SLOW_MS = 2000,         /* answers: ask for more at once, for less */
    BACKOFF_FIRST_MS = 100, BACKOFF_MOST_MS = 5000,
};

int pull_init(struct pull *p, const struct pull_file *files, size_t n, const struct pull_limits *limits, uint64_t seed)
{
    if (n == 0)
        return -EINVAL;
    if (n > PULL_FILES)
        return -E2BIG;
    *p = (struct pull) {.limits = *limits, .n_files = (uint32_t)n, .jitter = seed};
    for (size_t i = 0; i < n; i++) {
        p->files[i] = files[i];
        if (files[i].sized)
            p->total += files[i].size;
        if (!files[i].sized || files[i].have > files[i].size)
            p->files[i].have = 0;           /* longer than it may be: not ours; the first write cuts it off */
        p->written += p->files[i].have;
    }
    p->offset = p->files[0].have;
    p->allowance = limits->chunk_least;
    return 0;
}

static struct pull_effect *emit(struct pull_effects *out, enum pull_effect_kind kind)
{
    struct pull_effect *effect = &out->items[MIN(out->n, (size_t)PULL_EFFECTS - 1)];

    out->n = MIN(out->n + 1, (size_t)PULL_EFFECTS);
    *effect = (struct pull_effect) {.kind = kind};
    return effect;
}

static struct pull_slot *slot_at(struct pull *p, uint32_t i)
{
    return &p->ring[(p->head + i) % PULL_WINDOW];
}

static struct pull_slot *find(struct pull *p, uint32_t file, uint64_t offset)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (slot_at(p, i)->file == file && slot_at(p, i)->offset == offset)
            return slot_at(p, i);
    return NULL;
}

static void next_file_at_the_end(struct pull *p)
{
    if (p->offset == p->files[p->file].size && ++p->file < p->n_files)
        p->offset = p->files[p->file].have;
}

/* ---- ends ------------------------------------------------------------------------------------------------ */

static void forget_all(struct pull *p, struct pull_effects *out)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct pull_effect *effect = emit(out, PULL_FORGET);

        effect->file = slot_at(p, i)->file;
        effect->offset = slot_at(p, i)->offset;
    }
    p->n = 0;
}

_printf_(4, 5) static void fail(struct pull *p, struct pull_effects *out, int result, const char *format, ...)
{
    struct pull_effect *effect;
    va_list args;

    forget_all(p, out);
    p->ended = true;
    effect = emit(out, PULL_FAILED);
    effect->result = result;
    va_start(args, format);
    vsnprintf(effect->text, sizeof effect->text, format, args);
    va_end(args);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

/* Might it go better another time? Nothing of it is the version's fault. */
static bool is_passing(int result)
{
    return result == -ETIMEDOUT || result == -ECONNRESET || result == -EBUSY || result == -ESHUTDOWN || result == -ESRCH ||
           result == -EIO || result == -ENOBUFS || result == -EAGAIN || result == -ENOMEM;
}

static void back_off(struct pull *p, uint64_t now_ms)
{
    uint64_t ms = MIN((uint64_t)BACKOFF_FIRST_MS << (p->failures - 1), (uint64_t)BACKOFF_MOST_MS);

    p->jitter = p->jitter * 6364136223846793005u + 1442695040888963407u;
    p->wait_until_ms = now_ms + ms * 3 / 4 + (p->jitter >> 33) % (ms / 2 + 1);
}

static void on_failure(struct pull *p, struct pull_slot *slot, const struct pull_event *event, uint64_t now_ms,
                       struct pull_effects *out)
{
    const char *name = p->files[slot->file].name, *why = event->text && *event->text ? event->text : strerror(-event->result);

    if (!is_passing(event->result)) {
        fail(p, out, event->result, "%s cannot be had from the learner: %.300s", name, why);
        return;
    }
    slot->state = PULL_AGAIN;
    p->allowance = p->limits.chunk_least;
    if (now_ms < p->wait_until_ms)
        return;                     /* the others that were lost with it: one failure */
    if (++p->failures == PULL_TRIES)
        fail(p, out, -EAGAIN, "%s: the learner has not answered %d times in a row: %.300s", name, PULL_TRIES, why);
    else
        back_off(p, now_ms);
}

static void follow_the_link(struct pull *p, uint64_t took_ms)
{
    if (took_ms < QUICK_MS)
        p->allowance = MIN(p->allowance + MAX(p->allowance / 4, (uint64_t)p->limits.chunk_least), p->limits.under_way);
    else if (took_ms > SLOW_MS)
        p->allowance = MAX(p->allowance / 2, (uint64_t)p->limits.chunk_least);
}

static void on_chunk(struct pull *p, const struct pull_event *event, uint64_t now_ms, struct pull_effects *out)
{
    struct pull_slot *slot = find(p, event->file, event->offset);
    struct pull_file *file;

    if (!slot || slot->state != PULL_ASKED)
        return;
    file = &p->files[slot->file];
    if (event->result < 0) {
        on_failure(p, slot, event, now_ms, out);
        return;
    }
    if (!file->sized && event->file_size <= p->limits.unsized) {
        file->size = event->file_size;
        file->sized = true;
        p->total += file->size;
        p->offset = slot->size = (uint32_t)MIN((uint64_t)slot->size, file->size);
        next_file_at_the_end(p);
    }
    if (!file->sized) {
        fail(p, out, -EFBIG, "%s has %" PRIu64 " bytes at the learner, %" PRIu64 " at most are taken", file->name,
             event->file_size, p->limits.unsized);
    } else if (event->file_size != file->size || event->size != slot->size) {
        fail(p, out, -EBADMSG, "%s has %" PRIu64 " bytes at the learner, %" PRIu64 " by the manifest (%u of %u bytes came)",
             file->name, event->file_size, file->size, event->size, slot->size);
    } else {
        slot->state = PULL_HERE;
        p->failures = 0;
        follow_the_link(p, now_ms - slot->asked_ms);
    }
}

/* ---- the disk ---------------------------------------------------------------------------------------------- */

static void begin_again(struct pull *p, uint32_t file, struct pull_effects *out)
{
    if (p->begun_again[file]) {
        fail(p, out, -EBADMSG, "%s: its bytes are not those its manifest lists, also when they are brought again",
             p->files[file].name);
        return;
    }
    p->begun_again[file] = true;
    forget_all(p, out);
    emit(out, PULL_RESTART)->file = file;
    p->written -= MIN(p->files[file].size, p->written);
    p->files[file].have = 0;
    p->file = file;
    p->offset = 0;
}

static void on_written(struct pull *p, const struct pull_event *event, struct pull_effects *out)
{
    struct pull_slot *slot = find(p, event->file, event->offset);

    if (!slot || slot->state != PULL_WRITING)
        return;
    if (event->result == -EBADMSG) {
        p->written += slot->size;
        begin_again(p, slot->file, out);
        return;
    }
    if (event->result < 0) {
        fail(p, out, event->result, "%s: cannot be written here: %s", p->files[slot->file].name, strerror(-event->result));
        return;
    }
    p->written += slot->size;
    p->files[slot->file].have = slot->offset + slot->size;
    p->head = (p->head + 1) % PULL_WINDOW;          /* writes are in order: it is the first */
    p->n--;
    if (p->n == 0 && p->file == p->n_files) {
        p->ended = true;
        emit(out, PULL_DONE);
    }
}

/* ---- what comes next ----------------------------------------------------------------------------------------- */

static uint64_t under_way(struct pull *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < p->n; i++)
        bytes += slot_at(p, i)->state == PULL_AGAIN ? 0 : slot_at(p, i)->size;
    return bytes;
}

static void ask(struct pull_slot *slot, uint64_t now_ms, struct pull_effects *out)
{
    struct pull_effect *effect = emit(out, PULL_ASK);

    slot->state = PULL_ASKED;
    slot->asked_ms = now_ms;
    effect->file = slot->file;
    effect->offset = slot->offset;
    effect->size = slot->size;
    effect->timeout_ms = TIMEOUT_MS;
}

static void ask_again(struct pull *p, uint64_t now_ms, struct pull_effects *out)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct pull_slot *slot = slot_at(p, i);
        uint64_t bytes = under_way(p);

        /* all others wait for the first, also those that have come: it is asked for whatever is under way */
        if (slot->state == PULL_AGAIN && (i == 0 || bytes + slot->size <= p->allowance))
            ask(slot, now_ms, out);
        else if (slot->state == PULL_AGAIN)
            return;
    }
}

static void ask_more(struct pull *p, uint64_t now_ms, struct pull_effects *out)
{
    while (p->file < p->n_files && p->n < PULL_WINDOW) {
        const struct pull_file *file = &p->files[p->file];
        uint64_t left = file->sized ? file->size - p->offset : p->limits.chunk_most;
        uint32_t most = (uint32_t)CLAMP(p->allowance / 4, (uint64_t)p->limits.chunk_least, (uint64_t)p->limits.chunk_most);
        uint32_t size = (uint32_t)MIN(left, (uint64_t)most);
        uint64_t bytes = under_way(p);
        struct pull_slot *slot;

        if (bytes > 0 && bytes + size > p->allowance)
            return;
        if (!file->sized && p->n > 0 && slot_at(p, p->n - 1)->file == p->file)
            return;                 /* its first chunk is on its way, and tells the size */
        slot = slot_at(p, p->n++);
        *slot = (struct pull_slot) {.file = p->file, .offset = p->offset, .size = size, .state = PULL_HERE};
        if (size > 0)
            ask(slot, now_ms, out);
        p->offset += size;
        if (!file->sized)
            return;
        next_file_at_the_end(p);
    }
}

static void write_next(struct pull *p, struct pull_effects *out)
{
    struct pull_slot *first = slot_at(p, 0);
    struct pull_effect *effect;

    if (p->n == 0 || first->state != PULL_HERE)
        return;
    first->state = PULL_WRITING;
    effect = emit(out, PULL_WRITE);
    effect->file = first->file;
    effect->offset = first->offset;
    effect->size = first->size;
    effect->last = first->offset + first->size == p->files[first->file].size;
}

void pull_step(struct pull *p, const struct pull_event *event, uint64_t now_ms, struct pull_effects *out)
{
    out->n = 0;
    if (p->ended)
        return;
    switch (event->kind) {
    case PULL_CHUNK: on_chunk(p, event, now_ms, out); break;
    case PULL_WRITTEN: on_written(p, event, out); break;
    case PULL_TICK: break;
    }
    if (p->ended)
        return;
    write_next(p, out);
    if (now_ms < p->wait_until_ms)
        return;
    ask_again(p, now_ms, out);
    ask_more(p, now_ms, out);
    write_next(p, out);             /* a file of no bytes */
}
