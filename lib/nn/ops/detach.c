/* detach.c - the same numbers, no way back. */
#include "nn/ops/op.h"

struct tensor *op_detach(struct tape *t, struct tensor *x)
{
    struct tensor *y = x ? tape_alloc(t, sizeof(*y)) : NULL;

    if (y)
        *y = (struct tensor) {.x = x->x, .rows = x->rows, .cols = x->cols};
    return y;
}
