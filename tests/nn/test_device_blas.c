/* What cuBLASLt is told of a product, carried out by a plain loop that takes it at its word, equals the own kernel's product:
 * layouts, transpositions, strides, sums, bias. And which plans are the same plan, and what strict numerics pins. On a real
 * device (GANTRY_TEST_DEVICE) the library itself beside the own kernel, and, strict, a row alone beside the same row in a batch,
 * to the bit. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/device/blas.h"
#include "nn/device/blas_plan.h"
#include "nn/safetensors.h"
#include "tests/emulate/test_device.h"

enum { SIDE = 96, NUMBERS = SIDE * SIDE };

static struct device_stream *s;
static float a[NUMBERS], b[NUMBERS], c[NUMBERS], bias[SIDE];
static float *there[4];

static int setup(void **state)
{
    struct philox random = philox_at(3, PHILOX_TEST, 0, 0, 0);

    (void)state;
    device = test_device_open();
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < NUMBERS; i++) {
        a[i] = (float)philox_normal(&random);
        b[i] = (float)philox_normal(&random);
        c[i] = (float)philox_normal(&random);
        bias[i % SIDE] = (float)philox_normal(&random);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(s->k->alloc(sizeof a, (void **)&there[i]), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        s->k->release(there[i]);
    s = device_stream_free(s);
    device = device_unref(device);
    return 0;
}

/* cublasLtMatmul as its documentation has it, over fp32: D = op(A) op(B) + beta C + bias, matrices column by column. */
static void library(const struct blas_call *call, const float *la, const float *lb, float beta, float *lc, const float *lbias)
{
    uint64_t m = call->a_transposed ? call->a.cols : call->a.rows, k = call->a_transposed ? call->a.rows : call->a.cols;
    uint64_t n = call->b_transposed ? call->b.rows : call->b.cols;

    assert_true(call->c.rows == m && call->c.cols == n && k == (call->b_transposed ? call->b.cols : call->b.rows));
    assert_true(call->a.ld >= (int64_t)call->a.rows && call->b.ld >= (int64_t)call->b.rows && call->c.ld >= (int64_t)m);
    for (uint64_t j = 0; j < n; j++)
        for (uint64_t i = 0; i < m; i++) {
            double sum = 0;
            float *to = &lc[i + j * (uint64_t)call->c.ld];

            for (uint64_t p = 0; p < k; p++) {
                uint64_t at = call->a_transposed ? p + i * (uint64_t)call->a.ld : i + p * (uint64_t)call->a.ld;
                uint64_t bt = call->b_transposed ? j + p * (uint64_t)call->b.ld : p + j * (uint64_t)call->b.ld;

                sum += (double)la[at] * (double)lb[bt];
            }
            *to = (float)(sum + (double)beta * (double)*to + (call->bias ? (double)lbias[i] : 0));
        }
}

/* A batch: the same of matrices that lie `apart`. */
static void library_batch(const struct blas_call *call, const float *la, const float *lb, float beta, float *lc,
                          const float *lbias)
{
    for (int64_t i = 0; i < call->batch; i++)
        library(call, la + i * call->a.apart, lb + i * call->b.apart, beta, lc + i * call->c.apart, lbias);
}

static const int64_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {16, 8, 24}, {33, 64, 17}, {64, 33, 40}, {1, 80, 64}, {72, 1, 9}};

/* Operands as an op would hand them over: rows may be longer than what is multiplied. */
static struct device_gemm gemm_of(size_t shape, int form, int64_t extra)
{
    struct device_gemm g = {.m = shapes[shape][0], .n = shapes[shape][1], .k = shapes[shape][2], .a_transposed = form & 1,
                            .b_transposed = form & 2, .add = form & 4, .alpha = 1};

    g.a_row = (g.a_transposed ? g.m : g.k) + extra;
    g.b_row = (g.b_transposed ? g.k : g.n) + extra;
    g.c_row = g.n + extra;
    return g;
}

static void test_the_library_is_told_the_same_product(void **state)
{
    static float want[NUMBERS], got[NUMBERS];

    (void)state;
    for (size_t shape = 0; shape < ARRAY_SIZE(shapes); shape++)
        for (int form = 0; form < 32; form++) {
            struct device_gemm g = gemm_of(shape, form, form & 8 ? 3 : 0);
            struct blas_call call;

            g.bias = form & 8 ? bias : NULL;
            if (form & 16) {
                g.bias = NULL;          /* a batch has none */
                g.batch = 2;
                g.a_apart = form & 8 ? 0 : 1200;
                g.b_apart = 1000;
                g.c_apart = NUMBERS / 2 - 4;
            }
            call = blas_call_of(&g);
            assert_int_equal(call.batch, form & 16 ? 2 : 1);
            memcpy(want, c, sizeof c);
            library_batch(&call, b, a, g.add ? 1 : 0, want, bias);    /* its a is our b */
            assert_int_equal(device_stream_begin(s), 0);
            for (int i = 0; i < 3; i++)
                assert_int_equal(s->k->upload(s->stream, there[i], i == 0 ? a : i == 1 ? b : c, sizeof a), 0);
            assert_int_equal(s->k->upload(s->stream, there[3], bias, sizeof bias), 0);
            g.a = there[0], g.b = there[1], g.c = there[2], g.bias = g.bias ? there[3] : NULL;
            assert_int_equal(s->k->gemm(s->stream, &g), 0);
            assert_int_equal(s->k->download(s->stream, got, there[2], sizeof got), 0);
            for (int i = 0; i < NUMBERS; i++)
                if (fabsf(got[i] - want[i]) > 2e-5f)
                    fail_msg("shape %zu form %d: number %d is %g, the library's %g", shape, form, i, (double)got[i],
                             (double)want[i]);
        }
}

static void test_what_is_for_the_library(void **state)
{
    struct device_gemm g = gemm_of(2, 2, 0);
    float some = 0;

    (void)state;
    assert_true(blas_takes(&g, false));
    assert_false(blas_takes(&g, true));                 /* strict fp32 has the CPU's bits */
    g.a_type = DEVICE_BF16;
    assert_false(blas_takes(&g, false));                /* two types */
    g.b_type = DEVICE_BF16;
    assert_true(blas_takes(&g, false) && blas_takes(&g, true));         /* a gradient of a weight: fp32 out of bf16 */
    g.bias = &some;
    assert_true(blas_takes(&g, true));
    g.c_type = DEVICE_BF16;
    assert_false(blas_takes(&g, true));                 /* its bias would be bf16, and is not there */
    g.bias_half = &some;
    assert_true(blas_takes(&g, true));
    g.batch = 2;
    assert_false(blas_takes(&g, true));                 /* a bias for each? */
    g.bias = NULL;
    assert_true(blas_takes(&g, true));
}

static bool same(const struct device_gemm *x, bool x_strict, const struct device_gemm *y, bool y_strict)
{
    struct blas_key one = blas_key_of(x, x_strict), other = blas_key_of(y, y_strict);
    bool equal = !memcmp(&one, &other, sizeof one);

    assert_true(!equal || blas_key_hash(&one) == blas_key_hash(&other));
    return equal;
}

static void test_which_plans_are_the_same(void **state)
{
    _Alignas(64) static char memory[256];
    struct device_gemm g = gemm_of(2, 2, 0), other;

    (void)state;
    g.a = g.b = g.c = memory;
    other = g;
    assert_true(same(&g, false, &other, false));
    other.a = memory + 16;                              /* addresses count for sixteen bytes and no more */
    other.c = memory + 128;
    assert_true(same(&g, false, &other, false));
    other.a = memory + 8;
    assert_false(same(&g, false, &other, false));
    assert_int_equal(blas_key_of(&other, false).a_align, 8);
    g.bias = other.bias = (const float *)memory;
    other.a = g.a;
    assert_true(same(&g, false, &other, false));
    other.bias = (const float *)(memory + 4);           /* of the bias, too */
    assert_false(same(&g, false, &other, false));
    g.bias = NULL;
    assert_false(same(&g, false, &g, true));            /* nor does strict take what fast has found */
    other = g;
    g.a_apart = other.a_apart = 5;
    other.b_apart = 7;                                  /* of one product, nobody asks how far apart the others are */
    assert_true(same(&g, false, &other, false));
    g.batch = other.batch = 3;
    assert_false(same(&g, false, &other, false));
    other.b_apart = g.b_apart = 12;                     /* 48 bytes: the second may still be taken sixteen bytes at a time */
    assert_int_equal(blas_key_of(&g, false).b_align, 16);
    g.b_apart = 6;
    assert_int_equal(blas_key_of(&g, false).b_align, 8);
    g.batch = 0;
#define DIFFERS(field, value) \
    other = g; \
    other.field = value; \
    assert_false(same(&g, false, &other, false));
    DIFFERS(m, 17) DIFFERS(n, 9) DIFFERS(k, 25) DIFFERS(a_row, 99) DIFFERS(b_row, 99) DIFFERS(c_row, 99) DIFFERS(batch, 2)
    DIFFERS(add, true) DIFFERS(a_transposed, true) DIFFERS(b_transposed, false) DIFFERS(a_type, DEVICE_BF16)
    DIFFERS(c_type, DEVICE_BF16) DIFFERS(bias, (const float *)memory)
}

/* What the algorithm of a strict product depends on: the weight, and neither how many rows there are nor where they lie. */
static void test_strict_pins_by_weight(void **state)
{
    _Alignas(64) static char memory[256];
    static const int64_t rows[] = {1, 7, 64, 290, 4640};
    struct device_gemm g = {.n = 4096, .k = 11008, .a = memory, .b = memory, .c = memory, .a_row = 11008, .b_row = 11008,
                            .c_row = 4096, .a_type = DEVICE_BF16, .b_type = DEVICE_BF16, .c_type = DEVICE_BF16,
                            .b_transposed = true, .alpha = 1};
    struct blas_call first = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct device_gemm typical;
        struct blas_call call;

        g.m = rows[i];
        g.a = memory + 16 * i;
        typical = blas_typical(&g);
        call = blas_call_of(&typical);
        if (i == 0)
            first = call;
        assert_memory_equal(&call, &first, sizeof call);
        assert_int_equal(call.c.cols, BLAS_STRICT_ROWS);
    }
    /* dA of an adapter: dh^T x */
    g = (struct device_gemm) {.m = 32, .n = 4096, .k = 580, .a_row = 32, .b_row = 4096, .c_row = 4096, .a_transposed = true};
    assert_int_equal(blas_typical(&g).m, 32);           /* its columns lie 32 apart: of 512 rows there is no such matrix */
}

/* The models' own shapes: every matrix has room between its columns, and every row begins where the library's kernels like it. */
static void test_shapes_of_openvla_7b(void **state)
{
    static const int64_t weights[][2] = {{4096, 4096}, {11008, 4096}, {4096, 11008}, {32, 4096},   {4096, 32},
                                         {11008, 32},  {32, 11008},   {96, 4096},    {256, 4096},  {3072, 1024},
                                         {1024, 4096}, {4096, 1024},  {3456, 1152},  {4304, 1152}, {1152, 4304},
                                         {1024, 588},  {1152, 588},   {8704, 2176},  {4096, 8704}};
    static const int64_t rows[] = {1, 8, 64, 261, 580, 4640};

    (void)state;
    for (size_t w = 0; w < ARRAY_SIZE(weights); w++)
        for (size_t r = 0; r < ARRAY_SIZE(rows); r++) {
            int64_t out = weights[w][0], in = weights[w][1], m = rows[r];
            const struct device_gemm forms[] = {
                {.m = m, .n = out, .k = in, .a_row = in, .b_row = in, .c_row = out, .b_transposed = true}, /* y = x W^T */
                {.m = m, .n = in, .k = out, .a_row = out, .b_row = in, .c_row = in},                       /* dx = dy W */
                /* dW += dy^T x */
                {.m = out, .n = in, .k = m, .a_row = out, .b_row = in, .c_row = in, .a_transposed = true, .add = true},
            };

            for (size_t f = 0; f < ARRAY_SIZE(forms); f++) {
                struct device_gemm typical = blas_typical(&forms[f]);
                struct blas_call calls[] = {blas_call_of(&forms[f]), blas_call_of(&typical)};

                for (int i = 0; i < 2; i++)
                    assert_true(calls[i].a.ld >= (int64_t)calls[i].a.rows && calls[i].b.ld >= (int64_t)calls[i].b.rows &&
                                calls[i].c.ld >= (int64_t)calls[i].c.rows);
                assert_true(2 * forms[f].a_row % 8 == 0 && 2 * forms[f].b_row % 8 == 0);
            }
        }
}

/* ---- the library itself --------------------------------------------------------------------------------------- */

static void skip_without_the_library(void)
{
    if (device->blas)
        return;
    print_message("SKIP cuBLASLt: %s\n",
                  getenv("GANTRY_TEST_DEVICE") ? "libcublasLt cannot be opened" : "this device is emulated");
    skip();
}

/* The difference of two bf16 arrays by the norm of the second. */
static double relative(const uint16_t *x, const uint16_t *y, int n)
{
    double sum = 0, norm = 0;

    for (int i = 0; i < n; i++) {
        float got, want;

        cpu_kernels()->widen(&got, &x[i], 1);
        cpu_kernels()->widen(&want, &y[i], 1);
        sum += (double)(got - want) * (double)(got - want);
        norm += (double)want * (double)want;
    }
    return sqrt(sum / norm);
}

/* q, k, v of one row: the same x, weights and results one behind the other. */
static void test_the_librarys_batches(void **state)
{
    enum { N = 40, K = 96, BATCH = 3, MOST_ROWS = 8 };
    static uint16_t halves[BATCH * N * K], out[2][BATCH * MOST_ROWS * N];

    (void)state;
    skip_without_the_library();
    for (int i = 0; i < BATCH * N * K; i++)
        halves[i] = float_to_bf16(a[i % NUMBERS]);
    device->strict = false;
    for (int rows = 1; rows <= MOST_ROWS; rows += MOST_ROWS - 1) {
        struct device_gemm g = {.m = rows, .n = N, .k = K, .batch = BATCH, .b_apart = N * K, .c_apart = (int64_t)rows * N,
                                .a_row = K, .b_row = K, .c_row = N, .a_type = DEVICE_BF16, .b_type = DEVICE_BF16,
                                .c_type = DEVICE_BF16, .b_transposed = true, .alpha = 1};

        assert_int_equal(device_stream_begin(s), 0);
        assert_int_equal(s->k->upload(s->stream, there[0], halves, sizeof halves), 0);
        g.a = g.b = there[0];           /* rows of x may be rows of the weight: nobody minds */
        g.c = there[1];
        for (int own = 0; own < 2; own++) {
            assert_int_equal(own ? s->k->gemm(s->stream, &g) : device_gemm(s, &g), 0);
            assert_int_equal(s->k->download(s->stream, out[own], there[1], sizeof out[own]), 0);
        }
        assert_true(relative(out[0], out[1], BATCH * rows * N) < 0.01);
    }
    print_message("products that cuBLASLt refused: %llu %s\n", device_fallbacks(device).gemm, device_product_refusal(device));
    assert_int_equal(device_fallbacks(device).gemm, 0);
}

static void test_the_library_beside_the_own_kernel(void **state)
{
    enum { M = 64, N = 80, K = 96 };
    static uint16_t halves[M * K + N * K], out[2][M * N], alone[N];

    (void)state;
    skip_without_the_library();
    for (int i = 0; i < M * K + N * K; i++)
        halves[i] = float_to_bf16(a[i % NUMBERS]);
    for (int strict = 0; strict < 2; strict++)
        for (int add = 0; add < 2; add++) {
            struct device_gemm g = {.m = M, .n = N, .k = K, .a_row = K, .b_row = K, .c_row = N, .a_type = DEVICE_BF16,
                                    .b_type = DEVICE_BF16, .c_type = DEVICE_BF16, .b_transposed = true, .alpha = 1, .add = add};

            device->strict = strict;
            assert_int_equal(device_stream_begin(s), 0);
            assert_int_equal(s->k->upload(s->stream, there[0], halves, sizeof halves), 0);
            g.a = there[0], g.b = (char *)there[0] + sizeof(uint16_t) * M * K, g.c = there[1];
            for (int own = 0; own < 2; own++) {
                assert_int_equal(s->k->zero(s->stream, there[1], sizeof a), 0);
                assert_int_equal(own ? s->k->gemm(s->stream, &g) : device_gemm(s, &g), 0);
                assert_int_equal(s->k->download(s->stream, out[own], there[1], sizeof out[own]), 0);
            }
            assert_true(relative(out[0], out[1], M * N) < 0.01);
            for (int row = 0; row < M && strict; row += 21) { /* one row alone has the bits that it has among sixty-four */
                g.m = 1;
                g.a = (char *)there[0] + sizeof(uint16_t) * (size_t)row * K;
                assert_int_equal(s->k->zero(s->stream, there[1], sizeof a), 0);
                assert_int_equal(device_gemm(s, &g), 0);
                assert_int_equal(s->k->download(s->stream, alone, there[1], sizeof alone), 0);
                assert_memory_equal(alone, out[0] + row * N, sizeof alone);
            }
        }
    print_message("products that cuBLASLt refused: %llu %s\n", device_fallbacks(device).gemm, device_product_refusal(device));
    assert_int_equal(device_fallbacks(device).gemm, 0);
}

/* No device: the library does not start. The own kernel multiplies, the refusal is counted, and the first one is told with its
 * product. */
static void test_a_refusal_names_the_product(void **state)
{
    enum { M = 9, N = 16, K = 24 };
    static uint16_t halves[N * K], out[2][M * N];
    struct device_gemm g = {.m = M, .n = N, .k = K, .a_row = K, .b_row = K, .c_row = N, .a_type = DEVICE_BF16,
                            .b_type = DEVICE_BF16, .c_type = DEVICE_BF16, .b_transposed = true, .alpha = 1};

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE") || device->blas || !(device->blas = blas_open()))
        skip();                         /* it does start there */
    assert_string_equal(device_product_refusal(device), "");
    for (int i = 0; i < N * K; i++)
        halves[i] = float_to_bf16(a[i]);
    g.a = there[0], g.b = there[1], g.c = there[2];
    for (int library = 0; library < 2; library++) {
        assert_int_equal(device_stream_begin(s), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(s->k->upload(s->stream, there[i], halves, sizeof halves), 0);
        assert_int_equal(library ? device_gemm(s, &g) : s->k->gemm(s->stream, &g), 0);
        assert_int_equal(s->k->download(s->stream, out[library], there[2], sizeof out[library]), 0);
    }
    assert_memory_equal(out[1], out[0], sizeof out[0]);
    assert_int_equal(device_fallbacks(device).gemm, 1);
    g.m = 10;                           /* the first is kept */
    assert_int_equal(device_gemm(s, &g), 0);
    assert_non_null(strstr(device_product_refusal(device), "cuBLASLt does not start (status "));
    assert_non_null(strstr(device_product_refusal(device), "): 9 x 16 x 24, bf16 -> bf16, NT, batch 0, rows 24 24 16 apart"));
    blas_close(device->blas);
    device->blas = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_library_is_told_the_same_product),
        cmocka_unit_test(test_what_is_for_the_library),
        cmocka_unit_test(test_which_plans_are_the_same),
        cmocka_unit_test(test_strict_pins_by_weight),
        cmocka_unit_test(test_shapes_of_openvla_7b),
        cmocka_unit_test(test_the_library_beside_the_own_kernel),
        cmocka_unit_test(test_the_librarys_batches),
        cmocka_unit_test(test_a_refusal_names_the_product),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
