/* splice.c - rows picked from one or two tensors by index. */
#include "nn/ops/op.h"

struct splice {
    struct tensor *a, *b, *y;
    const int32_t *index;       /* >= 0: row of a; below: row -1-index of b */
};

static void splice_backward(struct tape *tape, void *context)
{
    const struct splice *c = context;
    int64_t d = c->y->cols;
    float *da = c->a->wants ? tape_gradient(tape, c->a) : NULL, *db = c->b->wants ? tape_gradient(tape, c->b) : NULL;

    if (tape->on) {
        int32_t *to = tape_alloc(tape, (size_t)c->y->rows * sizeof(*to));

        for (int64_t i = 0; to && i < c->y->rows; i++)
            to[i] = c->index[i];                    /* rows of b are negative: nowhere */
        if (to && da)
            op_scatter(tape, type_of(tape), da, c->y->g, to, c->y->rows, d);
        for (int64_t i = 0; to && i < c->y->rows; i++)
            to[i] = -1 - c->index[i];
        if (to && db)
            op_scatter(tape, type_of(tape), db, c->y->g, to, c->y->rows, d);
        return;
    }
    for (int64_t i = 0; i < c->y->rows && !tape->error; i++) {
        float *g = c->index[i] >= 0 ? da : db;
        int64_t row = c->index[i] >= 0 ? c->index[i] : -1 - (int64_t)c->index[i];

        if (g)
            cpu_kernels()->accumulate(g + row * d, c->y->g + i * d, d);
    }
}

struct tensor *op_splice(struct tape *t, struct tensor *a, struct tensor *b, const int32_t *index, int64_t n)
{
    struct tensor *y;
    struct splice *c;
    int32_t *kept;
    int64_t d;

    if (!a || !b)
        return NULL;
    d = a->cols;
    if (b->cols != d)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, n, d);
    c = tape_alloc(t, sizeof(*c));
    kept = tape_alloc(t, (size_t)n * sizeof(*kept));
    if (!y || !c || !kept)
        return NULL;
    *c = (struct splice) {.a = a, .b = b, .y = y, .index = kept};
    tape_record(t, y, splice_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    for (int64_t i = 0; i < n; i++) {
        const struct tensor *from = index[i] >= 0 ? a : b;
        int64_t row = index[i] >= 0 ? index[i] : -1 - (int64_t)index[i];

        if (row >= from->rows)
            return op_fail(t, -EINVAL);
        kept[i] = index[i];
        if (!t->on)
            memcpy(y->x + i * d, from->x + row * d, (size_t)d * sizeof(float));
    }
    if (t->on) {
        const int32_t *sent = send_ints(t, index, n);

        if (sent)
            ON(t, splice, type_of(t), y->x, a->x, b->x, sent, n, d);
    }
    return t->error ? NULL : y;
}

struct tensor *op_gather(struct tape *t, struct tensor *x, const int32_t *index, int64_t n)
{
    return op_splice(t, x, x, index, n);
}
