#include "nn/cuda/device.h"

#include <cerrno>

static int as_errno(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return 0;
    case cudaErrorMemoryAllocation:
        return -ENOMEM;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
        return -ENODEV;
    default:
        return -EIO;
    }
}

int cuda_devices(void)
{
    int n = 0;

    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

int cuda_alloc(size_t bytes, void **ret_device)
{
    void *device = nullptr;
    int r = as_errno(cudaMalloc(&device, bytes));

    if (r == 0)
        *ret_device = device;
    return r;
}

void cuda_free(void *device)
{
    (void)cudaFree(device);
}

int cuda_upload(void *device, const void *host, size_t bytes)
{
    return as_errno(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}

int cuda_download(void *host, const void *device, size_t bytes)
{
    return as_errno(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
