#include "tests/harness/count_device.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "nn/device/dnn_key.h"

enum { HEADER = 4096, SMALL = 1 << 16 };

const char *const count_names[COUNT_ALL] = {
#define X(name, text) text,
    COUNT_KINDS(X)
#undef X
};

static struct {
    double bytes, flops;
    size_t memory, taken;
    struct counts now, before;  /* before: what had been counted when the capture under way began */
} c = {.bytes = 4.3e12, .flops = 790e12, .memory = (size_t)139 << 30};

void count_speeds(double bytes, double flops, size_t memory)
{
    c.bytes = bytes;
    c.flops = flops;
    c.memory = memory;
}

void count_clear(void) { c.now = (struct counts) {0}; }
struct counts count_read(void) { return c.now; }

static void add(struct count *to, const struct count *one)
{
    to->launches += one->launches;
    to->bytes += one->bytes;
    to->flops += one->flops;
    to->seconds += one->seconds;
}

static int launch(enum count_kind kind, unsigned long long launches, double bytes, double flops)
{
    struct count one = {launches, bytes, flops, fmax(bytes / c.bytes, flops / c.flops)};

    add(&c.now.kind[kind], &one);
    add(&c.now.total, &one);
    c.now.issued += launches;
    return 0;
}

static double moved(enum device_type type, double numbers) { return numbers * (double)device_element(type); }

/* ---- the machine ------------------------------------------------------------------------------------------------------- */

static int devices(void) { return 1; }

static int memory_now(size_t *ret_free, size_t *ret_all)
{
    *ret_free = c.memory - MIN(c.memory, c.taken);
    *ret_all = c.memory;
    return 0;
}

static int use(_unused_ int ordinal, struct device_facts *facts, _unused_ char *why, _unused_ size_t n)
{
    if (!facts)
        return 0;
    *facts = (struct device_facts) {.name = "a device that counts", .major = 9, .processors = 132, .bandwidth = c.bytes};
    return memory_now(&facts->memory_free, &facts->memory);
}

static int handle_new(void **ret) { return (*ret = malloc(1)) ? 0 : -ENOMEM; }

/* The length stands on a page in front. */
static int alloc(size_t bytes, void **ret)
{
    char *at;

    if (c.taken + bytes > c.memory)
        return -ENOMEM;
    at = mmap(NULL, HEADER + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -ENOMEM;
    *(size_t *)(void *)at = bytes;
    c.taken += bytes;
    *ret = at + HEADER;
    return 0;
}

static void release(void *memory)
{
    char *at = memory ? (char *)memory - HEADER : NULL;
    size_t bytes = at ? *(size_t *)(void *)at : 0;

    if (!at)
        return;
    c.taken -= bytes;
    (void)munmap(at, HEADER + bytes);
}

static int pinned(size_t bytes, void **ret) { return (*ret = malloc(bytes)) ? 0 : -ENOMEM; }

static int upload(_unused_ void *stream, void *device, const void *host, size_t bytes)
{
    if (bytes <= SMALL)
        memcpy(device, host, bytes);
    c.now.uploads++;
    c.now.issued++;
    c.now.uploaded += (double)bytes;
    return 0;
}

static int download(_unused_ void *stream, void *host, _unused_ const void *device, size_t bytes)
{
    memset(host, 0, bytes);
    c.now.downloads++;
    c.now.issued++;
    c.now.waits++;
    c.now.downloaded += (double)bytes;
    return 0;
}

static int copy(_unused_ void *stream, _unused_ void *to, _unused_ const void *from, size_t bytes)
{
    return launch(COUNT_copy, 1, 2 * (double)bytes, 0);
}

static int zero(_unused_ void *stream, _unused_ void *memory, size_t bytes) { return launch(COUNT_zero, 1, (double)bytes, 0); }

static int wait(_unused_ void *stream)
{
    c.now.waits++;
    return 0;
}

static int done(_unused_ void *stream) { return 1; }
static const char *last_error(void) { return "no memory left to count"; }

static int capture_begin(_unused_ void *stream)
{
    c.before = c.now;
    return 0;
}

static int capture_end(_unused_ void *stream, void **ret_graph)
{
    struct counts *graph = malloc(sizeof(*graph));

    if (!graph)
        return -ENOMEM;
    *graph = c.now;
    for (int i = 0; i < COUNT_ALL; i++) {
        const struct count *b = &c.before.kind[i];

        add(&graph->kind[i], &(struct count) {-b->launches, -b->bytes, -b->flops, -b->seconds});
    }
    add(&graph->total, &(struct count) {-c.before.total.launches, -c.before.total.bytes, -c.before.total.flops,
                                        -c.before.total.seconds});
    graph->uploads -= c.before.uploads;
    graph->uploaded -= c.before.uploaded;
    c.now = c.before;
    *ret_graph = graph;
    return 0;
}

static int graph_launch(_unused_ void *stream, void *graph)
{
    const struct counts *of = graph;

    for (int i = 0; i < COUNT_ALL; i++)
        add(&c.now.kind[i], &of->kind[i]);
    add(&c.now.total, &of->total);
    c.now.uploads += of->uploads;
    c.now.uploaded += of->uploaded;
    c.now.issued++;
    return 0;
}

static int event_mark(_unused_ void *stream, _unused_ void *event) { return 0; }

static int event_seconds(_unused_ void *from, _unused_ void *to, double *ret)
{
    *ret = 0;
    return 0;
}

/* ---- element by element ------------------------------------------------------------------------------------------------ */

static int convert(_unused_ void *stream, enum device_type to_type, _unused_ void *to, enum device_type type,
                   _unused_ const void *from, int64_t n)
{
    return launch(COUNT_elements, 1, moved(to_type, (double)n) + moved(type, (double)n), 0);
}

static int add_two(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *a, _unused_ const void *b,
                   int64_t n)
{
    return launch(COUNT_elements, 1, moved(type, 3 * (double)n), 0);
}

static int accumulate(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *x, int64_t n)
{
    return launch(COUNT_elements, 1, moved(type, 3 * (double)n), 0);
}

static int scale_by(_unused_ void *stream, enum device_type type, _unused_ void *x, _unused_ float factor, int64_t n)
{
    return launch(COUNT_elements, 1, moved(type, 2 * (double)n), 0);
}

static int residual(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *from,
                    _unused_ const void *branch, _unused_ const float *scale, int64_t rows, int64_t cols)
{
    return launch(COUNT_residual, 1, moved(type, 3 * (double)(rows * cols)), 0);
}

static int residual_backward(_unused_ void *stream, enum device_type type, void *dbranch, float *dscale, _unused_ const void *dy,
                             _unused_ const void *branch, _unused_ const float *scale, int64_t rows, int64_t cols)
{
    return launch(COUNT_residual_backward, 1, moved(type, ((dbranch ? 2 : 0) + (dscale ? 1 : 0) + 1) * (double)(rows * cols)), 0);
}

static int activation(_unused_ void *stream, enum device_type type, _unused_ enum device_activation kind, _unused_ void *y,
                      _unused_ const void *x, int64_t n, _unused_ float low,
                               _unused_ float high)
{
    return launch(COUNT_activation, 1, moved(type, 2 * (double)n), 0);
}

static int activation_backward(_unused_ void *stream, enum device_type type, _unused_ enum device_activation kind,
                               _unused_ void *dx, _unused_ const void *dy, _unused_ const void *x, int64_t n, _unused_ float low,
                               _unused_ float high)
{
    return launch(COUNT_activation_backward, 1, moved(type, 4 * (double)n), 0);
}

static int swiglu(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *gate,
                  _unused_ const void *up, int64_t n)
{
    return launch(COUNT_swiglu, 1, moved(type, 3 * (double)n), 0);
}

static int swiglu_backward(_unused_ void *stream, enum device_type type, _unused_ void *dgate, _unused_ void *dup,
                           _unused_ const void *dy, _unused_ const void *gate, _unused_ const void *up, int64_t n, bool adds)
{
    return launch(COUNT_swiglu_backward, 1, moved(type, (adds ? 7 : 5) * (double)n), 0);
}

static int column_sum(_unused_ void *stream, enum device_type type, _unused_ float *sum, _unused_ const void *x,
                      _unused_ int64_t row, int64_t rows, int64_t cols)
{
    return launch(COUNT_column_sum, 1, moved(type, (double)(rows * cols)), 0);
}

/* ---- norms --------------------------------------------------------------------------------------------------------------- */

static int layernorm(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ float *mean, _unused_ float *rstd,
                     _unused_ const void *x, _unused_ const float *weight, _unused_ const float *bias, _unused_ float eps,
                     int64_t rows, int64_t cols)
{
    return launch(COUNT_layernorm, 1, moved(type, 2 * (double)(rows * cols)), 0);
}

static int layernorm_backward(_unused_ void *stream, enum device_type type, void *dx, _unused_ float *dweight,
                              _unused_ float *dbias,
                              _unused_ const void *dy, _unused_ const void *x, _unused_ const float *weight,
                              _unused_ const float *mean, _unused_ const float *rstd, int64_t rows, int64_t cols)
{
    return launch(COUNT_layernorm_backward, 1, moved(type, (dx ? 4 : 2) * (double)(rows * cols)), 0);
}

static int rmsnorm(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ float *rstd, _unused_ const void *x,
                   _unused_ const float *weight, _unused_ float eps, int64_t rows, int64_t cols)
{
    return launch(COUNT_rmsnorm, 1, moved(type, 2 * (double)(rows * cols)), 0);
}

static int residual_rmsnorm(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ void *sum,
                            _unused_ float *rstd,
                            _unused_ const void *from, _unused_ const void *branch, _unused_ const float *weight,
                            _unused_ float eps, int64_t rows, int64_t cols)
{
    return launch(COUNT_residual_rmsnorm, 1, moved(type, 4 * (double)(rows * cols)), 0);
}

static int rmsnorm_backward(_unused_ void *stream, enum device_type type, void *dx, _unused_ float *dweight,
                            _unused_ const void *dy,
                            _unused_ const void *x, _unused_ const float *weight, _unused_ const float *rstd, int64_t rows,
                            int64_t cols)
{
    return launch(COUNT_rmsnorm_backward, 1, moved(type, (dx ? 4 : 2) * (double)(rows * cols)), 0);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

static int copy_rows(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ int64_t y_row,
                     _unused_ const void *x, _unused_ int64_t x_row, int64_t rows, int64_t cols, bool adds)
{
    return launch(COUNT_copy_rows, 1, moved(type, (adds ? 3 : 2) * (double)(rows * cols)), 0);
}

static int broadcast(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ int64_t y_row,
                     _unused_ const float *value, int64_t rows, int64_t cols)
{
    return launch(COUNT_rows, 1, moved(type, (double)(rows * cols)), 0);
}

static int add_cycle(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *x,
                     _unused_ const float *value, int64_t cycle, int64_t n)
{
    return launch(COUNT_elements, 1, moved(type, 2 * (double)n) + 4 * (double)cycle, 0);
}

static int splice(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *a, _unused_ const void *b,
                  _unused_ const int32_t *index, int64_t n, int64_t cols)
{
    return launch(COUNT_rows, 1, moved(type, 2 * (double)(n * cols)), 0);
}

static int scatter(_unused_ void *stream, enum device_type y_type, _unused_ void *y, enum device_type type,
                   _unused_ const void *x,
                   _unused_ const int32_t *rows, _unused_ const int32_t *begin, _unused_ const int32_t *from, int64_t n,
                   int64_t cols)
{
    return launch(COUNT_rows, 1, moved(y_type, 2 * (double)(n * cols)) + moved(type, (double)(n * cols)), 0);
}

static int embedding(_unused_ void *stream, enum device_type type, _unused_ void *y, enum device_type table_type,
                     _unused_ const void *table, _unused_ const int32_t *ids, int64_t n, int64_t cols)
{
    return launch(COUNT_rows, 1, moved(type, (double)(n * cols)) + moved(table_type, (double)(n * cols)), 0);
}

static int rope(_unused_ void *stream, enum device_type type, _unused_ void *x, _unused_ int64_t row,
                _unused_ const int32_t *position,
                _unused_ const float *table, int64_t rows, int heads, int64_t dim, _unused_ float direction)
{
    return launch(COUNT_rope, 1, moved(type, 2 * (double)(rows * heads * dim)), 0);
}

static int kv_append(_unused_ void *stream, enum device_type type, _unused_ void *cache_k, _unused_ void *cache_v,
                     _unused_ const void *k,
                     _unused_ const void *v, _unused_ const int32_t *slot, _unused_ const int32_t *position, int64_t rows,
                     int64_t width, _unused_ int64_t capacity)
{
    return launch(COUNT_kv_append, 1, moved(type, 4 * (double)(rows * width)), 0);
}

static int rope_append(_unused_ void *stream, enum device_type type, _unused_ void *q, _unused_ void *k, _unused_ const void *v,
                       _unused_ void *cache_k,
                       _unused_ void *cache_v, _unused_ const int32_t *slot, _unused_ const int32_t *position,
                       _unused_ const float *table, int64_t rows, int heads, int64_t dim, _unused_ int64_t capacity)
{
    return launch(COUNT_rope_append, 1, moved(type, 7 * (double)(rows * heads * dim)), 0);
}

static int patches(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const uint8_t *images,
                   _unused_ const float *lut, int b, int height, int width, _unused_ int patch)
{
    return launch(COUNT_patches, 1, (1 + (double)device_element(type)) * b * height * width * 3, 0);
}

static int resize_pass(_unused_ void *stream, _unused_ uint8_t *y, _unused_ const uint8_t *x, _unused_ bool along_x, int64_t rows,
                       int64_t in,
                       int64_t out, int64_t cols, _unused_ const int32_t *begin, _unused_ const int32_t *count,
                       _unused_ const int32_t *weights, _unused_ int taps)
{
    return launch(COUNT_patches, 1, (double)(rows * (in + out) * cols), 0);
}

/* ---- products and attention ------------------------------------------------------------------------------------------------ */

static int gemm(_unused_ void *stream, const struct device_gemm *g)
{
    double m = (double)g->m, n = (double)g->n, k = (double)g->k, batch = (double)MAX(g->batch, 1), a = g->batch > 1 &&
        !g->a_apart ? 1 : batch;
    bool thin = g->n <= COUNT_THIN || g->k <= COUNT_THIN || (g->a_transposed && g->m <= COUNT_THIN);

    return launch(thin ? COUNT_thin : COUNT_product, 1, moved(g->a_type, a * m * k) + moved(g->b_type, batch * n * k) +
                  moved(g->c_type, batch * (g->add ? 2 : 1) * m * n), 2 * batch * m * n * k);
}

/* Rows of queries and of keys, and pairs that are met. */
static void look(const struct device_attention *a, double *ret_asking, double *ret_keys, double *ret_pairs,
                 unsigned long long *ret_pieces)
{
    struct device_attention piece;
    double pairs = 0;

    *ret_pieces = 0;
    for (int first = 0; first < a->n; first += dnn_piece(a, first, &piece))
        ++*ret_pieces;
    for (int i = 0; i < a->n; i++) {
        double keys = a->start_here[i + 1] - a->start_here[i], asking = a->asking_here[i + 1] - a->asking_here[i];

        pairs += a->causal ? asking * (keys - (asking - 1) / 2) : asking * keys;
    }
    *ret_asking = a->asking_here[a->n] - a->asking_here[0];
    *ret_keys = a->start_here[a->n] - a->start_here[0];
    *ret_pairs = pairs;
}

static int attention(_unused_ void *stream, enum device_type type, const struct device_attention *a)
{
    double asking, keys, pairs, width = (double)(a->heads * a->dim);
    unsigned long long pieces;

    look(a, &asking, &keys, &pairs, &pieces);
    return launch(COUNT_attention, pieces,
                  moved(type, 2 * asking * width + 2 * keys * width / a->group) + (a->lse ? 4 * asking * a->heads : 0),
                  4 * pairs * width);
}

/* As cuDNN is called: three gradients are written where they belong, or beside and then added to what is there. Five products
 * instead of two. */
static int attention_backward(_unused_ void *stream, enum device_type type, const struct device_attention *a)
{
    double asking, keys, pairs, width = (double)(a->heads * a->dim);
    unsigned long long pieces;

    look(a, &asking, &keys, &pairs, &pieces);
    if (!a->fresh)
        launch(COUNT_copy_rows, 3 * pieces, moved(type, 3 * asking * width + 6 * keys * width / a->group), 0);
    return launch(COUNT_attention_backward, pieces, moved(type, 4 * asking * width + 4 * keys * width / a->group),
                  10 * pairs * width);
}

static int attention_decode(_unused_ void *stream, enum device_type type, const struct device_decode *d)
{
    double keys = 0, width = (double)(d->heads * d->dim);

    for (int64_t i = 0; i < d->rows; i++)
        keys += d->position[i] + 1;
    return launch(COUNT_attention_decode, 1, moved(type, 2 * (double)d->rows * width + 2 * keys * width / d->group),
                  4 * keys * width);
}

/* ---- heads, optimiser -------------------------------------------------------------------------------------------- */

static int token_stats(_unused_ void *stream, enum device_type type, _unused_ float *log_probs, _unused_ float *logp,
                       _unused_ float *entropy,
                       _unused_ float *kl, _unused_ const void *logits, _unused_ const int32_t *target, const float *ref,
                       _unused_ float inverse_temperature, int64_t rows, int64_t cols)
{
    return launch(COUNT_head, 1, moved(type, (double)(rows * cols)) + (ref ? 8 : 4) * (double)(rows * cols), 0);
}

static int token_stats_backward(_unused_ void *stream, enum device_type type, _unused_ void *dlogits,
                                _unused_ const float *log_probs, const float *ref,
                                _unused_ const int32_t *target, _unused_ const float *gradients, _unused_ const float *entropy,
                                _unused_ const float *kl, _unused_ float inverse_temperature, int64_t rows, int64_t cols)
{
    return launch(COUNT_head, 1, moved(type, 2 * (double)(rows * cols)) + (ref ? 8 : 4) * (double)(rows * cols), 0);
}

static int sample(_unused_ void *stream, enum device_type type, _unused_ float *log_probs, _unused_ int32_t *column,
                  _unused_ float *logp,
                  _unused_ float *entropy, _unused_ const void *logits, _unused_ const float *temperature,
                  _unused_ const float *uniform, int64_t rows, int64_t cols)
{
    return launch(COUNT_head, 1, moved(type, (double)(rows * cols)) + 4 * (double)(rows * cols), 0);
}

static int adamw(_unused_ void *stream, _unused_ float *value, _unused_ float *m, _unused_ float *v, _unused_ const float *grad,
                 int64_t n, _unused_ const struct device_adamw *constants)
{
    return launch(COUNT_optimiser, 1, 28 * (double)n, 0);
}

static int sum_squares(_unused_ void *stream, _unused_ double *sum, _unused_ double *parts, _unused_ const float *x, int64_t n)
{
    return launch(COUNT_optimiser, 2, 4 * (double)n, 0);
}

const struct device_kernels *count_kernels(void)
{
    static const struct device_kernels table = {
        .name = "counting", .devices = devices, .use = use, .memory = memory_now, .stream_new = handle_new, .stream_free = free, .alloc = alloc,
        .release = release,
        .pinned = pinned, .unpin = free, .upload = upload, .download = download, .copy = copy, .zero = zero, .wait = wait,
        .done = done,
        .last_error = last_error, .capture_begin = capture_begin, .capture_end = capture_end, .graph_launch = graph_launch,
        .graph_free = free,
        .event_new = handle_new, .event_free = free, .event_mark = event_mark, .stream_wait = event_mark,
        .event_seconds = event_seconds,
        .convert = convert, .add = add_two, .accumulate = accumulate, .scale = scale_by, .residual = residual,
        .residual_backward = residual_backward,
        .activation = activation, .activation_backward = activation_backward, .swiglu = swiglu,
        .swiglu_backward = swiglu_backward,
        .column_sum = column_sum, .layernorm = layernorm, .layernorm_backward = layernorm_backward, .rmsnorm = rmsnorm,
        .residual_rmsnorm = residual_rmsnorm, .rmsnorm_backward = rmsnorm_backward, .copy_rows = copy_rows,
        .broadcast = broadcast,
        .add_cycle = add_cycle, .splice = splice, .scatter = scatter, .embedding = embedding, .rope = rope,
        .rope_append = rope_append, .kv_append = kv_append,
        .patches = patches, .resize_pass = resize_pass, .gemm = gemm, .gemm_narrow = gemm, .attention = attention,
        .attention_backward = attention_backward,
        .attention_decode = attention_decode, .token_stats = token_stats, .token_stats_backward = token_stats_backward,
        .sample = sample, .adamw = adamw, .sum_squares = sum_squares,
    };

    return &table;
}
