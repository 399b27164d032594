/* The strict GEMM: every output equals a plain chain of fmaf over ascending k, on every instruction set, whatever else is
 * in the batch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/macro.h"
#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "tests/harness/numbers.h"

static const char *const isas[] = {"generic", "avx2", "avx512", "neon"};

struct shape { int64_t m, n, k; };

/* C = A B (+ bias) (+ C) with A as rows or transposed, against the triple loop. */
static void check(const struct cpu_kernels *cpu, struct shape s, bool a_transposed, bool b_transposed, bool with_bias, bool add)
{
    _cleanup_free_ float *a = numbers_normal(s.m * s.k, 1), *b = numbers_normal(s.k * s.n, 2), *bias = numbers_normal(s.n, 3),
    *c = numbers_normal(s.m * s.n, 4);
    _cleanup_free_ float *panels = calloc((size_t)(s.k * gemm_padded(s.n) + 16), sizeof(float));
    _cleanup_free_ float *scratch = calloc((size_t)(s.m * gemm_padded(s.n) + 16), sizeof(float));
    _cleanup_free_ float *before = numbers_normal(s.m * s.n, 4);

    cpu->gemm_pack(panels, b, b_transposed ? s.k : s.n, s.k, s.n, b_transposed);
    cpu->gemm(&(struct gemm) {
        .m = s.m, .n = s.n, .k = s.k, .a = a, .a_row = a_transposed ? 1 : s.k, .a_k = a_transposed ? s.m : 1, .panels = panels,
        .c = c, .c_row = s.n, .bias = with_bias ? bias : NULL, .add = add, .scratch = gemm_needs_scratch(s.k) ? scratch : NULL,
    });
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++) {
            float sum = 0.0f;

            for (int64_t k = 0; k < s.k; k++)
                sum = fmaf(a_transposed ? a[k * s.m + i] : a[i * s.k + k], b_transposed ? b[j * s.k + k] : b[k * s.n + j], sum);
            if (with_bias)
                sum += bias[j];
            if (add)
                sum = before[i * s.n + j] + sum;
            if (memcmp(&sum, &c[i * s.n + j], sizeof(sum)) != 0)
                fail_msg("%s m=%d n=%d k=%d: C[%d][%d] = %.9g, the chain gives %.9g", cpu->isa, (int)s.m, (int)s.n, (int)s.k,
                         (int)i, (int)j, (double)c[i * s.n + j], (double)sum);
        }
    for (int64_t i = s.m * s.n; i < s.m * s.n + 64; i++)
        assert_true(c[i] == 0.0f);      /* nothing past the end */
}

static void test_equals_the_plain_chain(void **state)
{
    static const int64_t ms[] = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 25, 121}, ns[] = {1, 15, 16, 17, 32, 33, 64, 79, 96, 130},
                         ks[] = {1, 3, 96, GEMM_K_BLOCK, GEMM_K_BLOCK + 1, 2 * GEMM_K_BLOCK + 5};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(isas); i++) {
        const struct cpu_kernels *cpu = cpu_kernels_named(isas[i]);

        if (!cpu) {
            print_message("%s: this CPU has it not\n", isas[i]);
            continue;
        }
        for (size_t m = 0; m < ARRAY_SIZE(ms); m++)
            for (size_t n = 0; n < ARRAY_SIZE(ns); n++)
                for (size_t k = 0; k < ARRAY_SIZE(ks); k++) {
                    unsigned variant = (unsigned)(m + 3 * n + 5 * k);

                    if (ms[m] * ns[n] * ks[k] > 2000000)
                        continue;
                    check(cpu, (struct shape) {ms[m], ns[n], ks[k]}, variant & 1, variant & 2, variant & 4, variant & 8);
                }
    }
}

static void test_row_does_not_depend_on_its_batch(void **state)
{
    enum { M = 67, N = 70, K = 150 };
    const struct cpu_kernels *cpu = cpu_kernels();
    _cleanup_free_ float *a = numbers_normal(M * K, 1), *b = numbers_normal(K * N, 2), *all = numbers_normal(M * N, 3),
        *alone = numbers_normal(N, 4);
    _cleanup_free_ float *panels = calloc(K * 96 + 16, sizeof(float));

    (void)state;
    cpu->gemm_pack(panels, b, N, K, N, false);
    cpu->gemm(&(struct gemm) {.m = M, .n = N, .k = K, .a = a, .a_row = K, .a_k = 1, .panels = panels, .c = all, .c_row = N});
    for (int i = 0; i < M; i++) {
        cpu->gemm(&(struct gemm) {.m = 1, .n = N, .k = K, .a = a + i * K, .a_row = K, .a_k = 1, .panels = panels, .c = alone,
                                  .c_row = N});
        assert_memory_equal(alone, all + i * N, N * sizeof(float));
    }
}

static void test_columns_and_depth_can_be_sliced(void **state)
{
    enum { M = 9, N = 128, K = 64, FROM = 20, COUNT = 30 };
    const struct cpu_kernels *cpu = cpu_kernels();
    _cleanup_free_ float *a = numbers_normal(M * K, 1), *b = numbers_normal(K * N, 2), *whole = numbers_normal(M * N, 3),
        *part = numbers_normal(M * N, 4);
    _cleanup_free_ float *panels = calloc(K * N + 16, sizeof(float)), *sliced = calloc(COUNT * N + 16, sizeof(float));

    (void)state;
    cpu->gemm_pack(panels, b, N, K, N, false);
    cpu->gemm(&(struct gemm) {.m = M, .n = N, .k = COUNT, .a = a, .a_row = K, .a_k = 1, .panels = panels + FROM * GEMM_PANEL,
                              .panel_stride = K * GEMM_PANEL, .c = part, .c_row = N});
    cpu->gemm_pack(sliced, b + FROM * N, N, COUNT, N, false);
    cpu->gemm(&(struct gemm) {.m = M, .n = N, .k = COUNT, .a = a, .a_row = K, .a_k = 1, .panels = sliced, .c = whole,
                              .c_row = N});
    assert_memory_equal(part, whole, M * N * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_the_plain_chain),
        cmocka_unit_test(test_row_does_not_depend_on_its_batch),
        cmocka_unit_test(test_columns_and_depth_can_be_sliced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
