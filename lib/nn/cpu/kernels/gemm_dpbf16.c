/* gemm_dpbf16.c - a block of the product of `numerics: fast` by VDPBF16PS (bf16.h), which adds both products of a pair to a
 * chain. Tiles split m and n only; chains go over ascending pairs. */
#include "nn/cpu/kernels/isa.h"

#if defined(ISA_avx512)
#include "nn/cpu/kernels/bf16.h"

enum {
    TILE_M = 12, TILE_V = 2,
    BLOCK_M = 120,              /* rows of A per pass over the panels, whole strips of them */
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

/* Columns from..to of one strip of rows; t->b: the panel that holds column `from`. */
static FAST void strip_run(const struct bf16_block *block, struct tile t, int rows, int64_t from, int64_t to)
{
    const uint32_t *b = t.b;
    const float *start = t.start;
    float *c = t.c;

    for (int64_t n = from; n < to;) {
        int vectors = tile_width(rows);

        while (vectors > TILE_V && n + (vectors - TILE_V) * V_LANES >= to)
            vectors /= 2;
        t.b = b + (n - from) / GEMM_PANEL * t.b_next;
        t.c = c + n;
        t.start = start ? start + n : NULL;
        t.bias = block->bias ? block->bias + n : NULL;
        t.cols = block->cols - n;
        tile_dispatch(&t, rows, vectors);
        n += vectors * V_LANES;
    }
}

/* Strip by strip against a panel, which stays in the first-level cache; one strip goes over all of them, its tiles are wide. */
static FAST void multiply(const struct bf16_block *block)
{
    int64_t strips = (block->m + TILE_M - 1) / TILE_M, step = strips == 1 ? block->n : GEMM_PANEL;

    for (int64_t n = 0; n < block->n; n += step)
        for (int64_t s = 0; s < strips; s++) {
            int64_t s0 = block->m * s / strips, s1 = block->m * (s + 1) / strips;       /* strips of nearly equal height */

            strip_run(block, (struct tile) {
                .pairs = block->pairs, .a = block->a + s0 * block->a_row, .a_row = block->a_row, .a_pair = block->a_pair,
                .b = block->b + n / GEMM_PANEL * block->b_next, .b_next = block->b_next,
                .start = block->start ? block->start + s0 * block->start_row : NULL, .start_row = block->start_row,
                .c = block->c + s0 * block->c_row, .c_row = block->c_row, .add = block->add,
            }, (int)(s1 - s0), n, n + step);
        }
}

void ISA_NAME(gemm_bf16)(const struct gemm *g)
{
    bf16_gemm(g, &(struct bf16_unit) {.rows = BLOCK_M, .multiply = multiply});
}
#endif
