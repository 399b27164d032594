/* PPO's losses and their gradients against tests/ref/rl_reference.py (central differences there, formulas here). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rl/losses.h"

static const double logp[] = {-5, -6, -4.2, -7, -3, -40, -1};
static const double logp_old[] = {-5.1, -5.5, -4.2, -8.5, -3.6, -4, -2.6};
static const double advantage[] = {1, -2, .5, 1.5, -.7, 1, -3};

static void near(double x, double expected, double tolerance)
{
    if (!(fabs(x - expected) <= tolerance))
        fail_msg("%.12g, expected %.12g", x, expected);
}

static void policy_loss(double dual, double loss, const double *slope)
{
    struct ppo_clip clip = {.low = .2, .high = .3, .dual = dual};
    struct ppo_sums sums = {0};
    double d[7];

    ppo_policy_loss(&clip, logp, logp_old, advantage, NULL, 7, 7, d, &sums);
    near(sums.policy_loss, loss, 1e-12);
    for (int i = 0; i < 7; i++)
        near(d[i], slope[i], 1e-8);
    assert_true(sums.clipped == 5 && sums.steps == 7);
    near(sums.ratio_max, 4.953032424395115, 1e-12);
}

static void clipped_policy_loss(void **state)
{
    (void)state;
    policy_loss(0, 2.0256299304745573, (double[]) {-0.15788155982576768, 0, -0.07142857150199688, 0, 0.18221188025080437, 0,
                                                   2.12272818189696});
    policy_loss(3, 1.1886160343052221, (double[]) {-0.15788155982576768, 0, -0.07142857150199688, 0, 0.18221188013978207, 0, 0});
}

static void shards_add_up(void **state)
{
    struct ppo_clip clip = {.low = .2, .high = .3};
    struct ppo_sums whole = {0}, a = {0}, b = {0};
    double d[7], parts[7];

    (void)state;
    ppo_policy_loss(&clip, logp, logp_old, advantage, NULL, 7, 7, d, &whole);
    ppo_policy_loss(&clip, logp, logp_old, advantage, NULL, 3, 7, parts, &a);
    ppo_policy_loss(&clip, logp + 3, logp_old + 3, advantage + 3, NULL, 4, 7, parts + 3, &b);
    ppo_sums_add(&a, &b);
    near(a.policy_loss, whole.policy_loss, 1e-14);
    assert_int_equal(a.steps, whole.steps);
    assert_memory_equal(d, parts, sizeof d);
}

static void stale_steps_weigh_less(void **state)
{
    struct ppo_clip clip = {.low = .2, .high = .2};
    struct ppo_sums one = {0}, half = {0};
    double d1[1], d2[1], w = .5;

    (void)state;
    ppo_policy_loss(&clip, logp, logp, advantage, NULL, 1, 1, d1, &one);
    ppo_policy_loss(&clip, logp, logp, advantage, &w, 1, 1, d2, &half);
    near(d2[0], d1[0] / 2, 1e-15);
    near(staleness_weight(-3, -1), exp(-2), 1e-15);
    near(staleness_weight(-1, -3), 2, 0);
}

static void k3_against_the_reference(void **state)
{
    float x[] = {-1, -2, -.3f}, ref[] = {-.9f, -2.5f, -.1f};
    double expected[] = {-0.0005258545904491055, 0.001967346701672, -0.0011070137911819294}, d[3] = {0};
    struct ppo_sums sums = {0};

    (void)state;
    kl_loss(KL_K3, x, ref, 3, 2, .01, d, &sums);
    near(sums.kl_loss, 0.0006655216797422548, 1e-9);
    for (int i = 0; i < 3; i++)
        near(d[i], expected[i], 1e-8);
    sums = (struct ppo_sums) {0};
    kl_loss(KL_K3, x, x, 3, 2, .01, d, &sums);
    assert_true(sums.kl_loss == 0);
}

static void value_is_half_a_square(void **state)
{
    double v[] = {1, -2}, target[] = {3, -2.5}, d[2];
    struct ppo_sums sums = {0};

    (void)state;
    value_loss(&(struct value_settings) {.coef = .5}, v, NULL, target, 2, 2, d, &sums);
    near(sums.value_loss, .5 * .5 * (4 + .25) / 2, 1e-15);
    near(d[0], .5 * -2 / 2, 1e-15);
    near(d[1], .5 * .5 / 2, 1e-15);
}

static void brake_looks_at_eight(void **state)
{
    struct kl_brake brake = {0};

    (void)state;
    for (int i = 0; i < 7; i++)
        assert_false(kl_brake_push(&brake, .01, .05));
    assert_false(kl_brake_push(&brake, .3, .05));       /* one bad minibatch: mean .046 */
    assert_true(kl_brake_push(&brake, .1, .05));
    assert_false(kl_brake_push(&(struct kl_brake) {0}, 9, 0));
    assert_true(kl_brake_push(&(struct kl_brake) {0}, .2, .05));       /* of fewer, the mean of those */
    assert_true(kl_brake_push(&(struct kl_brake) {0}, NAN, .05));
}

/* No figure is left out of the whole. */
static void every_sum_adds_up(void **state)
{
    const struct ppo_sums part = {.policy_loss = 1, .value_loss = 2, .kl_loss = 3, .entropy = 4, .ratio = 5, .ratio_max = 6,
                                  .approx_kl = 7, .ref_kl = 8, .importance = 9, .clipped = 10, .steps = 11, .tokens = 12,
                                  .decisions = 13};
    const struct ppo_sums twice = {.policy_loss = 2, .value_loss = 4, .kl_loss = 6, .entropy = 8, .ratio = 10, .ratio_max = 6,
                                   .approx_kl = 14, .ref_kl = 16, .importance = 18, .clipped = 20, .steps = 22, .tokens = 24,
                                   .decisions = 26};
    struct ppo_sums total = {0};

    (void)state;
    ppo_sums_add(&total, &part);
    ppo_sums_add(&total, &part);
    assert_memory_equal(&total, &twice, sizeof total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clipped_policy_loss), cmocka_unit_test(shards_add_up), cmocka_unit_test(stale_steps_weigh_less),
        cmocka_unit_test(k3_against_the_reference), cmocka_unit_test(value_is_half_a_square),
        cmocka_unit_test(brake_looks_at_eight), cmocka_unit_test(every_sum_adds_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
