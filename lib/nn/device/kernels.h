/* kernels.h - what a device can do: memory, streams, and one entry per op's inner loop. The .cu files fill it.
 *
 * Pointers are device memory unless said otherwise; `type` says what the activations are. `y =` assigns, `dx +=` accumulates,
 * as in nn/cpu/kernels.h, whose entries these mirror. Parameters and their gradients are fp32 (`const float *`, `float *`).
 * Everything is put on `stream` and returns at once, but for download and wait. Failure rule: 0 or -errno (nn/device/device.h);
 * an error of an earlier launch may come out of a later call. Dimensions: any, also odd; indices are 64 bits wide where
 * a product of two dimensions can pass 2^31. No entry allocates. Equal calls give equal bits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum device_type { DEVICE_F32, DEVICE_BF16 };
static inline size_t device_element(enum device_type type) { return type == DEVICE_BF16 ? 2 : 4; }

enum device_activation {
    DEVICE_GELU,
    DEVICE_QUICK_GELU,
    DEVICE_RELU,
    DEVICE_SILU,
    DEVICE_TANH,
    DEVICE_SIGMOID,
    DEVICE_SOFTPLUS,
    DEVICE_CLAMP,
};

struct device_facts {
    char name[80];
    int major, minor, processors; /* compute capability; multiprocessors */
    size_t memory, memory_free;   /* bytes */
    double clock_hz, bandwidth;   /* of the memory: bytes/s, 0: unknown */
    int driver, runtime;          /* CUDA versions, 1000 major + 10 minor */
};

/* C (m,n) = alpha op(A) op(B) (+ C) (+ bias). Rows are ld elements apart. op(A) is (m,k): A as stored, or, transposed, stored
 * (k,m); op(B) is (k,n): as stored, or, transposed, stored (n,k). Sums in fp32, every output one chain over ascending k in the
 * own kernel. A batch: as many products whose operands lie so many elements apart, without a bias; 0 and 1 mean one. */
struct device_gemm {
    int64_t m, n, k;
    int64_t batch, a_apart, b_apart, c_apart;
    const void *a, *b;
    void *c;
    int64_t a_row, b_row, c_row;
    enum device_type a_type, b_type, c_type;
    bool a_transposed, b_transposed, add;
    float alpha;
    const float *bias;     /* (n) or NULL */
    const void *bias_half; /* the same as bf16, for libraries that want c_type; NULL: there is none */
};

/* Softmax attention within packed sequences. Sequence i has keys start[i] .. start[i+1]-1 and, as its last rows, queries
 * asking[i] .. asking[i+1]-1 (row numbers of q and out). Causal: query r of a rows of keys sees keys up to its own place. */
struct device_attention {
    int n, heads, group; /* group: heads of q per head of k and v */
    int64_t dim;         /* of a head, at most 128 */
    bool causal;
    float scale;
    const int32_t *start, *asking;           /* [n+1] each */
    const int32_t *start_here, *asking_here; /* the same in the host's memory, for libraries; NULL: not there */
    int64_t longest, longest_asking, q_rows;
    bool alike; /* all sequences have `longest` keys and `longest_asking` queries: libraries take nothing else */
    int64_t q_stride, kv_stride, out_stride; /* elements between rows */
    const void *q, *k, *v;
    void *out;
    float *lse;       /* log of the sum of exponentials, [heads][its queries] sequence after sequence; NULL in inference */
    const void *dout; /* backward: dq, dk, dv lie like q, k, v and are +=, or, fresh, = for every row of the call's sequences */
    void *dq, *dk, *dv;
    bool fresh;
    float *delta; /* [heads][q_rows] scratch */
};

/* One query row per sequence against its slot of the cache: k, v [slots][capacity][width]; group as above. */
struct device_decode {
    int64_t rows, dim, capacity, width;
    int heads, group;
    float scale;
    const int32_t *slot, *position; /* [rows] */
    const void *q, *k, *v;          /* q (rows, heads*dim) */
    void *out;
};

struct device_adamw {
    float beta1, rest1, beta2, rest2, rate, root2, eps, decay, grad_scale;
};

struct device_kernels {
    const char *name;

    /* ---- the machine */
    int (*devices)(void); /* how many; 0 without a driver */
    /* Make it this thread's; facts may be NULL. why: a sentence on failure. */
    int (*use)(int ordinal, struct device_facts *facts, char *why, size_t why_size);
    int (*memory)(size_t *ret_free, size_t *ret_all); /* bytes of this thread's device; free: of all processes on it */
    int (*stream_new)(void **ret);
    void (*stream_free)(void *stream);
    int (*alloc)(size_t bytes, void **ret);
    void (*release)(void *memory);           /* NULL is fine */
    int (*pinned)(size_t bytes, void **ret); /* host memory that copies run from without waiting */
    void (*unpin)(void *memory);
    int (*upload)(void *stream, void *device, const void *host, size_t bytes);
    int (*download)(void *stream, void *host, const void *device, size_t bytes); /* waits */
    int (*copy)(void *stream, void *to, const void *from, size_t bytes);         /* not overlapping */
    int (*zero)(void *stream, void *memory, size_t bytes);
    int (*wait)(void *stream);
    int (*done)(void *stream); /* 1: all that was put on it has been carried out, 0: not yet */
    const char *(*last_error)(void); /* the driver's words of the last failure of this thread */
    /* Graphs: what is put on the stream between begin and end is kept and can be launched again. Without: NULL. */
    int (*capture_begin)(void *stream);
    int (*capture_end)(void *stream, void **ret_graph);
    int (*graph_launch)(void *stream, void *graph);
    void (*graph_free)(void *graph);
    /* A place on a stream, to wait for from another (what comes next on it begins after what was marked), or to measure seconds
     * between two, by the device's clock. An event may be marked again: who waits already, waits for the old place. */
    int (*event_new)(void **ret);
    void (*event_free)(void *event);
    int (*event_mark)(void *stream, void *event);
    int (*stream_wait)(void *stream, void *event);
    int (*event_seconds)(void *from, void *to, double *ret); /* waits for both */

    /* ---- element by element */
    int (*convert)(void *stream, enum device_type to_type, void *to, enum device_type type, const void *from, int64_t n);
    int (*add)(void *stream, enum device_type type, void *y, const void *a, const void *b, int64_t n);
    int (*accumulate)(void *stream, enum device_type type, void *y, const void *x, int64_t n);
    int (*scale)(void *stream, enum device_type type, void *x, float factor, int64_t n);
    int (*residual)(void *stream, enum device_type type, void *y, const void *residual, const void *branch, const float *scale,
                    int64_t rows, int64_t cols);
    /* dbranch += scale dy; dscale += sum over rows of dy branch; either may be NULL. */
    int (*residual_backward)(void *stream, enum device_type type, void *dbranch, float *dscale, const void *dy,
                             const void *branch, const float *scale, int64_t rows, int64_t cols);
    int (*activation)(void *stream, enum device_type type, enum device_activation kind, void *y, const void *x, int64_t n,
                      float low, float high);
    int (*activation_backward)(void *stream, enum device_type type, enum device_activation kind, void *dx, const void *dy,
                               const void *x, int64_t n, float low, float high);
    int (*swiglu)(void *stream, enum device_type type, void *y, const void *gate, const void *up, int64_t n);
    /* dgate, dup = or, with add, += */
    int (*swiglu_backward)(void *stream, enum device_type type, void *dgate, void *dup, const void *dy, const void *gate,
                           const void *up, int64_t n, bool add);
    /* sum[c] += sum over rows of x[r * row + c], in a fixed tree. */
    int (*column_sum)(void *stream, enum device_type type, float *sum, const void *x, int64_t row, int64_t rows, int64_t cols);

    /* ---- norms: statistics (rows) are kept for the way back; dx, dweight, dbias may be NULL */
    int (*layernorm)(void *stream, enum device_type type, void *y, float *mean, float *rstd, const void *x, const float *weight,
                     const float *bias, float eps, int64_t rows, int64_t cols);
    int (*layernorm_backward)(void *stream, enum device_type type, void *dx, float *dweight, float *dbias, const void *dy,
                              const void *x, const float *weight, const float *mean, const float *rstd, int64_t rows,
                              int64_t cols);
    int (*rmsnorm)(void *stream, enum device_type type, void *y, float *rstd, const void *x, const float *weight, float eps,
                   int64_t rows, int64_t cols);
    /* sum = residual + branch, y = its rmsnorm: one pass over both. */
    int (*residual_rmsnorm)(void *stream, enum device_type type, void *y, void *sum, float *rstd, const void *residual,
                            const void *branch, const float *weight, float eps, int64_t rows, int64_t cols);
    int (*rmsnorm_backward)(void *stream, enum device_type type, void *dx, float *dweight, const void *dy, const void *x,
                            const float *weight, const float *rstd, int64_t rows, int64_t cols);

    /* ---- rows */
    /* y[r * y_row + c] = (or +=) x[r * x_row + c] */
    int (*copy_rows)(void *stream, enum device_type type, void *y, int64_t y_row, const void *x, int64_t x_row, int64_t rows,
                     int64_t cols, bool add);
    /* y[r * y_row + c] = value[c] */
    int (*broadcast)(void *stream, enum device_type type, void *y, int64_t y_row, const float *value, int64_t rows, int64_t cols);
    /* y[i] = x[i] + value[i % cycle] */
    int (*add_cycle)(void *stream, enum device_type type, void *y, const void *x, const float *value, int64_t cycle, int64_t n);
    /* Row i = a[index[i]], or b[-1 - index[i]] when negative. */
    int (*splice)(void *stream, enum device_type type, void *y, const void *a, const void *b, const int32_t *index, int64_t n,
                  int64_t cols);
    /* Row rows[j] of y += the sum, in order, of x's rows from[begin[j]] .. from[begin[j+1]-1]; y fp32 or `type`. */
    int (*scatter)(void *stream, enum device_type y_type, void *y, enum device_type type, const void *x, const int32_t *rows,
                   const int32_t *begin, const int32_t *from, int64_t n, int64_t cols);
    /* Row i = table[ids[i]], zeros for -1. */
    int (*embedding)(void *stream, enum device_type type, void *y, enum device_type table_type, const void *table,
                     const int32_t *ids, int64_t n, int64_t cols);
    /* Rotate pairs of the first `heads` heads of each row in place: angles are row position[i] of `table`, or row i when NULL. */
    int (*rope)(void *stream, enum device_type type, void *x, int64_t row, const int32_t *position, const float *table,
                int64_t rows, int heads, int64_t dim, float direction);
    /* Rotate q and k (rows, heads*dim) in place as rope does, then append k and v to the cache as kv_append does, width =
     * heads*dim. */
    int (*rope_append)(void *stream, enum device_type type, void *q, void *k, const void *v, void *cache_k, void *cache_v,
                       const int32_t *slot, const int32_t *position, const float *table, int64_t rows, int heads, int64_t dim,
                       int64_t capacity);
    int (*kv_append)(void *stream, enum device_type type, void *cache_k, void *cache_v, const void *k, const void *v,
                     const int32_t *slot, const int32_t *position, int64_t rows, int64_t width, int64_t capacity);
    /* Patches of b pictures u8 [b][height][width][3], value lut[c][u8]. */
    int (*patches)(void *stream, enum device_type type, void *y, const uint8_t *images, const float *lut, int b, int height,
                   int width, int patch);
    /* Pillow's bicubic, one pass: along x (u8 (rows, in, 3) -> (rows, out, 3)) or along y (u8 (in, cols) -> (out, cols), cols = 3
     * width). begin, count [out]; weights [out][taps] with 22 bits behind the point (image_taps_init). */
    int (*resize_pass)(void *stream, uint8_t *y, const uint8_t *x, bool along_x, int64_t rows, int64_t in, int64_t out,
                       int64_t cols, const int32_t *begin, const int32_t *count, const int32_t *weights, int taps);

    /* ---- products and attention */
    int (*gemm)(void *stream, const struct device_gemm *g);
    /* The same of few bf16 rows; another order of sums, in which a row's bits depend on neither m nor n. -ENOTSUP: not one that
     * narrow_takes (nn/device/narrow.h). Without: NULL. */
    int (*gemm_narrow)(void *stream, const struct device_gemm *g);
    int (*attention)(void *stream, enum device_type type, const struct device_attention *a);
    int (*attention_backward)(void *stream, enum device_type type, const struct device_attention *a);
    int (*attention_decode)(void *stream, enum device_type type, const struct device_decode *a);

    /* ---- heads, losses, sampling, optimiser */
    /* log_probs (rows, cols) fp32 = log softmax(logits * inverse_temperature); logp, entropy, kl (rows). ref (rows, cols) or
     * NULL. */
    int (*token_stats)(void *stream, enum device_type type, float *log_probs, float *logp, float *entropy, float *kl,
                       const void *logits, const int32_t *target, const float *ref, float inverse_temperature, int64_t rows,
                       int64_t cols);
    /* gradients, stats: (3, rows) dlogp dentropy dkl, (2, rows) entropy kl. */
    int (*token_stats_backward)(void *stream, enum device_type type, void *dlogits, const float *log_probs, const float *ref,
                                const int32_t *target, const float *gradients, const float *entropy, const float *kl,
                                float inverse_temperature, int64_t rows, int64_t cols);
    /* As sample_rows in nn/ops.h; log_probs (rows, cols) fp32 is written too. */
    int (*sample)(void *stream, enum device_type type, float *log_probs, int32_t *column, float *logp, float *entropy,
                  const void *logits, const float *temperature, const float *uniform, int64_t rows, int64_t cols);
    int (*adamw)(void *stream, float *value, float *m, float *v, const float *grad, int64_t n, const struct device_adamw *c);
    /* *sum (one double) += sum of squares, in a fixed tree; parts: DEVICE_NORM_PARTS doubles of scratch. */
    int (*sum_squares)(void *stream, double *sum, double *parts, const float *x, int64_t n);
};
enum { DEVICE_NORM_PARTS = 1024, DEVICE_MAX_HEAD = 128 };

#ifdef __cplusplus
}
#endif
