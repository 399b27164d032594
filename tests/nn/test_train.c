/* lib/train on a random model a few thousand numbers wide: it learns, and it does so to the bit whatever the threads,
 * the ranks, or a restart in between. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "tests/harness/train_lab.h"
#include "train/checkpoint.h"
#include "train/objective.h"
#include "train/passes.h"

static const struct rl_config rl = {
    .temperature = 1, .reward = REWARD_PROGRESS, .w_progress = 1, .w_success = 1, .advantage = ADVANTAGE_GAE, .gamma = .99,
    .lambda = .95, .epochs = 2,
    .minibatch = 12, .clip_low = .2, .clip_high = .2, .lr = 1e-3, .lr_ramp = 3, .weight_decay = .01, .clip = 1, .beta2 = .95,
    .kl = KL_EXACT, .kl_coef = .01,
    .value_coef = .5, .value_width = 16, .value_epochs = 2, .value_lr = 1e-3, .value_detach = true, .critic_time = true,
    .critic_prm = true,
};

/* One PPO iteration on the trainer; reference is a packed model. The hidden states of every n-th episode are lost. */
static struct ppo_result iterate_forgetting(struct trainer *trainer, const struct openvla *reference,
                                            const struct rl_config *config, uint64_t iteration, int every)
{
    struct openvla *actor = NULL;
    struct dataset *data;
    struct ppo_result result;
    struct error error = {0};

    assert_int_equal(openvla_clone(trainer->model, &actor), 0);
    assert_int_equal(openvla_pack(actor, false), 0);
    data = lab_rollouts(actor);
    for (int i = 0; every && i < data->n; i += every) {
        free(data->list[i].hidden);
        data->list[i].hidden = NULL;
    }
    if (objective_ppo(trainer, reference, data, config, &(struct objective) {.seed = 7, .stage = 4, .iteration = iteration,
                                                                             .version = 3}, &result, &error) < 0)
        fail_msg("%s", error.text);
    dataset_free(data);
    openvla_free(actor);
    return result;
}

static struct ppo_result iterate(struct trainer *trainer, const struct openvla *reference, const struct rl_config *config,
                                 uint64_t iteration)
{
    return iterate_forgetting(trainer, reference, config, iteration, 0);
}

static struct openvla *with_value_head(uint64_t seed)
{
    struct openvla *model = lab_model(seed);

    assert_int_equal(openvla_add_value_head(model, 16, 2, 9), 0);
    return model;
}

static void same_bits(const struct trainer *a, const struct trainer *b)
{
    assert_int_equal(a->model->params.numel, b->model->params.numel);
    assert_memory_equal(a->model->params.values, b->model->params.values, (size_t)a->model->params.numel * sizeof(float));
    for (int i = 0; i < TRAIN_PARTS; i++) {
        size_t bytes = (size_t)(a->parts[i].end - a->parts[i].begin) * sizeof(float);

        if (!bytes)
            continue;
        assert_int_equal(a->parts[i].adamw.step, b->parts[i].adamw.step);
        assert_memory_equal(a->parts[i].adamw.m, b->parts[i].adamw.m, bytes);
        assert_memory_equal(a->parts[i].adamw.v, b->parts[i].adamw.v, bytes);
    }
    assert_memory_equal(&a->returns, &b->returns, sizeof a->returns);
}

/* ---- it learns --------------------------------------------------------------------------------------- */

static void imitation_learns_two_frames(void **state)
{
    struct trainer *trainer = lab_trainer(lab_model(1), 2);
    struct dataset *data = lab_demonstrations(trainer->model, 2);
    struct sft_config config = {.steps = 150, .batch = 2, .lr = 1e-2, .clip = 1, .beta2 = .95, .warmup = 5, .lr_end = .1};
    struct sft_result result;
    struct error error = {0};

    (void)state;
    assert_int_equal(objective_sft(trainer, data, &config, &(struct objective) {.seed = 1}, &result, &error), 0);
    assert_true(result.first_loss > 5);     /* ln 1088 = 7.0 */
    if (!(result.last_loss < .5))
        fail_msg("loss %g -> %g", result.first_loss, result.last_loss);
    assert_int_equal(result.skipped, 0);
    dataset_free(data);
    trainer_free(trainer);
}

enum { CURVE = 10 };

static bool note_loss(void *arg, const char *what, int64_t done, int64_t total, double loss)
{
    (void)what;
    (void)total;
    ((double *)arg)[done - 1] = loss;
    return true;
}

static void a_fast_curve_goes_beside_the_strict_one(void **state)
{
    const struct sft_config config = {.steps = CURVE, .batch = 4, .lr = 5e-3, .clip = 1, .beta2 = .95, .lr_end = 1};
    double curve[2][CURVE] = {0};

    (void)state;
    for (int f = 0; f < 2; f++) {
        struct train_watch watch = {note_loss, curve[f]};
        struct sft_result result;
        struct error error = {0};
        struct trainer *trainer;
        struct dataset *data;

        lab_fast = f;
        trainer = lab_trainer(lab_model(1), 2);
        data = lab_demonstrations(trainer->model, 4);
        assert_int_equal(objective_sft(trainer, data, &config, &(struct objective) {.seed = 1, .watch = &watch}, &result, &error), 0);
        assert_int_equal(result.skipped, 0);        /* every gradient was finite */
        dataset_free(data);
        trainer_free(trainer);
    }
    assert_true(curve[0][CURVE - 1] < curve[0][0] - 1);
    for (int i = 0; i < CURVE; i++)
        if (!(fabs(curve[1][i] - curve[0][i]) <= .02 * curve[0][0]) || curve[1][i] == curve[0][i])
            fail_msg("step %d: fast %g, strict %g", i, curve[1][i], curve[0][i]);
}

static void reward_model_learns_labels(void **state)
{
    struct openvla *model = lab_model(1);
    struct trainer *trainer;
    struct dataset *data;
    struct prm_config config = {.steps = 60, .batch = 16, .lr = 3e-3, .clip = 1, .demo_fraction = .25, .holdout = .3,
                                .gate_mid = .65, .gate_last = .85, .gate_margin = .1, .force = true};
    struct prm_result result;
    struct error error = {0};

    (void)state;
    assert_int_equal(openvla_add_reward_head(model, 16, 3), 0);
    trainer = lab_trainer(model, 2);
    data = lab_rollouts(trainer->model);
    if (objective_prm(trainer, data, &config, &(struct objective) {.seed = 1}, &result, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(result.last_loss < .7 * result.first_loss);
    assert_true(result.prm.episodes > 0 && result.prm.episodes < LAB_EPISODES);
    assert_true(result.gate_passed);        /* by force: the text says so or says passed */
    assert_true(strstr(result.gate_text, "force") || strstr(result.gate_text, "passed"));
    dataset_free(data);
    trainer_free(trainer);
}

/* ---- actor and learner agree --------------------------------------------------------------------------- */

/* First picture, two before the present one (the first stands in where there are none), the present one: in training as at the server. */
static void a_history_is_shown(void **state)
{
    struct openvla *model = lab_model(1);
    struct openvla_session *session = NULL;
    struct trainer *trainer;
    struct dataset *data;
    float trained[8], served;
    int e = 0;

    (void)state;
    assert_int_equal(openvla_add_reward_head(model, 32, 3), 0);
    model->config.reward_history = 2;
    for (int i = 0; i < model->params.count; i++)
        if (!strcmp(model->params.list[i]->name, "reward_head.fc2.weight"))     /* it begins at zero */
            for (int k = 0; k < 32; k++)
                model->params.list[i]->value[k] = sinf((float)k);
    trainer = lab_trainer(model, 2);
    data = lab_rollouts(model);
    assert_int_equal(openvla_session_new(&model->config, 1, &session), 0);
    while (data->list[e].steps < 5)
        e++;
    assert_int_equal(pass_reward(model, trainer->shards, data, (struct step_ref[]) {{e, 0}, {e, 1}, {e, 2}, {e, 5}}, 4, NULL, trained), 0);
    for (int i = 0; i < 4; i++) {
        static const int shown[4][4] = {{0, 0, 0, 0}, {0, 0, 0, 1}, {0, 0, 1, 2}, {0, 3, 4, 5}};
        const struct dataset_prompt *prompt = &data->prompts[data->list[e].prompt];
        struct score_item item = {.n_images = 4, .prompt = prompt->reward_ids, .n_prompt = prompt->n_reward};

        for (int k = 0; k < 4; k++)
            item.images[k] = data->list[e].frames + shown[i][k] * LAB_FRAME;
        assert_int_equal(openvla_score(model, session, &item, 1, &served), 0);
        assert_true(served == trained[i]);
        assert_true(i == 0 || trained[i] != trained[i - 1]);
    }
    openvla_session_free(session);
    dataset_free(data);
    trainer_free(trainer);
}

static void without_a_step_the_ratio_is_one(void **state)
{
    struct trainer *trainer = lab_trainer(with_value_head(1), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);
    struct rl_config config = rl;
    struct ppo_result result;

    (void)state;
    config.lr = 0;
    result = iterate(trainer, reference, &config, 0);
    assert_true(result.logp_gap_max <= 1e-5);
    assert_true(fabs(result.ratio_mean - 1) < 1e-4 && fabs(result.ratio_max - 1) < 1e-3);
    assert_true(result.clip_fraction == 0);
    assert_true(result.ref_kl == 0);        /* the very same model: to the bit */
    assert_true(result.kl_loss == 0 && result.gradient_norm > 0);
    config.kl = KL_K3;
    result = iterate(trainer, reference, &config, 0);
    assert_true(result.ref_kl == 0);
    openvla_free(reference);
    trainer_free(trainer);
}

static void after_updates_they_still_agree(void **state)
{
    struct trainer *trainer = lab_trainer(with_value_head(1), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);

    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        struct ppo_result result = iterate(trainer, reference, &rl, i);

        assert_true(result.logp_gap_max <= 1e-5);
        assert_true(result.updates > 0 && (i == 0 || result.ref_kl > 0));
    }
    openvla_free(reference);
    trainer_free(trainer);
}

/* What the actor recorded stands for the learner's own pass; an episode whose hidden states are missing is asked about again. */
static void hidden_states_of_the_actor_are_the_learners(void **state)
{
    struct openvla *reference = NULL;
    struct trainer *trainers[3];

    (void)state;
    for (int i = 0; i < 3; i++) {       /* none lost, all, every second */
        struct ppo_result result;

        trainers[i] = lab_trainer(with_value_head(1), 1 + i);
        if (!reference)
            reference = lab_packed_clone(trainers[i]->model);
        for (uint64_t round = 0; round < 2; round++) {
            result = iterate_forgetting(trainers[i], reference, &rl, round, i);
            assert_true(result.logp_gap_max == 0 && result.logp_gap_tokens > 0);
        }
        same_bits(trainers[0], trainers[i]);
    }
    for (int i = 0; i < 3; i++)
        trainer_free(trainers[i]);
    openvla_free(reference);
}

/* The gap is a measurement: an actor that says something else is found out, with and without an update to follow. */
static void a_gap_is_seen(void **state)
{
    struct trainer *trainer = lab_trainer(with_value_head(1), 2);
    struct openvla *actor = lab_packed_clone(trainer->model);
    struct rl_config config = rl;

    (void)state;
    config.minibatch = 1000;            /* the first one holds every step */
    for (int warmup = 1; warmup >= 0; warmup--) {
        struct dataset *data = lab_rollouts(actor);
        struct ppo_result result;
        struct error error = {0};

        data->list[3].logp[2] -= .25f;
        config.critic_warmup = warmup;
        if (objective_ppo(trainer, actor, data, &config, &(struct objective) {.seed = 7, .version = 3}, &result, &error) < 0)
            fail_msg("%s", error.text);
        assert_true(result.warmup == (warmup == 1));
        assert_true(fabs(result.logp_gap_max - .25) < 1e-4 && result.logp_gap_mean < .01);
        dataset_free(data);
    }
    openvla_free(actor);
    trainer_free(trainer);
}

static void warmup_moves_the_critic_alone(void **state)
{
    struct trainer *trainer = lab_trainer(with_value_head(1), 1);
    struct openvla *before = lab_packed_clone(trainer->model);
    struct rl_config config = rl;
    struct ppo_result result;
    const struct part *trunk = &trainer->parts[TRAIN_TRUNK], *value = &trainer->parts[TRAIN_VALUE];
    bool moved = false;

    (void)state;
    config.critic_warmup = 1;
    result = iterate(trainer, before, &config, 0);
    assert_true(result.warmup && result.updates == 0 && result.value_updates > 0);
    for (int i = 0; i < trunk->n; i++)
        assert_memory_equal(trainer->model->params.values + trunk->ranges[i].begin,
                            before->params.values + trunk->ranges[i].begin,
                            (size_t)(trunk->ranges[i].end - trunk->ranges[i].begin) * sizeof(float));
    for (int64_t i = value->begin; i < value->end; i++)
        moved |= trainer->model->params.values[i] != before->params.values[i];
    assert_true(moved);
    openvla_free(before);
    trainer_free(trainer);
}

/* ---- to the bit ------------------------------------------------------------------------------------------ */

static void threads_change_nothing(void **state)
{
    struct trainer *one = lab_trainer(with_value_head(1), 1), *three = lab_trainer(with_value_head(1), 3);
    struct openvla *reference = lab_packed_clone(one->model);
    struct rl_config joint = rl;

    (void)state;
    joint.value_detach = false;
    for (uint64_t i = 0; i < 2; i++) {
        struct ppo_result a = iterate(one, reference, i ? &joint : &rl, i), b = iterate(three, reference, i ? &joint : &rl, i);

        assert_memory_equal(&a, &b, sizeof a);
    }
    same_bits(one, three);
    openvla_free(reference);
    trainer_free(one);
    trainer_free(three);
}

static void resume_changes_nothing(void **state)
{
    char dir[] = "/tmp/gantry-test-train.XXXXXX", command[128];
    struct trainer *whole = lab_trainer(with_value_head(1), 2), *resumed;
    struct openvla *reference = lab_packed_clone(whole->model), *loaded = NULL;
    struct error error = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)iterate(whole, reference, &rl, 0);
    whole->stage = 4;
    whole->reference = 2;
    if (checkpoint_save(whole, dir, &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    resumed = lab_trainer(loaded, 2);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 0);
    assert_int_equal(resumed->stage, 4);
    assert_int_equal(resumed->reference, 2);
    same_bits(whole, resumed);
    (void)iterate(whole, reference, &rl, 1);
    (void)iterate(resumed, reference, &rl, 1);
    same_bits(whole, resumed);

    /* torn: refused by name, nothing half-restored */
    snprintf(command, sizeof command, "%s/train_state.safetensors", dir);
    assert_int_equal(truncate(command, 100), 0);
    assert_true(checkpoint_load_state(resumed, dir, &error) < 0);
    same_bits(whole, resumed);
    assert_int_equal(unlink(command), 0);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 1);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    openvla_free(reference);
    trainer_free(whole);
    trainer_free(resumed);
}

/* bf16 weights: passes see bf16, AdamW moves fp32 masters; what is saved is what acts; a restart changes no bit. */
static void bf16_weights_have_masters(void **state)
{
    char dir[] = "/tmp/gantry-test-train.XXXXXX", command[128];
    struct trainer *whole = lab_trainer(with_value_head(1), 2), *resumed;
    struct openvla *reference = lab_packed_clone(whole->model), *loaded = NULL;
    struct error error = {0};
    const struct part *trunk;
    int hidden = 0;

    (void)state;
    assert_int_equal(trainer_use_bf16(whole), -EDOM);       /* fresh weights are not bf16 */
    trainer_free(whole);
    assert_non_null(mkdtemp(dir));
    if (openvla_save(reference, dir, "BF16", &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    openvla_free(reference);
    whole = lab_trainer(loaded, 2);
    assert_int_equal(trainer_use_bf16(whole), 0);
    reference = lab_packed_clone(whole->model);
    for (uint64_t i = 0; i < 2; i++)
        (void)iterate(whole, reference, &rl, i);
    trunk = &whole->parts[TRAIN_TRUNK];
    for (int i = 0; i < trunk->n; i++)
        for (int64_t k = trunk->ranges[i].begin; k < trunk->ranges[i].end; k++) {
            float value = whole->params->values[k], master = whole->masters[k - trunk->begin];
            uint16_t half = float_to_bf16(master);

            assert_int_equal(half, float_to_bf16(value));
            assert_true(value == reference->params.values[k] || half != float_to_bf16(reference->params.values[k]));
            hidden += value == reference->params.values[k] && master != value;
        }
    assert_true(hidden > 100);          /* steps too small for bf16 are not lost */
    snprintf(command, sizeof command, "rm -rf %s; mkdir %s", dir, dir);
    assert_int_equal(system(command), 0);
    loaded = NULL;
    if (checkpoint_save(whole, dir, &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < trunk->n; i++)
        assert_memory_equal(loaded->params.values + trunk->ranges[i].begin, whole->params->values + trunk->ranges[i].begin,
                            (size_t)(trunk->ranges[i].end - trunk->ranges[i].begin) * sizeof(float));
    resumed = lab_trainer(loaded, 1);
    assert_int_equal(trainer_use_bf16(resumed), 0);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 0);
    (void)iterate(whole, reference, &rl, 2);
    (void)iterate(resumed, reference, &rl, 2);
    assert_memory_equal(whole->masters, resumed->masters, (size_t)(trunk->end - trunk->begin) * sizeof(float));
    same_bits(whole, resumed);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    openvla_free(reference);
    trainer_free(whole);
    trainer_free(resumed);
}

/* Two ranks in two threads: gather through a shared buffer. */
struct pair { pthread_barrier_t barrier; char *bytes; };
struct rank { struct pair *pair; int rank; struct trainer *trainer; struct openvla *reference; };

static int gather(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    struct rank *rank = arg;

    memcpy(rank->pair->bytes + (size_t)rank->rank * bytes, mine, bytes);
    pthread_barrier_wait(&rank->pair->barrier);
    memcpy(ret_all, rank->pair->bytes, 2 * bytes);
    pthread_barrier_wait(&rank->pair->barrier);
    return 0;
}

static void *play_rank(void *arg)
{
    struct rank *rank = arg;

    for (uint64_t i = 0; i < 2; i++)
        (void)iterate(rank->trainer, rank->reference, &rl, i);
    return NULL;
}

static void ranks_change_nothing(void **state)
{
    struct trainer *alone = lab_trainer(with_value_head(1), 2);
    struct pair pair = {.bytes = malloc((size_t)alone->model->params.numel * 2 * sizeof(float))};
    struct rank rank[2];
    pthread_t thread[2];

    (void)state;
    pthread_barrier_init(&pair.barrier, NULL, 2);
    for (int i = 0; i < 2; i++) {
        rank[i] = (struct rank) {.pair = &pair, .rank = i, .reference = lab_packed_clone(alone->model)};
        assert_int_equal(trainer_new(with_value_head(1), 1, &(struct group) {.rank = i, .ranks = 2, .gather = gather,
                                                                             .arg = &rank[i]},
                                     &rank[i].trainer), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, play_rank, &rank[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    for (uint64_t i = 0; i < 2; i++)
        (void)iterate(alone, rank[0].reference, &rl, i);
    same_bits(alone, rank[0].trainer);
    same_bits(alone, rank[1].trainer);
    for (int i = 0; i < 2; i++) {
        trainer_free(rank[i].trainer);
        openvla_free(rank[i].reference);
    }
    pthread_barrier_destroy(&pair.barrier);
    free(pair.bytes);
    trainer_free(alone);
}

/* ---- bad input ---------------------------------------------------------------------------------------------- */

static void a_gradient_that_is_no_number_is_skipped(void **state)
{
    struct trainer *trainer = lab_trainer(lab_model(1), 1);
    struct dataset *data = lab_demonstrations(trainer->model, 2);
    struct sft_config config = {.steps = 3, .batch = 2, .lr = 1e-2, .clip = 1, .beta2 = .95, .lr_end = 1};
    struct sft_result result;
    struct error error = {0};
    float *values = trainer->model->params.values, kept = values[trainer->parts[TRAIN_TRUNK].ranges[1].begin];

    (void)state;
    values[trainer->parts[TRAIN_TRUNK].ranges[0].begin] = NAN;
    assert_int_equal(openvla_pack(trainer->model, true), 0);
    assert_int_equal(objective_sft(trainer, data, &config, &(struct objective) {.seed = 1}, &result, &error), 0);
    assert_int_equal(result.skipped, 3);
    assert_true(values[trainer->parts[TRAIN_TRUNK].ranges[1].begin] == kept);
    dataset_free(data);
    trainer_free(trainer);
}

/* Random changes are drawn by the sample's number: the same whatever the threads, and they matter. The policy crops from then on. */
static void augmented_imitation_repeats(void **state)
{
    const struct sft_config plain = {.steps = 3, .batch = 4, .lr = 1e-3, .clip = 1, .beta2 = .95, .lr_end = 1};
    struct sft_config augmented = plain;
    struct trainer *trainers[3];
    struct sft_result results[3];
    struct error error = {0};

    (void)state;
    augmented.augment = true;
    for (int i = 0; i < 3; i++) {
        struct dataset *data;

        trainers[i] = lab_trainer(lab_model(2), 1 + i);
        data = lab_demonstrations(trainers[i]->model, 3);
        if (objective_sft(trainers[i], data, i < 2 ? &augmented : &plain, &(struct objective) {.seed = 1}, &results[i], &error) < 0)
            fail_msg("%s", error.text);
        assert_true(trainers[i]->model->config.center_crop == (i < 2 ? 0.9f : 0.0f));
        assert_string_equal(trainers[i]->model->config.image_chain, "render");
        dataset_free(data);
    }
    same_bits(trainers[0], trainers[1]);
    assert_true(results[0].last_loss == results[1].last_loss && results[0].last_loss != results[2].last_loss);
    for (int i = 0; i < 3; i++)
        trainer_free(trainers[i]);
}

/* Sampled from the whole vocabulary: the learner finds the same log-probs, and counts the tokens that are no actions. */
static void full_support_agrees_too(void **state)
{
    struct trainer *trainer = lab_trainer(with_value_head(2), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);
    struct ppo_result result;

    (void)state;
    lab_full_support = true;
    result = iterate(trainer, reference, &rl, 0);
    lab_full_support = false;
    assert_true(result.logp_gap_tokens > 0 && result.logp_gap_max <= 1e-5);
    assert_true(result.other_ids > 0 && result.other_ids < 1);
    assert_true(result.updates > 0 && isfinite(result.ref_kl));
    assert_true(iterate(trainer, reference, &rl, 1).other_ids == 0);
    openvla_free(reference);
    trainer_free(trainer);
}

/* eos_in_logp: an end token is sampled behind each action and counts like the others: in the ratios, the KL, the count per action. */
static void end_tokens_count(void **state)
{
    struct trainer *trainer = lab_trainer(with_value_head(2), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);
    struct dataset *data = NULL;
    struct ppo_result with, without;
    struct error error = {0};

    (void)state;
    lab_full_support = true;
    without = iterate(trainer, reference, &rl, 0);
    lab_end_token = true;
    with = iterate(trainer, reference, &rl, 0);
    assert_true(with.logp_gap_max <= 1e-5 && with.logp_gap_tokens * LAB_DIMS == without.logp_gap_tokens * (LAB_DIMS + 1));
    assert_true(with.ratio_mean > 0 && isfinite(with.ref_kl) && with.updates > 0);
    data = lab_rollouts(trainer->model);
    lab_end_token = false;
    assert_int_equal(data->token_dims, LAB_DIMS + 1);
    for (int e = 0; e < data->n; e++)
        for (int t = 0; t < data->list[e].steps; t++)
            assert_in_range(data->list[e].tokens[t * data->token_dims + LAB_DIMS], 0, data->model->config.vocab_padded - 1);
    dataset_free(data);

    /* a demonstration has one where the data set has; imitation is the same, with it or without */
    assert_int_equal(dataset_new(trainer->model, &data), 0);
    assert_int_equal(dataset_expect_end(data, &error), 0);
    lab_add_episode(data, trainer->model, 1, 2, true, true);
    assert_int_equal(data->list[0].tokens[LAB_DIMS], trainer->model->config.eos_id);
    assert_true(data->list[0].tokens[LAB_DIMS + 1] >= trainer->model->config.vocab - OPENVLA_ACTION_BINS);
    lab_full_support = false;
    dataset_free(data);
    openvla_free(reference);
    trainer_free(trainer);
}

static void bad_episodes_are_refused_by_name(void **state)
{
    struct openvla *model = lab_model(1);
    struct dataset *data = NULL;
    uint8_t *frames = lab_noise_frames(1, 3);
    float logp[2 * LAB_DIMS], progress[3] = {.1f, NAN, .2f};
    uint32_t tokens[2 * LAB_DIMS];
    struct error error = {0};
    struct episode_input in = {.id = 42, .task = "t", .instruction = "i", .steps = 2, .max_steps = 8, .temperature = 1,
                               .height = LAB_SIDE, .width = LAB_SIDE,
                               .action_dims = LAB_DIMS, .frames = frames, .n_frames = 3 * LAB_FRAME, .images = 1, .tokens = tokens,
                               .n_tokens = 2 * LAB_DIMS, .logp = logp, .n_logp = 2 * LAB_DIMS};
    struct episode_input bad;

    (void)state;
    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 0; i < 2 * LAB_DIMS; i++) {
        tokens[i] = (uint32_t)model->config.vocab - 1;
        logp[i] = -1;
    }
#define REFUSED(change)                                                     \
    do {                                                                    \
        bad = in;                                                           \
        change;                                                             \
        error = (struct error) {0};                                         \
        assert_int_equal(dataset_add(data, &bad, &error), -EINVAL);         \
        assert_non_null(strstr(error.text, "42"));                          \
    } while (0)
    REFUSED(bad.n_frames -= LAB_FRAME);
    REFUSED((bad.progress = progress, bad.n_progress = 3));
    REFUSED(bad.height = 32);
    REFUSED(bad.images = 2);     /* so many pictures are not there */
    REFUSED(bad.images = 0);
    snprintf(model->config.image_chain, sizeof model->config.image_chain, "render");
    REFUSED(bad.image_chain = "rot180+jpeg95+lanczos3");
    REFUSED(bad.steps = 0);
    REFUSED(bad.n_logp--);
    REFUSED(bad.temperature = 0);
    tokens[3] = 5;
    REFUSED((void)0);
    tokens[3] = (uint32_t)model->config.vocab - 1;
    logp[2] = NAN;
    REFUSED((void)0);
    logp[2] = -1;
    assert_int_equal(dataset_add(data, &in, &error), 0);
    assert_int_equal(data->n, 1);
    dataset_free(data);
    openvla_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imitation_learns_two_frames), cmocka_unit_test(reward_model_learns_labels),
            cmocka_unit_test(a_history_is_shown),
            cmocka_unit_test(without_a_step_the_ratio_is_one),
        cmocka_unit_test(after_updates_they_still_agree), cmocka_unit_test(hidden_states_of_the_actor_are_the_learners),
        cmocka_unit_test(a_gap_is_seen), cmocka_unit_test(warmup_moves_the_critic_alone),
            cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(resume_changes_nothing), cmocka_unit_test(bf16_weights_have_masters), cmocka_unit_test(ranks_change_nothing),
            cmocka_unit_test(a_gradient_that_is_no_number_is_skipped),
        cmocka_unit_test(full_support_agrees_too), cmocka_unit_test(end_tokens_count), cmocka_unit_test(augmented_imitation_repeats), cmocka_unit_test(bad_episodes_are_refused_by_name),
    };

    const struct CMUnitTest fast_tests[] = {
        cmocka_unit_test(a_fast_curve_goes_beside_the_strict_one), cmocka_unit_test(without_a_step_the_ratio_is_one),
        cmocka_unit_test(after_updates_they_still_agree), cmocka_unit_test(hidden_states_of_the_actor_are_the_learners),
        cmocka_unit_test(threads_change_nothing), cmocka_unit_test(resume_changes_nothing), cmocka_unit_test(bf16_weights_have_masters),
        cmocka_unit_test(ranks_change_nothing), cmocka_unit_test(full_support_agrees_too),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    if (!cpu_kernels()->gemm_bf16) {
        print_message("numerics: fast is not tested: no VDPBF16PS here\n");
        return failed;
    }
    lab_fast = true;               /* what holds in strict numerics holds here, to the bit */
    return failed + cmocka_run_group_tests(fast_tests, NULL, NULL);
}
