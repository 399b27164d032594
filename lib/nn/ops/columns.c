/* columns.c - tensors side by side, constant columns beside a tensor, columns several times. */
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

struct tensor *op_repeat(struct tape *t, struct tensor *x, int64_t width, int64_t times)
{
    struct tensor *y;

    if (!x)
        return NULL;
    if (width < 1 || times < 1 || x->cols % width || x->wants)
        return op_fail(t, -EINVAL);
    y = tape_alloc(t, sizeof(*y));
    if (!y)
        return NULL;
    *y = (struct tensor) {.x = tape_activations(t, x->rows * x->cols * times), .rows = x->rows, .cols = x->cols * times};
    if (t->error || t->planning)
        return t->error ? NULL : y;
    for (int64_t k = 0; k < x->cols / width * times; k++) {
        int64_t from = k / times * width;

        if (t->on)
            ON(t, copy_rows, type_of(t), at_activation(t, y->x, k * width), y->cols, at_activation(t, x->x, from), x->cols,
               x->rows, width, false);
        for (int64_t i = 0; i < x->rows && !t->on; i++)
            memcpy(y->x + i * y->cols + k * width, x->x + i * x->cols + from, (size_t)width * sizeof(float));
    }
    return t->error ? NULL : y;
}
