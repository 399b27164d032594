/* tape_edges.c - what the host sends to a pass and reads of it. Without a device both are the numbers themselves. */
#include <errno.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/device/device.h"
#include "nn/tape_internal.h"

struct tensor *tape_input(struct tape *tape, const float *x, int64_t rows, int64_t cols)
{
    struct tensor *tensor = tape_alloc(tape, sizeof(*tensor));
    const float *sent;
    int r;

    if (!tensor)
        return NULL;
    *tensor = (struct tensor) {.x = (float *)x, .rows = rows, .cols = cols};
    if (!tape->on)
        return tensor;
    tensor->x = tape->half ? tape_activations(tape, rows * cols) : NULL;
    if (tape->planning || tape->error)
        return tape->error ? NULL : tensor;
    sent = tape_send(tape, x, rows * cols);
    if (!sent)
        return NULL;
    if (!tape->half) {
        tensor->x = (float *)sent;
        return tensor;
    }
    r = tape->on->k->convert(tape->on->stream, DEVICE_BF16, tensor->x, DEVICE_F32, sent, rows * cols);
    return r < 0 ? tape_fail(tape, r) : tensor;
}

const float *tape_send(struct tape *tape, const float *numbers, int64_t count)
{
    const float *sent;

    if (!tape->on || !numbers)
        return numbers;
    sent = device_send(tape->on, numbers, (size_t)count * sizeof(float));
    return sent ? sent : tape_fail(tape, -ENOMEM);
}

const float *tape_read(struct tape *tape, const float *from, int64_t count)
{
    float *copy;
    int r;

    if (!tape->on || (!from && !tape->planning))
        return from;
    copy = tape_alloc(tape, (size_t)count * sizeof(*copy));
    if (!copy)
        return NULL;
    if (tape->planning)
        return memset(copy, 0, (size_t)count * sizeof(*copy));
    r = tape->on->k->download(tape->on->stream, copy, from, (size_t)count * sizeof(*copy));
    return r < 0 ? tape_fail(tape, r) : copy;
}

const float *tape_values(struct tape *tape, const struct tensor *x)
{
    int64_t count = x->rows * x->cols;
    uint16_t *halves;
    float *wide;
    int r;

    if (!tape->half || !tape->on)
        return tape_read(tape, x->x, count);
    halves = tape_alloc(tape, (size_t)count * sizeof(*halves));
    wide = tape_alloc(tape, (size_t)count * sizeof(*wide));
    if (!halves || !wide)
        return NULL;
    if (tape->planning)
        return memset(wide, 0, (size_t)count * sizeof(*wide));
    r = tape->on->k->download(tape->on->stream, halves, x->x, (size_t)count * sizeof(*halves));
    if (r < 0)
        return tape_fail(tape, r);
    cpu_kernels()->widen(wide, halves, count);
    return wide;
}

int tape_set_gradient(struct tape *tape, struct tensor *x, const float *g)
{
    int64_t count = x->rows * x->cols;
    const float *sent;
    bool first;
    float *to = tape_gradient_first(tape, x, &first);
    int r;

    if (!to)
        return tape->error;
    if (!tape->on) {
        memcpy(to, g, (size_t)count * sizeof(*g));
        return 0;
    }
    sent = tape_send(tape, g, count);
    if (!sent)
        return tape->error;
    r = tape->on->k->convert(tape->on->stream, tape->half ? DEVICE_BF16 : DEVICE_F32, to, DEVICE_F32, sent, count);
    if (r < 0)
        tape_fail(tape, r);
    return r;
}
