/* linear_picked.c - a few outputs of a large linear map, picked by number: their rows are packed for the pass only. */
#include "nn/ops/op.h"

struct picked {
    struct tensor *x, *y;
    const struct param *weight;
    const int32_t *ids;
};

static void picked_backward(struct tape *tape, void *context)
{
    const struct picked *c = context;
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
    tape_record(t, y, picked_backward, c);
    panels = tape_scratch(t, (in + x->rows) * gemm_padded(n) + n * in);
    if (t->error || t->planning)
        return t->error ? NULL : y;
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
