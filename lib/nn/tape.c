#include "nn/tape.h"

#include <errno.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/device/device.h"
#include "nn/rope_table.h"

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

static void *fail(struct tape *tape, int error)
{
    if (!tape->error)
        tape->error = error;
    return NULL;
}

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

static struct arena *numbers_of(struct tape *tape) { return tape->on ? &tape->numbers : &tape->arena; }

size_t tape_element(const struct tape *tape) { return tape->half ? sizeof(uint16_t) : sizeof(float); }
static size_t tensor_size(const struct tape *tape, const struct tensor *x) { return (size_t)(x->rows * x->cols) * tape_element(tape); }
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
        fail(tape, r);
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
            return fail(tape, -ENOMEM);
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

static bool is_large(const struct tensor *x)
{
    return x->rows * x->cols > TAPE_SMALL;
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
    *tape = (struct tape) {.training = tape->training, .recycle = tape->recycle, .plain = tape->plain, .recompute = tape->recompute};
}

void tape_plan(struct tape *tape)
{
    drop_blocks(tape);
    forget_chunks(tape);
    tape->planning = true;
    tape->planned = tape->scratch = tape->peak = tape->block = 0;
    tape->last = NULL;
    tape->error = 0;
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
    arena_reset(numbers_of(tape), 0);
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
    forget_chunks(tape);
    arena_reset(numbers_of(tape), 0);
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

void tape_backward(struct tape *tape)
{
    if (tape->planning)                 /* what it takes has been asked for on the way forward */
        return;
    for (struct tape_record *r = tape->last; r && !tape->error; r = r->previous) {
        bool large = r->y && is_large(r->y);

        if (tape->recycle && large && !r->y->g)
            continue;                   /* nobody wrote it: zero, and so is all that would follow */
        r->backward(tape, r->context);
        if (tape->recycle && large)
            give_back(tape, r->y);
    }
}

void *tape_alloc(struct tape *tape, size_t bytes)
{
    struct tape_block *block;
    void *p;

    if (tape->on)
        return chunk_alloc(tape, bytes);
    if (!tape->planning) {
        p = arena_alloc(&tape->arena, bytes);
        return p ? p : fail(tape, -ENOBUFS);
    }
    block = aligned_alloc(64, rounded(sizeof(*block) + bytes));
    if (!block)
        return fail(tape, -ENOMEM);
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
    p = arena_alloc(numbers_of(tape), bytes);
    return p ? p : fail(tape, -ENOBUFS);
}

float *tape_numbers(struct tape *tape, int64_t count) { return numbers(tape, (size_t)count * sizeof(float)); }
float *tape_activations(struct tape *tape, int64_t count) { return numbers(tape, (size_t)count * tape_element(tape)); }
float *tape_host_numbers(struct tape *tape, int64_t count)
{
    return tape->on ? tape_alloc(tape, (size_t)count * sizeof(float)) : tape_numbers(tape, count);
}

float *tape_scratch(struct tape *tape, int64_t count)
{
    size_t mark = arena_mark(numbers_of(tape));
    float *p;

    if (tape->planning) {
        tape->scratch = MAX(tape->scratch, rounded((size_t)count * sizeof(float)));
        return NULL;
    }
    p = tape_numbers(tape, count);
    arena_reset(numbers_of(tape), mark);
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
    return r < 0 ? fail(tape, r) : x;
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
    bytes = tensor_size(tape, x);
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
        return fail(tape, -ENOBUFS);
    memmove(kept.x, source, bytes);     /* the old one lies higher: its own header came before it */
    *moved = kept;
    return moved;
}

struct tensor *tape_tensor(struct tape *tape, int64_t rows, int64_t cols)
{
    struct tensor *tensor = tape_alloc(tape, sizeof(*tensor));

    if (!tensor)
        return NULL;
    *tensor = (struct tensor) {.rows = rows, .cols = cols};
    tensor->x = tape_activations(tape, rows * cols);
    tensor->wants = tape->training;
    if (tape->training && (tape->planning || !tape->recycle || !is_large(tensor)))      /* counted in any case: an upper bound */
        tensor->g = tape_activations(tape, rows * cols);
    if (tape->error)
        return NULL;
    if (tensor->g)
        tape_zero(tape, tensor->g, tensor_size(tape, tensor));
    return tensor;
}

struct tensor *tape_input(struct tape *tape, const float *x, int64_t rows, int64_t cols)
{
    struct tensor *tensor = tape_alloc(tape, sizeof(*tensor));
    const float *sent;
    int r;

    if (!tensor)
        return NULL;
    *tensor = (struct tensor) {.x = (float *)x, .rows = rows, .cols = cols};
    if (!tape->on)
        return tensor;
    tensor->x = tape->half ? tape_activations(tape, rows * cols) : NULL;
    if (tape->planning || tape->error)
        return tape->error ? NULL : tensor;
    sent = tape_send(tape, x, rows * cols);
    if (!sent)
        return NULL;
    if (!tape->half) {
        tensor->x = (float *)sent;
        return tensor;
    }
    r = tape->on->k->convert(tape->on->stream, DEVICE_BF16, tensor->x, DEVICE_F32, sent, rows * cols);
    return r < 0 ? fail(tape, r) : tensor;
}

/* ---- edges: what the host reads and writes ------------------------------------------------------------------------- */

const float *tape_send(struct tape *tape, const float *numbers, int64_t count)
{
    const float *sent;

    if (!tape->on || !numbers)
        return numbers;
    sent = device_send(tape->on, numbers, (size_t)count * sizeof(float));
    return sent ? sent : fail(tape, -ENOMEM);
}

const float *tape_read(struct tape *tape, const float *from, int64_t count)
{
    float *copy;
    int r;

    if (!tape->on || (!from && !tape->planning))
        return from;
    copy = tape_alloc(tape, (size_t)count * sizeof(*copy));
    if (!copy)
        return NULL;
    if (tape->planning)
        return memset(copy, 0, (size_t)count * sizeof(*copy));
    r = tape->on->k->download(tape->on->stream, copy, from, (size_t)count * sizeof(*copy));
    return r < 0 ? fail(tape, r) : copy;
}

const float *tape_values(struct tape *tape, const struct tensor *x)
{
    int64_t count = x->rows * x->cols;
    uint16_t *halves;
    float *wide;
    int r;

    if (!tape->half || !tape->on)
        return tape_read(tape, x->x, count);
    halves = tape_alloc(tape, (size_t)count * sizeof(*halves));
    wide = tape_alloc(tape, (size_t)count * sizeof(*wide));
    if (!halves || !wide)
        return NULL;
    if (tape->planning)
        return memset(wide, 0, (size_t)count * sizeof(*wide));
    r = tape->on->k->download(tape->on->stream, halves, x->x, (size_t)count * sizeof(*halves));
    if (r < 0)
        return fail(tape, r);
    cpu_kernels()->widen(wide, halves, count);
    return wide;
}

int tape_set_gradient(struct tape *tape, struct tensor *x, const float *g)
{
    int64_t count = x->rows * x->cols;
    const float *sent;
    bool first;
    float *to = tape_gradient_first(tape, x, &first);
    int r;

    if (!to)
        return tape->error;
    if (!tape->on) {
        memcpy(to, g, (size_t)count * sizeof(*g));
        return 0;
    }
    sent = tape_send(tape, g, count);
    if (!sent)
        return tape->error;
    r = tape->on->k->convert(tape->on->stream, tape->half ? DEVICE_BF16 : DEVICE_F32, to, DEVICE_F32, sent, count);
    if (r < 0)
        fail(tape, r);
    return r;
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
        tape_zero(tape, g, tensor_size(tape, x));
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
}

/* ---- blocks that are computed twice ------------------------------------------------------------------------- */

struct twice { struct tensor *x, *y; tape_block_fn *block; void *arg; };

/* Everything above the mark is gone: also gradients waiting to be used again. */
static void forget(struct tape *tape, size_t mark)
{
    int n = 0;

    for (int i = 0; i < tape->spares; i++)
        if ((char *)tape->spare[i].memory < numbers_of(tape)->base + mark)
            tape->spare[n++] = tape->spare[i];
    tape->spares = n;
    arena_reset(numbers_of(tape), mark);
}

static void twice_backward(struct tape *tape, void *context)
{
    struct twice *c = context;
    struct tape_record *last = tape->last;
    float *g = c->y->g;
    struct tensor *y;
    size_t mark;

    if (!g || (c->x->wants && !tape_gradient(tape, c->x)))      /* x's outlives the block: it lies below the mark */
        return;
    mark = tape_mark(tape);
    tape->last = NULL;
    y = c->block(tape, c->x, c->arg);
    if (y) {
        y->g = g;
        c->y->g = tape->recycle ? NULL : g;                     /* used up by the block's own last op */
        tape_backward(tape);
    }
    tape->last = last;
    forget(tape, mark);
}

/* In a dry run: as much as the backward will take, counted once for the largest block, and y. */
static struct tensor *plan_block(struct tape *tape, struct tensor *x, tape_block_fn *block, const void *arg)
{
    size_t before = tape->planned;
    struct tensor *y = block(tape, x, arg);

    tape->block = MAX(tape->block, tape->planned - before);
    tape->planned = before;
    return y ? tape_tensor(tape, y->rows, y->cols) : NULL;
}

/* Without records; of all it makes only y stays. */
static struct tensor *run_block(struct tape *tape, struct tensor *x, tape_block_fn *block, const void *arg)
{
    size_t mark = tape_mark(tape);
    struct tensor *y;

    tape->training = false;
    y = tape_keep(tape, mark, block(tape, x, arg));
    tape->training = true;
    if (!y || tape->error)
        return NULL;
    y->wants = true;
    y->g = tape->recycle && is_large(y) ? NULL : tape_activations(tape, y->rows * y->cols);
    if (y->g)
        tape_zero(tape, y->g, tensor_size(tape, y));
    return tape->error ? NULL : y;
}

struct tensor *tape_block(struct tape *tape, struct tensor *x, tape_block_fn *block, const void *arg, size_t arg_bytes)
{
    struct twice *c;

    if (!x || !tape->training || !tape->recompute)
        return x ? block(tape, x, arg) : NULL;
    c = tape_alloc(tape, sizeof(*c));
    if (!c)
        return NULL;
    *c = (struct twice) {.x = x, .block = block, .arg = tape_alloc(tape, arg_bytes)};
    if (!c->arg)
        return NULL;
    memcpy(c->arg, arg, arg_bytes);
    c->y = tape->planning ? plan_block(tape, x, block, c->arg) : run_block(tape, x, block, c->arg);
    if (!c->y)
        return NULL;
    tape_record(tape, c->y, twice_backward, c);
    return c->y;
}
