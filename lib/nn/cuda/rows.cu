/* rows.cu - whole rows copied, picked, scattered, cut out of pictures. Index arithmetic in 64 bits throughout. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

enum { THREADS = ROW_THREADS };

template <class T>
static __global__ void copy_rows_kernel(T *y, int64_t y_row, const T *x, int64_t x_row, int64_t rows, int64_t cols, bool add)
{
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = thread_number(); c < cols; c += thread_count())
            store(&y[r * y_row + c], add ? load(&y[r * y_row + c]) + load(&x[r * x_row + c]) : load(&x[r * x_row + c]));
}

static int copy_rows(void *stream, enum device_type type, void *y, int64_t y_row, const void *x, int64_t x_row, int64_t rows,
                     int64_t cols, bool add)
{
    if (rows <= 0 || cols <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(copy_rows_kernel<bf16>, row_grid(rows, cols), THREADS, 0, stream, (bf16 *)y, y_row, (const bf16 *)x, x_row, rows,
               cols, add);
    else
        LAUNCH(copy_rows_kernel<float>, row_grid(rows, cols), THREADS, 0, stream, (float *)y, y_row, (const float *)x, x_row,
               rows, cols, add);
    return LAUNCHED();
}

template <class T> static __global__ void broadcast_kernel(T *y, int64_t y_row, const float *value, int64_t rows, int64_t cols)
{
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = thread_number(); c < cols; c += thread_count())
            store(&y[r * y_row + c], value[c]);
}

static int broadcast(void *stream, enum device_type type, void *y, int64_t y_row, const float *value, int64_t rows, int64_t cols)
{
    if (rows <= 0 || cols <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(broadcast_kernel<bf16>, row_grid(rows, cols), THREADS, 0, stream, (bf16 *)y, y_row, value, rows, cols);
    else
        LAUNCH(broadcast_kernel<float>, row_grid(rows, cols), THREADS, 0, stream, (float *)y, y_row, value, rows, cols);
    return LAUNCHED();
}

template <class T>
static __global__ void splice_kernel(T *y, const T *a, const T *b, const int32_t *index, int64_t n, int64_t cols, bool wide)
{
    enum { N = pack<T>::N };

    for (int64_t i = blockIdx.y; i < n; i += gridDim.y) {
        int64_t at = index[i];
        const T *from = at >= 0 ? a + at * cols : b + (-1 - at) * cols;

        if (wide)
            for (int64_t c = thread_number(); c < cols / N; c += thread_count())
                reinterpret_cast<pack<T> *>(y + i * cols)[c] = reinterpret_cast<const pack<T> *>(from)[c];
        else
            for (int64_t c = thread_number(); c < cols; c += thread_count())
                y[i * cols + c] = from[c];
    }
}

static int splice(void *stream, enum device_type type, void *y, const void *a, const void *b, const int32_t *index, int64_t n,
                  int64_t cols)
{
    int64_t wide = type == DEVICE_BF16 ? 8 : 4;
    bool packs = cols % wide == 0 && aligned16(y) && aligned16(a) && aligned16(b);
    dim3 grid = row_grid(n, packs ? cols / wide : cols);

    if (n <= 0 || cols <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(splice_kernel<bf16>, grid, THREADS, 0, stream, (bf16 *)y, (const bf16 *)a, (const bf16 *)b, index, n, cols, packs);
    else
        LAUNCH(splice_kernel<float>, grid, THREADS, 0, stream, (float *)y, (const float *)a, (const float *)b, index, n, cols,
               packs);
    return LAUNCHED();
}

/* One destination row belongs to one block row: no two threads add to the same number. */
template <class Y, class T>
static __global__ void scatter_kernel(Y *y, const T *x, const int32_t *rows, const int32_t *begin, const int32_t *from, int64_t n,
                                      int64_t cols)
{
    for (int64_t j = blockIdx.y; j < n; j += gridDim.y) {
        Y *to = y + (int64_t)rows[j] * cols;

        for (int64_t c = thread_number(); c < cols; c += thread_count()) {
            float sum = load(&to[c]);

            for (int32_t i = begin[j]; i < begin[j + 1]; i++)
                sum += load(&x[(int64_t)from[i] * cols + c]);
            store(&to[c], sum);
        }
    }
}

static int scatter(void *stream, enum device_type y_type, void *y, enum device_type type, const void *x, const int32_t *rows,
                   const int32_t *begin, const int32_t *from, int64_t n, int64_t cols)
{
    dim3 grid = row_grid(n, cols);

    if (n <= 0 || cols <= 0)
        return 0;
    if (type == DEVICE_BF16 && y_type == DEVICE_BF16)
        LAUNCH((scatter_kernel<bf16, bf16>), grid, THREADS, 0, stream, (bf16 *)y, (const bf16 *)x, rows, begin, from, n, cols);
    else if (type == DEVICE_BF16)
        LAUNCH((scatter_kernel<float, bf16>), grid, THREADS, 0, stream, (float *)y, (const bf16 *)x, rows, begin, from, n, cols);
    else if (y_type == DEVICE_F32)
        LAUNCH((scatter_kernel<float, float>), grid, THREADS, 0, stream, (float *)y, (const float *)x, rows, begin, from, n,
               cols);
    else
        return -EINVAL;
    return LAUNCHED();
}

template <class T, class W>
static __global__ void embedding_kernel(T *y, const W *table, const int32_t *ids, int64_t n, int64_t cols)
{
    for (int64_t i = blockIdx.y; i < n; i += gridDim.y) {
        int64_t id = ids[i];

        for (int64_t c = thread_number(); c < cols; c += thread_count())
            store(&y[i * cols + c], id < 0 ? 0.0f : load(&table[id * cols + c]));
    }
}

static int embedding(void *stream, enum device_type type, void *y, enum device_type table_type, const void *table,
                     const int32_t *ids, int64_t n, int64_t cols)
{
    dim3 grid = row_grid(n, cols);

    if (n <= 0 || cols <= 0)
        return 0;
    if (type == DEVICE_BF16 && table_type == DEVICE_BF16)
        LAUNCH((embedding_kernel<bf16, bf16>), grid, THREADS, 0, stream, (bf16 *)y, (const bf16 *)table, ids, n, cols);
    else if (type == DEVICE_BF16)
        LAUNCH((embedding_kernel<bf16, float>), grid, THREADS, 0, stream, (bf16 *)y, (const float *)table, ids, n, cols);
    else if (table_type == DEVICE_BF16)
        LAUNCH((embedding_kernel<float, bf16>), grid, THREADS, 0, stream, (float *)y, (const bf16 *)table, ids, n, cols);
    else
        LAUNCH((embedding_kernel<float, float>), grid, THREADS, 0, stream, (float *)y, (const float *)table, ids, n, cols);
    return LAUNCHED();
}

template <class T>
static __global__ void patches_kernel(T *y, const uint8_t *images, const float *lut, int64_t rows, int64_t down, int64_t across,
                                      int64_t width, int64_t patch)
{
    int64_t area = patch * patch, cols = 3 * area;

    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        int64_t image = r / (down * across), py = r / across % down, px = r % across;
        const uint8_t *corner = images + ((image * down + py) * patch * width + px * patch) * 3; /* height = down * patch */

        for (int64_t j = thread_number(); j < cols; j += thread_count()) {
            int64_t c = j / area, ky = j % area / patch, kx = j % patch;

            store(&y[r * cols + j], lut[c * 256 + corner[(ky * width + kx) * 3 + c]]);
        }
    }
}

static int patches(void *stream, enum device_type type, void *y, const uint8_t *images, const float *lut, int b, int height,
                   int width, int patch)
{
    int64_t down = height / patch, across = width / patch, rows = b * down * across;
    dim3 grid = row_grid(rows, 3 * (int64_t)patch * patch);

    if (height % patch || width % patch)
        return -EINVAL;
    if (rows <= 0)
        return 0;
    if (type == DEVICE_BF16)
        LAUNCH(patches_kernel<bf16>, grid, THREADS, 0, stream, (bf16 *)y, images, lut, rows, down, across, (int64_t)width,
               (int64_t)patch);
    else
        LAUNCH(patches_kernel<float>, grid, THREADS, 0, stream, (float *)y, images, lut, rows, down, across, (int64_t)width,
               (int64_t)patch);
    return LAUNCHED();
}

/* Along x: row r of y, pixel i, channel c. Along y: row i of y, column c. The sum starts with half a unit and is cut after 22
 * bits. */
static __global__ void resize_kernel(uint8_t *y, const uint8_t *x, bool along_x, int64_t rows, int64_t in, int64_t out,
                                     int64_t cols, const int32_t *begin, const int32_t *count, const int32_t *weights, int taps)
{
    int64_t n = along_x ? rows * out * 3 : out * cols;

    for (int64_t j = thread_number(); j < n; j += thread_count()) {
        int64_t i = along_x ? j / 3 % out : j / cols;
        int64_t at = along_x ? (j / (3 * out) * in + begin[i]) * 3 + j % 3 : begin[i] * cols + j % cols,
                step = along_x ? 3 : cols;
        int32_t sum = 1 << 21;

        for (int t = 0; t < count[i]; t++)
            sum += (int32_t)x[at + t * step] * weights[i * taps + t];
        sum >>= 22;
        y[j] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

static int resize_pass(void *stream, uint8_t *y, const uint8_t *x, bool along_x, int64_t rows, int64_t in, int64_t out,
                       int64_t cols, const int32_t *begin, const int32_t *count, const int32_t *weights, int taps)
{
    int64_t n = along_x ? rows * out * 3 : out * cols;

    if (n <= 0)
        return 0;
    LAUNCH(resize_kernel, blocks_for(n, THREADS, GRID_MOST), THREADS, 0, stream, y, x, along_x, rows, in, out, cols, begin, count,
           weights, taps);
    return LAUNCHED();
}

extern "C" void NAME(fill_rows)(struct device_kernels *k)
{
    k->copy_rows = copy_rows;
    k->broadcast = broadcast;
    k->splice = splice;
    k->scatter = scatter;
    k->embedding = embedding;
    k->patches = patches;
    k->resize_pass = resize_pass;
}
