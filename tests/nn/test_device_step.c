/* What a decoding step is made of on a device: products at once, rotation and appending at once, sums and norms in place, a query
 * against its slot. Each has the bits of what it stands for, and a row those that it has alone. On the emulated device, or the
 * one that GANTRY_TEST_DEVICE names. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_session.h"
#include "nn/safetensors.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/train_lab.h"

enum { MOST = 1 << 16 };

static struct device_stream *s;
static float numbers[MOST];
static uint16_t halves[MOST];
static char got[MOST * 4], want[MOST * 4];
static void *there[8];

static int setup(void **state)
{
    struct philox random = philox_at(13, PHILOX_TEST, 0, 0, 0);

    (void)state;
    device = test_device_open();
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < MOST; i++) {
        numbers[i] = (float)philox_normal(&random);
        halves[i] = float_to_bf16(numbers[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(there); i++)
        assert_int_equal(s->k->alloc(sizeof numbers, &there[i]), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(there); i++)
        s->k->release(there[i]);
    s = device_stream_free(s);
    device = device_unref(device);
    return 0;
}

/* The random numbers from `first` on. */
static const void *filled(enum device_type type, int first)
{
    return type == DEVICE_BF16 ? (const void *)(halves + first) : (const void *)(numbers + first);
}

/* `there[i]` becomes random numbers from `first` on, each time the same ones. */
static void *fill(int i, enum device_type type, int first)
{
    assert_int_equal(s->k->upload(s->stream, there[i], filled(type, first), (size_t)(MOST - first) * device_element(type)), 0);
    return there[i];
}

static void *at(int i, enum device_type type, int64_t n) { return (char *)there[i] + (size_t)n * device_element(type); }

static void fetch(void *to, int i, int64_t n, enum device_type type)
{
    assert_int_equal(s->k->download(s->stream, to, there[i], (size_t)n * device_element(type)), 0);
}

static float number(const void *from, enum device_type type, int64_t i)
{
    uint32_t bits;
    float x;

    if (type == DEVICE_F32)
        return ((const float *)from)[i];
    bits = (uint32_t)((const uint16_t *)from)[i] << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- products ------------------------------------------------------------------------------------------------------ */

static void test_a_batch_is_its_products(void **state)
{
    static const int64_t shapes[][3] = {{1, 64, 96}, {3, 33, 17}, {70, 5, 40}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(shapes) * 8; i++) {
        const int64_t *shape = shapes[i / 8];
        enum device_type type = i & 1 ? DEVICE_BF16 : DEVICE_F32;
        struct device_gemm g = {.m = shape[0], .n = shape[1], .k = shape[2], .batch = 3, .a_apart = i & 2 ? shape[2] : 0,
                                .b_apart = shape[1] * shape[2] + 8, .c_apart = shape[0] * shape[1] + 3, .a_row = 3 * shape[2],
                                .b_row = shape[2], .c_row = shape[1], .a_type = type, .b_type = type, .c_type = type,
                                .b_transposed = true, .add = i & 4, .alpha = 0.5f};
        int64_t all = 2 * g.c_apart + g.m * g.n;

        g.a = fill(0, type, 0);
        g.b = fill(1, type, 100);
        g.c = fill(2, type, 200);
        assert_int_equal(s->k->gemm(s->stream, &g), 0);
        fetch(got, 2, all, type);
        fill(2, type, 200);
        for (int k = 0; k < 3; k++) {
            struct device_gemm one = g;

            one.batch = k % 2;          /* 0 and 1 mean the same */
            one.a = at(0, type, k * g.a_apart);
            one.b = at(1, type, k * g.b_apart);
            one.c = at(2, type, k * g.c_apart);
            assert_int_equal(s->k->gemm(s->stream, &one), 0);
        }
        fetch(want, 2, all, type);
        assert_memory_equal(got, want, (size_t)all * device_element(type));
    }
}

static int products;
static int (*counted_gemm)(void *stream, const struct device_gemm *g);

static int count_gemm(void *stream, const struct device_gemm *g)
{
    products++;
    return counted_gemm(stream, g);
}

/* Four products a layer, one for the logits; with adapters everywhere two more each, joined. And tokens are those of products one
 * by one. */
static void test_a_steps_products(void **state)
{
    struct device_kernels counting = *device->k;
    struct device *counted = NULL;
    const struct lora_spec everywhere = {.r = 4, .alpha = 8, .targets = "all-linear"};
    uint8_t *frames = lab_noise_frames(3, 2);

    (void)state;
    counted_gemm = counting.gemm;
    counting.gemm = count_gemm;
    counting.capture_begin = NULL;
    assert_int_equal(device_wrap(&counting, device->ordinal, &counted, NULL), 0);
    counted->strict = true;             /* fp32 has one order everywhere */
    for (int adapted = 0; adapted < 2; adapted++) {
        struct openvla *model = lab_model(1);
        struct openvla_session *session = NULL;
        int32_t *prompt, n_prompt, token[2], layers = model->config.layers;
        struct act_item items[2] = {0};
        struct act_pass pass;

        if (adapted)
            assert_int_equal(openvla_lora_new(model, &everywhere, 5, NULL), 0);
        params_use_device(&model->params, counted, false);
        assert_int_equal(openvla_pack(model, false), 0);
        assert_int_equal(openvla_session_new(&model->config, 2, &session), 0);
        assert_int_equal(openvla_prompt(model, "open the drawer", &prompt, &n_prompt), 0);
        for (int i = 0; i < 2; i++)
            items[i] = (struct act_item) {.images = {frames + i * LAB_FRAME}, .n_images = 1, .prompt = prompt,
                                          .n_prompt = n_prompt};
        assert_int_equal(openvla_prefill(model, session, items, 2, true, &pass), 0);
        for (int i = 0; i < 2; i++)
            token[i] = model->config.vocab - 1 - i;
        products = 0;
        assert_int_equal(openvla_step(model, session, token, true, &pass), 0);
        assert_int_equal(products, (adapted ? 12 : 4) * layers + 1);
        free(prompt);
        openvla_session_free(session);
        openvla_free(model);
    }
    free(frames);
    device_unref(counted);
}

/* ---- rotation and appending ------------------------------------------------------------------------------------------ */

static void test_rotated_and_appended_at_once(void **state)
{
    enum { ROWS = 3, HEADS = 2, CAPACITY = 6 };
    static const int64_t dims[] = {2, 6, 8, 16, 24, 128};
    static const int32_t slot[ROWS] = {1, 0, 1}, position[ROWS] = {5, 0, 2};

    (void)state;
    for (size_t i = 0; i < 4 * ARRAY_SIZE(dims); i++) {
        enum device_type type = i & 1 ? DEVICE_BF16 : DEVICE_F32;
        int64_t dim = dims[i / 4], width = HEADS * dim, cache = 2 * CAPACITY * width;
        int64_t off = i & 2 ? 1 : 0;            /* addresses that do not allow sixteen bytes */
        const int32_t *slots, *positions;
        const float *table = fill(5, DEVICE_F32, 300);
        void *q, *k, *v, *cache_k, *cache_v;

        assert_int_equal(device_stream_begin(s), 0);
        slots = device_send(s, slot, sizeof slot);
        positions = device_send(s, position, sizeof position);
        for (int apart = 0; apart < 2; apart++) {
            for (int n = 0; n < 5; n++)
                fill(n, type, n);
            q = at(0, type, off), k = at(1, type, off), v = at(2, type, off);
            cache_k = at(3, type, off), cache_v = at(4, type, off);
            if (apart) {
                assert_int_equal(s->k->rope(s->stream, type, q, width, positions, table, ROWS, HEADS, dim, 1), 0);
                assert_int_equal(s->k->rope(s->stream, type, k, width, positions, table, ROWS, HEADS, dim, 1), 0);
                assert_int_equal(
                    s->k->kv_append(s->stream, type, cache_k, cache_v, k, v, slots, positions, ROWS, width, CAPACITY), 0);
            } else {
                assert_int_equal(s->k->rope_append(s->stream, type, q, k, v, cache_k, cache_v, slots, positions, table, ROWS,
                                                   HEADS, dim, CAPACITY),
                                 0);
            }
            for (int n = 0; n < 5; n++)
                fetch((apart ? want : got) + n * MOST / 2, n, off + (n < 3 ? ROWS * width : cache) + 1, type);
        }
        for (int n = 0; n < 5; n++)     /* and one number more: nothing is written behind the last */
            assert_memory_equal(got + n * MOST / 2, want + n * MOST / 2,
                                (size_t)(off + (n < 3 ? ROWS * width : cache) + 1) * device_element(type));
    }
}

/* ---- sums and norms ----------------------------------------------------------------------------------------------- */

/* In place, and with rows that are kept in registers or, for the sake of a weight that cannot be taken sixteen bytes at a time,
 * read again: the bits of the sum and of the norm one after the other. */
static void test_sum_and_norm_in_place(void **state)
{
    enum { ROWS = 3 };
    static const int64_t widths[] = {8, 37, 64, 512, 1152, 2048, 4096, 8192, 10240};

    (void)state;
    for (size_t i = 0; i < 4 * ARRAY_SIZE(widths); i++) {
        enum device_type type = i & 1 ? DEVICE_BF16 : DEVICE_F32;
        int64_t cols = widths[i / 4], n = ROWS * cols;
        float *weight = (float *)there[3] + (i & 2 ? 1 : 0);

        assert_int_equal(s->k->upload(s->stream, weight, numbers + 77, (size_t)cols * sizeof(float)), 0);
        for (int apart = 0; apart < 2; apart++) {
            char *to = apart ? want : got;

            fill(0, type, 0);
            fill(1, type, 1000);
            if (apart) {
                assert_int_equal(s->k->add(s->stream, type, there[0], there[0], there[1], n), 0);
                assert_int_equal(s->k->rmsnorm(s->stream, type, there[2], there[4], there[0], weight, 1e-6f, ROWS, cols), 0);
            } else {
                assert_int_equal(s->k->residual_rmsnorm(s->stream, type, there[2], there[0], NULL, there[0], there[1], weight,
                                                        1e-6f, ROWS, cols),
                                 0);
            }
            fetch(to, 0, n, type);
            fetch(to + MOST * 2, 2, n, type);
        }
        assert_memory_equal(got, want, (size_t)n * device_element(type));
        assert_memory_equal(got + MOST * 2, want + MOST * 2, (size_t)n * device_element(type));
    }
}

static double relative(const float *x, const float *y, int64_t n)
{
    double sum = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        norm += (double)y[i] * (double)y[i];
    }
    return sqrt(sum / norm);
}

/* However often sixteen bytes a thread takes of a row: once, twice, four times, more. Against the CPU's kernels, there and
 * back. */
static void test_norms_as_wide_as_models(void **state)
{
    enum { ROWS = 2, WIDEST = 10240 };
    static const int64_t widths[] = {1024, 1152, 2176, 4096, 8192, WIDEST};
    static float y[ROWS * WIDEST], dx[ROWS * WIDEST], back[ROWS * WIDEST];
    float mean[ROWS], rstd[ROWS];

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_SIZE(widths); i++) {
        bool layer = i & 1;
        int64_t cols = widths[i / 2], n = ROWS * cols;
        const float *x = numbers, *dy = numbers + 20000, *weight = numbers + 40000, *bias = numbers + 50400;
        float *there_mean = there[6], *there_rstd = there_mean + 64;

        fill(0, DEVICE_F32, 0), fill(1, DEVICE_F32, 20000), fill(5, DEVICE_F32, 7);
        fill(3, DEVICE_F32, 40000), fill(4, DEVICE_F32, 50400);
        memcpy(dx, numbers + 7, (size_t)n * sizeof(float));     /* what a gradient is added to */
        if (layer) {
            cpu_kernels()->layernorm(y, mean, rstd, x, weight, bias, 1e-6f, ROWS, cols);
            cpu_kernels()->layernorm_backward(dx, NULL, NULL, dy, x, weight, mean, rstd, ROWS, cols);
            assert_int_equal(s->k->layernorm(s->stream, DEVICE_F32, there[2], there_mean, there_rstd, there[0], there[3],
                                             there[4], 1e-6f, ROWS, cols),
                             0);
            assert_int_equal(s->k->layernorm_backward(s->stream, DEVICE_F32, there[5], NULL, NULL, there[1], there[0], there[3],
                                                      there_mean, there_rstd, ROWS, cols),
                             0);
        } else {
            cpu_kernels()->rmsnorm(y, rstd, x, weight, 1e-6f, ROWS, cols);
            cpu_kernels()->rmsnorm_backward(dx, NULL, dy, x, weight, rstd, ROWS, cols);
            assert_int_equal(s->k->rmsnorm(s->stream, DEVICE_F32, there[2], there_rstd, there[0], there[3], 1e-6f, ROWS, cols),
                             0);
            assert_int_equal(s->k->rmsnorm_backward(s->stream, DEVICE_F32, there[5], NULL, there[1], there[0], there[3],
                                                    there_rstd, ROWS, cols),
                             0);
        }
        fetch(back, 2, n, DEVICE_F32);
        assert_true(relative(back, y, n) < 1e-6);
        fetch(back, 5, n, DEVICE_F32);
        assert_true(relative(back, dx, n) < 1e-6);
    }
}

/* ---- a query against its slot ----------------------------------------------------------------------------------------- */

static void attend(const void *q, const void *k, const void *v, enum device_type type, const struct device_decode *d, int row,
                   int32_t slot, int32_t position, double *ret)
{
    double p[400], top = -INFINITY, sum = 0;

    for (int h = 0; h < d->heads; h++) {
        int64_t base = slot * d->capacity * d->width + h / d->group * d->dim;

        top = -INFINITY, sum = 0;
        for (int32_t j = 0; j <= position; j++) {
            p[j] = 0;
            for (int64_t c = 0; c < d->dim; c++)
                p[j] += (double)number(q, type, (row * d->heads + h) * d->dim + c) *
                        (double)number(k, type, base + j * d->width + c);
            p[j] *= (double)d->scale;
            top = fmax(top, p[j]);
        }
        for (int32_t j = 0; j <= position; j++)
            sum += p[j] = exp(p[j] - top);
        for (int64_t c = 0; c < d->dim; c++) {
            double out = 0;

            for (int32_t j = 0; j <= position; j++)
                out += p[j] * (double)number(v, type, base + j * d->width + c);
            ret[h * d->dim + c] = out / sum;
        }
    }
}

static void test_a_query_against_its_slot(void **state)
{
    enum { ROWS = 3, CAPACITY = 80 };
    static const int64_t dims[] = {8, 16, 32, 40, 64, 72, 80, 128};
    static const int32_t slot[ROWS] = {2, 0, 1}, position[ROWS] = {0, 66, 79};

    (void)state;
    for (size_t i = 0; i < 4 * ARRAY_SIZE(dims); i++) {
        enum device_type type = i & 1 ? DEVICE_BF16 : DEVICE_F32;
        int group = i & 2 ? 2 : 1;
        struct device_decode d = {.rows = ROWS, .dim = dims[i / 4], .capacity = CAPACITY, .heads = 2, .group = group,
                                  .scale = 0.3f};
        size_t out;

        d.width = d.heads / group * d.dim;
        out = (size_t)(d.heads * d.dim);
        assert_int_equal(device_stream_begin(s), 0);
        d.slot = device_send(s, slot, sizeof slot);
        d.position = device_send(s, position, sizeof position);
        d.q = fill(0, type, 0), d.k = fill(1, type, 17), d.v = fill(2, type, 40), d.out = there[3];
        assert_int_equal(s->k->attention_decode(s->stream, type, &d), 0);
        fetch(got, 3, (int64_t)(ROWS * out), type);
        for (int row = 0; row < ROWS; row++) {
            struct device_decode alone = d;
            double right[2 * DEVICE_MAX_HEAD];

            attend(filled(type, 0), filled(type, 17), filled(type, 40), type, &d, row, slot[row], position[row], right);
            for (size_t c = 0; c < out; c++)
                if (fabs((double)number(got, type, (int64_t)(row * out + c)) - right[c]) > (type == DEVICE_BF16 ? 0.01 : 4e-6))
                    fail_msg("dim %d row %d column %zu: %g, not %g", (int)d.dim, row, c,
                             (double)number(got, type, (int64_t)(row * out + c)), right[c]);
            alone.rows = 1;
            alone.q = at(0, type, (int64_t)(row * out));
            alone.slot += row;
            alone.position += row;
            assert_int_equal(s->k->attention_decode(s->stream, type, &alone), 0);
            fetch(want, 3, (int64_t)out, type);
            assert_memory_equal(want, got + row * out * device_element(type), out * device_element(type));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_is_its_products),
        cmocka_unit_test(test_a_steps_products),
        cmocka_unit_test(test_rotated_and_appended_at_once),
        cmocka_unit_test(test_sum_and_norm_in_place),
        cmocka_unit_test(test_norms_as_wide_as_models),
        cmocka_unit_test(test_a_query_against_its_slot),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
