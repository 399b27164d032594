/* table.cu - the whole table, made once. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

static struct device_kernels make()
{
    struct device_kernels k = {};

    NAME(fill_machine)(&k);
    NAME(fill_elementwise)(&k);
    NAME(fill_norm)(&k);
    NAME(fill_rows)(&k);
    NAME(fill_rope)(&k);
    NAME(fill_gemm)(&k);
    NAME(fill_narrow)(&k);
    NAME(fill_attention)(&k);
    NAME(fill_softmax)(&k);
    NAME(fill_optim)(&k);
    return k;
}

extern "C" const struct device_kernels *NAME(kernels)(void)
{
    static const struct device_kernels kernels = make();

    return &kernels;
}
