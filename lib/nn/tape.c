#include "nn/tape.h"

#include <errno.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/device/device.h"
#include "nn/rope_table.h"
#include "nn/tape_internal.h"
#include "nn/tape_watch.h"

struct tape_record {
    struct tape_record *previous;
    struct tensor *y;
    void (*backward)(struct tape *tape, void *context);
    void *context;
};

struct tape_block {
    struct tape_block *next;
    _Alignas(64) char bytes[];
};

enum { CHUNK = 1 << 20 };

struct tape_chunk {
    struct tape_chunk *next;
    size_t size, used;
    _Alignas(64) char bytes[];
};

static size_t rounded(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static void drop_blocks(struct tape *tape)
{
    while (tape->blocks) {
        struct tape_block *next = tape->blocks->next;
        free(tape->blocks);
        tape->blocks = next;
    }
}

size_t tape_element(const struct tape *tape) { return tape->half ? sizeof(uint16_t) : sizeof(float); }
size_t tape_room(const struct tape *tape) { return tape->on ? tape->numbers.size : tape->arena.size; }

void tape_zero(struct tape *tape, void *numbers, size_t bytes)
{
    int r;

    if (!tape->on) {
        memset(numbers, 0, bytes);
        return;
    }
    r = tape->on->k->zero(tape->on->stream, numbers, bytes);
    if (r < 0)
        tape_fail(tape, r);
}

/* Chunks are used one after the other; the first that is large enough from the present one on. */
static void *chunk_alloc(struct tape *tape, size_t bytes)
{
    struct tape_chunk **at = tape->chunk ? &tape->chunk : &tape->chunks, *chunk;

    bytes = rounded(bytes);
    for (chunk = *at; chunk; chunk = chunk->next)
        if (chunk->size - chunk->used >= bytes)
            break;
        else if (!chunk->next)
            at = &chunk->next;
    if (!chunk) {
        size_t size = MAX((size_t)CHUNK, bytes);

        chunk = aligned_alloc(64, rounded(sizeof(*chunk) + size));
        if (!chunk)
            return tape_fail(tape, -ENOMEM);
        *chunk = (struct tape_chunk) {.size = size};
        *at = chunk;
    }
    tape->chunk = chunk;
    chunk->used += bytes;
    return chunk->bytes + chunk->used - bytes;
}

static void forget_chunks(struct tape *tape)
{
    for (struct tape_chunk *chunk = tape->chunks; chunk; chunk = chunk->next)
        chunk->used = 0;
    tape->chunk = tape->chunks;
}

static void leave_device(struct tape *tape)
{
    if (!tape->on)
        return;
    tape->on->k->use(tape->on->device->ordinal, NULL, NULL, 0);
    tape->on->k->wait(tape->on->stream);
    tape->on->k->release(tape->numbers.base);
    while (tape->chunks) {
        struct tape_chunk *next = tape->chunks->next;

        free(tape->chunks);
        tape->chunks = next;
    }
    tape->rope = rope_table_free(tape->rope);
    tape->numbers = (struct arena) {0};
    tape->chunk = NULL;
    tape->half = false;
    tape->on = device_stream_free(tape->on);
}

int tape_attach(struct tape *tape, const struct params *params)
{
    int r;

    if ((tape->on ? tape->on->device : NULL) == params->device && tape->half == params->device_half)
        return 0;
    leave_device(tape);
    tape_begin(tape);
    if (!params->device)
        return 0;
    r = device_stream_new(params->device, &tape->on);
    if (r >= 0)
        tape->half = params->device_half;
    return r;
}

/* The newest spare comes first: it is the warmest. */
static float *take_spare(struct tape *tape, int64_t count)
{
    for (int i = tape->spares - 1; i >= 0; i--)
        if (tape->spare[i].count == count) {
            float *memory = tape->spare[i].memory;

            memmove(&tape->spare[i], &tape->spare[i + 1], (size_t)(--tape->spares - i) * sizeof(tape->spare[0]));
            return memory;
        }
    return NULL;
}

static void give_back(struct tape *tape, struct tensor *x)
{
    if (x->g && tape->spares < TAPE_SPARES) {
        tape->spare[tape->spares].memory = x->g;
        tape->spare[tape->spares++].count = x->rows * x->cols;
    }
    x->g = NULL;
}

void tape_init(struct tape *tape, bool training)
{
    *tape = (struct tape) {.training = training};
}

void tape_release(struct tape *tape)
{
    leave_device(tape);
    drop_blocks(tape);
    arena_release(&tape->arena);
    tape->rope = rope_table_free(tape->rope);
    *tape = (struct tape) {.training = tape->training, .recycle = tape->recycle, .plain = tape->plain,
                           .recompute = tape->recompute};
}

void tape_plan(struct tape *tape)
{
    drop_blocks(tape);
    forget_chunks(tape);
    tape->planning = true;
    tape->planned = tape->scratch = tape->peak = tape->block = 0;
    tape->last = NULL;
    tape->error = 0;
    if (tape->watch)
        tape_watch_begin(tape->watch);
}

int tape_allocate(struct tape *tape)
{
    if (tape->error)
        return tape->error;
    return tape_reserve(tape, MAX(tape->planned, tape->peak) + tape->block + tape->scratch);
}

static int reserve_device(struct tape *tape, size_t bytes)
{
    const struct device_kernels *k = tape->on->k;
    void *base;
    int r = device_stream_begin(tape->on);

    if (r < 0)
        return r;
    k->release(tape->numbers.base);     /* first: both may not fit */
    tape->numbers = (struct arena) {0};
    r = k->alloc(bytes, &base);
    if (r == 0)
        tape->numbers = (struct arena) {.base = base, .size = bytes};
    return r;
}

int tape_reserve(struct tape *tape, size_t bytes)
{
    struct arena arena;

    drop_blocks(tape);
    tape->planning = false;
    tape->last = NULL;
    forget_chunks(tape);
    arena_reset(tape_arena(tape), 0);
    if (bytes <= tape_room(tape))
        return 0;
    if (tape->on)
        return reserve_device(tape, bytes);
    if (arena_init(&arena, bytes) < 0)
        return -ENOMEM;
    arena_release(&tape->arena);
    tape->arena = arena;
    return 0;
}

void tape_begin(struct tape *tape)
{
    drop_blocks(tape);
    tape->planning = false;
    tape->last = NULL;
    tape->error = tape->on ? device_stream_begin(tape->on) : 0;
    tape->spares = 0;
    if (tape->watch)
        tape_watch_begin(tape->watch);
    forget_chunks(tape);
    arena_reset(tape_arena(tape), 0);
}

int tape_run(struct tape *tape, int (*pass)(struct tape *tape, void *arg), void *arg)
{
    int r;

    tape_begin(tape);
    r = pass(tape, arg);
    if (r != -ENOBUFS)
        return r;
    tape_plan(tape);
    r = pass(tape, arg);
    if (r >= 0)
        r = tape_allocate(tape);
    if (r < 0)
        return r;
    tape_begin(tape);
    return pass(tape, arg);
}

static void replay(struct tape *tape, const struct tape_record *r)
{
    bool large = r->y && tape_is_large(r->y);

    if (tape->recycle && large && !r->y->g)
        return;                         /* nobody wrote it: zero, and so is all that would follow */
    r->backward(tape, r->context);
    if (tape->recycle && large)
        give_back(tape, r->y);
}

void tape_backward(struct tape *tape)
{
    bool watched;
    int r = 0;

    if (tape->planning || tape->error)  /* what it takes has been asked for on the way forward */
        return;
    watched = tape->watch && tape_watch_return(tape->watch, &r);
    for (struct tape_record *record = tape->last; record && !tape->error && r >= 0; record = record->previous) {
        replay(tape, record);
        r = watched && !tape->error ? tape_watch_replayed(tape->watch) : 0;
    }
    if (r < 0)
        tape_fail(tape, r);
}

void *tape_alloc(struct tape *tape, size_t bytes)
{
    struct tape_block *block;
    void *p;

    if (tape->on)
        return chunk_alloc(tape, bytes);
    if (!tape->planning) {
        p = arena_alloc(&tape->arena, bytes);
        return p ? p : tape_fail(tape, -ENOBUFS);
    }
    block = aligned_alloc(64, rounded(sizeof(*block) + bytes));
    if (!block)
        return tape_fail(tape, -ENOMEM);
    block->next = tape->blocks;
    tape->blocks = block;
    tape->planned += rounded(bytes);
    return block->bytes;
}

static float *numbers(struct tape *tape, size_t bytes)
{
    float *p;

    if (tape->planning) {
        tape->planned += rounded(bytes);
        return NULL;
    }
    p = arena_alloc(tape_arena(tape), bytes);
    return p ? p : tape_fail(tape, -ENOBUFS);
}

float *tape_numbers(struct tape *tape, int64_t count) { return numbers(tape, (size_t)count * sizeof(float)); }
float *tape_activations(struct tape *tape, int64_t count) { return numbers(tape, (size_t)count * tape_element(tape)); }
float *tape_host_numbers(struct tape *tape, int64_t count)
{
    return tape->on ? tape_alloc(tape, (size_t)count * sizeof(float)) : tape_numbers(tape, count);
}

float *tape_scratch(struct tape *tape, int64_t count)
{
    size_t mark = arena_mark(tape_arena(tape));
    float *p;

    if (tape->planning) {
        tape->scratch = MAX(tape->scratch, rounded((size_t)count * sizeof(float)));
        return NULL;
    }
    p = tape_numbers(tape, count);
    arena_reset(tape_arena(tape), mark);
    return p;
}

size_t tape_mark(const struct tape *tape)
{
    return tape->planning ? tape->planned : arena_mark(tape->on ? &tape->numbers : &tape->arena);
}

/* The header stays where it is, the numbers move down. A copy may not overlap: then by way of scratch. */
static struct tensor *keep_on_device(struct tape *tape, size_t mark, struct tensor *x, size_t bytes)
{
    const struct device_stream *s = tape->on;
    char *from = (char *)x->x, *to, *between;
    int r;

    if (from < tape->numbers.base + mark)
        return x;
    between = (char *)tape_scratch(tape, (int64_t)((bytes + sizeof(float) - 1) / sizeof(float)));
    if (!between)
        return NULL;
    arena_reset(&tape->numbers, mark);
    to = (char *)numbers(tape, bytes);
    if (!to || to == from)
        return to ? x : NULL;
    if (to + bytes <= from) {
        r = s->k->copy(s->stream, to, from, bytes);
    } else {
        r = s->k->copy(s->stream, between, from, bytes);
        r = r < 0 ? r : s->k->copy(s->stream, to, between, bytes);
    }
    x->x = (float *)to;
    return r < 0 ? tape_fail(tape, r) : x;
}

struct tensor *tape_keep(struct tape *tape, size_t mark, struct tensor *x)
{
    struct tensor kept, *moved;
    const float *source;
    size_t bytes;

    if (!x || tape->training)
        return x;
    kept = *x;
    source = x->x;
    bytes = tape_bytes(tape, x);
    if (tape->planning) {
        if (tape->on)
            tape_scratch(tape, (int64_t)((bytes + sizeof(float) - 1) / sizeof(float)));
        tape->peak = MAX(tape->peak, tape->planned);
        tape->planned = mark + (tape->on ? 0 : rounded(sizeof(*x))) + rounded(bytes);
        return x;
    }
    if (tape->on)
        return keep_on_device(tape, mark, x, bytes);
    if ((char *)x < tape->arena.base + mark)
        return x;
    arena_reset(&tape->arena, mark);
    moved = arena_alloc(&tape->arena, sizeof(*moved));
    kept.x = arena_alloc(&tape->arena, bytes);
    if (!moved || !kept.x)
        return tape_fail(tape, -ENOBUFS);
    memmove(kept.x, source, bytes);     /* the old one lies higher: its own header came before it */
    *moved = kept;
    return moved;
}

void tape_forget(struct tape *tape, size_t mark)
{
    if (tape->training)
        return;
    if (!tape->planning) {
        arena_reset(tape->on ? &tape->numbers : &tape->arena, mark);
        return;
    }
    tape->peak = MAX(tape->peak, tape->planned);
    tape->planned = mark;
}

struct tensor *tape_keep_block(struct tape *tape, size_t mark, const struct tensor *before, struct tensor *x)
{
    if (x != before)
        return tape_keep(tape, mark, x);
    tape_forget(tape, mark);
    return x;
}

struct tensor *tape_tensor(struct tape *tape, int64_t rows, int64_t cols)
{
    struct tensor *tensor = tape_alloc(tape, sizeof(*tensor));

    if (!tensor)
        return NULL;
    *tensor = (struct tensor) {.rows = rows, .cols = cols};
    tensor->x = tape_activations(tape, rows * cols);
    tensor->wants = tape->training;
    /* a dry run counts it in any case: an upper bound */
    if (tape->training && (tape->planning || !tape->recycle || !tape_is_large(tensor)))
        tensor->g = tape_activations(tape, rows * cols);
    if (tape->error)
        return NULL;
    if (tensor->g)
        tape_zero(tape, tensor->g, tape_bytes(tape, tensor));
    return tensor;
}

float *tape_gradient_first(struct tape *tape, struct tensor *x, bool *ret_first)
{
    *ret_first = !x->g;
    if (!x->g)
        x->g = take_spare(tape, x->rows * x->cols);
    if (!x->g)
        x->g = tape_activations(tape, x->rows * x->cols);
    return x->g;
}

float *tape_gradient(struct tape *tape, struct tensor *x)
{
    bool first;
    float *g = tape_gradient_first(tape, x, &first);

    if (g && first)
        tape_zero(tape, g, tape_bytes(tape, x));
    return g;
}

void tape_record(struct tape *tape, struct tensor *y, void (*backward)(struct tape *tape, void *context), void *context)
{
    struct tape_record *record;

    if (!tape->training)
        return;
    record = tape_alloc(tape, sizeof(*record));
    if (!record)
        return;
    *record = (struct tape_record) {.previous = tape->last, .y = y, .backward = backward, .context = context};
    tape->last = record;
    if (tape->watch)
        tape_watch_record(tape->watch);
}
