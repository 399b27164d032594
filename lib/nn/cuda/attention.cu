/* attention.cu - the own fused attention: oracle for cuDNN's, and what runs where that does not.
 *
 * Packed sequences, any length; full or causal with the queries at the end; grouped heads. Four warps a block. Forward and dQ: a
 * warp has a few queries, its lanes are 32 keys of a tile in shared memory; then, with the weights of those keys, lanes are
 * columns. dK and dV: the same with the parts changed. Softmax runs along with the tiles (maximum, sum, output rescaled), the
 * log of the sum is kept for the way back, where probabilities are made again. Every number has one owner: no atomics.
 * DC: columns of a head in units of 32, the rest zeros. Rows in shared memory are 4 floats longer than that: 16-byte loads of
 * neighbouring rows meet different banks. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { WARPS = 4, THREADS = WARPS * WARP, KEYS = 32, ROW_EXTRA = 4, FORWARD_ROWS = 4, BACKWARD_ROWS = 2, DECODE_WARPS = 16 };

/* Where a block works. Row numbers within the sequence; q rows are counted from the first that asks. */
struct place {
    int64_t keys, asking, first; /* rows of keys; of queries; key row of query 0 */
    int64_t key_row, query_row;  /* of the sequence, in k and v, and in q */
};

DEV struct place place_of(const struct device_attention &a, int sequence)
{
    struct place p;

    p.key_row = a.start[sequence];
    p.query_row = a.asking[sequence];
    p.keys = a.start[sequence + 1] - p.key_row;
    p.asking = a.asking[sequence + 1] - p.query_row;
    p.first = p.keys - p.asking;
    return p;
}

/* Where the log of the sum of a query's exponentials is. */
DEV int64_t lse_at(const struct device_attention &a, const struct place &p, int64_t h, int64_t query)
{
    return p.query_row * a.heads + h * p.asking + query;
}

/* rows x (32 DC) floats of shared memory, `ld` apart, from rows at `from`; zeros beyond `left` rows and `dim` columns. */
template <class T, int DC>
DEV void tile_load(float *tile, int ld, const T *from, int64_t row, int rows, int64_t left, int64_t dim)
{
    UNROLL("unroll 4")
    for (int e = (int)threadIdx.x; e < rows * DC * WARP; e += THREADS) {
        int r = e / (DC * WARP), c = e % (DC * WARP);

        tile[r * ld + c] = r < left && c < dim ? load(&from[r * row + c]) : 0.0f;
    }
}

/* sum[i] = row `lane` of `tile` times row i of `rows` */
template <int DC, int N> DEV void dots(float *sum, const float *tile, const float *rows, int lane)
{
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    UNROLL("unroll 2")
    for (int d = 0; d < DC * WARP; d += 4) {
        float4 t = *reinterpret_cast<const float4 *>(tile + lane * (DC * WARP + ROW_EXTRA) + d);

        for (int i = 0; i < N; i++) {
            float4 r = *reinterpret_cast<const float4 *>(rows + i * DC * WARP + d);

            sum[i] = fmaf(t.x, r.x, sum[i]);
            sum[i] = fmaf(t.y, r.y, sum[i]);
            sum[i] = fmaf(t.z, r.z, sum[i]);
            sum[i] = fmaf(t.w, r.w, sum[i]);
        }
    }
}

/* acc[i][c] += sum over the tile's rows j of weight[i] of lane j times tile[j][lane + 32 c] */
template <int DC, int N> DEV void weigh(float (*acc)[DC], const float *weight, const float *tile, int lane)
{
    UNROLL("unroll 4")
    for (int j = 0; j < KEYS; j++) {
        float w[N];

        for (int i = 0; i < N; i++)
            w[i] = __shfl_sync(0xffffffffu, weight[i], j);
        for (int c = 0; c < DC; c++) {
            float t = tile[j * (DC * WARP + ROW_EXTRA) + lane + WARP * c];

            for (int i = 0; i < N; i++)
                acc[i][c] = fmaf(w[i], t, acc[i][c]);
        }
    }
}

template <class T, int DC> static __global__ void __launch_bounds__(THREADS) forward_kernel(struct device_attention a)
{
    enum { N = FORWARD_ROWS, LD = DC * WARP + ROW_EXTRA, ROWS = WARPS * N };
    SHARED_DYNAMIC(float, keys);
    float *values = keys + KEYS * LD, *queries = values + KEYS * LD;
    struct place p = place_of(a, (int)blockIdx.z);
    int h = (int)blockIdx.y, warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t q0 = (int64_t)blockIdx.x * ROWS, shared_head = h / a.group * a.dim;
    int64_t seen = a.causal ? p.first + (q0 + ROWS < p.asking ? q0 + ROWS : p.asking) : p.keys;
    const T *k = (const T *)a.k + p.key_row * a.kv_stride + shared_head,
            *v = (const T *)a.v + p.key_row * a.kv_stride + shared_head;
    float top[N], sum[N], acc[N][DC];

    if (q0 >= p.asking) /* the whole block */
        return;
    for (int i = 0; i < N; i++) {
        top[i] = -INFINITY;
        sum[i] = 0.0f;
        for (int c = 0; c < DC; c++)
            acc[i][c] = 0.0f;
    }
    tile_load<T, DC>(queries, DC * WARP, (const T *)a.q + (p.query_row + q0) * a.q_stride + h * a.dim, a.q_stride, ROWS,
                     p.asking - q0, a.dim);
    for (int64_t k0 = 0; k0 < seen; k0 += KEYS) {
        float s[N];

        __syncthreads(); /* the tiles of the last round are used up */
        tile_load<T, DC>(keys, LD, k + k0 * a.kv_stride, a.kv_stride, KEYS, p.keys - k0, a.dim);
        tile_load<T, DC>(values, LD, v + k0 * a.kv_stride, a.kv_stride, KEYS, p.keys - k0, a.dim);
        __syncthreads();
        dots<DC, N>(s, keys, queries + warp * N * DC * WARP, lane);
        for (int i = 0; i < N; i++) {
            int64_t query = q0 + warp * N + i, key = k0 + lane;
            bool sees = query < p.asking && key < p.keys && (!a.causal || key <= p.first + query);
            float x = sees ? a.scale * s[i] : -INFINITY, higher = warp_max(x), shrink;

            higher = higher > top[i] ? higher : top[i];
            shrink = top[i] == -INFINITY ? 0.0f : exp_of(top[i] - higher);
            s[i] = sees ? exp_of(x - higher) : 0.0f;
            sum[i] = fmaf(sum[i], shrink, warp_sum(s[i]));
            top[i] = higher;
            for (int c = 0; c < DC; c++)
                acc[i][c] *= shrink;
        }
        weigh<DC, N>(acc, s, values, lane);
    }
    for (int i = 0; i < N; i++) {
        int64_t query = q0 + warp * N + i, row = p.query_row + query;

        if (query >= p.asking)
            continue;
        for (int c = 0; c < DC; c++)
            if (lane + WARP * c < a.dim)
                store((T *)a.out + row * a.out_stride + h * a.dim + lane + WARP * c, acc[i][c] / sum[i]);
        if (a.lse && lane == 0)
            a.lse[lse_at(a, p, h, query)] = top[i] + log_of(sum[i]);
    }
}

/* delta = <dO, O> of each row and head: a warp each. */
template <class T> static __global__ void delta_kernel(struct device_attention a)
{
    int64_t n = a.q_rows * a.heads;

    for (int64_t j = thread_number() / WARP; j < n; j += thread_count() / WARP) {
        int64_t row = j / a.heads, h = j % a.heads, at = row * a.out_stride + h * a.dim;
        float sum = 0.0f;

        for (int64_t d = threadIdx.x % WARP; d < a.dim; d += WARP)
            sum = fmaf(load((const T *)a.dout + at + d), load((const T *)a.out + at + d), sum);
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0)
            a.delta[h * a.q_rows + row] = sum;
    }
}

template <class T, int DC> static __global__ void __launch_bounds__(THREADS) dq_kernel(struct device_attention a)
{
    enum { N = BACKWARD_ROWS, LD = DC * WARP + ROW_EXTRA, ROWS = WARPS * N };
    SHARED_DYNAMIC(float, keys);
    float *values = keys + KEYS * LD, *queries = values + KEYS * LD, *douts = queries + ROWS * DC * WARP;
    struct place p = place_of(a, (int)blockIdx.z);
    int h = (int)blockIdx.y, warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t q0 = (int64_t)blockIdx.x * ROWS, shared_head = h / a.group * a.dim;
    int64_t seen = a.causal ? p.first + (q0 + ROWS < p.asking ? q0 + ROWS : p.asking) : p.keys;
    const T *k = (const T *)a.k + p.key_row * a.kv_stride + shared_head,
            *v = (const T *)a.v + p.key_row * a.kv_stride + shared_head;
    float acc[N][DC], lse[N], delta[N];

    if (q0 >= p.asking)
        return;
    for (int i = 0; i < N; i++) {
        int64_t query = q0 + warp * N + i, at = h * a.q_rows + p.query_row + query;

        lse[i] = query < p.asking ? a.lse[lse_at(a, p, h, query)] : 0.0f;
        delta[i] = query < p.asking ? a.delta[at] : 0.0f;
        for (int c = 0; c < DC; c++)
            acc[i][c] = 0.0f;
    }
    tile_load<T, DC>(queries, DC * WARP, (const T *)a.q + (p.query_row + q0) * a.q_stride + h * a.dim, a.q_stride, ROWS,
                     p.asking - q0, a.dim);
    tile_load<T, DC>(douts, DC * WARP, (const T *)a.dout + (p.query_row + q0) * a.out_stride + h * a.dim, a.out_stride, ROWS,
                     p.asking - q0, a.dim);
    for (int64_t k0 = 0; k0 < seen; k0 += KEYS) {
        float s[N], dp[N];

        __syncthreads();
        tile_load<T, DC>(keys, LD, k + k0 * a.kv_stride, a.kv_stride, KEYS, p.keys - k0, a.dim);
        tile_load<T, DC>(values, LD, v + k0 * a.kv_stride, a.kv_stride, KEYS, p.keys - k0, a.dim);
        __syncthreads();
        dots<DC, N>(s, keys, queries + warp * N * DC * WARP, lane);
        dots<DC, N>(dp, values, douts + warp * N * DC * WARP, lane);
        for (int i = 0; i < N; i++) {
            int64_t query = q0 + warp * N + i, key = k0 + lane;
            bool sees = query < p.asking && key < p.keys && (!a.causal || key <= p.first + query);

            s[i] = sees ? exp_of(a.scale * s[i] - lse[i]) * (dp[i] - delta[i]) * a.scale : 0.0f;
        }
        weigh<DC, N>(acc, s, keys, lane);
    }
    for (int i = 0; i < N; i++) {
        int64_t query = q0 + warp * N + i;
        T *to = (T *)a.dq + (p.query_row + query) * a.q_stride + h * a.dim + lane;

        for (int c = 0; c < DC && query < p.asking; c++)
            if (lane + WARP * c < a.dim)
                store(to + WARP * c, a.fresh ? acc[i][c] : load(to + WARP * c) + acc[i][c]);
    }
}

/* A block has a few keys of one head of k and v, and goes through all queries of the heads that share it. */
template <class T, int DC> static __global__ void __launch_bounds__(THREADS) dkv_kernel(struct device_attention a)
{
    enum { N = BACKWARD_ROWS, LD = DC * WARP + ROW_EXTRA, ROWS = WARPS * N };
    SHARED_DYNAMIC(float, queries);
    float *douts = queries + KEYS * LD, *keys = douts + KEYS * LD, *values = keys + ROWS * DC * WARP;
    struct place p = place_of(a, (int)blockIdx.z);
    int shared_head = (int)blockIdx.y, warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t k0 = (int64_t)blockIdx.x * ROWS, at = (p.key_row + k0) * a.kv_stride + shared_head * a.dim;
    int64_t from = a.causal && k0 > p.first ? (k0 - p.first) / KEYS * KEYS : 0; /* no query before sees any of these keys */
    float dk[N][DC], dv[N][DC];

    if (k0 >= p.keys)
        return;
    for (int i = 0; i < N; i++)
        for (int c = 0; c < DC; c++)
            dk[i][c] = dv[i][c] = 0.0f;
    tile_load<T, DC>(keys, DC * WARP, (const T *)a.k + at, a.kv_stride, ROWS, p.keys - k0, a.dim);
    tile_load<T, DC>(values, DC * WARP, (const T *)a.v + at, a.kv_stride, ROWS, p.keys - k0, a.dim);
    for (int g = 0; g < a.group; g++)
        for (int64_t q0 = from; q0 < p.asking; q0 += KEYS) {
            int64_t h = (int64_t)shared_head * a.group + g, query = q0 + lane, row = p.query_row + q0;
            float s[N], dp[N], lse, delta;

            __syncthreads();
            tile_load<T, DC>(queries, LD, (const T *)a.q + row * a.q_stride + h * a.dim, a.q_stride, KEYS, p.asking - q0, a.dim);
            tile_load<T, DC>(douts, LD, (const T *)a.dout + row * a.out_stride + h * a.dim, a.out_stride, KEYS, p.asking - q0,
                             a.dim);
            __syncthreads();
            lse = query < p.asking ? a.lse[lse_at(a, p, h, query)] : 0.0f;
            delta = query < p.asking ? a.delta[h * a.q_rows + p.query_row + query] : 0.0f;
            dots<DC, N>(s, queries, keys + warp * N * DC * WARP, lane);
            dots<DC, N>(dp, douts, values + warp * N * DC * WARP, lane);
            for (int i = 0; i < N; i++) {
                int64_t key = k0 + warp * N + i;
                bool sees = query < p.asking && key < p.keys && (!a.causal || key <= p.first + query);

                s[i] = sees ? exp_of(a.scale * s[i] - lse) : 0.0f;
                dp[i] = s[i] * (dp[i] - delta) * a.scale;
            }
            weigh<DC, N>(dv, s, douts, lane);
            weigh<DC, N>(dk, dp, queries, lane);
        }
    for (int i = 0; i < N; i++) {
        int64_t key = warp * N + i, to = at + key * a.kv_stride + lane;

        for (int c = 0; c < DC && k0 + key < p.keys; c++)
            if (lane + WARP * c < a.dim) {
                T *k = (T *)a.dk + to + WARP * c, *v = (T *)a.dv + to + WARP * c;

                store(k, a.fresh ? dk[i][c] : load(k) + dk[i][c]);
                store(v, a.fresh ? dv[i][c] : load(v) + dv[i][c]);
            }
    }
}

/* DC neighbouring numbers, at once where WHOLE: all of a lane's columns are within the head and begin where DC numbers may be
 * loaded; else zeros beyond `left`. */
template <class T, int DC, bool WHOLE> DEV void columns_load(float *to, const T *from, int left)
{
    struct alignas(DC == 3 ? sizeof(T) : DC * sizeof(T)) columns { T v[DC]; };

    if (WHOLE) {
        columns all = *reinterpret_cast<const columns *>(from);

        for (int c = 0; c < DC; c++)
            to[c] = load(&all.v[c]);
    } else {
        for (int c = 0; c < DC; c++)
            to[c] = c < left ? load(from + c) : 0.0f;
    }
}

/* One query against its slot. With one row and 32 heads there are 32 blocks, whose time is that of their loads one after the
 * other: hence many warps, each four keys at a time, values asked for together with keys. A warp takes every sixteenth group of
 * four keys, a lane DC neighbouring columns; then the warps are joined. Which warp has a key depends on its position alone: a
 * row's bits are the same in any batch. */
template <class T, int DC, bool WHOLE>
static __global__ void __launch_bounds__(DECODE_WARPS *WARP) decode_kernel(struct device_decode a)
{
    enum { GROUP = 4, D = DC * WARP };
    __shared__ float tops[DECODE_WARPS], sums[DECODE_WARPS], outs[DECODE_WARPS][D];
    int h = (int)blockIdx.x, warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, left = (int)a.dim - lane * DC;

    for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
        int64_t n = (int64_t)a.position[r] + 1,
                base = (int64_t)a.slot[r] * a.capacity * a.width + h / a.group * a.dim + lane * DC;
        const T *k = (const T *)a.k + base, *v = (const T *)a.v + base;
        float q[DC], acc[DC], top = -INFINITY, sum = 0.0f;

        columns_load<T, DC, WHOLE>(q, (const T *)a.q + (r * a.heads + h) * a.dim + lane * DC, left);
        for (int c = 0; c < DC; c++)
            acc[c] = 0.0f;
        for (int64_t j = (int64_t)warp * GROUP; j < n; j += DECODE_WARPS * GROUP) {
            float key[GROUP][DC], value[GROUP][DC], s[GROUP], higher = top, shrink;

            UNROLL("unroll")
            for (int u = 0; u < GROUP; u++) {
                int64_t row = (j + u < n ? j + u : n - 1) * a.width; /* beyond the last: that again, which weighs nothing */

                columns_load<T, DC, WHOLE>(key[u], k + row, left);
                columns_load<T, DC, WHOLE>(value[u], v + row, left);
            }
            UNROLL("unroll")
            for (int u = 0; u < GROUP; u++) {
                s[u] = 0.0f;
                for (int c = 0; c < DC; c++)
                    s[u] = fmaf(q[c], key[u][c], s[u]);
                s[u] = warp_sum(s[u]);
                s[u] = j + u < n ? a.scale * s[u] : -INFINITY;
                higher = s[u] > higher ? s[u] : higher;
            }
            shrink = top == -INFINITY ? 0.0f : exp_of(top - higher);
            top = higher;
            sum *= shrink;
            for (int c = 0; c < DC; c++)
                acc[c] *= shrink;
            UNROLL("unroll")
            for (int u = 0; u < GROUP; u++) {
                float p = exp_of(s[u] - top);

                sum += p;
                for (int c = 0; c < DC; c++)
                    acc[c] = fmaf(p, value[u][c], acc[c]);
            }
        }
        __syncthreads(); /* the row before has been read */
        if (lane == 0) {
            tops[warp] = top;
            sums[warp] = sum;
        }
        for (int c = 0; c < DC; c++)
            outs[warp][lane * DC + c] = acc[c];
        __syncthreads();
        for (int d = (int)threadIdx.x; d < a.dim; d += DECODE_WARPS * WARP) {
            float highest = tops[0], whole = 0.0f, out = 0.0f;

            for (int w = 1; w < DECODE_WARPS; w++)
                highest = tops[w] > highest ? tops[w] : highest;
            for (int w = 0; w < DECODE_WARPS; w++) {
                float factor = tops[w] == -INFINITY ? 0.0f : exp_of(tops[w] - highest);

                whole = fmaf(factor, sums[w], whole);
                out = fmaf(factor, outs[w][d], out);
            }
            store((T *)a.out + (r * a.heads + h) * a.dim + d, out / whole);
        }
    }
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

#define FOR_DC(dim, f)                   \
    switch (((dim) + WARP - 1) / WARP) { \
    case 1: return f<T, 1>(stream, a);   \
    case 2: return f<T, 2>(stream, a);   \
    case 3: return f<T, 3>(stream, a);   \
    case 4: return f<T, 4>(stream, a);   \
    default: return -ENOTSUP;            \
    }

template <class T, int DC> static int forward_dc(void *stream, const struct device_attention *a)
{
    enum { ROWS = WARPS * FORWARD_ROWS, LD = DC * WARP + ROW_EXTRA };
    size_t shared = (2 * KEYS * LD + ROWS * DC * WARP) * sizeof(float);

    LAUNCH((forward_kernel<T, DC>), dim3((unsigned)((a->longest_asking + ROWS - 1) / ROWS), (unsigned)a->heads, (unsigned)a->n),
           THREADS, shared, stream, *a);
    return LAUNCHED();
}

template <class T, int DC> static int backward_dc(void *stream, const struct device_attention *a)
{
    enum { ROWS = WARPS * BACKWARD_ROWS, LD = DC * WARP + ROW_EXTRA };
    size_t shared = (2 * KEYS * LD + 2 * ROWS * DC * WARP) * sizeof(float);

    LAUNCH(delta_kernel<T>, blocks_for(a->q_rows * a->heads, WARPS, GRID_MOST), THREADS, 0, stream, *a);
    LAUNCH((dq_kernel<T, DC>), dim3((unsigned)((a->longest_asking + ROWS - 1) / ROWS), (unsigned)a->heads, (unsigned)a->n),
           THREADS, shared, stream, *a);
    LAUNCH((dkv_kernel<T, DC>), dim3((unsigned)((a->longest + ROWS - 1) / ROWS), (unsigned)(a->heads / a->group), (unsigned)a->n),
           THREADS, shared, stream, *a);
    return LAUNCHED();
}

template <class T> static int forward_as(void *stream, const struct device_attention *a) { FOR_DC(a->dim, forward_dc) }
template <class T> static int backward_as(void *stream, const struct device_attention *a) { FOR_DC(a->dim, backward_dc) }

template <class T, int DC> static int decode_dc(void *stream, const struct device_decode *a)
{
    uintptr_t at = (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v;
    bool whole = DC != 3 && a->dim == DC * WARP && at % (DC * sizeof(T)) == 0 && a->width % DC == 0;
    dim3 grid((unsigned)a->heads, (unsigned)(a->rows < 32768 ? a->rows : 32768));

    if (whole)
        LAUNCH((decode_kernel<T, DC, true>), grid, DECODE_WARPS * WARP, 0, stream, *a);
    else
        LAUNCH((decode_kernel<T, DC, false>), grid, DECODE_WARPS * WARP, 0, stream, *a);
    return LAUNCHED();
}

template <class T> static int decode_as(void *stream, const struct device_decode *a) { FOR_DC(a->dim, decode_dc) }

static bool fits(const struct device_attention *a)
{
    return a->dim > 0 && a->heads > 0 && a->heads <= 65535 && a->n <= 65535 && a->group > 0 && a->heads % a->group == 0;
}

static int attention(void *stream, enum device_type type, const struct device_attention *a)
{
    if (!fits(a))
        return -EINVAL;
    if (a->n == 0 || a->longest_asking == 0)
        return 0;
    return type == DEVICE_BF16 ? forward_as<bf16>(stream, a) : forward_as<float>(stream, a);
}

static int attention_backward(void *stream, enum device_type type, const struct device_attention *a)
{
    if (!fits(a) || !a->lse || !a->delta)
        return -EINVAL;
    if (a->n == 0 || a->longest_asking == 0)
        return 0;
    return type == DEVICE_BF16 ? backward_as<bf16>(stream, a) : backward_as<float>(stream, a);
}

static int attention_decode(void *stream, enum device_type type, const struct device_decode *a)
{
    if (a->dim <= 0 || a->heads <= 0 || a->group <= 0)
        return -EINVAL;
    if (a->rows == 0)
        return 0;
    return type == DEVICE_BF16 ? decode_as<bf16>(stream, a) : decode_as<float>(stream, a);
}

extern "C" void NAME(fill_attention)(struct device_kernels *k)
{
    k->attention = attention;
    k->attention_backward = attention_backward;
    k->attention_decode = attention_decode;
}
