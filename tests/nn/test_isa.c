/* Every kernel gives the same bits on every instruction set this CPU has, and the elementary functions are accurate. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/macro.h"
#include "base/philox.h"
#include "nn/cpu/kernels.h"

enum { ROWS = 29, COLS = 83, N = ROWS * COLS, OUTPUTS = 6, SIZE = 16384 };

/* Inputs a..f and outputs o[0..5], the same for every set; outputs start with equal noise so that += shows. */
struct field { float a[SIZE], b[SIZE], c[SIZE], d[SIZE], w[SIZE], o[OUTPUTS][SIZE], scratch[8 * SIZE]; };

static struct field *field_new(void)
{
    struct philox p = philox_at(51, PHILOX_TEST, 0, 0, 0);
    struct field *f = calloc(1, sizeof(*f));
    float *x = (float *)f;

    assert_non_null(f);
    for (size_t i = 0; i < offsetof(struct field, scratch) / sizeof(float); i++)
        x[i] = 2.0f * (float)philox_normal(&p);
    return f;
}

static void run_elementwise(const struct cpu_kernels *cpu, struct field *f)
{
    cpu->add(f->o[0], f->a, f->b, N);
    cpu->accumulate(f->o[1], f->a, N);
    cpu->accumulate_scaled(f->o[2], f->a, 0.3f, N);
    cpu->scale(f->o[3], 1.7f, N);
    cpu->residual(f->o[4], f->a, f->b, f->w, ROWS, COLS);
    cpu->residual_backward(f->o[5], f->o[5] + N, f->a, f->b, f->w, ROWS, COLS);
    cpu->column_sum(f->o[5] + N + COLS, f->a, ROWS, COLS);
}

static void run_activations(const struct cpu_kernels *cpu, struct field *f)
{
    cpu->gelu(f->o[0], f->a, N);
    cpu->gelu_backward(f->o[1], f->a, f->b, N);
    cpu->quick_gelu(f->o[2] + N, f->a, N);
    cpu->quick_gelu_backward(f->o[3] + N, f->a, f->b, N);
    cpu->relu(f->o[2], f->a, N);
    cpu->relu_backward(f->o[3], f->a, f->b, N);
    cpu->swiglu(f->o[4], f->a, f->b, N);
    cpu->swiglu_backward(f->o[5], f->o[5] + N, f->a, f->b, f->c, N);
}

static void run_norms(const struct cpu_kernels *cpu, struct field *f)
{
    cpu->layernorm(f->o[0], f->o[0] + N, f->o[0] + 2 * N, f->a, f->w, f->b, 1e-6f, ROWS, COLS);
    cpu->layernorm_backward(f->o[1], f->o[1] + N, f->o[1] + 2 * N, f->c, f->a, f->w, f->o[0] + N, f->o[0] + 2 * N, ROWS, COLS);
    cpu->rmsnorm(f->o[2], f->o[2] + N, f->a, f->w, 1e-6f, ROWS, COLS);
    cpu->rmsnorm_backward(f->o[3], f->o[3] + N, f->c, f->a, f->w, f->o[2] + N, ROWS, COLS);
    memcpy(f->o[4], f->d, sizeof(f->o[4]));
    for (int32_t i = 0; i < ROWS; i++) {
        int32_t position = i;
        cpu->rope(f->o[4] + i * 66, &position, f->w, 1, 3, 22, i % 2 ? 1.0f : -1.0f);
    }
}

static void run_attention(const struct cpu_kernels *cpu, struct field *f)
{
    enum { R = 37, DIM = 24, STRIDE = 80, P = 64 };

    for (int causal = 0; causal < 2; causal++) {
        struct attention a = {
            .rows = R, .first = 5 * causal, .dim = DIM, .q_stride = STRIDE, .stride = STRIDE,
            .out_stride = 30, .causal = causal, .scale = 0.2f, .q = f->a, .k = f->b, .v = f->c,
            .out = f->o[0] + causal * 4096, .p = f->o[1] + causal * 4096, .inverse = f->o[2] + causal * 4096,
            .scratch = f->scratch,
            .dout = f->d, .dq = f->o[3] + causal * 4096, .dk = f->o[4] + causal * 4096, .dv = f->o[5] + causal * 4096,
        };
        assert_true(attention_scratch(R, DIM, true) <= 8 * SIZE);
        assert_int_equal(gemm_padded(R), P);
        for (int64_t i = 0; i < R * P; i++)
            a.p[i] = 0.0f;          /* what lies beyond a causal strip is nobody's */
        cpu->attention(&a);
        cpu->attention_backward(&a);
    }
    cpu->attention_decode(&(struct attention_decode) {
        .n = 53, .dim = DIM, .heads = 1, .scale = 0.2f, .q = f->a, .k = f->b, .k_stride = 60, .v = f->c, .v_stride = STRIDE,
        .out = f->o[0] + 8192, .scratch = f->scratch,
    });
    for (int64_t n = 1, at = 9000; n <= 112; n += 37, at += 300)
        cpu->attention_decode(&(struct attention_decode) {
            .n = n, .dim = 48, .heads = 3, .scale = 0.2f, .q = f->a, .k = f->b, .k_stride = 112, .v = f->c, .v_stride = 145,
            .out = f->o[0] + at, .scratch = f->scratch,
        });
    cpu->transpose(f->o[0] + 11000, 45, f->a, 61, 37, 50);
}

static void run_softmax(const struct cpu_kernels *cpu, struct field *f)
{
    static const float gradients[3] = {0.3f, -0.2f, 0.7f};

    for (int r = 0; r < ROWS; r++) {
        float *stats = f->o[1] + 2 * r;

        cpu->log_softmax(f->o[0] + r * COLS, f->a + r * COLS, 0.7f, COLS);
        cpu->token_stats(f->o[0] + r * COLS, f->b + r * COLS, COLS, &stats[0], &stats[1]);
        cpu->token_stats_backward(f->o[2] + r * COLS, f->o[0] + r * COLS, f->b + r * COLS, COLS, r, stats, gradients, 0.7f);
    }
    for (int i = 0; i < N; i++)
        f->o[4][i] = fabsf(f->o[4][i]);
    cpu->adamw(f->o[3], f->o[5], f->o[4], f->a, N, (float[]) {0.9f, 0.1f, 0.99f, 0.01f, 0.02f, 1.5f, 1e-8f, 0.001f, 0.5f});
}

static void run_functions(const struct cpu_kernels *cpu, struct field *f)
{
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 88.5f, -88.5f, 1e-40f, -1e-40f, 3e38f, 0.9f, -4.0f};

    memcpy(f->a, special, sizeof(special));
    cpu->exp(f->o[0], f->a, N);
    cpu->sigmoid(f->o[1], f->a, N);
    cpu->erf(f->o[2], f->a, N);
    for (int i = 0; i < N; i++)
        f->b[i] = fabsf(f->b[i]) + 1e-30f;
    cpu->log(f->o[3], f->b, N);
}

/* Panels of bf16 are the panels of the same numbers in fp32, both ways round, whatever the edges. */
static void run_bf16(const struct cpu_kernels *cpu, struct field *f)
{
    static const int64_t shapes[][2] = {{37, 45}, {16, 32}, {33, 16}, {5, 3}, {48, 80}};
    uint16_t *half = (uint16_t *)f->b;
    int64_t at = 0;

    for (int i = 0; i < 4096; i++) {
        uint32_t bits;
        memcpy(&bits, &f->a[i], sizeof(bits));
        half[i] = (uint16_t)(bits >> 16);
    }
    cpu->widen(f->c, half, 4096 - 5);
    memcpy(f->o[0], f->c, sizeof(f->o[0]));
    for (size_t s = 0; s < ARRAY_SIZE(shapes); s++)
        for (int transposed = 0; transposed < 2; transposed++) {
            int64_t k = shapes[s][0], n = shapes[s][1], row = transposed ? k + 2 : n + 1, size = k * gemm_padded(n);

            memset(f->scratch, 0x55, (size_t)(2 * size) * sizeof(float));
            cpu->gemm_pack_bf16(f->scratch, half, row, k, n, transposed);
            cpu->gemm_pack(f->scratch + size, f->c, row, k, n, transposed);
            assert_memory_equal(f->scratch, f->scratch + size, (size_t)size * sizeof(float));
            memcpy(f->o[1] + at % 8192, f->scratch, (size_t)MIN(size, 4096) * sizeof(float));
            at += 911;
        }
}

static void same_on_all(void (*run)(const struct cpu_kernels *, struct field *))
{
    static const char *const isas[] = {"avx2", "avx512", "neon"};
    _cleanup_free_ struct field *want = field_new();

    run(cpu_kernels_named("generic"), want);
    for (size_t i = 0; i < ARRAY_SIZE(isas); i++) {
        const struct cpu_kernels *cpu = cpu_kernels_named(isas[i]);
        _cleanup_free_ struct field *got = field_new();

        if (!cpu) {
            print_message("%s: this CPU has it not\n", isas[i]);
            continue;
        }
        run(cpu, got);
        for (int o = 0; o < OUTPUTS; o++)
            for (int64_t j = 0; j < SIZE; j++)
                if (memcmp(&got->o[o][j], &want->o[o][j], sizeof(float)) != 0 && !(isnan(got->o[o][j]) && isnan(want->o[o][j])))
                    fail_msg("%s: output %d, element %d: %.9g, generic has %.9g", isas[i], o, (int)j, (double)got->o[o][j],
                             (double)want->o[o][j]);
    }
}

static void test_elementwise(void **state) { (void)state; same_on_all(run_elementwise); }
static void test_activations(void **state) { (void)state; same_on_all(run_activations); }
static void test_norms(void **state) { (void)state; same_on_all(run_norms); }
static void test_attention(void **state) { (void)state; same_on_all(run_attention); }
static void test_softmax_and_adamw(void **state) { (void)state; same_on_all(run_softmax); }
static void test_bf16(void **state) { (void)state; same_on_all(run_bf16); }
static void test_functions(void **state) { (void)state; same_on_all(run_functions); }

/* Largest error in units of the last place of the exact value, over a fine sweep. */
static double worst_ulp(void (*f)(float *, const float *, int64_t), double (*exact)(double), double from, double to)
{
    double worst = 0.0;

    for (int64_t i = 0; i < 400000; i++) {
        float x = (float)(from + (to - from) * (double)i / 400000.0), y;
        double want = exact((double)x);

        f(&y, &x, 1);
        worst = MAX(worst, fabs((double)y - want) / (fabs((double)(nextafterf((float)want, INFINITY) - (float)want)) + 1e-300));
    }
    return worst;
}

static double logistic(double x) { return 1.0 / (1.0 + exp(-x)); }

static void test_accuracy(void **state)
{
    const struct cpu_kernels *cpu = cpu_kernels();
    double e = worst_ulp(cpu->exp, exp, -87.3, 88.3), s = worst_ulp(cpu->sigmoid, logistic, -80.0, 30.0),
        l = worst_ulp(cpu->log, log, 1.0, 2000.0),
           r = worst_ulp(cpu->erf, erf, -5.0, 5.0);

    (void)state;
    print_message("ulp: exp %.2f, logistic %.2f, log %.2f, erf %.2f\n", e, s, l, r);
    assert_true(e < 2.0);
    assert_true(s < 4.0);
    assert_true(l < 2.0);
    assert_true(r < 2.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elementwise), cmocka_unit_test(test_activations), cmocka_unit_test(test_norms),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_softmax_and_adamw), cmocka_unit_test(test_functions),
        cmocka_unit_test(test_bf16), cmocka_unit_test(test_accuracy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
