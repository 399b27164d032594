/* OpenVLA-OFT on the emulated device, or the one that GANTRY_TEST_DEVICE names, against the CPU: chunks of every kind of head, two
 * pictures, the robot's state, FiLM; acting, imitation, an iteration of PPO, and the contract between the two. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/device/device.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/numbers.h"
#include "tests/harness/oft_lab.h"
#include "tests/harness/train_lab.h"

enum { N = 17, FEW = 3, SLOTS = OFT_LAB_SLOTS };        /* N: more than a pass there takes, sixteen */

static const enum oft_kind kinds[] = {OFT_L1, OFT_TOKENS, OFT_LAPLACE};
static const char *const words[] = {"pick up the red block", "open the drawer", "x"};

static int setup(void **state)
{
    test_device_setup(state);
    device->strict = true;              /* rows of any batch have the same bits */
    return oft_lab_two_cameras_and_state(state);
}

static int teardown(void **state)
{
    oft_lab_one_camera(state);
    return test_device_teardown(state);
}

/* Last layers of new heads are zero: they are made to speak. */
static struct openvla *make(enum oft_kind kind, bool film)
{
    struct openvla *model = oft_lab_model(kind);

    if (film)
        assert_int_equal(oft_add_film(model), 0);
    for (int i = 0; i < model->params.count; i++) {
        struct param *p = model->params.list[i];
        bool zero = true;

        for (int64_t k = 0; k < p->numel; k++)
            zero &= p->value[k] == 0;
        for (int64_t k = 0; zero && k < p->numel; k++)
            p->value[k] = 0.05f * (float)((k * 7 + i) % 5 - 2);
    }
    return model;
}

static void pack(struct openvla *model, struct device *on)
{
    params_use_device(&model->params, on, false);
    assert_int_equal(openvla_pack(model, true), 0);
}

struct acted {
    struct oft_result result[N];
    float *hidden;              /* (N, hidden) */
};

static void act(const struct openvla *model, int n, struct acted *ret)
{
    size_t width = (size_t)model->config.hidden;
    struct openvla_session *session = NULL;
    struct oft_item items[N] = {0};
    uint8_t *seen = oft_lab_pictures(1, 2 * n);
    float state[N][OFT_LAB_STATE];
    int32_t *prompt[ARRAY_SIZE(words)];
    int n_prompt[ARRAY_SIZE(words)];

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        assert_int_equal(openvla_prompt(model, words[i], &prompt[i], &n_prompt[i]), 0);
    for (int i = 0; i < n; i++) {
        memcpy(state[i], oft_lab_normalised(model, oft_lab_states + i % OFT_LAB_MAX_STEPS * OFT_LAB_STATE), sizeof state[i]);
        items[i] = (struct oft_item) {
            .images = {seen + 2 * i * OFT_LAB_FRAME, seen + (2 * i + 1) * OFT_LAB_FRAME}, .n_images = 2, .prompt = prompt[i % 3],
            .n_prompt = n_prompt[i % 3], .proprio = state[i], .temperature = i % 4 ? 1.0f : 0.0f, .full = i == 2, .seed = 7,
            .episode = (uint64_t)i,
        };
    }
    assert_int_equal(openvla_session_new(&model->config, N, &session), 0);
    memset(ret->result, 0, sizeof ret->result);
    assert_int_equal(oft_act(model, session, items, n, ret->result), 0);
    ret->hidden = malloc(N * width * sizeof *ret->hidden);
    assert_non_null(ret->hidden);
    memcpy(ret->hidden, openvla_act_hidden(session, 0), (size_t)n * width * sizeof *ret->hidden);
    openvla_session_free(session);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        free(prompt[i]);
    free(seen);
}

static void test_acts_as_on_the_cpu(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        enum oft_kind kind = kinds[k];
        bool film = kind == OFT_TOKENS;
        int n = kind == OFT_LAPLACE ? N : FEW;
        struct openvla *here = make(kind, film), *there = make(kind, film);
        struct acted cpu, gpu, alone;

        pack(here, NULL);
        pack(there, device);
        act(here, n, &cpu);
        act(there, n, &gpu);
        act(there, 1, &alone);
        for (int i = 0; i < n; i++)
            for (int s = 0; s < SLOTS; s++) {
                assert_true(kind != OFT_TOKENS || cpu.result[i].tokens[s] == gpu.result[i].tokens[s]);
                assert_true(fabs(cpu.result[i].action[s] - gpu.result[i].action[s]) < 2e-5);
                assert_true(fabsf(cpu.result[i].logp[s] - gpu.result[i].logp[s]) < 5e-5f);
            }
        assert_true(cpu.result[0].action[0] != cpu.result[1].action[0]);
        assert_true(numbers_distance(gpu.hidden, cpu.hidden, n * here->config.hidden) < 1e-5);
        assert_memory_equal(&alone.result[0], &gpu.result[0], sizeof alone.result[0]);
        free(cpu.hidden);
        free(gpu.hidden);
        free(alone.hidden);
        openvla_free(here);
        openvla_free(there);
    }
}

static void test_imitates_as_on_the_cpu(void **state)
{
    static const struct sft_config sft = {.steps = 1, .batch = 2, .lr = 1e-3, .clip = .5, .beta2 = .95, .lr_end = 1};

    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        bool film = kinds[k] != OFT_TOKENS;
        struct trainer *here = lab_trainer_on(make(kinds[k], film), NULL, NULL),
                       *there = lab_trainer_on(make(kinds[k], film), device, NULL);
        struct dataset *data = oft_lab_demonstrations(here->model);
        struct sft_result a = lab_imitate(here, data, &sft, 1), b = lab_imitate(there, data, &sft, 1);

        const struct part *trunk = &here->parts[TRAIN_TRUNK];

        assert_true(fabs(a.first_loss - b.first_loss) < 1e-5 * fabs(a.first_loss));
        assert_int_equal(trainer_fetch(there), 0);
        assert_true(numbers_distance(there->parts[TRAIN_TRUNK].adamw.m, trunk->adamw.m, trunk->end - trunk->begin) < 1e-4);
        dataset_free(data);
        trainer_free(here);
        trainer_free(there);
    }
}

static const struct rl_config rl = {
    .temperature = 1, .reward = REWARD_SPARSE, .w_success = 1, .advantage = ADVANTAGE_GAE, .gamma = .99, .lambda = .95, .epochs = 1,
    .minibatch = 64, .clip_low = .2, .clip_high = .2, .lr = 1e-4, .clip = 1, .beta2 = .95, .kl = KL_EXACT, .kl_coef = .01,
    .value_coef = .5, .value_width = 16, .value_epochs = 1, .value_lr = 1e-3, .critic_time = true,
};

static struct ppo_result iterate(struct trainer *t, const struct openvla *reference, struct dataset *data)
{
    struct ppo_result result;
    struct error error = {0};

    data->model = t->model;
    if (objective_ppo(t, reference, data, &rl, &(struct objective) {.seed = 7, .stage = 4, .version = 3}, &result, &error) < 0)
        fail_msg("%s", error.text);
    return result;
}

/* Episodes that the device's policy played: what the learner there finds is what they were drawn by, and what it makes of them is
 * what the CPU makes of them. */
static void iterates(enum oft_kind kind, bool film, int together)
{
    struct openvla *actor = make(kind, film), *beside = make(kind, film);
    struct trainer *here = lab_trainer_on(make(kind, film), NULL, NULL), *there = lab_trainer_on(make(kind, film), device, NULL);
    const struct part *trunk = &here->parts[TRAIN_TRUNK];
    struct dataset *data = NULL;
    struct ppo_result a, b;

    shards_together(there->shards, together);
    device->strict = together == 1;
    pack(actor, device);
    pack(beside, NULL);
    assert_int_equal(dataset_new(actor, &data), 0);
    oft_lab_add_rollout(data, actor, 1, 4);
    oft_lab_add_rollout(data, actor, 2, 3);
    dataset_sort(data);
    a = iterate(here, beside, data);
    b = iterate(there, actor, data);
    assert_true(b.updates == 1 && b.value_updates == a.value_updates && b.steps == 3);
    assert_true(b.logp_gap_tokens == a.logp_gap_tokens && b.logp_gap_tokens > 0);
    assert_true(b.logp_gap_max <= 5e-5);
    assert_true(fabs(b.ratio_mean - 1) < 1e-5 && b.clip_fraction == 0);
    assert_true(fabs(a.loss - b.loss) < 1e-5 && fabs(a.value_loss - b.value_loss) < 1e-4 * a.value_loss);
    assert_true(fabs(a.entropy - b.entropy) < 1e-5 * fabs(a.entropy) && fabs(b.ref_kl) < 1e-5);
    assert_true(a.gradient_norm > 0 && fabs(a.gradient_norm - b.gradient_norm) < 1e-4 * a.gradient_norm);
    assert_int_equal(trainer_fetch(there), 0);
    assert_true(numbers_distance(there->parts[TRAIN_TRUNK].adamw.m, trunk->adamw.m, trunk->end - trunk->begin) < 1e-4);
    device->strict = true;
    dataset_free(data);
    trainer_free(here);
    trainer_free(there);
    openvla_free(actor);
    openvla_free(beside);
}

static void test_learns_as_on_the_cpu(void **state)
{
    (void)state;
    iterates(OFT_LAPLACE, true, 1);
}

static void test_learns_with_all_shards_in_a_pass(void **state)
{
    (void)state;
    iterates(OFT_TOKENS, false, SHARDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acts_as_on_the_cpu),
        cmocka_unit_test(test_imitates_as_on_the_cpu),
        cmocka_unit_test(test_learns_as_on_the_cpu),
        cmocka_unit_test(test_learns_with_all_shards_in_a_pass),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
