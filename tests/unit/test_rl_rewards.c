/* Rewards and advantages: numbers from tests/ref/rl_reference.py, and the promise that finishing pays. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rl/gae.h"
#include "rl/rewards.h"

static const float scores[] = {.1f, .2f, .5f, .4f, .8f};

static void check(enum reward_mode mode, double w_progress, bool success, bool bootstrap, const double *expected)
{
    struct reward_settings settings = {.mode = mode, .w_progress = w_progress, .w_success = 1, .gamma = .9, .limit = 10};
    struct episode_end end = {.steps = 4, .success = success, .bootstrap = bootstrap};
    double reward[4];

    assert_int_equal(rewards_compute(&settings, &end, scores, reward), 0);
    for (int t = 0; t < 4; t++)
        assert_true(fabs(reward[t] - expected[t] - (success && t == 3)) < 1e-6);
}

static void each_mode(void **state)
{
    (void)state;
    check(REWARD_PROGRESS, 2, true, false, (double[]) {.2, .6, -.2, 1.2});
    check(REWARD_PROGRESS, 2, false, false, (double[]) {.2, .6, -.2, .8});
    check(REWARD_DELTA, 2, true, false, (double[]) {.16, .5, -.28, -.8});
    check(REWARD_DELTA, 2, false, false, (double[]) {.16, .5, -.28, -.8});
    check(REWARD_DELTA, 2, false, true, (double[]) {.16, .5, -.28, .64});
    check(REWARD_RAW, 2, true, false, (double[]) {.4, 1, .8, 10.434062});
    check(REWARD_RAW, 2, false, false, (double[]) {.4, 1, .8, 1.6});
    check(REWARD_RAW_LITERAL, 2, true, false, (double[]) {.2, .4, 1, .8});
    check(REWARD_SPARSE, 2, true, false, (double[]) {0, 0, 0, 0});
}

/* Undiscounted, a success is paid for each step of the limit that it leaves; shaping alone tells where it happened. */
static void raw_without_discount(void **state)
{
    struct reward_settings settings = {.mode = REWARD_RAW, .w_progress = 1, .gamma = 1, .limit = 10};
    struct episode_end end = {.steps = 4, .success = true};
    double reward[4];

    (void)state;
    assert_int_equal(rewards_compute(&settings, &end, scores, reward), 0);
    assert_true(fabs(reward[2] - .4) < 1e-6 && fabs(reward[3] - 7) < 1e-6);
}

static void bad_input_is_refused(void **state)
{
    struct reward_settings settings = {.mode = REWARD_PROGRESS, .w_progress = 1, .w_success = 1, .gamma = .99, .limit = 4};
    struct episode_end end = {.steps = 4};
    float broken[] = {.1f, .2f, NAN, .4f, .8f}, outside[] = {.1f, .2f, 1.5f, .4f, .8f},
          at_the_end[] = {.1f, .2f, .5f, .4f, NAN}, below[] = {.1f, -.125f, .5f, .4f, .8f};
    double reward[4] = {7};

    (void)state;
    assert_int_equal(rewards_compute(&settings, &end, NULL, reward), -EINVAL);
    assert_int_equal(rewards_compute(&settings, &end, broken, reward), -EINVAL);
    assert_int_equal(rewards_compute(&settings, &end, outside, reward), -EINVAL);
    assert_int_equal(rewards_compute(&settings, &end, at_the_end, reward), -EINVAL);
    assert_int_equal(rewards_compute(&settings, &end, below, reward), -EINVAL);
    settings.mode = REWARD_RAW;
    settings.limit = 3;
    assert_int_equal(rewards_compute(&settings, &end, scores, reward), -EINVAL);
    assert_true(reward[0] == 7);
    settings.mode = REWARD_SPARSE;
    assert_int_equal(rewards_compute(&settings, &end, NULL, reward), 0);
    settings.w_env = .5;        /* an environment that says nothing pays for success */
    end.success = true;
    assert_int_equal(rewards_compute(&settings, &end, NULL, reward), 0);
    assert_true(reward[2] == 0 && reward[3] == 1.5);
}

static void weight_decays_to_zero(void **state)
{
    (void)state;
    assert_true(reward_weight_at(2, 30, 0) == 2 && reward_weight_at(2, 30, 15) == 1 && reward_weight_at(2, 30, 30) == 0);
    assert_true(reward_weight_at(2, 30, 31) == 0 && reward_weight_at(2, 0, 500) == 2);
}

enum { QUICK = 6, STALL = 24 };
struct contest { double quick_sum, stall_sum, quick_last; };

/* A success in 6 steps against a stall at .8 until the limit of 24, under one reward and one advantage. The environment pays 1 on
 * success and nothing else, as the suites do. */
static struct contest play(enum reward_mode mode, enum advantage_mode advantage)
{
    static const float quick_env[QUICK] = {[QUICK - 1] = 1}, stall_env[STALL] = {0};
    struct reward_settings settings = {.mode = mode, .w_progress = 1, .w_success = 1, .gamma = .99, .limit = STALL,
                                       .w_env = mode == REWARD_ENV};
    float quick[QUICK + 1] = {.1f, .2f, .4f, .5f, .6f, .7f, .8f}, stall[STALL + 1];
    double reward[QUICK + STALL], a[QUICK + STALL], returns[QUICK + STALL], grouped[2];
    struct contest c = {0};

    for (int t = 0; t <= STALL; t++)
        stall[t] = t < QUICK ? quick[t] : .8f;
    assert_int_equal(rewards_compute(&settings, &(struct episode_end) {.steps = QUICK, .success = true, .env_reward = quick_env},
                                     quick, reward), 0);
    assert_int_equal(rewards_compute(&settings, &(struct episode_end) {.steps = STALL, .env_reward = stall_env}, stall,
                                     reward + QUICK), 0);
    for (int t = 0; t < QUICK + STALL; t++)
        *(t < QUICK ? &c.quick_sum : &c.stall_sum) += reward[t];
    if (advantage == ADVANTAGE_GAE) {
        gae(reward, NULL, NULL, QUICK, 0, .99, 1, a, returns);
        gae(reward + QUICK, NULL, NULL, STALL, 0, .99, 1, a + QUICK, returns + QUICK);
        normalise_advantages(a, QUICK + STALL);
        c.quick_last = a[QUICK - 1];
    } else {
        assert_true(group_advantages(advantage, (double[]) {c.quick_sum, c.stall_sum}, 2, grouped));
        c.quick_last = grouped[0];
    }
    return c;
}

static void quick_success_beats_stall(void **state)
{
    (void)state;
    for (int mode = REWARD_PROGRESS; mode <= REWARD_ENV; mode++)
        for (int advantage = ADVANTAGE_GAE; advantage <= ADVANTAGE_REINFORCE; advantage++) {
            struct contest c = play((enum reward_mode)mode, (enum advantage_mode)advantage);

            if (mode == REWARD_RAW_LITERAL) {
                assert_true(c.stall_sum > c.quick_sum);      /* why it carries a warning */
                continue;
            }
            if (c.quick_sum <= c.stall_sum || c.quick_last <= 0)
                fail_msg("mode %d, advantage %d: quick %g stall %g, last advantage %g", mode, advantage, c.quick_sum,
                         c.stall_sum, c.quick_last);
        }
}

static void near(const double *x, const double *expected, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(x[i] - expected[i]) < 1e-12 * MAX(1, fabs(expected[i])) + 1e-12))
            fail_msg("[%d] %.17g, expected %.17g", i, x[i], expected[i]);
}

static void gae_by_definition(void **state)
{
    double r[] = {.1, -.2, .3, 0, 1}, v[] = {.5, .4, .3, .2, .1}, a[5], returns[5];

    (void)state;
    gae(r, v, NULL, 5, 0, .99, .95, a, returns);
    near(a, (double[]) {0.5063148573654312, 0.5425995293624999, 0.899095725, 0.7454500000000001, 0.9}, 5);
    near(returns, (double[]) {1.0063148573654312, 0.9425995293624999, 1.199095725, 0.9454500000000001, 1.0}, 5);
    normalise_advantages(a, 5);
    near(a, (double[]) {-1.1262030532070393, -0.9337910846626195, 0.9566527585874893, 0.14189339110380542, 0.9614479881783635},
         5);
    gae(r, v, NULL, 5, .7, .99, .95, a, returns);
    near(a, (double[]) {1.0485259948973846, 1.1191132322141248, 1.51208211825, 1.3972165, 1.593}, 5);
}

/* Seven steps played in chunks of 3, 3 and 1: without a critic a chunk's advantage is the discounted return from its first step;
 * with one, delta looks gamma^c ahead. */
static void chunks_discount_every_action(void **state)
{
    const double r[7] = {.1, -.2, .3, 0, 1, .5, -.4}, v[3] = {.5, .3, .1};
    const int actions[3] = {3, 3, 1}, begin[3] = {0, 3, 6};
    double chunk[3], a[7], returns[7], by_chunk[3], chunk_returns[3], d[3], g = .99;

    (void)state;
    for (int i = 0; i < 3; i++)
        chunk[i] = rewards_chunk(r + begin[i], actions[i], g);
    gae(r, NULL, NULL, 7, .7, g, 1, a, returns);
    gae(chunk, NULL, actions, 3, .7, g, 1, by_chunk, chunk_returns);
    near(by_chunk, (double[]) {a[0], a[3], a[6]}, 3);
    near(chunk_returns, (double[]) {returns[0], returns[3], returns[6]}, 3);

    gae(chunk, v, actions, 3, 0, g, .95, by_chunk, chunk_returns);
    d[2] = chunk[2] - v[2];
    d[1] = chunk[1] + g * g * g * v[2] - v[1];
    d[0] = chunk[0] + g * g * g * v[1] - v[0];
    near(by_chunk, (double[]) {d[0] + .95 * g * g * g * (d[1] + .95 * g * g * g * d[2]), d[1] + .95 * g * g * g * d[2], d[2]}, 3);
}

static void groups_by_definition(void **state)
{
    double R[] = {1, 0, 0, 2.5}, a[8], alike[8];

    (void)state;
    assert_true(group_advantages(ADVANTAGE_GROUP, R, 4, a));
    near(a, (double[]) {0.12216932495343685, -0.8551852746740579, -0.8551852746740579, 1.588201224394679}, 4);
    assert_true(group_advantages(ADVANTAGE_RLOO, R, 4, a));
    near(a, (double[]) {0.16666666666666663, -1.1666666666666667, -1.1666666666666667, 2.1666666666666665}, 4);
    assert_false(group_advantages(ADVANTAGE_GROUP, (double[]) {1, 1, 1, 1}, 4, a));
    near(a, (double[]) {0, 0, 0, 0}, 4);
    for (int i = 0; i < 8; i++)
        alike[i] = .7;          /* whose mean of eight is another number */
    assert_false(group_advantages(ADVANTAGE_GROUP, alike, 8, a));
    near(a, (double[8]) {0}, 8);
    near((double[]) {explained_variance((double[8]) {1}, alike, 8)}, (double[]) {0}, 1);
    double values[] = {.5, 2.5, 3, 1}, returns[] = {1, 2, 4, 0};
    near((double[]) {explained_variance(values, returns, 4)}, (double[]) {0.7142857142857143}, 1);
    for (int i = 0; i < 4; i++)
        values[i] += 5;         /* a critic that is off by as much everywhere explains as much */
    near((double[]) {explained_variance(values, returns, 4)}, (double[]) {0.7142857142857143}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mode), cmocka_unit_test(raw_without_discount),
        cmocka_unit_test(bad_input_is_refused), cmocka_unit_test(weight_decays_to_zero),
        cmocka_unit_test(quick_success_beats_stall), cmocka_unit_test(gae_by_definition),
        cmocka_unit_test(chunks_discount_every_action), cmocka_unit_test(groups_by_definition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
