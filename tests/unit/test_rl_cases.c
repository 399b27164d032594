/* Losses, advantages and rewards of lib/rl against torch and numpy on random inputs (tests/ref/make_rl_cases.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rl/gae.h"
#include "rl/losses.h"
#include "rl/rewards.h"

enum { LINE = 1 << 14, ROOM = 64 };

struct reader { char *at; const char *kind; int line; };

static double number(struct reader *r)
{
    char *end;
    double x = strtod(r->at, &end);

    if (end == r->at)
        fail_msg("line %d (%s) is too short", r->line, r->kind);
    r->at = end;
    return x;
}

static int whole(struct reader *r)
{
    return (int)number(r);
}

static void numbers(struct reader *r, int n, double *ret)
{
    assert_in_range(n, 1, ROOM);
    for (int i = 0; i < n; i++)
        ret[i] = number(r);
}

static void floats(struct reader *r, int n, float *ret)
{
    for (int i = 0; i < n; i++)
        ret[i] = (float)number(r);      /* drawn as such */
}

static void near(const struct reader *r, const char *what, double x, double expected)
{
    if (!(fabs(x - expected) <= 1e-12 * MAX(1, fabs(expected))))
        fail_msg("line %d: %s %s: %.17g, expected %.17g", r->line, r->kind, what, x, expected);
}

static void policy_case(struct reader *r)
{
    int n = whole(r), count = whole(r);
    double low = number(r), high = number(r), dual = number(r);
    struct ppo_clip clip = {.low = low, .high = high, .dual = dual};
    bool stale = whole(r);
    double logp[ROOM], old[ROOM], advantage[ROOM], mu[ROOM], weight[ROOM], d[ROOM], expected[ROOM], loss;
    struct ppo_sums sums = {0};

    numbers(r, n, logp);
    numbers(r, n, old);
    numbers(r, n, advantage);
    numbers(r, n, mu);
    for (int i = 0; i < n; i++)
        weight[i] = staleness_weight(old[i], mu[i]);
    loss = number(r);
    numbers(r, n, expected);
    ppo_policy_loss(&clip, logp, old, advantage, stale ? weight : NULL, n, count, d, &sums);
    near(r, "loss", sums.policy_loss, loss);
    for (int i = 0; i < n; i++)
        near(r, "gradient", d[i], expected[i]);
    near(r, "ratios", sums.ratio, number(r));
    near(r, "largest ratio", sums.ratio_max, number(r));
    near(r, "approximate KL", sums.approx_kl, number(r));
    assert_int_equal(sums.clipped, whole(r));
    near(r, "weights", sums.importance, number(r));
}

static void value_case(struct reader *r)
{
    int n = whole(r), count = whole(r);
    double coef = number(r), clip = number(r), huber = number(r);
    struct value_settings settings = {.coef = coef, .clip = clip, .huber = huber};
    double v[ROOM], before[ROOM], target[ROOM], d[ROOM], expected[ROOM];
    struct ppo_sums sums = {0};

    numbers(r, n, v);
    numbers(r, n, before);
    numbers(r, n, target);
    value_loss(&settings, v, before, target, n, count, d, &sums);
    near(r, "loss", sums.value_loss, number(r));
    numbers(r, n, expected);
    for (int i = 0; i < n; i++)
        near(r, "gradient", d[i], expected[i]);
}

static void kl_case(struct reader *r)
{
    static const enum kl_mode modes[] = {KL_K1, KL_K2, KL_K3};
    enum kl_mode mode = modes[whole(r)];
    int n = whole(r), count = whole(r);
    double coef = number(r), d[ROOM] = {0}, expected[ROOM];
    float logp[ROOM], ref[ROOM];
    struct ppo_sums sums = {0};

    floats(r, n, logp);
    floats(r, n, ref);
    kl_loss(mode, logp, ref, n, count, coef, d, &sums);
    near(r, "loss", sums.kl_loss, number(r));
    numbers(r, n, expected);
    for (int i = 0; i < n; i++)
        near(r, "gradient", d[i], expected[i]);
    near(r, "sum", sums.ref_kl, number(r));
}

static void gae_case(struct reader *r)
{
    int steps = whole(r), actions[ROOM];
    double gamma = number(r), lambda = number(r), bootstrap = number(r), a[ROOM], returns[ROOM], expected[ROOM];
    bool critic = whole(r);
    double reward[ROOM], values[ROOM];

    numbers(r, steps, reward);
    numbers(r, steps, values);
    for (int t = 0; t < steps; t++)
        actions[t] = whole(r);
    gae(reward, critic ? values : NULL, actions, steps, bootstrap, gamma, lambda, a, returns);
    numbers(r, steps, expected);
    for (int t = 0; t < steps; t++)
        near(r, "advantage", a[t], expected[t]);
    numbers(r, steps, expected);
    for (int t = 0; t < steps; t++)
        near(r, "return", returns[t], expected[t]);
}

static void group_case(struct reader *r)
{
    static const enum advantage_mode modes[] = {ADVANTAGE_GROUP, ADVANTAGE_RLOO, ADVANTAGE_REINFORCE};
    enum advantage_mode mode = modes[whole(r)];
    int n = whole(r);
    double reward[ROOM], a[ROOM], expected[ROOM];

    numbers(r, n, reward);
    numbers(r, n, expected);
    assert_true(group_advantages(mode, reward, n, a));
    for (int i = 0; i < n; i++)
        near(r, "advantage", a[i], expected[i]);
}

static void normalise_case(struct reader *r)
{
    int n = whole(r);
    double a[ROOM], expected[ROOM];

    numbers(r, n, a);
    numbers(r, n, expected);
    normalise_advantages(a, n);
    for (int i = 0; i < n; i++)
        near(r, "advantage", a[i], expected[i]);
}

static void reward_case(struct reader *r)
{
    int mode = whole(r), steps = whole(r), success = whole(r), cut = whole(r);
    struct reward_settings settings = {.mode = (enum reward_mode)mode};
    struct episode_end end = {.steps = steps, .success = success, .bootstrap = cut};
    float progress[ROOM], env[ROOM];
    double reward[ROOM];

    settings.w_progress = number(r);
    settings.w_success = number(r);
    settings.w_env = number(r);
    settings.gamma = number(r);
    settings.limit = whole(r);
    floats(r, end.steps + 1, progress);
    floats(r, end.steps, env);
    end.env_reward = env;
    assert_int_equal(rewards_compute(&settings, &end, progress, reward), 0);
    for (int t = 0; t < end.steps; t++)
        near(r, "reward", reward[t], number(r));
}

static void every_case(void **state)
{
    static const struct { const char *kind; void (*run)(struct reader *); int least; } kinds[] = {
        {"policy", policy_case, 10}, {"value", value_case, 4}, {"kl", kl_case, 3}, {"gae", gae_case, 7}, {"group", group_case, 6},
        {"normalise", normalise_case, 2}, {"reward", reward_case, 18},
    };
    static char line[LINE];
    int seen[ARRAY_SIZE(kinds)] = {0};
    FILE *file = fopen("tests/golden/rl/cases.txt", "r");

    (void)state;
    assert_non_null(file);
    for (int n = 1; fgets(line, sizeof line, file); n++) {
        char *space = strchr(line, ' ');
        struct reader r = {.kind = line, .line = n};
        size_t k = 0;

        assert_non_null(space);
        *space = '\0';
        r.at = space + 1;
        while (k < ARRAY_SIZE(kinds) && strcmp(kinds[k].kind, line) != 0)
            k++;
        if (k == ARRAY_SIZE(kinds))
            fail_msg("line %d: no such kind: %s", n, line);
        kinds[k].run(&r);
        assert_true(r.at[strspn(r.at, " \n")] == '\0');     /* all was read */
        seen[k]++;
    }
    fclose(file);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
        assert_true(seen[k] >= kinds[k].least);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
