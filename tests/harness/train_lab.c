#include "tests/harness/train_lab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/device/device.h"

struct openvla *lab_model(uint64_t seed)
{
    struct openvla *model = NULL;
    struct error error = {0};

    if (openvla_new(LAB_NANO, seed, &model, &error) < 0)
        fail_msg("%s", error.text);
    if (lab_fast)
        assert_true(params_use_fast(&model->params));
    return model;
}

struct trainer *lab_trainer(struct openvla *model, int threads)
{
    struct trainer *trainer = NULL;

    if (lab_fast)
        assert_true(params_use_fast(&model->params));
    assert_int_equal(trainer_new(model, threads, NULL, &trainer), 0);
    return trainer;
}

uint8_t *lab_noise_frames(uint64_t seed, int n)
{
    uint8_t *frames = malloc((size_t)n * LAB_FRAME);
    struct philox random = philox_at(seed, PHILOX_TEST, 1, 0, 0);

    assert_non_null(frames);
    for (int i = 0; i < n * LAB_FRAME; i++)
        frames[i] = (uint8_t)(i % 64 ? frames[i - 1] : philox_u32(&random));    /* in blocks: pictures that differ */
    return frames;
}

bool lab_full_support, lab_end_token, lab_fast;

void lab_add_episode(struct dataset *data, const struct openvla *model, uint64_t id, int steps, bool demo, bool success)
{
    struct episode_input in = {
        .id = id, .task = id % 2 ? "pick_up_object" : "open_drawer", .instruction = id % 2
        ? "pick up the block" : "open the drawer",
        .state_seed = id / 2, .steps = steps, .max_steps = LAB_MAX_STEPS, .success = success, .demo = demo, .policy_version = 3,
        .temperature = 1,
        .height = LAB_SIDE, .width = LAB_SIDE, .action_dims = LAB_DIMS, .frames = lab_noise_frames(id, steps + 1),
        .n_frames = (size_t)(steps + 1) * LAB_FRAME, .images = 1,
    };
    float numbers[LAB_MAX_STEPS * (LAB_DIMS + 1)], progress[LAB_MAX_STEPS + 1], hidden[LAB_MAX_STEPS * LAB_MAX_HIDDEN];
    size_t width = (size_t)model->config.hidden;
    uint32_t tokens[LAB_MAX_STEPS * (LAB_DIMS + 1)];
    struct openvla_session *session = NULL;
    struct error error = {0};
    int32_t *prompt;
    int n_prompt, k = LAB_DIMS + lab_end_token;

    for (int t = 0; t <= steps; t++)
        progress[t] = (float)(t + 1) / 10;
    for (int i = 0; i < steps * LAB_DIMS; i++)
        numbers[i] = sinf((float)i + (float)id);
    if (!demo) {
        assert_int_equal(openvla_session_new(&model->config, 4, &session), 0);
        assert_int_equal(openvla_prompt(model, in.instruction, &prompt, &n_prompt), 0);
        for (int t = 0; t < steps; t++) {
            struct act_item item = {.images = {in.frames + t * LAB_FRAME}, .n_images = 1, .prompt = prompt, .n_prompt = n_prompt,
                                    .temperature = 1, .seed = 5, .episode = id, .step = (uint32_t)t, .full = lab_full_support,
                                    .ended = lab_end_token};
            struct act_result result;

            assert_int_equal(openvla_act(model, session, &item, 1, &result), 0);
            for (int i = 0; i < k; i++) {
                tokens[t * k + i] = (uint32_t)result.tokens[i];
                numbers[t * k + i] = result.logp[i];
            }
            memcpy(hidden + (size_t)t * width, openvla_act_hidden(session, 0), width * sizeof *hidden);
        }
        free(prompt);
        openvla_session_free(session);
        in.tokens = tokens;
        in.logp = numbers;
        in.progress = progress;
        in.n_tokens = in.n_logp = (size_t)(steps * k);
        in.hidden = hidden;
        in.full = lab_full_support;
        in.ended = lab_end_token;
        in.n_hidden = (size_t)steps * width;
        in.n_progress = (size_t)steps + 1;
    } else {
        in.label = numbers;
        in.n_label = (size_t)(steps * LAB_DIMS);
    }
    if (dataset_add(data, &in, &error) < 0)
        fail_msg("%s", error.text);
}

struct dataset *lab_rollouts(const struct openvla *model)
{
    struct dataset *data = NULL;

    assert_int_equal(dataset_new(model, &data), 0);
    if (lab_end_token)
        assert_int_equal(dataset_expect_end(data, &(struct error){0}), 0);
    for (int i = LAB_EPISODES; i > 0; i--)      /* out of order on purpose */
        lab_add_episode(data, model, (uint64_t)i, 2 + i % 5, false, i % 3 == 0);
    dataset_sort(data);
    return data;
}

struct dataset *lab_demonstrations(const struct openvla *model, int n)
{
    struct dataset *data = NULL;

    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 1; i <= n; i++)
        lab_add_episode(data, model, (uint64_t)i, 1, true, true);
    dataset_sort(data);
    return data;
}

struct openvla *lab_packed_clone(const struct openvla *model)
{
    struct openvla *copy = NULL;

    assert_int_equal(openvla_clone(model, &copy), 0);
    assert_int_equal(openvla_pack(copy, false), 0);
    return copy;
}

const struct rl_config lab_rl = {
    .temperature = 1, .reward = REWARD_PROGRESS, .w_progress = 1, .w_success = 1, .advantage = ADVANTAGE_GAE, .gamma = .99,
    .lambda = .95, .epochs = 2,
    .minibatch = 12, .clip_low = .2, .clip_high = .2, .lr = 1e-3, .lr_ramp = 3, .weight_decay = .01, .clip = 1, .beta2 = .95,
    .kl = KL_EXACT, .kl_coef = .01,
    .value_coef = .5, .value_width = 16, .value_epochs = 2, .value_lr = 1e-3, .value_detach = true, .critic_time = true,
    .critic_prm = true,
};

struct ppo_result lab_iterate_forgetting(struct trainer *trainer, const struct openvla *reference,
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

struct ppo_result lab_iterate(struct trainer *trainer, const struct openvla *reference, const struct rl_config *config,
                                 uint64_t iteration)
{
    return lab_iterate_forgetting(trainer, reference, config, iteration, 0);
}

struct openvla *lab_critic_model(uint64_t seed)
{
    struct openvla *model = lab_model(seed);

    assert_int_equal(openvla_add_value_head(model, 16, 2, 9), 0);
    return model;
}

struct trainer *lab_trainer_on(struct openvla *model, struct device *device, const struct group *group)
{
    struct trainer *t = NULL;

    device_set_process(device);
    assert_int_equal(trainer_new(model, 1, group, &t), 0);
    device_set_process(NULL);
    assert_ptr_equal(model->params.device, device);
    return t;
}

struct sft_result lab_imitate(struct trainer *trainer, struct dataset *data, const struct sft_config *config, uint64_t seed)
{
    struct sft_result result;
    struct error error = {0};

    data->model = trainer->model;
    if (objective_sft(trainer, data, config, &(struct objective) {.seed = seed}, &result, &error) < 0)
        fail_msg("%s", error.text);
    return result;
}

void lab_same_bits(struct trainer *a, struct trainer *b)
{
    assert_int_equal(trainer_fetch(a), 0);
    assert_int_equal(trainer_fetch(b), 0);
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

int lab_run_in_both(const struct CMUnitTest *tests, size_t n, const struct CMUnitTest *fast_tests, size_t n_fast)
{
    int failed = _cmocka_run_group_tests("strict", tests, n, NULL, NULL);

    if (!cpu_kernels()->gemm_bf16) {
        print_message("numerics: fast is not tested: no VDPBF16PS here\n");
        return failed;
    }
    lab_fast = true;
    return failed + _cmocka_run_group_tests("fast", fast_tests, n_fast, NULL, NULL);
}
