#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "base/macro.h"
#include "nn/cpu/kernels.h"

extern const struct cpu_kernels cpu_kernels_generic;

#if defined(__x86_64__)
extern const struct cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512, cpu_kernels_avx512bf16, cpu_kernels_amx;
static const struct cpu_kernels *const all[] = {&cpu_kernels_amx, &cpu_kernels_avx512bf16, &cpu_kernels_avx512,
                                                &cpu_kernels_avx2, &cpu_kernels_generic};

/* The kernel keeps AMX's tiles (eight kilobytes a thread) for processes that ask. It refuses where it does not know of them, or
 * where a thread's alternative signal stack would be too small for them. */
static bool has_tiles(void)
{
    enum { AMX_BF16 = 1 << 22 };                                /* of leaf 7's edx; clang 14 has no name for it */
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };       /* ARCH_REQ_XCOMP_PERM of asm/prctl.h; XFEATURE_XTILEDATA */
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BF16) &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static bool cpu_runs(const struct cpu_kernels *kernels)
{
    __builtin_cpu_init();
    if (kernels == &cpu_kernels_amx)
        return cpu_runs(&cpu_kernels_avx512bf16) && has_tiles();
    if (kernels == &cpu_kernels_avx512bf16)
        return cpu_runs(&cpu_kernels_avx512) && __builtin_cpu_supports("avx512bf16");
    if (kernels == &cpu_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    if (kernels == &cpu_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return true;
}
#elif defined(__aarch64__)
extern const struct cpu_kernels cpu_kernels_neon;
static const struct cpu_kernels *const all[] = {&cpu_kernels_neon, &cpu_kernels_generic};

static bool cpu_runs(const struct cpu_kernels *kernels _unused_) { return true; }      /* NEON is part of the architecture */
#else
static const struct cpu_kernels *const all[] = {&cpu_kernels_generic};

static bool cpu_runs(const struct cpu_kernels *kernels _unused_) { return true; }
#endif

const struct cpu_kernels *cpu_kernels_named(const char *isa)
{
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (strcmp(all[i]->isa, isa) == 0)
            return cpu_runs(all[i]) ? all[i] : NULL;
    return NULL;
}

const struct cpu_kernels *cpu_kernels(void)
{
    static _Atomic(const struct cpu_kernels *) chosen;      /* every thread would choose the same: a race is harmless */
    const struct cpu_kernels *kernels = atomic_load_explicit(&chosen, memory_order_relaxed);
    const char *wanted;

    if (kernels)
        return kernels;
    wanted = getenv("GANTRY_ISA");
    if (wanted)
        kernels = cpu_kernels_named(wanted);
    for (size_t i = 0; !kernels; i++)
        if (cpu_runs(all[i]))
            kernels = all[i];
    atomic_store_explicit(&chosen, kernels, memory_order_relaxed);
    return kernels;
}

bool cpu_fast_is_slow(void)
{
#if defined(__x86_64__)
    return cpu_kernels() == &cpu_kernels_avx512bf16 && __builtin_cpu_is("intel");
#else
    return false;
#endif
}
