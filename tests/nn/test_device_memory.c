/* What memory_need_device foretells of a device's memory is what acting and training then allocate there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/device/device.h"
#include "nn/models/openvla_session.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/synthetic.h"
#include "tests/harness/train_lab.h"
#include "train/device_memory.h"

enum { MOST = 256, BATCH = 3, MINIBATCH = 16 };

/* The device's table, with everything that is allocated written down. */
static struct { void *memory; size_t bytes; } held[MOST];
static size_t now, peak;
static struct device_kernels counting;
static const struct device_kernels *real;

static int counted_alloc(size_t bytes, void **ret)
{
    int r = real->alloc(bytes, ret), i = 0;

    if (r < 0)
        return r;
    while (held[i].memory)
        assert_true(++i < MOST);
    held[i].memory = *ret;
    held[i].bytes = bytes;
    now += bytes;
    peak = now > peak ? now : peak;
    return 0;
}

static void counted_release(void *memory)
{
    for (int i = 0; i < MOST && memory; i++)
        if (held[i].memory == memory) {
            now -= held[i].bytes;
            held[i].memory = NULL;
        }
    real->release(memory);
}

static bool is_held(size_t bytes)
{
    for (int i = 0; i < MOST; i++)
        if (held[i].memory && held[i].bytes == bytes)
            return true;
    return false;
}

static int setup(void **state)
{
    struct device *under = test_device_open();

    (void)state;
    real = under->k;
    counting = *real;
    counting.alloc = counted_alloc;
    counting.release = counted_release;
    assert_int_equal(device_wrap(&counting, under->ordinal, &device, NULL), 0);
    device_unref(under);
    device->strict = true;
    emulate_sparsely(true);     /* what is computed does not matter here */
    return 0;
}

/* Within a twentieth, both ways. */
static void agree(int64_t foretold, size_t taken)
{
    if (20 * llabs(foretold - (long long)taken) > (long long)taken)
        fail_msg("foretold %lld bytes, taken %zu", (long long)foretold, taken);
}

static void acts(bool half)
{
    struct openvla *model = lab_model(1), *planned = lab_model(1);
    uint8_t *frames = lab_noise_frames(3, BATCH);
    struct act_item items[BATCH] = {0};
    struct act_result results[BATCH];
    struct openvla_session *session = NULL;
    struct device_job job = {.use = MEMORY_ACT, .batch = BATCH, .half = half, .strict = true};
    struct device_need need;
    int32_t *prompt;

    peak = now = 0;
    assert_int_equal(openvla_prompt(model, "open the drawer", &prompt, &job.prompt), 0);
    params_use_device(&model->params, device, half);
    assert_int_equal(openvla_pack(model, false), 0);
    assert_int_equal(memory_need_device(planned, &job, &need), 0);
    agree(need.weights, now);
    assert_int_equal(openvla_session_new(&model->config, BATCH, &session), 0);
    for (int i = 0; i < BATCH; i++)
        items[i] = (struct act_item) {.images = {frames + i * LAB_FRAME}, .n_images = 1, .prompt = prompt, .n_prompt = job.prompt,
                                      .temperature = 1};
    assert_int_equal(openvla_act(model, session, items, BATCH, results), 0);
    assert_true(is_held((size_t)need.activations));
    assert_true(is_held((size_t)need.cache));
    agree(need.total, peak);
    openvla_session_free(session);
    openvla_free(model);
    openvla_free(planned);
    assert_int_equal(now, 0);           /* nothing is left behind */
    free(frames);
    free(prompt);
}

static void test_acting(void **state)
{
    (void)state;
    acts(false);
}

static void test_acting_in_bf16(void **state)
{
    (void)state;
    acts(true);
}

/* A prm_server's: pictures of the past beside the present one, sixteen frames in a pass, and no keys and values. */
static void test_scoring_on_a_trunk(void **state)
{
    enum { FRAMES = 20, HISTORY = 2 };
    struct openvla *model = lab_model(1), *planned = lab_model(1);
    uint8_t *frames = lab_noise_frames(3, FRAMES + HISTORY);
    struct device_job job = {.use = MEMORY_ACT, .batch = FRAMES, .strict = true, .judges = true, .history = HISTORY};
    struct score_item items[FRAMES] = {0};
    struct openvla_session *session = NULL;
    struct device_need need, twice;
    float progress[FRAMES];
    int32_t *prompt;

    (void)state;
    assert_int_equal(openvla_add_reward_head(model, 16, 3), 0);
    model->config.reward_history = HISTORY;
    assert_int_equal(openvla_reward_prompt(model, "open the drawer", &prompt, &job.prompt), 0);
    assert_int_equal(memory_need_device(planned, &job, &need), 0);      /* the head is still to come */
    peak = now = 0;
    params_use_device(&model->params, device, false);
    assert_int_equal(openvla_pack(model, false), 0);
    assert_int_equal(openvla_session_new(&model->config, FRAMES, &session), 0);
    for (int i = 0; i < FRAMES; i++) {
        items[i] = (struct score_item) {.n_images = HISTORY + 2, .prompt = prompt, .n_prompt = job.prompt};
        for (int k = 0; k < HISTORY + 2; k++)
            items[i].images[k] = frames + (k ? i + k - 1 : 0) * LAB_FRAME;
    }
    assert_int_equal(openvla_score(model, session, items, FRAMES, progress), 0);
    assert_int_equal(need.cache, 0);
    /* frames of one episode share their pictures, of several they do not */
    if ((size_t)need.total < peak || need.total > 2 * (int64_t)peak)
        fail_msg("foretold %lld bytes, taken %zu", (long long)need.total, peak);
    twice = need;
    device_need_threads(&twice, 3);
    assert_int_equal(twice.total, need.weights + 3 * (need.total - need.weights));
    openvla_session_free(session);
    openvla_free(model);
    openvla_free(planned);
    assert_int_equal(now, 0);
    free(frames);
    free(prompt);
}

static void test_training(void **state)
{
    const struct sft_config sft = {.steps = 1, .batch = MINIBATCH, .lr = 1e-3, .clip = 1, .beta2 = .95, .lr_end = 1};
    struct device_job job = {.use = MEMORY_FULL, .batch = MINIBATCH, .strict = true};
    struct openvla *planned = lab_model(1);
    struct trainer *t = NULL;
    struct dataset *data;
    struct sft_result result;
    struct device_need need;
    struct error error = {0};

    (void)state;
    peak = now = 0;
    device_set_process(device);
    assert_int_equal(trainer_new(lab_model(1), 1, NULL, &t), 0);
    device_set_process(NULL);
    data = lab_demonstrations(t->model, 4);
    for (int i = 0; i < data->n_prompts; i++)
        job.prompt = data->prompts[i].n > job.prompt ? data->prompts[i].n : job.prompt;
    assert_int_equal(memory_need_device(planned, &job, &need), 0);
    agree(need.weights + need.optimiser, now);
    assert_int_equal(objective_sft(t, data, &sft, &(struct objective) {.seed = 1}, &result, &error), 0);
    agree(need.total, peak);
    dataset_free(data);
    trainer_free(t);
    assert_int_equal(now, 0);
    openvla_free(planned);
}

/* What is trained whole is kept near to a model of its own, which rests beside it. */
static void test_training_beside_a_reference(void **state)
{
    struct rl_config rl = lab_rl;
    struct openvla *planned = lab_critic_model(1), *opened = NULL, *reference = lab_model(1);
    struct device_job job = {.use = MEMORY_FULL, .strict = true};
    struct dataset *data;
    struct trainer *t;
    struct device_need need;
    struct error error = {0};

    (void)state;
    rl.epochs = rl.value_epochs = 1;
    job.batch = rl.minibatch;
    peak = now = 0;
    t = lab_trainer_on(lab_critic_model(1), device, NULL);
    params_use_device(&reference->params, device, false);
    assert_int_equal(openvla_pack(reference, false), 0);
    data = lab_demonstrations(planned, 4);
    for (int i = 0; i < data->n_prompts; i++)
        job.prompt = MAX(job.prompt, data->prompts[i].n);
    dataset_free(data);
    opened = lab_model(1);
    job.reference = memory_on_device(opened, false);
    assert_int_equal(memory_need_device(planned, &job, &need), 0);
    agree(need.weights + need.reference + need.optimiser, now);
    (void)lab_iterate(t, reference, &rl, 0);
    agree(need.total, peak);
    assert_true(need.reference > need.total / 20);      /* left out it would have shown */
    assert_int_equal(device_need_check(&need, &job, "cuda:0", &(struct device_facts) {.memory_free = (size_t)need.total}, &error),
                     0);
    assert_int_equal(device_need_check(&need, &job, "cuda:0",
                                       &(struct device_facts) {.memory_free = (size_t)(need.total - need.reference)}, &error),
                     -ENOMEM);
    trainer_free(t);
    openvla_free(reference);
    assert_int_equal(now, 0);
    openvla_free(opened);
    openvla_free(planned);
}

/* A reward model on the policy's trunk is shown more pictures than the policy: the first and the present one. What it says of the
 * episodes that were held out is worked out in the same memory. */
static void test_training_a_reward_model(void **state)
{
    const struct prm_config prm = {.steps = 1, .batch = MINIBATCH, .lr = 1e-3, .clip = 1, .holdout = .3, .force = true};
    struct device_job job = {.use = MEMORY_FULL, .batch = MINIBATCH, .strict = true};
    struct openvla *model[3]; /* the trainer's, what is planned, who plays */
    struct trainer *t = NULL;
    struct dataset *data;
    struct prm_result result;
    struct device_need need;
    struct error error = {0};

    (void)state;
    for (int i = 0; i < 3; i++) {
        model[i] = lab_model(1);
        assert_int_equal(openvla_add_reward_head(model[i], 16, 3), 0);
    }
    assert_int_equal(openvla_pack(model[2], false), 0);
    data = lab_rollouts(model[2]);
    peak = now = 0;
    device_set_process(device);
    assert_int_equal(trainer_new(model[0], 1, NULL, &t), 0);
    device_set_process(NULL);
    data->model = model[0];
    for (int i = 0; i < data->n_prompts; i++)
        job.prompt = MAX(job.prompt, data->prompts[i].n_reward);
    assert_int_equal(memory_need_device(model[1], &job, &need), 0);
    if (objective_prm(t, data, &prm, &(struct objective) {.seed = 1}, &result, &error) < 0)
        fail_msg("%s", error.text);
    agree(need.total, peak);
    data->model = model[2];
    dataset_free(data);
    trainer_free(t);
    assert_int_equal(now, 0);
    openvla_free(model[1]);
    openvla_free(model[2]);
}

/* A backbone of its own, of which the head learns. */
static void test_a_reward_model_of_qwen(void **state)
{
    const struct prm_config prm = {.steps = 1, .batch = SHARDS, .lr = 1e-3, .clip = 1, .holdout = .3, .force = true};
    struct device_job job = {.use = MEMORY_FULL, .batch = SHARDS, .strict = true, .height = LAB_SIDE, .width = LAB_SIDE,
                             .instruction = "pick up the block"};
    struct openvla *player = lab_model(1);
    struct qwen_vl *model[2] = {0};
    struct trainer *t = NULL;
    struct dataset *data;
    struct prm_result result;
    struct device_need need;
    struct error error = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        if (qwen_vl_load("tests/golden/nano_qwen", &model[i], &error) < 0)
            fail_msg("%s", error.text);
        assert_int_equal(qwen_vl_add_reward_head(model[i], 16, 3), 0);
        model[i]->history = 1;
    }
    assert_int_equal(openvla_pack(player, false), 0);
    data = lab_rollouts(player);
    for (int i = 0; i < data->n; i++) {         /* its prompts tell what was done */
        data->list[i].action = calloc((size_t)(data->list[i].steps * LAB_DIMS), sizeof(float));
        assert_non_null(data->list[i].action);
    }
    peak = now = 0;
    device_set_process(device);
    assert_int_equal(trainer_new_reward(model[0], 1, NULL, &t), 0);
    device_set_process(NULL);
    data->model = NULL;
    data->reward = model[0];
    assert_int_equal(memory_need_device_prm(model[1], &job, &need), 0);
    agree(need.weights + need.optimiser, now);
    if (objective_prm(t, data, &prm, &(struct objective) {.seed = 1}, &result, &error) < 0)
        fail_msg("%s", error.text);
    /* early frames show fewer pictures, and those of one episode share them: it is the most that there can be */
    if ((size_t)need.total < peak || 10 * ((size_t)need.total - peak) > peak)
        fail_msg("foretold %lld bytes, taken %zu", (long long)need.total, peak);
    job.batch = 1024;
    assert_int_equal(memory_need_device_prm(model[1], &job, &need), 0);
    assert_int_equal(device_need_check(&need, &job, "cuda:0", &(struct device_facts) {.memory_free = peak}, &error), -ENOMEM);
    if (!strstr(error.text, "try: a smaller batch (prm.batch) or prm.history"))
        fail_msg("said: %s", error.text);
    data->model = player;
    data->reward = NULL;
    dataset_free(data);
    trainer_free(t);
    assert_int_equal(now, 0);
    qwen_vl_free(model[1]);
    openvla_free(player);
}

static void test_what_does_not_fit_names_the_largest_and_the_knob(void **state)
{
    const struct device_facts small = {.memory = (size_t)16 << 20, .memory_free = (size_t)9 << 20},
                              large = {.memory_free = (size_t)1 << 40};
    struct device_job job = {.use = MEMORY_FULL, .batch = 4096, .strict = true};
    struct openvla *planned = lab_model(1);
    struct device_need need, fewer, lora;
    struct error error = {0};

    (void)state;
    assert_int_equal(memory_need_device(planned, &job, &need), 0);
    assert_int_equal(device_need_check(&need, &job, "cuda:0", &large, &error), 0);
    assert_int_equal(device_need_check(&need, &job, "cuda:0", &small, &error), -ENOMEM);
    assert_non_null(strstr(error.text, "cuda:0: "));
    assert_non_null(strstr(error.text, "9 of 16 MiB are free"));
    assert_non_null(strstr(error.text, "activations take"));
    assert_non_null(strstr(error.text, "try: a smaller batch (sft.batch, rl.minibatch)"));
    job.batch = 8;
    assert_int_equal(memory_need_device(planned, &job, &fewer), 0);
    assert_true(100 * fewer.activations < need.activations && fewer.optimiser == need.optimiser);
    job.use = MEMORY_LORA;
    job.lora_r = 1;
    assert_int_equal(memory_need_device(planned, &job, &lora), 0);
    assert_true(lora.optimiser < fewer.optimiser);
    job.strict = false;
    job.ranks = 8;
    assert_int_equal(memory_need_device(planned, &job, &fewer), 0);
    assert_true(fewer.gradients < lora.gradients);
    job.batch = 0;
    assert_int_equal(memory_need_device(planned, &job, &fewer), -EINVAL);
    openvla_free(planned);
}

/* By shapes alone, before anything is loaded: OpenVLA-7B as its checkpoint has it, all bf16. The figures are the
 * specification's. */
static void test_openvla_7b(void **state)
{
    struct openvla *model = synthetic_shapes_of_7b();
    struct device_job job = {.use = MEMORY_ACT, .batch = 64, .half = true, .lora_r = 32, .blas = true};
    struct device_need act, lora, kept;

    (void)state;
    assert_non_null(model);
    memory_keep_halves(model, true);
    assert_int_equal(memory_need_device(model, &job, &act), 0);
    assert_in_range(act.weights >> 20, 14300, 14600);           /* 15.08 GB */
    assert_in_range(act.cache >> 20, 9200, 9800);               /* 64 sequences of 149 MiB, rounded up */
    job.use = MEMORY_LORA;
    job.batch = 32;
    assert_int_equal(memory_need_device(model, &job, &lora), 0);
    assert_in_range(lora.weights - act.weights, 6 * 100000000L, 6 * 115000000L);        /* adapters: fp32 and bf16 */
    assert_in_range(lora.optimiser, 8 * 100000000L, 8 * 115000000L);
    assert_true(lora.recompute && lora.activations < 16LL << 30);
    job.fits = 64LL << 30;              /* half of an H200: blocks are kept, and nothing is computed twice */
    assert_int_equal(memory_need_device(model, &job, &kept), 0);
    assert_true(!kept.recompute && kept.together == 2 && kept.activations > lora.activations && kept.total <= job.fits);
    job.fits = kept.total - 1;          /* fewer rows at once come before computing anything twice */
    assert_int_equal(memory_need_device(model, &job, &kept), 0);
    assert_true(!kept.recompute && kept.together == 1 && kept.total <= job.fits);
    job.fits = kept.total - 1;
    assert_int_equal(memory_need_device(model, &job, &kept), 0);
    assert_true(kept.recompute && kept.together > 1 && kept.total <= job.fits);
    job.fits = 1;                       /* nothing does: the least there is */
    assert_int_equal(memory_need_device(model, &job, &kept), 0);
    assert_true(kept.recompute && kept.together == 1 && kept.total == lora.total);
    job.dnn = true;                     /* what cuDNN may work in: of four sequences on the way back; the products' scratch is
                                         * less */
    assert_int_equal(memory_need_device(model, &job, &kept), 0);
    assert_in_range(kept.workspace - lora.workspace, 50 << 20, 200 << 20);
    job.strict = true;                  /* which does not ask it, and adds up shard by shard */
    job.fits = 1LL << 40;
    assert_int_equal(memory_need_device(model, &job, &kept), 0);
    assert_int_equal(kept.workspace, lora.workspace);
    assert_int_equal(kept.together, 1);
    openvla_free(model);
}

/* All of it is trained on one H200 in fast numerics: of everything of the size of the parameters there are values, their bf16, one
 * gradient and two moments. */
static void test_openvla_7b_whole(void **state)
{
    struct openvla *model = synthetic_shapes_of_7b();
    struct device_job job = {.use = MEMORY_FULL, .batch = 128, .half = true, .blas = true, .dnn = true, .fits = 138LL << 30};
    struct device_need one, tree, masters;

    (void)state;
    assert_non_null(model);
    assert_int_equal(memory_need_device(model, &job, &one), 0);
    assert_in_range(one.gradients >> 20, 28700, 28800);         /* 7.54 billion, four bytes each */
    assert_in_range(one.weights + one.gradients + one.optimiser, 135300000000LL, 135800000000LL);
    assert_true(one.total <= job.fits && one.recompute);
    job.masters = true;
    assert_int_equal(memory_need_device(model, &job, &masters), 0);
    assert_in_range(masters.optimiser - one.optimiser, 30000000000LL, 30300000000LL);
    job.masters = false;
    job.strict = true;
    assert_int_equal(memory_need_device(model, &job, &tree), 0);
    assert_int_equal(tree.gradients, 4 * one.gradients);
    openvla_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acting),
        cmocka_unit_test(test_acting_in_bf16),
        cmocka_unit_test(test_scoring_on_a_trunk),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_training_beside_a_reference),
        cmocka_unit_test(test_training_a_reward_model),
        cmocka_unit_test(test_a_reward_model_of_qwen),
        cmocka_unit_test(test_openvla_7b),
        cmocka_unit_test(test_openvla_7b_whole),
        cmocka_unit_test(test_what_does_not_fit_names_the_largest_and_the_knob),
    };

    return cmocka_run_group_tests(tests, setup, test_device_teardown);
}
