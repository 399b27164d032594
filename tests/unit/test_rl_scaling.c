/* test_rl_scaling: the laws of test-time compute are found again where they were put, with intervals that hold the truth. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/philox.h"
#include "rl/scaling.h"

enum { POINTS = 6, STATES = 2000, RESAMPLES = 300 };
static const int widths[POINTS] = {1, 2, 4, 8, 16, 32};

/* Outcomes of `p(n)`, each state as hard for all widths. */
static void play(double (*p)(int n), double *ret)
{
    for (int s = 0; s < STATES; s++) {
        struct philox draws = philox_at(3, PHILOX_TEST, (uint64_t)s, 0, 0);
        double hard = philox_uniform53(&draws);

        for (int i = 0; i < POINTS; i++)
            ret[i * STATES + s] = hard < p(widths[i]);
    }
}

static double straight(int n) { return .5 + .06 * log2(n); }
static double falling(int n) { return 1 - .6 * pow(n, -.5); }
static double falling_off(int n) { return n < 4 ? .4 : n < 32 ? .7 : .5; }
static double flat_from_four(int n) { return n < 4 ? .4 : .7; }

static void test_laws(void **state _unused_)
{
    static double outcomes[POINTS * STATES];
    struct scaling_fit line, power;

    play(straight, outcomes);
    assert_int_equal(scaling_fit(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &line, &power), 0);
    assert_true(fabs(line.a - .5) < .03 && fabs(line.b - .06) < .005);
    assert_true(line.a_interval.low < .5 && line.a_interval.high > .5 && line.b_interval.low < .06 && line.b_interval.high > .06);
    assert_true(line.aic < power.aic);
    play(falling, outcomes);
    assert_int_equal(scaling_fit(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &line, &power), 0);
    assert_true(fabs(power.a - .6) < .03 && fabs(power.b - .5) < .03);
    assert_true(power.b_interval.low < .5 && power.b_interval.high > .5 && power.b_interval.high - power.b_interval.low < .1);
    assert_true(power.aic < line.aic);
    assert_int_equal(scaling_fit(widths, 1, outcomes, STATES, RESAMPLES, 1, &line, &power), -EINVAL);
}

static void test_saturation(void **state _unused_)
{
    static double outcomes[POINTS * STATES];
    int n = -1;

    play(flat_from_four, outcomes);
    assert_int_equal(scaling_saturated(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &n), 0);
    assert_int_equal(n, 4);
    play(falling_off, outcomes);            /* worse is not better */
    assert_int_equal(scaling_saturated(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &n), 0);
    assert_int_equal(n, 4);
    play(straight, outcomes);
    assert_int_equal(scaling_saturated(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &n), 0);
    assert_int_equal(n, 0);
}

static void test_least_of(void **state _unused_)
{
    static const double sorted[4] = {1, 2, 3, 4};

    assert_true(fabs(least_of(sorted, 4, 1) - 2.5) < 1e-12);
    assert_true(fabs(least_of(sorted, 4, 2) - (3 * 1 + 2 * 2 + 1 * 3) / 6.0) < 1e-12);      /* of the six pairs */
    assert_true(fabs(least_of(sorted, 4, 4) - 1) < 1e-12);
}

static void test_error_law(void **state _unused_)
{
    static double errors[POINTS * STATES];
    struct error_law law;

    for (int s = 0; s < STATES; s++) {
        struct philox draws = philox_at(4, PHILOX_TEST, (uint64_t)s, 0, 0);
        double scale = .5 + philox_uniform53(&draws);           /* mean 1 */

        for (int i = 0; i < POINTS; i++)
            errors[i * STATES + s] = scale * .3 * pow(widths[i], -.25);
    }
    assert_int_equal(scaling_error_law(widths, POINTS, errors, STATES, RESAMPLES, 1, &law), 0);
    assert_true(fabs(law.b + .25) < 1e-9 && fabs(law.a - .3) < .01 && law.r2 > .999);
    assert_true(law.a_interval.low < .3 && law.a_interval.high > .3);
}

/* As wide as 95 % are: the exponent of two points, of which one is sure and the other the mean of n halves and one-and-a-halves. And a
 * law through points that it does not fit says so. */
static void test_error_law_is_honest(void **state _unused_)
{
    static const int two[] = {1, 2}, three[] = {1, 2, 4};
    static double errors[3 * STATES];
    double width = 2 * 1.96 * .5 / sqrt(STATES) / log(2);
    struct error_law law;

    for (int s = 0; s < STATES; s++) {
        errors[s] = 1;
        errors[STATES + s] = s % 2 ? .5 : 1.5;
    }
    assert_int_equal(scaling_error_law(two, 2, errors, STATES, 4000, 1, &law), 0);
    assert_true(fabs(law.a - 1) < 1e-12 && fabs(law.b) < 1e-12);
    assert_true(law.a_interval.low == law.a_interval.high);
    assert_true(law.b_interval.low < 0 && law.b_interval.high > 0);
    assert_true(fabs((law.b_interval.high - law.b_interval.low) / width - 1) < .06);
    for (int s = 0; s < STATES; s++) {      /* up and down again: no line says anything of it */
        errors[STATES + s] = 2;
        errors[2 * STATES + s] = 1;
    }
    assert_int_equal(scaling_error_law(three, 3, errors, STATES, 10, 1, &law), 0);
    assert_true(fabs(law.r2) < 1e-9 && fabs(law.b) < 1e-9);
}

/* All draws alike (temperature 0), or all of them the demonstrator's own: a flat line goes through all of it. */
static void test_flat(void **state _unused_)
{
    enum { FEW = 2 };
    double errors[POINTS * FEW];
    struct error_law law;

    for (int e = 0; e < 1000; e++) {
        for (int i = 0; i < POINTS * FEW; i++)
            errors[i] = e / 1000.0;
        assert_int_equal(scaling_error_law(widths, POINTS, errors, FEW, RESAMPLES, 1, &law), 0);
        assert_true(fabs(law.a - e / 1000.0) < 1e-9 && fabs(law.b) < 1e-9);
        if (law.r2 != 1)
            fail_msg("an error of %g: r2 %g", e / 1000.0, law.r2);
        assert_true(isfinite(law.a_interval.low) && isfinite(law.a_interval.high));
        assert_true(isfinite(law.b_interval.low) && isfinite(law.b_interval.high));
    }
}

static double always(int n _unused_) { return 1; }
static double never(int n _unused_) { return 0; }

/* All succeed, or none does: nothing of it is infinite or no number, and success is 1 or 0 for every n. */
static void test_all_or_none(void **state _unused_)
{
    static double outcomes[POINTS * STATES];

    for (int one = 0; one < 2; one++) {
        struct scaling_fit line, power;
        int n;

        play(one ? always : never, outcomes);
        assert_int_equal(scaling_fit(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &line, &power), 0);
        for (int i = 0; i < POINTS; i++) {
            assert_true(fabs(CLAMP(line.a + line.b * log2(widths[i]), 0, 1) - one) < .002);
            assert_true(fabs(CLAMP(1 - power.a * pow(widths[i], -power.b), 0, 1) - one) < .002);
        }
        assert_true(isfinite(line.aic) && isfinite(line.a_interval.low) && isfinite(power.aic) && isfinite(power.b_interval.high));
        assert_int_equal(scaling_saturated(widths, POINTS, outcomes, STATES, RESAMPLES, 1, &n), 0);
        assert_int_equal(n, 1);
    }
}

/* Seeds that differ make the interval wider than the states alone would. */
static void test_hierarchical(void **state _unused_)
{
    enum { SEEDS = 3, N = 500 };
    static double a[SEEDS * N], b[SEEDS * N];
    static const double gain[SEEDS] = {.1, .3, .5};
    struct interval both, states;

    for (int s = 0; s < SEEDS; s++)
        for (int i = 0; i < N; i++)
            a[s * N + i] = i < gain[s] * N;
    assert_int_equal(hierarchical_bootstrap(a, b, SEEDS, N, 2000, .95, 1, &both), 0);
    assert_int_equal(paired_bootstrap(a, b, SEEDS * N, 2000, .95, 1, &states), 0);
    assert_true(both.low < .3 && both.high > .3);
    assert_true(both.high - both.low > 2 * (states.high - states.low));
    assert_int_equal(hierarchical_bootstrap(a, b, 1, N, 2000, .95, 1, &both), -EINVAL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_laws), cmocka_unit_test(test_saturation), cmocka_unit_test(test_least_of),
        cmocka_unit_test(test_error_law), cmocka_unit_test(test_error_law_is_honest),
        cmocka_unit_test(test_flat), cmocka_unit_test(test_all_or_none),
        cmocka_unit_test(test_hierarchical),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
