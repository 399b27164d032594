/* bench_gpu.c - kernels on a device: TFLOP/s, GB/s, and the share of what the device gives a large product and a large copy,
 * measured in the same run. bench_gpu_models has whole models.
 *
 *   bench_gpu [DEVICE]              default cuda:0
 *
 * Median of REPEATS by the device's own clock, after a warm-up; operands are random. What is timed is a row of calls, so long
 * that the host is ahead of the device (but for kernels that are shorter than their launch), and each call takes operands from
 * another place of a block of 1.2 GB: a cache of 50 MB has none of them. A kernel that only reads may pass a hundred per cent of
 * what a copy gives. Exit status 77: no device. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/device/device.h"
#include "nn/device/narrow.h"

enum { REPEATS = 15, MOST_ROWS = 19200, MOST_CALLS = 200 };
#define BYTES ((size_t)3 * 2 * MOST_ROWS * 11008)
static const double long_enough = 1e-3, warm_up = .3;   /* seconds of calls that are timed together; of products before anything
                                                         * is measured */

static struct device_stream *s;
static char *from, *to;
static void *event[2];
static struct device *device;
static double peak_flops, peak_bytes;       /* measured below */
static int failed;                          /* the first -errno of what was to be measured; the rest goes on */

/* Where this call's operands begin: after those of the call before, from the beginning again when there is no room for as many
 * more. */
static size_t place;

static char *take(size_t bytes)
{
    bytes = (bytes + 255) / 256 * 256;
    if (place + bytes > BYTES)
        place = 0;
    place += bytes;
    return from + place - bytes;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int seconds_of(int (*put)(const void *arg), const void *arg, int calls, double *ret)
{
    int r = s->k->event_mark(s->stream, event[0]);

    for (int i = 0; i < calls && r >= 0; i++)
        r = put(arg);
    r = r < 0 ? r : s->k->event_mark(s->stream, event[1]);
    r = r < 0 ? r : s->k->event_seconds(event[0], event[1], ret);
    *ret /= calls;
    return r;
}

/* The first call of a kind makes plans and compiles, which is not measured; the second says how many make a row. */
static double median_seconds(int (*put)(const void *arg), const void *arg)
{
    double seconds[REPEATS] = {0};
    int r = put(arg), calls;

    r = r < 0 ? r : seconds_of(put, arg, 1, &seconds[0]);
    calls = seconds[0] > 0 ? (int)fmin(fmax(1, long_enough / seconds[0]), MOST_CALLS) : 1;
    for (int i = 0; i < REPEATS && r >= 0; i++)
        r = seconds_of(put, arg, calls, &seconds[i]);
    if (r < 0) {
        failed = failed < 0 ? failed : r;
        return NAN;
    }
    qsort(seconds, REPEATS, sizeof(*seconds), compare);
    return seconds[REPEATS / 2];
}

static void show(const char *name, double seconds, double flops, double bytes)
{
    double floor = peak_flops > 0 ? fmax(flops / peak_flops, bytes / peak_bytes) : 0;

    printf("%-44s %9.1f us %8.1f TFLOP/s %7.0f GB/s", name, seconds * 1e6, flops / seconds / 1e12, bytes / seconds / 1e9);
    printf(floor > 0 ? " %5.1f %% of roofline\n" : "\n", 100 * floor / seconds);
}

/* ---- products ------------------------------------------------------------------------------------------------------------ */

static struct device_gemm taken(const struct device_gemm *g)
{
    int64_t batch = g->batch > 1 ? g->batch : 1;
    struct device_gemm with = *g;

    with.a = take((size_t)(2 * g->m * g->k));
    with.b = take((size_t)(2 * batch * g->n * g->k));
    return with;
}

static int put_gemm(const void *arg)
{
    struct device_gemm g = taken(arg);

    return device_gemm(s, &g);
}

static int put_narrow(const void *arg)
{
    struct device_gemm g = taken(arg);

    return s->k->gemm_narrow(s->stream, &g);
}

/* By device_gemm, which without device_find_faster is the library where it is there; and few rows by the own kernel for them. */
static double bench_gemm(const char *what, struct device_gemm g)
{
    double batch = (double)(g.batch > 1 ? g.batch : 1), flops = 2.0 * batch * (double)g.m * (double)g.n * (double)g.k, seconds;
    double bytes = 2.0 * ((double)(g.m * g.k) + batch * (double)(g.n * g.k) + (g.add ? 2 : 1) * batch * (double)(g.m * g.n));
    char name[80], times[16] = "";

    g.c = to;
    g.a_row = g.b_row = g.k;
    g.c_row = g.n;
    g.a_type = g.b_type = g.c_type = DEVICE_BF16;
    g.b_transposed = true;
    g.alpha = 1;
    seconds = median_seconds(put_gemm, &g);
    if (batch > 1)
        snprintf(times, sizeof(times), "%.0f * ", batch);
    snprintf(name, sizeof(name), "%s %" PRId64 " x %s%" PRId64 " x %" PRId64, what, g.m, times, g.n, g.k);
    show(name, seconds, flops, bytes);
    if (g.m <= NARROW_ROWS)
        show("    by the kernel for few rows", median_seconds(put_narrow, &g), flops, bytes);
    return flops / seconds;
}

/* A decoding step's products are batches of weights that lie one behind the other; a prompt's rows come sixteen sequences at
 * once, and one; an update's two (a shard alone) or eight. */
static void bench_products(void)
{
    static const int64_t rows[] = {1, 4, 8, 64, 290, 598, 2392, 4640, 16384};

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        int64_t m = rows[i], apart = 4096 * 4096, wide = 11008 * 4096;

        if (m <= 4640) {
            bench_gemm("q, k, v", (struct device_gemm) {.m = m, .n = 4096, .k = 4096, .batch = 3, .b_apart = apart,
                                                        .c_apart = m * 4096});
            bench_gemm("gate, up", (struct device_gemm) {.m = m, .n = 11008, .k = 4096, .batch = 2, .b_apart = wide,
                                                         .c_apart = m * 11008});
        }
        bench_gemm("o", (struct device_gemm) {.m = m, .n = 4096, .k = 4096});
        bench_gemm("gate", (struct device_gemm) {.m = m, .n = 11008, .k = 4096});
        bench_gemm("down", (struct device_gemm) {.m = m, .n = 4096, .k = 11008});
    }
    bench_gemm("adapters' A, joined", (struct device_gemm) {.m = 1, .n = 96, .k = 4096});
    bench_gemm("adapters' B", (struct device_gemm) {.m = 1, .n = 4096, .k = 32, .batch = 3, .a_apart = 32, .b_apart = 4096 * 32,
                                                    .c_apart = 4096, .add = true});
    bench_gemm("the logits of the action ids", (struct device_gemm) {.m = 1, .n = 256, .k = 4096});
    for (int64_t m = 598; m <= 2392; m *= 4) {
        bench_gemm("down, added to", (struct device_gemm) {.m = m, .n = 4096, .k = 11008, .add = true});
        bench_gemm("adapter's A", (struct device_gemm) {.m = m, .n = 32, .k = 4096});
        bench_gemm("adapter's B", (struct device_gemm) {.m = m, .n = 4096, .k = 32});
    }
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------ */

static int put_copy(const void *arg) { return s->k->copy(s->stream, to, from, *(const size_t *)arg); }

struct rows { int64_t rows, cols; const float *weight; float *stats; };
static int put_rmsnorm(const void *arg)
{
    const struct rows *r = arg;

    return s->k->rmsnorm(s->stream, DEVICE_BF16, to, r->stats, take((size_t)(2 * r->rows * r->cols)), r->weight, 1e-6f, r->rows,
                         r->cols);
}
static int put_swiglu(const void *arg)
{
    const struct rows *r = arg;
    size_t bytes = (size_t)(2 * r->rows * r->cols);
    const char *gate = take(2 * bytes);

    return s->k->swiglu(s->stream, DEVICE_BF16, to, gate, gate + bytes, r->rows * r->cols);
}

static void bench_rows(const float *weight, float *stats)
{
    struct rows r = {MOST_ROWS, 4096, weight, stats}, wide = {MOST_ROWS / 4, 11008, weight, stats};

    show("rmsnorm 19200 x 4096", median_seconds(put_rmsnorm, &r), 0, 4.0 * (double)(r.rows * r.cols));
    show("swiglu 4800 x 11008", median_seconds(put_swiglu, &wide), 0, 6.0 * (double)(wide.rows * wide.cols));
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* q, k and v lie one behind the other; returns the bytes of one. extra: more such arrays behind them. */
static size_t take_attention(struct device_attention *a, int extra)
{
    size_t bytes = (size_t)(2 * a->q_rows * 4096);
    char *q = take((size_t)(3 + extra) * bytes);

    a->q = q;
    a->k = q + bytes;
    a->v = q + 2 * bytes;
    return bytes;
}

static int put_attention(const void *arg)
{
    struct device_attention a = *(const struct device_attention *)arg;

    take_attention(&a, 0);
    return device_attention(s, DEVICE_BF16, &a, false);
}

/* out, dout and the log of the sum are numbers like others here; gradients go where results went. */
static int put_attention_backward(const void *arg)
{
    struct device_attention a = *(const struct device_attention *)arg;
    size_t bytes = take_attention(&a, 2);

    a.out = (char *)(uintptr_t)a.v + bytes;
    a.dout = (const char *)a.out + bytes;
    a.dq = to;
    a.dk = to + bytes;
    a.dv = to + 2 * bytes;
    a.lse = (float *)(void *)(to + 3 * bytes);
    a.delta = a.lse + a.q_rows * a.heads;
    return device_attention(s, DEVICE_BF16, &a, true);
}

static int put_decode(const void *arg)
{
    struct device_decode d = *(const struct device_decode *)arg;
    size_t bytes = (size_t)(2 * d.capacity * d.rows * 4096);
    char *k = take(2 * bytes + (size_t)(2 * d.rows * 4096));

    d.k = k;
    d.v = k + bytes;
    d.q = k + 2 * bytes;
    return s->k->attention_decode(s->stream, DEVICE_BF16, &d);
}

static void bench_attention(int b, int length)
{
    int32_t start[65], slot[64], position[64];
    struct device_attention a = {.n = b, .heads = 32, .group = 1, .dim = 128, .causal = true, .scale = 0.088f, .longest = length,
                                 .longest_asking = length, .q_rows = (int64_t)b * length, .alike = true, .q_stride = 4096,
                                 .kv_stride = 4096, .out_stride = 4096, .out = to};
    struct device_decode d = {.rows = b, .dim = 128, .capacity = length + 8, .width = 4096, .heads = 32, .group = 1,
                              .scale = 0.088f, .out = to};
    double forwards = 2.0 * b * length * length * 4096;
    char name[80];

    for (int i = 0; i <= b; i++)
        start[i] = i * length;
    for (int i = 0; i < b; i++) {
        slot[i] = i;
        position[i] = length - 1;
    }
    a.start_here = a.asking_here = start;       /* for cuDNN, which else is not asked */
    a.start = a.asking = device_send(s, start, (size_t)(b + 1) * sizeof(*start));
    d.slot = device_send(s, slot, (size_t)b * sizeof(*slot));
    d.position = device_send(s, position, (size_t)b * sizeof(*position));
    snprintf(name, sizeof(name), "attention causal, %d x %d, 32 x 128", b, length);
    show(name, median_seconds(put_attention, &a), forwards, 8.0 * (double)a.q_rows * 4096);
    if (b <= 16) {
        snprintf(name, sizeof(name), "the same backwards");
        show(name, median_seconds(put_attention_backward, &a), 2.5 * forwards, 16.0 * (double)a.q_rows * 4096);
    }
    snprintf(name, sizeof(name), "attention decode, %d x %d", b, length);
    show(name, median_seconds(put_decode, &d), 4.0 * (double)b * length * 4096, 4.0 * (double)b * length * 4096);
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

/* A device that was idle runs at a low clock at first. */
static int warm(void)
{
    struct device_gemm g = {.m = 8192, .n = 8192, .k = 8192, .c = to, .a_row = 8192, .b_row = 8192, .c_row = 8192,
                            .a_type = DEVICE_BF16, .b_type = DEVICE_BF16,
                            .c_type = DEVICE_BF16, .b_transposed = true, .alpha = 1};
    double all = 0, seconds = 0;
    int r = put_gemm(&g);

    for (int i = 0; all < warm_up && i < 1000 && r >= 0; i++, all += 8 * seconds)
        r = seconds_of(put_gemm, &g, 8, &seconds);
    return r;
}

static int run(void)
{
    size_t bytes = BYTES, room = BYTES;
    float *stats;
    int r = device_stream_new(device, &s);

    r = r < 0 ? r : s->k->alloc(bytes, (void **)&from);
    r = r < 0 ? r : s->k->alloc(bytes, (void **)&to);
    r = r < 0 ? r : s->k->alloc((MOST_ROWS + 11008) * sizeof(float), (void **)&stats);
    r = r < 0 ? r : s->k->event_new(&event[0]);
    r = r < 0 ? r : s->k->event_new(&event[1]);
    if (r < 0)
        return r;
    {       /* random numbers of order 1: small bf16 of both signs, made from a host block again and again */
        enum { BLOCK = 1 << 20 };
        static uint16_t block[BLOCK];
        uint32_t state = 1;

        for (int i = 0; i < BLOCK; i++) {
            state = state * 1664525u + 1013904223u;
            block[i] = (uint16_t)((state >> 31 << 15) | (0x3e80 + (state >> 16 & 0xff)));
        }
        for (size_t at = 0; at + sizeof(block) <= bytes && r >= 0; at += sizeof(block))
            r = s->k->upload(s->stream, from + at, block, sizeof(block));
        r = r < 0 ? r : s->k->zero(s->stream, to, bytes);
        r = r < 0 ? r : s->k->zero(s->stream, stats, (MOST_ROWS + 11008) * sizeof(float));
        r = r < 0 ? r : s->k->wait(s->stream);
    }
    if (r < 0)
        return r;
    printf("%s, compute %d.%d, %d multiprocessors, driver for CUDA %d, runtime %d, cuBLASLt %zu, cuDNN %zu\n", device->facts.name,
           device->facts.major, device->facts.minor, device->facts.processors, device->facts.driver, device->facts.runtime,
           device_versions(device).blas, device_versions(device).dnn);
    r = warm();
    if (r < 0)
        return r;
    peak_bytes = 2.0 * (double)room / median_seconds(put_copy, &room);
    printf("copy: %.0f GB/s read and written\n", peak_bytes / 1e9);
    peak_flops = bench_gemm("product (the ceiling)", (struct device_gemm) {.m = 8192, .n = 8192, .k = 8192});
    bench_products();
    bench_rows(stats, stats + 11008);
    bench_attention(1, 290);
    bench_attention(8, 290);
    bench_attention(64, 290);
    printf("refused: %llu products by cuBLASLt %s, %llu attentions by cuDNN%s; %s\n", device_fallbacks(device).gemm,
           device_product_refusal(device), device_fallbacks(device).attention,
           device->dnn ? "" : " (not there)", device->dnn ? device_refusal(device) : device->no_dnn);
    return failed;
}

int main(int argc, char **argv)
{
    struct error error = {0};
    int r = device_open(argc > 1 ? argv[1] : "cuda:0", &device, &error);

    if (r < 0 || !device) {
        printf("skipped: %s\n", r < 0 ? error.text : "the CPU is measured by the other benches");
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);           /* what was measured is told, whatever comes after */
    r = run();
    if (r < 0)
        printf("bench_gpu: %s\n", device_error_text(device, r));
    return r < 0;
}
