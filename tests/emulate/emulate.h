/* emulate.h - a device that is this CPU, for tests: the kernels of lib/nn/cuda run in tests/emulate/simt_host.cc. */
#pragma once

#include <stdint.h>

#include "nn/device/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For device_wrap (nn/device/device.h). */
const struct device_kernels *emulated_kernels(void);
/* Threads of a block run in this order between barriers; 0: ascending. Results must not depend on it. */
void emulate_order(uint64_t seed);

#ifdef __cplusplus
}
#endif
