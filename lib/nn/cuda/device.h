/* device.h - the C face of the CUDA side. Present only in builds with GPU=1.
 *
 * Failure rule: -ENODEV without a usable device, -ENOMEM, -EIO for anything else the driver reports. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int cuda_devices(void);                                         /* how many; 0 when there is no driver */
int cuda_alloc(size_t bytes, void **ret_device);
void cuda_free(void *device);                                   /* NULL is fine */
int cuda_upload(void *device, const void *host, size_t bytes);  /* both wait until the bytes are there */
int cuda_download(void *host, const void *device, size_t bytes);

/* x[i] *= factor, i < n, on device memory; the same bits as the CPU's kernel. Returns when it has run. */
int cuda_scale(float *x, float factor, int64_t n);

#ifdef __cplusplus
}
#endif
