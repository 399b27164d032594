/* none.c - a build with GPU=0: there is no device. */
#include <errno.h>

#include "nn/device/blas.h"

const struct device_kernels *cuda_kernels(void) { return NULL; }
struct blas *blas_open(void) { return NULL; }
void blas_close(_unused_ struct blas *blas) {}
int blas_gemm(_unused_ struct device_stream *s, _unused_ const struct device_gemm *g) { return -ENOTSUP; }
