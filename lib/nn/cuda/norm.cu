/* norm.cu - LayerNorm and RMSNorm: a block per row; gradients of weight and bias: a block per 32 columns. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = 256 };

/* f(column, x) for this thread's share of a row. */
template <class T, class F> DEV void each(const T *x, int64_t cols, bool wide, F f)
{
    enum { N = pack<T>::N };

    if (!wide) {
        for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
            f(c, load(&x[c]));
        return;
    }
    for (int64_t c = (int64_t)threadIdx.x * N; c < cols; c += (int64_t)blockDim.x * N) {
        pack<T> p = *reinterpret_cast<const pack<T> *>(x + c);

        for (int k = 0; k < N; k++)
            f(c + k, load(&p.v[k]));
    }
}

/* y = f(column, x, y); `reads`: y is looked at. The share is that of each(). */
template <class T, class F> DEV void each_store(T *y, const T *x, int64_t cols, bool wide, bool reads, F f)
{
    enum { N = pack<T>::N };

    if (!wide) {
        for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
            store(&y[c], f(c, load(&x[c]), reads ? load(&y[c]) : 0.0f));
        return;
    }
    for (int64_t c = (int64_t)threadIdx.x * N; c < cols; c += (int64_t)blockDim.x * N) {
        pack<T> p = *reinterpret_cast<const pack<T> *>(x + c), q = p;

        if (reads)
            q = *reinterpret_cast<const pack<T> *>(y + c);
        for (int k = 0; k < N; k++)
            store(&q.v[k], f(c + k, load(&p.v[k]), load(&q.v[k])));
        *reinterpret_cast<pack<T> *>(y + c) = q;
    }
}

template <class T>
static __global__ void layernorm_kernel(T *y, float *mean, float *rstd, const T *x, const float *weight, const float *bias,
                                        float eps, int64_t cols, bool wide)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float sum = 0.0f, square = 0.0f, m, s;

    x += r * cols;
    y += r * cols;
    each(x, cols, wide, [&](int64_t, float a) { sum += a; });
    m = block_sum(sum, part) / (float)cols;
    each(x, cols, wide, [&](int64_t, float a) { square = fmaf(a - m, a - m, square); });
    s = 1.0f / sqrtf(block_sum(square, part) / (float)cols + eps);
    each_store(y, x, cols, wide, false, [&](int64_t c, float a, float) { return fmaf((a - m) * s, weight[c], bias[c]); });
    if (threadIdx.x == 0) {
        mean[r] = m;
        rstd[r] = s;
    }
}

template <class T>
static __global__ void layernorm_backward_kernel(T *dx, const T *dy, const T *x, const float *weight, const float *mean,
                                                 const float *rstd, int64_t cols, bool wide)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float m = mean[r], s = rstd[r], sum = 0.0f, dot = 0.0f, c1, c2;

    x += r * cols;
    dy += r * cols;
    dx += r * cols;
    each(dy, cols, wide, [&](int64_t c, float d) {
        float g = d * weight[c];

        sum += g;
        dot = fmaf(g, (load(&x[c]) - m) * s, dot);
    });
    c1 = block_sum(sum, part) / (float)cols;
    c2 = block_sum(dot, part) / (float)cols;
    each_store(dx, dy, cols, wide, true, [&](int64_t c, float d, float old) {
        float h = (load(&x[c]) - m) * s;

        return fmaf(s, fmaf(-h, c2, d * weight[c] - c1), old);
    });
}

/* PACKS > 0: a thread keeps its share of the row, so many times sixteen bytes, in registers between the passes; else it reads it again, each thread what it has
 * written itself. sum may be x. */
template <class T, int PACKS>
static __global__ void rmsnorm_kernel(T *y, T *sum, float *rstd, const T *x, const T *branch, const float *weight, float eps,
                                      int64_t cols, bool wide)
{
    enum { N = pack<T>::N };
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float square = 0.0f, s;
    pack<T> kept[PACKS > 0 ? PACKS : 1];

    x += r * cols;
    y += r * cols;
    branch = branch ? branch + r * cols : nullptr;
    sum = branch ? sum + r * cols : nullptr;
    if (PACKS > 0) {
        UNROLL("unroll")
        for (int i = 0; i < PACKS; i++) {
            int64_t c = ((int64_t)i * blockDim.x + threadIdx.x) * N;

            if (c >= cols)
                continue;
            kept[i] = *reinterpret_cast<const pack<T> *>(x + c);
            if (branch) {
                pack<T> b = *reinterpret_cast<const pack<T> *>(branch + c);

                for (int k = 0; k < N; k++)
                    store(&kept[i].v[k], load(&kept[i].v[k]) + load(&b.v[k]));
                *reinterpret_cast<pack<T> *>(sum + c) = kept[i];
            }
            for (int k = 0; k < N; k++)
                square = fmaf(load(&kept[i].v[k]), load(&kept[i].v[k]), square);
        }
    } else {
        if (branch) {
            each_store(sum, x, cols, wide, false, [&](int64_t c, float a, float) { return a + load(&branch[c]); });
            x = sum;
        }
        each(x, cols, wide, [&](int64_t, float a) { square = fmaf(a, a, square); });
    }
    s = 1.0f / sqrtf(block_sum(square, part) / (float)cols + eps);
    if (PACKS > 0) {
        UNROLL("unroll")
        for (int i = 0; i < PACKS; i++) {
            int64_t c = ((int64_t)i * blockDim.x + threadIdx.x) * N;

            if (c >= cols)
                continue;
            for (int w = 0; w < N; w += 4) {
                float4 of = *reinterpret_cast<const float4 *>(weight + c + w);

                store(&kept[i].v[w], load(&kept[i].v[w]) * s * of.x);
                store(&kept[i].v[w + 1], load(&kept[i].v[w + 1]) * s * of.y);
                store(&kept[i].v[w + 2], load(&kept[i].v[w + 2]) * s * of.z);
                store(&kept[i].v[w + 3], load(&kept[i].v[w + 3]) * s * of.w);
            }
            *reinterpret_cast<pack<T> *>(y + c) = kept[i];
        }
    } else {
        each_store(y, x, cols, wide, false, [&](int64_t c, float a, float) { return a * s * weight[c]; });
    }
    if (threadIdx.x == 0 && rstd)
        rstd[r] = s;
}

template <class T>
static __global__ void rmsnorm_backward_kernel(T *dx, const T *dy, const T *x, const float *weight, const float *rstd,
                                               int64_t cols, bool wide)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float s = rstd[r], dot = 0.0f, c2;

    x += r * cols;
    dy += r * cols;
    dx += r * cols;
    each(dy, cols, wide, [&](int64_t c, float d) { dot = fmaf(d * weight[c], load(&x[c]) * s, dot); });
    c2 = block_sum(dot, part) / (float)cols;
    each_store(dx, dy, cols, wide, true,
               [&](int64_t c, float d, float old) { return fmaf(s, fmaf(-(load(&x[c]) * s), c2, d * weight[c]), old); });
}

/* dweight += sum over rows of dy xhat, dbias += sum of dy. As column_kernel in elementwise.cu. mean NULL: RMSNorm. */
template <class T>
static __global__ void weight_kernel(float *dweight, float *dbias, const T *dy, const T *x, const float *mean, const float *rstd,
                                     int64_t rows, int64_t cols)
{
    __shared__ float weights[8][33], biases[8][33];
    unsigned lane = threadIdx.x / 32, at = threadIdx.x % 32;
    int64_t c = (int64_t)blockIdx.x * 32 + at;
    float w = 0.0f, b = 0.0f;

    for (int64_t r = lane; r < rows && c < cols; r += 8) {
        float d = load(&dy[r * cols + c]), h = (load(&x[r * cols + c]) - (mean ? mean[r] : 0.0f)) * rstd[r];

        w = fmaf(d, h, w);
        b += d;
    }
    weights[lane][at] = w;
    biases[lane][at] = b;
    __syncthreads();
    if (lane == 0 && c < cols) {
        for (int i = 1; i < 8; i++) {
            w += weights[i][at];
            b += biases[i][at];
        }
        if (dweight)
            dweight[c] += w;
        if (dbias)
            dbias[c] += b;
    }
}

template <class T> static bool wide_rows(int64_t cols, const void *a, const void *b, const void *c)
{
    return cols % pack<T>::N == 0 && aligned16(a) && aligned16(b) && aligned16(c);
}

static unsigned threads_for(int64_t cols) { return cols <= 512 ? 64 : cols <= 2048 ? 128 : THREADS; }

template <class T>
static int layernorm_as(void *stream, void *y, float *mean, float *rstd, const void *x, const float *weight, const float *bias,
                        float eps, int64_t rows, int64_t cols)
{
    LAUNCH(layernorm_kernel<T>, (unsigned)rows, threads_for(cols), 0, stream, (T *)y, mean, rstd, (const T *)x, weight, bias, eps,
           cols, wide_rows<T>(cols, y, x, x));
    return LAUNCHED();
}

static int layernorm(void *stream, enum device_type type, void *y, float *mean, float *rstd, const void *x, const float *weight,
                     const float *bias, float eps, int64_t rows, int64_t cols)
{
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16 ? layernorm_as<bf16>(stream, y, mean, rstd, x, weight, bias, eps, rows, cols)
                               : layernorm_as<float>(stream, y, mean, rstd, x, weight, bias, eps, rows, cols);
}

template <class T>
static int backward_as(void *stream, void *dx, float *dweight, float *dbias, const void *dy, const void *x, const float *weight,
                       const float *mean, const float *rstd, int64_t rows, int64_t cols)
{
    int r = 0;

    if (dx) {
        bool wide = wide_rows<T>(cols, dx, dy, x);

        if (mean)
            LAUNCH(layernorm_backward_kernel<T>, (unsigned)rows, threads_for(cols), 0, stream, (T *)dx, (const T *)dy,
                   (const T *)x, weight, mean, rstd, cols, wide);
        else
            LAUNCH(rmsnorm_backward_kernel<T>, (unsigned)rows, threads_for(cols), 0, stream, (T *)dx, (const T *)dy, (const T *)x,
                   weight, rstd, cols, wide);
        r = LAUNCHED();
    }
    if (r < 0 || (!dweight && !dbias))
        return r;
    LAUNCH(weight_kernel<T>, (unsigned)((cols + 31) / 32), 256, 0, stream, dweight, dbias, (const T *)dy, (const T *)x, mean,
           rstd, rows, cols);
    return LAUNCHED();
}

static int layernorm_backward(void *stream, enum device_type type, void *dx, float *dweight, float *dbias, const void *dy,
                              const void *x, const float *weight, const float *mean, const float *rstd, int64_t rows,
                              int64_t cols)
{
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16 ? backward_as<bf16>(stream, dx, dweight, dbias, dy, x, weight, mean, rstd, rows, cols)
                               : backward_as<float>(stream, dx, dweight, dbias, dy, x, weight, mean, rstd, rows, cols);
}

static int rmsnorm_backward(void *stream, enum device_type type, void *dx, float *dweight, const void *dy, const void *x,
                            const float *weight, const float *rstd, int64_t rows, int64_t cols)
{
    return layernorm_backward(stream, type, dx, dweight, nullptr, dy, x, weight, nullptr, rstd, rows, cols);
}

template <class T>
static int rmsnorm_as(void *stream, T *y, T *sum, float *rstd, const T *x, const T *branch, const float *weight, float eps, int64_t rows, int64_t cols)
{
    unsigned threads = threads_for(cols);
    bool wide = wide_rows<T>(cols, y, x, sum);
    int64_t packs = wide && aligned16(branch) && aligned16(weight) ? (cols + threads * pack<T>::N - 1) / (threads * pack<T>::N) : 0;
    auto kernel = packs == 1 ? rmsnorm_kernel<T, 1> : packs == 2 ? rmsnorm_kernel<T, 2> : packs == 3 || packs == 4 ? rmsnorm_kernel<T, 4> : rmsnorm_kernel<T, 0>;

    LAUNCH(kernel, (unsigned)rows, threads, 0, stream, y, sum, rstd, x, branch, weight, eps, cols, wide);
    return LAUNCHED();
}

static int residual_rmsnorm(void *stream, enum device_type type, void *y, void *sum, float *rstd, const void *res,
                            const void *branch, const float *weight, float eps, int64_t rows, int64_t cols)
{
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16
               ? rmsnorm_as(stream, (bf16 *)y, (bf16 *)sum, rstd, (const bf16 *)res, (const bf16 *)branch, weight, eps, rows, cols)
               : rmsnorm_as(stream, (float *)y, (float *)sum, rstd, (const float *)res, (const float *)branch, weight, eps, rows, cols);
}

static int rmsnorm(void *stream, enum device_type type, void *y, float *rstd, const void *x, const float *weight, float eps,
                   int64_t rows, int64_t cols)
{
    return residual_rmsnorm(stream, type, y, nullptr, rstd, x, nullptr, weight, eps, rows, cols);
}

extern "C" void NAME(fill_norm)(struct device_kernels *k)
{
    k->layernorm = layernorm;
    k->layernorm_backward = layernorm_backward;
    k->rmsnorm = rmsnorm;
    k->residual_rmsnorm = residual_rmsnorm;
    k->rmsnorm_backward = rmsnorm_backward;
}
