/* Statistics and reward-model labels, against tests/ref/rl_reference.py. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rl/labels.h"
#include "rl/stats.h"

static void near(double x, double expected, double tolerance)
{
    if (!(fabs(x - expected) <= tolerance))
        fail_msg("%.15g, expected %.15g", x, expected);
}

static void wilson_interval(void **state)
{
    struct interval i = wilson(31, 50, 1.959964);

    (void)state;
    near(i.low, 0.4815044682285895, 1e-9);
    near(i.high, 0.741372107728543, 1e-9);
    i = wilson(0, 20, 1.959964);
    assert_true(i.low == 0 && i.high > .1 && i.high < .2);
    i = wilson(0, 0, 1.959964);
    assert_true(i.low == 0 && i.high == 1);
}

static void mcnemar(void **state)
{
    (void)state;
    near(mcnemar_exact(3, 11), 0.057373046875, 1e-12);
    near(mcnemar_exact(11, 3), 0.057373046875, 1e-12);
    near(mcnemar_exact(0, 0), 1, 0);
    near(mcnemar_exact(5, 5), 1, 0);
}

static void ranks_and_auc(void **state)
{
    double x[] = {1, 2, 2, 4, 5, 9}, y[] = {2, 1, 3, 3, 8, 7}, flat[] = {1, 1, 1, 1, 1, 1}, r;
    double score[] = {.9, .1, .4, .6, .6, .3, .6, .45, .2};
    bool positive[] = {1, 0, 1, 0, 1, 0, 1, 0, 0};

    (void)state;
    assert_int_equal(rank_correlation(x, y, 6, &r), 0);
    near(r, 0.8088235294117647, 1e-12);
    assert_int_equal(rank_correlation(x, flat, 6, &r), 0);
    near(r, 0, 0);
    assert_int_equal(auc(score, positive, 9, &r), 0);
    near(r, .85, 1e-12);
    assert_int_equal(auc(score, (bool[9]) {0}, 9, &r), 0);
    assert_true(isnan(r));
    score[3] = y[5] = NAN;
    assert_int_equal(auc(score, positive, 9, &r), -EDOM);
    assert_int_equal(rank_correlation(x, y, 6, &r), -EDOM);
}

static void bootstrap_of_pairs(void **state)
{
    double a[100], b[100];
    struct interval i, again;

    (void)state;
    for (int k = 0; k < 100; k++) {
        a[k] = k % 10 < 6;
        b[k] = k % 10 < 3;
    }
    assert_int_equal(paired_bootstrap(a, b, 100, 4000, .95, 7, &i), 0);
    /* the mean of 100 differences of variance .21: 0.3 +- 1.96 * .0458 */
    near(i.low, .3 - .0898, .02);
    near(i.high, .3 + .0898, .02);
    assert_int_equal(paired_bootstrap(a, b, 100, 4000, .95, 7, &again), 0);
    assert_true(i.low == again.low && i.high == again.high);
    assert_int_equal(paired_bootstrap(a, b, 0, 10, .95, 7, &i), -EINVAL);
}

static void pairs_of_states(void **state)
{
    double after[] = {1, 1, 0, NAN, 1, 0}, before[] = {0, 1, 1, 1, NAN, 0};
    struct paired d = {.pairs = -1};

    (void)state;
    assert_int_equal(paired_compare(after, before, 0, 7, &d), -ENODATA);
    assert_int_equal(paired_compare(after + 3, before + 3, 2, 7, &d), -ENODATA);
    assert_int_equal(d.pairs, -1);
    assert_int_equal(paired_compare(after, before, 6, 7, &d), 0);
    assert_int_equal(d.pairs, 4);
    assert_int_equal(d.gained, 1);
    assert_int_equal(d.lost, 1);
    near(d.mean, 0, 1e-15);
    near(d.p, 1, 1e-12);
    assert_true(d.low < 0 && d.high > 0);
    assert_int_equal(paired_compare((double[]) {1, 1, NAN, 1}, (double[]) {0, 1, 0, .5}, 4, 7, &d), 0);
    near(d.mean, .5, 1e-15);
    assert_true(d.gained == 2 && d.lost == 0 && d.low >= 0 && d.high <= 1);
}

/* Twenty states that end alike are no proof that all would: 1 - .025^(1/20) of them may not. */
static void pairs_that_are_all_alike(void **state)
{
    double after[400], before[400];
    struct paired d;

    (void)state;
    for (int i = 0; i < 400; i++)
        after[i] = before[i] = i % 3 == 0;
    assert_int_equal(paired_compare(after, before, 20, 7, &d), 0);
    near(d.mean, 0, 0);
    near(d.low, -.168433, 1e-6);
    near(d.high, .168433, 1e-6);
    assert_int_equal(paired_compare(after, before, 400, 7, &d), 0);
    near(d.high, .009180, 1e-6);
    assert_int_equal(paired_compare((double[]) {1, 1, 1}, (double[]) {0, 0, 0}, 3, 7, &d), 0);
    near(d.low, 1 - 2 * (1 - cbrt(.025)), 1e-12);
    near(d.high, 1, 0);
}

static void running_moments(void **state)
{
    double x[] = {1e6 + 1, 1e6 + 2, 1e6 + 4, 1e6 + 9};
    struct running all = {0}, left = {0}, right = {0};

    (void)state;
    near(running_std(&all), 1, 0);
    for (int i = 0; i < 4; i++) {
        running_push(&all, x[i]);
        running_push(i < 1 ? &left : &right, x[i]);
    }
    near(all.mean, 1e6 + 4, 1e-9);
    near(running_std(&all), sqrt(38 / 4.), 1e-9);
    running_merge(&left, &right);
    near(left.mean, all.mean, 1e-9);
    near(left.m2, all.m2, 1e-6);
    running_merge(&left, &(struct running) {0});
    near(left.count, 4, 0);
}

static void labels_of(int frames, bool success, const float *expected)
{
    float label[32];

    prm_labels(frames, success, label);
    for (int t = 0; t < frames; t++)
        near((double)label[t], (double)expected[t], 1e-7);
}

static void five_segments(void **state)
{
    (void)state;
    /* 12/5 = 2: the last takes the rest */
    labels_of(12, true, (float[]) {.2f, .2f, .4f, .4f, .6f, .6f, .8f, .8f, 1, 1, 1, 1});
    labels_of(10, false, (float[]) {.1f, .1f, .2f, .2f, .25f, .25f, .25f, .25f, .25f, .25f});
    labels_of(3, true, (float[]) {.2f, .4f, .8f});
    labels_of(1, true, (float[]) {.2f});
}

/* Three pieces: the gripper closes, the hand comes to rest; what comes at once after a cut is none. */
static void milestones(void **state)
{
    enum { STEPS = 10, DIMS = 4 };
    static const float speeds[STEPS] = {1, 1, 1, 1, 1, 1, 0, 0, 1, 1}, gripper[STEPS] = {1, 1, 1, -1, -1, -1, -1, -1, -1, -1};
    float action[STEPS * DIMS] = {0}, label[STEPS + 1];
    int cut[STEPS];

    (void)state;
    for (int t = 0; t < STEPS; t++) {
        action[t * DIMS + t % 3] = speeds[t];       /* whichever way it moves */
        action[t * DIMS + 3] = gripper[t];
    }
    assert_int_equal(prm_milestones(action, STEPS, DIMS, cut), 2);
    assert_true(cut[0] == 4 && cut[1] == 6);
    prm_milestone_labels(cut, 2, STEPS + 1, true, label);
    for (int t = 0; t <= STEPS; t++)
        near((double)label[t], (t >= 6 ? 3 : t >= 4 ? 2 : 1) / 3., 1e-6);
    prm_milestone_labels(cut, 2, STEPS + 1, false, label);
    for (int t = 0; t <= STEPS; t++)
        near((double)label[t], t >= 4 ? .25 : 1 / 6., 1e-6);
    action[4 * DIMS] = action[4 * DIMS + 1] = action[4 * DIMS + 2] = .05f;      /* rests, one frame after the gripper */
    assert_int_equal(prm_milestones(action, STEPS, DIMS, cut), 2);
    assert_true(cut[0] == 4 && cut[1] == 6);
    action[9 * DIMS + 3] = 1;                       /* opens at the last step: the last frame is a piece */
    assert_int_equal(prm_milestones(action, STEPS, DIMS, cut), 3);
    assert_int_equal(cut[2], 10);
    assert_int_equal(prm_milestones(action, STEPS, 3, cut), 0);     /* no gripper to speak of */
    action[1 * DIMS + 3] = -1;                      /* closes at once, opens, closes: two frames are the shortest piece */
    assert_int_equal(prm_milestones(action, STEPS, DIMS, cut), 4);
    assert_true(cut[0] == 2 && cut[1] == 4 && cut[2] == 6);
    prm_milestone_labels(cut, 0, 5, true, label);
    for (int t = 0; t < 5; t++)
        near((double)label[t], .2 * (t + 1), 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson_interval), cmocka_unit_test(mcnemar), cmocka_unit_test(ranks_and_auc),
        cmocka_unit_test(pairs_that_are_all_alike),
        cmocka_unit_test(bootstrap_of_pairs), cmocka_unit_test(pairs_of_states), cmocka_unit_test(running_moments),
        cmocka_unit_test(five_segments), cmocka_unit_test(milestones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
