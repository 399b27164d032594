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
            .m = m, .n = a->dim, .k = seen, .a = p, .a_row = padded, .a_k = 1, .panels = values, .panel_stride = a->rows * GEMM_PANEL,
            .c = a->out + i0 * a->out_stride, .c_row = a->out_stride, .scratch = values + padded * wide,
        });
        for (int64_t i = i0; i < i0 + m; i++)
            finish_row(a->out + i * a->out_stride, a->dim, a->inverse[i]);
    }
}

void ISA_NAME(attention_decode)(const struct attention_decode *a)
{
    int64_t padded = (a->n + V_LANES - 1) / V_LANES * V_LANES;
    float inverse;

    for (int64_t j = 0; j < a->n; j += V_LANES) {
        v16 s = v_zero();
        for (int64_t d = 0; d < a->dim; d++)
            s = v_fma(v_set1(a->q[d]), v_load_n(a->k + d * a->k_stride + j, a->n - j), s);
        v_store(a->scratch + j, s);
    }
    inverse = softmax_row(a->scratch, a->n, padded, a->scale);
    for (int64_t d = 0; d < a->dim; d += V_LANES) {
        v16 s = v_zero();
        for (int64_t j = 0; j < a->n; j++)
            s = v_fma(v_set1(a->scratch[j]), v_load_n(a->v + j * a->v_stride + d, a->dim - d), s);
        v_store_n(a->out + d, s, a->dim - d);
    }
    finish_row(a->out, a->dim, inverse);
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
            score_gradient(ds + i * padded, a->p + i * padded, dot_row(a->dout + i * a->out_stride, a->out + i * a->out_stride, dim),
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
