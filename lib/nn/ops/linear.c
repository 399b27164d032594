/* linear.c - y = x W^T + b and its rows-only form. Forward and dx use the packed weight; dW += dy^T x packs x.
 *
 * A weight kept as bf16 is widened into panels in scratch, a few columns of the result at a time.
 * A weight with an adapter adds scale (x A^T) B^T: a linear op with A, then one that adds to y what is there already. */
#include "nn/gemm_pack.h"
#include "nn/ops/op.h"

struct linear {
    struct tensor *x, *y;
    const struct param *weight, *bias;
    int64_t first;              /* first row of W taking part */
};

/* Columns of the result that a bf16 weight's panels are made for at once: few rows take wide tiles. */
static int64_t widened_columns(int64_t rows)
{
    return rows <= 6 ? 4 * GEMM_PANEL : GEMM_PANEL;
}

static int64_t widened_scratch(int64_t rows, int64_t k)
{
    return widened_columns(rows) * (k + (gemm_needs_scratch(k) ? rows : 0));
}

/* Floats the backward needs: x in panels (k block by k block is one after the other), unfinished chains of dW and of dx. */
static int64_t backward_scratch(const struct param *weight, int64_t rows, int64_t in, int64_t out)
{
    int64_t unfinished_dw = gemm_needs_scratch(rows) ? out * gemm_padded(in) : 0;
    int64_t unfinished_dx = gemm_needs_scratch(out) ? rows * gemm_padded(in) : 0;

    if (weight->half)
        return widened_scratch(rows, out);
    return 1 + MAX(weight->frozen ? 0 : rows * gemm_padded(in) + unfinished_dw, unfinished_dx);
}

/* C (m,n) of `g` with B made of bf16 on the way: dense (k,n), or (n,k) when transposed; `row` apart. */
static void widened_gemm(struct gemm g, const uint16_t *b, int64_t row, bool transposed, float *scratch)
{
    int64_t step = widened_columns(g.m), n = g.n;
    float *c = g.c;
    const float *bias = g.bias;

    g.panels = scratch;
    g.scratch = scratch + step * g.k;
    for (int64_t n0 = 0; n0 < n; n0 += step) {
        g.n = MIN(step, n - n0);
        g.c = c + n0;
        g.bias = bias ? bias + n0 : NULL;
        cpu_kernels()->gemm_pack_bf16(scratch, b + (transposed ? n0 * row : n0), row, g.k, g.n, transposed);
        cpu_kernels()->gemm(&g);
    }
}

static void linear_backward(struct tape *tape, void *context)
{
    const struct linear *c = context;
    const struct cpu_kernels *cpu = cpu_kernels();
    int64_t rows = c->x->rows, in = c->x->cols, out = c->y->cols;
    float *dweight = param_gradient(tape, c->weight), *dbias = param_gradient(tape, c->bias);
    bool first = false;
    float *dx = c->x->wants ? tape_gradient_first(tape, c->x, &first) : NULL;
    float *scratch = tape_scratch(tape, backward_scratch(c->weight, rows, in, out));

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
    if (dx && c->weight->half)
        widened_gemm((struct gemm) {.m = rows, .n = in, .k = out, .a = c->y->g, .a_row = out, .a_k = 1, .c = dx, .c_row = in,
                                    .add = !first},
                     c->weight->bf16 + c->first * in, in, false, scratch);
    else if (dx)
        cpu->gemm(&(struct gemm) {
            .m = rows, .n = in, .k = out, .a = c->y->g, .a_row = out, .a_k = 1,
            .panels = c->weight->backward->panels + c->first * GEMM_PANEL, .panel_stride = c->weight->backward->k * GEMM_PANEL,
            .c = dx, .c_row = in, .add = !first, .scratch = scratch,
        });
}

/* Floats of a product's own scratch: columns of a slice that begins inside a panel, unfinished chains. */
static int64_t product_scratch(const struct param *weight, int64_t rows, int64_t in, int64_t first, int64_t count)
{
    int64_t skip = first % GEMM_PANEL, width = skip + count;

    if (weight->half)
        return widened_scratch(rows, in);
    return (skip ? rows * width : 0) + (gemm_needs_scratch(in) ? rows * gemm_padded(width) : 0);
}

/* y = x W^T (+ b) of the rows of W that c names; y += when `add`. */
static void product(const struct linear *c, bool add, float *scratch)
{
    int64_t rows = c->x->rows, in = c->x->cols, count = c->y->cols;
    int64_t skip = c->first % GEMM_PANEL, width = skip + count;

    if (c->weight->half) {
        widened_gemm((struct gemm) {.m = rows, .n = count, .k = in, .a = c->x->x, .a_row = in, .a_k = 1, .c = c->y->x,
                                    .c_row = count, .bias = c->bias ? c->bias->value : NULL, .add = add},
                     c->weight->bf16 + c->first * in, in, true, scratch);
        return;
    }
    cpu_kernels()->gemm(&(struct gemm) {
        .m = rows, .n = width, .k = in, .a = c->x->x, .a_row = in, .a_k = 1,
        .panels = c->weight->forward->panels + c->first / GEMM_PANEL * GEMM_PANEL * in,
        .c = skip ? scratch : c->y->x, .c_row = width, .bias = c->bias ? c->bias->value : NULL, .add = add && !skip,
        .scratch = scratch + (skip ? rows * width : 0),
    });
    for (int64_t i = 0; skip && i < rows; i++)
        if (add)
            cpu_kernels()->accumulate(c->y->x + i * count, scratch + i * width + skip, count);
        else
            memcpy(c->y->x + i * count, scratch + i * width + skip, (size_t)count * sizeof(float));
}

static struct tensor *linear(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, int64_t first,
                             int64_t count)
{
    struct tensor *y;
    struct linear *c;
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
        tape_scratch(t, backward_scratch(weight, x->rows, x->cols, count));
    tape_record(t, y, linear_backward, c);
    scratch = tape_scratch(t, product_scratch(weight, x->rows, x->cols, first, count));
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (!weight->half && (!weight->forward || (t->training && !weight->backward)))
        return op_fail(t, -EINVAL);
    product(c, false, scratch);
    return y;
}

/* ---- adapters ---------------------------------------------------------------------------------------------- */

struct adapter {
    struct linear up;           /* x: h = scale x A^T (rows, r); weight: B; y: what the product is added to */
    float scale;
};

/* dB += dy^T h, dh = scale dy B. The backward of h = x A^T and of the weight itself come after. */
static void adapter_backward(struct tape *tape, void *context)
{
    const struct adapter *c = context;
    const struct tensor *h = c->up.x;

    if (!c->up.y->g)
        return;
    linear_backward(tape, (void *)&c->up);
    if (h->g)
        cpu_kernels()->scale(h->g, c->scale, h->rows * h->cols);
}

/* y += scale (x A^T) B^T with B's rows from `first` on, when W has an adapter. */
static struct tensor *adapt(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, struct tensor *y)
{
    const struct lora *lora = &weight->lora;
    struct tensor *h;
    struct adapter *c;
    float *scratch;

    if (!y || !lora->a || t->plain)
        return y;
    h = linear(t, x, lora->a, NULL, 0, lora->a->dim[0]);
    c = tape_alloc(t, sizeof(*c));
    if (!h || !c)
        return NULL;
    if (lora->b->dim[0] < first + y->cols || lora->b->numel != lora->b->dim[0] * h->cols)
        return op_fail(t, -EINVAL);
    *c = (struct adapter) {.up = {.x = h, .y = y, .weight = lora->b, .first = first}, .scale = lora->scale};
    if (t->training && t->planning)
        tape_scratch(t, backward_scratch(lora->b, h->rows, h->cols, y->cols));
    tape_record(t, NULL, adapter_backward, c);
    scratch = tape_scratch(t, product_scratch(lora->b, h->rows, h->cols, first, y->cols));
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (!lora->b->forward || (t->training && !lora->b->backward))
        return op_fail(t, -EINVAL);
    cpu_kernels()->scale(h->x, lora->scale, h->rows * h->cols);
    product(&c->up, true, scratch);
    return y;
}

struct tensor *op_linear(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias)
{
    return adapt(t, x, weight, 0, linear(t, x, weight, bias, 0, weight->dim[0]));
}

struct tensor *op_linear_rows(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, int64_t count)
{
    return adapt(t, x, weight, first, linear(t, x, weight, NULL, first, count));
}
