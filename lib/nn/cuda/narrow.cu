/* narrow.cu - products of few rows, a decoding step's: bound by reading B once, which is bf16 and stored (n,k).
 *
 * A group of lanes makes OUTS neighbouring columns of C for all rows at once: each lane takes every LANES-th sixteen bytes of k,
 * and asks for AHEAD of them of each row of B before the first is needed, so that enough is on its way from memory. A is read
 * again by every group, from the caches. An output is LANES chains over ascending k, added in a fixed tree: its bits depend on k alone. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"
#include "nn/device/narrow.h"

enum { THREADS = 256, OUTS = 2, AHEAD = 4, EIGHT = pack<bf16>::N };
/* Eight numbers, two in a word, the first in its lower half: apart from each other the compiler would move them one by one. */
typedef pack<uint32_t> eight;

template <int LANES> DEV float lanes_sum(float x)
{
    for (int offset = LANES / 2; offset; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

DEV float first_of(uint32_t two) { return bits_to_float(two << 16); }
DEV float second_of(uint32_t two) { return bits_to_float(two & 0xffff0000u); }

/* sum[o][r] += the products of eight numbers of each column's row of B with the same of each row of A; beyond k's end, zeros. */
template <int ROWS> DEV void add_products(float (*sum)[ROWS], const eight *b, const bf16 *const *a, int64_t k, int64_t end)
{
    UNROLL("unroll")
    for (int r = 0; r < ROWS; r++) {
        eight x = {};

        if (k < end)
            x = *reinterpret_cast<const eight *>(a[r] + k);
        UNROLL("unroll")
        for (int e = 0; e < EIGHT / 2; e++)
            for (int o = 0; o < OUTS; o++) {
                sum[o][r] = fmaf(first_of(b[o].v[e]), first_of(x.v[e]), sum[o][r]);
                sum[o][r] = fmaf(second_of(b[o].v[e]), second_of(x.v[e]), sum[o][r]);
            }
    }
}

template <class C> DEV void store_product(C *to, const struct device_gemm &g, float s, int64_t column)
{
    s = g.alpha == 1.0f ? s : g.alpha * s;
    s = g.bias ? s + g.bias[column] : s;
    store(to, g.add ? load(to) + s : s);
}

template <int ROWS, int LANES, class C> static __global__ void __launch_bounds__(THREADS) narrow_kernel(struct device_gemm g)
{
    enum { STEP = LANES * EIGHT };
    int lane = (int)threadIdx.x % LANES;
    int64_t first = ((int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES) * OUTS, k = (int64_t)lane * EIGHT;
    const bf16 *a[ROWS], *b[OUTS];
    float sum[OUTS][ROWS] = {};

    UNROLL("unroll")
    for (int r = 0; r < ROWS; r++) /* beyond the last: that again, which nobody stores */
        a[r] = (const bf16 *)g.a + blockIdx.y * g.a_apart + (r < g.m ? r : g.m - 1) * g.a_row;
    UNROLL("unroll")
    for (int o = 0; o < OUTS; o++)
        b[o] = (const bf16 *)g.b + blockIdx.y * g.b_apart + (first + o < g.n ? first + o : g.n - 1) * g.b_row;
    for (int64_t k0 = 0; k0 < g.k; k0 += AHEAD * STEP, k += AHEAD * STEP) { /* as often for each lane */
        eight ahead[AHEAD][OUTS] = {};

        UNROLL("unroll")
        for (int i = 0; i < AHEAD; i++)
            for (int o = 0; o < OUTS; o++)
                if (k + i * STEP < g.k)
                    ahead[i][o] = load_once(reinterpret_cast<const eight *>(b[o] + k + i * STEP));
        __syncwarp(); /* else the compiler saves registers and asks for each when it is needed, which is no time ahead */
        UNROLL("unroll")
        for (int i = 0; i < AHEAD; i++)
            add_products<ROWS>(sum, ahead[i], a, k + i * STEP, g.k);
    }
    UNROLL("unroll")
    for (int done = 0; done < OUTS * ROWS; done += LANES) { /* a lane stores one of as many */
        int o = (done + lane) / ROWS, r = (done + lane) % ROWS;
        float mine = 0.0f;

        UNROLL("unroll")
        for (int i = done; i < OUTS * ROWS && i < done + LANES; i++) {
            float s = lanes_sum<LANES>(sum[i / ROWS][i % ROWS]);

            mine = i == done + lane ? s : mine;
        }
        if (o < OUTS && r < g.m && first + o < g.n)
            store_product((C *)g.c + blockIdx.y * g.c_apart + r * g.c_row + first + o, g, mine, first + o);
    }
}

template <int ROWS, int LANES, class C> static int launch(void *stream, const struct device_gemm *g)
{
    int64_t blocks = (g->n + THREADS / LANES * OUTS - 1) / (THREADS / LANES * OUTS);

    if (blocks > 0x7fffffff || g->batch > 65535)
        return -ENOTSUP;
    LAUNCH((narrow_kernel<ROWS, LANES, C>), dim3((unsigned)blocks, (unsigned)(g->batch > 1 ? g->batch : 1)), THREADS, 0, stream,
           *g);
    return LAUNCHED();
}

/* An adapter's B is as short as its rank: there a whole warp a column would have nothing to do. */
template <int ROWS, class C> static int for_k(void *stream, const struct device_gemm *g)
{
    return g->k <= 8 * EIGHT ? launch<ROWS, 8, C>(stream, g) : launch<ROWS, WARP, C>(stream, g);
}

template <class C> static int for_rows(void *stream, const struct device_gemm *g)
{
    return g->m == 1 ? for_k<1, C>(stream, g) : g->m == 2 ? for_k<2, C>(stream, g) : g->m <= 4 ? for_k<4, C>(stream, g) :
        for_k<8, C>(stream, g);
}

static int gemm_narrow(void *stream, const struct device_gemm *g)
{
    if (!narrow_takes(g))
        return -ENOTSUP;
    return g->c_type == DEVICE_BF16 ? for_rows<bf16>(stream, g) : for_rows<float>(stream, g);
}

extern "C" void NAME(fill_narrow)(struct device_kernels *k) { k->gemm_narrow = gemm_narrow; }
