/* op.h - what the files of this folder share. */
#pragma once

#include <errno.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/device/device.h"
#include "nn/ops.h"
#include "nn/tape_watch.h"

static inline void *op_fail(struct tape *tape, int error)
{
    if (!tape->error)
        tape->error = error;
    return NULL;
}

/* For every op, on the way forward, about each parameter whose param_gradient it asks for on the way back. NULL is fine. */
static inline void note_param(struct tape *tape, const struct param *param)
{
    if (tape->watch && param && !param->frozen)
        tape_watch_note(tape->watch, param->offset);
}

/* The gradient of a parameter in this pass, or NULL when nobody wants it. */
static inline float *param_gradient(struct tape *tape, const struct param *param)
{
    if (!param || param->frozen || !tape->param_grad)
        return NULL;
    if (tape->watch && tape_watch_told(tape->watch, param->offset))
        return op_fail(tape, -ENOTRECOVERABLE);         /* the op has not noted it */
    return tape->param_grad + param->offset;
}

/* ---- on a device (t->on) ------------------------------------------------------------------------------------ */

static inline enum device_type type_of(const struct tape *t) { return t->half ? DEVICE_BF16 : DEVICE_F32; }
/* Note what a call on the stream answered. */
static inline void op_ran(struct tape *t, int r)
{
    if (r < 0)
        op_fail(t, r);
}
/* ON(t, gelu, type_of(t), ...): an entry of the device's table, put on the tape's stream. */
#define ON(t, entry, ...) op_ran(t, (t)->on->k->entry((t)->on->stream, __VA_ARGS__))
/* Activation number i of an array of them. */
static inline float *at_activation(const struct tape *t, const float *x, int64_t i)
{
    return x ? (float *)((char *)(uintptr_t)x + i * (int64_t)tape_element(t)) : NULL;
}
static inline const int32_t *send_ints(struct tape *t, const int32_t *x, int64_t n)
{
    const void *sent = device_send(t->on, x, (size_t)n * sizeof(*x));
    return sent ? sent : op_fail(t, -ENOMEM);
}
/* The gradients of a few tensors, which may be one: there from now on. *ret_add: they hold numbers, or zeros, to be added to; on
 * a device where all are asked for the first time false, and what they hold is nobody's. false: tape->error. */
static inline bool op_gradients(struct tape *t, struct tensor *const *x, int n, bool *ret_add)
{
    bool first[4] = {false}, fresh = t->on != NULL;

    for (int i = 0; i < n; i++) {
        bool again = false;

        for (int k = 0; k < i; k++)
            again = again || x[k] == x[i];
        if (!again && !tape_gradient_first(t, x[i], &first[i]))
            return false;
        fresh = fresh && (again || first[i]);
    }
    for (int i = 0; i < n && !fresh; i++)
        if (first[i])
            tape_zero(t, x[i]->g, (size_t)(x[i]->rows * x[i]->cols) * tape_element(t));
    *ret_add = !fresh;
    return !t->error;
}
/* y += the rows of x, in ascending order: row i of x goes to row to[i] of y; to[i] < 0: nowhere (op_scatter.c). */
void op_scatter(struct tape *t, enum device_type y_type, float *y, const float *x, const int32_t *to, int64_t n, int64_t cols);

static inline size_t tensor_bytes(const struct tensor *t)
{
    return (size_t)(t->rows * t->cols) * sizeof(float);
}
