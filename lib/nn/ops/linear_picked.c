/* linear_picked.c - a few outputs of a large linear map, picked by number: their rows are packed for the pass only. */
#include "nn/ops/op.h"

struct picked {
    struct tensor *x, *y;
    const struct param *weight;
    const int32_t *ids;
};

static void picked_backward_here(struct tape *tape, const struct picked *c)
{
    const struct cpu_kernels *cpu = cpu_kernels();
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL, *dweight = param_gradient(tape, c->weight);
    int64_t in = c->x->cols, n = c->y->cols;
    float *rows = tape_scratch(tape, n * in);

    for (int64_t j = 0; rows && j < n; j++)
        param_read(c->weight, c->ids[j] * in, in, rows + j * in);
    for (int64_t i = 0; i < c->x->rows && !tape->error; i++)
        for (int64_t j = 0; j < n; j++) {
            float dy = c->y->g[i * n + j];

            if (dx)
                cpu->accumulate_scaled(dx + i * in, rows + j * in, dy, in);
            if (dweight)
                cpu->accumulate_scaled(dweight + c->ids[j] * in, c->x->x + i * in, dy, in);
        }
}

/* On a device: the picked rows as activations; they are a few. */
static float *rows_on(struct tape *t, const struct picked *c, float *rows)
{
    const int32_t *ids = send_ints(t, c->ids, c->y->cols);
    bool half = !c->weight->on_f32;

    if (rows && ids)
        ON(t, embedding, type_of(t), rows, half ? DEVICE_BF16 : DEVICE_F32, half ? c->weight->on_bf16 : c->weight->on_f32, ids,
           c->y->cols, c->x->cols);
    return t->error ? NULL : rows;
}

static void picked_backward_on(struct tape *t, const struct picked *c)
{
    int64_t in = c->x->cols, n = c->y->cols;
    float *dx = c->x->wants ? tape_gradient(t, c->x) : NULL, *dweight = param_gradient(t, c->weight);
    float *rows = tape_scratch(t, 2 * n * in), *drows = rows ? rows + n * in : NULL;
    struct device_gemm g = {.a = c->y->g, .a_row = n, .a_type = type_of(t), .b_row = in, .b_type = type_of(t), .c_row = in,
                            .alpha = 1.0f};
    const int32_t *ids;

    if (!rows_on(t, c, rows))
        return;
    if (dx) {
        g.m = c->x->rows, g.n = in, g.k = n, g.b = rows, g.c = dx, g.c_type = type_of(t), g.add = true;
        op_ran(t, device_gemm(t->on, &g));
    }
    if (!dweight)
        return;
    g.m = n, g.n = in, g.k = c->x->rows, g.a_transposed = true, g.b = c->x->x, g.c = drows, g.c_type = DEVICE_F32, g.add = false;
    op_ran(t, device_gemm(t->on, &g));
    ids = send_ints(t, c->ids, n);
    for (int64_t j = 0; ids && j < n; j++)
        ON(t, accumulate, DEVICE_F32, dweight + c->ids[j] * in, drows + j * in, in);
}

static void picked_backward(struct tape *tape, void *context)
{
    const struct picked *c = context;

    if (tape->on)
        picked_backward_on(tape, c);
    else
        picked_backward_here(tape, c);
}

struct tensor *op_linear_picked(struct tape *t, struct tensor *x, const struct param *weight, const int32_t *ids, int64_t n)
{
    struct tensor *y;
    struct picked *c;
    int32_t *kept;
    float *panels, *unfinished, *rows;
    int64_t in;

    if (!x)
        return NULL;
    in = x->cols;
    if (n < 1 || weight->numel != weight->dim[0] * in)
        return op_fail(t, -EINVAL);
    for (int64_t j = 0; j < n; j++)
        if (ids[j] < 0 || ids[j] >= weight->dim[0])
            return op_fail(t, -EINVAL);
    y = tape_tensor(t, x->rows, n);
    c = tape_alloc(t, sizeof(*c));
    kept = tape_alloc(t, (size_t)n * sizeof(*kept));
    if (!y || !c || !kept)
        return NULL;
    memcpy(kept, ids, (size_t)n * sizeof(*kept));
    *c = (struct picked) {.x = x, .y = y, .weight = weight, .ids = kept};
    note_param(t, weight);
    tape_record(t, y, picked_backward, c);
    panels = tape_scratch(t, (in + x->rows) * gemm_padded(n) + n * in);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on) {
        struct device_gemm g = {
            .m = x->rows, .n = n, .k = in, .a = x->x, .a_row = in, .a_type = type_of(t), .b = rows_on(t, c, panels), .b_row = in,
            .b_type = type_of(t), .b_transposed = true, .c = y->x, .c_row = n, .c_type = type_of(t), .alpha = 1.0f,
        };

        if (g.b)
            op_ran(t, device_gemm(t->on, &g));
        return t->error ? NULL : y;
    }
    unfinished = panels + in * gemm_padded(n);
    rows = unfinished + x->rows * gemm_padded(n);
    for (int64_t j = 0; j < n; j++)
        param_read(weight, ids[j] * in, in, rows + j * in);
    cpu_kernels()->gemm_pack(panels, rows, in, in, n, true);
    cpu_kernels()->gemm(&(struct gemm){
        .m = x->rows,
        .n = n,
        .k = in,
        .a = x->x,
        .a_row = in,
        .a_k = 1,
        .panels = panels,
        .c = y->x,
        .c_row = n,
        .scratch = unfinished,
    });
    return y;
}
