/* Labels and the judgement of scores against numpy (tests/ref/make_judge_cases.py). */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/macro.h"
#include "train/prm_data.h"

enum { MOST = 32, DIMS = 7, LONGEST = 16 };

struct cases {
    FILE *file;
    struct dataset data;
    struct train_episode list[MOST];
    float action[MOST][LONGEST * DIMS], score[MOST * LONGEST], label[2][MOST][LONGEST];
    int all[MOST];
};

static double number(FILE *file)
{
    double x;

    assert_int_equal(fscanf(file, "%lf", &x), 1);
    return x;
}

static void near(const char *what, double x, double expected, double tolerance)
{
    if (!(fabs(x - expected) <= tolerance))
        fail_msg("%s: %.12g, expected %.12g", what, x, expected);
}

static int set_up(void **state)
{
    struct cases *c = calloc(1, sizeof *c);
    int frames = 0;

    c->file = fopen("tests/golden/rl/judge.txt", "r");
    assert_non_null(c->file);
    c->data = (struct dataset) {.list = c->list, .n = (int)number(c->file), .n_tasks = 2, .action_dims = DIMS};
    assert_in_range(c->data.n, 1, MOST);
    for (int i = 0; i < c->data.n; i++) {
        struct train_episode *e = &c->list[i];

        e->task = (int)number(c->file);
        e->success = number(c->file) != 0;
        e->max_steps = (int)number(c->file);
        e->steps = (int)number(c->file);
        e->action = c->action[i];
        assert_in_range(e->steps, 1, LONGEST - 1);
        for (int k = 0; k < e->steps * DIMS; k++)
            e->action[k] = (float)number(c->file);
        for (int t = 0; t <= e->steps; t++)
            c->score[frames++] = (float)number(c->file);
        for (int mode = 0; mode < 2; mode++)
            for (int t = 0; t <= e->steps; t++)
                c->label[mode][i][t] = (float)number(c->file);
        c->all[i] = i;
    }
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    struct cases *c = *state;

    fclose(c->file);
    free(c);
    return 0;
}

static void labels_by_time_and_by_milestones(void **state)
{
    struct cases *c = *state;
    float label[LONGEST];
    int differ = 0;

    for (int i = 0; i < c->data.n; i++)
        for (int mode = 0; mode < 2; mode++) {
            prm_data_labels(&c->data, &c->list[i], (enum label_mode)mode, label);
            for (int t = 0; t <= c->list[i].steps; t++) {
                near("label", (double)label[t], (double)c->label[mode][i][t], 1e-7);
                differ += mode && c->label[0][i][t] != c->label[1][i][t];
            }
        }
    assert_true(differ > 50);
}

static void a_judgement(void **state)
{
    struct cases *c = *state;
    int successes = 0;

    for (int i = 0; i < c->data.n; i++)
        successes += c->list[i].success;
    for (int mode = 0; mode < 2; mode++) {
        struct prm_judgement j;

        assert_int_equal(prm_judge_scores(&c->data, (enum label_mode)mode, c->all, c->data.n, c->score, &j), 0);
        near("AUC 25", j.auc_quarter, number(c->file), 1e-12);
        near("AUC 50", j.auc_mid, number(c->file), 1e-12);
        near("AUC 75", j.auc_three_quarters, number(c->file), 1e-12);
        near("AUC last", j.auc_last, number(c->file), 1e-12);
        near("correlation with time", j.time_correlation, number(c->file), 1e-12);
        near("BCE", j.bce, number(c->file), 1e-6);
        near("calibration", j.calibration, number(c->file), 1e-6);
        near("last of successes", j.success_last, number(c->file), 1e-12);
        near("last of failures", j.failure_last, number(c->file), 1e-12);
        assert_int_equal(j.tasks, 2);
        assert_int_equal(j.successes, successes);
    }
}

static void no_score(void **state)
{
    static const float bad[] = {NAN, INFINITY, -.01f, 1.01f};
    struct cases *c = *state;
    float kept = c->score[3];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct prm_judgement j = {.tasks = -1};

        c->score[3] = bad[i];
        assert_int_equal(prm_judge_scores(&c->data, LABELS_SEGMENTS, c->all, c->data.n, c->score, &j), -EDOM);
        assert_int_equal(j.tasks, -1);
    }
    c->score[3] = kept;
}

/* A clock knows the time and nothing else. */
static void a_clock(void **state)
{
    struct cases *c = *state;
    struct prm_judgement j;

    assert_int_equal(prm_judge_clock(&c->data, LABELS_SEGMENTS, c->all, c->data.n, &j), 0);
    near("AUC 50", j.auc_mid, .5, 1e-12);
    near("correlation with time", j.time_correlation, 1, 1e-12);
    assert_true(j.bce > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(labels_by_time_and_by_milestones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_judgement, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_score, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_clock, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
