/* linear.c - y = x W^T + b and its rows-only form. Forward and dx use the packed weight; dW += dy^T x packs x. */
#include "nn/gemm_pack.h"
#include "nn/ops/op.h"

struct linear {
    struct tensor *x, *y;
    const struct param *weight, *bias;
    int64_t first;              /* first row of W taking part */
};

/* Floats the backward needs: x in panels (k block by k block is one after the other), unfinished chains of dW and of dx. */
static int64_t backward_scratch(int64_t rows, int64_t in, int64_t out)
{
    int64_t unfinished_dw = gemm_needs_scratch(rows) ? out * gemm_padded(in) : 0;
    int64_t unfinished_dx = gemm_needs_scratch(out) ? rows * gemm_padded(in) : 0;
    return MAX(rows * gemm_padded(in) + unfinished_dw, unfinished_dx);
}

static void linear_backward(struct tape *tape, void *context)
{
    const struct linear *c = context;
    const struct cpu_kernels *cpu = cpu_kernels();
    int64_t rows = c->x->rows, in = c->x->cols, out = c->y->cols;
    float *dweight = param_gradient(tape, c->weight), *dbias = param_gradient(tape, c->bias);
    bool first = false;
    float *dx = c->x->wants ? tape_gradient_first(tape, c->x, &first) : NULL;
    float *scratch = tape_scratch(tape, backward_scratch(rows, in, out));

    if (!scratch || tape->error)
        return;
    if (dbias)
        cpu->column_sum(dbias, c->y->g, rows, out);
    if (dweight) {
        cpu->gemm_pack(scratch, c->x->x, in, rows, in, false);
        cpu->gemm(&(struct gemm) {
            .m = out, .n = in, .k = rows, .a = c->y->g, .a_row = 1, .a_k = out, .panels = scratch,
            .c = dweight + c->first * in, .c_row = in, .add = true, .scratch = scratch + rows * gemm_padded(in),
        });
    }
    if (dx)
        cpu->gemm(&(struct gemm) {
            .m = rows, .n = in, .k = out, .a = c->y->g, .a_row = out, .a_k = 1,
            .panels = c->weight->backward->panels + c->first * GEMM_PANEL, .panel_stride = c->weight->backward->k * GEMM_PANEL,
            .c = dx, .c_row = in, .add = !first, .scratch = scratch,
        });
}

static struct tensor *linear(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, int64_t first,
                             int64_t count)
{
    struct tensor *y;
    struct linear *c;
    int64_t skip = first % GEMM_PANEL, width = skip + count;    /* a slice may begin inside a panel */
    float *scratch;

    if (!x)
        return NULL;
    if (weight->dim[0] < first + count || weight->numel != weight->dim[0] * x->cols || (bias && bias->numel != count))
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, x->rows, count);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct linear) {.x = x, .y = y, .weight = weight, .bias = bias, .first = first};
    if (t->training && t->planning)
        tape_scratch(t, backward_scratch(x->rows, x->cols, count));
    tape_record(t, y, linear_backward, c);
    scratch = tape_scratch(t, (skip ? x->rows * width : 0) + (gemm_needs_scratch(x->cols) ? x->rows * gemm_padded(width) : 0));
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (!weight->forward || (t->training && !weight->backward))
        return op_fail(t, -EINVAL);

    cpu_kernels()->gemm(&(struct gemm) {
        .m = x->rows, .n = width, .k = x->cols, .a = x->x, .a_row = x->cols, .a_k = 1,
        .panels = weight->forward->panels + first / GEMM_PANEL * GEMM_PANEL * x->cols,
        .c = skip ? scratch : y->x, .c_row = width, .bias = bias ? bias->value : NULL,
        .scratch = scratch + (skip ? x->rows * width : 0),
    });
    for (int64_t i = 0; skip && i < x->rows; i++)
        memcpy(y->x + i * count, scratch + i * width + skip, (size_t)count * sizeof(float));
    return y;
}

struct tensor *op_linear(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias)
{
    return linear(t, x, weight, bias, 0, weight->dim[0]);
}

struct tensor *op_linear_rows(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, int64_t count)
{
    return linear(t, x, weight, NULL, first, count);
}
