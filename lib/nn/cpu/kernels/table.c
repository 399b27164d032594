#include "nn/cpu/kernels/isa.h"

#define ISA_STRING_(x) #x
#define ISA_STRING(x) ISA_STRING_(x)

#define ENTRY(name) .name = ISA_NAME(name),
const struct cpu_kernels ISA_NAME(cpu_kernels) = {.isa = ISA_STRING(ISA), CPU_KERNELS(ENTRY)};
#if defined(ISA_avx512)
const struct cpu_kernels cpu_kernels_avx512bf16 = {.isa = "avx512bf16", CPU_KERNELS(ENTRY) ENTRY(gemm_bf16)
                                                   ENTRY(gemm_bf16_pack)};
const struct cpu_kernels cpu_kernels_amx = {.isa = "amx", CPU_KERNELS(ENTRY) .gemm_bf16 = ISA_NAME(gemm_amx),
                                            ENTRY(gemm_bf16_pack)};
#endif
