/* A reward model on trial: which episodes count, and what the bar says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "coordinator/shadow.h"

static struct shadow s;

static void play(uint64_t episode, bool success, float last, float shadow_last, float rank)
{
    shadow_scored(&s, &(struct shadow_report) {episode, 7, 8, 50, .04f, rank, last, shadow_last});
    shadow_outcome(&s, episode, success);
}

static struct shadow_verdict judge(void)
{
    struct shadow_verdict v;

    assert_true(shadow_ready(&s));
    assert_int_equal(shadow_judge(&s, &v), 0);
    return v;
}

/* Eight outcomes of both kinds: the AUC decides, by the margin, whatever the ranks say. */
static void test_auc_decides(void **state)
{
    struct shadow_verdict v;

    (void)state;
    for (int swapped = 0; swapped < 3; swapped++) {
        shadow_begin(&s, 8, 7, 8, swapped == 2 ? .2 : .05, .9);
        for (uint64_t i = 0; i < 8; i++) {
            bool success = i % 2;
            float good = success ? .9f - (float)i / 100 : .1f + (float)i / 100;

            /* the other mistakes one success for a failure: 12 of 16 pairs in order, and the failures below it */
            play(i + 1, success, good, swapped && i == 1 ? .05f : good, -1);
        }
        v = judge();
        assert_int_equal(v.episodes, 8);
        assert_int_equal(v.successes, 4);
        assert_true(v.auc_against == 1);
        assert_true(v.auc == (swapped ? .75 : 1));
        assert_true(v.passed == (swapped == 0));
        assert_true(fabs(v.rank + 1) < 1e-9 && fabs(v.difference - .04) < 1e-6 && v.frames == 400);
    }
    shadow_begin(&s, 8, 7, 8, .25, .9);
    for (uint64_t i = 0; i < 8; i++)
        play(i + 1, i % 2, i % 2 ? .9f : .1f, i == 1 ? .05f : i % 2 ? .9f : .1f, -1);
    assert_true(judge().passed);
}

/* Outcomes that are all alike say nothing: agreement with the one in use decides. */
static void test_rank_decides(void **state)
{
    (void)state;
    for (int agree = 0; agree < 2; agree++) {
        shadow_begin(&s, 8, 7, 6, 1, .8);
        for (uint64_t i = 0; i < 6; i++)
            play(i + 1, false, .2f, .3f, agree ? .85f : .75f);
        assert_true(isnan(judge().auc));
        assert_true(judge().passed == agree);
    }
}

/* Both halves, of this trial, of numbers that a model gives; once. */
static void test_what_counts(void **state)
{
    const struct shadow_report good = {1, 7, 8, 10, .1f, .5f, .5f, .6f};
    struct shadow_report bad[] = {good, good, good, good, good, good};

    (void)state;
    shadow_begin(&s, 8, 7, 3, .05, .8);
    bad[0].version = 6;
    bad[1].shadow = 9;
    bad[2].frames = 0;
    bad[3].last = NAN;
    bad[4].rank = NAN;
    bad[5].shadow_last = 2;
    shadow_outcome(&s, 1, true);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        shadow_scored(&s, &bad[i]);
    assert_int_equal(shadow_complete(&s), 0);
    shadow_scored(&s, &good);
    shadow_scored(&s, &good);
    shadow_outcome(&s, 1, true);
    assert_int_equal(shadow_complete(&s), 1);
    shadow_end(&s);
    shadow_scored(&s, &good);
    assert_int_equal(s.n, 0);
}

/* Ten thousand episodes that one half never comes of: those that count stay, and there is room for more. */
static void test_never_full(void **state)
{
    (void)state;
    shadow_begin(&s, 8, 7, SHADOW_MAX, .05, .8);
    for (uint64_t i = 1; i <= 10000 && !shadow_ready(&s); i++) {
        shadow_outcome(&s, 1000000 + i, true);
        if (i % 10 == 0)
            play(i, true, .9f, .9f, 1);
    }
    assert_true(shadow_ready(&s));
    assert_int_equal(judge().episodes, SHADOW_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auc_decides),
        cmocka_unit_test(test_rank_decides),
        cmocka_unit_test(test_what_counts),
        cmocka_unit_test(test_never_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
