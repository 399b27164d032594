/* elementwise.cu - one number at a time: sums, activations, conversions; and sums of columns.
 *
 * A thread takes sixteen bytes at a time when all pointers allow it (they do, but for odd row lengths), in steps of the grid. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = 256 };

/* ---- y[i] = f(y[i], a[i], b[i]) ----------------------------------------------------------------------------- */

template <class T, class F> static __global__ void map_kernel(T *y, const T *a, const T *b, int64_t n, F f, bool wide)
{
    int64_t packs = wide ? n / pack<T>::N : 0;

    for (int64_t i = thread_number(); i < packs; i += thread_count()) {
        pack<T> pa = reinterpret_cast<const pack<T> *>(a)[i], pb = pa, py = pa;

        if (F::two)
            pb = reinterpret_cast<const pack<T> *>(b)[i];
        if (F::reads)
            py = reinterpret_cast<const pack<T> *>(y)[i];
        for (int k = 0; k < pack<T>::N; k++)
            store(&py.v[k], f(load(&py.v[k]), load(&pa.v[k]), load(&pb.v[k])));
        reinterpret_cast<pack<T> *>(y)[i] = py;
    }
    for (int64_t i = packs * pack<T>::N + thread_number(); i < n; i += thread_count())
        store(&y[i], f(F::reads ? load(&y[i]) : 0.0f, load(&a[i]), F::two ? load(&b[i]) : 0.0f));
}

template <class T, class F> static int map_as(void *stream, void *y, const void *a, const void *b, int64_t n, F f)
{
    bool wide = aligned16(y) && aligned16(a) && (!F::two || aligned16(b));

    LAUNCH((map_kernel<T, F>), blocks_for(n, THREADS * (wide ? pack<T>::N : 1), GRID_MOST), THREADS, 0, stream, (T *)y,
           (const T *)a, (const T *)b, n, f, wide);
    return LAUNCHED();
}

template <class F> static int map(void *stream, enum device_type type, void *y, const void *a, const void *b, int64_t n, F f)
{
    if (n <= 0)
        return 0;
    return type == DEVICE_BF16 ? map_as<bf16>(stream, y, a, b, n, f) : map_as<float>(stream, y, a, b, n, f);
}

struct add_f {
    enum { two = 1, reads = 0 };
    DEV float operator()(float, float a, float b) const { return a + b; }
};
struct accumulate_f {
    enum { two = 0, reads = 1 };
    DEV float operator()(float y, float a, float) const { return y + a; }
};
struct scale_f {
    enum { two = 0, reads = 0 };
    float factor;
    DEV float operator()(float, float a, float) const { return factor * a; }
};

static int add(void *stream, enum device_type type, void *y, const void *a, const void *b, int64_t n)
{
    return map(stream, type, y, a, b, n, add_f{});
}
static int accumulate(void *stream, enum device_type type, void *y, const void *x, int64_t n)
{
    return map(stream, type, y, x, nullptr, n, accumulate_f{});
}
static int scale(void *stream, enum device_type type, void *x, float factor, int64_t n)
{
    return map(stream, type, x, x, nullptr, n, scale_f{factor});
}

/* ---- activations ---------------------------------------------------------------------------------------------- */

DEV float normal_cdf(float x) { return fmaf(0.5f, erf_of(x * 0.70710678f), 0.5f); }
DEV float softplus_of(float x) { return fmaxf(x, 0.0f) + log_of(1.0f + exp_of(-fabsf(x))); }
DEV float tanh_of(float x)
{
    float e = exp_of(-2.0f * fabsf(x));

    return copysignf((1.0f - e) / (1.0f + e), x);
}

template <int KIND> struct forward_f {
    enum { two = 0, reads = 0 };
    float low, high;
    DEV float operator()(float, float x, float) const
    {
        switch (KIND) {
        case DEVICE_GELU: return x * normal_cdf(x);
        case DEVICE_QUICK_GELU: return x * sigmoid_of(1.702f * x);
        case DEVICE_RELU: return x > 0.0f ? x : x != x ? x : 0.0f;
        case DEVICE_SILU: return x * sigmoid_of(x);
        case DEVICE_TANH: return tanh_of(x);
        case DEVICE_SIGMOID: return sigmoid_of(x);
        case DEVICE_SOFTPLUS: return softplus_of(x);
        default: return x < low ? low : x > high ? high : x;
        }
    }
};

/* dx += dy f'(x): a is dy, b is x. */
template <int KIND> struct backward_f {
    enum { two = 1, reads = 1 };
    float low, high;
    DEV float operator()(float dx, float dy, float x) const
    {
        float s, b, slope;

        switch (KIND) {
        case DEVICE_GELU: slope = fmaf(x, 0.39894228f * exp_of(-0.5f * x * x), normal_cdf(x)); break;
        case DEVICE_QUICK_GELU:
            b = 1.702f * x;
            s = sigmoid_of(b);
            slope = s * fmaf(b, 1.0f - s, 1.0f);
            break;
        case DEVICE_RELU: return dx + (0.0f < x ? dy : 0.0f);
        case DEVICE_SILU:
            s = sigmoid_of(x);
            slope = s * fmaf(x, 1.0f - s, 1.0f);
            break;
        case DEVICE_TANH:
            s = tanh_of(x);
            slope = fmaf(-s, s, 1.0f);
            break;
        case DEVICE_SIGMOID:
            s = sigmoid_of(x);
            slope = s * (1.0f - s);
            break;
        case DEVICE_SOFTPLUS: slope = sigmoid_of(x); break;
        default: return dx + (x >= low && x <= high ? dy : 0.0f);
        }
        return fmaf(dy, slope, dx);
    }
};

#define EACH_KIND(f)                                     \
    switch (kind) {                                      \
    case DEVICE_GELU: return f(DEVICE_GELU);             \
    case DEVICE_QUICK_GELU: return f(DEVICE_QUICK_GELU); \
    case DEVICE_RELU: return f(DEVICE_RELU);             \
    case DEVICE_SILU: return f(DEVICE_SILU);             \
    case DEVICE_TANH: return f(DEVICE_TANH);             \
    case DEVICE_SIGMOID: return f(DEVICE_SIGMOID);       \
    case DEVICE_SOFTPLUS: return f(DEVICE_SOFTPLUS);     \
    default: return f(DEVICE_CLAMP);                     \
    }

static int activation(void *stream, enum device_type type, enum device_activation kind, void *y, const void *x, int64_t n,
                      float low, float high)
{
#define FORWARD(k) map(stream, type, y, x, nullptr, n, forward_f<k>{low, high})
    EACH_KIND(FORWARD)
}

static int activation_backward(void *stream, enum device_type type, enum device_activation kind, void *dx, const void *dy,
                               const void *x, int64_t n, float low, float high)
{
#define BACKWARD(k) map(stream, type, dx, dy, x, n, backward_f<k>{low, high})
    EACH_KIND(BACKWARD)
}

struct swiglu_f {
    enum { two = 1, reads = 0 };
    DEV float operator()(float, float gate, float up) const { return gate * sigmoid_of(gate) * up; }
};

static int swiglu(void *stream, enum device_type type, void *y, const void *gate, const void *up, int64_t n)
{
    return map(stream, type, y, gate, up, n, swiglu_f{});
}

template <class T>
static __global__ void swiglu_backward_kernel(T *dgate, T *dup, const T *dy, const T *gate, const T *up, int64_t n, bool wide,
                                              bool add)
{
    enum { N = pack<T>::N };
    int64_t packs = wide ? n / N : 0;

    for (int64_t i = thread_number(); i < packs; i += thread_count()) {
        pack<T> pg, pu;
        pack<T> pd = reinterpret_cast<const pack<T> *>(dy)[i], g = reinterpret_cast<const pack<T> *>(gate)[i];
        pack<T> u = reinterpret_cast<const pack<T> *>(up)[i];

        if (add) {
            pg = reinterpret_cast<pack<T> *>(dgate)[i];
            pu = reinterpret_cast<pack<T> *>(dup)[i];
        }
        for (int k = 0; k < N; k++) {
            float x = load(&g.v[k]), d = load(&pd.v[k]), s = sigmoid_of(x);

            store(&pu.v[k], fmaf(d, x * s, add ? load(&pu.v[k]) : 0.0f));
            store(&pg.v[k], fmaf(d * load(&u.v[k]), s * fmaf(x, 1.0f - s, 1.0f), add ? load(&pg.v[k]) : 0.0f));
        }
        reinterpret_cast<pack<T> *>(dgate)[i] = pg;
        reinterpret_cast<pack<T> *>(dup)[i] = pu;
    }
    for (int64_t i = packs * N + thread_number(); i < n; i += thread_count()) {
        float x = load(&gate[i]), d = load(&dy[i]), s = sigmoid_of(x);

        store(&dup[i], fmaf(d, x * s, add ? load(&dup[i]) : 0.0f));
        store(&dgate[i], fmaf(d * load(&up[i]), s * fmaf(x, 1.0f - s, 1.0f), add ? load(&dgate[i]) : 0.0f));
    }
}

static int swiglu_backward(void *stream, enum device_type type, void *dgate, void *dup, const void *dy, const void *gate,
                           const void *up, int64_t n, bool add)
{
    bool wide = aligned16(dgate) && aligned16(dup) && aligned16(dy) && aligned16(gate) && aligned16(up);

    if (n <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(swiglu_backward_kernel<bf16>, blocks_for(n, THREADS * (wide ? 8 : 1), GRID_MOST), THREADS, 0, stream,
               (bf16 *)dgate, (bf16 *)dup, (const bf16 *)dy, (const bf16 *)gate, (const bf16 *)up, n, wide, add);
    else
        LAUNCH(swiglu_backward_kernel<float>, blocks_for(n, THREADS * (wide ? 4 : 1), GRID_MOST), THREADS, 0, stream,
               (float *)dgate, (float *)dup, (const float *)dy, (const float *)gate, (const float *)up, n, wide, add);
    return LAUNCHED();
}

/* ---- conversions, and sums with something that goes round in columns -------------------------------------------------- */

template <class To, class From> static __global__ void convert_kernel(To *to, const From *from, int64_t n)
{
    for (int64_t i = thread_number(); i < n; i += thread_count())
        store(&to[i], load(&from[i]));
}

static int convert(void *stream, enum device_type to_type, void *to, enum device_type type, const void *from, int64_t n)
{
    unsigned blocks = blocks_for(n, THREADS, GRID_MOST);

    if (n <= 0)
        return 0;
    if (to_type == DEVICE_BF16 && type == DEVICE_BF16)
        LAUNCH((convert_kernel<bf16, bf16>), blocks, THREADS, 0, stream, (bf16 *)to, (const bf16 *)from, n);
    else if (to_type == DEVICE_BF16)
        LAUNCH((convert_kernel<bf16, float>), blocks, THREADS, 0, stream, (bf16 *)to, (const float *)from, n);
    else if (type == DEVICE_BF16)
        LAUNCH((convert_kernel<float, bf16>), blocks, THREADS, 0, stream, (float *)to, (const bf16 *)from, n);
    else
        LAUNCH((convert_kernel<float, float>), blocks, THREADS, 0, stream, (float *)to, (const float *)from, n);
    return LAUNCHED();
}

template <class T>
static __global__ void residual_kernel(T *y, const T *residual, const T *branch, const float *scale, int64_t rows, int64_t cols)
{
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = thread_number(); c < cols; c += thread_count()) {
            int64_t i = r * cols + c;

            store(&y[i], fmaf(scale[c], load(&branch[i]), load(&residual[i])));
        }
}

/* Blocks over (columns, rows): y stays within what a grid may have. */
static dim3 grid_of_rows(int64_t rows, int64_t cols)
{
    return dim3(blocks_for(cols, THREADS, 64), (unsigned)(rows < 16384 ? rows : 16384));
}

static int residual(void *stream, enum device_type type, void *y, const void *res, const void *branch, const float *scale,
                    int64_t rows, int64_t cols)
{
    if (rows <= 0 || cols <= 0)
        return 0;
    if (!scale)
        return add(stream, type, y, res, branch, rows * cols);
    if (type == DEVICE_BF16)
        LAUNCH(residual_kernel<bf16>, grid_of_rows(rows, cols), THREADS, 0, stream, (bf16 *)y, (const bf16 *)res,
               (const bf16 *)branch, scale, rows, cols);
    else
        LAUNCH(residual_kernel<float>, grid_of_rows(rows, cols), THREADS, 0, stream, (float *)y, (const float *)res,
               (const float *)branch, scale, rows, cols);
    return LAUNCHED();
}

template <class T> static __global__ void scaled_kernel(T *dbranch, const T *dy, const float *scale, int64_t rows, int64_t cols)
{
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = thread_number(); c < cols; c += thread_count()) {
            int64_t i = r * cols + c;

            store(&dbranch[i], fmaf(scale[c], load(&dy[i]), load(&dbranch[i])));
        }
}

/* sum[c] += over rows of x, or of x z. A block has 32 columns and 8 lanes of rows, each lane every eighth row; then the lanes in
 * order. */
template <class T>
static __global__ void column_kernel(float *sum, const T *x, const T *z, int64_t row, int64_t rows, int64_t cols)
{
    __shared__ float part[8][33];
    unsigned lane = threadIdx.x / 32, at = threadIdx.x % 32;
    int64_t c = (int64_t)blockIdx.x * 32 + at;
    float s = 0.0f;

    for (int64_t r = lane; r < rows && c < cols; r += 8)
        s = z ? fmaf(load(&x[r * row + c]), load(&z[r * row + c]), s) : s + load(&x[r * row + c]);
    part[lane][at] = s;
    __syncthreads();
    if (lane == 0 && c < cols) {
        s = part[0][at];
        for (int i = 1; i < 8; i++)
            s += part[i][at];
        sum[c] += s;
    }
}

static int columns(void *stream, enum device_type type, float *sum, const void *x, const void *z, int64_t row, int64_t rows,
                   int64_t cols)
{
    unsigned blocks = (unsigned)((cols + 31) / 32);

    if (rows <= 0 || cols <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(column_kernel<bf16>, blocks, 256, 0, stream, sum, (const bf16 *)x, (const bf16 *)z, row, rows, cols);
    else
        LAUNCH(column_kernel<float>, blocks, 256, 0, stream, sum, (const float *)x, (const float *)z, row, rows, cols);
    return LAUNCHED();
}

static int column_sum(void *stream, enum device_type type, float *sum, const void *x, int64_t row, int64_t rows, int64_t cols)
{
    return columns(stream, type, sum, x, nullptr, row, rows, cols);
}

static int residual_backward(void *stream, enum device_type type, void *dbranch, float *dscale, const void *dy,
                             const void *branch, const float *scale, int64_t rows, int64_t cols)
{
    int r = 0;

    if (rows <= 0 || cols <= 0)
        return 0;
    if (dbranch && type == DEVICE_BF16)
        LAUNCH(scaled_kernel<bf16>, grid_of_rows(rows, cols), THREADS, 0, stream, (bf16 *)dbranch, (const bf16 *)dy, scale, rows,
               cols);
    else if (dbranch)
        LAUNCH(scaled_kernel<float>, grid_of_rows(rows, cols), THREADS, 0, stream, (float *)dbranch, (const float *)dy, scale,
               rows, cols);
    if (dbranch)
        r = LAUNCHED();
    return r < 0 || !dscale ? r : columns(stream, type, dscale, dy, branch, cols, rows, cols);
}

template <class T> static __global__ void add_cycle_kernel(T *y, const T *x, const float *value, int64_t cycle, int64_t n)
{
    for (int64_t round = blockIdx.y; round * cycle < n; round += gridDim.y)
        for (int64_t c = thread_number(); c < cycle; c += thread_count())
            store(&y[round * cycle + c], load(&x[round * cycle + c]) + value[c]);
}

static int add_cycle(void *stream, enum device_type type, void *y, const void *x, const float *value, int64_t cycle, int64_t n)
{
    dim3 grid(blocks_for(cycle, THREADS, GRID_MOST),
              (unsigned)(n / (cycle > 0 ? cycle : 1) < 256 ? n / (cycle > 0 ? cycle : 1) : 256));

    if (n <= 0)
        return 0;
    if (cycle <= 0 || n % cycle)
        return -EINVAL;
    if (type == DEVICE_BF16)
        LAUNCH(add_cycle_kernel<bf16>, grid, THREADS, 0, stream, (bf16 *)y, (const bf16 *)x, value, cycle, n);
    else
        LAUNCH(add_cycle_kernel<float>, grid, THREADS, 0, stream, (float *)y, (const float *)x, value, cycle, n);
    return LAUNCHED();
}

extern "C" void NAME(fill_elementwise)(struct device_kernels *k)
{
    k->convert = convert;
    k->add = add;
    k->accumulate = accumulate;
    k->scale = scale;
    k->residual = residual;
    k->residual_backward = residual_backward;
    k->activation = activation;
    k->activation_backward = activation_backward;
    k->swiglu = swiglu;
    k->swiglu_backward = swiglu_backward;
    k->column_sum = column_sum;
    k->add_cycle = add_cycle;
}
