/* positions.c - add the learnt position embedding to every picture's rows. */
#include "nn/ops/op.h"

struct positions {
    struct tensor *x, *y;
    const struct param *position;
    int b;
};

static void positions_backward(struct tape *tape, void *context)
{
    const struct positions *c = context;
    const struct cpu_kernels *cpu = cpu_kernels();
    float *dposition = param_gradient(tape, c->position);
    int64_t n = c->position->numel;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx)
        cpu->accumulate(dx, c->y->g, n * c->b);
    if (dposition)
        cpu->column_sum(dposition, c->y->g, c->b, n);
}

struct tensor *op_add_positions(struct tape *t, struct tensor *x, const struct param *position, int b)
{
    struct positions *c;
    struct tensor *y;

    if (!x)
        return NULL;
    if (x->rows * x->cols != position->numel * b)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, x->rows, x->cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct positions) {.x = x, .y = y, .position = position, .b = b};
    tape_record(t, y, positions_backward, c);
    for (int i = 0; i < b && !t->planning; i++)
        cpu_kernels()->add(y->x + i * position->numel, x->x + i * position->numel, position->value, position->numel);
    return t->error ? NULL : y;
}
