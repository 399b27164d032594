/* adapters_merge.c - W += scale B A. */
#include <errno.h>
#include <string.h>

#include "nn/adapters.h"
#include "nn/cpu/kernels.h"
#include "nn/safetensors.h"

/* Rows of W at a time, so that the product needs little memory. */
static int merge_one(const struct param *weight)
{
    enum { ROWS = 256 };
    const struct cpu_kernels *cpu = cpu_kernels();
    const struct param *a = weight->lora.a, *b = weight->lora.b;
    int64_t out = weight->dim[0], in = weight->numel / out, r = a->dim[0], padded = gemm_padded(in);
    _cleanup_free_ float *panels = malloc((size_t)(r * padded + 16) * sizeof(*panels));
    _cleanup_free_ float *product = malloc((size_t)(2 * ROWS * padded) * sizeof(*product));
    _cleanup_free_ float *sum = malloc((size_t)(ROWS * in) * sizeof(*sum));

    if (!panels || !product || !sum)
        return -ENOMEM;
    cpu->gemm_pack(panels, a->value, in, r, in, false);
    for (int64_t row = 0; row < out; row += ROWS) {
        int64_t rows = MIN(out - row, (int64_t)ROWS);

        cpu->gemm(&(struct gemm) {.m = rows, .n = in, .k = r, .a = b->value + row * r, .a_row = r, .a_k = 1, .panels = panels,
                                  .c = product, .c_row = in, .scratch = product + ROWS * padded});
        param_read(weight, row * in, rows * in, sum);
        cpu->accumulate_scaled(sum, product, weight->lora.scale, rows * in);
        if (!weight->half)
            memcpy(weight->value + row * in, sum, (size_t)(rows * in) * sizeof(*sum));
        for (int64_t i = 0; weight->half && i < rows * in; i++)
            weight->bf16[row * in + i] = float_to_bf16(sum[i]);
    }
    return 0;
}

int adapters_merge(const struct adapted *model, struct error *error)
{
    int r = *model->adapters ? 0 : -ENOENT;

    for (int i = 0; i < model->params->count && r >= 0; i++)
        if (model->params->list[i]->lora.a) {
            r = merge_one(model->params->list[i]);
            param_changed(model->params->list[i]);
        }
    if (r >= 0)
        r = adapters_detach(model);
    return r < 0 ? error_set(error, -r, "%s: %s", model->dir, r == -ENOENT ? "there are no adapters to merge" : strerror(-r)) : 0;
}
