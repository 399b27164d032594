/* test_rl_search: which candidate is played, by every judge; what a Gaussian proposes; where a rollout is mended. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/macro.h"
#include "rl/search.h"

static int choose(const float *scores, const bool *alive, uint32_t n, uint32_t h, bool mean)
{
    return search_choose(&(struct search_candidates) {.n = n, .h = h, .scores = scores, .alive = alive, .mean = mean});
}

static void test_choice(void **state _unused_)
{
    static const float scores[3 * 2] = { .625f, .375f, .25f, .5f, .5f, .5f };
    static const bool all[3] = { true, true, true }, none[3], second[3] = { false, true, false };
    static const float ties[3 * 2] = { .5f, .25f, .25f, .5f, .25f, .5f }, late[3 * 2] = { .75f, .25f, .125f, .5f, .75f, .25f };

    assert_int_equal(choose(scores, all, 3, 2, false), 1);      /* last: .5 twice, lower index */
    assert_int_equal(choose(scores, all, 3, 2, true), 2);       /* mean: .5 .375 .5, the higher last score */
    assert_int_equal(choose(ties, all, 3, 2, true), 1);         /* all .375: higher last, lower index */
    assert_int_equal(choose(late, all, 2, 2, true), 0);         /* .5 over .3125, whatever comes last */
    assert_int_equal(choose(late + 2, all, 2, 2, true), 1);
    assert_int_equal(choose((float[4]) {0}, all, 2, 2, false), 0);      /* nothing is worth anything: the first, not none */
    assert_int_equal(choose(scores, second, 3, 2, true), 1);
    assert_int_equal(choose(scores, none, 3, 2, false), -1);
    assert_true(search_worth(&(struct search_candidates) {.n = 3, .h = 2, .scores = scores}, 1) == .5);
    assert_true(search_worth(&(struct search_candidates) {.n = 3, .h = 2, .scores = scores, .mean = true}, 1) == .375);
}

static void test_only_the_oracle_sees_success(void **state _unused_)
{
    static const float scores[4] = { .1f, .9f, .2f, .3f };
    static const bool alive[4] = { true, true, true, true }, no_third[4] = { true, true, false, true };
    static const uint32_t met[4] = { 0, 0, 1, 1 }, nobody[4];
    struct search_candidates c = {.n = 4, .h = 1, .scores = scores, .alive = alive, .met = met};

    for (c.judge = JUDGE_PRM; c.judge < JUDGE_RANDOM; c.judge++)
        assert_int_equal(search_choose(&c), 1);
    c.judge = JUDGE_ORACLE;
    assert_int_equal(search_choose(&c), 2);
    c.alive = no_third;
    assert_int_equal(search_choose(&c), 3);
    c.met = nobody;                     /* then it is the reward model's choice */
    assert_int_equal(search_choose(&c), 1);
}

/* A control must not know: over many searches each candidate is chosen equally often, whatever its score, and never a dead
 * one. */
static void test_controls_are_blind(void **state _unused_)
{
    enum { N = 5, SEARCHES = 5000 };
    static const float scores[N] = { .9f, .1f, .2f, .3f, .4f };
    static const bool alive[N] = { true, true, false, true, true };
    struct search_candidates c = {.n = N, .h = 1, .scores = scores, .alive = alive, .seed = 7};

    for (c.judge = JUDGE_RANDOM; c.judge <= JUDGE_SHUFFLED; c.judge++) {
        int times[N] = {0};

        for (uint32_t i = 0; i < SEARCHES; i++) {
            int chosen;

            c.key = i / 8;
            c.step = i % 8;
            chosen = search_choose(&c);
            times[chosen]++;
            assert_int_equal(search_choose(&c), chosen);        /* the same search chooses the same */
        }
        assert_int_equal(times[2], 0);
        for (int i = 0; i < N; i++)     /* 1250 each, standard deviation 31 */
            assert_true(!alive[i] || abs(times[i] - SEARCHES / 4) < 160);
    }
}

static void test_gaussian(void **state _unused_)
{
    enum { K = 4, D = 3, N = 4000 };
    static const float from[K * D] = { .1f, -1, 1, .3f, -1, -1, .1f, -1, 1, .3f, -1, 1 };
    static float drawn[N * D], again[N * D];
    double sum = 0, squares = 0;

    search_gaussian(from, K, D, 7, 1, 2, drawn, N);
    search_gaussian(from, K, D, 7, 1, 2, again, N);
    assert_memory_equal(drawn, again, sizeof(drawn));
    for (int i = 0; i < N; i++) {
        assert_true(drawn[i * D + 2] == 1);                     /* three of four say open */
        assert_true(drawn[i * D + 1] == -1);                    /* they agree: nothing to draw */
        assert_true(drawn[i * D] > -1e-6f && drawn[i * D] < .4f + 1e-6f);  /* what was seen, and one standard deviation */
        sum += (double)drawn[i * D];
        squares += (double)drawn[i * D] * (double)drawn[i * D];
    }
    assert_true(fabs(sum / N - .2) < .006);
    assert_true(fabs(sqrt(squares / N - sum / N * sum / N) - .08) < .02);      /* .1, less what the clip takes */
    search_gaussian(from, 1, D, 7, 1, 2, drawn, 2);             /* one sample: it is the proposal */
    assert_true(drawn[D] == from[0]);
}

/* The gripper is a vote, however firmly each is cast; an even one goes with the first. */
static void test_the_grippers_vote(void **state _unused_)
{
    static const struct { float cast[3]; uint32_t k; float elected; } cases[] = {
        {{.2f, .2f, -1}, 3, 1}, {{-1, .2f, .2f}, 3, 1}, {{1, -.2f, -.2f}, 3, -1}, {{-1, -1, -1}, 3, -1},
        {{.1f, -1}, 2, 1}, {{-.1f, 1}, 2, -1}, {{0, 0}, 2, -1},
    };
    float drawn;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        search_gaussian(cases[i].cast, cases[i].k, 1, 7, 1, 2, &drawn, 1);
        assert_true(drawn == cases[i].elected);
    }
}

static void test_lowest(void **state _unused_)
{
    static const float scores[4] = { .5f, .25f, .75f, .25f };

    assert_int_equal(search_lowest(scores, 4), 1);
    assert_int_equal(search_lowest(scores, 1), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice), cmocka_unit_test(test_only_the_oracle_sees_success),
        cmocka_unit_test(test_controls_are_blind), cmocka_unit_test(test_gaussian),
        cmocka_unit_test(test_the_grippers_vote), cmocka_unit_test(test_lowest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
