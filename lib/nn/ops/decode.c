/* decode.c - the key-value cache: append to it, attend to it. Keys are stored transposed, so that a query meets sixteen
 * positions at a time. */
#include <math.h>

#include "nn/ops/op.h"

int op_kv_append(struct tape *t, struct kv_cache *cache, struct tensor *k, struct tensor *v, const int32_t *slot, const int32_t *position)
{
    int64_t size = (int64_t)cache->capacity * cache->width;

    if (!k || !v)
        return t->error ? t->error : -EINVAL;
    if (k->cols != cache->width || v->cols != cache->width || k->rows != v->rows)
        return t->error = -EINVAL;
    if (t->planning)
        return 0;
    for (int64_t i = 0; i < k->rows; i++) {
        if (slot[i] < 0 || slot[i] >= cache->slots || position[i] < 0 || position[i] >= cache->capacity)
            return t->error = -EINVAL;
        memcpy(cache->v + slot[i] * size + (int64_t)position[i] * cache->width, v->x + i * v->cols, (size_t)v->cols * sizeof(float));
        for (int64_t d = 0; d < k->cols; d++)
            cache->k[slot[i] * size + d * cache->capacity + position[i]] = k->x[i * k->cols + d];
    }
    return 0;
}

struct tensor *op_attention_decode(struct tape *t, struct tensor *q, const struct kv_cache *cache, const int32_t *slot,
                                   const int32_t *position, int heads)
{
    struct tensor *y;
    float *scratch;
    int64_t dim;

    if (!q)
        return NULL;
    dim = q->cols / heads;
    if (q->cols != cache->width || q->cols % heads || t->training)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, q->rows, q->cols);
    scratch = tape_scratch(t, cache->capacity + 16);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    for (int64_t i = 0; i < q->rows; i++) {
        int64_t base = (int64_t)slot[i] * cache->capacity * cache->width;

        for (int h = 0; h < heads; h++)
            cpu_kernels()->attention_decode(&(struct attention_decode) {
                .n = position[i] + 1, .dim = dim, .scale = 1.0f / sqrtf((float)dim), .q = q->x + i * q->cols + h * dim,
                .k = cache->k + base + h * dim * cache->capacity, .k_stride = cache->capacity,
                .v = cache->v + base + h * dim, .v_stride = cache->width, .out = y->x + i * y->cols + h * dim, .scratch = scratch,
            });
    }
    return y;
}
