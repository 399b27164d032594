/* numbers.h - arrays of floats for tests of kernels and passes, and how far two of them are apart. Failures end the test. */
#pragma once

#include <stdint.h>

/* n numbers, normally distributed, others for each `which`; some behind them may be read. Caller frees. */
float *numbers_normal(int64_t n, uint32_t which);
/* 2-norm of a - b beside that of b. b nothing but zeros: 0 when a is, too, else infinite. */
double numbers_distance(const float *a, const float *b, int64_t n);
