#include "nn/cuda/device.h"

#include <cerrno>

static __global__ void scale_kernel(float *x, float factor, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < n)
        x[i] *= factor;
}

int cuda_scale(float *x, float factor, int64_t n)
{
    const int64_t threads = 256;

    if (n <= 0)
        return 0;
    scale_kernel<<<(unsigned)((n + threads - 1) / threads), (unsigned)threads>>>(x, factor, n);
    return cudaGetLastError() == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess ? 0 : -EIO;
}
