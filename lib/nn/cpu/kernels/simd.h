/* simd.h - sixteen floats at once, with the same bits on every instruction set.
 *
 * A v16 is one zmm, two ymm, four of NEON's or sixteen scalars. Everything built on it (reductions, polynomials, tails) works on
 * sixteen lanes and fixed trees, so that AVX-512, AVX2, NEON and plain C agree to the bit. FMA is always asked for by name.
 * v_max(a,b) is a > b ? a : b: put the variable second to let NaN through. Tails: v_load_part reads n < 16 floats and
 * fills with zeros; v_store_part writes n. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define ISA_PASTE_(a, b) a##_##b
#define ISA_PASTE(a, b) ISA_PASTE_(a, b)
#define ISA_NAME(name) ISA_PASTE(name, ISA)
#define INLINE static inline __attribute__((always_inline))
#define V_LANES 16

#if defined(ISA_avx512)
#include <immintrin.h>

typedef __m512 v16;
typedef __mmask16 vmask;

INLINE v16 v_zero(void) { return _mm512_setzero_ps(); }
INLINE v16 v_set1(float x) { return _mm512_set1_ps(x); }
INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
INLINE v16 v_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE v16 v_load_part(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void v_store_part(float *p, v16 a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE v16 v_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); }     /* c - a*b */
INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
INLINE v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v_abs(v16 a) { return _mm512_abs_ps(a); }
INLINE v16 v_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
INLINE v16 v_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vmask v_less(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE v16 v_select(vmask m, v16 a, v16 b) { return _mm512_mask_blend_ps(m, b, a); }     /* m ? a : b */
INLINE v16 v_copysign(v16 a, v16 sign)
{
    __m512 mask = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(mask, a), _mm512_and_ps(mask, sign));
}
/* 2^n for a whole-numbered n in -126..127. */
INLINE v16 v_exp2_int(v16 n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
INLINE float v_sum(v16 a)       /* ((8+8)+4)+2)+1, the same tree everywhere */
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    q = _mm_add_ss(q, _mm_shuffle_ps(q, q, 1));
    return _mm_cvtss_f32(q);
}
INLINE float v_max_lane(v16 a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    q = _mm_max_ss(q, _mm_shuffle_ps(q, q, 1));
    return _mm_cvtss_f32(q);
}

#elif defined(ISA_avx2)
#include <immintrin.h>

typedef struct { __m256 lo, hi; } v16;
typedef struct { __m256 lo, hi; } vmask;

INLINE v16 v_zero(void) { return (v16) {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE v16 v_set1(float x) { return (v16) {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE v16 v_load(const float *p) { return (v16) {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void v_store(float *p, v16 a) { _mm256_storeu_ps(p, a.lo); _mm256_storeu_ps(p + 8, a.hi); }
INLINE __m256 v_widen_half(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE v16 v_load_bf16(const uint16_t *p) { return (v16) {v_widen_half(p), v_widen_half(p + 8)}; }
INLINE __m256i v_part_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE v16 v_load_part(const float *p, int n)
{
    return (v16) {_mm256_maskload_ps(p, v_part_mask(n)),
                  n > 8 ? _mm256_maskload_ps(p + 8, v_part_mask(n - 8)) : _mm256_setzero_ps()};
}
INLINE void v_store_part(float *p, v16 a, int n)
{
    _mm256_maskstore_ps(p, v_part_mask(n), a.lo);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, v_part_mask(n - 8), a.hi);
}
INLINE v16 v_add(v16 a, v16 b) { return (v16) {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
INLINE v16 v_sub(v16 a, v16 b) { return (v16) {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
INLINE v16 v_mul(v16 a, v16 b) { return (v16) {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
INLINE v16 v_div(v16 a, v16 b) { return (v16) {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { return (v16) {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
INLINE v16 v_fnma(v16 a, v16 b, v16 c) { return (v16) {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)}; }
INLINE v16 v_max(v16 a, v16 b) { return (v16) {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
INLINE v16 v_min(v16 a, v16 b) { return (v16) {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
INLINE v16 v_abs(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16) {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
INLINE v16 v_sqrt(v16 a) { return (v16) {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
INLINE v16 v_round(v16 a)
{
    return (v16) {_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                  _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
INLINE vmask v_less(v16 a, v16 b) { return (vmask) {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
                                    }
INLINE v16 v_select(vmask m, v16 a, v16 b) { return (v16) {_mm256_blendv_ps(b.lo, a.lo, m.lo),
                                                           _mm256_blendv_ps(b.hi, a.hi, m.hi)}; }
INLINE v16 v_copysign(v16 a, v16 sign)
{
    __m256 mask = _mm256_set1_ps(-0.0f);
    return (v16) {_mm256_or_ps(_mm256_andnot_ps(mask, a.lo), _mm256_and_ps(mask, sign.lo)),
                  _mm256_or_ps(_mm256_andnot_ps(mask, a.hi), _mm256_and_ps(mask, sign.hi))};
}
INLINE __m256 v_exp2_half(__m256 n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE v16 v_exp2_int(v16 n) { return (v16) {v_exp2_half(n.lo), v_exp2_half(n.hi)}; }
INLINE float v_sum(v16 a)
{
    __m256 h = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    q = _mm_add_ss(q, _mm_shuffle_ps(q, q, 1));
    return _mm_cvtss_f32(q);
}
INLINE float v_max_lane(v16 a)
{
    __m256 h = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    q = _mm_max_ss(q, _mm_shuffle_ps(q, q, 1));
    return _mm_cvtss_f32(q);
}

#elif defined(ISA_neon)
#include <arm_neon.h>

typedef struct { float32x4_t q[4]; } v16;
typedef struct { uint32x4_t q[4]; } vmask;
#define V_QUADS(type, expression) \
    type r; \
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) \
        r.q[i] = (expression); \
    return r

INLINE v16 v_zero(void) { V_QUADS(v16, vdupq_n_f32(0.0f)); }
INLINE v16 v_set1(float x) { V_QUADS(v16, vdupq_n_f32(x)); }
INLINE v16 v_load(const float *p) { V_QUADS(v16, vld1q_f32(p + 4 * i)); }
INLINE void v_store(float *p, v16 a)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, a.q[i]);
}
INLINE v16 v_load_bf16(const uint16_t *p) { V_QUADS(v16, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))); }
INLINE v16 v_load_part(const float *p, int n)
{
    float part[V_LANES] = {0};

    memcpy(part, p, (size_t)n * sizeof(*p));
    return v_load(part);
}
INLINE void v_store_part(float *p, v16 a, int n)
{
    float part[V_LANES];

    v_store(part, a);
    memcpy(p, part, (size_t)n * sizeof(*p));
}
INLINE v16 v_add(v16 a, v16 b) { V_QUADS(v16, vaddq_f32(a.q[i], b.q[i])); }
INLINE v16 v_sub(v16 a, v16 b) { V_QUADS(v16, vsubq_f32(a.q[i], b.q[i])); }
INLINE v16 v_mul(v16 a, v16 b) { V_QUADS(v16, vmulq_f32(a.q[i], b.q[i])); }
INLINE v16 v_div(v16 a, v16 b) { V_QUADS(v16, vdivq_f32(a.q[i], b.q[i])); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { V_QUADS(v16, vfmaq_f32(c.q[i], a.q[i], b.q[i])); }
INLINE v16 v_fnma(v16 a, v16 b, v16 c) { V_QUADS(v16, vfmsq_f32(c.q[i], a.q[i], b.q[i])); }
/* not vmaxq and vminq: these take NaN from either side */
INLINE v16 v_max(v16 a, v16 b) { V_QUADS(v16, vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
INLINE v16 v_min(v16 a, v16 b) { V_QUADS(v16, vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
INLINE v16 v_abs(v16 a) { V_QUADS(v16, vabsq_f32(a.q[i])); }
INLINE v16 v_sqrt(v16 a) { V_QUADS(v16, vsqrtq_f32(a.q[i])); }
INLINE v16 v_round(v16 a) { V_QUADS(v16, vrndnq_f32(a.q[i])); }
INLINE vmask v_less(v16 a, v16 b) { V_QUADS(vmask, vcltq_f32(a.q[i], b.q[i])); }
INLINE v16 v_select(vmask m, v16 a, v16 b) { V_QUADS(v16, vbslq_f32(m.q[i], a.q[i], b.q[i])); }
INLINE v16 v_copysign(v16 a, v16 sign) { V_QUADS(v16, vbslq_f32(vdupq_n_u32(1u << 31), sign.q[i], a.q[i])); }
INLINE v16 v_exp2_int(v16 n)
{
    V_QUADS(v16, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.q[i]), vdupq_n_s32(127)), 23)));
}
INLINE float v_sum(v16 a)
{
    float32x4_t q = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
    float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));

    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
INLINE float v_max_lane(v16 a)
{
    float lanes[V_LANES];

    v_store(lanes, a);
    for (int half = V_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

#else

typedef struct { float f[16]; } v16;
typedef struct { int f[16]; } vmask;
#define V_EACH(expression) \
    v16 r; \
    for (int i = 0; i < V_LANES; i++) \
        r.f[i] = (expression); \
    return r

INLINE v16 v_zero(void) { V_EACH(0.0f); }
INLINE v16 v_set1(float x) { V_EACH(x); }
INLINE v16 v_load(const float *p) { V_EACH(p[i]); }
INLINE void v_store(float *p, v16 a) { memcpy(p, a.f, sizeof(a.f)); }
INLINE float v_widen_one(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}
INLINE v16 v_load_bf16(const uint16_t *p) { V_EACH(v_widen_one(p[i])); }
INLINE v16 v_load_part(const float *p, int n) { V_EACH(i < n ? p[i] : 0.0f); }
INLINE void v_store_part(float *p, v16 a, int n) { memcpy(p, a.f, (size_t)n * sizeof(float)); }
INLINE v16 v_add(v16 a, v16 b) { V_EACH(a.f[i] + b.f[i]); }
INLINE v16 v_sub(v16 a, v16 b) { V_EACH(a.f[i] - b.f[i]); }
INLINE v16 v_mul(v16 a, v16 b) { V_EACH(a.f[i] * b.f[i]); }
INLINE v16 v_div(v16 a, v16 b) { V_EACH(a.f[i] / b.f[i]); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { V_EACH(fmaf(a.f[i], b.f[i], c.f[i])); }
INLINE v16 v_fnma(v16 a, v16 b, v16 c) { V_EACH(fmaf(-a.f[i], b.f[i], c.f[i])); }
INLINE v16 v_max(v16 a, v16 b) { V_EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }
INLINE v16 v_min(v16 a, v16 b) { V_EACH(a.f[i] < b.f[i] ? a.f[i] : b.f[i]); }
INLINE v16 v_abs(v16 a) { V_EACH(fabsf(a.f[i])); }
INLINE v16 v_sqrt(v16 a) { V_EACH(sqrtf(a.f[i])); }
INLINE v16 v_round(v16 a) { V_EACH(rintf(a.f[i])); }
INLINE vmask v_less(v16 a, v16 b)
{
    vmask m;
    for (int i = 0; i < V_LANES; i++)
        m.f[i] = a.f[i] < b.f[i];
    return m;
}
INLINE v16 v_select(vmask m, v16 a, v16 b) { V_EACH(m.f[i] ? a.f[i] : b.f[i]); }
INLINE v16 v_copysign(v16 a, v16 sign) { V_EACH(copysignf(a.f[i], sign.f[i])); }
INLINE float v_exp2_lane(float n)
{
    uint32_t bits = (uint32_t)((int32_t)(n == n ? n : 0.0f) + 127) << 23;
    float r;
    memcpy(&r, &bits, sizeof(r));
    return r;
}
INLINE v16 v_exp2_int(v16 n) { V_EACH(v_exp2_lane(n.f[i])); }
INLINE float v_sum(v16 a)
{
    for (int half = V_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            a.f[i] = a.f[i] + a.f[i + half];
    return a.f[0];
}
INLINE float v_max_lane(v16 a)
{
    for (int half = V_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            a.f[i] = a.f[i] > a.f[i + half] ? a.f[i] : a.f[i + half];
    return a.f[0];
}
#endif

INLINE v16 v_load_bf16_n(const uint16_t *p, int64_t left)
{
    uint16_t part[V_LANES] = {0};

    if (left >= V_LANES)
        return v_load_bf16(p);
    memcpy(part, p, (size_t)left * sizeof(*p));
    return v_load_bf16(part);
}

/* `left` floats remain: all sixteen lanes or the tail. */
INLINE v16 v_load_n(const float *p, int64_t left) { return left >= V_LANES ? v_load(p) : v_load_part(p, (int)left); }
INLINE void v_store_n(float *p, v16 a, int64_t left)
{
    if (left >= V_LANES)
        v_store(p, a);
    else
        v_store_part(p, a, (int)left);
}
