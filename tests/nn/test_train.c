/* lib/train on a random model a few thousand numbers wide: it learns, actor and learner agree, and what is wrong is refused. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/harness/train_lab.h"
#include "train/objective.h"
#include "train/passes.h"

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
    if (done)
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
        assert_int_equal(objective_sft(trainer, data, &config, &(struct objective) {.seed = 1, .watch = &watch}, &result, &error),
                         0);
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

/* Of every episode o_0, o_2 and o_T alone, or what is between them as one of those looks: it is judged the same. */
static void what_was_not_drawn_is_judged_by_what_was(void **state)
{
    struct openvla *model = lab_model(1);
    struct trainer *trainer;
    struct dataset *data[2];
    struct prm_judgement judgement[2];
    int episodes[LAB_EPISODES];

    (void)state;
    assert_int_equal(openvla_add_reward_head(model, 16, 3), 0);
    for (int i = 0; i < model->params.count; i++)
        if (!strcmp(model->params.list[i]->name, "reward_head.fc2.weight"))     /* it begins at zero */
            for (int k = 0; k < 16; k++)
                model->params.list[i]->value[k] = sinf((float)k);
    trainer = lab_trainer(model, 2);
    for (int drawn = 0; drawn < 2; drawn++) {
        data[drawn] = lab_rollouts(model);
        for (int i = 0; i < data[drawn]->n; i++) {
            struct train_episode *e = &data[drawn]->list[i];
            size_t one = (size_t)data[drawn]->cameras * data[drawn]->frame_size;
            int *observed;

            episodes[i] = i;
            if (e->steps <= 2)
                continue;
            observed = malloc(3 * sizeof *observed);
            assert_non_null(observed);
            memcpy(observed, ((int[]) {0, 2, e->steps}), 3 * sizeof *observed);
            for (int t = 1; t < e->steps && !drawn; t++)
                memcpy(e->frames + (size_t)t * one, e->frames + (size_t)(t < 2 ? 0 : 2) * one, one);
            for (int k = 1; k < 3 && drawn; k++)
                memmove(e->frames + (size_t)k * one, e->frames + (size_t)observed[k] * one, one);
            e->observed = drawn ? observed : NULL;
            e->n_observed = drawn ? 3 : 0;
            if (!drawn)
                free(observed);
        }
        assert_int_equal(prm_judge(model, trainer->shards, data[drawn], LABELS_SEGMENTS, episodes, data[drawn]->n, NULL,
                                   &judgement[drawn]), 0);
    }
    assert_true(judgement[0].calibration > 0 && judgement[0].success_last > 0);
    assert_memory_equal(&judgement[0], &judgement[1], sizeof judgement[0]);
    dataset_free(data[0]);
    dataset_free(data[1]);
    trainer_free(trainer);
}

/* ---- actor and learner agree --------------------------------------------------------------------------- */

/* First picture, two before the present one (the first stands in where there are none), the present one: in training as at the
 * server. */
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
    assert_int_equal(pass_reward(model, trainer->shards, data, (struct step_ref[]) {{e, 0}, {e, 1}, {e, 2}, {e, 5}}, 4, NULL,
                                 trained), 0);
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
    struct trainer *trainer = lab_trainer(lab_critic_model(1), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);
    struct rl_config config = lab_rl;
    struct ppo_result result;

    (void)state;
    config.lr = 0;
    result = lab_iterate(trainer, reference, &config, 0);
    assert_true(result.logp_gap_max <= 1e-5);
    assert_true(fabs(result.ratio_mean - 1) < 1e-4 && fabs(result.ratio_max - 1) < 1e-3);
    assert_true(result.clip_fraction == 0);
    assert_true(result.ref_kl == 0);        /* the very same model: to the bit */
    assert_true(result.kl_loss == 0 && result.gradient_norm > 0);
    config.kl = KL_K3;
    result = lab_iterate(trainer, reference, &config, 0);
    assert_true(result.ref_kl == 0);
    openvla_free(reference);
    trainer_free(trainer);
}

static void after_updates_they_still_agree(void **state)
{
    struct trainer *trainer = lab_trainer(lab_critic_model(1), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);

    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        struct ppo_result result = lab_iterate(trainer, reference, &lab_rl, i);

        assert_true(result.logp_gap_max <= 1e-5);
        assert_true(result.updates > 0 && (i == 0 || result.ref_kl > 0));
    }
    openvla_free(reference);
    trainer_free(trainer);
}

/* The gap is a measurement: an actor that says something else is found out, with and without an update to follow. */
static void a_gap_is_seen(void **state)
{
    struct trainer *trainer = lab_trainer(lab_critic_model(1), 2);
    struct openvla *actor = lab_packed_clone(trainer->model);
    struct rl_config config = lab_rl;

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
    struct trainer *trainer = lab_trainer(lab_critic_model(1), 1);
    struct openvla *before = lab_packed_clone(trainer->model);
    struct rl_config config = lab_rl;
    struct ppo_result result;
    const struct part *trunk = &trainer->parts[TRAIN_TRUNK], *value = &trainer->parts[TRAIN_VALUE];
    bool moved = false;

    (void)state;
    config.critic_warmup = 1;
    result = lab_iterate(trainer, before, &config, 0);
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

/* Sampled from the whole vocabulary: the learner finds the same log-probs, and counts the tokens that are no actions. */
static void full_support_agrees_too(void **state)
{
    struct trainer *trainer = lab_trainer(lab_critic_model(2), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);
    struct ppo_result result;

    (void)state;
    lab_full_support = true;
    result = lab_iterate(trainer, reference, &lab_rl, 0);
    lab_full_support = false;
    assert_true(result.logp_gap_tokens > 0 && result.logp_gap_max <= 1e-5);
    assert_true(result.other_ids > 0 && result.other_ids < 1);
    assert_true(result.updates > 0 && isfinite(result.ref_kl));
    assert_true(lab_iterate(trainer, reference, &lab_rl, 1).other_ids == 0);
    openvla_free(reference);
    trainer_free(trainer);
}

/* eos_in_logp: an end token is sampled behind each action and counts like the others: in the ratios, the KL, the count per
 * action. */
static void end_tokens_count(void **state)
{
    struct trainer *trainer = lab_trainer(lab_critic_model(2), 2);
    struct openvla *reference = lab_packed_clone(trainer->model);
    struct dataset *data = NULL;
    struct ppo_result with, without;
    struct error error = {0};

    (void)state;
    lab_full_support = true;
    without = lab_iterate(trainer, reference, &lab_rl, 0);
    lab_end_token = true;
    with = lab_iterate(trainer, reference, &lab_rl, 0);
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

/* Up in `warmup` steps, the first of them not at zero; down along half a cosine to lr * end, and there it stays. */
static void the_learning_rate_rises_and_falls(void **state)
{
    static const struct { double end; int64_t step; double expected; } cases[] = {
        {.1, 0, .5}, {.1, 3, 2}, {.1, 4, 2}, {.1, 7, 2 * (.1 + .9 / 2)}, {.1, 10, .2}, {.1, 99, .2}, {1, 7, 2}, {1, 99, 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        double lr = lr_cosine(2, cases[i].end, cases[i].step, 4, 10);

        if (fabs(lr - cases[i].expected) > 1e-12)
            fail_msg("end %g, step %d: %g, expected %g", cases[i].end, (int)cases[i].step, lr, cases[i].expected);
    }
    assert_true(lr_cosine(2, .1, 0, 0, 10) == 2 && lr_cosine(2, .1, 5, 5, 5) == 2);
}

/* Why a stage stops is said behind its name, which the run gives it: what is said here does not name it once more. */
static void what_is_refused_is_said_without_a_name(void **state)
{
    const struct sft_config sft = {.steps = 1, .batch = 4};
    const struct prm_config prm = {.steps = 1, .batch = 4};
    struct trainer *trainer = lab_trainer(lab_model(1), 2);
    struct dataset *nothing = lab_demonstrations(trainer->model, 0);
    struct sft_result imitated;
    struct prm_result judged;
    struct error error = {0};

    (void)state;
    assert_int_equal(objective_sft(trainer, nothing, &sft, &(struct objective) {.seed = 1}, &imitated, &error), -EINVAL);
    assert_string_equal(error.text, "there is nothing to imitate (0 frames); run a demos stage first");
    assert_int_equal(objective_prm(trainer, nothing, &prm, &(struct objective) {.seed = 1}, &judged, &error), -EINVAL);
    assert_string_equal(error.text, "there are no episodes to learn from; run a rollouts stage first");
    dataset_free(nothing);
    trainer_free(trainer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imitation_learns_two_frames), cmocka_unit_test(reward_model_learns_labels),
        cmocka_unit_test(what_was_not_drawn_is_judged_by_what_was),
        cmocka_unit_test(a_history_is_shown),
        cmocka_unit_test(without_a_step_the_ratio_is_one), cmocka_unit_test(after_updates_they_still_agree),
        cmocka_unit_test(a_gap_is_seen),
        cmocka_unit_test(warmup_moves_the_critic_alone), cmocka_unit_test(a_gradient_that_is_no_number_is_skipped),
        cmocka_unit_test(full_support_agrees_too), cmocka_unit_test(end_tokens_count),
        cmocka_unit_test(the_learning_rate_rises_and_falls), cmocka_unit_test(what_is_refused_is_said_without_a_name),
    };
    const struct CMUnitTest fast_tests[] = {
        cmocka_unit_test(a_fast_curve_goes_beside_the_strict_one), cmocka_unit_test(without_a_step_the_ratio_is_one),
        cmocka_unit_test(after_updates_they_still_agree), cmocka_unit_test(full_support_agrees_too),
    };

    return lab_run_in_both(tests, ARRAY_SIZE(tests), fast_tests, ARRAY_SIZE(fast_tests));
}
