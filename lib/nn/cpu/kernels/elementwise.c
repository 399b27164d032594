/* elementwise.c - sums, residuals, activations. */
#include "nn/cpu/kernels/isa.h"
#include "nn/cpu/kernels/vmath.h"

#define FOR_VECTORS(i, n) for (int64_t i = 0; i < (n); i += V_LANES)

void ISA_NAME(add)(float *y, const float *a, const float *b, int64_t n)
{
    FOR_VECTORS(i, n)
        v_store_n(y + i, v_add(v_load_n(a + i, n - i), v_load_n(b + i, n - i)), n - i);
}

void ISA_NAME(accumulate)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n)
        v_store_n(y + i, v_add(v_load_n(y + i, n - i), v_load_n(x + i, n - i)), n - i);
}

void ISA_NAME(accumulate_scaled)(float *y, const float *x, float scale, int64_t n)
{
    v16 s = v_set1(scale);

    FOR_VECTORS(i, n)
        v_store_n(y + i, v_fma(s, v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

void ISA_NAME(scale)(float *x, float scale, int64_t n)
{
    v16 s = v_set1(scale);

    FOR_VECTORS(i, n)
        v_store_n(x + i, v_mul(s, v_load_n(x + i, n - i)), n - i);
}

void ISA_NAME(residual)(float *y, const float *residual, const float *branch, const float *scale, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, y += cols, residual += cols, branch += cols)
        FOR_VECTORS(i, cols)
            v_store_n(y + i, v_fma(v_load_n(scale + i, cols - i), v_load_n(branch + i, cols - i),
                                   v_load_n(residual + i, cols - i)),
                      cols - i);
}

void ISA_NAME(residual_backward)(float *dbranch, float *dscale, const float *dy, const float *branch, const float *scale,
                                 int64_t rows, int64_t cols)
{
    FOR_VECTORS(i, cols) {
        int64_t left = cols - i;
        v16 s = v_load_n(scale + i, left), sum = v_zero();

        for (int64_t r = 0; r < rows; r++) {
            v16 d = v_load_n(dy + r * cols + i, left);

            sum = v_fma(d, v_load_n(branch + r * cols + i, left), sum);
            v_store_n(dbranch + r * cols + i, v_fma(s, d, v_load_n(dbranch + r * cols + i, left)), left);
        }
        if (dscale)
            v_store_n(dscale + i, v_add(v_load_n(dscale + i, left), sum), left);
    }
}

void ISA_NAME(column_sum)(float *sum, const float *x, int64_t rows, int64_t cols)
{
    FOR_VECTORS(i, cols) {
        int64_t left = cols - i;
        v16 s = v_zero();

        for (int64_t r = 0; r < rows; r++)
            s = v_add(s, v_load_n(x + r * cols + i, left));
        v_store_n(sum + i, v_add(v_load_n(sum + i, left), s), left);
    }
}

/* ---- GELU: x Phi(x) -------------------------------------------------------------------------- */

INLINE v16 normal_cdf(v16 x)
{
    v16 half = v_set1(0.5f);
    return v_fma(half, v_erf(v_mul(x, v_set1(0.70710678f))), half);
}

void ISA_NAME(gelu)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n) {
        v16 a = v_load_n(x + i, n - i);
        v_store_n(y + i, v_mul(a, normal_cdf(a)), n - i);
    }
}

void ISA_NAME(gelu_backward)(float *dx, const float *dy, const float *x, int64_t n)
{
    FOR_VECTORS(i, n) {
        v16 a = v_load_n(x + i, n - i);
        v16 density = v_mul(v_set1(0.39894228f), v_exp(v_mul(v_mul(v_set1(-0.5f), a), a)));
        v16 slope = v_fma(a, density, normal_cdf(a));

        v_store_n(dx + i, v_fma(v_load_n(dy + i, n - i), slope, v_load_n(dx + i, n - i)), n - i);
    }
}

void ISA_NAME(quick_gelu)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n) {
        v16 a = v_load_n(x + i, n - i);
        v_store_n(y + i, v_mul(a, v_sigmoid(v_mul(v_set1(1.702f), a))), n - i);
    }
}

void ISA_NAME(quick_gelu_backward)(float *dx, const float *dy, const float *x, int64_t n)
{
    FOR_VECTORS(i, n) {
        int64_t left = n - i;
        v16 b = v_mul(v_set1(1.702f), v_load_n(x + i, left)), s = v_sigmoid(b);
        /* with b = 1.702 x and s = sigmoid(b): (x s)' = s (1 + b (1 - s)) */
        v16 slope = v_mul(s, v_fma(b, v_sub(v_set1(1.0f), s), v_set1(1.0f)));

        v_store_n(dx + i, v_fma(v_load_n(dy + i, left), slope, v_load_n(dx + i, left)), left);
    }
}

void ISA_NAME(relu)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n)
        v_store_n(y + i, v_max(v_zero(), v_load_n(x + i, n - i)), n - i);
}

void ISA_NAME(relu_backward)(float *dx, const float *dy, const float *x, int64_t n)
{
    FOR_VECTORS(i, n) {
        v16 d = v_select(v_less(v_zero(), v_load_n(x + i, n - i)), v_load_n(dy + i, n - i), v_zero());
        v_store_n(dx + i, v_add(v_load_n(dx + i, n - i), d), n - i);
    }
}

/* ---- SwiGLU: gate sigmoid(gate) up ------------------------------------------------------------- */

void ISA_NAME(swiglu)(float *y, const float *gate, const float *up, int64_t n)
{
    FOR_VECTORS(i, n) {
        v16 g = v_load_n(gate + i, n - i);
        v_store_n(y + i, v_mul(v_mul(g, v_sigmoid(g)), v_load_n(up + i, n - i)), n - i);
    }
}

void ISA_NAME(swiglu_backward)(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int64_t n)
{
    v16 one = v_set1(1.0f);

    FOR_VECTORS(i, n) {
        int64_t left = n - i;
        v16 g = v_load_n(gate + i, left), d = v_load_n(dy + i, left), s = v_sigmoid(g);
        /* silu' = s (1 + g (1 - s)) */
        v16 slope = v_mul(s, v_fma(g, v_sub(one, s), one));

        v_store_n(dup + i, v_fma(d, v_mul(g, s), v_load_n(dup + i, left)), left);
        v_store_n(dgate + i, v_fma(v_mul(d, v_load_n(up + i, left)), slope, v_load_n(dgate + i, left)), left);
    }
}

void ISA_NAME(exp)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n)
        v_store_n(y + i, v_exp(v_load_n(x + i, n - i)), n - i);
}

void ISA_NAME(sigmoid)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n)
        v_store_n(y + i, v_sigmoid(v_load_n(x + i, n - i)), n - i);
}

void ISA_NAME(erf)(float *y, const float *x, int64_t n)
{
    FOR_VECTORS(i, n)
        v_store_n(y + i, v_erf(v_load_n(x + i, n - i)), n - i);
}

void ISA_NAME(log)(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = scalar_log(x[i]);
}
