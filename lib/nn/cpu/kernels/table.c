#include "nn/cpu/kernels/isa.h"

#define ISA_STRING_(x) #x
#define ISA_STRING(x) ISA_STRING_(x)

#define ENTRY(name) .name = ISA_NAME(name),
const struct cpu_kernels ISA_NAME(cpu_kernels) = {.isa = ISA_STRING(ISA), CPU_KERNELS(ENTRY)};
