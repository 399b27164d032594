/* ops.h - everything a model is made of. One op = one file in lib/nn/ops/ (forward + backward; the inner
 * loops are in lib/nn/cpu/kernels/, compiled per instruction set and equal to the bit on all of them).
 *
 * Activations are (rows, cols) fp32; a row is a token unless said otherwise. Sequences of different length
 * are packed: `struct spans` says where each begins; nothing is padded. Every op: NULL in -> NULL out. */
#pragma once

#include "nn/tape.h"

/* n sequences packed one after the other: sequence i is rows start[i] .. start[i+1]-1. */
struct spans {
    int n;
    const int32_t *start;       /* n+1 entries, start[0] == 0; borrowed for the pass */
};

/* ---- linear algebra ------------------------------------------------------------------------------- */

/* y = x W^T (+ b).  x (N,in), W [out][in], b [out] or NULL -> (N,out).  One FMA chain over ascending k per
 * output, from 0 (bias added last). A weight with an adapter (nn/param.h) adds scale (x A^T) B^T, unless the tape is plain. */
struct tensor *op_linear(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias);
/* The same of several weights that read the same x, in this order. When nothing learns, all have adapters and these are joined
 * (nn/lora_join.h), one product gives what all of them make of x. false: failed, as NULL of the others. */
struct linear_use { const struct param *weight, *bias; };
bool op_linears(struct tape *t, struct tensor *x, const struct linear_use *use, int n, struct tensor **ret);
/* Rows first..first+count-1 of W only (a head over 256 action ids) -> (N,count). */
struct tensor *op_linear_rows(struct tape *t, struct tensor *x, const struct param *weight, int64_t first, int64_t count);
/* Rows ids[0..n-1] of W, in that order, which need not be packed (two words' logits out of a vocabulary) -> (N,n). */
struct tensor *op_linear_picked(struct tape *t, struct tensor *x, const struct param *weight, const int32_t *ids, int64_t n);
struct tensor *op_add(struct tape *t, struct tensor *a, struct tensor *b);
/* residual + scale * branch; scale [cols] or NULL for 1 (LayerScale). */
struct tensor *op_residual(struct tape *t, struct tensor *residual, struct tensor *branch, const struct param *scale);
/* The same, where nobody else wants x any more: x itself becomes the sum on a device where nobody goes back (nor computes it
 * again). */
struct tensor *op_add_to(struct tape *t, struct tensor *x, struct tensor *branch, const struct param *scale);

/* ---- norms and activations ---------------------------------------------------------------------- */
struct tensor *op_layernorm(struct tape *t, struct tensor *x, const struct param *weight, const struct param *bias, float eps);
struct tensor *op_rmsnorm(struct tape *t, struct tensor *x, const struct param *weight, float eps);
/* op_rmsnorm of *ret_sum = residual + branch. On a device, where nobody goes back, one kernel; its bits are those of the two. */
struct tensor *op_residual_rmsnorm(struct tape *t, struct tensor *residual, struct tensor *branch, const struct param *weight,
                                   float eps, struct tensor **ret_sum);
/* x += branch, y = its rmsnorm, in memory that is there: a step's layers then leave nothing behind. Inference only; bits as
 * above. */
int op_add_rmsnorm(struct tape *t, struct tensor *x, struct tensor *branch, const struct param *weight, float eps,
                   struct tensor *y);
struct tensor *op_gelu(struct tape *t, struct tensor *x);                          /* exact, by erf */
struct tensor *op_quick_gelu(struct tape *t, struct tensor *x);                    /* x sigmoid(1.702 x) */
struct tensor *op_relu(struct tape *t, struct tensor *x);
struct tensor *op_swiglu(struct tape *t, struct tensor *gate, struct tensor *up);  /* silu(gate) * up */
struct tensor *op_clamp(struct tape *t, struct tensor *x, float low, float high);  /* no gradient beyond the limits */

/* ---- vision ---------------------------------------------------------------------------------------- */

/* B pictures (u8 [B][H][W][3]) to be cut into patches, P = (H/p)*(W/p) each, row-major over the grid; borrowed. */
struct pictures {
    const uint8_t *const *images;
    int b, height, width, patch;
    int picked;                 /* from here on by pictures_look; pick NULL: all B*P patches are taken as they come */
    int32_t *pick;              /* [picked] the number of each different patch, of B*P */
    int32_t *index;             /* [B*P] which of the picked ones stands there */
};
/* Find patches that are there several times (on the CPU), for the pass. In a dry run none is: the size is that of the worst case.
 * 0 or tape->error. */
int pictures_look(struct tape *t, struct pictures *p);
/* The patches, or the picked ones, normalised by lut[3][256]: value = lut[c][u8].
 * -> (picked or B*P, 3*p*p), columns in order c,ky,kx (the conv weight's). */
struct tensor *op_patches(struct tape *t, const struct pictures *p, const float *lut);
/* What was made of the picked patches, row by row, at every place: (picked, d) -> (B*P, d). */
struct tensor *op_every_patch(struct tape *t, struct tensor *x, const struct pictures *p);
/* x (B*P, d) + position [.,P,d] for every picture. */
struct tensor *op_add_positions(struct tape *t, struct tensor *x, const struct param *position, int b);
/* Put `tokens` (cls [1,1,d], reg [1,r,d]; either may be NULL) before each picture's P rows: (B*P,d) -> (B*(n+P),d). */
struct tensor *op_prepend(struct tape *t, struct tensor *x, const struct param *cls, const struct param *reg, int b);
struct tensor *op_strip(struct tape *t, struct tensor *x, int b, int prefix);      /* the way back */
struct tensor *op_concat(struct tape *t, struct tensor *a, struct tensor *b);      /* columns of a, then of b */
/* x (n*P, d): row r of picture i is x (1 + gamma[i]) + beta[i], gamma and beta (n, d). */
struct tensor *op_film(struct tape *t, struct tensor *x, struct tensor *gamma, struct tensor *beta, int n);
/* Mean over the rows of each span, none empty -> (spans.n, cols). */
struct tensor *op_span_means(struct tape *t, struct tensor *x, struct spans spans);
/* `group` rows side by side: (N, d) -> (N/group, group*d). */
struct tensor *op_merge(struct tape *t, struct tensor *x, int group);

/* ---- sequences ------------------------------------------------------------------------------------- */

enum { EMBEDDING_ZERO = -1 };
/* Rows of `table` [V][d] -> (n,d); a row of zeros for EMBEDDING_ZERO. Backward adds in row order: deterministic. */
struct tensor *op_embedding(struct tape *t, const struct param *table, const int32_t *ids, int64_t n);
/* Row i of the result is a[index[i]] if index[i] >= 0, else b[-1-index[i]]: splices patches into text. */
struct tensor *op_splice(struct tape *t, struct tensor *a, struct tensor *b, const int32_t *index, int64_t n);
/* Row i of the result is x[index[i]]; a row may be taken several times (gradients add in order). */
struct tensor *op_gather(struct tape *t, struct tensor *x, const int32_t *index, int64_t n);
/* Half-split rotation of each head by position[i] of row i, in place: returns x itself, rotated. x must be what a linear op
 * made, not yet used by another op. cols = heads*dim. */
struct tensor *op_rope(struct tape *t, struct tensor *x, const int32_t *position, int heads, float theta);
/* The same with angles of one's own: row i of `table` (N, dim) is cos (dim/2), then sin (dim/2); borrowed for the pass, NULL in
 * a dry run. The first `heads` heads of each row are rotated, the columns behind them stay (v beside q and k). In place. */
struct tensor *op_rope_table(struct tape *t, struct tensor *x, const float *table, int heads, int64_t dim);

enum attention_mask { ATTENTION_FULL, ATTENTION_CAUSAL };
/* Softmax(q k^T / sqrt(dim)) v within each sequence. q (N, heads*dim) -> (N, heads*dim). k and v alike, or with fewer heads, each
 * serving heads/kv_heads neighbouring ones of q (grouped queries). */
struct tensor *op_attention(struct tape *t, struct tensor *q, struct tensor *k, struct tensor *v, struct spans spans, int heads,
                            enum attention_mask mask);
/* Causal, but only the last rows of each sequence ask: tail says how many (its spans are those of q and of the result). */
struct tensor *op_attention_tail(struct tape *t, struct tensor *q, struct tensor *k, struct tensor *v, struct spans spans,
                                 struct spans tail, int heads);
/* op_attention with q,k,v side by side in one (N, 3*heads*dim) tensor (timm's qkv). */
struct tensor *op_attention_qkv(struct tape *t, struct tensor *qkv, struct spans spans, int heads, enum attention_mask mask);

/* ---- decoding (inference only) ------------------------------------------------------------------------ */

/* Keys and values of past positions, one slot per sequence: v [slots][capacity][heads*dim], k transposed
 * [slots][heads*dim][capacity] (only op_kv_append and op_attention_decode look inside). */
struct kv_cache {
    float *k, *v;
    int slots, capacity, width;         /* width = heads*dim */
    int32_t *length;                    /* [slots] positions held */
};
/* Append row i of k, v to slot[i] (rows of one slot in order). Lengths are advanced by the caller once all layers have run. */
int op_kv_append(struct tape *t, struct kv_cache *cache, struct tensor *k, struct tensor *v, const int32_t *slot,
                 const int32_t *position);
/* op_rope of q and k by position[i], in place, then op_kv_append of k and v: one kernel on a device. */
int op_rope_append(struct tape *t, struct kv_cache *cache, struct tensor *q, struct tensor *k, struct tensor *v,
                   const int32_t *slot, const int32_t *position, int heads, float theta);
/* One query row per sequence against everything its slot holds up to position[i]: (n, heads*dim). Equal to the bit to
 * op_attention's row of the same position. */
struct tensor *op_attention_decode(struct tape *t, struct tensor *q, const struct kv_cache *cache, const int32_t *slot,
                                   const int32_t *position, int heads);

/* ---- heads, losses, sampling -------------------------------------------------------------------------- */

/* Statistics of softmax(logits / temperature) at each row for the id target[i] (column of logits): outputs are arrays in
 * tape memory. The losses are made elsewhere (lib/rl), which writes dlogp, dentropy, dkl; the backward turns them into
 * gradients of the logits. ref_logp (N,V) log-probabilities of a reference, or NULL: kl stays 0. */
struct token_stats {
    int64_t rows;
    float *logp, *entropy, *kl;         /* (N): log p(target), entropy, sum_v p (log p - log p_ref) */
    float *dlogp, *dentropy, *dkl;      /* (N): written by the caller before tape_backward; zero at first */
    float *log_probs;                   /* (N,V) all log-probabilities (for a reference); kept for the pass: token_log_probs */
    bool there;                         /* log_probs lie on the tape's device */
};
struct token_stats *op_token_stats(struct tape *t, struct tensor *logits, const int32_t *target, float temperature,
                                   const float *ref_logp);
/* log_probs on the host, (N, cols); NULL: tape->error. */
const float *token_log_probs(struct tape *t, const struct token_stats *stats, int64_t cols);

/* The same of numbers: target[i] under a Laplace distribution with middle m[i] and scale T * exp(log_scale[i]), all of n numbers
 * in row-major order. log_probs is (n, 2): middle and log of the tempered scale; ref is what log_probs was for the reference. */
struct token_stats *op_laplace_stats(struct tape *t, struct tensor *middle, struct tensor *log_scale, const float *target,
                                     float temperature, const float *ref);
/* For one number; scale: the log of the tempered scale. uniform in [0,1). */
float laplace_logp(float x, float middle, float scale);
float laplace_entropy(float scale);
float laplace_draw(float uniform, float middle, float scale);

/* Stop the gradient here: same numbers, no way back. */
struct tensor *op_detach(struct tape *t, struct tensor *x);
/* Each `width` columns `times` times in a row, of an input that wants no gradient: (N, d) -> (N, times*d). */
struct tensor *op_repeat(struct tape *t, struct tensor *x, int64_t width, int64_t times);
/* a (N,c1) and constant columns extra (N,c2) side by side. extra is borrowed. */
struct tensor *op_append_constant(struct tape *t, struct tensor *a, const float *extra, int64_t extra_cols);
/* The same numbers in row-major order as (rows, cols); rows * cols stays. */
struct tensor *op_reshape(struct tape *t, struct tensor *x, int64_t rows, int64_t cols);

/* Sample one column per row from softmax(logits/temperature) with the given uniform in [0,1) (inverse CDF over ascending
 * columns, accumulated in double), or the lowest arg-max when temperature == 0. ret_logp: of the tempered distribution
 * (at temperature 0: of the untempered one), computed as op_token_stats does. ret_entropy may be NULL. The logits are
 * overwritten with their log-probabilities. */
void sample_rows(float *logits, int64_t rows, int64_t cols, const float *temperature, const float *uniform,
                 int32_t *ret_column, float *ret_logp, float *ret_entropy);
