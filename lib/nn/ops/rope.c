/* rope.c - rotary positions, in place: nobody needs the rows before the rotation, and the gradient is rotated back in place. */
#include "nn/ops/op.h"
#include "nn/rope_table.h"

struct rope {
    struct tensor *x;
    int heads;
    float theta;
    const int32_t *position;
};

static int rotate(struct tape *t, const struct rope *c, float *x, float direction)
{
    int64_t dim = c->x->cols / c->heads, last = 0;
    int r;

    for (int64_t i = 0; i < c->x->rows; i++)
        last = MAX(last, c->position[i]);
    r = rope_table_cover(&t->rope, c->theta, dim, last);
    if (r < 0)
        return r;
    if (t->on) {
        const int32_t *position = send_ints(t, c->position, c->x->rows);
        const float *table = rope_table_on(t->rope, t->on);

        if (position && table)
            ON(t, rope, type_of(t), x, c->x->cols, position, table, c->x->rows, c->heads, dim, direction);
        return table ? t->error : -ENOMEM;
    }
    cpu_kernels()->rope(x, c->position, t->rope->table, c->x->rows, c->heads, dim, direction);
    return 0;
}

static void rope_backward(struct tape *tape, void *context)
{
    const struct rope *c = context;
    int r = c->x->g ? rotate(tape, c, c->x->g, -1.0f) : 0;

    if (r < 0)
        op_fail(tape, r);
}

struct tensor *op_rope(struct tape *t, struct tensor *x, const int32_t *position, int heads, float theta)
{
    struct rope *c;
    int32_t *kept;
    int r;

    if (!x)
        return NULL;
    if (x->cols % heads || x->cols / heads % 2)
        return op_fail(t, -EINVAL);
    c = tape_alloc(t, sizeof(*c));
    kept = tape_alloc(t, (size_t)x->rows * sizeof(*kept));
    if (!c || !kept)
        return NULL;
    *c = (struct rope) {.x = x, .heads = heads, .theta = theta, .position = kept};
    tape_record(t, NULL, rope_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : x;
    memcpy(kept, position, (size_t)x->rows * sizeof(*kept));
    r = rotate(t, c, x->x, 1.0f);
    return r < 0 ? op_fail(t, r) : x;
}
