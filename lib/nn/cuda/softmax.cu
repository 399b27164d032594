/* softmax.cu - log-probabilities of tempered logits, entropy, KL, their way back, and drawing a column. A block per row. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = 256 };

/* log_probs = log softmax(logits * t); returns the maximum's first column through *best when asked. logits may be log_probs. */
template <class T> DEV void log_softmax_row(float *log_probs, const T *logits, float t, int64_t cols, float *part)
{
    float top = -INFINITY, sum = 0.0f, shift;

    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
        float z = load(&logits[c]);

        top = z > top ? z : top;
    }
    top = block_max(top, part);
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
        float z = (load(&logits[c]) - top) * t;

        log_probs[c] = z;
        sum += exp_of(z);
    }
    shift = log_of(block_sum(sum, part));
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
        log_probs[c] -= shift;
}

template <class T>
static __global__ void token_stats_kernel(float *log_probs, float *logp, float *entropy, float *kl, const T *logits,
                                          const int32_t *target, const float *ref, float t, int64_t cols)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float h = 0.0f, d = 0.0f;

    log_probs += r * cols;
    log_softmax_row(log_probs, logits + r * cols, t, cols, part);
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
        float l = log_probs[c], p = exp_of(l);

        h = fmaf(-p, l, h);
        if (ref)
            d = fmaf(p, l - ref[r * cols + c], d);
    }
    h = block_sum(h, part);
    d = block_sum(d, part); /* its barriers also make all of log_probs visible to the block */
    if (threadIdx.x == 0) {
        logp[r] = log_probs[target[r]];
        entropy[r] = h;
        kl[r] = d;
    }
}

static int token_stats(void *stream, enum device_type type, float *log_probs, float *logp, float *entropy, float *kl,
                       const void *logits, const int32_t *target, const float *ref, float inverse_temperature, int64_t rows,
                       int64_t cols)
{
    if (rows <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(token_stats_kernel<bf16>, (unsigned)rows, THREADS, 0, stream, log_probs, logp, entropy, kl, (const bf16 *)logits,
               target, ref, inverse_temperature, cols);
    else
        LAUNCH(token_stats_kernel<float>, (unsigned)rows, THREADS, 0, stream, log_probs, logp, entropy, kl, (const float *)logits,
               target, ref, inverse_temperature, cols);
    return LAUNCHED();
}

template <class T>
static __global__ void token_backward_kernel(T *dlogits, const float *log_probs, const float *ref, const int32_t *target,
                                             const float *gradients, const float *entropy, const float *kl, float t, int64_t rows,
                                             int64_t cols)
{
    int64_t r = blockIdx.x;
    float dlogp = gradients[r], dentropy = gradients[rows + r], dkl = gradients[2 * rows + r];

    if (dlogp == 0.0f && dentropy == 0.0f && dkl == 0.0f)
        return;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
        float l = log_probs[r * cols + c], p = exp_of(l), slope = fmaf(dentropy, l + entropy[r], dlogp), g;

        if (ref)
            slope = fmaf(-dkl, (l - ref[r * cols + c]) - kl[r], slope);
        g = fmaf(-t, p * slope, load(&dlogits[r * cols + c]));
        store(&dlogits[r * cols + c], c == target[r] ? fmaf(t, dlogp, g) : g);
    }
}

static int token_stats_backward(void *stream, enum device_type type, void *dlogits, const float *log_probs, const float *ref,
                                const int32_t *target, const float *gradients, const float *entropy, const float *kl,
                                float inverse_temperature, int64_t rows, int64_t cols)
{
    if (rows <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(token_backward_kernel<bf16>, (unsigned)rows, THREADS, 0, stream, (bf16 *)dlogits, log_probs, ref, target,
               gradients, entropy, kl, inverse_temperature, rows, cols);
    else
        LAUNCH(token_backward_kernel<float>, (unsigned)rows, THREADS, 0, stream, (float *)dlogits, log_probs, ref, target,
               gradients, entropy, kl, inverse_temperature, rows, cols);
    return LAUNCHED();
}

/* The lowest column with the largest logit: every thread its own columns, then thread 0 over the threads. */
template <class T> DEV int32_t argmax_row(const T *logits, int64_t cols, float *value, int32_t *column)
{
    int32_t best = -1;
    float top = -INFINITY;

    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
        if (best < 0 || load(&logits[c]) > top) {
            top = load(&logits[c]);
            best = (int32_t)c;
        }
    value[threadIdx.x] = top;
    column[threadIdx.x] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned i = 1; i < blockDim.x; i++)
            if (column[i] >= 0 && (value[i] > top || (value[i] == top && column[i] < best))) {
                top = value[i];
                best = column[i];
            }
        column[0] = best;
    }
    __syncthreads();
    return column[0];
}

/* The first column whose cumulated probability exceeds u: sums of equal stretches first, then through the right one. */
DEV int32_t draw_row(const float *log_probs, int64_t cols, float u, double *sums, int32_t *column)
{
    int64_t stretch = (cols + blockDim.x - 1) / blockDim.x, from = threadIdx.x * stretch,
            to = from + stretch < cols ? from + stretch : cols;
    double sum = 0.0;

    for (int64_t c = from; c < to; c++)
        sum += exp_of(log_probs[c]);
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double cumulated = 0.0;
        int32_t found = -1, last = 0;
        int64_t at = 0;

        for (; at + 1 < (int64_t)blockDim.x && !(cumulated + sums[at] > u); at++)
            cumulated += sums[at];
        for (int64_t c = at * stretch; c < cols && found < 0; c++) {
            cumulated += exp_of(log_probs[c]);
            if (cumulated > u)
                found = (int32_t)c;
        }
        for (int64_t c = 0; c < cols && found < 0; c++) /* rounding left none: the last with any */
            if (exp_of(log_probs[c]) > 0.0f)
                last = (int32_t)c;
        column[0] = found < 0 ? last : found;
    }
    __syncthreads();
    return column[0];
}

template <class T>
static __global__ void sample_kernel(float *log_probs, int32_t *column, float *logp, float *entropy, const T *logits,
                                     const float *temperature, const float *uniform, int64_t cols)
{
    __shared__ float part[WARP], value[THREADS];
    __shared__ double sums[THREADS];
    __shared__ int32_t columns[THREADS];
    int64_t r = blockIdx.x;
    bool greedy = temperature[r] == 0.0f;
    float h = 0.0f;
    int32_t chosen;

    log_probs += r * cols;
    log_softmax_row(log_probs, logits + r * cols, greedy ? 1.0f : 1.0f / temperature[r], cols, part);
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
        h = fmaf(-exp_of(log_probs[c]), log_probs[c], h);
    h = block_sum(h, part); /* log_probs are whole from here on */
    chosen = greedy ? argmax_row(logits + r * cols, cols, value, columns) : draw_row(log_probs, cols, uniform[r], sums, columns);
    if (threadIdx.x == 0) {
        column[r] = chosen;
        logp[r] = log_probs[chosen];
        entropy[r] = h;
    }
}

static int sample(void *stream, enum device_type type, float *log_probs, int32_t *column, float *logp, float *entropy,
                  const void *logits, const float *temperature, const float *uniform, int64_t rows, int64_t cols)
{
    if (rows <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(sample_kernel<bf16>, (unsigned)rows, THREADS, 0, stream, log_probs, column, logp, entropy, (const bf16 *)logits,
               temperature, uniform, cols);
    else
        LAUNCH(sample_kernel<float>, (unsigned)rows, THREADS, 0, stream, log_probs, column, logp, entropy, (const float *)logits,
               temperature, uniform, cols);
    return LAUNCHED();
}

extern "C" void NAME(fill_softmax)(struct device_kernels *k)
{
    k->token_stats = token_stats;
    k->token_stats_backward = token_stats_backward;
    k->sample = sample;
}
