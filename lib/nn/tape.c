#include "nn/tape.h"

#include <errno.h>
#include <string.h>

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

static size_t rounded(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static void *fail(struct tape *tape, int error)
{
    if (!tape->error)
        tape->error = error;
    return NULL;
}

static void drop_blocks(struct tape *tape)
{
    while (tape->blocks) {
        struct tape_block *next = tape->blocks->next;
        free(tape->blocks);
        tape->blocks = next;
    }
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
    drop_blocks(tape);
    arena_release(&tape->arena);
    tape->rope = rope_table_free(tape->rope);
    *tape = (struct tape) {.training = tape->training, .recycle = tape->recycle, .plain = tape->plain, .recompute = tape->recompute};
}

void tape_plan(struct tape *tape)
{
    drop_blocks(tape);
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

int tape_reserve(struct tape *tape, size_t bytes)
{
    struct arena arena;

    drop_blocks(tape);
    tape->planning = false;
    tape->last = NULL;
    arena_reset(&tape->arena, 0);
    if (bytes <= tape->arena.size)
        return 0;
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
    tape->error = 0;
    tape->spares = 0;
    arena_reset(&tape->arena, 0);
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

float *tape_numbers(struct tape *tape, int64_t count)
{
    size_t bytes = (size_t)count * sizeof(float);
    float *p;

    if (tape->planning) {
        tape->planned += rounded(bytes);
        return NULL;
    }
    p = arena_alloc(&tape->arena, bytes);
    return p ? p : fail(tape, -ENOBUFS);
}

float *tape_scratch(struct tape *tape, int64_t count)
{
    size_t mark = arena_mark(&tape->arena);
    float *p;

    if (tape->planning) {
        tape->scratch = MAX(tape->scratch, rounded((size_t)count * sizeof(float)));
        return NULL;
    }
    p = tape_numbers(tape, count);
    arena_reset(&tape->arena, mark);
    return p;
}

size_t tape_mark(const struct tape *tape)
{
    return tape->planning ? tape->planned : arena_mark(&tape->arena);
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
    bytes = (size_t)(kept.rows * kept.cols) * sizeof(float);
    if (tape->planning) {
        tape->peak = MAX(tape->peak, tape->planned);
        tape->planned = mark + rounded(sizeof(*x)) + rounded(bytes);
        return x;
    }
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
    tensor->x = tape_numbers(tape, rows * cols);
    tensor->wants = tape->training;
    if (tape->training && (tape->planning || !tape->recycle || !is_large(tensor)))      /* counted in any case: an upper bound */
        tensor->g = tape_numbers(tape, rows * cols);
    if (tape->error)
        return NULL;
    if (tensor->g)
        memset(tensor->g, 0, (size_t)(rows * cols) * sizeof(float));
    return tensor;
}

struct tensor *tape_input(struct tape *tape, const float *x, int64_t rows, int64_t cols)
{
    struct tensor *tensor = tape_alloc(tape, sizeof(*tensor));

    if (tensor)
        *tensor = (struct tensor) {.x = (float *)x, .rows = rows, .cols = cols};
    return tensor;
}

float *tape_gradient_first(struct tape *tape, struct tensor *x, bool *ret_first)
{
    *ret_first = !x->g;
    if (!x->g)
        x->g = take_spare(tape, x->rows * x->cols);
    if (!x->g)
        x->g = tape_numbers(tape, x->rows * x->cols);
    return x->g;
}

float *tape_gradient(struct tape *tape, struct tensor *x)
{
    bool first;
    float *g = tape_gradient_first(tape, x, &first);

    if (g && first)
        memset(g, 0, (size_t)(x->rows * x->cols) * sizeof(float));
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
        if ((char *)tape->spare[i].memory < tape->arena.base + mark)
            tape->spare[n++] = tape->spare[i];
    tape->spares = n;
    arena_reset(&tape->arena, mark);
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
    y->g = tape->recycle && is_large(y) ? NULL : tape_numbers(tape, y->rows * y->cols);
    if (y->g)
        memset(y->g, 0, (size_t)(y->rows * y->cols) * sizeof(float));
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
