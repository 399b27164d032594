/* columns.c - tensors side by side, and constant columns beside a tensor. */
#include "nn/ops/op.h"

struct columns { struct tensor *a, *b, *y; };

static void part_backward(struct tape *tape, struct tensor *part, const struct tensor *y, int64_t from)
{
    float *g = part->wants ? tape_gradient(tape, part) : NULL;

    if (g && tape->on) {
        ON(tape, copy_rows, type_of(tape), g, part->cols, at_activation(tape, y->g, from), y->cols, y->rows, part->cols, true);
        return;
    }
    for (int64_t i = 0; g && i < y->rows; i++)
        cpu_kernels()->accumulate(g + i * part->cols, y->g + i * y->cols + from, part->cols);
}

static void columns_backward(struct tape *tape, void *context)
{
    const struct columns *c = context;

    part_backward(tape, c->a, c->y, 0);
    part_backward(tape, c->b, c->y, c->a->cols);
}

struct tensor *op_concat(struct tape *t, struct tensor *a, struct tensor *b)
{
    struct tensor *y;
    struct columns *c;

    if (!a || !b)
        return NULL;
    if (a->rows != b->rows)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, a->rows, a->cols + b->cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct columns) {.a = a, .b = b, .y = y};
    tape_record(t, y, columns_backward, c);
    if (t->on && !t->planning && !t->error) {
        ON(t, copy_rows, type_of(t), y->x, y->cols, a->x, a->cols, y->rows, a->cols, false);
        ON(t, copy_rows, type_of(t), at_activation(t, y->x, a->cols), y->cols, b->x, b->cols, y->rows, b->cols, false);
        return t->error ? NULL : y;
    }
    for (int64_t i = 0; i < y->rows && !t->planning; i++) {
        memcpy(y->x + i * y->cols, a->x + i * a->cols, (size_t)a->cols * sizeof(float));
        memcpy(y->x + i * y->cols + a->cols, b->x + i * b->cols, (size_t)b->cols * sizeof(float));
    }
    return t->error ? NULL : y;
}

struct tensor *op_append_constant(struct tape *t, struct tensor *a, const float *extra, int64_t extra_cols)
{
    return a ? op_concat(t, a, tape_input(t, extra, a->rows, extra_cols)) : NULL;
}
