#include "serve/numerics.h"

#include "base/log.h"
#include "base/macro.h"
#include "nn/cpu/kernels.h"
#include "nn/device/device.h"

bool numerics_fast(const struct run_config *run)
{
    /* a device needs nothing of the CPU's */
    bool fast = run->numerics == NUMERICS_FAST && (cpu_kernels()->gemm_bf16 || device_process());

    if (run->numerics == NUMERICS_FAST && !fast)
        log_warn("numerics: fast is asked for, products stay strict", "isa=%s reason=%s", cpu_kernels()->isa,
                 LOG_Q("this CPU has no AVX512_BF16 (VDPBF16PS), or GANTRY_ISA leaves it out"));
    else
        log_info("products", "numerics=%s isa=%s", fast ? "fast" : "strict", cpu_kernels()->isa);
    if (fast && !device_process() && cpu_fast_is_slow())
        log_warn("numerics: fast is likely slower than strict on this CPU", "isa=%s reason=%s", cpu_kernels()->isa,
                 LOG_Q("Intel's VDPBF16PS has half the rate of fp32's products; AMX, which has six times it, is missing, withheld "
                       "by the kernel, or left out by GANTRY_ISA"));
    return fast;
}
