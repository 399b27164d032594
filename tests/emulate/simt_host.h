/* simt_host.h - the part of CUDA C++ that lib/nn/cuda uses, on the CPU: included in front of a .cu file by g++ (-include).
 *
 * A block's threads are fibers that run one after the other until they meet a barrier or a shuffle; blocks run in turn. What an
 * emulated launch adds: the order of threads between barriers is shuffled (emulate_order), so that a missing barrier shows as a
 * changed result; shared memory and device memory are full of NaN before they are written; dynamic shared memory has exactly the
 * size asked for, so that ASan sees every access outside; a barrier that not all threads of a block reach is fatal. */
#pragma once

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

#define GANTRY_EMULATED 1
#define NAME(x) emulated_##x
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct simt_index { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct float4 { float x, y, z, w; };

extern thread_local simt_index threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;
extern thread_local char *simt_shared;

typedef void simt_thread(void *arg);
/* -EINVAL: a launch that a device would refuse, when it is made and not when its turn comes. */
int simt_check(dim3 grid, dim3 block, size_t shared);
/* Runs every block of a launch that has passed. */
int simt_launch(dim3 grid, dim3 block, size_t shared, simt_thread *thread, void *arg);
void __syncthreads(void);
void __syncwarp(unsigned mask = 0xffffffffu);
uint32_t simt_exchange(uint32_t value, int from_lane);
unsigned simt_lane(void);
struct simt_inside { simt_inside(); ~simt_inside(); };      /* while it lives, the device's memory can be got at
                                                             * (emulate_apart) */
void simt_owned(void);                              /* fatal where this thread has not made the device its own */
int simt_gone(void);                                /* -EIO: the device has fallen off */
void simt_corners(bool yes);                        /* only the first and the last block of each direction run */
void simt_poison(void *memory, size_t bytes);       /* NaN, or what is left of it */

extern thread_local int simt_result;                /* of the last launch */
template <class F> void simt_call(void *arg) { (*(F *)arg)(); }
/* While a graph is captured, or on a lazy stream, work is kept instead of done; its arguments are those of now, memory is looked
 * into then. */
bool simt_kept(void *stream, const std::function<int()> &work);
template <class F> void simt_run(void *stream, dim3 grid, dim3 block, size_t shared, F f)
{
    simt_result = simt_check(grid, block, shared);
    if (simt_result == 0 && !simt_kept(stream, [=]() {
            F again = f;

            return simt_launch(grid, block, shared, simt_call<F>, &again);
        }))
        simt_result = simt_launch(grid, block, shared, simt_call<F>, &f);
}
/* Arguments are what they are at the launch, as on a device. */
template <class K, class... A> auto simt_bind(K kernel, A... arguments)
{
    return [=]() { kernel(arguments...); };
}
#define LAUNCH(kernel, grid, block, shared, stream, ...) \
    do { \
        auto kernel_ = kernel; \
        simt_run((stream), (grid), (block), (shared), simt_bind(kernel_, __VA_ARGS__)); \
    } while (0)
#define SHARED_DYNAMIC(type, name) type *name = reinterpret_cast<type *>(simt_shared)
#define LAUNCHED() simt_result
#define UNROLL(text)

static inline float4 __ldcs(const float4 *p)
{
    float4 x;

    memcpy(&x, p, sizeof(x));
    return x;
}
static inline float __shfl_xor_sync(unsigned, float x, int mask)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits = simt_exchange(bits, (int)(simt_lane() ^ (unsigned)mask));
    memcpy(&x, &bits, sizeof(x));
    return x;
}
static inline float __shfl_sync(unsigned, float x, int lane)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits = simt_exchange(bits, lane);
    memcpy(&x, &bits, sizeof(x));
    return x;
}
static inline uint32_t __shfl_sync(unsigned, uint32_t x, int lane) { return simt_exchange(x, lane); }
static inline int __shfl_sync(unsigned, int x, int lane) { return (int)simt_exchange((uint32_t)x, lane); }
static inline int __shfl_xor_sync(unsigned, int x, int mask)
{
    return (int)simt_exchange((uint32_t)x, (int)(simt_lane() ^ (unsigned)mask));
}
