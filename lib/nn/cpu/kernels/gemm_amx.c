/* gemm_amx.c - a block of the product of `numerics: fast` by AMX (bf16.h): tiles of sixteen rows of sixteen words.
 *
 * TDPBF16PS takes sixteen pairs of k at a time and makes two chains of them, of the even k and of the odd, from 0; their sum is
 * added to the output. So the bits are not VDPBF16PS's, but depend on k alone, like those. A step costs the same with one row
 * of A as with sixteen, so tiles are always whole: rows of A beyond the block's are computed and left, words beyond its pairs are
 * zeros in A and in B. */
#include "nn/cpu/kernels/isa.h"

#if defined(ISA_avx512)
#include "nn/cpu/kernels/bf16.h"

#define TILES __attribute__((target("amx-tile,amx-bf16,avx512bf16")))
/* The intrinsics do not say that they read memory. */
#define BARRIER() __asm__ volatile("" ::: "memory")

enum {
    TILE = 16,                          /* rows; words of a row */
    BYTES = (int)sizeof(uint32_t),
    WIDE = 4 * TILE,                    /* columns that sixteen rows are multiplied with at once; more rows: half of that */
};

/* Four chains are under way at once: tiles 0 to 3. Wide: side by side. Square: two by two. */
static TILES void chains_begin(const float *start, int64_t row, bool wide)
{
    if (!start) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        return;
    }
    _tile_loadd(0, start, row * BYTES);
    _tile_loadd(1, start + TILE, row * BYTES);
    start += wide ? 2 * TILE : TILE * row;
    _tile_loadd(2, start, row * BYTES);
    _tile_loadd(3, start + TILE, row * BYTES);
}

static TILES void chains_end(float *c, int64_t row, bool wide)
{
    _tile_stored(0, c, row * BYTES);
    _tile_stored(1, c + TILE, row * BYTES);
    c += wide ? 2 * TILE : TILE * row;
    _tile_stored(2, c, row * BYTES);
    _tile_stored(3, c + TILE, row * BYTES);
}

/* Sixteen pairs: sixteen rows against two panels, or thirty-two against one. */
INLINE TILES void wide_step(const uint32_t *a, int64_t a_row, const uint32_t *b, int64_t b_next)
{
    _tile_loadd(4, a, a_row * BYTES);
    _tile_loadd(5, b, GEMM_PANEL * BYTES);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b + TILE, GEMM_PANEL * BYTES);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, b + b_next, GEMM_PANEL * BYTES);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, b + b_next + TILE, GEMM_PANEL * BYTES);
    _tile_dpbf16ps(3, 4, 5);
}

INLINE TILES void square_step(const uint32_t *a, int64_t a_row, const uint32_t *b)
{
    _tile_loadd(4, a, a_row * BYTES);
    _tile_loadd(6, b, GEMM_PANEL * BYTES);
    _tile_loadd(7, b + TILE, GEMM_PANEL * BYTES);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + TILE * a_row, a_row * BYTES);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* The last pairs of a block, fewer than sixteen, of one panel or two: what follows them in the panels is not theirs. */
INLINE void rest_of(uint32_t *rest, const uint32_t *b, int64_t b_next, int64_t pairs, int panels)
{
    for (int j = 0; j < panels; j++, b += b_next, rest += TILE * GEMM_PANEL) {
        memcpy(rest, b, (size_t)pairs * GEMM_PANEL * BYTES);
        memset(rest + pairs * GEMM_PANEL, 0, (size_t)(TILE - pairs) * GEMM_PANEL * BYTES);
    }
    BARRIER();
}

/* Chains `row` apart to C: rows that exist, at most `row` columns. */
static TILES void put(const float *from, int row, float *c, int64_t c_row, int64_t rows, int64_t cols, const float *bias,
                      bool add)
{
    for (int64_t i = 0; i < rows; i++, from += row, c += c_row)
        for (int j = 0; j < row && j < cols; j += V_LANES) {
            v16 s = v_load(from + j);

            if (bias)
                s = v_add(s, v_load_n(bias + j, cols - j));
            if (add)
                s = v_add(v_load_n(c + j, cols - j), s);
            v_store_n(c + j, s, cols - j);
        }
}

/* The same of a square, its rows to columns of C. */
static TILES void put_turned(const float *from, float *c, int64_t c_row, int64_t rows, int64_t cols, const float *bias, bool add)
{
    _Alignas(64) float turned[GEMM_PANEL * GEMM_PANEL];

    for (int i = 0; i < GEMM_PANEL; i += TILE)
        for (int j = 0; j < GEMM_PANEL; j += TILE) {
            __m512i lines[TILE];

            for (int l = 0; l < TILE; l++)
                lines[l] = _mm512_load_si512(from + (i + l) * GEMM_PANEL + j);
            turn((uint32_t *)turned + j * GEMM_PANEL + i, GEMM_PANEL, lines);
        }
    put(turned, GEMM_PANEL, c, c_row, rows, cols, bias, add);
}

/* Rows i0.. of the block, sixteen (wide) or thirty-two at most, against columns n.. */
static TILES void run(const struct bf16_block *t, int64_t i0, int64_t n, bool wide)
{
    _Alignas(64) float part[TILE * WIDE];
    _Alignas(64) uint32_t rest[2 * TILE * GEMM_PANEL];
    int width = wide ? WIDE : GEMM_PANEL, height = wide ? TILE : 2 * TILE;
    int64_t rows = t->m - i0 < height ? t->m - i0 : height, p = 0;
    const uint32_t *a = t->a + i0 * t->a_row, *b = t->b + n / GEMM_PANEL * t->b_next;
    int64_t b_next = n + GEMM_PANEL < t->n ? t->b_next : 0;     /* without a second panel: the first again, and left */
    const float *start = t->start ? t->start + i0 * t->start_row + n : NULL;
    bool whole = rows == height && n + width <= t->n;

    if (!start || whole) {
        chains_begin(start, t->start_row, wide);
    } else {
        for (int64_t i = 0; i < rows; i++)
            memcpy(part + i * width, start + i * t->start_row, (size_t)(t->n - n < width ? t->n - n : width) * sizeof(float));
        BARRIER();
        chains_begin(part, width, wide);
    }
    for (; p + TILE <= t->pairs; p += TILE)
        if (wide)
            wide_step(a + p, t->a_row, b + p * GEMM_PANEL, b_next);
        else
            square_step(a + p, t->a_row, b + p * GEMM_PANEL);
    if (p < t->pairs) {
        rest_of(rest, b + p * GEMM_PANEL, b_next, t->pairs - p, wide ? 2 : 1);
        if (wide)
            wide_step(a + p, t->a_row, rest, TILE * GEMM_PANEL);
        else
            square_step(a + p, t->a_row, rest);
    }
    if (whole && n + width <= t->cols && !t->bias && !t->add && !t->turned) {
        chains_end(t->c + i0 * t->c_row + n, t->c_row, wide);
        return;
    }
    chains_end(part, width, wide);
    if (t->turned)
        put_turned(part, t->c + n * t->c_row + i0, t->c_row, t->cols - n < width ? t->cols - n : width, rows,
                   t->bias ? t->bias + i0 : NULL, t->add);
    else
        put(part, width, t->c + i0 * t->c_row + n, t->c_row, rows, t->cols - n, t->bias ? t->bias + n : NULL, t->add);
}

/* Rows by thirty-twos, panel by panel, which then stays in the first-level cache; sixteen or fewer that are left over
 * all panels, two by two (turned: none, rows are whole squares). */
static TILES void multiply(const struct bf16_block *t)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } whole = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    int64_t squares = (t->m + TILE - 1) / (2 * TILE) * (2 * TILE);

    _tile_loadconfig(&whole);
    for (int64_t n = 0; squares && n < t->n; n += GEMM_PANEL)
        for (int64_t i = 0; i < squares; i += 2 * TILE)
            run(t, i, n, false);
    for (int64_t n = 0; squares < t->m && n < t->n; n += WIDE)
        run(t, squares, n, true);
    _tile_release();            /* so that nobody has them to save */
}

void ISA_NAME(gemm_amx)(const struct gemm *g)
{
    bf16_gemm(g, &(struct bf16_unit) {.rows = GEMM_BF16_ROWS, .by_rows = true, .multiply = multiply});
}
#endif
