/* tables.h - each .cu file writes its part of the table. */
#pragma once

#include "nn/device/kernels.h"

extern "C" {
void NAME(fill_machine)(struct device_kernels *k);
void NAME(fill_elementwise)(struct device_kernels *k);
void NAME(fill_norm)(struct device_kernels *k);
void NAME(fill_rows)(struct device_kernels *k);
void NAME(fill_rope)(struct device_kernels *k);
void NAME(fill_gemm)(struct device_kernels *k);
void NAME(fill_narrow)(struct device_kernels *k);
void NAME(fill_attention)(struct device_kernels *k);
void NAME(fill_softmax)(struct device_kernels *k);
void NAME(fill_optim)(struct device_kernels *k);
}
