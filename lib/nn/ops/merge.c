/* merge.c - neighbouring rows side by side: the patches of a 2x2 group become one row. */
#include "nn/ops/op.h"

struct merge { struct tensor *x, *y; };

static void merge_backward(struct tape *tape, void *context)
{
    const struct merge *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on)
        ON(tape, accumulate, type_of(tape), dx, c->y->g, c->x->rows * c->x->cols);
    else if (dx)
        cpu_kernels()->accumulate(dx, c->y->g, c->x->rows * c->x->cols);
}

struct tensor *op_merge(struct tape *t, struct tensor *x, int group)
{
    struct tensor *y;
    struct merge *c;

    if (!x)
        return NULL;
    if (group < 1 || x->rows % group)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, x->rows / group, x->cols * group);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct merge) {.x = x, .y = y};
    tape_record(t, y, merge_backward, c);
    if (!t->error && !t->planning && t->on)
        op_ran(t, t->on->k->copy(t->on->stream, y->x, x->x, (size_t)(x->rows * x->cols) * tape_element(t)));
    else if (!t->error && !t->planning)
        memcpy(y->x, x->x, tensor_bytes(x));
    return t->error ? NULL : y;
}
