/* isa.h - names of this instruction set's kernels: gemm is gemm_avx512 and so on. */
#pragma once

#include "nn/cpu/kernels.h"
#include "nn/cpu/kernels/simd.h"

#define CPU_KERNELS(X) \
    X(gemm) X(gemm_pack) X(gemm_pack_bf16) X(transpose) X(widen) \
    X(add) X(accumulate) X(accumulate_scaled) X(scale) X(residual) X(residual_backward) X(column_sum) \
    X(gelu) X(gelu_backward) X(quick_gelu) X(quick_gelu_backward) X(relu) X(relu_backward) X(swiglu) X(swiglu_backward) \
    X(layernorm) X(layernorm_backward) X(rmsnorm) X(rmsnorm_backward) X(rope) \
    X(attention) X(attention_backward) X(attention_decode) \
    X(log_softmax) X(exp) X(sigmoid) X(erf) X(log) X(token_stats) X(token_stats_backward) X(adamw)

#define DECLARE_KERNEL(name) __typeof__(*((struct cpu_kernels *)0)->name) ISA_NAME(name);
CPU_KERNELS(DECLARE_KERNEL)

#if defined(ISA_avx512)      /* and where the CPU has VDPBF16PS or AMX, too: the sets called avx512bf16 and amx */
DECLARE_KERNEL(gemm_bf16)
DECLARE_KERNEL(gemm_bf16_pack)
__typeof__(*((struct cpu_kernels *)0)->gemm_bf16) ISA_NAME(gemm_amx);
extern const struct cpu_kernels cpu_kernels_avx512bf16, cpu_kernels_amx;
#endif
#undef DECLARE_KERNEL

extern const struct cpu_kernels ISA_NAME(cpu_kernels);
