/* activation.c - GELU (exact, by erf), quick GELU, ReLU, SwiGLU. */
#include "nn/ops/op.h"

struct activation { struct tensor *x, *up, *y; };       /* up: SwiGLU only */

static struct activation *activation_new(struct tape *t, struct tensor *x, struct tensor *up,
                                         void (*backward)(struct tape *, void *))
{
    struct activation *c;

    if (!x)
        return NULL;
    if (up && (up->rows != x->rows || up->cols != x->cols))
        return op_fail(t, -EINVAL);
    c = tape_alloc(t, sizeof(*c));
    if (!c)
        return NULL;
    *c = (struct activation) {.x = x, .up = up, .y = tape_tensor(t, x->rows, x->cols)};
    tape_record(t, c->y, backward, c);
    return t->error ? NULL : c;
}

static void gelu_backward(struct tape *tape, void *context)
{
    const struct activation *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on)
        ON(tape, activation_backward, type_of(tape), DEVICE_GELU, dx, c->y->g, c->x->x, c->x->rows * c->x->cols, 0, 0);
    else if (dx)
        cpu_kernels()->gelu_backward(dx, c->y->g, c->x->x, c->x->rows * c->x->cols);
}

struct tensor *op_gelu(struct tape *t, struct tensor *x)
{
    struct activation *c = activation_new(t, x, NULL, gelu_backward);

    if (c && !t->planning && t->on)
        ON(t, activation, type_of(t), DEVICE_GELU, c->y->x, x->x, x->rows * x->cols, 0, 0);
    else if (c && !t->planning)
        cpu_kernels()->gelu(c->y->x, x->x, x->rows * x->cols);
    return c ? c->y : NULL;
}

static void quick_gelu_backward(struct tape *tape, void *context)
{
    const struct activation *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on)
        ON(tape, activation_backward, type_of(tape), DEVICE_QUICK_GELU, dx, c->y->g, c->x->x, c->x->rows * c->x->cols, 0, 0);
    else if (dx)
        cpu_kernels()->quick_gelu_backward(dx, c->y->g, c->x->x, c->x->rows * c->x->cols);
}

struct tensor *op_quick_gelu(struct tape *t, struct tensor *x)
{
    struct activation *c = activation_new(t, x, NULL, quick_gelu_backward);

    if (c && !t->planning && t->on)
        ON(t, activation, type_of(t), DEVICE_QUICK_GELU, c->y->x, x->x, x->rows * x->cols, 0, 0);
    else if (c && !t->planning)
        cpu_kernels()->quick_gelu(c->y->x, x->x, x->rows * x->cols);
    return c ? c->y : NULL;
}

static void relu_backward(struct tape *tape, void *context)
{
    const struct activation *c = context;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;

    if (dx && tape->on)
        ON(tape, activation_backward, type_of(tape), DEVICE_RELU, dx, c->y->g, c->x->x, c->x->rows * c->x->cols, 0, 0);
    else if (dx)
        cpu_kernels()->relu_backward(dx, c->y->g, c->x->x, c->x->rows * c->x->cols);
}

struct tensor *op_relu(struct tape *t, struct tensor *x)
{
    struct activation *c = activation_new(t, x, NULL, relu_backward);

    if (c && !t->planning && t->on)
        ON(t, activation, type_of(t), DEVICE_RELU, c->y->x, x->x, x->rows * x->cols, 0, 0);
    else if (c && !t->planning)
        cpu_kernels()->relu(c->y->x, x->x, x->rows * x->cols);
    return c ? c->y : NULL;
}

static void swiglu_backward(struct tape *tape, void *context)
{
    const struct activation *c = context;
    struct tensor *to[2] = {c->x, c->up};
    bool add;

    if (!c->x->wants || !c->up->wants || !op_gradients(tape, to, 2, &add))
        return;
    if (tape->on)
        ON(tape, swiglu_backward, type_of(tape), c->x->g, c->up->g, c->y->g, c->x->x, c->up->x, c->x->rows * c->x->cols, add);
    else
        cpu_kernels()->swiglu_backward(c->x->g, c->up->g, c->y->g, c->x->x, c->up->x, c->x->rows * c->x->cols);
}

struct tensor *op_swiglu(struct tape *t, struct tensor *gate, struct tensor *up)
{
    struct activation *c = up ? activation_new(t, gate, up, swiglu_backward) : NULL;

    if (c && !t->planning && t->on)
        ON(t, swiglu, type_of(t), c->y->x, gate->x, up->x, gate->rows * gate->cols);
    else if (c && !t->planning)
        cpu_kernels()->swiglu(c->y->x, gate->x, up->x, gate->rows * gate->cols);
    return c ? c->y : NULL;
}
