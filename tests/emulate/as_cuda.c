/* as_cuda.c - linked in front of the archives: `--device cuda:N` of a program is then the emulated device. */
#include "nn/device/device.h"
#include "tests/emulate/emulate.h"

const struct device_kernels *cuda_kernels(void) { return emulated_kernels(); }
