/* prefix.c - put the learnt class and register tokens before each picture's rows, and take them off again. */
#include "nn/ops/op.h"

struct prefix {
    struct tensor *x, *y;
    const struct param *cls, *reg;      /* prepend only; either may be NULL */
    int64_t b, prefix;                  /* pictures, rows put before (or taken off) each */
};

static void prepend_backward(struct tape *tape, void *context)
{
    const struct prefix *c = context;
    const struct cpu_kernels *cpu = cpu_kernels();
    float *dcls = param_gradient(tape, c->cls), *dreg = param_gradient(tape, c->reg);
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;
    int64_t d = c->x->cols, in = c->x->rows / c->b * d, out = in + c->prefix * d, ncls = c->cls ? c->cls->numel : 0;

    if (tape->on) {
        if (dcls)
            ON(tape, column_sum, type_of(tape), dcls, c->y->g, out, c->b, ncls);
        if (dreg)
            ON(tape, column_sum, type_of(tape), dreg, at_activation(tape, c->y->g, ncls), out, c->b, c->reg->numel);
        if (dx)
            ON(tape, copy_rows, type_of(tape), dx, in, at_activation(tape, c->y->g, c->prefix * d), out, c->b, in, true);
        return;
    }
    for (int64_t i = 0; i < c->b; i++) {
        const float *g = c->y->g + i * out;

        if (dcls)
            cpu->accumulate(dcls, g, ncls);
        if (dreg)
            cpu->accumulate(dreg, g + ncls, c->reg->numel);
        if (dx)
            cpu->accumulate(dx + i * in, g + c->prefix * d, in);
    }
}

struct tensor *op_prepend(struct tape *t, struct tensor *x, const struct param *cls, const struct param *reg, int b)
{
    int64_t d, in, out, ncls = cls ? cls->numel : 0, nreg = reg ? reg->numel : 0;
    struct tensor *y;
    struct prefix *c;

    if (!x)
        return NULL;
    d = x->cols;
    if (x->rows % b || (ncls + nreg) % d)
        return op_fail(t, -EINVAL);
    in = x->rows / b * d;
    out = in + ncls + nreg;
    y = tape_tensor(t, b * out / d, d);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct prefix) {.x = x, .y = y, .cls = cls, .reg = reg, .b = b, .prefix = (ncls + nreg) / d};
    note_param(t, cls);
    note_param(t, reg);
    tape_record(t, y, prepend_backward, c);
    if (t->on && !t->planning && !t->error) {
        if (cls)
            ON(t, broadcast, type_of(t), y->x, out, cls->on_f32, b, ncls);
        if (reg)
            ON(t, broadcast, type_of(t), at_activation(t, y->x, ncls), out, reg->on_f32, b, nreg);
        ON(t, copy_rows, type_of(t), at_activation(t, y->x, ncls + nreg), out, x->x, in, b, in, false);
    }
    for (int i = 0; i < b && !t->planning && !t->on; i++) {
        float *row = y->x + i * out;

        if (cls)
            memcpy(row, cls->value, (size_t)ncls * sizeof(float));
        if (reg)
            memcpy(row + ncls, reg->value, (size_t)nreg * sizeof(float));
        memcpy(row + ncls + nreg, x->x + i * in, (size_t)in * sizeof(float));
    }
    return t->error ? NULL : y;
}

static void strip_backward(struct tape *tape, void *context)
{
    const struct prefix *c = context;
    int64_t d = c->x->cols, out = c->y->rows / c->b * d, in = out + c->prefix * d;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on)
        ON(tape, copy_rows, type_of(tape), at_activation(tape, dx, c->prefix * d), in, c->y->g, out, c->b, out, true);
    for (int64_t i = 0; dx && !tape->on && i < c->b; i++)
        cpu_kernels()->accumulate(dx + i * in + c->prefix * d, c->y->g + i * out, out);
}

struct tensor *op_strip(struct tape *t, struct tensor *x, int b, int prefix)
{
    int64_t d, in, out;
    struct tensor *y;
    struct prefix *c;

    if (!x)
        return NULL;
    d = x->cols;
    in = x->rows / b * d;
    out = in - prefix * d;
    if (x->rows % b || out < 0)
        return op_fail(t, -EINVAL);
    y = tape_tensor(t, b * out / d, d);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct prefix) {.x = x, .y = y, .b = b, .prefix = prefix};
    tape_record(t, y, strip_backward, c);
    if (t->on && !t->planning && !t->error)
        ON(t, copy_rows, type_of(t), y->x, out, at_activation(t, x->x, prefix * d), in, b, out, false);
    for (int i = 0; i < b && !t->planning && !t->on; i++)
        memcpy(y->x + i * out, x->x + i * in + prefix * d, (size_t)out * sizeof(float));
    return t->error ? NULL : y;
}
