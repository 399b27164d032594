/* vmath.h - exp, erf and the logistic function on sixteen lanes, log of one number.
 *
 * Own polynomials (interpolated at Chebyshev nodes), explicit FMA: the same bits on every instruction set and beside
 * every libm. Accuracy is held by tests/nn/test_isa.c: exp, log, erf within 2 ulp, the logistic within 4.
 * NaN goes through. */
#pragma once

#include "nn/cpu/kernels/simd.h"

/* 0 below -87.336 (no denormals), inf above 88.376. */
INLINE v16 v_exp(v16 x)
{
    v16 n = v_round(v_mul(v_max(v_set1(-87.34f), v_min(v_set1(88.38f), x)), v_set1(1.44269504f)));
    /* n ln 2 in two parts: the first has few bits, so n times it is exact */
    v16 r = v_fnma(n, v_set1(0.693359375f), x);
    r = v_fnma(n, v_set1(-2.12194440e-4f), r);

    v16 p = v_set1(0.00139262508f);
    p = v_fma(p, r, v_set1(0.00836323288f));
    p = v_fma(p, r, v_set1(0.0416665542f));
    p = v_fma(p, r, v_set1(0.166665766f));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(v_mul(r, r), p, r);
    p = v_add(p, v_set1(1.0f));
    p = v_mul(p, v_exp2_int(n));
    p = v_select(v_less(x, v_set1(-87.336f)), v_zero(), p);
    return v_select(v_less(v_set1(88.376f), x), v_set1(INFINITY), p);
}

INLINE v16 v_sigmoid(v16 x)
{
    v16 one = v_set1(1.0f);
    return v_div(one, v_add(one, v_exp(v_sub(v_zero(), x))));
}

/* Near 0: x + x P(x^2). From 0.9 on: 1 - exp(-t Q(t)), where erfc's logarithm is smooth; beyond 4 it is 1. */
INLINE v16 v_erf(v16 x)
{
    v16 t = v_min(v_set1(4.0f), v_abs(x)), s = v_mul(x, x);

    v16 p = v_set1(8.52940132e-5f);
    p = v_fma(p, s, v_set1(-8.17963218e-4f));
    p = v_fma(p, s, v_set1(0.00520422669f));
    p = v_fma(p, s, v_set1(-0.0268606648f));
    p = v_fma(p, s, v_set1(0.112837180f));
    p = v_fma(p, s, v_set1(-0.376126352f));
    p = v_fma(p, s, v_set1(0.128379167f));
    p = v_fma(p, x, x);

    v16 q = v_set1(1.65886845e-5f);
    q = v_fma(q, t, v_set1(-3.73447802e-4f));
    q = v_fma(q, t, v_set1(0.00383162444f));
    q = v_fma(q, t, v_set1(-0.0241165435f));
    q = v_fma(q, t, v_set1(0.106584698f));
    q = v_fma(q, t, v_set1(0.634984462f));
    q = v_fma(q, t, v_set1(1.12867821f));
    q = v_sub(v_set1(1.0f), v_exp(v_sub(v_zero(), v_mul(t, q))));
    return v_select(v_less(t, v_set1(0.9f)), p, v_copysign(q, x));
}

/* x > 0 and normal (sums of exponentials are at least 1). */
INLINE float scalar_log(float x)
{
    uint32_t bits;
    float f, p, n;

    memcpy(&bits, &x, sizeof(bits));
    if (bits >= 0x7f800000u)            /* inf, NaN and what is negative */
        return x;
    /* mantissa in [sqrt(1/2), sqrt(2)) */
    uint32_t shifted = bits - 0x3f3504f3u;
    n = (float)((int32_t)shifted >> 23);
    bits -= shifted & 0xff800000u;
    memcpy(&f, &bits, sizeof(f));
    f -= 1.0f;
    p = -0.0790274377f;
    p = fmaf(p, f, 0.126223198f);
    p = fmaf(p, f, -0.129981838f);
    p = fmaf(p, f, 0.142144959f);
    p = fmaf(p, f, -0.166412815f);
    p = fmaf(p, f, 0.200010451f);
    p = fmaf(p, f, -0.250003064f);
    p = fmaf(p, f, 0.333333307f);
    p = fmaf(p * f, f * f, fmaf(n, -2.12194440e-4f, -0.5f * f * f));
    return fmaf(n, 0.693359375f, f + p);
}
