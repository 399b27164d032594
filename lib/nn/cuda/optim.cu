/* optim.cu - AdamW over flat fp32 memory, and sums of squares in double. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = 256 };

/* The CPU's order of operations (nn/cpu/kernels/softmax.c): the same bits. */
static __global__ void adamw_kernel(float *value, float *m, float *v, const float *grad, int64_t n, struct device_adamw c)
{
    for (int64_t i = thread_number(); i < n; i += thread_count()) {
        float g = grad[i] * c.grad_scale, x = value[i];
        float mi = fmaf(c.beta1, m[i], c.rest1 * g), vi = fmaf(c.beta2, v[i], c.rest2 * g * g);
        float denominator = fmaf(sqrtf(vi), c.root2, c.eps);

        m[i] = mi;
        v[i] = vi;
        value[i] = fmaf(-c.rate, mi / denominator, fmaf(-c.decay, x, x));
    }
}

static int adamw(void *stream, float *value, float *m, float *v, const float *grad, int64_t n, const struct device_adamw *c)
{
    if (n <= 0)
        return 0;
    LAUNCH(adamw_kernel, blocks_for(n, THREADS, GRID_MOST), THREADS, 0, stream, value, m, v, grad, n, *c);
    return LAUNCHED();
}

/* Sum of the threads' numbers in ascending order of a halving tree; all of the block come here. */
DEV double block_sum_double(double x, double *part)
{
    part[threadIdx.x] = x;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}

static __global__ void squares_kernel(double *parts, const float *x, int64_t n)
{
    __shared__ double part[THREADS];
    double sum = 0.0;

    for (int64_t i = thread_number(); i < n; i += thread_count())
        sum += (double)x[i] * (double)x[i];
    sum = block_sum_double(sum, part);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

static __global__ void parts_kernel(double *sum, const double *parts, unsigned n)
{
    __shared__ double part[THREADS];
    double s = 0.0;

    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        s += parts[i];
    s = block_sum_double(s, part);
    if (threadIdx.x == 0)
        *sum += s;
}

/* The number of blocks depends on n alone: the same tree on every device. */
static int sum_squares(void *stream, double *sum, double *parts, const float *x, int64_t n)
{
    unsigned blocks = blocks_for(n, THREADS, DEVICE_NORM_PARTS);

    if (n <= 0)
        return 0;
    LAUNCH(squares_kernel, blocks, THREADS, 0, stream, parts, x, n);
    LAUNCH(parts_kernel, 1, THREADS, 0, stream, sum, parts, blocks);
    return LAUNCHED();
}

extern "C" void NAME(fill_optim)(struct device_kernels *k)
{
    k->adamw = adamw;
    k->sum_squares = sum_squares;
}
