/* bench_gpu_models.c - whole models on a device: rates, shares of a ceiling measured in the same run, memory, the contract
 * between actor and learner.
 *
 *   bench_gpu_models DEVICE PART [fast | strict [MODEL]]     PART: act, adapters, train, oft, prm, score, contract
 *
 * MODEL: openvla-7b (default) or another size that `gantry model synth` knows, made in memory from random numbers, or an
 * OpenVLA's directory. One part a process (tests/gpu/check.sh): what one of them breaks the others do not see. Exit status 77: no
 * device. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/device_bench.h"

enum { SIDE = 8192, REPEATS = 7 };

#define WARM_UP .3              /* seconds of products before the ceiling is taken */

static struct device_stream *s;
static void *from, *to, *event[2];

static int put_product(void)
{
    return device_gemm(s, &(struct device_gemm){.m = SIDE, .n = SIDE, .k = SIDE, .a = from, .b = from, .c = to, .a_row = SIDE,
                                                .b_row = SIDE, .c_row = SIDE, .a_type = DEVICE_BF16, .b_type = DEVICE_BF16,
                                                .c_type = DEVICE_BF16, .b_transposed = true, .alpha = 1});
}

static int put_copy(void) { return s->k->copy(s->stream, to, from, (size_t)2 * SIDE * SIDE); }

/* The best of some, by the device's clock. */
static int best_seconds(int (*put)(void), double *ret)
{
    double best = INFINITY, seconds;
    int r = put();

    for (int i = 0; i < REPEATS && r >= 0; i++) {
        r = s->k->event_mark(s->stream, event[0]);
        r = r < 0 ? r : put();
        r = r < 0 ? r : s->k->event_mark(s->stream, event[1]);
        r = r < 0 ? r : s->k->event_seconds(event[0], event[1], &seconds);
        best = r < 0 ? best : fmin(best, seconds);
    }
    *ret = best;
    return r;
}

static int ceilings(struct device *device, double *ret_flops, double *ret_bytes)
{
    size_t bytes = (size_t)2 * SIDE * SIDE;
    double product = 0, copy = 0, spent = 0;
    int r = device_stream_new(device, &s);

    r = r < 0 ? r : s->k->alloc(bytes, &from);
    r = r < 0 ? r : s->k->alloc(bytes, &to);
    r = r < 0 ? r : s->k->event_new(&event[0]);
    r = r < 0 ? r : s->k->event_new(&event[1]);
    if (r >= 0) {
        static uint16_t block[1 << 20];         /* small numbers of both signs: zeros would take less power, and be faster */

        for (uint32_t i = 0, state = 1; i < sizeof(block) / sizeof(*block); i++) {
            state = state * 1664525u + 1013904223u;
            block[i] = (uint16_t)((state >> 31 << 15) | (0x3c80 + (state >> 16 & 0xff)));
        }
        for (size_t at = 0; at + sizeof(block) <= bytes && r >= 0; at += sizeof(block))
            r = s->k->upload(s->stream, (char *)from + at, block, sizeof(block));
    }
    for (; spent < WARM_UP && r >= 0; spent += REPEATS * product)        /* a device that was idle runs at a low clock at first */
        r = best_seconds(put_product, &product);
    r = r < 0 ? r : best_seconds(put_copy, &copy);
    if (s) {
        s->k->event_free(event[0]);
        s->k->event_free(event[1]);
        s->k->wait(s->stream);
        s->k->release(from);
        s->k->release(to);
    }
    s = device_stream_free(s);
    if (r < 0)
        return r;
    *ret_flops = 2.0 * SIDE * SIDE * SIDE / product;
    *ret_bytes = 2.0 * (double)bytes / copy;
    printf("ceilings: product %d x %d x %d %.0f TFLOP/s, copy %.0f GB/s read and written\n", SIDE, SIDE, SIDE, *ret_flops / 1e12,
           *ret_bytes / 1e9);
    return 0;
}

int main(int argc, char **argv)
{
    struct device_bench bench = {.model = argc > 4 ? argv[4] : "openvla-7b", .fast = argc < 4 || strcmp(argv[3], "strict") != 0,
                                 .batch = {1, 8, 64}, .train_batch = {16, 32}, .warm = 2, .repeats = 5, .out = stdout};
    struct error error = {0};
    int r;

    if (argc > 2 && !strcmp(argv[2], "contract"))
        bench.batch[1] = 7;
    if (!bench.fast)
        bench.warm = 1, bench.repeats = 3;
    setvbuf(stdout, NULL, _IOLBF, 0);           /* what was measured is told, whatever comes after */
    if (argc < 3) {
        printf("usage: bench_gpu_models DEVICE act|adapters|train|oft|prm|score|contract [fast|strict [SIZE|DIR]]\n");
        return 64;
    }
    r = device_open(argv[1], &bench.device, &error);
    if (r < 0 || !bench.device) {
        printf("skipped: %s\n", r < 0 ? error.text : "the CPU is measured by the other benches");
        return 77;
    }
    if (strcmp(argv[2], "train") && device_find_faster(bench.device) < 0) /* as servers do */
        return 1;
    r = ceilings(bench.device, &bench.flops, &bench.bytes);
    if (r < 0)
        printf("bench_gpu_models: the ceilings: %s\n", device_error_text(bench.device, r));
    r = r < 0 ? r : device_bench_run(&bench, argv[2], &error);
    if (r < 0 && error.text[0])
        printf("bench_gpu_models: %s: %s\n", argv[2], error.text);
    device_unref(bench.device);
    return r < 0;
}
