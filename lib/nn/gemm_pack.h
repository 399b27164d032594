/* gemm_pack.h - a matrix B (k,n) laid out for the GEMM: panels of 32 columns (nn/cpu/kernels.h). */
#pragma once

#include <stdbool.h>

#include "base/macro.h"

struct gemm_pack {
    int64_t k, n;
    float *panels;              /* [ceil(n/32)][k][32], zero beyond n */
};

struct gemm_pack *gemm_pack_new(int64_t k, int64_t n);         /* NULL: out of memory */
struct gemm_pack *gemm_pack_free(struct gemm_pack *pack);
/* From a dense (k,n), or (n,k) when transposed. */
void gemm_pack_fill(struct gemm_pack *pack, const float *source, bool transposed);
