/* rope.cu - rotary positions, and keys and values appended to their cache. Index arithmetic in 64 bits throughout. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = ROW_THREADS };

/* Pairs i .. i + N - 1 of a head: columns i of its first half and their partners half a head on. */
template <class T, int N> DEV void rotate(T *head, const float *cosine, int64_t i, int64_t half, float direction, T *copy)
{
    some<T, N> a = *reinterpret_cast<some<T, N> *>(head + i), b = *reinterpret_cast<some<T, N> *>(head + half + i);

    for (int n = 0; n < N; n++) {
        float x = load(&a.v[n]), y = load(&b.v[n]), c = cosine[i + n], s = direction * cosine[half + i + n];

        store(&a.v[n], fmaf(-y, s, x * c));
        store(&b.v[n], fmaf(x, s, y * c));
    }
    *reinterpret_cast<some<T, N> *>(head + i) = a;
    *reinterpret_cast<some<T, N> *>(head + half + i) = b;
    if (copy) {
        *reinterpret_cast<some<T, N> *>(copy + i) = a;
        *reinterpret_cast<some<T, N> *>(copy + half + i) = b;
    }
}

template <class T, int N>
static __global__ void rope_kernel(T *x, int64_t row, const int32_t *position, const float *table, int64_t rows, int heads,
                                   int64_t dim, float direction)
{
    int64_t half = dim / 2, work = heads * half / N;

    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        const float *cosine = table + (position ? (int64_t)position[r] : r) * dim;

        for (int64_t j = thread_number() * N; j < work * N; j += thread_count() * N)
            rotate<T, N>(x + r * row + j / half * dim, cosine, j % half, half, direction, nullptr);
    }
}

/* May heads of this size, rows apart, be taken sixteen bytes at a time? */
template <class T> static bool packed_heads(int64_t dim, int64_t row, const void *x)
{
    return dim % (2 * pack<T>::N) == 0 && row % pack<T>::N == 0 && aligned16(x);
}

template <class T>
static int rope_as(void *stream, T *x, int64_t row, const int32_t *position, const float *table, int64_t rows, int heads,
                   int64_t dim, float direction)
{
    enum { N = pack<T>::N };

    if (packed_heads<T>(dim, row, x))
        LAUNCH((rope_kernel<T, N>), row_grid(rows, heads * (dim / 2) / N), THREADS, 0, stream, x, row, position, table, rows,
               heads, dim, direction);
    else
        LAUNCH((rope_kernel<T, 1>), row_grid(rows, heads * (dim / 2)), THREADS, 0, stream, x, row, position, table, rows, heads,
               dim, direction);
    return LAUNCHED();
}

static int rope(void *stream, enum device_type type, void *x, int64_t row, const int32_t *position, const float *table,
                int64_t rows, int heads, int64_t dim, float direction)
{
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16 ? rope_as(stream, (bf16 *)x, row, position, table, rows, heads, dim, direction)
                               : rope_as(stream, (float *)x, row, position, table, rows, heads, dim, direction);
}

template <class T> struct appended {
    T *q, *k, *cache_k, *cache_v;
    const T *v;
    const int32_t *slot, *position;
    const float *table;
    int64_t rows, heads, dim, capacity;
};

template <class T, int N> static __global__ void rope_append_kernel(struct appended<T> a)
{
    int64_t half = a.dim / 2, width = a.heads * a.dim;

    for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
        const float *cosine = a.table + (int64_t)a.position[r] * a.dim;
        int64_t to = ((int64_t)a.slot[r] * a.capacity + a.position[r]) * width;

        for (int64_t j = thread_number() * N; j < width / 2; j += thread_count() * N) {
            int64_t head = j / half * a.dim, i = j % half, at = r * width + head + i;

            rotate<T, N>(a.q + r * width + head, cosine, i, half, 1.0f, nullptr);
            rotate<T, N>(a.k + r * width + head, cosine, i, half, 1.0f, a.cache_k + to + head);
            *reinterpret_cast<some<T, N> *>(a.cache_v + to + head + i) = *reinterpret_cast<const some<T, N> *>(a.v + at);
            *reinterpret_cast<some<T, N> *>(a.cache_v + to + head + half + i) =
                *reinterpret_cast<const some<T, N> *>(a.v + at + half);
        }
    }
}

template <class T> static int rope_append_as(void *stream, struct appended<T> a)
{
    enum { N = pack<T>::N };
    int64_t width = a.heads * a.dim;
    bool packed = packed_heads<T>(a.dim, width, a.q) && aligned16(a.k) && aligned16(a.v) && aligned16(a.cache_k) &&
        aligned16(a.cache_v);

    if (packed)
        LAUNCH((rope_append_kernel<T, N>), row_grid(a.rows, width / 2 / N), THREADS, 0, stream, a);
    else
        LAUNCH((rope_append_kernel<T, 1>), row_grid(a.rows, width / 2), THREADS, 0, stream, a);
    return LAUNCHED();
}

static int rope_append(void *stream, enum device_type type, void *q, void *k, const void *v, void *cache_k, void *cache_v,
                       const int32_t *slot, const int32_t *position, const float *table, int64_t rows, int heads, int64_t dim,
                       int64_t capacity)
{
#define APPENDED(T) \
    (appended<T>{(T *)q, (T *)k, (T *)cache_k, (T *)cache_v, (const T *)v, slot, position, table, rows, heads, dim, capacity})
    if (dim % 2)
        return -EINVAL;
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16 ? rope_append_as(stream, APPENDED(bf16)) : rope_append_as(stream, APPENDED(float));
}

template <class T, int N>
static __global__ void kv_append_kernel(T *cache_k, T *cache_v, const T *k, const T *v, const int32_t *slot,
                                        const int32_t *position, int64_t rows, int64_t width, int64_t capacity)
{
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        int64_t to = ((int64_t)slot[r] * capacity + position[r]) * width;

        for (int64_t c = thread_number() * N; c < width; c += thread_count() * N) {
            *reinterpret_cast<some<T, N> *>(cache_k + to + c) = *reinterpret_cast<const some<T, N> *>(k + r * width + c);
            *reinterpret_cast<some<T, N> *>(cache_v + to + c) = *reinterpret_cast<const some<T, N> *>(v + r * width + c);
        }
    }
}

template <class T>
static int kv_append_as(void *stream, T *cache_k, T *cache_v, const T *k, const T *v, const int32_t *slot,
                        const int32_t *position, int64_t rows, int64_t width, int64_t capacity)
{
    enum { N = pack<T>::N };
    bool packed = width % N == 0 && aligned16(cache_k) && aligned16(cache_v) && aligned16(k) && aligned16(v);

    if (packed)
        LAUNCH((kv_append_kernel<T, N>), row_grid(rows, width / N), THREADS, 0, stream, cache_k, cache_v, k, v, slot, position,
               rows, width, capacity);
    else
        LAUNCH((kv_append_kernel<T, 1>), row_grid(rows, width), THREADS, 0, stream, cache_k, cache_v, k, v, slot, position, rows,
               width, capacity);
    return LAUNCHED();
}

static int kv_append(void *stream, enum device_type type, void *cache_k, void *cache_v, const void *k, const void *v,
                     const int32_t *slot, const int32_t *position, int64_t rows, int64_t width, int64_t capacity)
{
    if (rows <= 0)
        return 0;
    return type == DEVICE_BF16 ? kv_append_as(stream, (bf16 *)cache_k, (bf16 *)cache_v, (const bf16 *)k, (const bf16 *)v, slot,
                                              position, rows, width, capacity)
                               : kv_append_as(stream, (float *)cache_k, (float *)cache_v, (const float *)k, (const float *)v,
                                              slot, position, rows, width, capacity);
}

extern "C" void NAME(fill_rope)(struct device_kernels *k)
{
    k->rope = rope;
    k->rope_append = rope_append;
    k->kv_append = kv_append;
}
