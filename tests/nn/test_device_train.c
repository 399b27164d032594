/* Training on the emulated device, or the one that GANTRY_TEST_DEVICE names: the optimiser there, bf16 weights with masters,
 * resume, a device that falls off. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/device/device.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/numbers.h"
#include "tests/harness/scratch.h"
#include "tests/harness/train_lab.h"
#include "train/checkpoint.h"
#include "train/passes.h"

enum { EPISODES = 4 };

static const struct sft_config sft = {.steps = 1, .batch = 4, .lr = 1e-3, .clip = .5, .beta2 = .95, .weight_decay = .1,
                                      .lr_end = 1};

static struct trainer *make(struct openvla *model, struct device *on) { return lab_trainer_on(model, on, NULL); }
static struct sft_result learn(struct trainer *t, struct dataset *data, uint64_t seed) { return lab_imitate(t, data, &sft, seed);
                                                                                         }

/* ---- one rank ----------------------------------------------------------------------------------------------- */

/* What passes compute there differs from the CPU's numbers in their last bits; AdamW's first steps divide by a gradient's own
 * size and make much of that where it is next to nothing: moments are held to the gradient's bound, values to a part of what they
 * moved. */
static void test_updates_as_on_the_cpu(void **state)
{
    struct trainer *here = make(lab_model(1), NULL), *there = make(lab_model(1), device);
    struct openvla *before = lab_model(1);
    struct dataset *data = lab_demonstrations(here->model, EPISODES);
    struct sft_result a = learn(here, data, 1), b = learn(there, data, 1);
    const struct part *trunk = &here->parts[TRAIN_TRUNK];
    int64_t numel = here->params->numel;
    float *moved[2] = {malloc((size_t)numel * sizeof(float)), malloc((size_t)numel * sizeof(float))};

    (void)state;
    assert_true(fabs(a.last_loss / b.last_loss - 1) < 1e-5);
    assert_null(there->grad);
    assert_memory_equal(there->params->values, before->params.values, (size_t)numel * sizeof(float));  /* nothing has come here */
    assert_int_equal(trainer_fetch(there), 0);
    assert_int_equal(there->parts[TRAIN_TRUNK].adamw.step, sft.steps);
    for (int64_t i = 0; i < numel; i++) {
        moved[0][i] = here->params->values[i] - before->params.values[i];
        moved[1][i] = there->params->values[i] - before->params.values[i];
    }
    assert_true(numbers_distance(there->parts[TRAIN_TRUNK].adamw.m, trunk->adamw.m, trunk->end - trunk->begin) < 1e-4);
    assert_true(numbers_distance(there->parts[TRAIN_TRUNK].adamw.v, trunk->adamw.v, trunk->end - trunk->begin) < 1e-4);
    assert_true(numbers_distance(moved[1], moved[0], numel) < 5e-3);
    dataset_free(data);
    openvla_free(before);
    trainer_free(here);
    trainer_free(there);
    free(moved[0]);
    free(moved[1]);
}

static void test_resume_changes_nothing(void **state)
{
    char dir[SCRATCH_PATH];
    struct trainer *whole = make(lab_model(1), device), *resumed;
    struct dataset *data = lab_demonstrations(whole->model, EPISODES);
    struct openvla *loaded = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    (void)learn(whole, data, 1);
    if (checkpoint_save(whole, dir, &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    resumed = make(loaded, device);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 0);
    (void)learn(whole, data, 2);
    (void)learn(resumed, data, 2);
    lab_same_bits(whole, resumed);
    trainer_reset(whole);               /* moments are forgotten there, too; values stay */
    assert_int_equal(trainer_fetch(whole), 0);
    assert_memory_equal(whole->params->values, resumed->params->values, (size_t)whole->params->numel * sizeof(float));
    for (int64_t i = 0; i < whole->parts[TRAIN_TRUNK].end - whole->parts[TRAIN_TRUNK].begin; i++)
        assert_true(whole->parts[TRAIN_TRUNK].adamw.m[i] == 0);
    assert_int_equal(remove_tree(dir), 0);
    dataset_free(data);
    trainer_free(whole);
    trainer_free(resumed);
}

static void test_bf16_weights_have_masters(void **state)
{
    char dir[SCRATCH_PATH];
    struct openvla *fresh = lab_model(1), *loaded = NULL, *before = NULL;
    struct trainer *t;
    struct dataset *data;
    struct error error = {0};
    const struct part *trunk;
    int hidden = 0;

    (void)state;
    scratch_new(dir);
    if (openvla_save(fresh, dir, "BF16", &error) < 0 || openvla_load(dir, &loaded, &error) < 0 ||
        openvla_load(dir, &before, &error) < 0)
        fail_msg("%s", error.text);
    t = make(loaded, device);
    assert_int_equal(trainer_use_bf16(t), 0);
    data = lab_demonstrations(t->model, EPISODES);
    (void)learn(t, data, 1);
    assert_int_equal(trainer_fetch(t), 0);
    trunk = &t->parts[TRAIN_TRUNK];
    for (int i = 0; i < trunk->n; i++)
        for (int64_t k = trunk->ranges[i].begin; k < trunk->ranges[i].end; k++) {
            float master = t->masters[k - trunk->begin];

            assert_int_equal(float_to_bf16(master), float_to_bf16(t->params->values[k]));
            hidden += t->params->values[k] == before->params.values[k] && master != before->params.values[k];
        }
    assert_true(hidden > 100);          /* steps too small for bf16 are not lost */
    assert_int_equal(remove_tree(dir), 0);
    dataset_free(data);
    openvla_free(fresh);
    openvla_free(before);
    trainer_free(t);
}

static void test_a_gradient_that_is_no_number_is_skipped(void **state)
{
    struct trainer *t = make(lab_model(1), device);
    struct dataset *data = lab_demonstrations(t->model, EPISODES);
    float *values = t->params->values, kept = values[t->parts[TRAIN_TRUNK].ranges[1].begin];

    (void)state;
    values[t->parts[TRAIN_TRUNK].ranges[0].begin] = NAN;
    assert_int_equal(params_pack(t->params, true), 0);
    assert_int_equal(learn(t, data, 1).skipped, sft.steps);
    assert_int_equal(trainer_fetch(t), 0);
    assert_true(values[t->parts[TRAIN_TRUNK].ranges[1].begin] == kept);
    assert_int_equal(t->parts[TRAIN_TRUNK].adamw.step, 0);
    dataset_free(data);
    trainer_free(t);
}

/* The contract between actor and learner (docs/method.md), both on the device: without a step what the learner finds is what the
 * actor sampled by. */
static void ratio_is_one(int together)
{
    const struct rl_config rl = {
        .temperature = 1, .reward = REWARD_PROGRESS, .w_progress = 1, .w_success = 1, .advantage = ADVANTAGE_GAE, .gamma = .99,
        .lambda = .95,
        .epochs = 1, .minibatch = 4, .clip_low = .2, .clip_high = .2, .lr = 0, .clip = 1, .beta2 = .95, .kl = KL_NONE,
        .value_coef = .5, .value_width = 16, .value_epochs = 1, .value_lr = 1e-3, .value_detach = true,
    };
    struct openvla *policy = lab_model(1), *actor = lab_model(1);
    struct trainer *t;
    struct dataset *data = NULL;
    struct ppo_result result;
    struct error error = {0};

    assert_int_equal(openvla_add_value_head(policy, 16, 0, 9), 0);
    assert_int_equal(openvla_add_value_head(actor, 16, 0, 9), 0);
    params_use_device(&actor->params, device, false);
    assert_int_equal(openvla_pack(actor, false), 0);
    t = make(policy, device);
    shards_together(t->shards, together);
    device->strict = together == 1;
    assert_int_equal(dataset_new(actor, &data), 0);
    for (uint64_t id = 1; id <= 2; id++)
        lab_add_episode(data, actor, id, 2, false, id == 1);
    dataset_sort(data);
    data->model = policy;
    if (objective_ppo(t, NULL, data, &rl, &(struct objective) {.seed = 7, .stage = 1, .version = 3}, &result, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(result.updates > 0 && result.gradient_norm > 0);
    assert_true(result.logp_gap_max <= 1e-5);
    assert_true(fabs(result.ratio_mean - 1) < 1e-4 && fabs(result.ratio_max - 1) < 1e-3);
    assert_true(result.clip_fraction == 0);
    assert_int_equal(result.logp_gap_tokens, 2 * 2 * LAB_DIMS);
    device->strict = true;
    dataset_free(data);
    openvla_free(actor);
    trainer_free(t);
}

static void test_without_a_step_the_ratio_is_one(void **state)
{
    (void)state;
    ratio_is_one(1);
}

static struct trainer *imitated(bool strict, int together, struct sft_result *ret)
{
    struct sft_config twelve = sft;     /* one, two, one, ... samples a shard: the second pass outgrows what the first one took */
    struct trainer *t = make(lab_model(1), device);
    struct dataset *data = lab_demonstrations(t->model, 2 * EPISODES);

    twelve.batch = 12;
    shards_together(t->shards, together);
    device->strict = strict;
    *ret = lab_imitate(t, data, &twelve, 1);
    device->strict = true;
    assert_int_equal(trainer_fetch(t), 0);
    dataset_free(data);
    return t;
}

/* In fast numerics each pass adds to the gradient of those before. One that outgrows its memory has spoilt it: all begin anew. */
static void test_passes_add_to_one_gradient(void **state)
{
    struct sft_result in_a_tree, in_one, at_once;
    struct trainer *tree = imitated(true, 1, &in_a_tree), *one = imitated(false, 1, &in_one),
                   *whole = imitated(false, SHARDS, &at_once);
    const struct part *trunk = &tree->parts[TRAIN_TRUNK];
    int64_t n = trunk->end - trunk->begin;

    (void)state;
    assert_true(in_a_tree.gradient_norm > 0 && in_a_tree.gradient_norm != in_one.gradient_norm);      /* another order of sums */
    assert_true(fabs(in_one.gradient_norm / in_a_tree.gradient_norm - 1) < 1e-4);
    assert_true(numbers_distance(one->parts[TRAIN_TRUNK].adamw.m, trunk->adamw.m, n) < 1e-4);
    assert_true(numbers_distance(one->parts[TRAIN_TRUNK].adamw.m, whole->parts[TRAIN_TRUNK].adamw.m, n) < 1e-4);
    trainer_free(tree);
    trainer_free(one);
    trainer_free(whole);
}

/* Each sample's log-probabilities are held against its own. */
static void test_so_it_is_with_all_shards_in_a_pass(void **state)
{
    (void)state;
    ratio_is_one(SHARDS);
}

/* A reference whose matrices rest as bf16 could be passed through on this host, too, in other numbers than the device's: whoever
 * asks for that is refused. */
static void test_a_model_there_is_not_passed_through_here(void **state)
{
    char dir[SCRATCH_PATH];
    float logp[LAB_DIMS];
    struct openvla *fresh = lab_model(1), *model = NULL;
    struct dataset *data;
    struct shards *shards = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    if (openvla_save(fresh, dir, "BF16", &error) < 0 || openvla_load_halves(dir, 0, &model, &error) < 0)
        fail_msg("%s", error.text);
    params_use_device(&model->params, device, true);
    assert_int_equal(openvla_pack(model, false), 0);
    assert_int_equal(openvla_pack(fresh, false), 0);
    data = lab_demonstrations(fresh, 1);
    assert_int_equal(shards_new(1, 1, NULL, &shards), 0);
    assert_int_equal(pass_policy(model, shards, data, (struct step_ref[]) {{0, 0}}, 1, 1, &(struct policy_pass) {.logp = logp}),
                     -EXDEV);
    assert_int_equal(pass_policy(fresh, shards, data, (struct step_ref[]) {{0, 0}}, 1, 1, &(struct policy_pass) {.logp = logp}), 0);
    shards_free(shards);
    dataset_free(data);
    openvla_free(fresh);
    openvla_free(model);
    assert_int_equal(remove_tree(dir), 0);
}

/* A device that falls off: the pass fails, the driver's words are kept, and whoever watches learns of it once and for all. */
static struct device_kernels failing;
static bool gone;

static int wait_or_fail(void *stream) { return gone ? -EIO : device->k->wait(stream); }
static const char *gone_text(void) { return "the GPU has fallen off the bus"; }

static void test_a_device_falls_off(void **state)
{
    struct device *other = NULL;
    struct trainer *t;
    struct dataset *data;
    struct sft_result result;
    struct error error = {0};

    (void)state;
    failing = *device->k;
    failing.wait = wait_or_fail;
    failing.last_error = gone_text;
    gone = false;
    assert_int_equal(device_wrap(&failing, device->ordinal, &other, NULL), 0);
    t = make(lab_model(1), other);
    data = lab_demonstrations(t->model, EPISODES);
    assert_null(device_lost(other));
    gone = true;
    assert_int_equal(objective_sft(t, data, &sft, &(struct objective) {.seed = 1}, &result, &error), -EIO);
    assert_string_equal(device_lost(other), "the GPU has fallen off the bus");
    assert_int_equal(t->parts[TRAIN_TRUNK].adamw.step, 0);
    assert_false(device_ask(other));
    device_unref(other);
    other = NULL;

    /* it says so wherever somebody asks after a failure, not only where a pass begins; a failure that is not the device's is
     * none */
    assert_int_equal(device_wrap(&failing, device->ordinal, &other, NULL), 0);
    gone = false;
    assert_true(device_ask(other) && !device_lost(other) && device_ask(NULL));
    gone = true;
    assert_false(device_ask(other));
    assert_string_equal(device_lost(other), "the GPU has fallen off the bus");
    dataset_free(data);
    trainer_free(t);
    device_unref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_updates_as_on_the_cpu),
        cmocka_unit_test(test_resume_changes_nothing),
        cmocka_unit_test(test_bf16_weights_have_masters),
        cmocka_unit_test(test_a_gradient_that_is_no_number_is_skipped),
        cmocka_unit_test(test_without_a_step_the_ratio_is_one),
        cmocka_unit_test(test_so_it_is_with_all_shards_in_a_pass), cmocka_unit_test(test_passes_add_to_one_gradient),
        cmocka_unit_test(test_a_model_there_is_not_passed_through_here),
        cmocka_unit_test(test_a_device_falls_off),
    };

    return cmocka_run_group_tests(tests, test_device_setup, test_device_teardown);
}
