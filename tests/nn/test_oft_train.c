/* OpenVLA-OFT in training: each kind imitates; what the actor drew of a chunk is what the learner finds; what was not executed of
 * it takes no part; the plain L1 head is refused by rl. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "tests/harness/oft_lab.h"
#include "tests/harness/scratch.h"
#include "train/checkpoint.h"
#include "train/passes.h"

enum { FRAME = OFT_LAB_FRAME, DIMS = OFT_LAB_DIMS, CHUNK = OFT_LAB_CHUNK, SLOTS = OFT_LAB_SLOTS, STATE = OFT_LAB_STATE };

static void each_kind_imitates(void **state)
{
    static const struct {
        enum oft_kind kind;
        double first_above, last_below;
    } cases[] = {
        {OFT_L1, 0.3, 0.25},
        {OFT_TOKENS, 5, 2.5},
        {OFT_LAPLACE, 0.2, 0.0},
    };
    const struct sft_config config = {.steps = 60, .batch = 8, .lr = 3e-3, .clip = 1, .beta2 = .95, .lr_end = 1};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct trainer *trainer = NULL;
        struct dataset *data;
        struct sft_result result;
        struct error error = {0};

        assert_int_equal(trainer_new(oft_lab_model(cases[i].kind), 1, NULL, &trainer), 0);
        data = oft_lab_demonstrations(trainer->model);
        if (objective_sft(trainer, data, &config, &(struct objective){.seed = 1}, &result, &error) < 0)
            fail_msg("%s", error.text);
        if (!(result.first_loss > cases[i].first_above && result.last_loss < cases[i].last_below))
            fail_msg("kind %d: loss %g, then %g", cases[i].kind, result.first_loss, result.last_loss);
        dataset_free(data);
        trainer_free(trainer);
    }
}

static const struct rl_config rl = {
    .temperature = 1,
    .reward = REWARD_SPARSE,
    .w_success = 1,
    .advantage = ADVANTAGE_GAE,
    .gamma = .99,
    .lambda = .95,
    .epochs = 1,
    .minibatch = 64,
    .clip_low = .2,
    .clip_high = .2,
    .lr = 1e-4,
    .clip = 1,
    .beta2 = .95,
    .kl = KL_EXACT,
    .kl_coef = .01,
    .value_coef = .5,
    .value_width = 16,
    .value_epochs = 1,
    .value_lr = 1e-3,
    .value_detach = true,
    .critic_time = true,
};

/* The data are freed. */
static struct ppo_result iterate_on(struct dataset *data, struct trainer *trainer, const struct openvla *reference,
                                    uint64_t version)
{
    struct ppo_result result;
    struct error error = {0};

    if (objective_ppo(trainer, reference, data, &rl, &(struct objective){.seed = 7, .stage = 4, .version = version}, &result,
                      &error) < 0)
        fail_msg("%s", error.text);
    dataset_free(data);
    return result;
}

static struct ppo_result iterate(struct trainer *trainer, const struct openvla *reference, uint64_t version)
{
    return iterate_on(oft_lab_rollouts(reference), trainer, reference, version);
}

/* The critic reads what the actor saw at each decision; where that did not come along, the learner asks again: the same bits. */
static void hidden_states_of_chunks(void **state)
{
    struct openvla *reference = NULL;
    struct trainer *trainers[2];
    struct ppo_result results[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct dataset *data;

        assert_int_equal(trainer_new(oft_lab_model(OFT_TOKENS), 1, NULL, &trainers[i]), 0);
        if (!reference) {
            assert_int_equal(openvla_clone(trainers[i]->model, &reference), 0);
            assert_int_equal(openvla_pack(reference, false), 0);
        }
        data = oft_lab_rollouts(reference);
        for (int e = 0; i && e < data->n; e++) {
            assert_non_null(data->list[e].hidden);
            free(data->list[e].hidden);
            data->list[e].hidden = NULL;
        }
        results[i] = iterate_on(data, trainers[i], reference, 3);
    }
    assert_true(results[0].value_loss > 0 && results[0].explained_variance != 0);
    assert_memory_equal(&results[0], &results[1], sizeof results[0]);
    assert_memory_equal(trainers[0]->model->params.values, trainers[1]->model->params.values,
                        (size_t)trainers[0]->model->params.numel * sizeof(float));
    for (int i = 0; i < 2; i++)
        trainer_free(trainers[i]);
    openvla_free(reference);
}

/* Before the first update the policy is the one that acted: the same log-probs, ratio 1, no KL. Episodes of 4, 5, 6, 7, 3, 4
 * steps are 2, 2, 2, 3, 1, 2 decisions. */
static void actor_and_learner_agree(void **state)
{
    static const enum oft_kind kinds[] = {OFT_TOKENS, OFT_LAPLACE};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct openvla *reference = NULL;
        struct trainer *trainer = NULL;
        struct ppo_result result;

        assert_int_equal(trainer_new(oft_lab_model(kinds[i]), 1, NULL, &trainer), 0);
        assert_int_equal(openvla_clone(trainer->model, &reference), 0);
        assert_int_equal(openvla_pack(reference, false), 0);
        result = iterate(trainer, reference, 3);
        assert_int_equal(result.steps, 12);
        assert_int_equal(result.logp_gap_tokens, (4 + 5 + 6 + 7 + 3 + 4) * DIMS); /* recorded tokens, no more */
        assert_true(result.logp_gap_max <= 1e-5);
        assert_true(fabs(result.ratio_mean - 1) < 1e-6 && result.clip_fraction == 0);
        assert_true(fabs(result.ref_kl) < 1e-4);
        assert_true(result.gradient_norm > 0 && result.updates == 1);
        result = iterate(trainer, reference, 4); /* played by an older version: the learner's own log-probs, weights */
        assert_true(result.ref_kl > 0);
        openvla_free(reference);
        trainer_free(trainer);
    }
}

/* Only what was executed has a gradient: a broken chunk gives the same update whatever the rest of it would have been. */
static void what_was_not_executed_takes_no_part(void **state)
{
    struct openvla *models[2] = {oft_lab_model(OFT_TOKENS), oft_lab_model(OFT_TOKENS)};
    struct trainer *trainers[2];
    struct openvla *reference = NULL;

    (void)state;
    assert_int_equal(openvla_clone(models[0], &reference), 0);
    assert_int_equal(openvla_pack(reference, false), 0);
    for (int i = 0; i < 2; i++) {
        struct dataset *data = NULL;
        struct ppo_result result;
        struct error error = {0};

        assert_int_equal(trainer_new(models[i], 1, NULL, &trainers[i]), 0);
        assert_int_equal(dataset_new(trainers[i]->model, &data), 0);
        oft_lab_add_rollout(data, reference, 1, 4);
        /* behind the recorded tokens of the last decision stand others: never to be read */
        data->list[0].tokens = realloc(data->list[0].tokens, (size_t)(4 + CHUNK) * DIMS * sizeof(int32_t));
        for (int k = 4 * DIMS; k < (4 + CHUNK) * DIMS; k++)
            data->list[0].tokens[k] = trainers[i]->model->config.vocab - 1 - i * 7;
        if (objective_ppo(trainers[i], reference, data, &rl, &(struct objective){.seed = 7, .stage = 4, .version = 3}, &result,
                          &error) < 0)
            fail_msg("%s", error.text);
        dataset_free(data);
    }
    assert_memory_equal(trainers[0]->model->params.values, trainers[1]->model->params.values,
                        (size_t)trainers[0]->model->params.numel * sizeof(float));
    for (int i = 0; i < 2; i++)
        trainer_free(trainers[i]);
    openvla_free(reference);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct trainer *trainer = NULL;
    struct dataset *data = NULL;
    struct ppo_result result;
    struct error error = {0};
    uint32_t tokens[4 * DIMS], turns[][2] = {{1, 3}, {0, 0}, {0, 4}};
    float logp[4 * DIMS], hidden[4 * 64] = {0};
    struct episode_input in = oft_lab_episode(9, 4);

    (void)state;
    assert_int_equal(trainer_new(oft_lab_model(OFT_TOKENS), 1, NULL, &trainer), 0);
    data = oft_lab_rollouts(trainer->model);
    for (int i = 0; i < 4 * DIMS; i++) {
        tokens[i] = (uint32_t)trainer->model->config.vocab - 1;
        logp[i] = -1;
    }
    in.tokens = tokens;
    in.logp = logp;
    in.n_tokens = in.n_logp = 4 * DIMS;
    in.n_turns = 2;
    for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
        in.turns = turns[i];
        assert_int_equal(dataset_add(data, &in, &error), -EINVAL);
        assert_non_null(strstr(error.text, "turns"));
    }
    in.turns = (const uint32_t[]){0, 3};
    in.hidden = hidden; /* a row a step, where there are two answers */
    in.n_hidden = 4 * (size_t)trainer->model->config.hidden;
    assert_true(in.n_hidden <= ARRAY_SIZE(hidden));
    assert_int_equal(dataset_add(data, &in, &error), -EINVAL);
    assert_non_null(strstr(error.text, "hidden states are of another size"));
    in.n_hidden = 0;
    in.n_turns = 1; /* four actions on one answer of three */
    in.turns = (const uint32_t[]){0};
    assert_int_equal(dataset_add(data, &in, &error), -EINVAL);
    free(in.frames);
    trainer->model->config.oft.kind = OFT_L1;
    assert_int_equal(
        objective_ppo(trainer, trainer->model, data, &rl, &(struct objective){.seed = 7, .version = 3}, &result, &error),
        -EINVAL);
    assert_string_equal(error.text, "a head of kind l1 has no probabilities; `gantry model oft --kind laplace` adds them");
    dataset_free(data);
    trainer_free(trainer);
}

/* An episode of which only what the policy was asked about was drawn: it sees the same. */
static void what_was_not_drawn_is_not_needed(void **state)
{
    struct openvla *model = oft_lab_model(OFT_TOKENS);
    struct dataset *data = NULL;
    struct train_episode *e;
    struct step_ref *steps;
    int n;
    struct error error = {0};
    static uint32_t tokens[5 * DIMS], turns[] = {0, 3}, observed[] = {0, 3, 5};
    static float logp[5 * DIMS];
    size_t one = (size_t)oft_lab_cameras * FRAME;
    struct episode_input in = oft_lab_episode(1, 5);

    (void)state;
    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 0; i < 5 * DIMS; i++) {
        tokens[i] = (uint32_t)model->config.vocab - 1;
        logp[i] = -1;
    }
    in.tokens = tokens;
    in.logp = logp;
    in.n_tokens = in.n_logp = 5 * DIMS;
    in.turns = turns;
    in.n_turns = 2;
    in.observed = observed;
    in.n_observed = 3;
    assert_int_equal(dataset_add(data, &in, &error), -EINVAL);          /* six pictures */
    assert_non_null(strstr(error.text, "frames"));
    in.n_frames = 3 * one;
    turns[1] = 2;
    assert_int_equal(dataset_add(data, &in, &error), -EINVAL);
    assert_non_null(strstr(error.text, "asked about an observation that was not drawn"));
    turns[1] = 3;
    if (dataset_add(data, &in, &error) < 0)
        fail_msg("%s", error.text);
    e = &data->list[0];
    for (int t = 0; t <= 5; t++)
        assert_ptr_equal(dataset_frame(data, (struct step_ref) {0, t}), e->frames + (t < 3 ? 0 : t < 5 ? 1 : 2) * one);
    for (int t = 0; t <= 5; t++)
        assert_int_equal(dataset_is_observed(data, (struct step_ref) {0, t}), t == 0 || t == 3 || t == 5);
    assert_int_equal(dataset_steps(data, NULL, NULL, &steps, &n), 0);
    assert_true(n == 2 && steps[0].step == 0 && steps[1].step == 3);    /* what imitation could learn from */
    free(steps);
    dataset_free(data);
    openvla_free(model);
}

/* Two demonstrations that differ in one thing only, the second picture or the state, and want opposite actions: a policy that
 * did not see the difference could not do better than 0.8 on average. */
static void second_picture_and_state_are_seen(void **state)
{
    const struct sft_config config = {.steps = 120, .batch = 8, .lr = 3e-3, .clip = 1, .beta2 = .95, .lr_end = 1,
                                      .augment = false};

    (void)state;
    for (int differ = 0; differ < 2; differ++) {
        struct trainer *trainer = NULL;
        struct dataset *data = NULL;
        struct sft_result result;
        struct error error = {0};
        float label[2][2 * DIMS], pose[3 * STATE];

        assert_int_equal(trainer_new(oft_lab_model(OFT_L1), 1, NULL, &trainer), 0);
        assert_int_equal(dataset_new(trainer->model, &data), 0);
        for (uint64_t id = 0; id < 2; id++) {
            struct episode_input in = oft_lab_episode(1, 2);

            for (int k = 0; k < 2 * DIMS; k++)
                label[id][k] = id ? .8f : -.8f;
            for (int k = 0; k < 3 * STATE; k++)
                pose[k] = id && differ ? 1.5f : -.5f;
            for (int t = 0; id && !differ && t < 3; t++)
                memset(in.frames + (size_t)(2 * t + 1) * FRAME, 200, FRAME);
            in.id = id + 1;
            in.demo = true;
            in.state = pose;
            in.label = label[id];
            in.n_label = 2 * DIMS;
            if (dataset_add(data, &in, &error) < 0)
                fail_msg("%s", error.text);
        }
        if (objective_sft(trainer, data, &config, &(struct objective){.seed = 1}, &result, &error) < 0)
            fail_msg("%s", error.text);
        if (!(result.last_loss < .2))
            fail_msg("differ %d: loss %g, then %g", differ, result.first_loss, result.last_loss);
        dataset_free(data);
        trainer_free(trainer);
    }
}

static void missing_pictures_and_states_are_refused(void **state)
{
    struct openvla *model = oft_lab_model(OFT_TOKENS);
    struct dataset *data = NULL;
    struct error error = {0};
    float label[4 * DIMS] = {0};
    struct episode_input in = oft_lab_episode(9, 4), bad;

    (void)state;
    assert_int_equal(dataset_new(model, &data), 0);
    in.demo = true;
    in.label = label;
    in.n_label = 4 * DIMS;
    bad = in;
    bad.images = 1;
    bad.n_frames /= 2;
    assert_int_equal(dataset_add(data, &bad, &error), -EINVAL);
    assert_string_equal(error.text, "episode 9: 1 pictures of each observation, the policy takes 2");
    bad = in;
    bad.n_state = 5 * 3;
    assert_int_equal(dataset_add(data, &bad, &error), -EINVAL);
    assert_string_equal(error.text, "episode 9: 3 numbers of the robot's state at each of 5 observations, the policy takes 8");
    model->stats[0].proprio = 0;
    assert_int_equal(dataset_add(data, &in, &error), -EINVAL);
    assert_non_null(strstr(error.text, "dataset_statistics.json"));
    free(in.frames);
    dataset_free(data);
    openvla_free(model);
}

/* A number of each parameter's first moment, under its name. */
static float *moment(struct trainer *t, const struct param *p)
{
    for (int i = 0; i < TRAIN_PARTS; i++)
        for (int k = 0; k < t->parts[i].n; k++)
            if (t->parts[i].ranges[k].begin == p->offset)
                return t->parts[i].adamw.m + p->offset - t->parts[i].begin;
    return NULL;
}

/* A value head that came to the model last is read before the action heads: what was learnt belongs to names, not to places. */
static void what_was_learnt_is_found_again(void **state)
{
    struct openvla *model = oft_lab_model(OFT_LAPLACE), *loaded = NULL;
    struct trainer *before = NULL, *after = NULL;
    char dir[SCRATCH_PATH];
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    assert_int_equal(trainer_new(model, 1, NULL, &before), 0);
    for (int i = 0; i < model->params.count; i++)
        if (moment(before, model->params.list[i]))
            *moment(before, model->params.list[i]) = (float)i + .5f;
    if (checkpoint_save(before, dir, &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(trainer_new(loaded, 1, NULL, &after), 0);
    if (checkpoint_load_state(after, dir, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < loaded->params.count; i++)
        for (int k = 0; k < model->params.count; k++)
            if (!strcmp(model->params.list[k]->name, loaded->params.list[i]->name) && moment(before, model->params.list[k]))
                assert_true(*moment(after, loaded->params.list[i]) == (float)k + .5f);
    trainer_free(before);
    trainer_free(after);
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_imitates),
        cmocka_unit_test(actor_and_learner_agree),
        cmocka_unit_test(what_was_not_executed_takes_no_part),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(what_was_not_drawn_is_not_needed),
        cmocka_unit_test(what_was_learnt_is_found_again),
        cmocka_unit_test(hidden_states_of_chunks),
        cmocka_unit_test_setup_teardown(actor_and_learner_agree, oft_lab_two_cameras_and_state, oft_lab_one_camera),
        cmocka_unit_test_setup_teardown(second_picture_and_state_are_seen, oft_lab_two_cameras_and_state, oft_lab_one_camera),
        cmocka_unit_test_setup_teardown(missing_pictures_and_states_are_refused, oft_lab_two_cameras_and_state,
                                        oft_lab_one_camera),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
