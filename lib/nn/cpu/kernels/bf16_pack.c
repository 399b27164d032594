/* bf16_pack.c - operands of `numerics: fast` rounded to bf16, as words of two neighbours in k, the even k below (bf16.h). An odd
 * k ends with a zero. */
#include "nn/cpu/kernels/isa.h"

#if defined(ISA_avx512)
#include "nn/cpu/kernels/bf16.h"

/* sixteen words (low, high) of two rows' columns */
INLINE FAST __m512i pair_rows(v16 low, v16 high)
{
    static const uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

INLINE __m512i pair_halves(const uint16_t *low, const uint16_t *high, int64_t left)
{
    __mmask16 some = left >= V_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
    __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, low));
    __m512i b = high ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, high)) : _mm512_setzero_si512();

    return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

/* up to sixteen words (32 numbers) of one row; zeros after `left` numbers */
INLINE FAST __m512i pair_along(const float *x, int64_t left)
{
    v16 low = left >= V_LANES ? v_load(x) : v_load_part(x, (int)left);
    v16 high = left > V_LANES ? v_load_n(x + V_LANES, left - V_LANES) : v_zero();

    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

INLINE __m512i halves_along(const uint16_t *x, int64_t left)
{
    return _mm512_maskz_loadu_epi16(left >= 2 * V_LANES ? 0xffffffff : (__mmask32)((1u << left) - 1), x);
}

/* Words of numbers k.. of sixteen rows that lie as columns; `left` of the k and `rows` of the rows exist. */
INLINE FAST __m512i pair_down(const float *a, int64_t a_k, int64_t left, int64_t rows)
{
    if (left <= 0)
        return _mm512_setzero_si512();
    return pair_rows(v_load_n(a, rows), left > 1 ? v_load_n(a + a_k, rows) : v_zero());
}

FAST void bf16_pack_a(const struct gemm *g, int64_t i0, int64_t m, int64_t k0, int64_t kn, bool by_rows, uint32_t *to)
{
    const float *a = g->a + i0 * g->a_row + k0 * g->a_k;
    int64_t row, pair;

    bf16_strides(g, m, kn, by_rows, &row, &pair);
    if (g->a_k == 1) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t k = 0; k < kn; k += 2 * V_LANES)
                _mm512_storeu_si512(to + i * row + k / 2, pair_along(a + i * g->a_row + k, kn - k));
    } else if (by_rows) {
        for (int64_t i = 0; i < m; i += V_LANES)
            for (int64_t k = 0; k < kn; k += 2 * V_LANES) {
                __m512i words[V_LANES];

                for (int p = 0; p < V_LANES; p++)
                    words[p] = pair_down(a + (k + 2 * p) * g->a_k + i, g->a_k, kn - k - 2 * p, m - i);
                turn(to + i * row + k / 2, row, words);
            }
    } else {
        for (int64_t p = 0; 2 * p < kn; p++)
            for (int64_t i = 0; i < m; i += V_LANES)
                _mm512_storeu_si512(to + p * pair + i, pair_down(a + 2 * p * g->a_k + i, g->a_k, kn - 2 * p, m - i));
    }
}

/* Numbers k0..k0+kn-1 of columns n0..n0+cols-1 of B, which lies as fp32 or as bf16, to panels (pairs,32) `stride` words apart. */
INLINE FAST void pack_b(uint32_t *panels, int64_t stride, const float *b, const uint16_t *halves, int64_t row, bool transposed,
                        int64_t k0, int64_t kn, int64_t n0, int64_t cols)
{
    int64_t pairs = gemm_pairs(kn);

    for (int64_t j = 0; j < cols || j % GEMM_PANEL; j += V_LANES) {
        uint32_t *panel = panels + j / GEMM_PANEL * stride + j % GEMM_PANEL;
        int64_t left = cols - j;

        if (left <= 0) {
            for (int64_t p = 0; p < pairs; p++)
                _mm512_storeu_si512(panel + p * GEMM_PANEL, _mm512_setzero_si512());
        } else if (transposed) {
            for (int64_t k = 0; k < kn; k += 2 * V_LANES) {
                _Alignas(64) uint32_t part[V_LANES * GEMM_PANEL];
                bool whole = k / 2 + V_LANES <= pairs;
                __m512i words[V_LANES];

                for (int i = 0; i < V_LANES; i++) {
                    int64_t at = (n0 + j + i) * row + k0 + k;

                    words[i] = i >= left ? _mm512_setzero_si512() : b ? pair_along(b + at, kn - k) : halves_along(halves + at,
                            kn - k);
                }
                turn(whole ? panel + k / 2 * GEMM_PANEL : part, GEMM_PANEL, words);
                for (int64_t p = k / 2; !whole && p < pairs; p++)
                    _mm512_storeu_si512(panel + p * GEMM_PANEL, _mm512_load_si512(part + (p - k / 2) * GEMM_PANEL));
            }
        } else {
            for (int64_t p = 0; p < pairs; p++) {
                int64_t at = (k0 + 2 * p) * row + n0 + j;
                bool odd = 2 * p + 1 == kn;

                _mm512_storeu_si512(panel + p * GEMM_PANEL,
                                    b ? pair_rows(v_load_n(b + at, left), odd ? v_zero() : v_load_n(b + at + row, left))
                                      : pair_halves(halves + at, odd ? NULL : halves + at + row, left));
            }
        }
    }
}

FAST void ISA_NAME(gemm_bf16_pack)(uint32_t *panels, const float *source, int64_t row, int64_t k, int64_t n, bool transposed)
{
    pack_b(panels, gemm_pairs(k) * GEMM_PANEL, source, NULL, row, transposed, 0, k, 0, n);
}

FAST void bf16_pack_halves(const struct gemm *g, int64_t k0, int64_t kn, int64_t n0, int64_t cols, uint32_t *panels,
                           int64_t stride)
{
    pack_b(panels, stride, NULL, g->halves, g->half_row, g->half_transposed, k0, kn, n0, cols);
}
#endif
