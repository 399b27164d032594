#include "tests/harness/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/philox.h"

float *numbers_normal(int64_t n, uint32_t which)
{
    struct philox p = philox_at(7, PHILOX_TEST, which, 0, 0);
    float *x = calloc((size_t)n + 64, sizeof *x);

    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)philox_normal(&p);
    return x;
}

double numbers_distance(const float *a, const float *b, int64_t n)
{
    double sum = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];

        sum += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(sum / norm) : sum > 0 ? INFINITY : sum;
}
