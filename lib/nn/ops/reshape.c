/* reshape.c - the same numbers as rows of another length. A copy: a tensor's memory may be given back before its neighbour's. */
#include "nn/ops/op.h"

struct reshape { struct tensor *x, *y; };

static void reshape_backward(struct tape *tape, void *context)
{
    const struct reshape *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on)
        ON(tape, accumulate, type_of(tape), dx, c->y->g, c->x->rows * c->x->cols);
    else if (dx)
        cpu_kernels()->accumulate(dx, c->y->g, c->y->rows * c->y->cols);
}

struct tensor *op_reshape(struct tape *t, struct tensor *x, int64_t rows, int64_t cols)
{
    struct tensor *y;
    struct reshape *c;

    if (!x)
        return NULL;
    if (rows * cols != x->rows * x->cols)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, rows, cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct reshape) {.x = x, .y = y};
    tape_record(t, y, reshape_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on)
        op_ran(t, t->on->k->copy(t->on->stream, y->x, x->x, (size_t)(rows * cols) * tape_element(t)));
    else
        memcpy(y->x, x->x, (size_t)(rows * cols) * sizeof(float));
    return t->error ? NULL : y;
}
