/* blas.c - placeholder until the next commit: no library. */
#include <errno.h>

#include "nn/device/blas.h"

struct blas *blas_open(void) { return NULL; }
void blas_close(_unused_ struct blas *blas) {}
int blas_gemm(_unused_ struct device_stream *s, _unused_ const struct device_gemm *g) { return -ENOTSUP; }
