/* kernels.h - the inner loops of every op, compiled once per instruction set (lib/nn/cpu/kernels/).
 *
 * cpu_kernels() picks the table once: the best set this CPU has, or the one named by the environment variable GANTRY_ISA
 * (generic | avx2 | avx512 | avx512bf16 | amx | neon; a name the CPU cannot run is ignored, cpu_kernels()->isa tells). All tables
 * give equal bits; avx512bf16 and amx are avx512 and the product of `numerics: fast`, each its own bits; the others have none
 * (NULL).
 * Kernels never allocate and keep no state. Unless said otherwise `y =` assigns and `dx +=` accumulates. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { GEMM_PANEL = 32 };       /* columns of a packed panel */

/* C (m,n) = A B, every output one chain of fused multiply-adds over ascending k starting at 0; then + bias; then, when
 * `add` is set, C += that. Tiles split m and n only, blocks of k go on with the stored chain: no output depends on m or n. */
struct gemm {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_k;         /* floats from A[i][k] to A[i+1][k], and to A[i][k+1] (1: rows; else: a transposed operand) */
    const float *panels;        /* B: panel j holds columns 32j..32j+31, (k,32), zero beyond n */
    int64_t panel_stride;       /* floats (or words) between panels; 0: 32 k (32 ceil(k/2)) */
    /* gemm_bf16: B as panels of (pairs of k, 32) words, each two bf16, the even k below; or as it lies in a file in bf16, (k,n)
     * row-major or (n,k) when transposed, half_row apart: panels are made on the way */
    const uint32_t *pairs;
    const uint16_t *halves;
    int64_t half_row;
    bool half_transposed;
    float *c;
    int64_t c_row;              /* floats between rows of C */
    const float *bias;          /* (n) or NULL */
    bool add;
    float *scratch;             /* m * 32*ceil(n/32) floats for unfinished chains; needed only when gemm_needs_scratch() */
};
enum { GEMM_K_BLOCK = 512 };
static inline bool gemm_needs_scratch(int64_t k) { return k > GEMM_K_BLOCK; }
static inline int64_t gemm_padded(int64_t n) { return (n + GEMM_PANEL - 1) / GEMM_PANEL * GEMM_PANEL; }

/* The product of `numerics: fast`, gemm_bf16: the same, but A and B are rounded to bf16 (to nearest, ties to even; what is below
 * 2^-126 counts as 0), and a chain goes over ascending pairs of k in fp32, each adding two products (amx: sixteen pairs, of which
 * two chains are made first). Again no output depends on m or n. One of a_row, a_k is 1. `scratch` always: gemm_bf16_scratch(),
 * with `halves` gemm_bf16_halves_scratch() floats. */
enum { GEMM_BF16_K_BLOCK = 512, GEMM_BF16_ROWS = 128, GEMM_BF16_COLUMNS = 128 };
/* Words of a panel's column. */
static inline int64_t gemm_pairs(int64_t k) { return (k + 1) / 2; }
/* Floats that A takes, rounded and padded. */
static inline int64_t gemm_bf16_a(int64_t m, int64_t k) { return (m + 15) / 16 * 16 * ((gemm_pairs(k) + 15) / 16 * 16); }
static inline int64_t gemm_bf16_scratch(int64_t m, int64_t n, int64_t k)
{
    return gemm_bf16_a(m < GEMM_BF16_ROWS ? m : GEMM_BF16_ROWS, k < GEMM_BF16_K_BLOCK ? k : GEMM_BF16_K_BLOCK) +
           (k > GEMM_BF16_K_BLOCK ? m * gemm_padded(n) : 0);
}
static inline int64_t gemm_bf16_halves_scratch(int64_t m, int64_t k)
{
    int64_t rows = gemm_padded(m);

    return gemm_bf16_a(rows, k) + GEMM_BF16_COLUMNS * (GEMM_BF16_K_BLOCK / 2 + (k > GEMM_BF16_K_BLOCK ? rows : 0));
}

/* One head of one sequence. Rows of q, k, v, out are their strides apart (their gradients likewise). Queries are the rows from
 * `first` on: q, out, p, inverse and their gradients begin with that row. */
struct attention {
    int64_t rows, first, dim;
    int64_t q_stride, stride, out_stride;       /* stride: of k and v */
    bool causal;
    float scale;
    const float *q, *k, *v;
    float *out;
    float *p;                   /* (rows - first, padded rows): exp(score - row maximum); kept for the way back */
    float *inverse;             /* (rows - first): 1 / sum of p */
    float *scratch;             /* attention_scratch() floats; never holds p */
    const float *dout;          /* backward; dq, dk, dv are += */
    float *dq, *dk, *dv;
};
static inline int64_t attention_scratch(int64_t rows, int64_t dim, bool backward)
{
    int64_t padded = gemm_padded(rows), wide = gemm_padded(dim), unfinished = 12 * wide;
    return backward ? 4 * padded * wide + rows * padded + unfinished : 2 * padded * wide + unfinished;
}
/* One query row, all heads of it, against n cached positions. */
struct attention_decode {
    int64_t n, dim, heads;
    float scale;
    const float *q;             /* (heads, dim) */
    const float *k;             /* (heads, dim, k_stride): transposed, so that neighbours are positions */
    int64_t k_stride;
    const float *v;             /* (n, v_stride), the heads side by side */
    int64_t v_stride;
    float *out;                 /* (heads, dim) */
    float *scratch;             /* attention_decode_scratch() floats */
};
static inline int64_t attention_decode_scratch(int64_t n, int64_t heads) { return heads * ((n + 15) / 16 * 16 + 1); }

struct cpu_kernels {
    const char *isa;

    void (*gemm)(const struct gemm *g);
    /* B (k,n) row-major -> panels; transposed: source is (n,k), i.e. B = source^T. `row` floats between source rows. */
    void (*gemm_pack)(float *panels, const float *source, int64_t row, int64_t k, int64_t n, bool transposed);
    /* The same of a B that is bf16, widened. */
    void (*gemm_pack_bf16)(float *panels, const uint16_t *source, int64_t row, int64_t k, int64_t n, bool transposed);
    /* Both NULL: this CPU has no such instruction. */
    void (*gemm_bf16)(const struct gemm *g);
    void (*gemm_bf16_pack)(uint32_t *panels, const float *source, int64_t row, int64_t k, int64_t n, bool transposed);
    /* rows, cols: of `from` */
    void (*transpose)(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t cols);
    void (*widen)(float *y, const uint16_t *x, int64_t n);                                  /* bf16 -> fp32 */

    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*accumulate)(float *y, const float *x, int64_t n);                                /* y += x */
    void (*accumulate_scaled)(float *y, const float *x, float scale, int64_t n);            /* y += scale x, fused */
    void (*scale)(float *x, float scale, int64_t n);
    /* y = residual + scale * branch by columns; and its gradients (dscale may be NULL: nobody wants it). */
    void (*residual)(float *y, const float *residual, const float *branch, const float *scale, int64_t rows, int64_t cols);
    void (*residual_backward)(float *dbranch, float *dscale, const float *dy, const float *branch, const float *scale,
                              int64_t rows, int64_t cols);
    void (*column_sum)(float *sum, const float *x, int64_t rows, int64_t cols);             /* sum += (sum over ascending rows) */

    void (*gelu)(float *y, const float *x, int64_t n);
    void (*gelu_backward)(float *dx, const float *dy, const float *x, int64_t n);
    void (*quick_gelu)(float *y, const float *x, int64_t n);                                /* x sigmoid(1.702 x) */
    void (*quick_gelu_backward)(float *dx, const float *dy, const float *x, int64_t n);
    void (*relu)(float *y, const float *x, int64_t n);
    void (*relu_backward)(float *dx, const float *dy, const float *x, int64_t n);
    void (*swiglu)(float *y, const float *gate, const float *up, int64_t n);
    void (*swiglu_backward)(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int64_t n);

    /* Statistics per row are kept for the way back: rstd (and mean). dx, dweight, dbias may be NULL. */
    void (*layernorm)(float *y, float *mean, float *rstd, const float *x, const float *weight, const float *bias, float eps,
                      int64_t rows, int64_t cols);
    void (*layernorm_backward)(float *dx, float *dweight, float *dbias, const float *dy, const float *x, const float *weight,
                               const float *mean, const float *rstd, int64_t rows, int64_t cols);
    void (*rmsnorm)(float *y, float *rstd, const float *x, const float *weight, float eps, int64_t rows, int64_t cols);
    void (*rmsnorm_backward)(float *dx, float *dweight, const float *dy, const float *x, const float *weight, const float *rstd,
                             int64_t rows, int64_t cols);

    /* Rotate pairs (i, i + dim/2) of each head by the angle of its row: table [position][dim] = cos (dim/2), sin (dim/2).
     * direction +1 forward, -1 back. In place. */
    void (*rope)(float *x, const int32_t *position, const float *table, int64_t rows, int heads, int64_t dim, float direction);

    void (*attention)(const struct attention *a);
    void (*attention_backward)(const struct attention *a);
    void (*attention_decode)(const struct attention_decode *a);

    /* log_probs = log softmax(logits * inverse_temperature), n columns; may be in place. */
    void (*log_softmax)(float *log_probs, const float *logits, float inverse_temperature, int64_t n);
    void (*exp)(float *y, const float *x, int64_t n);
    void (*sigmoid)(float *y, const float *x, int64_t n);
    void (*erf)(float *y, const float *x, int64_t n);
    void (*log)(float *y, const float *x, int64_t n);
    /* One row of op_token_stats: entropy and KL (against ref, or 0 when NULL) of log-probabilities. */
    void (*token_stats)(const float *log_probs, const float *ref, int64_t n, float *ret_entropy, float *ret_kl);
    /* dlogits += inverse_temperature (dlogp (1[target] - p) - dentropy p (log p + entropy) + dkl p (log p - ref - kl)) */
    void (*token_stats_backward)(float *dlogits, const float *log_probs, const float *ref, int64_t n, int32_t target,
                                 const float stats[2], const float gradients[3], float inverse_temperature);

    /* AdamW over n floats (optim.h). constants: beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t),
     * eps, lr decay, factor on grad. */
    void (*adamw)(float *value, float *m, float *v, const float *grad, int64_t n, const float constants[9]);
};

/* This process's table; never NULL. Any thread. */
const struct cpu_kernels *cpu_kernels(void);
/* The products of `numerics: fast` are there and likely slower than strict ones: Intel's CPUs by VDPBF16PS (docs/performance.md,
 * AMX), where AMX is missing, withheld, or left out by GANTRY_ISA. */
bool cpu_fast_is_slow(void);
/* For tests: the table of that name, or NULL when this CPU cannot run it. */
const struct cpu_kernels *cpu_kernels_named(const char *isa);
