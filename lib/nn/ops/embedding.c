/* embedding.c - rows of a table, or zeros. The backward adds in row order, so equal ids always sum in the same order. */
#include "nn/ops/op.h"

struct embedding {
    const struct param *table;
    const int32_t *ids;
    struct tensor *y;
};

static void embedding_backward(struct tape *tape, void *context)
{
    const struct embedding *c = context;
    float *dtable = param_gradient(tape, c->table);
    int64_t d = c->y->cols;

    if (dtable && tape->on)
        op_scatter(tape, DEVICE_F32, dtable, c->y->g, c->ids, c->y->rows, d);
    for (int64_t i = 0; dtable && !tape->on && i < c->y->rows; i++)
        if (c->ids[i] >= 0)
            cpu_kernels()->accumulate(dtable + c->ids[i] * d, c->y->g + i * d, d);
}

struct tensor *op_embedding(struct tape *t, const struct param *table, const int32_t *ids, int64_t n)
{
    int64_t d = table->numel / table->dim[0];
    struct tensor *y = tape_tensor(t, n, d);
    struct embedding *c = tape_alloc(t, sizeof(*c));
    int32_t *kept = tape_alloc(t, (size_t)n * sizeof(*kept));

    if (!y || !c || !kept)
        return NULL;
    *c = (struct embedding) {.table = table, .ids = kept, .y = y};
    note_param(t, table);
    tape_record(t, y, embedding_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < EMBEDDING_ZERO || ids[i] >= table->dim[0])
            return op_fail(t, -EINVAL);
        kept[i] = ids[i];
        if (t->on)
            continue;
        if (ids[i] == EMBEDDING_ZERO)
            memset(y->x + i * d, 0, (size_t)d * sizeof(float));
        else
            param_read(table, ids[i] * d, d, y->x + i * d);
    }
    if (t->on) {
        const int32_t *sent = send_ints(t, ids, n);
        bool half = !table->on_f32;

        if (sent)
            ON(t, embedding, type_of(t), y->x, half ? DEVICE_BF16 : DEVICE_F32, half ? table->on_bf16 : table->on_f32, sent, n,
               d);
    }
    return t->error ? NULL : y;
}
