/* none_libraries.c - a build with GPU=0: there is no cuBLASLt and no cuDNN. */
#include <errno.h>

#include "nn/device/blas.h"
#include "nn/device/dnn.h"

struct blas *blas_open(void) { return NULL; }
void blas_close(_unused_ struct blas *blas) {}
int blas_gemm(_unused_ struct device_stream *s, _unused_ const struct device_gemm *g) { return -ENOTSUP; }
size_t blas_version(_unused_ const struct blas *blas) { return 0; }
const char *blas_refusal(_unused_ const struct blas *blas) { return ""; }
struct dnn *dnn_open(_unused_ char *why, _unused_ size_t n) { return NULL; }
struct dnn *dnn_wrap(_unused_ const struct dnn_calls *calls) { return NULL; }
void dnn_close(_unused_ struct dnn *dnn) {}
int dnn_attention(_unused_ struct device_stream *s, _unused_ enum device_type type, _unused_ const struct device_attention *a,
                  _unused_ bool backward)
{
    return -ENOTSUP;
}
size_t dnn_version(_unused_ const struct dnn *dnn) { return 0; }
const char *dnn_refusal(_unused_ const struct dnn *dnn) { return ""; }
