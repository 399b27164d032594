/* linear.h - what ops/linear.c and ops/linears.c share: one product y = x W^T (+ b), or y += it. */
#pragma once

#include "nn/ops/op.h"

struct linear {
    struct tensor *x, *y;
    const struct param *weight, *bias;
    int64_t first;              /* first row of W taking part */
    int64_t column, in;         /* forwards only: in > 0: x's columns column .. column + in - 1 are what is multiplied */
    float times, back_times;    /* on a device: y is so many times the product, and dx so many times its own */
};

/* Floats of scratch of a product on this CPU by rows first .. first + count - 1 of W. */
int64_t linear_scratch(const struct param *weight, int64_t rows, int64_t in, int64_t first, int64_t count);
/* y = x W^T (+ b) of the rows of W that c names; y += when `add`. On this CPU, the weight packed. */
void linear_product(const struct linear *c, bool add, float *scratch);
/* The same for a device; the second puts it on the tape's stream, or fails the tape where an operand is missing. */
struct device_gemm linear_gemm(const struct tape *t, const struct linear *c, bool add);
void linear_gemm_on(struct tape *t, struct device_gemm g);
/* A new y = x W^T (+ b), recorded; on a device, and only there, times `times`. NULL: failed. */
struct tensor *linear_times(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, float times);
/* On a device, in bf16, the adapter's part is written first and the product with W added to it: who adds reads what is there, and
 * the large product, which is bound by computing, does that for nothing. In fp32 it is the other way round, as on the CPU, for
 * the same bits. */
bool linear_comes_later(const struct tape *t, const struct param *weight);
/* y += scale (x A^T) B^T with B's rows from `first` on, when W has an adapter; recorded. y, or NULL. */
struct tensor *linear_adapt(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, struct tensor *y);
