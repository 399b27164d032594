/* Sizes beyond 2^31: what 7B parameters, long caches and large batches make of index arithmetic in the kernels and of their
 * grids. On the emulated device memory is address space and only the corner blocks of a launch run (emulate_sparsely): the first
 * and the last number are looked at, and nothing before or behind an array may be touched. On a real one (GANTRY_TEST_DEVICE) all
 * of them run, where 60 GB are free. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/safetensors.h"
#include "tests/emulate/test_device.h"

/* Rows of 4096 of which there are more than 2^31 numbers, and a multiple of what grids of rows have; GRID: threads of a full grid
 * of threads (simt.h's GRID_MOST blocks of 256). So the last number is the last block's. */
#define ROWS INT64_C(589824)
#define GRID (INT64_C(132) * 16 * 256)
enum { COLS = 4096, ARRAYS = 12 };

static struct device_stream *s;
static void *array[ARRAYS];
static int arrays;

static int setup(void **state)
{
    struct device_facts facts;

    (void)test_device_setup(state);
    assert_int_equal(device->k->use(device->ordinal, &facts, (char[200]) {0}, 200), 0);
    if (getenv("GANTRY_TEST_DEVICE") && facts.memory_free < (size_t)60 << 30) {
        printf("skipped: 60 GiB of the device are not free\n");
        exit(77);
    }
    emulate_sparsely(true);
    return device_stream_new(device, &s);
}

static int teardown(void **state)
{
    s = device_stream_free(s);
    emulate_sparsely(false);
    return test_device_teardown(state);
}

static int drop(void **state)
{
    (void)state;
    while (arrays > 0)
        s->k->release(array[--arrays]);
    return 0;
}

/* n zeros, until drop. */
static void *zeros(int64_t n, size_t element)
{
    void **at = &array[arrays];

    assert_true(arrays < ARRAYS);
    assert_int_equal(s->k->alloc((size_t)n * element, at), 0);
    arrays++;
    assert_int_equal(s->k->zero(s->stream, *at, (size_t)n * element), 0);
    return *at;
}

static void poke(void *to, int64_t i, float x)
{
    assert_int_equal(s->k->upload(s->stream, (float *)to + i, &x, sizeof x), 0);
    assert_int_equal(s->k->wait(s->stream), 0);
}

static void poke_half(void *to, int64_t i, float x)
{
    uint16_t half = float_to_bf16(x);

    assert_int_equal(s->k->upload(s->stream, (uint16_t *)to + i, &half, sizeof half), 0);
    assert_int_equal(s->k->wait(s->stream), 0);
}

static float peek(const void *from, int64_t i)
{
    float x;

    assert_int_equal(s->k->download(s->stream, &x, (const float *)from + i, sizeof x), 0);
    return x;
}

static float peek_half(const void *from, int64_t i)
{
    union { uint32_t bits; float x; } value = {0};
    uint16_t half;

    assert_int_equal(s->k->download(s->stream, &half, (const uint16_t *)from + i, sizeof half), 0);
    value.bits = (uint32_t)half << 16;
    return value.x;
}

static const int32_t *integers(int64_t n, int32_t last)
{
    int32_t *to = zeros(n, sizeof *to);

    assert_int_equal(s->k->upload(s->stream, to + n - 1, &last, sizeof last), 0);
    assert_int_equal(s->k->wait(s->stream), 0);
    return to;
}

/* ---- one number at a time ------------------------------------------------------------------------------------------ */

static void test_elementwise(void **state)
{
    const int64_t n = GRID * 8 * 560;                   /* 2.4e9, in packs of eight too */
    void *x = zeros(n, 2), *y = zeros(n, 2), *z = zeros(n, 2);

    (void)state;
    poke_half(x, 0, 2), poke_half(x, n - 1, 3);
    poke_half(y, 0, 5), poke_half(y, n - 1, 7);
    assert_int_equal(s->k->add(s->stream, DEVICE_BF16, z, x, y, n), 0);
    assert_true(peek_half(z, 0) == 7 && peek_half(z, n - 1) == 10);
    assert_int_equal(s->k->activation(s->stream, DEVICE_BF16, DEVICE_RELU, y, x, n, 0, 0), 0);
    assert_true(peek_half(y, 0) == 2 && peek_half(y, n - 1) == 3);
    assert_int_equal(s->k->swiglu(s->stream, DEVICE_BF16, z, x, y, n), 0);
    assert_true(fabsf(peek_half(z, n - 1) - 8.57f) < .05f);
    assert_int_equal(s->k->accumulate(s->stream, DEVICE_BF16, z, x, n), 0);
    assert_true(fabsf(peek_half(z, n - 1) - 11.57f) < .05f);
}

static void test_the_parameters_of_7b(void **state)
{
    const struct device_adamw c = {.beta1 = 0, .rest1 = 1, .beta2 = 0, .rest2 = 1, .rate = .5f, .root2 = 1, .grad_scale = 1};
    const int64_t n = GRID * 4160, all = INT64_C(1) << 32; /* 2.2e9; more than all of 7B's in four such arrays would be 120 GB */
    float *value = zeros(n, 4), *m = zeros(n, 4), *v = zeros(n, 4), *grad = zeros(n, 4);
    double *sum, got;

    (void)state;
    poke(value, 0, 1), poke(grad, 0, 4);
    poke(value, n - 1, 2), poke(grad, n - 1, -4);
    assert_int_equal(s->k->adamw(s->stream, value, m, v, grad, n, &c), 0);
    assert_true(peek(value, 0) == .5f && peek(value, n - 1) == 2.5f && peek(v, n - 1) == 16);
    assert_int_equal(s->k->convert(s->stream, DEVICE_BF16, m, DEVICE_F32, value, n), 0);
    assert_true(peek_half(m, 0) == .5f && peek_half(m, n - 1) == 2.5f);
    (void)drop(NULL);

    grad = zeros(all, 4);                               /* a multiple of 1024 blocks of 256 */
    sum = zeros(1 + DEVICE_NORM_PARTS, sizeof *sum);
    poke(grad, 0, 3), poke(grad, all - 1, 4);
    assert_int_equal(s->k->sum_squares(s->stream, sum, sum + 1, grad, all), 0);
    assert_int_equal(s->k->download(s->stream, &got, sum, sizeof got), 0);
    assert_true(got == 25);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------- */

static void test_norms(void **state)
{
    const int64_t n = ROWS * COLS;
    void *x = zeros(n, 2), *y = zeros(n, 2), *z = zeros(n, 2);
    float *weight = zeros(COLS, 4), *rstd = zeros(ROWS, 4), *mean = zeros(ROWS, 4);

    (void)state;
    poke(weight, COLS - 1, 2);
    poke_half(x, n - 1, 64);                            /* the only number of its row: 64 times itself, beside zeros */
    assert_int_equal(s->k->rmsnorm(s->stream, DEVICE_BF16, y, rstd, x, weight, 0.0625f, ROWS, COLS), 0);
    assert_true(fabsf(peek_half(y, n - 1) - 2 * 64 / sqrtf(1.0625f)) < 1);
    assert_int_equal(s->k->residual_rmsnorm(s->stream, DEVICE_BF16, y, z, rstd, x, x, weight, 0.0625f, ROWS, COLS), 0);
    assert_true(peek_half(z, n - 1) == 128);
    assert_int_equal(s->k->layernorm(s->stream, DEVICE_BF16, y, mean, rstd, x, weight, weight, 1e-6f, ROWS, COLS), 0);
    assert_true(fabsf(peek(mean, ROWS - 1) - 64.0f / COLS) < 1e-6f && peek_half(y, n - 1) > 100);
    /* a gradient of 1 where the row has next to nothing: times the weight, added to the 128 */
    poke_half(x, n - 1, 0), poke_half(x, n - 2, 64), poke_half(y, n - 1, 1);
    assert_int_equal(s->k->layernorm_backward(s->stream, DEVICE_BF16, z, NULL, NULL, y, x, weight, mean, rstd, ROWS, COLS), 0);
    assert_true(peek_half(z, n - 1) == 130);
    assert_int_equal(s->k->rmsnorm_backward(s->stream, DEVICE_BF16, z, NULL, y, x, weight, rstd, ROWS, COLS), 0);
    assert_true(peek_half(z, n - 1) == 132);
}

static void test_rows(void **state)
{
    const int64_t n = ROWS * COLS;
    void *x = zeros(n, 2), *y = zeros(n, 2);
    const int32_t *last = integers(ROWS, (int32_t)ROWS - 1);
    float *scale = zeros(COLS, 4);

    (void)state;
    poke(scale, COLS - 1, 2);
    poke_half(x, n - 1, 3);
    assert_int_equal(s->k->copy_rows(s->stream, DEVICE_BF16, y, COLS, x, COLS, ROWS, COLS, true), 0);
    assert_true(peek_half(y, n - 1) == 3);
    assert_int_equal(s->k->residual(s->stream, DEVICE_BF16, y, x, x, scale, ROWS, COLS), 0);
    assert_true(peek_half(y, n - 1) == 9);
    assert_int_equal(s->k->splice(s->stream, DEVICE_BF16, y, x, x, last, ROWS, COLS), 0);
    assert_true(peek_half(y, n - 1) == 3);
    poke_half(y, n - 1, 0);
    assert_int_equal(s->k->embedding(s->stream, DEVICE_BF16, y, DEVICE_BF16, x, last, ROWS, COLS), 0);
    assert_true(peek_half(y, n - 1) == 3);
    assert_int_equal(s->k->broadcast(s->stream, DEVICE_BF16, y, COLS, scale, ROWS, COLS), 0);
    assert_true(peek_half(y, n - 1) == 2);
    assert_int_equal(s->k->add_cycle(s->stream, DEVICE_BF16, y, x, scale, COLS, n), 0);
    assert_true(peek_half(y, n - 1) == 5);
    assert_int_equal(s->k->column_sum(s->stream, DEVICE_BF16, scale, x, COLS, ROWS, COLS), 0);
    assert_true(peek(scale, COLS - 1) == 5);
    assert_int_equal(s->k->rope(s->stream, DEVICE_BF16, y, COLS, NULL, zeros(ROWS * 128, 4), ROWS, COLS / 128, 128, 1), 0);
    assert_true(peek_half(y, n - 1) == 0);              /* turned by a table of zeros */
}

static void test_scatter(void **state)
{
    const int64_t n = ROWS * COLS;
    void *x = zeros(n, 2), *y = zeros(n, 2);
    const int32_t *rows = integers(1, (int32_t)ROWS - 1), *begin = integers(2, 1), *from = integers(1, (int32_t)ROWS - 1);

    (void)state;
    poke_half(x, n - 1, 3), poke_half(y, n - 1, 4);
    assert_int_equal(s->k->scatter(s->stream, DEVICE_BF16, y, DEVICE_BF16, x, rows, begin, from, 1, COLS), 0);
    assert_true(peek_half(y, n - 1) == 7);
}

/* ---- products, attention, heads -------------------------------------------------------------------------------------------- */

static void test_product(void **state)
{
    struct device_gemm g = {.m = 70000, .n = 32064, .k = 16, .a_row = 40000, .b_row = 16, .c_row = 32064, .a_type = DEVICE_BF16,
                            .b_type = DEVICE_BF16, .c_type = DEVICE_BF16, .b_transposed = true, .alpha = 1};
    void *a = zeros(g.m * g.a_row, 2), *b = zeros(g.n * g.b_row, 2), *c = zeros(g.m * g.n, 2);

    (void)state;
    g.a = a, g.b = b, g.c = c;
    poke_half(a, (g.m - 1) * g.a_row + g.k - 1, 3), poke_half(b, g.n * g.k - 1, 5);
    assert_int_equal(s->k->gemm(s->stream, &g), 0);
    assert_true(peek_half(c, g.m * g.n - 1) == 15);
}

/* 600 sequences of 600 rows, 64 heads of 128: more than 2^31 numbers in each of q, k, v. */
static void test_attention(void **state)
{
    enum { N = 600, LENGTH = 600, HEADS = 64, DIM = 128 };
    const int64_t rows = (int64_t)N * LENGTH, width = HEADS * DIM, last = rows * width - 1;
    struct device_attention a = {.n = N, .heads = HEADS, .group = 1, .dim = DIM, .causal = true, .scale = .1f, .longest = LENGTH,
                                 .longest_asking = LENGTH, .q_rows = rows, .q_stride = width, .kv_stride = width,
                                 .out_stride = width};
    int32_t start[N + 1], *there = zeros(N + 1, sizeof *there);
    void *q = zeros(rows * width, 2), *v = zeros(rows * width, 2), *out = zeros(rows * width, 2), *dq = zeros(rows * width, 2),
         *dv = zeros(rows * width, 2);

    (void)state;
    for (int i = 0; i <= N; i++)
        start[i] = i * LENGTH;
    assert_int_equal(s->k->upload(s->stream, there, start, sizeof start), 0);
    a.start = a.asking = there;
    a.q = a.k = q, a.v = v, a.out = out;
    a.lse = zeros(rows * HEADS, 4), a.delta = zeros(rows * HEADS, 4);
    poke_half(v, last, LENGTH);                         /* the last query sees it as one of LENGTH equals */
    assert_int_equal(s->k->attention(s->stream, DEVICE_BF16, &a), 0);
    assert_true(fabsf(peek_half(out, last) - 1) < .01f && peek_half(out, last - width) == 0);
    assert_true(fabsf(peek(a.lse, rows * HEADS - 1) - logf(LENGTH)) < 1e-4f);
    a.dout = v, a.dq = dq, a.dk = dq, a.dv = dv;        /* zeros but for one number: dv is its weight times that */
    assert_int_equal(s->k->attention_backward(s->stream, DEVICE_BF16, &a), 0);
    assert_true(fabsf(peek_half(dv, last) - 1) < .01f);
}

static void test_the_cache(void **state)
{
    enum { SLOTS = 2000, CAPACITY = 304 };
    const int64_t width = COLS, last = (int64_t)SLOTS * CAPACITY * width - 1;
    void *k = zeros(last + 1, 2), *v = zeros(last + 1, 2), *row = zeros(width, 2), *out = zeros(width, 2);
    struct device_decode d = {.rows = 1, .dim = 128, .capacity = CAPACITY, .width = width, .heads = COLS / 128, .group = 1,
                              .scale = .1f, .slot = integers(1, SLOTS - 1), .position = integers(1, CAPACITY - 1), .q = row,
                              .k = k, .v = v, .out = out};

    (void)state;
    poke_half(row, width - 1, CAPACITY);
    assert_int_equal(s->k->kv_append(s->stream, DEVICE_BF16, k, v, out, row, d.slot, d.position, 1, width, CAPACITY), 0);
    assert_true(peek_half(v, last) == CAPACITY);
    assert_int_equal(s->k->attention_decode(s->stream, DEVICE_BF16, &d), 0);
    assert_true(fabsf(peek_half(out, width - 1) - 1) < .01f);
}

static void test_heads(void **state)
{
    const int64_t rows = 70000, cols = 32064;
    void *logits = zeros(rows * cols, 2);
    float *log_probs = zeros(rows * cols, 4), *logp = zeros(rows, 4), *entropy = zeros(rows, 4), *kl = zeros(rows, 4),
          *zero = zeros(3 * rows, 4);
    const int32_t *target = integers(rows, (int32_t)cols - 1);
    int32_t *column = zeros(rows, 4), got;

    (void)state;
    poke_half(logits, rows * cols - 1, 20);
    assert_int_equal(s->k->token_stats(s->stream, DEVICE_BF16, log_probs, logp, entropy, kl, logits, target, NULL, 1, rows, cols),
                     0);
    assert_true(fabsf(peek(logp, rows - 1)) < 1e-3f && fabsf(peek(logp, 0) + logf((float)cols)) < 1e-3f);
    /* T = 0: the largest */
    assert_int_equal(s->k->sample(s->stream, DEVICE_BF16, log_probs, column, logp, entropy, logits, zero, zero, rows, cols), 0);
    assert_int_equal(s->k->download(s->stream, &got, column + rows - 1, sizeof got), 0);
    assert_int_equal(got, cols - 1);
    poke(zero, rows - 1, 1), poke(log_probs, rows * cols - 1, logf(.25f));      /* a gradient of its log-probability, of 1/4 */
    assert_int_equal(
        s->k->token_stats_backward(s->stream, DEVICE_BF16, logits, log_probs, NULL, target, zero, entropy, kl, 1, rows, cols), 0);
    assert_true(peek_half(logits, rows * cols - 1) == 20.75f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_elementwise, drop),
        cmocka_unit_test_teardown(test_the_parameters_of_7b, drop),
        cmocka_unit_test_teardown(test_norms, drop),
        cmocka_unit_test_teardown(test_rows, drop),
        cmocka_unit_test_teardown(test_scatter, drop),
        cmocka_unit_test_teardown(test_product, drop),
        cmocka_unit_test_teardown(test_attention, drop),
        cmocka_unit_test_teardown(test_the_cache, drop),
        cmocka_unit_test_teardown(test_heads, drop),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
