/* as_cuda.c - linked in front of the archives: `--device cuda:N` of a program is then the emulated device. Its streams do at once
 * what they are given: NCCL between processes (nccl_library.c) knows nothing of them. */
#include "nn/device/device.h"
#include "tests/emulate/emulate.h"

const struct device_kernels *cuda_kernels(void)
{
    emulate_lazily(0);
    return emulated_kernels();
}
