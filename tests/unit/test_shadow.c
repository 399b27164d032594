/* A reward model on trial: which episodes count, and what the bar says. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/shadow.h"

static struct shadow s;

/* The learner's word of how it ended may come before the PRM server's. */
static void play(uint64_t episode, bool success, float last, float shadow_last, float rank)
{
    bool ended_first = episode % 4 < 2;

    if (ended_first)
        shadow_outcome(&s, episode, success);
    shadow_scored(&s, &(struct shadow_report) {episode, 7, 8, 50, .04f, rank, last, shadow_last});
    if (!ended_first)
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
    for (int success = 0; success < 2; success++)
        for (int agree = 0; agree < 2; agree++) {
            shadow_begin(&s, 8, 7, 6, 1, .8);
            for (uint64_t i = 0; i < 6; i++)
                play(i + 1, success, .2f, .3f, agree ? .85f : .75f);
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

/* As the coordinator's next life reads it. */
static struct shadow read_back(void)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT, again = STRBUF_INIT;
    struct shadow back = {0}, copy;
    struct error error = {0};
    char *rest, *line;

    shadow_write(&s, &text);
    for (rest = text.text; *rest && (line = strsep(&rest, "\n"));) {
        char *space = strchr(line, ' ');

        *space = '\0';
        if (shadow_parse(line, space + 1, &back, &error) < 0)
            fail_msg("%s", error.text);
        *space = ' ';
        rest[-1] = '\n';
    }
    copy = s;
    s = back;
    shadow_write(&s, &again);
    s = copy;
    assert_string_equal(text.text, again.text);
    return back;
}

static void test_a_trial_outlives_the_coordinator(void **state)
{
    static const struct { const char *key, *value; } damaged[] = {
        {"shadow", "8 7 201 0x1p-2 0x1p-1"}, {"shadow", "8 7 3"}, {"shadow_last", "8 7 1 3 2"}, {"shadow_episode", "1 2 3"},
        {"shadow_more", "1"},
    };
    struct shadow back;
    char text[240];

    (void)state;
    s = (struct shadow) {0};
    back = read_back();
    assert_true(!back.version && !back.last.version && !back.n);
    shadow_begin(&s, 9, 7, SHADOW_MAX, .25, .5);
    play(3, true, .75f, .5f, .125f);
    shadow_outcome(&s, 4, false);
    s.last = (struct shadow_verdict) {.version = 8, .against = 6, .passed = true, .episodes = 20, .successes = 5, .frames = 1000,
                                      .difference = .04, .rank = .9, .auc = NAN, .auc_against = NAN};
    back = read_back();
    assert_true(back.version == 9 && back.against == 7 && back.wanted == SHADOW_MAX && back.margin == .25 && back.rank == .5);
    assert_int_equal(back.n, 2);
    assert_memory_equal(&back.episodes[0], &s.episodes[0], sizeof s.episodes[0]);
    assert_true(back.episodes[1].episode == 4 && back.episodes[1].ended && !back.episodes[1].success);
    assert_true(back.last.version == 8 && back.last.against == 6 && back.last.passed && isnan(back.last.auc));
    shadow_text(&back.last, text, sizeof text);
    assert_string_equal(text, "too few outcomes of both kinds for an AUC (5 of 20 succeeded), rank correlation 0.900, "
                              "mean difference 0.0400 over 1000 frames");
    s.last.auc = .9;
    s.last.auc_against = .8;
    shadow_end(&s);
    back = read_back();
    assert_true(!back.version && !back.n && back.last.auc == .9 && back.last.auc_against == .8);
    shadow_text(&back.last, text, sizeof text);
    assert_string_equal(text, "AUC 0.900 against 0.800 at the last frame (5 of 20 succeeded), rank correlation 0.900, "
                              "mean difference 0.0400 over 1000 frames");
    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++)
        assert_int_equal(shadow_parse(damaged[i].key, damaged[i].value, &back, NULL), -EBADMSG);
    back.n = SHADOW_ROOM;
    assert_int_equal(shadow_parse("shadow_episode", "3 50 0x0p+0 0x0p+0 0x0p+0 0x0p+0 1 1", &back, NULL), -EBADMSG);
    assert_int_equal(back.n, SHADOW_ROOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auc_decides),
        cmocka_unit_test(test_rank_decides),
        cmocka_unit_test(test_what_counts),
        cmocka_unit_test(test_never_full),
        cmocka_unit_test(test_a_trial_outlives_the_coordinator),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
