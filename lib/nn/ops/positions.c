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

    if (tape->on) {
        if (dx)
            ON(tape, accumulate, type_of(tape), dx, c->y->g, n * c->b);
        if (dposition)
            ON(tape, column_sum, type_of(tape), dposition, c->y->g, n, c->b, n);
        return;
    }
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
    note_param(t, position);
    tape_record(t, y, positions_backward, c);
    if (t->on && !t->planning && !t->error)
        ON(t, add_cycle, type_of(t), y->x, x->x, position->on_f32, position->numel, y->rows * y->cols);
    for (int i = 0; i < b && !t->planning && !t->on; i++)
        cpu_kernels()->add(y->x + i * position->numel, x->x + i * position->numel, position->value, position->numel);
    return t->error ? NULL : y;
}
