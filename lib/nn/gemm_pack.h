/* gemm_pack.h - a matrix B (k,n) laid out for the GEMM: panels of 32 columns (nn/cpu/kernels.h), in fp32 or rounded to pairs of
 * bf16. */
#pragma once

#include <stdbool.h>

#include "base/macro.h"

struct gemm_pack {
    int64_t k, n;
    float *panels;              /* [ceil(n/32)][k][32], zero beyond n; NULL: fast */
    uint32_t *pairs;            /* fast: [ceil(n/32)][ceil(k/2)][32], half the memory */
};

/* NULL: out of memory. fast: only where cpu_kernels()->gemm_bf16 is. */
struct gemm_pack *gemm_pack_new(int64_t k, int64_t n, bool fast);
struct gemm_pack *gemm_pack_free(struct gemm_pack *pack);
/* From a dense (k,n), or (n,k) when transposed. */
void gemm_pack_fill(struct gemm_pack *pack, const float *source, bool transposed);
