/* norm.cu - LayerNorm and RMSNorm: a block per row; gradients of weight and bias: a block per 32 columns. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = 256 };

/* A thread's share of a row: N neighbours at a time, every blockDim.x-th time. KEPT > 0: so many times at most, and what was read
 * stays in registers; else it is read again. f(i, column): i counts the times. */
template <int N, int KEPT, class F> DEV void each(int64_t cols, F f)
{
    if (KEPT > 0) {
        UNROLL("unroll")
        for (int i = 0; i < KEPT; i++) {
            int64_t c = ((int64_t)i * blockDim.x + threadIdx.x) * N;

            if (c < cols)
                f(i, c);
        }
    } else {
        for (int64_t c = (int64_t)threadIdx.x * N; c < cols; c += (int64_t)blockDim.x * N)
            f(0, c);
    }
}

template <class T, int N, int KEPT> struct share {
    const T *row;
    some<T, N> kept[KEPT > 0 ? KEPT : 1];

    DEV some<T, N> first(int i, int64_t c)
    {
        some<T, N> a = *reinterpret_cast<const some<T, N> *>(row + c);

        if (KEPT > 0)
            kept[i] = a;
        return a;
    }
    DEV some<T, N> again(int i, int64_t c) const { return KEPT > 0 ? kept[i] : *reinterpret_cast<const some<T, N> *>(row + c); }
};

/* N of a parameter's numbers; sixteen bytes at a time where N allows it. */
template <int N> DEV void columns(float *to, const float *from)
{
    enum { WIDE = N % 4 ? 1 : 4 };

    for (int k = 0; k < N; k += WIDE) {
        some<float, WIDE> p = *reinterpret_cast<const some<float, WIDE> *>(from + k);

        for (int j = 0; j < WIDE; j++)
            to[k + j] = p.v[j];
    }
}

template <class T, int N, int KEPT>
static __global__ void layernorm_kernel(T *y, float *mean, float *rstd, const T *x, const float *weight, const float *bias,
                                        float eps, int64_t cols)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float sum = 0.0f, square = 0.0f, m, s;
    share<T, N, KEPT> in = {};

    in.row = x + r * cols;
    y += r * cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.first(i, c);

        for (int k = 0; k < N; k++)
            sum += load(&a.v[k]);
    });
    m = block_sum(sum, part) / (float)cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.again(i, c);

        for (int k = 0; k < N; k++)
            square = fmaf(load(&a.v[k]) - m, load(&a.v[k]) - m, square);
    });
    s = 1.0f / sqrtf(block_sum(square, part) / (float)cols + eps);
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.again(i, c);
        float w[N], b[N];

        columns<N>(w, weight + c);
        columns<N>(b, bias + c);
        for (int k = 0; k < N; k++)
            store(&a.v[k], fmaf((load(&a.v[k]) - m) * s, w[k], b[k]));
        *reinterpret_cast<some<T, N> *>(y + c) = a;
    });
    if (threadIdx.x == 0) {
        mean[r] = m;
        rstd[r] = s;
    }
}

template <class T, int N, int KEPT>
static __global__ void layernorm_backward_kernel(T *dx, const T *dy, const T *x, const float *weight, const float *mean,
                                                 const float *rstd, int64_t cols)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float m = mean[r], s = rstd[r], sum = 0.0f, dot = 0.0f, c1, c2;
    share<T, N, KEPT> in = {}, slope = {};

    in.row = x + r * cols;
    slope.row = dy + r * cols;
    dx += r * cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.first(i, c), d = slope.first(i, c);
        float w[N];

        columns<N>(w, weight + c);
        for (int k = 0; k < N; k++) {
            float g = load(&d.v[k]) * w[k];

            sum += g;
            dot = fmaf(g, (load(&a.v[k]) - m) * s, dot);
        }
    });
    c1 = block_sum(sum, part) / (float)cols;
    c2 = block_sum(dot, part) / (float)cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.again(i, c), d = slope.again(i, c), old = *reinterpret_cast<const some<T, N> *>(dx + c);
        float w[N];

        columns<N>(w, weight + c);
        for (int k = 0; k < N; k++) {
            float h = (load(&a.v[k]) - m) * s;

            store(&old.v[k], fmaf(s, fmaf(-h, c2, load(&d.v[k]) * w[k] - c1), load(&old.v[k])));
        }
        *reinterpret_cast<some<T, N> *>(dx + c) = old;
    });
}

/* Of x, or of sum = x + branch, which may be x. */
template <class T, int N, int KEPT>
static __global__ void rmsnorm_kernel(T *y, T *sum, float *rstd, const T *x, const T *branch, const float *weight, float eps,
                                      int64_t cols)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float square = 0.0f, s;
    share<T, N, KEPT> in = {};

    in.row = (branch ? sum : x) + r * cols;
    x += r * cols;
    y += r * cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = *reinterpret_cast<const some<T, N> *>(x + c);

        if (branch) {
            some<T, N> b = *reinterpret_cast<const some<T, N> *>(branch + r * cols + c);

            for (int k = 0; k < N; k++)
                store(&a.v[k], load(&a.v[k]) + load(&b.v[k]));
            *reinterpret_cast<some<T, N> *>(sum + r * cols + c) = a;
        }
        if (KEPT > 0)
            in.kept[i] = a;
        for (int k = 0; k < N; k++)
            square = fmaf(load(&a.v[k]), load(&a.v[k]), square);
    });
    s = 1.0f / sqrtf(block_sum(square, part) / (float)cols + eps);
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.again(i, c);
        float w[N];

        columns<N>(w, weight + c);
        for (int k = 0; k < N; k++)
            store(&a.v[k], load(&a.v[k]) * s * w[k]);
        *reinterpret_cast<some<T, N> *>(y + c) = a;
    });
    if (threadIdx.x == 0 && rstd)
        rstd[r] = s;
}

template <class T, int N, int KEPT>
static __global__ void rmsnorm_backward_kernel(T *dx, const T *dy, const T *x, const float *weight, const float *rstd,
                                               int64_t cols)
{
    __shared__ float part[WARP];
    int64_t r = blockIdx.x;
    float s = rstd[r], dot = 0.0f, c2;
    share<T, N, KEPT> in = {}, slope = {};

    in.row = x + r * cols;
    slope.row = dy + r * cols;
    dx += r * cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.first(i, c), d = slope.first(i, c);
        float w[N];

        columns<N>(w, weight + c);
        for (int k = 0; k < N; k++)
            dot = fmaf(load(&d.v[k]) * w[k], load(&a.v[k]) * s, dot);
    });
    c2 = block_sum(dot, part) / (float)cols;
    each<N, KEPT>(cols, [&](int i, int64_t c) {
        some<T, N> a = in.again(i, c), d = slope.again(i, c), old = *reinterpret_cast<const some<T, N> *>(dx + c);
        float w[N];

        columns<N>(w, weight + c);
        for (int k = 0; k < N; k++)
            store(&old.v[k], fmaf(s, fmaf(-(load(&a.v[k]) * s), c2, load(&d.v[k]) * w[k]), load(&old.v[k])));
        *reinterpret_cast<some<T, N> *>(dx + c) = old;
    });
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

/* ---- launches --------------------------------------------------------------------------------------------------- */

static unsigned threads_for(int64_t cols) { return cols <= 512 ? 64 : cols <= 2048 ? 128 : THREADS; }

/* How many times sixteen bytes a thread takes of a row; 0: rows or parameters that cannot be taken so. NULL is fine. */
template <class T> static int64_t times(int64_t cols, const void *a, const void *b, const void *c, const void *d,
                                        const float *weight, const float *bias)
{
    int64_t each = (int64_t)threads_for(cols) * pack<T>::N;
    bool wide = cols % pack<T>::N == 0 && aligned16(a) && aligned16(b) && aligned16(c) && aligned16(d) && aligned16(weight) &&
        aligned16(bias);

    return wide ? (cols + each - 1) / each : 0;
}

/* The kernel for rows that a thread takes `n` times sixteen bytes of; a number at a time for 0. */
#define OF_ROW(kernel, n) \
    ((n) == 0   ? kernel<T, 1, 0> \
     : (n) == 1 ? kernel<T, pack<T>::N, 1> \
     : (n) == 2 ? kernel<T, pack<T>::N, 2> \
     : (n) <= 4 ? kernel<T, pack<T>::N, 4> \
                : kernel<T, pack<T>::N, 0>)

template <class T>
static int layernorm_as(void *stream, void *y, float *mean, float *rstd, const void *x, const float *weight, const float *bias,
                        float eps, int64_t rows, int64_t cols)
{
    int64_t n = times<T>(cols, y, x, nullptr, nullptr, weight, bias);

    LAUNCH(OF_ROW(layernorm_kernel, n), (unsigned)rows, threads_for(cols), 0, stream, (T *)y, mean, rstd, (const T *)x, weight,
           bias, eps, cols);
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
        int64_t n = times<T>(cols, dx, dy, x, nullptr, weight, nullptr);

        if (mean)
            LAUNCH(OF_ROW(layernorm_backward_kernel, n), (unsigned)rows, threads_for(cols), 0, stream, (T *)dx, (const T *)dy,
                   (const T *)x, weight, mean, rstd, cols);
        else
            LAUNCH(OF_ROW(rmsnorm_backward_kernel, n), (unsigned)rows, threads_for(cols), 0, stream, (T *)dx, (const T *)dy,
                   (const T *)x, weight, rstd, cols);
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
static int rmsnorm_as(void *stream, T *y, T *sum, float *rstd, const T *x, const T *branch, const float *weight, float eps,
                      int64_t rows, int64_t cols)
{
    int64_t n = times<T>(cols, y, sum, x, branch, weight, nullptr);

    LAUNCH(OF_ROW(rmsnorm_kernel, n), (unsigned)rows, threads_for(cols), 0, stream, y, sum, rstd, x, branch, weight, eps, cols);
    return LAUNCHED();
}

static int residual_rmsnorm(void *stream, enum device_type type, void *y, void *sum, float *rstd, const void *res,
                            const void *branch, const float *weight, float eps, int64_t rows, int64_t cols)
{
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16
               ? rmsnorm_as(stream, (bf16 *)y, (bf16 *)sum, rstd, (const bf16 *)res, (const bf16 *)branch, weight, eps, rows,
                            cols)
               : rmsnorm_as(stream, (float *)y, (float *)sum, rstd, (const float *)res, (const float *)branch, weight, eps, rows,
                            cols);
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
