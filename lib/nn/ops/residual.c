/* residual.c - sums: a + b, and residual + scale * branch (LayerScale). */
#include "nn/ops/op.h"

struct residual {
    struct tensor *residual, *branch, *y;
    const struct param *scale;
};

static void residual_backward(struct tape *tape, void *context)
{
    const struct residual *c = context;
    const struct cpu_kernels *cpu = cpu_kernels();
    int64_t rows = c->y->rows, cols = c->y->cols, n = rows * cols;
    bool first;
    float *g;

    if (c->branch->wants && c->scale) {
        g = tape_gradient(tape, c->branch);
        if (g && tape->on)
            ON(tape, residual_backward, type_of(tape), g, param_gradient(tape, c->scale), c->y->g, c->branch->x,
               c->scale->on_f32, rows, cols);
        else if (g)
            cpu->residual_backward(g, param_gradient(tape, c->scale), c->y->g, c->branch->x, c->scale->value, rows, cols);
    } else if (c->branch->wants) {
        g = tape_gradient_first(tape, c->branch, &first);
        if (g && tape->on)
            op_ran(tape, first ? tape->on->k->copy(tape->on->stream, g, c->y->g, (size_t)n * tape_element(tape))
                               : tape->on->k->accumulate(tape->on->stream, type_of(tape), g, c->y->g, n));
        else if (g && first)
            memcpy(g, c->y->g, tensor_bytes(c->y));
        else if (g)
            cpu->accumulate(g, c->y->g, n);
    }
    if (!c->residual->wants)
        return;
    if (!c->residual->g && tape->recycle) {     /* y's is used up: hand it on */
        c->residual->g = c->y->g;
        c->y->g = NULL;
        return;
    }
    g = tape_gradient(tape, c->residual);
    if (g && tape->on)
        ON(tape, accumulate, type_of(tape), g, c->y->g, n);
    else if (g)
        cpu->accumulate(g, c->y->g, n);
}

struct tensor *op_residual(struct tape *t, struct tensor *residual, struct tensor *branch, const struct param *scale)
{
    struct tensor *y;
    struct residual *c;

    if (!residual || !branch)
        return NULL;
    if (residual->rows != branch->rows || residual->cols != branch->cols || (scale && scale->numel != branch->cols))
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, branch->rows, branch->cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct residual) {.residual = residual, .branch = branch, .y = y, .scale = scale};
    note_param(t, scale);
    tape_record(t, y, residual_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on)
        ON(t, residual, type_of(t), y->x, residual->x, branch->x, scale ? scale->on_f32 : NULL, y->rows, y->cols);
    else if (scale)
        cpu_kernels()->residual(y->x, residual->x, branch->x, scale->value, y->rows, y->cols);
    else
        cpu_kernels()->add(y->x, residual->x, branch->x, y->rows * y->cols);
    return y;
}

struct tensor *op_add_to(struct tape *t, struct tensor *x, struct tensor *branch, const struct param *scale)
{
    if (!t->on || t->training || t->recompute || !x || !branch)     /* a block that is computed twice begins from x again */
        return op_residual(t, x, branch, scale);
    if (x->rows != branch->rows || x->cols != branch->cols || (scale && scale->numel != branch->cols))
        return op_fail(t, -EINVAL);
    if (!t->planning)
        ON(t, residual, type_of(t), x->x, x->x, branch->x, scale ? scale->on_f32 : NULL, x->rows, x->cols);
    return t->error ? NULL : x;
}

struct tensor *op_add(struct tape *t, struct tensor *a, struct tensor *b)
{
    return op_residual(t, a, b, NULL);
}
