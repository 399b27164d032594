/* attention.c - one head of one sequence, and one query row against a cache.
 *
 * What one row's numbers are, whichever function makes them: score = chain over ascending dimensions, times scale;
 * p = exp(score - maximum); sum of p in sixteen lanes (position mod 16), then the tree; output = chain over ascending
 * positions of p v, times 1/sum. Positions a row must not see enter the chains as exact zeros, which change nothing. */
#include "nn/cpu/kernels/isa.h"
#include "nn/cpu/kernels/vmath.h"

enum { STRIP = 12 };        /* query rows at a time */

/* scores (n) -> exp(scale * score - maximum) in place, zeros up to `padded`; returns 1 / sum. */
INLINE float softmax_row(float *p, int64_t n, int64_t padded, float scale)
{
    v16 s = v_set1(scale), top = v_set1(-INFINITY), sum = v_zero();
    int64_t whole = n / V_LANES * V_LANES;
    float maximum;

    for (int64_t i = 0; i < whole; i += V_LANES) {
        v16 z = v_mul(s, v_load(p + i));
        v_store(p + i, z);
        top = v_max(top, z);
    }
    maximum = v_max_lane(top);
    for (int64_t i = whole; i < n; i++) {
        p[i] = scale * p[i];
        maximum = maximum > p[i] ? maximum : p[i];
    }
    top = v_set1(maximum);
    for (int64_t i = 0; i < n; i += V_LANES) {
        v16 e = v_exp(v_sub(v_load(p + i), top));
        if (n - i < V_LANES) {
            v_store(p + i, e);
            e = v_load_part(p + i, (int)(n - i));
        }
        v_store(p + i, e);
        sum = v_add(sum, e);
    }
    for (int64_t i = (n + V_LANES - 1) / V_LANES * V_LANES; i < padded; i += V_LANES)
        v_store(p + i, v_zero());
    return 1.0f / v_sum(sum);
}

/* x * factor; adding 0 makes one zero of the two. */
INLINE void finish_row(float *x, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i += V_LANES)
        v_store_n(x + i, v_add(v_mul(v_load_n(x + i, n - i), v_set1(factor)), v_zero()), n - i);
}

void ISA_NAME(attention)(const struct attention *a)
{
    int64_t padded = gemm_padded(a->rows), wide = gemm_padded(a->dim), asking = a->rows - a->first;
    float *keys = a->scratch, *values = keys + padded * wide;

    ISA_NAME(gemm_pack)(keys, a->k, a->stride, a->dim, a->rows, true);
    ISA_NAME(gemm_pack)(values, a->v, a->stride, a->rows, a->dim, false);
    for (int64_t i0 = 0; i0 < asking; i0 += STRIP) {
        int64_t m = asking - i0 < STRIP ? asking - i0 : STRIP;
        int64_t seen = a->causal ? a->first + i0 + m : a->rows;     /* by the last row of the strip */
        float *p = a->p + i0 * padded;

        ISA_NAME(gemm)(&(struct gemm) {
            .m = m, .n = seen, .k = a->dim, .a = a->q + i0 * a->q_stride, .a_row = a->q_stride, .a_k = 1, .panels = keys,
            .c = p, .c_row = padded,
        });
        for (int64_t i = i0; i < i0 + m; i++)
            a->inverse[i] = softmax_row(a->p + i * padded, a->causal ? a->first + i + 1 : a->rows, padded, a->scale);
        ISA_NAME(gemm)(&(struct gemm) {
            .m = m, .n = a->dim, .k = seen, .a = p, .a_row = padded, .a_k = 1, .panels = values,
            .panel_stride = a->rows * GEMM_PANEL,
            .c = a->out + i0 * a->out_stride, .c_row = a->out_stride, .scratch = values + padded * wide,
        });
        for (int64_t i = i0; i < i0 + m; i++)
            finish_row(a->out + i * a->out_stride, a->dim, a->inverse[i]);
    }
}

/* Scores of sixteen positions times `blocks` from j on: as many chains side by side. */
INLINE void decode_scores(const struct attention_decode *a, const float *q, const float *k, int64_t j, const int blocks, float *p)
{
    v16 s[8];

#pragma GCC unroll 8
    for (int b = 0; b < blocks; b++)
        s[b] = v_zero();
    for (int64_t d = 0; d < a->dim; d++) {
        v16 at = v_set1(q[d]);

#pragma GCC unroll 8
        for (int b = 0; b < blocks; b++)
            s[b] = v_fma(at, v_load_n(k + d * a->k_stride + j + b * V_LANES, a->n - j - b * V_LANES), s[b]);
    }
#pragma GCC unroll 8
    for (int b = 0; b < blocks; b++)
        v_store(p + j + b * V_LANES, s[b]);
}

/* Columns c.. of the output, `vectors` times sixteen: chains over the positions, side by side over the heads. */
INLINE void decode_values(const struct attention_decode *a, int64_t c, const int vectors, const float *p, int64_t p_head)
{
    const float *weight[8];
    v16 s[8];

#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++) {
        weight[i] = p + (c + i * V_LANES) / a->dim * p_head;
        s[i] = v_zero();
    }
    for (int64_t j = 0; j < a->n; j++)
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++)
            s[i] = v_fma(v_set1(weight[i][j]), v_load(a->v + j * a->v_stride + c + i * V_LANES), s[i]);
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++)
        v_store(a->out + c + i * V_LANES, s[i]);
}

/* a head whose width is no multiple of sixteen */
INLINE void decode_values_odd(const struct attention_decode *a, int64_t h, const float *p)
{
    for (int64_t d = 0; d < a->dim; d += V_LANES) {
        v16 s = v_zero();

        for (int64_t j = 0; j < a->n; j++)
            s = v_fma(v_set1(p[j]), v_load_n(a->v + j * a->v_stride + h * a->dim + d, a->dim - d), s);
        v_store_n(a->out + h * a->dim + d, s, a->dim - d);
    }
}

void ISA_NAME(attention_decode)(const struct attention_decode *a)
{
    int64_t padded = (a->n + V_LANES - 1) / V_LANES * V_LANES, width = a->heads * a->dim;
    float *inverse = a->scratch + a->heads * padded;

    for (int64_t h = 0; h < a->heads; h++) {
        const float *q = a->q + h * a->dim, *k = a->k + h * a->dim * a->k_stride;
        float *p = a->scratch + h * padded;
        int64_t j = 0;

        for (; j + 8 * V_LANES <= padded; j += 8 * V_LANES)
            decode_scores(a, q, k, j, 8, p);
        for (; j + 4 * V_LANES <= padded; j += 4 * V_LANES)
            decode_scores(a, q, k, j, 4, p);
        for (; j < padded; j += V_LANES)
            decode_scores(a, q, k, j, 1, p);
        inverse[h] = softmax_row(p, a->n, padded, a->scale);
        if (a->dim % V_LANES)
            decode_values_odd(a, h, p);
    }
    if (a->dim % V_LANES == 0) {
        int64_t c = 0;

        for (; c + 8 * V_LANES <= width; c += 8 * V_LANES)
            decode_values(a, c, 8, a->scratch, padded);
        for (; c + 4 * V_LANES <= width; c += 4 * V_LANES)
            decode_values(a, c, 4, a->scratch, padded);
        for (; c < width; c += V_LANES)
            decode_values(a, c, 1, a->scratch, padded);
    }
    for (int64_t h = 0; h < a->heads; h++)
        finish_row(a->out + h * a->dim, a->dim, inverse[h]);
}

INLINE float dot_row(const float *a, const float *b, int64_t n)
{
    v16 s = v_zero();

    for (int64_t i = 0; i < n; i += V_LANES)
        s = v_fma(v_load_n(a + i, n - i), v_load_n(b + i, n - i), s);
    return v_sum(s);
}

/* dS = scale P (dP - <dO, O>) of one row, P = p * inverse; zeros beyond what its strip sees. */
INLINE void score_gradient(float *ds, const float *p, float delta, float factor, int64_t seen, int64_t padded)
{
    v16 d = v_set1(delta), f = v_set1(factor);

    for (int64_t j = 0; j < seen; j += V_LANES)
        v_store_n(ds + j, v_mul(v_mul(v_load(p + j), f), v_sub(v_load_n(ds + j, seen - j), d)), seen - j);
    for (int64_t j = seen; j < padded; j++)
        ds[j] = 0.0f;
}

/* dV = P^T dO; dP = dO V^T; dQ = dS K; dK = dS^T Q. */
void ISA_NAME(attention_backward)(const struct attention *a)
{
    int64_t rows = a->rows, asking = rows - a->first, dim = a->dim, padded = gemm_padded(rows), wide = gemm_padded(dim);
    float *values = a->scratch, *keys = values + padded * wide, *queries = keys + padded * wide;
    float *douts = queries + padded * wide, *ds = douts + padded * wide, *unfinished = ds + rows * padded;

    ISA_NAME(gemm_pack)(values, a->v, a->stride, dim, rows, true);
    ISA_NAME(gemm_pack)(keys, a->k, a->stride, rows, dim, false);
    ISA_NAME(gemm_pack)(queries, a->q, a->q_stride, asking, dim, false);
    ISA_NAME(gemm_pack)(douts, a->dout, a->out_stride, asking, dim, false);
    for (int64_t panel = 0; panel < wide / GEMM_PANEL; panel++)
        for (int64_t i = 0; i < asking; i++)        /* dO / sum: then p need not be divided */
            finish_row(douts + (panel * asking + i) * GEMM_PANEL, GEMM_PANEL, a->inverse[i]);

    for (int64_t i0 = 0; i0 < asking; i0 += STRIP) {
        int64_t m = asking - i0 < STRIP ? asking - i0 : STRIP;
        int64_t seen = a->causal ? a->first + i0 + m : rows;
        float *strip = ds + i0 * padded;

        ISA_NAME(gemm)(&(struct gemm) {
            .m = m, .n = seen, .k = dim, .a = a->dout + i0 * a->out_stride, .a_row = a->out_stride, .a_k = 1, .panels = values,
            .c = strip, .c_row = padded,
        });
        for (int64_t i = i0; i < i0 + m; i++)
            score_gradient(ds + i * padded, a->p + i * padded,
                           dot_row(a->dout + i * a->out_stride, a->out + i * a->out_stride, dim),
                           a->inverse[i] * a->scale, seen, padded);
        ISA_NAME(gemm)(&(struct gemm) {
            .m = m, .n = dim, .k = seen, .a = strip, .a_row = padded, .a_k = 1, .panels = keys, .panel_stride = rows * GEMM_PANEL,
            .c = a->dq + i0 * a->q_stride, .c_row = a->q_stride, .add = true, .scratch = unfinished,
        });
    }
    for (int64_t j0 = 0; j0 < rows; j0 += STRIP) {
        int64_t m = rows - j0 < STRIP ? rows - j0 : STRIP;
        int64_t from = a->causal && j0 > a->first ? j0 - a->first : 0;      /* the first query that sees any of these positions */

        ISA_NAME(gemm)(&(struct gemm) {
            .m = m, .n = dim, .k = asking - from, .a = a->p + from * padded + j0, .a_row = 1, .a_k = padded,
            .panels = douts + from * GEMM_PANEL, .panel_stride = asking * GEMM_PANEL,
            .c = a->dv + j0 * a->stride, .c_row = a->stride, .add = true, .scratch = unfinished,
        });
        ISA_NAME(gemm)(&(struct gemm) {
            .m = m, .n = dim, .k = asking - from, .a = ds + from * padded + j0, .a_row = 1, .a_k = padded,
            .panels = queries + from * GEMM_PANEL, .panel_stride = asking * GEMM_PANEL,
            .c = a->dk + j0 * a->stride, .c_row = a->stride, .add = true, .scratch = unfinished,
        });
    }
}
