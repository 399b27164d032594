/* clamp.c - numbers held between two limits; beyond them no gradient flows. */
#include "nn/ops/op.h"

struct clamp { struct tensor *x, *y; float low, high; };

static void clamp_backward(struct tape *tape, void *context)
{
    const struct clamp *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on) {
        ON(tape, activation_backward, type_of(tape), DEVICE_CLAMP, dx, c->y->g, c->x->x, c->y->rows * c->y->cols, c->low,
           c->high);
        return;
    }
    for (int64_t i = 0; dx && i < c->y->rows * c->y->cols; i++)
        if (c->x->x[i] >= c->low && c->x->x[i] <= c->high)
            dx[i] += c->y->g[i];
}

struct tensor *op_clamp(struct tape *t, struct tensor *x, float low, float high)
{
    struct tensor *y;
    struct clamp *c;

    if (!x)
        return NULL;
    y = tape_tensor(t, x->rows, x->cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct clamp) {.x = x, .y = y, .low = low, .high = high};
    tape_record(t, y, clamp_backward, c);
    if (t->on && !t->planning)
        ON(t, activation, type_of(t), DEVICE_CLAMP, y->x, x->x, x->rows * x->cols, low, high);
    for (int64_t i = 0; i < x->rows * x->cols && !t->planning && !t->on; i++)
        y->x[i] = CLAMP(x->x[i], low, high);
    return t->error ? NULL : y;
}
