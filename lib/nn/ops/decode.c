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
    for (int64_t i = 0; i < k->rows && t->on; i++)
        if (slot[i] < 0 || slot[i] >= cache->slots || position[i] < 0 || position[i] >= cache->capacity)
            return t->error = -EINVAL;
    if (t->on) {
        const int32_t *slots = send_ints(t, slot, k->rows), *positions = send_ints(t, position, k->rows);

        if (slots && positions)
            ON(t, kv_append, type_of(t), cache->k, cache->v, k->x, v->x, slots, positions, k->rows, cache->width, cache->capacity);
        return t->error;
    }
    for (int64_t i = 0, n; i < k->rows; i += n) {
        for (n = 1; i + n < k->rows && slot[i + n] == slot[i] && position[i + n] == position[i] + n; n++)
            ;       /* a run of neighbours */
        if (slot[i] < 0 || slot[i] >= cache->slots || position[i] < 0 || position[i] + n > cache->capacity)
            return t->error = -EINVAL;
        memcpy(cache->v + slot[i] * size + (int64_t)position[i] * cache->width, v->x + i * v->cols, (size_t)(n * v->cols) * sizeof(float));
        cpu_kernels()->transpose(cache->k + slot[i] * size + position[i], cache->capacity, k->x + i * k->cols, k->cols, n, k->cols);
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
    scratch = tape_scratch(t, attention_decode_scratch(cache->capacity, heads));
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on) {
        const int32_t *slots = send_ints(t, slot, q->rows), *positions = send_ints(t, position, q->rows);

        if (slots && positions)
            ON(t, attention_decode, type_of(t), &(struct device_decode) {
                .rows = q->rows, .dim = dim, .capacity = cache->capacity, .width = cache->width, .heads = heads, .group = 1,
                .scale = 1.0f / sqrtf((float)dim), .slot = slots, .position = positions, .q = q->x, .k = cache->k, .v = cache->v,
                .out = y->x,
            });
        return t->error ? NULL : y;
    }
    for (int64_t i = 0; i < q->rows; i++) {
        int64_t base = (int64_t)slot[i] * cache->capacity * cache->width;

        cpu_kernels()->attention_decode(&(struct attention_decode) {
            .n = position[i] + 1, .dim = dim, .heads = heads, .scale = 1.0f / sqrtf((float)dim), .q = q->x + i * q->cols,
            .k = cache->k + base, .k_stride = cache->capacity, .v = cache->v + base, .v_stride = cache->width,
            .out = y->x + i * y->cols, .scratch = scratch,
        });
    }
    return y;
}
