/* simt.h - what every .cu file begins with: bf16 without CUDA's headers, loads and stores as fp32, launches, block sums.
 *
 * The same files are compiled twice: by nvcc, and by g++ with tests/emulate/simt_host.h in front, which gives threadIdx,
 * __syncthreads and shuffles on the CPU. So a kernel uses nothing else of CUDA, and no libm function that the host has not.
 * Every exported name goes through NAME(), so that both may be linked into one program. */
#pragma once

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "nn/device/kernels.h"

#ifndef GANTRY_EMULATED
#include <cuda_runtime.h>
#define NAME(x) cuda_##x
#define LAUNCH(kernel, grid, block, shared, stream, ...) \
    do { \
        auto kernel_ = kernel; \
        kernel_<<<(grid), (block), (shared), (cudaStream_t)(stream)>>>(__VA_ARGS__); \
    } while (0)
#define SHARED_DYNAMIC(type, name) \
    extern __shared__ float4 dynamic_shared_[]; \
    type *name = reinterpret_cast<type *>(dynamic_shared_)
extern "C" int NAME(launched)(void); /* machine.cu */
#define LAUNCHED() NAME(launched)()
#define UNROLL(text) _Pragma(text)
#endif

#define HD __host__ __device__ __forceinline__
#define DEV __device__ __forceinline__

enum { WARP = 32 };

/* ---- numbers ------------------------------------------------------------------------------------------------ */

struct bf16 {
    uint16_t bits;
};

HD float bits_to_float(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

HD uint32_t float_to_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

HD float load(const float *p) { return *p; }
HD float load(const bf16 *p) { return bits_to_float((uint32_t)p->bits << 16); }
HD void store(float *p, float x) { *p = x; }
/* To the nearest, ties to even; NaN stays NaN. */
HD void store(bf16 *p, float x)
{
    uint32_t bits = float_to_bits(x);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        p->bits = (uint16_t)(bits >> 16 | 0x40u);
    else
        p->bits = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* N numbers at once, from where that is allowed. */
template <class T, int N> struct alignas(N * sizeof(T)) some {
    T v[N];
};

/* Sixteen bytes at once. */
template <class T> struct alignas(16) pack {
    enum { N = 16 / (int)sizeof(T) };
    T v[16 / sizeof(T)];
};

/* What nobody reads again soon: it leaves the caches first. */
template <class T> DEV pack<T> load_once(const pack<T> *p)
{
    float4 raw = __ldcs(reinterpret_cast<const float4 *>(p));
    pack<T> x;

    memcpy(&x, &raw, sizeof(x));
    return x;
}

HD bool aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }

/* ---- grids ---------------------------------------------------------------------------------------------------- */

/* Blocks of `threads` for n items, each thread going on in steps of the whole grid: never more than `most`. */
HD unsigned blocks_for(int64_t n, int64_t threads, int64_t most)
{
    int64_t blocks = (n + threads - 1) / threads;

    return (unsigned)(blocks < 1 ? 1 : blocks > most ? most : blocks);
}
enum { GRID_MOST = 132 * 16 };

/* For whole rows: a block of ROW_THREADS takes rows blockIdx.y, + gridDim.y, ...; its threads and blockIdx.x share the
 * columns. */
enum { ROW_THREADS = 128, ROWS_MOST = 32768 };
inline dim3 row_grid(int64_t rows, int64_t cols)
{
    return dim3(blocks_for(cols, ROW_THREADS, 32), (unsigned)(rows < ROWS_MOST ? rows : (int64_t)ROWS_MOST));
}

DEV int64_t thread_number() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
DEV int64_t thread_count() { return (int64_t)gridDim.x * blockDim.x; }

/* ---- sums and maxima over the threads of a block, in a fixed tree ---------------------------------------------------- */

DEV float warp_sum(float x)
{
    for (int offset = WARP / 2; offset; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

DEV float warp_max(float x)
{
    for (int offset = WARP / 2; offset; offset /= 2) {
        float y = __shfl_xor_sync(0xffffffffu, x, offset);

        x = x > y ? x : y;
    }
    return x;
}

/* For blocks of a multiple of 32 threads, at most 1024; every thread gets the sum. `part` is shared, 32 floats; it may be used
 * again at once. */
DEV float block_sum(float x, float *part)
{
    unsigned warps = blockDim.x / WARP;

    x = warp_sum(x);
    __syncthreads();                    /* whoever still reads part from the last time */
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    x = 0.0f;
    for (unsigned i = 0; i < warps; i++)
        x += part[i];
    return x;
}

DEV float block_max(float x, float *part)
{
    unsigned warps = blockDim.x / WARP;

    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    x = part[0];
    for (unsigned i = 1; i < warps; i++)
        x = x > part[i] ? x : part[i];
    return x;
}

/* ---- functions: the CPU's polynomials (nn/cpu/kernels/vmath.h), so that both sides agree to the last bits --------------- */

DEV float exp_of(float x)
{
    float n = rintf(fmaxf(-87.34f, fminf(88.38f, x)) * 1.44269504f), r, p;

    if (x != x)
        return x;
    r = fmaf(-n, 0.693359375f, x);
    r = fmaf(-n, -2.12194440e-4f, r);
    p = 0.00139262508f;
    p = fmaf(p, r, 0.00836323288f);
    p = fmaf(p, r, 0.0416665542f);
    p = fmaf(p, r, 0.166665766f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(r * r, p, r);
    p = p + 1.0f;
    p = p * bits_to_float((uint32_t)((int32_t)n + 127) << 23);
    return x < -87.336f ? 0.0f : 88.376f < x ? INFINITY : p;
}

DEV float sigmoid_of(float x) { return 1.0f / (1.0f + exp_of(-x)); }

DEV float erf_of(float x)
{
    float t = fminf(4.0f, fabsf(x)), s = x * x, p, q;

    p = 8.52940132e-5f;
    p = fmaf(p, s, -8.17963218e-4f);
    p = fmaf(p, s, 0.00520422669f);
    p = fmaf(p, s, -0.0268606648f);
    p = fmaf(p, s, 0.112837180f);
    p = fmaf(p, s, -0.376126352f);
    p = fmaf(p, s, 0.128379167f);
    p = fmaf(p, x, x);
    q = 1.65886845e-5f;
    q = fmaf(q, t, -3.73447802e-4f);
    q = fmaf(q, t, 0.00383162444f);
    q = fmaf(q, t, -0.0241165435f);
    q = fmaf(q, t, 0.106584698f);
    q = fmaf(q, t, 0.634984462f);
    q = fmaf(q, t, 1.12867821f);
    q = 1.0f - exp_of(-(t * q));
    return t < 0.9f ? p : copysignf(q, x);
}

/* x > 0 and normal. */
DEV float log_of(float x)
{
    uint32_t bits = float_to_bits(x), shifted;
    float f, p, n;

    if (bits >= 0x7f800000u)
        return x;
    shifted = bits - 0x3f3504f3u;
    n = (float)((int32_t)shifted >> 23);
    f = bits_to_float(bits - (shifted & 0xff800000u)) - 1.0f;
    p = -0.0790274377f;
    p = fmaf(p, f, 0.126223198f);
    p = fmaf(p, f, -0.129981838f);
    p = fmaf(p, f, 0.142144959f);
    p = fmaf(p, f, -0.166412815f);
    p = fmaf(p, f, 0.200010451f);
    p = fmaf(p, f, -0.250003064f);
    p = fmaf(p, f, 0.333333307f);
    p = fmaf(p * f, f * f, fmaf(n, -2.12194440e-4f, -0.5f * f * f));
    return fmaf(n, 0.693359375f, f + p);
}
