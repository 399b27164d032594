/* blas_plan.h - what cuBLASLt is told of a product, in plain numbers: no library and no device is needed for it (blas.c has
 * both).
 *
 * Its matrices are column by column: a row-major C = A B is its C^T = B^T A^T, so its A is our B and the other way round. A
 * row-major matrix of (rows, cols) with rows `ld` elements apart is its (cols, rows) with columns `ld` apart. The bias, one
 * number a column of our C, is one a row of its C. GELU is no epilogue here: the library's is the approximation by tanh, the
 * models' is by erf. Thread rule: none. */
#pragma once

#include "nn/device/kernels.h"

/* Bytes that addresses count for: no more than all of them have, so that numbers do not depend on where activations happen to
 * lie. */
enum { BLAS_ALIGNMENT = 16, BLAS_STRICT_ROWS = 512 };

/* All that a plan depends on; no padding, so that it can be compared as bytes. */
struct blas_key {
    int64_t m, n, k, a_row, b_row, c_row, batch, a_apart, b_apart, c_apart;
    uint32_t a_align, b_align, c_align, flags;
};

struct blas_matrix { uint64_t rows, cols; int64_t ld, apart; enum device_type type; uint32_t align; };
struct blas_call {              /* the library's c = op(a) op(b) + beta c + bias */
    struct blas_matrix a, b, c;
    int32_t batch;              /* at least 1 */
    bool a_transposed, b_transposed, bias;
};

/* Is it for the library? Not with operands of two types, nor when a bf16 bias is wanted that is not there, nor a batch with a
 * bias; and strict fp32 is the own kernel's, whose bits are the CPU's. */
bool blas_takes(const struct device_gemm *g, bool strict);
struct blas_key blas_key_of(const struct device_gemm *g, bool strict);
uint64_t blas_key_hash(const struct blas_key *key);
struct blas_call blas_call_of(const struct device_gemm *g);
/* Strict numerics: the product whose algorithm this one gets, the same for any number of rows: a row's numbers then do not depend
 * on its batch. A gradient of a weight (A transposed) sums over the rows, and is its own. */
struct device_gemm blas_typical(const struct device_gemm *g);
