/* The CUDA kernels on the emulated device (tests/emulate), or the one that GANTRY_TEST_DEVICE names: every op against the CPU, in
 * any order of threads; and the parts of a device that need none: its names. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/philox.h"
#include "image/image.h"
#include "nn/device/device.h"
#include "nn/ops.h"
#include "nn/safetensors.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/device_grid.h"

static void told(const struct grid_result *r, void *arg)
{
    int *bad = arg;

    if (r->error <= r->limit)
        return;
    print_message("%s shape %d %s %s: %.3g, limit %.3g; number %lld of %lld is %g, not %g\n", r->op, r->shape,
                  r->half ? "bf16" : "fp32", r->what, r->error, r->limit, (long long)r->at, (long long)r->n, (double)r->got,
                  (double)r->want);
    ++*bad;
}

/* GANTRY_TEST_BRIEF: an odd shape and one that is taken sixteen bytes at a time, for tools that slow everything down. */
static void grid(bool half)
{
    int bad = 0, shapes = getenv("GANTRY_TEST_BRIEF") ? MIN(2, GRID_SHAPES) : GRID_SHAPES;

    for (int i = 0; i < device_grid_cases(); i++)
        for (int shape = 0; shape < shapes; shape++) {
            int r = device_grid_run(device, i, shape, half, told, &bad);

            if (r < 0) {
                print_message("%s shape %d %s: %d, %s\n", device_grid_name(i), shape, half ? "bf16" : "fp32", r,
                              device_error_text(device, r));
                bad++;
            }
        }
    assert_int_equal(bad, 0);
}

static void test_ops_equal_the_cpus_in_fp32(void **state)
{
    (void)state;
    grid(false);
}

static void test_ops_equal_the_cpus_in_bf16(void **state)
{
    (void)state;
    grid(true);
}

/* A missing barrier would show: threads run in another order. */
static void test_any_order_of_threads(void **state)
{
    (void)state;
    if (getenv("GANTRY_TEST_DEVICE"))
        skip();                         /* the device orders them as it likes */
    for (uint64_t seed = 1; seed <= 2; seed++) {
        emulate_order(seed);
        grid(false);
    }
    emulate_order(0);
}

/* ---- entries that no op calls: a kernel each, against the CPU's own ---------------------------------------------- */

static void *on_device(struct device_stream *s, const void *host, size_t bytes)
{
    void *there = NULL;

    assert_int_equal(s->k->alloc(bytes, &there), 0);
    if (host)
        assert_int_equal(s->k->upload(s->stream, there, host, bytes), 0);
    return there;
}

/* The same logits and numbers give the same tokens, over the action ids and over a whole vocabulary, greedy among them. */
static void test_sampling(void **state)
{
    enum { ROWS = 9, MOST_COLS = 32064 };
    static const int64_t widths[] = {1, 256, 257, MOST_COLS};
    static float logits[ROWS * MOST_COLS], kept[ROWS * MOST_COLS];
    struct philox random = philox_at(5, PHILOX_TEST, 0, 0, 0);
    struct device_stream *s = NULL;

    (void)state;
    assert_int_equal(device_stream_new(device, &s), 0);
    for (size_t w = 0; w < ARRAY_SIZE(widths); w++) {
        int64_t cols = widths[w];
        size_t bytes = (size_t)(ROWS * cols) * sizeof(float);
        float temperature[ROWS], uniform[ROWS], logp[2][ROWS], entropy[2][ROWS];
        int32_t column[2][ROWS];
        void *there[7];

        for (int64_t i = 0; i < ROWS * cols; i++)
            logits[i] = kept[i] = 2 * (float)philox_normal(&random);
        for (int i = 0; i < ROWS; i++) {
            temperature[i] = i % 3 == 2 ? 0.0f : 0.5f + 0.25f * (float)i;
            uniform[i] = i == 0 ? 0.0f : i == 1 ? 0.99999994f : philox_uniform(&random);
        }
        there[0] = on_device(s, logits, bytes);
        there[1] = on_device(s, temperature, sizeof temperature);
        there[2] = on_device(s, uniform, sizeof uniform);
        there[3] = on_device(s, NULL, bytes);
        there[4] = on_device(s, NULL, sizeof column[0]);
        there[5] = on_device(s, NULL, sizeof logp[0]);
        there[6] = on_device(s, NULL, sizeof entropy[0]);
        assert_int_equal(s->k->sample(s->stream, DEVICE_F32, there[3], there[4], there[5], there[6], there[0], there[1], there[2],
                                      ROWS, cols), 0);
        assert_int_equal(s->k->download(s->stream, column[1], there[4], sizeof column[1]), 0);
        assert_int_equal(s->k->download(s->stream, logp[1], there[5], sizeof logp[1]), 0);
        assert_int_equal(s->k->download(s->stream, entropy[1], there[6], sizeof entropy[1]), 0);
        sample_rows(kept, ROWS, cols, temperature, uniform, column[0], logp[0], entropy[0]);
        assert_memory_equal(column[1], column[0], sizeof column[0]);
        for (int i = 0; i < ROWS; i++) {
            assert_float_equal(logp[1][i], logp[0][i], 2e-5);
            assert_float_equal(entropy[1][i], entropy[0][i], 5e-5);
        }
        for (size_t i = 0; i < ARRAY_SIZE(there); i++)
            s->k->release(there[i]);
    }
    device_stream_free(s);
}

/* Gradients that are assigned, over whatever was there, have the bits of those added to zeros: of attention, q, k and v side by
 * side, and of SwiGLU in widths that are taken sixteen bytes at a time and not. */
static void test_first_gradients_are_assigned(void **state)
{
    enum { HEADS = 2, DIM = 40, WIDTH = HEADS * DIM, ROWS = 45, MOST = ROWS * 3 * WIDTH };
    static const int32_t start[] = {0, 7, 8, ROWS};
    static uint16_t numbers[4][MOST], got[2][2][MOST];
    struct philox random = philox_at(17, PHILOX_TEST, 0, 0, 0);
    struct device_stream *s = NULL;
    void *there[6];

    (void)state;
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < MOST; k++)
            numbers[i][k] = float_to_bf16((float)philox_normal(&random));
    for (int i = 0; i < 4; i++)
        there[i] = on_device(s, numbers[i], sizeof numbers[0]);
    there[4] = on_device(s, NULL, ROWS * HEADS * sizeof(float));
    there[5] = on_device(s, NULL, ROWS * HEADS * sizeof(float));
    for (int fresh = 0; fresh < 2; fresh++) {
        struct device_attention a = {.n = 3, .heads = HEADS, .group = 1, .dim = DIM, .causal = true, .scale = .2f,
                                     .longest = ROWS - 8, .longest_asking = ROWS - 8,
                                     .q_rows = ROWS, .q_stride = 3 * WIDTH, .kv_stride = 3 * WIDTH, .out_stride = WIDTH,
                                     .start = on_device(s, start, sizeof start),
                                     .q = there[0], .k = (char *)there[0] + 2 * WIDTH, .v = (char *)there[0] + 4 * WIDTH,
                                     .out = there[1], .lse = there[4],
                                     .dout = there[2], .dq = there[3], .dk = (char *)there[3] + 2 * WIDTH,
                                     .dv = (char *)there[3] + 4 * WIDTH, .delta = there[5], .fresh = fresh};

        a.asking = a.start;
        assert_int_equal(s->k->attention(s->stream, DEVICE_BF16, &a), 0);
        if (!fresh)
            assert_int_equal(s->k->zero(s->stream, there[3], sizeof numbers[0]), 0);
        else
            assert_int_equal(s->k->upload(s->stream, there[3], numbers[3], sizeof numbers[3]), 0);
        assert_int_equal(s->k->attention_backward(s->stream, DEVICE_BF16, &a), 0);
        assert_int_equal(s->k->download(s->stream, got[fresh][0], there[3], sizeof got[0][0]), 0);
        s->k->release((void *)(uintptr_t)a.start);
    }
    assert_memory_equal(got[1][0], got[0][0], sizeof got[0][0]);
    for (int n = MOST; n > MOST - 9; n -= 8) {
        for (int fresh = 0; fresh < 2; fresh++) {
            for (int i = 2; i < 4; i++)
                assert_int_equal(fresh ? s->k->upload(s->stream, there[i], numbers[i], sizeof numbers[i]) : s->k->zero(s->stream,
                        there[i], sizeof numbers[i]), 0);
            assert_int_equal(s->k->swiglu_backward(s->stream, DEVICE_BF16, there[2], (char *)there[3] + (n == MOST ? 0 : 2),
                                                   there[0], there[1], there[0], n == MOST ? n : n - 1, !fresh), 0);
            for (int i = 0; i < 2; i++)
                assert_int_equal(s->k->download(s->stream, got[fresh][i], (char *)there[2 + i] + (i && n < MOST ? 2 : 0),
                                                (size_t)(n - 1) * 2), 0);
        }
        assert_memory_equal(got[1][0], got[0][0], (size_t)(n - 1) * 2);
        assert_memory_equal(got[1][1], got[0][1], (size_t)(n - 1) * 2);
    }
    for (size_t i = 0; i < ARRAY_SIZE(there); i++)
        s->k->release(there[i]);
    device_stream_free(s);
}

/* The sum and its norm in one pass: the bits of the two kernels, in odd widths and in those that are taken sixteen bytes at a
 * time. */
static void test_residual_and_norm_at_once(void **state)
{
    enum { ROWS = 5, MOST = ROWS * 4096 };
    static const int64_t widths[] = {37, 64, 4096};
    static uint16_t halves[2][MOST];
    static float numbers[2 * MOST], out[4][MOST];
    float scales[2][ROWS];
    struct philox random = philox_at(9, PHILOX_TEST, 0, 0, 0);
    struct device_stream *s = NULL;

    (void)state;
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < 2 * MOST; i++)
        numbers[i] = (float)philox_normal(&random);
    for (int i = 0; i < MOST; i++)
        halves[0][i] = float_to_bf16(numbers[i]), halves[1][i] = float_to_bf16(numbers[MOST + i]);
    for (size_t w = 0; w < 2 * ARRAY_SIZE(widths); w++) {
        int64_t cols = widths[w / 2], n = ROWS * cols;
        enum device_type type = w % 2 ? DEVICE_BF16 : DEVICE_F32;
        size_t bytes = (size_t)n * device_element(type);
        void *x = on_device(s, w % 2 ? (void *)halves[0] : (void *)numbers, bytes),
            *branch = on_device(s, w % 2 ? (void *)halves[1] : (void *)(numbers + MOST), bytes);
        float *weight = on_device(s, numbers, (size_t)cols * sizeof(float)), *rstd = on_device(s, NULL, ROWS * sizeof(float));
        void *sum = on_device(s, NULL, bytes), *y = on_device(s, NULL, bytes);

        for (int fused = 0; fused < 2; fused++) {
            if (fused) {                /* nothing is there of what the two wrote */
                assert_int_equal(s->k->zero(s->stream, sum, bytes), 0);
                assert_int_equal(s->k->zero(s->stream, y, bytes), 0);
                assert_int_equal(s->k->zero(s->stream, rstd, sizeof scales[0]), 0);
                assert_int_equal(s->k->residual_rmsnorm(s->stream, type, y, sum, rstd, x, branch, weight, 1e-6f, ROWS, cols), 0);
            } else {
                assert_int_equal(s->k->add(s->stream, type, sum, x, branch, n), 0);
                assert_int_equal(s->k->rmsnorm(s->stream, type, y, rstd, sum, weight, 1e-6f, ROWS, cols), 0);
            }
            assert_int_equal(s->k->download(s->stream, out[2 * fused], sum, bytes), 0);
            assert_int_equal(s->k->download(s->stream, out[2 * fused + 1], y, bytes), 0);
            assert_int_equal(s->k->download(s->stream, scales[fused], rstd, sizeof scales[0]), 0);
        }
        assert_memory_equal(out[2], out[0], bytes);
        assert_memory_equal(out[3], out[1], bytes);
        assert_memory_equal(scales[1], scales[0], sizeof scales[0]);
        s->k->release(x), s->k->release(branch), s->k->release(weight), s->k->release(rstd), s->k->release(sum), s->k->release(y);
    }
    device_stream_free(s);
}

/* Bicubic as PIL has it: to the last pixel of the host's. */
static void test_resizing(void **state)
{
    static const int sizes[][4] = {{128, 96, 224, 224}, {64, 80, 33, 17}, {7, 5, 9, 11}};
    struct device_stream *s = NULL;

    (void)state;
    assert_int_equal(device_stream_new(device, &s), 0);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        int h = sizes[i][0], w = sizes[i][1], to_h = sizes[i][2], to_w = sizes[i][3];
        size_t from = (size_t)(h * w * 3), to = (size_t)(to_h * to_w * 3), between = (size_t)(h * to_w * 3);
        uint8_t *picture = malloc(from), *want = malloc(to), *got = malloc(to);
        struct image_taps across = {0}, down = {0};
        void *there[9];

        for (size_t k = 0; k < from; k++)
            picture[k] = (uint8_t)(k * 2654435761u >> 13);
        assert_int_equal(image_resize_bicubic(picture, h, w, to_h, to_w, want), 0);
        assert_int_equal(image_taps_init(&across, w, to_w), 0);
        assert_int_equal(image_taps_init(&down, h, to_h), 0);
        there[0] = on_device(s, picture, from);
        there[1] = on_device(s, NULL, between);
        there[2] = on_device(s, NULL, to);
        there[3] = on_device(s, across.first, (size_t)to_w * sizeof(int32_t));
        there[4] = on_device(s, across.count, (size_t)to_w * sizeof(int32_t));
        there[5] = on_device(s, across.weight, (size_t)(to_w * across.stride) * sizeof(int32_t));
        there[6] = on_device(s, down.first, (size_t)to_h * sizeof(int32_t));
        there[7] = on_device(s, down.count, (size_t)to_h * sizeof(int32_t));
        there[8] = on_device(s, down.weight, (size_t)(to_h * down.stride) * sizeof(int32_t));
        assert_int_equal(s->k->resize_pass(s->stream, there[1], there[0], true, h, w, to_w, 0, there[3], there[4], there[5],
                                           across.stride), 0);
        assert_int_equal(s->k->resize_pass(s->stream, there[2], there[1], false, 0, h, to_h, 3 * to_w, there[6], there[7],
                                           there[8], down.stride), 0);
        assert_int_equal(s->k->download(s->stream, got, there[2], to), 0);
        assert_memory_equal(got, want, to);
        for (size_t k = 0; k < ARRAY_SIZE(there); k++)
            s->k->release(there[k]);
        image_taps_release(&across);
        image_taps_release(&down);
        free(picture);
        free(want);
        free(got);
    }
    device_stream_free(s);
}

static void test_names(void **state)
{
    static const char *const wrong[] = {"gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cudax", ""};
    struct device *d = device;
    struct error error = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(device_open(wrong[i], &d, &error), -EINVAL);
    assert_ptr_equal(d, device); /* untouched */
    assert_int_equal(device_open("cpu", &d, &error), 0);
    assert_null(d);
    assert_int_equal(device_wrap(emulated_kernels(), 1, &d, &error), -ENODEV);
    assert_non_null(strstr(error.text, "there is 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops_equal_the_cpus_in_fp32),
        cmocka_unit_test(test_ops_equal_the_cpus_in_bf16),
        cmocka_unit_test(test_any_order_of_threads),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_residual_and_norm_at_once),
        cmocka_unit_test(test_first_gradients_are_assigned),
        cmocka_unit_test(test_resizing),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, test_device_setup, test_device_teardown);
}
