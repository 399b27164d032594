/* gemm.cu - the own matrix product: what is used where cuBLASLt is missing or refuses, and the oracle for it.
 *
 * Every output is one chain of fused multiply-adds over ascending k, as on the CPU: with fp32 operands the bits are the CPU's,
 * whatever m and n are. A block makes 64 x 64 outputs with 256 threads, each 4 x 4; operands pass through shared memory. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { TILE = 64, DEPTH = 16, THREADS = 256, EACH = TILE * DEPTH / THREADS };

/* tile[k][i] = element (first + i, k0 + k) of a matrix of `most` rows and k columns; stored so, or transposed. */
template <class T>
DEV void fetch(float (*tile)[TILE + 4], const T *from, int64_t row, bool transposed, int64_t first, int64_t most, int64_t k0,
               int64_t k)
{
    for (int e = 0; e < EACH; e++) {
        int j = (int)threadIdx.x + e * THREADS; /* neighbours in the block are neighbours in memory */
        int i = transposed ? j % TILE : j / DEPTH, kk = transposed ? j / TILE : j % DEPTH;
        bool inside = first + i < most && k0 + kk < k;

        tile[kk][i] = !inside ? 0.0f : load(&from[transposed ? (k0 + kk) * row + first + i : (first + i) * row + k0 + kk]);
    }
}

template <class A, class B, class C>
static __global__ void __launch_bounds__(THREADS) gemm_kernel(struct device_gemm g, int64_t across)
{
    __shared__ float a[DEPTH][TILE + 4], b[DEPTH][TILE + 4];
    const A *from_a = (const A *)g.a + blockIdx.y * g.a_apart;
    const B *from_b = (const B *)g.b + blockIdx.y * g.b_apart;
    int64_t m0 = blockIdx.x / across * TILE, n0 = blockIdx.x % across * TILE;
    int ty = (int)threadIdx.x / 16, tx = (int)threadIdx.x % 16;
    float sum[4][4] = {};

    for (int64_t k0 = 0; k0 < g.k; k0 += DEPTH) {
        fetch(a, from_a, g.a_row, g.a_transposed, m0, g.m, k0, g.k);
        fetch(b, from_b, g.b_row, !g.b_transposed, n0, g.n, k0, g.k);
        __syncthreads();
        for (int k = 0; k < DEPTH; k++) {
            float av[4], bv[4];

            for (int i = 0; i < 4; i++) {
                av[i] = a[k][ty * 4 + i];
                bv[i] = b[k][tx + 16 * i];
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    sum[i][j] = fmaf(av[i], bv[j], sum[i][j]);
        }
        __syncthreads();
    }
    UNROLL("unroll") /* or the sums are kept in memory, to be indexed */
    for (int i = 0; i < 4; i++) {
        UNROLL("unroll")
        for (int j = 0; j < 4; j++) {
            int64_t r = m0 + ty * 4 + i, c = n0 + tx + 16 * j;
            float s = sum[i][j];
            C *to = (C *)g.c + blockIdx.y * g.c_apart + r * g.c_row + c;

            if (r >= g.m || c >= g.n)
                continue;
            s = g.alpha == 1.0f ? s : g.alpha * s;
            s = g.bias ? s + g.bias[c] : s;
            store(to, g.add ? load(to) + s : s);
        }
    }
}

template <class A, class B, class C> static int launch(void *stream, const struct device_gemm *g)
{
    int64_t across = (g->n + TILE - 1) / TILE, down = (g->m + TILE - 1) / TILE;

    if (across * down > 0x7fffffff || g->batch > 65535 || (g->batch > 1 && g->bias))
        return -EINVAL;
    LAUNCH((gemm_kernel<A, B, C>), dim3((unsigned)(across * down), (unsigned)(g->batch > 1 ? g->batch : 1)), THREADS, 0, stream,
           *g, across);
    return LAUNCHED();
}

template <class A, class B> static int for_c(void *stream, const struct device_gemm *g)
{
    return g->c_type == DEVICE_BF16 ? launch<A, B, bf16>(stream, g) : launch<A, B, float>(stream, g);
}

static int gemm(void *stream, const struct device_gemm *g)
{
    if (g->m <= 0 || g->n <= 0 || g->k <= 0)
        return g->m < 0 || g->n < 0 || g->k <= 0 ? -EINVAL : 0;
    if (g->a_type == DEVICE_BF16)
        return g->b_type == DEVICE_BF16 ? for_c<bf16, bf16>(stream, g) : for_c<bf16, float>(stream, g);
    return g->b_type == DEVICE_BF16 ? for_c<float, bf16>(stream, g) : for_c<float, float>(stream, g);
}

extern "C" void NAME(fill_gemm)(struct device_kernels *k) { k->gemm = gemm; }
