/* none.c - a build with GPU=0: there is no device. Apart from none_libraries.c, for tests put an emulated device in its place. */
#include "nn/device/device.h"

const struct device_kernels *cuda_kernels(void) { return NULL; }
