/* AdamW against independent double arithmetic (the rule as PyTorch's AdamW documents it), and the gradient norm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"
#include "nn/optim.h"

enum { N = 203 };

static void test_adamw_equals_double_arithmetic(void **state)
{
    static const struct adamw_range ranges[] = {{3, 50, 1.0, 0.01}, {64, 200, 0.1, 0.0}};
    struct philox random = philox_at(41, PHILOX_TEST, 0, 0, 0);
    float value[N], grad[N], start[N];
    double v_value[N], m[N] = {0}, v[N] = {0};
    const double scale = 0.5;
    struct adamw a;

    (void)state;
    assert_int_equal(adamw_init(&a, N), 0);
    a.lr = 3e-3;
    a.beta1 = 0.9;
    a.beta2 = 0.95;
    for (int i = 0; i < N; i++)
        v_value[i] = (double)(start[i] = value[i] = (float)philox_normal(&random));
    for (int step = 1; step <= 20; step++) {
        for (int i = 0; i < N; i++)
            grad[i] = (float)philox_normal(&random) * 0.1f;
        adamw_step(&a, value, grad, (float)scale, ranges, ARRAY_SIZE(ranges));
        for (size_t r = 0; r < ARRAY_SIZE(ranges); r++)
            for (int64_t i = ranges[r].begin; i < ranges[r].end; i++) {
                double g = scale * (double)grad[i], lr = a.lr * ranges[r].lr_scale;

                v_value[i] -= lr * ranges[r].weight_decay * v_value[i];
                m[i] = a.beta1 * m[i] + (1.0 - a.beta1) * g;
                v[i] = a.beta2 * v[i] + (1.0 - a.beta2) * g * g;
                v_value[i] -= lr * (m[i] / (1.0 - pow(a.beta1, step))) / (sqrt(v[i] / (1.0 - pow(a.beta2, step))) + a.eps);
            }
    }
    assert_int_equal(a.step, 20);
    for (int i = 0; i < N; i++) {
        bool active = (i >= 3 && i < 50) || (i >= 64 && i < 200);

        if (!active)
            assert_true(value[i] == start[i]);
        assert_true(fabs((double)value[i] - v_value[i]) < 4e-6);        /* 20 roundings of numbers up to 4 */
    }
    adamw_release(&a);
}

static void test_a_tiny_gradient_moves_by_the_rule(void **state)
{
    static const struct adamw_range all = {0, 1, 1.0, 0.0};
    float value = 1.0f, grad = 1e-9f;       /* eps is outside the root: the step is lr g / (|g| + eps) */
    struct adamw a;

    (void)state;
    assert_int_equal(adamw_init(&a, 1), 0);
    a.lr = 0.1;
    adamw_step(&a, &value, &grad, 1.0f, &all, 1);
    assert_true(fabs((double)value - (1.0 - 0.1 * 1e-9 / (1e-9 + 1e-8))) < 1e-6);
    adamw_release(&a);
}

static void test_gradient_norm(void **state)
{
    static const struct adamw_range ranges[] = {{0, 2, 1.0, 0.0}, {3, 4, 1.0, 0.0}};
    float grad[4] = {3.0f, 4.0f, 1000.0f, 12.0f};

    (void)state;
    assert_true(gradient_norm(grad, ranges, 2) == 13.0);
    grad[1] = NAN;
    assert_true(isnan(gradient_norm(grad, ranges, 2)));
    grad[1] = INFINITY;
    assert_true(isinf(gradient_norm(grad, ranges, 2)));
    grad[1] = 3e38f;                        /* squares do not overflow in double */
    assert_true(isfinite(gradient_norm(grad, ranges, 2)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw_equals_double_arithmetic),
        cmocka_unit_test(test_a_tiny_gradient_moves_by_the_rule),
        cmocka_unit_test(test_gradient_norm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
