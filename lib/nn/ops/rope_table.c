/* rope_table.c - rotation by angles that the model worked out itself (2-D positions, M-RoPE), in place as op_rope does it. */
#include "nn/ops/op.h"

struct rotation {
    struct tensor *x;
    const float *table;         /* (rows, dim): cos, sin */
    int heads;
    int64_t dim;
};

static void rotate(struct tape *t, const struct rotation *c, float *x, float direction)
{
    static const int32_t first = 0;

    if (t->on) {
        const float *table = device_send_kept(t->on, c->table, (size_t)(c->x->rows * c->dim) * sizeof(*table));

        if (!table)
            op_fail(t, -ENOMEM);
        else
            ON(t, rope, type_of(t), x, c->x->cols, NULL, table, c->x->rows, c->heads, c->dim, direction);
        return;
    }

    for (int64_t i = 0; i < c->x->rows; i++)
        cpu_kernels()->rope(x + i * c->x->cols, &first, c->table + i * c->dim, 1, c->heads, c->dim, direction);
}

static void rotation_backward(struct tape *tape, void *context)
{
    const struct rotation *c = context;

    if (c->x->g)
        rotate(tape, c, c->x->g, -1.0f);
}

struct tensor *op_rope_table(struct tape *t, struct tensor *x, const float *table, int heads, int64_t dim)
{
    struct rotation *c;

    if (!x)
        return NULL;
    if (heads < 1 || dim < 2 || dim % 2 || heads * dim > x->cols || (!table && !t->planning))
        return op_fail(t, -EINVAL);
    c = tape_alloc(t, sizeof(*c));
    if (!c)
        return NULL;
    *c = (struct rotation) {.x = x, .table = table, .heads = heads, .dim = dim};
    tape_record(t, NULL, rotation_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : x;
    rotate(t, c, x->x, 1.0f);
    return t->error ? NULL : x;
}
