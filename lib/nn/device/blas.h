/* blas.h - cuBLASLt behind device_gemm: opened with dlopen, one handle per device, an algorithm per shape, kept. */
#pragma once

#include "nn/device/device.h"

struct blas *blas_open(void);                   /* NULL: the library is not there */
void blas_close(struct blas *blas);             /* NULL is fine */
/* -ENOTSUP: no algorithm takes it; nothing was put on the stream. */
int blas_gemm(struct device_stream *s, const struct device_gemm *g);
size_t blas_version(const struct blas *blas);   /* 130100: 13.1.0 */
/* The first refusal's words, with the product; "" without one. */
const char *blas_refusal(const struct blas *blas);
