/* detach.c - the same numbers, no way back. */
#include "nn/ops/op.h"

struct tensor *op_detach(struct tape *t, struct tensor *x)
{
    return x ? tape_input(t, x->x, x->rows, x->cols) : NULL;
}
