/* op.h - what the files of this folder share. */
#pragma once

#include <errno.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/ops.h"

/* The gradient of a parameter in this pass, or NULL when nobody wants it. */
static inline float *param_gradient(const struct tape *tape, const struct param *param)
{
    return param && !param->frozen && tape->param_grad ? tape->param_grad + param->offset : NULL;
}

static inline void *op_fail(struct tape *tape, int error)
{
    if (!tape->error)
        tape->error = error;
    return NULL;
}

static inline size_t tensor_bytes(const struct tensor *t)
{
    return (size_t)(t->rows * t->cols) * sizeof(float);
}
