/* gemm.c - the strict matrix product (kernels.h says what "strict" means).
 *
 * A tile of TILE_M rows by TILE_V vectors of sixteen columns lives in registers while k runs. For each block of k and of
 * rows, panels are the outer loop and strips of rows the inner one: the panel's block stays in the first-level cache, the
 * strips come from the second. Few rows take several panels at a time, so that there are always enough independent
 * chains to hide the latency of the multiply-add. */
#include "nn/cpu/kernels/isa.h"

#if defined(ISA_avx512)
enum { TILE_M = 12, TILE_V = 2 };
#elif defined(ISA_avx2) || defined(ISA_neon)
enum { TILE_M = 6, TILE_V = 1 };
#else
enum { TILE_M = 4, TILE_V = 1 };
#endif
enum { BLOCK_M = 120 };         /* rows of A per pass over the panels: a multiple of every TILE_M */

/* What one tile does with its sums. */
struct tile {
    int64_t k, a_row, a_k;
    const float *a;
    const float *b;             /* first column of the tile in its panel: rows of k are GEMM_PANEL apart */
    int64_t b_next;             /* floats from one panel to the next (tiles wider than a panel) */
    const float *start;         /* unfinished chains or NULL: zero */
    int64_t start_row;
    float *c;
    int64_t c_row, cols;        /* cols: how many columns of the tile exist */
    const float *bias;
    bool add;
};

/* vectors: how many v16 wide; two per panel. */
INLINE void tile_run(const struct tile *t, const int rows, const int vectors)
{
    v16 sum[TILE_M][8];
    const float *a = t->a;

#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            sum[i][j] = t->start ? v_load(t->start + i * t->start_row + j * V_LANES) : v_zero();

    /* the tile of C is usually cold: fetch it while k runs */
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            __builtin_prefetch(t->c + i * t->c_row + j * V_LANES, 1);

    for (int64_t k = 0; k < t->k; k++, a += t->a_k) {
        const float *b = t->b + k * GEMM_PANEL;
        v16 bv[8];

#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            bv[j] = v_load(b + (j / 2) * t->b_next + (j % 2) * V_LANES);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            v16 av = v_set1(a[i * t->a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++)
                sum[i][j] = v_fma(av, bv[j], sum[i][j]);
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
static void tile_dispatch(const struct tile *t, int rows, int vectors)
{
    switch (rows * 16 + vectors) {
#if defined(ISA_avx512)
    TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11,
            2) TILE(12, 2)
    TILE(1, 8) TILE(2, 8) TILE(3, 8) TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)
#elif defined(ISA_avx2) || defined(ISA_neon)
    TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(1, 2) TILE(1, 4) TILE(2, 2) TILE(3, 2)
#else
    TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1)
#endif
    }
}
#undef TILE

/* How wide a tile of so many rows may be: enough chains to fill the pipes, not more than the registers hold. */
static int tile_width(int rows)
{
#if defined(ISA_avx512)
    return rows <= 3 ? 8 : rows <= 6 ? 4 : 2;
#elif defined(ISA_avx2) || defined(ISA_neon)
    return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
#else
    (void)rows;
    return 1;
#endif
}

/* One strip of rows against the panels from column `from` to `to` (multiples of 16 but for the end). */
static void strip_run(const struct gemm *g, struct tile *t, int rows, int64_t k0, int64_t from, int64_t to, float *partial)
{
    int64_t panel_stride = g->panel_stride ? g->panel_stride : g->k * GEMM_PANEL;
    float *c = t->c;
    const float *start = t->start;

    for (int64_t n = from; n < to;) {
        int vectors = tile_width(rows);

        while (vectors > TILE_V && n + (vectors - TILE_V) * V_LANES >= to)
            vectors /= 2;       /* the last tile: not past the columns asked for */
        t->b = g->panels + n / GEMM_PANEL * panel_stride + k0 * GEMM_PANEL + n % GEMM_PANEL;
        t->b_next = panel_stride;
        t->c = c + n;
        t->start = start ? start + n : NULL;
        t->bias = g->bias && !partial ? g->bias + n : NULL;
        t->cols = partial ? vectors * V_LANES : g->n - n;
        tile_dispatch(t, rows, vectors);
        n += vectors * V_LANES;
    }
    t->c = c;
    t->start = start;
}

void ISA_NAME(gemm)(const struct gemm *g)
{
    int64_t padded = gemm_padded(g->n), width = TILE_V * V_LANES;

    if (g->k == 0 && g->m > 0) {        /* empty chains are 0 */
        for (int64_t i = 0; i < g->m && !g->add; i++)
            for (int64_t j = 0; j < g->n; j++)
                g->c[i * g->c_row + j] = g->bias ? g->bias[j] : 0.0f;
        return;
    }
    for (int64_t k0 = 0; k0 < g->k; k0 += GEMM_K_BLOCK) {
        int64_t kn = g->k - k0 < GEMM_K_BLOCK ? g->k - k0 : GEMM_K_BLOCK;
        bool last = k0 + kn == g->k;

        for (int64_t m0 = 0; m0 < g->m; m0 += BLOCK_M) {
            int64_t mn = g->m - m0 < BLOCK_M ? g->m - m0 : BLOCK_M;
            int64_t strips = (mn + TILE_M - 1) / TILE_M;
            /* few rows: whole width at once, tiles are wide; else panel by panel */
            int64_t step = strips == 1 ? padded : width;

            for (int64_t n0 = 0; n0 < g->n; n0 += step) {
                int64_t to = n0 + step < g->n ? n0 + step : g->n;

                for (int64_t s = 0; s < strips; s++) {
                    int64_t i0 = m0 + mn * s / strips, i1 = m0 + mn * (s + 1) / strips;     /* strips of nearly equal height */
                    struct tile t = {
                        .k = kn, .a_row = g->a_row, .a_k = g->a_k, .a = g->a + i0 * g->a_row + k0 * g->a_k,
                        .start = k0 ? g->scratch + i0 * padded : NULL, .start_row = padded,
                        .c = last ? g->c + i0 * g->c_row : g->scratch + i0 * padded, .c_row = last ? g->c_row : padded,
                        .add = last && g->add,
                    };
                    strip_run(g, &t, (int)(i1 - i0), k0, n0, to, last ? NULL : g->scratch);
                }
            }
        }
    }
}

/* to[j][i] = from[i][j], 16 x 16. */
INLINE void transpose_block(float *to, int64_t to_row, const float *from, int64_t from_row)
{
#if defined(ISA_avx512)
    __m512 a[16], b[16];

#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        a[i] = _mm512_loadu_ps(from + i * from_row);
    /* pairs of rows, then of pairs, then blocks of four lanes */
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
        a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
        a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
        a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512 low0 = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), low1 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
        __m512 high0 = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd), high1 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);

        _mm512_storeu_ps(to + i * to_row, _mm512_shuffle_f32x4(low0, low1, 0x88));
        _mm512_storeu_ps(to + (i + 4) * to_row, _mm512_shuffle_f32x4(high0, high1, 0x88));
        _mm512_storeu_ps(to + (i + 8) * to_row, _mm512_shuffle_f32x4(low0, low1, 0xdd));
        _mm512_storeu_ps(to + (i + 12) * to_row, _mm512_shuffle_f32x4(high0, high1, 0xdd));
    }
#else
    for (int i = 0; i < V_LANES; i++)
        for (int j = 0; j < V_LANES; j++)
            to[j * to_row + i] = from[i * from_row + j];
#endif
}

void ISA_NAME(gemm_pack)(float *panels, const float *source, int64_t row, int64_t k, int64_t n, bool transposed)
{
    for (int64_t n0 = 0; n0 < n; n0 += GEMM_PANEL) {
        int64_t cols = n - n0 < GEMM_PANEL ? n - n0 : GEMM_PANEL;
        float *panel = panels + n0 * k;

        if (!transposed) {
            for (int64_t i = 0; i < k; i++) {
                v_store(panel + i * GEMM_PANEL, v_load_n(source + i * row + n0, cols));
                v_store(panel + i * GEMM_PANEL + V_LANES,
                        cols > V_LANES ? v_load_n(source + i * row + n0 + V_LANES, cols - V_LANES) : v_zero());
            }
            continue;
        }
        for (int64_t half = 0; half < GEMM_PANEL; half += V_LANES) {
            int64_t take = cols - half < 0 ? 0 : cols - half < V_LANES ? cols - half : V_LANES;
            const float *from = source + (n0 + half) * row;
            int64_t i = 0;

            for (; take == V_LANES && i + V_LANES <= k; i += V_LANES)
                transpose_block(panel + i * GEMM_PANEL + half, GEMM_PANEL, from + i, row);
            for (; i < k; i++)
                for (int64_t j = 0; j < V_LANES; j++)
                    panel[i * GEMM_PANEL + half + j] = j < take ? from[j * row + i] : 0.0f;
        }
    }
}

void ISA_NAME(transpose)(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t cols)
{
    int64_t whole_rows = rows / V_LANES * V_LANES, whole_cols = cols / V_LANES * V_LANES;

    for (int64_t i = 0; i < whole_rows; i += V_LANES)
        for (int64_t j = 0; j < whole_cols; j += V_LANES)
            transpose_block(to + j * to_row + i, to_row, from + i * from_row + j, from_row);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i < whole_rows ? whole_cols : 0; j < cols; j++)
            to[j * to_row + i] = from[i * from_row + j];
}

/* sixteen rows of W side by side, widened, then turned: a block of a panel */
static void transpose_bf16(float *to, const uint16_t *from, int64_t row)
{
    _Alignas(64) float wide[V_LANES * V_LANES];

    for (int i = 0; i < V_LANES; i++)
        v_store(wide + i * V_LANES, v_load_bf16(from + i * row));
    transpose_block(to, GEMM_PANEL, wide, V_LANES);
}

void ISA_NAME(gemm_pack_bf16)(float *panels, const uint16_t *source, int64_t row, int64_t k, int64_t n, bool transposed)
{
    for (int64_t n0 = 0; n0 < n; n0 += V_LANES) {
        int64_t cols = n - n0 < V_LANES ? n - n0 : V_LANES, i = 0;
        float *panel = panels + n0 / GEMM_PANEL * GEMM_PANEL * k + n0 % GEMM_PANEL;

        if (n0 % GEMM_PANEL == 0 && cols + n0 == n)         /* the other half of the last panel */
            for (int64_t z = 0; z < k; z++)
                v_store(panel + z * GEMM_PANEL + V_LANES, v_zero());
        for (; !transposed && i < k; i++)
            v_store(panel + i * GEMM_PANEL, v_load_bf16_n(source + i * row + n0, cols));
        for (; cols == V_LANES && i + V_LANES <= k; i += V_LANES)
            transpose_bf16(panel + i * GEMM_PANEL, source + n0 * row + i, row);
        for (; i < k; i++)
            for (int64_t j = 0; j < V_LANES; j++)
                ISA_NAME(widen)(panel + i * GEMM_PANEL + j, j < cols ? source + (n0 + j) * row + i : &(uint16_t) {0}, 1);
    }
}

void ISA_NAME(widen)(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += V_LANES)
        v_store_n(y + i, v_load_bf16_n(x + i, n - i), n - i);
}
