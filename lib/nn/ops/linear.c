/* linear.c - y = x W^T + b and its rows-only form. Forward and dx use the packed weight; dW += dy^T x packs x.
 *
 * A weight kept as bf16 is widened into panels in scratch, a few columns of the result at a time. Fast weights (param.h) multiply
 * in bf16, and the kernel makes panels of one kept as bf16 itself.
 * A weight with an adapter adds scale (x A^T) B^T: a linear op with A, then one that adds to y what is there already. */
#include "nn/gemm_pack.h"
#include "nn/ops/linear.h"

static int64_t inputs(const struct linear *c) { return c->in ? c->in : c->x->cols; }

/* Columns of the result that a bf16 weight's panels are made for at once: few rows take wide tiles. */
static int64_t widened_columns(int64_t rows)
{
    return rows <= 6 ? 4 * GEMM_PANEL : GEMM_PANEL;
}

static int64_t widened_scratch(int64_t rows, int64_t k)
{
    return widened_columns(rows) * (k + (gemm_needs_scratch(k) ? rows : 0));
}

/* C (m,n) of `g` with B made of bf16 on the way. */
static void widened_gemm(struct gemm g)
{
    int64_t step = widened_columns(g.m), n = g.n;
    float *c = g.c, *panels = g.scratch;
    const float *bias = g.bias;

    g.panels = panels;
    g.scratch = panels + step * g.k;
    for (int64_t n0 = 0; n0 < n; n0 += step) {
        g.n = MIN(step, n - n0);
        g.c = c + n0;
        g.bias = bias ? bias + n0 : NULL;
        cpu_kernels()->gemm_pack_bf16(panels, g.halves + (g.half_transposed ? n0 * g.half_row : n0), g.half_row, g.k, g.n,
                                      g.half_transposed);
        cpu_kernels()->gemm(&g);
    }
}

/* Floats of scratch for (m,k) times a weight's (k,n). */
static int64_t multiply_scratch(const struct param *weight, int64_t m, int64_t n, int64_t k)
{
    if (weight->half)
        return weight->fast ? gemm_bf16_halves_scratch(m, k) : widened_scratch(m, k);
    if (weight->fast)
        return gemm_bf16_scratch(m, n, k);
    return gemm_needs_scratch(k) ? m * gemm_padded(n) : 0;
}

/* B is in g.halves, g.panels or g.pairs, as the weight is kept. */
static void multiply(const struct param *weight, const struct gemm *g)
{
    if (weight->fast)
        cpu_kernels()->gemm_bf16(g);
    else if (weight->half)
        widened_gemm(*g);
    else
        cpu_kernels()->gemm(g);
}

/* ---- backwards --------------------------------------------------------------------------------------------- */

/* Floats that x takes as the B of dW += dy^T x. */
static int64_t x_panels(const struct param *weight, int64_t rows, int64_t in)
{
    return weight->frozen ? 0 : (weight->fast ? gemm_pairs(rows) : rows) * gemm_padded(in);
}

/* A slice of W that begins at an odd row begins inside a pair: dy goes one column to the right then, after a zero. */
static bool begins_inside(const struct param *weight, int64_t first)
{
    return weight->fast && !weight->half && first % 2;
}

/* Floats the backward needs: for dW x in panels and unfinished chains; for dx the latter. */
static int64_t backward_scratch(const struct param *weight, int64_t rows, int64_t in, int64_t first, int64_t out)
{
    int64_t dw = weight->fast ? gemm_bf16_scratch(out, in, rows) : gemm_needs_scratch(rows) ? out * gemm_padded(in) : 0;
    int64_t shift = begins_inside(weight, first), dx = multiply_scratch(weight, rows, in, out + shift) + shift * rows * (out + 1);

    return 1 + MAX(weight->frozen ? 0 : x_panels(weight, rows, in) + dw, dx);
}

static void weight_gradient(const struct linear *c, float *dweight, float *scratch)
{
    const struct cpu_kernels *cpu = cpu_kernels();
    int64_t rows = c->x->rows, in = c->x->cols, out = c->y->cols;
    struct gemm g = {.m = out, .n = in, .k = rows, .a = c->y->g, .a_row = 1, .a_k = out, .c = dweight + c->first * in,
                     .c_row = in, .add = true, .scratch = scratch + x_panels(c->weight, rows, in)};

    if (c->weight->fast) {
        cpu->gemm_bf16_pack((uint32_t *)scratch, c->x->x, in, rows, in, false);
        g.pairs = (uint32_t *)scratch;
        cpu->gemm_bf16(&g);
    } else {
        cpu->gemm_pack(scratch, c->x->x, in, rows, in, false);
        g.panels = scratch;
        cpu->gemm(&g);
    }
}

static void input_gradient(const struct linear *c, float *dx, bool add, float *scratch)
{
    const struct param *weight = c->weight;
    int64_t rows = c->x->rows, in = c->x->cols, out = c->y->cols, first = c->first;
    struct gemm g = {.m = rows, .n = in, .k = out, .a = c->y->g, .a_row = out, .a_k = 1, .c = dx, .c_row = in, .add = add,
                     .scratch = scratch};

    if (begins_inside(weight, first)) {
        for (int64_t i = 0; i < rows; i++) {
            scratch[i * (out + 1)] = 0;
            memcpy(scratch + i * (out + 1) + 1, g.a + i * out, (size_t)out * sizeof(float));
        }
        g.a = scratch;
        g.a_row = g.k = out + 1;
        g.scratch += rows * (out + 1);
        first--;
    }
    if (weight->half) {
        g.halves = weight->bf16 + first * in;
        g.half_row = in;
    } else if (weight->fast) {
        g.pairs = weight->backward->pairs + first / 2 * GEMM_PANEL;
        g.panel_stride = gemm_pairs(weight->backward->k) * GEMM_PANEL;
    } else {
        g.panels = weight->backward->panels + first * GEMM_PANEL;
        g.panel_stride = weight->backward->k * GEMM_PANEL;
    }
    multiply(weight, &g);
}

static void backward_here(struct tape *tape, const struct linear *c)
{
    int64_t rows = c->x->rows, in = c->x->cols, out = c->y->cols;
    float *dweight = param_gradient(tape, c->weight), *dbias = param_gradient(tape, c->bias);
    bool first = false;
    float *dx = c->x->wants ? tape_gradient_first(tape, c->x, &first) : NULL;
    float *scratch = tape_scratch(tape, backward_scratch(c->weight, rows, in, c->first, out));

    if (!scratch || tape->error)
        return;
    if (dbias)
        cpu_kernels()->column_sum(dbias, c->y->g, rows, out);
    if (dweight)
        weight_gradient(c, dweight, scratch);
    if (dx)
        input_gradient(c, dx, !first, scratch);
}

/* ---- on a device: the weight as it lies there; bf16 products where activations are bf16 ------------------------------ */

/* Rows from `first` on of the weight become g's b. */
static void weight_on(const struct tape *t, const struct linear *c, struct device_gemm *g)
{
    const struct param *weight = c->weight;
    bool half = weight->on_bf16 && (t->half || !weight->on_f32);
    const char *at = half ? weight->on_bf16 : (const void *)weight->on_f32;

    g->b_type = half ? DEVICE_BF16 : DEVICE_F32;
    g->b = at ? at + (size_t)(c->first * inputs(c)) * device_element(g->b_type) : NULL;
    g->b_row = inputs(c);
}

void linear_gemm_on(struct tape *t, struct device_gemm g)
{
    if (!g.a || !g.b || !g.c)
        op_fail(t, -EINVAL);            /* never packed */
    else
        op_ran(t, device_gemm(t->on, &g));
}

struct device_gemm linear_gemm(const struct tape *t, const struct linear *c, bool add)
{
    struct device_gemm g = {
        .m = c->x->rows, .n = c->y->cols, .k = inputs(c), .a = at_activation(t, c->x->x, c->column), .a_row = c->x->cols,
        .a_type = type_of(t), .b_transposed = true,
        .c = c->y->x, .c_row = c->y->cols, .c_type = type_of(t), .alpha = c->times, .add = add,
        .bias = c->bias ? c->bias->on_f32 : NULL, .bias_half = c->bias ? c->bias->on_bf16 : NULL,
    };

    weight_on(t, c, &g);
    return g;
}

static void product_on(struct tape *t, const struct linear *c, bool add) { linear_gemm_on(t, linear_gemm(t, c, add)); }

static void backward_on(struct tape *tape, const struct linear *c)
{
    int64_t rows = c->x->rows, in = c->x->cols, out = c->y->cols;
    float *dweight = param_gradient(tape, c->weight), *dbias = param_gradient(tape, c->bias);
    bool first = false;
    float *dx = c->x->wants ? tape_gradient_first(tape, c->x, &first) : NULL;
    enum device_type type = type_of(tape);

    if (tape->error)
        return;
    if (dbias)
        ON(tape, column_sum, type, dbias, c->y->g, out, rows, out);
    if (dweight)
        linear_gemm_on(tape, (struct device_gemm) {
            .m = out, .n = in, .k = rows, .a = c->y->g, .a_row = out, .a_type = type, .a_transposed = true, .b = c->x->x,
            .b_row = in,
            .b_type = type, .c = dweight + c->first * in, .c_row = in, .c_type = DEVICE_F32, .alpha = 1.0f, .add = true,
        });
    if (dx) {
        struct device_gemm g = {
            .m = rows, .n = in, .k = out, .a = c->y->g, .a_row = out, .a_type = type, .c = dx, .c_row = in, .c_type = type,
            .alpha = c->back_times, .add = !first,
        };

        weight_on(tape, c, &g);
        linear_gemm_on(tape, g);
    }
}

static void linear_backward(struct tape *tape, void *context)
{
    if (tape->on)
        backward_on(tape, context);
    else
        backward_here(tape, context);
}

/* ---- forwards ---------------------------------------------------------------------------------------------- */

/* Floats of a product's own scratch: columns of a slice that begins inside a panel, unfinished chains. */
int64_t linear_scratch(const struct param *weight, int64_t rows, int64_t in, int64_t first, int64_t count)
{
    int64_t skip = weight->half ? 0 : first % GEMM_PANEL, width = skip + count;

    return (skip ? rows * width : 0) + multiply_scratch(weight, rows, width, in);
}

/* y = x W^T (+ b) of the rows of W that c names; y += when `add`. */
void linear_product(const struct linear *c, bool add, float *scratch)
{
    const struct param *weight = c->weight;
    int64_t rows = c->x->rows, in = inputs(c), count = c->y->cols;
    int64_t skip = weight->half ? 0 : c->first % GEMM_PANEL, width = skip + count;
    struct gemm g = {.m = rows, .n = width, .k = in, .a = c->x->x + c->column, .a_row = c->x->cols, .a_k = 1,
                     .c = skip ? scratch : c->y->x, .c_row = width,
                     .bias = c->bias ? c->bias->value : NULL, .add = add && !skip,
                     .scratch = scratch + (skip ? rows * width : 0)};

    if (weight->half) {
        g.halves = weight->bf16 + c->first * in;
        g.half_row = in;
        g.half_transposed = true;
    } else if (weight->fast) {
        g.pairs = weight->forward->pairs + c->first / GEMM_PANEL * GEMM_PANEL * gemm_pairs(in);
    } else {
        g.panels = weight->forward->panels + c->first / GEMM_PANEL * GEMM_PANEL * in;
    }
    multiply(weight, &g);
    for (int64_t i = 0; skip && i < rows; i++)
        if (add)
            cpu_kernels()->accumulate(c->y->x + i * count, scratch + i * width + skip, count);
        else
            memcpy(c->y->x + i * count, scratch + i * width + skip, (size_t)count * sizeof(float));
}

/* later: whoever called puts the product on the device; *ret is what it is. */
static struct tensor *make(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, int64_t first,
                           int64_t count, float times, bool later, struct linear **ret)
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
    *c = (struct linear) {.x = x, .y = y, .weight = weight, .bias = bias, .first = first, .times = times, .back_times = 1.0f};
    if (t->training && t->planning)
        tape_scratch(t, backward_scratch(weight, x->rows, x->cols, first, count));
    note_param(t, weight);
    note_param(t, bias);
    tape_record(t, y, linear_backward, c);
    scratch = tape_scratch(t, linear_scratch(weight, x->rows, x->cols, first, count));
    *ret = c;
    if (t->error || t->planning || later)
        return t->error ? NULL : y;
    if (t->on) {
        product_on(t, c, false);
        return t->error ? NULL : y;
    }
    if (!weight->half && (!weight->forward || (t->training && !weight->backward)))
        return op_fail(t, -EINVAL);
    linear_product(c, false, scratch);
    return y;
}

struct tensor *linear_times(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, float times)
{
    struct linear *c;

    return make(t, x, weight, bias, 0, weight->dim[0], times, false, &c);
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
    if (h->g && !tape->on)              /* a device has multiplied already */
        cpu_kernels()->scale(h->g, c->scale, h->rows * h->cols);
}

bool linear_comes_later(const struct tape *t, const struct param *weight)
{
    return t->on && t->half && weight->lora.a && !t->plain;
}

/* y += scale (x A^T) B^T with B's rows from `first` on, when W has an adapter; base, unless it is NULL, is the product with W,
 * which comes after it. */
static struct tensor *adapt(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, struct tensor *y,
                            const struct linear *base)
{
    const struct lora *lora = &weight->lora;
    struct tensor *h;
    struct adapter *c;
    float *scratch;

    if (!y || !lora->a || t->plain)
        return y;
    h = linear_times(t, x, lora->a, NULL, lora->scale);
    c = tape_alloc(t, sizeof(*c));
    if (!h || !c)
        return NULL;
    if (lora->b->dim[0] < first + y->cols || lora->b->numel != lora->b->dim[0] * h->cols)
        return op_fail(t, -EINVAL);
    *c = (struct adapter) {.up = {.x = h, .y = y, .weight = lora->b, .first = first, .times = 1.0f, .back_times = lora->scale},
                           .scale = lora->scale};
    if (t->training && t->planning)
        tape_scratch(t, backward_scratch(lora->b, h->rows, h->cols, first, y->cols));
    note_param(t, lora->b);
    tape_record(t, NULL, adapter_backward, c);
    scratch = tape_scratch(t, linear_scratch(lora->b, h->rows, h->cols, first, y->cols));
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on) {
        product_on(t, &c->up, !base);
        if (base)
            product_on(t, base, true);
        return t->error ? NULL : y;
    }
    if (!lora->b->forward || (t->training && !lora->b->backward))
        return op_fail(t, -EINVAL);
    cpu_kernels()->scale(h->x, lora->scale, h->rows * h->cols);
    linear_product(&c->up, true, scratch);
    return y;
}

struct tensor *linear_adapt(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, struct tensor *y)
{
    return adapt(t, x, weight, first, y, NULL);
}

static struct tensor *with_adapter(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias,
                                   int64_t first, int64_t count)
{
    bool later = linear_comes_later(t, weight);
    struct linear *base;
    struct tensor *y = make(t, x, weight, bias, first, count, 1.0f, later, &base);

    return adapt(t, x, weight, first, y, later && y ? base : NULL);
}

struct tensor *op_linear(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias)
{
    return with_adapter(t, x, weight, bias, 0, weight->dim[0]);
}

struct tensor *op_linear_rows(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, int64_t count)
{
    return with_adapter(t, x, weight, NULL, first, count);
}
