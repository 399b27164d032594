/* bf16.h - the product of `numerics: fast` (kernels.h) in its parts: operands become pairs (bf16_pack.c), loops go over blocks of
 * k and of rows (gemm_bf16.c), and a block is multiplied by VDPBF16PS (gemm_dpbf16.c) or by AMX's tiles (gemm_amx.c).
 * AVX-512 only. */
#pragma once

#include "nn/cpu/kernels/isa.h"

#define FAST __attribute__((target("avx512bf16")))

/* Some rows of A, all in pairs, against some panels of B, within one block of k. */
struct bf16_block {
    int64_t m, n, pairs;        /* n: whole panels */
    const uint32_t *a;          /* word p of row i: a[i * a_row + p * a_pair] */
    int64_t a_row, a_pair;
    const uint32_t *b;          /* panels of (pairs, 32) words, b_next words apart */
    int64_t b_next;
    const float *start;         /* (m,n) unfinished chains, start_row apart, or NULL: zero */
    int64_t start_row;
    float *c;                   /* (m, cols), c_row apart: = chain + bias, or += that. cols <= n */
    int64_t c_row, cols;
    const float *bias;          /* (cols) or NULL; turned: (m) */
    bool add;
    bool turned;                /* c is (cols, m), c_row apart: rows and columns change places. m: whole thirty-twos */
};

/* A way of multiplying. Its results must depend on k and its blocks only: not on m, n, nor where in a block a row stands. */
struct bf16_unit {
    int64_t rows;               /* of A taken at once, at most GEMM_BF16_ROWS */
    bool by_rows;               /* A's words are wanted with a_pair = 1, and to whole sixteens of rows (what they hold is free);
                                 * and it knows `turned` */
    void (*multiply)(const struct bf16_block *block);
};

void bf16_gemm(const struct gemm *g, const struct bf16_unit *unit);

/* A's rows i0..i0+m-1, numbers k0..k0+kn-1, to gemm_bf16_a(m, kn) words, bf16_strides apart; zeros behind a row's end to the next
 * sixteen words. */
void bf16_pack_a(const struct gemm *g, int64_t i0, int64_t m, int64_t k0, int64_t kn, bool by_rows, uint32_t *to);
INLINE void bf16_strides(const struct gemm *g, int64_t m, int64_t kn, bool by_rows, int64_t *ret_row, int64_t *ret_pair)
{
    bool rows = by_rows || g->a_k == 1;

    *ret_row = rows ? (gemm_pairs(kn) + V_LANES - 1) / V_LANES * V_LANES : 1;
    *ret_pair = rows ? 1 : (m + V_LANES - 1) / V_LANES * V_LANES;
}

/* Numbers k0..k0+kn-1 of columns n0..n0+cols-1 of B (g->halves) to panels `stride` words apart. */
void bf16_pack_halves(const struct gemm *g, int64_t k0, int64_t kn, int64_t n0, int64_t cols, uint32_t *panels, int64_t stride);

/* words[i][j] -> to[j * row + i] */
INLINE void turn(uint32_t *to, int64_t row, __m512i words[V_LANES])
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

        _mm512_storeu_si512(to + i * row, _mm512_shuffle_i32x4(low0, low1, 0x88));
        _mm512_storeu_si512(to + (i + 4) * row, _mm512_shuffle_i32x4(high0, high1, 0x88));
        _mm512_storeu_si512(to + (i + 8) * row, _mm512_shuffle_i32x4(low0, low1, 0xdd));
        _mm512_storeu_si512(to + (i + 12) * row, _mm512_shuffle_i32x4(high0, high1, 0xdd));
    }
}
