/* lib/train's choices of algorithm: how rewards, values and ratios are put together into what the losses see. The losses
 * themselves are held against torch in tests/unit/test_rl_cases.c, the whole of an iteration in test_objective.c. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rl/gae.h"
#include "tests/harness/train_lab.h"
#include "train/passes.h"
#include "train/ppo_batch.h"

static const struct rl_config base = {
    .temperature = 1, .reward = REWARD_PROGRESS, .w_progress = 1, .w_success = 1, .advantage = ADVANTAGE_GAE, .gamma = .99,
    .lambda = .95, .epochs = 1, .minibatch = 1000, .clip_low = .2, .clip_high = .2, .lr = 0, .clip = 0, .beta2 = .95,
    .kl = KL_NONE, .kl_coef = .01, .value_coef = .5, .value_width = 16, .value_epochs = 2, .value_lr = 1e-3, .value_detach = true,
    .critic_prm = true,
};

struct desk { struct trainer *trainer; struct openvla *actor; struct dataset *data; };

static int set_up(void **state)
{
    struct desk *d = calloc(1, sizeof *d);
    struct openvla *model = lab_model(1);

    assert_int_equal(openvla_add_value_head(model, 16, 1, 9), 0);
    d->trainer = lab_trainer(model, 2);
    d->actor = lab_packed_clone(d->trainer->model);
    d->data = lab_rollouts(d->actor);
    *state = d;
    return 0;
}

static int tear_down(void **state)
{
    struct desk *d = *state;

    dataset_free(d->data);
    openvla_free(d->actor);
    trainer_free(d->trainer);
    free(d);
    return 0;
}

static struct ppo_result run(struct desk *d, const struct rl_config *config, const struct openvla *reference)
{
    struct ppo_result result;
    struct error error = {0};

    if (objective_ppo(d->trainer, reference, d->data, config, &(struct objective) {.seed = 7, .version = 3}, &result, &error) < 0)
        fail_msg("%s", error.text);
    return result;
}

/* A batch with its advantages, as objective_ppo makes it before the first update. */
static struct ppo_batch *batch_of(struct desk *d, const struct rl_config *config, const struct openvla *reference)
{
    static struct objective objective;          /* the batch keeps a pointer */
    struct ppo_result result = {0};
    struct ppo_batch *b = NULL;
    struct error error = {0};
    int r;

    objective = (struct objective) {.seed = 7, .version = 3};
    r = ppo_batch_new(d->data, config, &objective, &b, &error);
    if (r >= 0)
        r = ppo_batch_observe(b, d->trainer, false, &error);
    if (r >= 0 && config->kl == KL_K1_REWARD)
        r = ppo_batch_reference(b, d->trainer, reference, &error);
    if (r >= 0)
        r = ppo_batch_advantages(b, d->trainer, &result, &error);
    if (r < 0)
        fail_msg("%s", error.text);
    return b;
}

static void near(const char *what, double x, double expected, double tolerance)
{
    if (!(fabs(x - expected) <= tolerance * MAX(1, fabs(expected))))
        fail_msg("%s: %.12g, expected %.12g", what, x, expected);
}

/* The value head says something of its own. */
static void teach(struct desk *d)
{
    struct rl_config config = base;

    config.critic_warmup = 1;
    config.value_lr = .05;
    assert_true(run(d, &config, NULL).value_updates > 0);
}

/* At ratio 1 a mean over a decision's tokens has the same value as one ratio, and a seventh of its gradient. */
static void a_ratio_for_each_token(void **state)
{
    struct desk *d = *state;
    struct rl_config config = base;
    struct ppo_result action, token;

    config.critic = CRITIC_NONE;        /* it would learn in between */
    config.loss_mean = LOSS_MEAN_EPISODE;       /* or the loss would be 0 */
    action = run(d, &config, NULL);
    config.ratio = RATIO_TOKEN;
    token = run(d, &config, NULL);
    near("loss", token.policy_loss, action.policy_loss, 1e-6);
    near("ratio", token.ratio_mean, 1, 1e-6);
    assert_true(fabs(action.policy_loss) > .01);
    near("gradient", token.gradient_norm * LAB_DIMS, action.gradient_norm, 1e-4);
    near("weight", token.importance_mean, 1, 1e-9);
    assert_true(action.gradient_norm > 0 && action.logp_gap_max <= 1e-5f && token.logp_gap_max <= 1e-5f);
}

/* Without a critic and with lambda 1 the advantage is the discounted reward to go, normalised; no value head is asked or
 * trained. */
static void without_a_critic(void **state)
{
    struct desk *d = *state;
    struct rl_config config = base;
    double to_go[LAB_EPISODES * LAB_MAX_STEPS];
    struct ppo_batch *b;
    int n = 0;

    config.critic = CRITIC_NONE;
    config.lambda = 1;
    b = batch_of(d, &config, NULL);
    for (int e = 0; e < d->data->n; e++) {
        const struct train_episode *episode = &d->data->list[e];

        for (int t = 0; t < episode->steps; t++, n++) {
            to_go[n] = 0;
            for (int k = t; k < episode->steps; k++) {
                bool last = k == episode->steps - 1;
                double next = episode->success && last ? 1 : (double)episode->progress[k + 1];

                to_go[n] += pow(.99, k - t) * (next - (double)episode->progress[k] + (episode->success && last));
            }
        }
    }
    assert_int_equal(b->n, n);
    normalise_advantages(to_go, n);
    for (int i = 0; i < n; i++)
        near("advantage", b->advantage[i], to_go[i], 1e-9);
    assert_false(b->critic);
    assert_int_equal(run(d, &config, NULL).value_updates, 0);
    ppo_batch_free(b);
}

/* An episode that is cut off goes on with the critic's word for its last picture: what the same head says of that picture when
 * the episode goes on. A success, and an episode that ended before its time, do not. */
static void cut_off_is_not_over(void **state)
{
    enum { CUT = 3 };
    struct desk *d = *state;
    struct rl_config config = base;
    struct train_episode *longest = NULL;
    struct ppo_batch *whole, *cut;
    double there = 0;
    int e = 0;

    teach(d);
    config.timeout = TIMEOUT_BOOTSTRAP;
    for (int i = 0; i < d->data->n; i++)
        if (!d->data->list[i].success && d->data->list[i].steps > CUT) {
            longest = &d->data->list[i];
            e = i;
        }
    assert_non_null(longest);
    whole = batch_of(d, &config, NULL);
    there = whole->values[whole->first[e] + CUT];
    for (int i = 0; i < d->data->n; i++)
        assert_true(!whole->cut[i] && whole->bootstrap[i] == 0);
    ppo_batch_free(whole);
    longest->steps = longest->max_steps = CUT;
    d->trainer->returns = (struct running) {0};
    cut = batch_of(d, &config, NULL);
    assert_true(cut->cut[e] && there != 0);
    assert_true(fabs(cut->bootstrap[e]) > 0);
    {
        int last = cut->first[e] + CUT - 1;
        double reward = (double)longest->progress[CUT] - (double)longest->progress[CUT - 1];

        near("return", cut->returns[last], reward + .99 * cut->bootstrap[e], 1e-12);
    }
    config.timeout = TIMEOUT_TERMINAL;
    ppo_batch_free(cut);
    cut = batch_of(d, &config, NULL);
    assert_true(!cut->cut[e] && cut->bootstrap[e] == 0);
    ppo_batch_free(cut);
    config.timeout = TIMEOUT_BOOTSTRAP;         /* it succeeds with its last step */
    longest->success = true;
    cut = batch_of(d, &config, NULL);
    assert_true(!cut->cut[e] && cut->bootstrap[e] == 0);
    ppo_batch_free(cut);
}

static void the_last_picture_is_valued_as_any_other(void **state)
{
    enum { CUT = 3 };
    struct desk *d = *state;
    struct rl_config config = base;
    struct running returns;
    struct ppo_batch *b;
    double there;
    int e = 0;

    teach(d);
    config.timeout = TIMEOUT_BOOTSTRAP;
    while (d->data->list[e].success || d->data->list[e].steps <= CUT)
        e++;
    returns = d->trainer->returns;
    b = batch_of(d, &config, NULL);
    there = b->values[b->first[e] + CUT];
    ppo_batch_free(b);
    d->data->list[e].steps = d->data->list[e].max_steps = CUT;
    d->trainer->returns = returns;
    b = batch_of(d, &config, NULL);
    assert_true(b->bootstrap[e] == there);      /* to the bit: the same picture, the same prompt, the same score */
    ppo_batch_free(b);
}

/* kl: k1_reward. With gamma 1 and no critic a step's return falls by what it and the later ones pay. */
static void divergence_is_taken_off_the_reward(void **state)
{
    struct desk *d = *state;
    struct openvla *other = lab_model(2);
    struct rl_config config = base;
    struct ppo_batch *plain, *taken;
    float logp[LAB_EPISODES * LAB_MAX_STEPS * LAB_DIMS];
    double mean = 0;
    int n;

    assert_int_equal(openvla_pack(other, false), 0);
    config.critic = CRITIC_NONE;
    config.lambda = config.gamma = 1;
    config.kl_coef = .3;
    plain = batch_of(d, &config, NULL);
    config.kl = KL_K1_REWARD;
    taken = batch_of(d, &config, other);
    n = plain->n;
    assert_int_equal(pass_policy(other, d->trainer->shards, d->data, plain->steps, n, 1, &(struct policy_pass) {.logp = logp}),
                     0);
    for (int i = n - 1; i >= 0; i--) {
        const struct train_episode *episode = &d->data->list[plain->steps[i].episode];
        bool last = plain->steps[i].step == episode->steps - 1;
        double kl = 0, later = last ? 0 : plain->returns[i + 1] - taken->returns[i + 1];

        for (int k = 0; k < LAB_DIMS; k++)
            kl += (double)episode->logp[plain->steps[i].step * LAB_DIMS + k] - (double)logp[i * LAB_DIMS + k];
        mean += kl / n;
        near("what a step pays", plain->returns[i] - taken->returns[i], .3 * kl + later, 1e-9);
    }
    near("reported", taken->kl_taken, mean, 1e-9);
    assert_null(taken->ref_logp);
    near("reported by the objective", run(d, &config, other).ref_kl, mean, 1e-9);
    config.kl_coef = 0;
    ppo_batch_free(taken);
    taken = batch_of(d, &config, other);
    for (int i = 0; i < n; i++)
        assert_true(taken->advantage[i] == plain->advantage[i]);
    ppo_batch_free(plain);
    ppo_batch_free(taken);
    openvla_free(other);
}

/* A mean over episodes: each weighs 1/N whatever its length. */
static void an_episode_counts_as_one(void **state)
{
    struct desk *d = *state;
    struct rl_config config = base;
    struct ppo_batch *step = batch_of(d, &config, NULL), *episode;

    config.loss_mean = LOSS_MEAN_EPISODE;
    d->trainer->returns = (struct running) {0};
    episode = batch_of(d, &config, NULL);
    for (int i = 0; i < step->n; i++) {
        int e = step->steps[i].episode, length = d->data->list[e].steps;

        near("weight", episode->advantage[i] / step->n, step->advantage[i] / (d->data->n * (double)length), 1e-12);
    }
    ppo_batch_free(step);
    ppo_batch_free(episode);
}

/* Groups without spread are taken out, wherever they stand: of the others each step keeps all that is known of it. */
static void what_carries_no_gradient_goes(void **state)
{
    enum { BY_TOKEN = LAB_DIMS };
    struct desk *d = *state;
    struct openvla *before = lab_model(2);      /* who played the old episodes */
    struct dataset *data = NULL;
    struct rl_config config = base;
    struct ppo_batch *all, *kept;
    int at = 0;

    assert_int_equal(openvla_pack(before, false), 0);
    assert_int_equal(dataset_new(d->trainer->model, &data), 0);
    for (int i = 1; i <= LAB_EPISODES; i++)
        lab_add_episode(data, i % 2 ? d->actor : before, (uint64_t)i, 2 + i % 3, false, i % 4 == 0);
    dataset_sort(data);
    for (int i = 0; i < data->n; i++) {
        data->list[i].task = 0;
        data->list[i].state_seed = (uint64_t)(i > 2);   /* the first three have failed alike */
        data->list[i].policy_version = i % 2 ? 2 : 3;
    }
    dataset_free(d->data);
    d->data = data;
    config.reward = REWARD_SPARSE;
    config.ratio = RATIO_TOKEN;
    all = batch_of(d, &config, NULL);
    config.advantage = ADVANTAGE_GROUP;
    kept = batch_of(d, &config, NULL);
    assert_true(kept->n < all->n && kept->ratios == BY_TOKEN && all->ratios == BY_TOKEN);
    for (int i = 0; i < all->n; i++) {
        if (all->steps[i].episode < 3)
            continue;
        assert_memory_equal(&kept->steps[at], &all->steps[i], sizeof kept->steps[at]);
        assert_int_equal(kept->actions[at], all->actions[i]);
        assert_memory_equal(kept->logp_old + at * BY_TOKEN, all->logp_old + i * BY_TOKEN, BY_TOKEN * sizeof *all->logp_old);
        assert_memory_equal(kept->importance + at * BY_TOKEN, all->importance + i * BY_TOKEN, BY_TOKEN * sizeof *all->importance);
        assert_true((all->importance[i * BY_TOKEN] != 1) == all->steps[i].episode % 2);
        at++;
    }
    assert_int_equal(at, kept->n);
    ppo_batch_free(all);
    ppo_batch_free(kept);
    openvla_free(before);
}

/* Under support full with an end token: ids below and above those of actions count, and whatever stands where the end is due. */
static void what_is_no_action_is_counted(void **state)
{
    struct desk *d = *state;
    const struct openvla_config *c = &d->actor->config;
    int all = 0;

    dataset_free(d->data);
    lab_full_support = lab_end_token = true;
    d->data = lab_rollouts(d->actor);
    lab_full_support = lab_end_token = false;
    assert_true(c->vocab < c->vocab_padded);
    for (int e = 0; e < d->data->n; e++)
        for (int k = 0; k < d->data->list[e].steps * d->data->token_dims; k++, all++)
            d->data->list[e].tokens[k] = k % (LAB_DIMS + 1) == LAB_DIMS ? c->eos_id : c->vocab - 1;
    assert_true(run(d, &base, NULL).other_ids == 0);
    d->data->list[0].tokens[0] = c->vocab - OPENVLA_ACTION_BINS - 1;
    d->data->list[0].tokens[1] = c->vocab - OPENVLA_ACTION_BINS;        /* the last bin: an action */
    d->data->list[0].tokens[2] = c->vocab;
    d->data->list[1].tokens[LAB_DIMS] = c->vocab - 1;
    near("others", run(d, &base, NULL).other_ids * all, 3, 1e-12);
}

static void who_else_has_played_is_refused(void **state)
{
    struct desk *d = *state;
    struct ppo_batch *b = NULL;
    struct error error = {0};

    d->data->list[3].temperature = 1.01;
    assert_int_equal(ppo_batch_new(d->data, &base, &(struct objective) {0}, &b, &error), -EINVAL);
    assert_non_null(strstr(error.text, "episode 4 was not sampled by the policy at temperature 1"));
    d->data->list[3].temperature = 1;
    d->data->list[5].demo = true;
    assert_int_equal(ppo_batch_new(d->data, &base, &(struct objective) {0}, &b, &error), -EINVAL);
    assert_non_null(strstr(error.text, "episode 6"));
    assert_null(b);
}

/* Every mode of KL starts at 0 on the reference itself, and where it is in the loss it is felt away from it. */
static void every_divergence(void **state)
{
    static const enum kl_mode modes[] = {KL_EXACT, KL_K3, KL_K2, KL_K1, KL_K1_REWARD};
    struct desk *d = *state;
    struct openvla *other = lab_model(2);

    assert_int_equal(openvla_pack(other, false), 0);
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rl_config config = base;
        struct ppo_result result;

        config.kl = modes[i];
        result = run(d, &config, d->actor);
        assert_true(fabs(result.ref_kl) < 1e-5 && fabs(result.kl_loss) < 1e-6);
        result = run(d, &config, other);
        if (modes[i] == KL_K1_REWARD)
            assert_true(result.ref_kl != 0 && result.kl_loss == 0);
        else
            near("loss", result.kl_loss, .01 * result.ref_kl, 1e-9);
        assert_true(modes[i] == KL_K1 || modes[i] == KL_K1_REWARD || result.ref_kl > .01);
    }
    openvla_free(other);
}

/* The value loss in one pass with the policy: clipped and linear errors are felt. */
static void a_value_loss_in_the_trunk(void **state)
{
    struct desk *d = *state;
    struct rl_config config = base;
    struct ppo_result square, linear;

    teach(d);
    config.value_detach = false;
    config.value_lr = 0;
    square = run(d, &config, NULL);
    config.value_huber = .05;
    linear = run(d, &config, NULL);
    assert_true(square.value_loss > linear.value_loss && linear.value_loss > 0);
    assert_true(square.value_updates == 0 && square.updates == 1);
}

/* All advantages train, and move the policy only where they are told to. */
static void every_advantage_trains(void **state)
{
    struct desk *d = *state;

    for (int i = 0; i < d->data->n; i++)        /* groups of five */
        d->data->list[i].state_seed = 0;
    for (int mode = ADVANTAGE_GAE; mode <= ADVANTAGE_REINFORCE; mode++) {
        struct rl_config config = base;
        struct ppo_result result;

        config.advantage = (enum advantage_mode)mode;
        config.clip_high = .28;
        config.clip_dual = 3;
        config.lr = 1e-4;
        config.entropy_coef = .001;
        result = run(d, &config, NULL);
        assert_true(result.updates == 1 && result.gradient_norm > 0 && result.entropy > 0);
        d->trainer->returns = (struct running) {0};
        dataset_free(d->data);
        openvla_free(d->actor);
        d->actor = lab_packed_clone(d->trainer->model);
        d->data = lab_rollouts(d->actor);
        for (int i = 0; i < d->data->n; i++)
            d->data->list[i].state_seed = 0;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_ratio_for_each_token), TEST(without_a_critic), TEST(cut_off_is_not_over),
        TEST(the_last_picture_is_valued_as_any_other),
        TEST(divergence_is_taken_off_the_reward), TEST(an_episode_counts_as_one), TEST(what_carries_no_gradient_goes),
        TEST(what_is_no_action_is_counted), TEST(who_else_has_played_is_refused), TEST(every_divergence),
        TEST(a_value_loss_in_the_trunk), TEST(every_advantage_trains),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
