/* tape_twice.c - blocks whose insides are not kept: computed on the way forward, and once more when the way back comes to
 * them. */
#include <string.h>

#include "nn/tape_internal.h"

struct twice { struct tensor *x, *y; tape_block_fn *block; void *arg; };

/* Everything above the mark is gone: also gradients waiting to be used again. */
static void forget(struct tape *tape, size_t mark)
{
    int n = 0;

    for (int i = 0; i < tape->spares; i++)
        if ((char *)tape->spare[i].memory < tape_arena(tape)->base + mark)
            tape->spare[n++] = tape->spare[i];
    tape->spares = n;
    arena_reset(tape_arena(tape), mark);
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
    y->g = tape->recycle && tape_is_large(y) ? NULL : tape_activations(tape, y->rows * y->cols);
    if (y->g)
        tape_zero(tape, y->g, tape_bytes(tape, y));
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
