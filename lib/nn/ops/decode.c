/* decode.c - the key-value cache: append to it, attend to it. Keys are stored transposed, so that a query meets sixteen
 * positions at a time. */
#include <math.h>

#include "nn/ops/op.h"
#include "nn/rope_table.h"

/* Rows for the cache: of its width, each to a place that it has. */
static int check_rows(struct tape *t, const struct kv_cache *cache, const struct tensor *k, const struct tensor *v,
                      const int32_t *slot, const int32_t *position)
{
    if (!k || !v)
        return t->error ? t->error : -EINVAL;
    if (k->cols != cache->width || v->cols != cache->width || k->rows != v->rows)
        return t->error = -EINVAL;
    for (int64_t i = 0; i < k->rows && !t->planning; i++)
        if (slot[i] < 0 || slot[i] >= cache->slots || position[i] < 0 || position[i] >= cache->capacity)
            return t->error = -EINVAL;
    return 0;
}

int op_kv_append(struct tape *t, struct kv_cache *cache, struct tensor *k, struct tensor *v, const int32_t *slot,
                 const int32_t *position)
{
    int64_t size = (int64_t)cache->capacity * cache->width;
    int r = check_rows(t, cache, k, v, slot, position);

    if (r < 0 || t->planning)
        return r;
    if (t->on) {
        const int32_t *slots = send_ints(t, slot, k->rows), *positions = send_ints(t, position, k->rows);

        if (slots && positions)
            ON(t, kv_append, type_of(t), cache->k, cache->v, k->x, v->x, slots, positions, k->rows, cache->width,
               cache->capacity);
        return t->error;
    }
    for (int64_t i = 0, n; i < k->rows; i += n) {
        for (n = 1; i + n < k->rows && slot[i + n] == slot[i] && position[i + n] == position[i] + n; n++)
            ;       /* a run of neighbours */
        memcpy(cache->v + slot[i] * size + (int64_t)position[i] * cache->width, v->x + i * v->cols,
               (size_t)(n * v->cols) * sizeof(float));
        cpu_kernels()->transpose(cache->k + slot[i] * size + position[i], cache->capacity, k->x + i * k->cols, k->cols, n,
                                 k->cols);
    }
    return 0;
}

int op_rope_append(struct tape *t, struct kv_cache *cache, struct tensor *q, struct tensor *k, struct tensor *v,
                   const int32_t *slot, const int32_t *position, int heads, float theta)
{
    int64_t dim = cache->width / heads, last = 0;
    const int32_t *slots, *positions;
    const float *table;
    int r;

    if (!t->on) {
        q = op_rope(t, q, position, heads, theta);
        k = op_rope(t, k, position, heads, theta);
        return q ? op_kv_append(t, cache, k, v, slot, position) : t->error;
    }
    r = check_rows(t, cache, k, v, slot, position);
    if (r < 0 || t->planning)
        return r;
    if (!q || q->cols != k->cols || q->rows != k->rows || q->cols % heads || dim % 2 || t->training)
        return t->error = t->error ? t->error : -EINVAL;
    for (int64_t i = 0; i < k->rows; i++)
        last = MAX(last, position[i]);
    r = rope_table_cover(&t->rope, theta, dim, last);
    if (r < 0)
        return t->error = r;
    slots = send_ints(t, slot, k->rows);
    positions = send_ints(t, position, k->rows);
    table = rope_table_on(t->rope, t->on);
    if (slots && positions && table)
        ON(t, rope_append, type_of(t), q->x, k->x, v->x, cache->k, cache->v, slots, positions, table, k->rows, heads, dim,
           cache->capacity);
    else
        op_fail(t, -ENOMEM);
    return t->error;
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
