/* gemm_bf16.c - the product of `numerics: fast`: operands rounded to bf16 as they are packed, sums in fp32 (kernels.h).
 *
 * Built like gemm.c, with a pair of neighbours in k where that has one number: VDPBF16PS adds both products of a pair to its
 * chain. So a panel is (pairs, 32) words of two bf16, and an odd k ends with a zero. The chains go over ascending pairs,
 * whatever the tile, the block or the batch: no output depends on m or n. */
#include "nn/cpu/kernels/isa.h"

#if defined(ISA_avx512)
#define FAST __attribute__((target("avx512bf16")))

enum {
    TILE_M = 12, TILE_V = 2,
    BLOCK_M = 120,              /* rows of A per pass over the panels */
};

struct tile {
    int64_t pairs, a_row, a_pair;
    const uint32_t *a;
    const uint32_t *b;          /* first column of the tile in its panel: pairs are GEMM_PANEL words apart */
    int64_t b_next;             /* words from one panel to the next (tiles wider than a panel) */
    const float *start;         /* unfinished chains or NULL: zero */
    int64_t start_row;
    float *c;
    int64_t c_row, cols;        /* cols: how many columns of the tile exist */
    const float *bias;
    bool add;
};

INLINE FAST void tile_run(const struct tile *t, const int rows, const int vectors)
{
    v16 sum[TILE_M][8];
    const uint32_t *a = t->a;

#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = t->start ? v_load(t->start + i * t->start_row + j * V_LANES) : v_zero();
            __builtin_prefetch(t->c + i * t->c_row + j * V_LANES, 1);
        }

    for (int64_t p = 0; p < t->pairs; p++, a += t->a_pair) {
        const uint32_t *b = t->b + p * GEMM_PANEL;
        __m512bh bv[8];

#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            bv[j] = (__m512bh)_mm512_loadu_si512(b + (j / 2) * t->b_next + (j % 2) * V_LANES);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            __m512bh av = (__m512bh)_mm512_set1_epi32((int)a[i * t->a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], av, bv[j]);
        }
    }

#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            int64_t left = t->cols - j * V_LANES;
            float *c = t->c + i * t->c_row + j * V_LANES;
            v16 s = sum[i][j];

            if (left <= 0)
                break;
            if (t->bias)
                s = v_add(s, v_load_n(t->bias + j * V_LANES, left));
            if (t->add)
                s = v_add(v_load_n(c, left), s);
            v_store_n(c, s, left);
        }
}

#define TILE(rows, vectors) \
    case (rows) * 16 + (vectors): \
        tile_run(t, rows, vectors); \
        break;
static FAST void tile_dispatch(const struct tile *t, int rows, int vectors)
{
    switch (rows * 16 + vectors) {
    TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11,
            2) TILE(12, 2)
    TILE(1, 8) TILE(2, 8) TILE(3, 8) TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)
    }
}
#undef TILE

/* enough chains to fill the pipes, not more than the registers hold */
static int tile_width(int rows)
{
    return rows <= 3 ? 8 : rows <= 6 ? 4 : 2;
}

/* Columns from..to of one strip of rows. b: the word of column 0 and the block's first pair. */
static FAST void strip_run(const struct gemm *g, struct tile *t, int rows, const uint32_t *b, int64_t from, int64_t to, bool last)
{
    float *c = t->c;
    const float *start = t->start;

    for (int64_t n = from; n < to;) {
        int vectors = tile_width(rows);

        while (vectors > TILE_V && n + (vectors - TILE_V) * V_LANES >= to)
            vectors /= 2;
        t->b = b + (n - from) / GEMM_PANEL * t->b_next;
        t->c = c + n;
        t->start = start ? start + n : NULL;
        t->bias = g->bias && last ? g->bias + n : NULL;
        t->cols = last ? g->n - n : vectors * V_LANES;
        tile_dispatch(t, rows, vectors);
        n += vectors * V_LANES;
    }
    t->c = c;
    t->start = start;
}

/* ---- operands to pairs ------------------------------------------------------------------------------------- */

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

/* A's rows from i0 on, numbers k0..k0+kn-1, as words: ret_row and ret_pair apart. */
static FAST void pack_a(const struct gemm *g, int64_t i0, int64_t m, int64_t k0, int64_t kn, uint32_t *to, int64_t *ret_row,
                        int64_t *ret_pair)
{
    int64_t pairs = gemm_pairs(kn);
    const float *a = g->a + i0 * g->a_row + k0 * g->a_k;

    if (g->a_k == 1) {
        int64_t row = (pairs + V_LANES - 1) / V_LANES * V_LANES;

        for (int64_t i = 0; i < m; i++)
            for (int64_t k = 0; k < kn; k += 2 * V_LANES)
                _mm512_storeu_si512(to + i * row + k / 2, pair_along(a + i * g->a_row + k, kn - k));
        *ret_row = row;
        *ret_pair = 1;
        return;
    }
    *ret_row = 1;
    *ret_pair = (m + V_LANES - 1) / V_LANES * V_LANES;
    for (int64_t p = 0; p < pairs; p++)
        for (int64_t i = 0; i < m; i += V_LANES) {
            const float *low = a + 2 * p * g->a_k + i;

            _mm512_storeu_si512(to + p * *ret_pair + i, pair_rows(v_load_n(low, m - i),
                                                                  2 * p + 1 < kn ? v_load_n(low + g->a_k, m - i) : v_zero()));
        }
}

/* words[i][j] -> to[j * GEMM_PANEL + i] */
INLINE void turn(uint32_t *to, __m512i words[V_LANES])
{
    __m512i b[V_LANES];

#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(words[i], words[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(words[i], words[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        words[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        words[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        words[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        words[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i low0 = _mm512_shuffle_i32x4(words[i], words[i + 4], 0x88),
                low1 = _mm512_shuffle_i32x4(words[i + 8], words[i + 12], 0x88);
        __m512i high0 = _mm512_shuffle_i32x4(words[i], words[i + 4], 0xdd),
            high1 = _mm512_shuffle_i32x4(words[i + 8], words[i + 12], 0xdd);

        _mm512_storeu_si512(to + i * GEMM_PANEL, _mm512_shuffle_i32x4(low0, low1, 0x88));
        _mm512_storeu_si512(to + (i + 4) * GEMM_PANEL, _mm512_shuffle_i32x4(high0, high1, 0x88));
        _mm512_storeu_si512(to + (i + 8) * GEMM_PANEL, _mm512_shuffle_i32x4(low0, low1, 0xdd));
        _mm512_storeu_si512(to + (i + 12) * GEMM_PANEL, _mm512_shuffle_i32x4(high0, high1, 0xdd));
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
                turn(whole ? panel + k / 2 * GEMM_PANEL : part, words);
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

/* ---- the loops --------------------------------------------------------------------------------------------- */

/* Strips of rows i0..i0+m-1 against columns n0..to and the block of pairs at k0. */
static FAST void block_run(const struct gemm *g, struct tile *t, const uint32_t *a, int64_t i0, int64_t m, const uint32_t *b,
                           int64_t k0, int64_t n0, int64_t to, float *unfinished, int64_t unfinished_row)
{
    bool last = k0 + GEMM_BF16_K_BLOCK >= g->k;
    int64_t strips = (m + TILE_M - 1) / TILE_M;

    t->start_row = unfinished_row;
    t->c_row = last ? g->c_row : unfinished_row;
    t->add = last && g->add;
    for (int64_t s = 0; s < strips; s++) {
        int64_t s0 = m * s / strips, s1 = m * (s + 1) / strips;     /* strips of nearly equal height */

        t->a = a + s0 * t->a_row;
        t->start = k0 ? unfinished + (i0 + s0) * unfinished_row : NULL;
        t->c = last ? g->c + (i0 + s0) * g->c_row : unfinished + (i0 + s0) * unfinished_row;
        strip_run(g, t, (int)(s1 - s0), b, n0, to, last);
    }
}

/* Panels are there: a block of k, then of rows, then panel by panel, so that a panel's block stays in the first-level cache. */
static FAST void run_packed(const struct gemm *g)
{
    int64_t padded = gemm_padded(g->n), stride = g->panel_stride ? g->panel_stride : gemm_pairs(g->k) * GEMM_PANEL;
    uint32_t *a = (uint32_t *)g->scratch;
    float *unfinished = g->scratch + gemm_bf16_a(g->m < GEMM_BF16_ROWS ? g->m : GEMM_BF16_ROWS,
                                                 g->k < GEMM_BF16_K_BLOCK ? g->k : GEMM_BF16_K_BLOCK);

    for (int64_t k0 = 0; k0 < g->k; k0 += GEMM_BF16_K_BLOCK) {
        int64_t kn = g->k - k0 < GEMM_BF16_K_BLOCK ? g->k - k0 : GEMM_BF16_K_BLOCK;

        for (int64_t m0 = 0; m0 < g->m; m0 += BLOCK_M) {
            int64_t mn = g->m - m0 < BLOCK_M ? g->m - m0 : BLOCK_M;
            int64_t step = mn <= TILE_M ? padded : GEMM_PANEL;      /* few rows: whole width at once, tiles are wide */
            struct tile t = {.pairs = gemm_pairs(kn), .b_next = stride};

            pack_a(g, m0, mn, k0, kn, a, &t.a_row, &t.a_pair);
            for (int64_t n0 = 0; n0 < g->n; n0 += step)
                block_run(g, &t, a, m0, mn, g->pairs + n0 / GEMM_PANEL * stride + k0 / 2 * GEMM_PANEL, k0, n0,
                          n0 + step < g->n ? n0 + step : g->n, unfinished, padded);
        }
    }
}

/* B lies as bf16: some columns, then block by block of k their panels, made once for all rows. So each row of a transposed B is
 * read from its beginning to its end, and what is read once is not thrown away. */
static FAST void run_halves(const struct gemm *g)
{
    uint32_t *a = (uint32_t *)g->scratch, *panels = a + gemm_bf16_a(g->m, g->k);
    float *unfinished = (float *)(panels + GEMM_BF16_COLUMNS * GEMM_BF16_K_BLOCK / 2);
    struct tile t = {0};

    pack_a(g, 0, g->m, 0, g->k, a, &t.a_row, &t.a_pair);
    for (int64_t n0 = 0; n0 < g->n; n0 += GEMM_BF16_COLUMNS) {
        int64_t nn = g->n - n0 < GEMM_BF16_COLUMNS ? g->n - n0 : GEMM_BF16_COLUMNS;

        for (int64_t k0 = 0; k0 < g->k; k0 += GEMM_BF16_K_BLOCK) {
            int64_t kn = g->k - k0 < GEMM_BF16_K_BLOCK ? g->k - k0 : GEMM_BF16_K_BLOCK;
            int64_t step = g->m <= TILE_M ? GEMM_BF16_COLUMNS : GEMM_PANEL;

            t.pairs = gemm_pairs(kn);
            t.b_next = t.pairs * GEMM_PANEL;
            pack_b(panels, t.b_next, NULL, g->halves, g->half_row, g->half_transposed, k0, kn, n0, nn);
            for (int64_t n1 = 0; n1 < nn; n1 += step)
                block_run(g, &t, a + k0 / 2 * t.a_pair, 0, g->m, panels + n1 / GEMM_PANEL * t.b_next, k0, n0 + n1,
                          n0 + (n1 + step < nn ? n1 + step : nn), unfinished - n0, GEMM_BF16_COLUMNS);
        }
    }
}

FAST void ISA_NAME(gemm_bf16)(const struct gemm *g)
{
    if (g->k == 0 && g->m > 0) {        /* empty chains are 0 */
        for (int64_t i = 0; i < g->m && !g->add; i++)
            for (int64_t j = 0; j < g->n; j++)
                g->c[i * g->c_row + j] = g->bias ? g->bias[j] : 0.0f;
        return;
    }
    if (g->halves)
        run_halves(g);
    else
        run_packed(g);
}
#endif
