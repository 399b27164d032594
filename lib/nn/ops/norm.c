/* norm.c - LayerNorm and RMSNorm over the columns of each row. */
#include "nn/ops/op.h"

struct norm {
    struct tensor *x, *y;
    const struct param *weight, *bias;
    float *mean, *rstd;         /* (rows); mean only for LayerNorm */
};

static void layernorm_backward(struct tape *tape, void *context)
{
    const struct norm *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (tape->error)
        return;
    if (tape->on) {
        ON(tape, layernorm_backward, type_of(tape), dx, param_gradient(tape, c->weight), param_gradient(tape, c->bias), c->y->g,
           c->x->x, c->weight->on_f32, c->mean, c->rstd, c->x->rows, c->x->cols);
        return;
    }
    cpu_kernels()->layernorm_backward(dx, param_gradient(tape, c->weight), param_gradient(tape, c->bias), c->y->g, c->x->x,
                                      c->weight->value, c->mean, c->rstd, c->x->rows, c->x->cols);
}

static void rmsnorm_backward(struct tape *tape, void *context)
{
    const struct norm *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (tape->error)
        return;
    if (tape->on) {
        ON(tape, rmsnorm_backward, type_of(tape), dx, param_gradient(tape, c->weight), c->y->g, c->x->x, c->weight->on_f32,
           c->rstd, c->x->rows, c->x->cols);
        return;
    }
    cpu_kernels()->rmsnorm_backward(dx, param_gradient(tape, c->weight), c->y->g, c->x->x, c->weight->value, c->rstd, c->x->rows,
                                    c->x->cols);
}

static struct norm *norm_new(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias)
{
    struct norm *c;

    if (!x)
        return NULL;
    if (weight->numel != x->cols || (bias && bias->numel != x->cols))
        return op_fail(t, -EINVAL);
    c = tape_alloc(t, sizeof(*c));
    if (!c)
        return NULL;
    *c = (struct norm) {
        .x = x, .y = tape_tensor(t, x->rows, x->cols), .weight = weight, .bias = bias,
        .mean = bias ? tape_numbers(t, x->rows) : NULL, .rstd = tape_numbers(t, x->rows),
    };
    note_param(t, weight);
    note_param(t, bias);
    tape_record(t, c->y, bias ? layernorm_backward : rmsnorm_backward, c);
    return t->error ? NULL : c;
}

struct tensor *op_layernorm(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, float eps)
{
    struct norm *c = norm_new(t, x, weight, bias);

    if (!c || t->planning)
        return c ? c->y : NULL;
    if (t->on)
        ON(t, layernorm, type_of(t), c->y->x, c->mean, c->rstd, x->x, weight->on_f32, bias->on_f32, eps, x->rows, x->cols);
    else
        cpu_kernels()->layernorm(c->y->x, c->mean, c->rstd, x->x, weight->value, bias->value, eps, x->rows, x->cols);
    return c->y;
}

struct tensor *op_rmsnorm(struct tape *t, struct tensor *x, const struct param *weight, float eps)
{
    struct norm *c = norm_new(t, x, weight, NULL);

    if (!c || t->planning)
        return c ? c->y : NULL;
    if (t->on)
        ON(t, rmsnorm, type_of(t), c->y->x, c->rstd, x->x, weight->on_f32, eps, x->rows, x->cols);
    else
        cpu_kernels()->rmsnorm(c->y->x, c->rstd, x->x, weight->value, eps, x->rows, x->cols);
    return c->y;
}

struct tensor *op_residual_rmsnorm(struct tape *t, struct tensor *residual, struct tensor *branch, const struct param *weight,
                                   float eps, struct tensor **ret_sum)
{
    bool alone = !t->on || t->training || t->planning || !residual || !branch || residual->rows != branch->rows ||
        residual->cols != branch->cols;
    struct tensor *sum = alone ? op_residual(t, residual, branch, NULL) : tape_tensor(t, branch->rows, branch->cols);
    struct norm *c;

    *ret_sum = sum;
    if (alone)
        return op_rmsnorm(t, sum, weight, eps);
    c = norm_new(t, sum, weight, NULL);
    if (!c)
        return NULL;
    ON(t, residual_rmsnorm, type_of(t), c->y->x, sum->x, c->rstd, residual->x, branch->x, weight->on_f32, eps, sum->rows,
       sum->cols);
    return c->y;
}

int op_add_rmsnorm(struct tape *t, struct tensor *x, struct tensor *branch, const struct param *weight, float eps,
                   struct tensor *y)
{
    float *rstd;

    if (!x || !branch || !y)
        return t->error ? t->error : -EINVAL;
    if (x->rows != branch->rows || x->cols != branch->cols || y->rows != x->rows || y->cols != x->cols ||
        weight->numel != x->cols || t->training)
        return t->error = -EINVAL;
    rstd = tape_scratch(t, x->rows);
    if (t->error || t->planning)
        return t->error;
    if (t->on) {
        ON(t, residual_rmsnorm, type_of(t), y->x, x->x, NULL, x->x, branch->x, weight->on_f32, eps, x->rows, x->cols);
        return t->error;
    }
    cpu_kernels()->accumulate(x->x, branch->x, x->rows * x->cols);
    cpu_kernels()->rmsnorm(y->x, rstd, x->x, weight->value, eps, x->rows, x->cols);
    return 0;
}
