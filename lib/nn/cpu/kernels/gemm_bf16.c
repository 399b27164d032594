/* gemm_bf16.c - the loops of the product of `numerics: fast` (bf16.h). Chains go on from block to block of k, whatever the block
 * of rows or the batch: no output depends on m or n. */
#include "nn/cpu/kernels/isa.h"

#if defined(ISA_avx512)
#include "nn/cpu/kernels/bf16.h"

/* Where block k0 of columns n0.. begins and ends: in C, or in the unfinished chains. */
static void between(const struct gemm *g, struct bf16_block *t, int64_t i0, int64_t k0, int64_t n0, float *unfinished,
                    int64_t row)
{
    bool last = k0 + GEMM_BF16_K_BLOCK >= g->k;

    t->start = k0 ? unfinished + i0 * row : NULL;
    t->start_row = row;
    t->c = last ? g->c + i0 * g->c_row + n0 : unfinished + i0 * row;
    t->c_row = last ? g->c_row : row;
    t->cols = last && g->n - n0 < t->n ? g->n - n0 : t->n;
    t->bias = last && g->bias ? g->bias + n0 : NULL;
    t->add = last && g->add;
}

/* Panels are there: a block of k, then of rows. */
static void run_packed(const struct gemm *g, const struct bf16_unit *unit)
{
    int64_t padded = gemm_padded(g->n), stride = g->panel_stride ? g->panel_stride : gemm_pairs(g->k) * GEMM_PANEL;
    uint32_t *a = (uint32_t *)g->scratch;
    float *unfinished = g->scratch + gemm_bf16_a(g->m < GEMM_BF16_ROWS ? g->m : GEMM_BF16_ROWS,
                                                 g->k < GEMM_BF16_K_BLOCK ? g->k : GEMM_BF16_K_BLOCK);

    for (int64_t k0 = 0; k0 < g->k; k0 += GEMM_BF16_K_BLOCK) {
        int64_t kn = g->k - k0 < GEMM_BF16_K_BLOCK ? g->k - k0 : GEMM_BF16_K_BLOCK;

        for (int64_t m0 = 0; m0 < g->m; m0 += unit->rows) {
            struct bf16_block t = {.m = g->m - m0 < unit->rows ? g->m - m0 : unit->rows, .n = padded, .pairs = gemm_pairs(kn),
                                   .a = a, .b = g->pairs + k0 / 2 * GEMM_PANEL, .b_next = stride};

            bf16_pack_a(g, m0, t.m, k0, kn, unit->by_rows, a);
            bf16_strides(g, t.m, kn, unit->by_rows, &t.a_row, &t.a_pair);
            between(g, &t, m0, k0, 0, unfinished, padded);
            unit->multiply(&t);
        }
    }
}

/* B lies as bf16: some columns, then block by block of k their panels, made once for all rows. So each row of a transposed B is
 * read from its beginning to its end, and what is read once is not thrown away. A is packed block by block of k, too: rows of a
 * block lie close together. */
static void run_halves(const struct gemm *g, const struct bf16_unit *unit)
{
    int64_t rows = (g->m + V_LANES - 1) / V_LANES * V_LANES;
    uint32_t *a = (uint32_t *)g->scratch, *panels = a + gemm_bf16_a(g->m, g->k);
    float *unfinished = (float *)(panels + GEMM_BF16_COLUMNS * GEMM_BF16_K_BLOCK / 2);

    for (int64_t n0 = 0; n0 < g->n; n0 += GEMM_BF16_COLUMNS) {
        int64_t nn = g->n - n0 < GEMM_BF16_COLUMNS ? g->n - n0 : GEMM_BF16_COLUMNS;

        for (int64_t k0 = 0; k0 < g->k; k0 += GEMM_BF16_K_BLOCK) {
            int64_t kn = g->k - k0 < GEMM_BF16_K_BLOCK ? g->k - k0 : GEMM_BF16_K_BLOCK;
            struct bf16_block t = {.n = gemm_padded(nn), .pairs = gemm_pairs(kn), .b = panels,
                                   .b_next = gemm_pairs(kn) * GEMM_PANEL};

            if (n0 == 0)
                bf16_pack_a(g, 0, g->m, k0, kn, unit->by_rows, a + k0 / 2 * rows);
            bf16_strides(g, g->m, kn, unit->by_rows, &t.a_row, &t.a_pair);
            bf16_pack_halves(g, k0, kn, n0, nn, panels, t.b_next);
            for (int64_t m0 = 0; m0 < g->m; m0 += unit->rows) {
                t.m = g->m - m0 < unit->rows ? g->m - m0 : unit->rows;
                t.a = a + k0 / 2 * rows + m0 * t.a_row;
                between(g, &t, m0, k0, n0, unfinished, GEMM_BF16_COLUMNS);
                unit->multiply(&t);
            }
        }
    }
}

/* B^T lies as the tiles' first operand: nothing of it needs to be packed. C^T = B^T A^T, so A becomes panels and C is turned,
 * which is less work than to turn B while the rows are few, and little work where k is large. */
static bool turned_is_better(const struct gemm *g)
{
    bool fits = g->half_transposed && g->k % (2 * V_LANES) == 0 && g->n % GEMM_PANEL == 0 && g->half_row % 2 == 0;

    return fits && (g->m <= g->k / 4 || g->k >= 1024);
}

static void run_turned(const struct gemm *g, const struct bf16_unit *unit)
{
    int64_t stride = gemm_pairs(g->k) * GEMM_PANEL, padded = gemm_padded(g->m);
    uint32_t *x = (uint32_t *)g->scratch;
    float *unfinished = g->scratch + gemm_pairs(g->k) * padded;

    ISA_NAME(gemm_bf16_pack)(x, g->a, g->a_k == 1 ? g->a_row : g->a_k, g->k, g->m, g->a_k == 1);
    for (int64_t n0 = 0; n0 < g->n; n0 += GEMM_BF16_COLUMNS)
        for (int64_t k0 = 0; k0 < g->k; k0 += GEMM_BF16_K_BLOCK) {
            bool last = k0 + GEMM_BF16_K_BLOCK >= g->k;

            unit->multiply(&(struct bf16_block) {
                .m = g->n - n0 < GEMM_BF16_COLUMNS ? g->n - n0 : GEMM_BF16_COLUMNS, .n = padded,
                .pairs = gemm_pairs(last ? g->k - k0 : GEMM_BF16_K_BLOCK),
                .a = (const uint32_t *)(g->halves + n0 * g->half_row + k0), .a_row = g->half_row / 2, .a_pair = 1,
                .b = x + k0 / 2 * GEMM_PANEL, .b_next = stride, .start = k0 ? unfinished : NULL, .start_row = padded,
                .c = last ? g->c + n0 : unfinished, .c_row = last ? g->c_row : padded, .cols = last ? g->m : padded,
                .bias = last && g->bias ? g->bias + n0 : NULL, .add = last && g->add, .turned = last,
            });
        }
}

void bf16_gemm(const struct gemm *g, const struct bf16_unit *unit)
{
    if (g->k == 0 && g->m > 0) {        /* empty chains are 0 */
        for (int64_t i = 0; i < g->m && !g->add; i++)
            for (int64_t j = 0; j < g->n; j++)
                g->c[i * g->c_row + j] = g->bias ? g->bias[j] : 0.0f;
        return;
    }
    if (g->halves && unit->by_rows && turned_is_better(g))
        run_turned(g, unit);
    else if (g->halves)
        run_halves(g, unit);
    else
        run_packed(g, unit);
}
#endif
