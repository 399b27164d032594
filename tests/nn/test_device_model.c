/* Whole models on the emulated device, or the one that GANTRY_TEST_DEVICE names, against the CPU: the policy acts, scores and
 * learns by the same code. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/device/device.h"
#include "nn/golden.h"
#include "nn/lora_join.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/qwen_vl.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/numbers.h"
#include "tests/harness/spec_policy.h"
#include "tests/harness/synthetic.h"
#include "train/trainer.h"

enum { N = 3, SIDE = 64, PIXELS = SIDE * SIDE * 3, TOKENS = 7 };

static uint8_t pixels[N][PIXELS];
static struct openvla *here;
static int32_t *prompt[N];
static int n_prompt[N];

static int setup(void **state)
{
    static const char *const words[N] = {"pick up the red block", "open the drawer", "x"};

    (void)state;
    device = test_device_open();
    device->strict = true;              /* rows of any batch have the same bits */
    here = spec_policy_with_heads();
    assert_int_equal(openvla_pack(here, true), 0);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < PIXELS; k++)
            pixels[i][k] = (uint8_t)((unsigned)(k + i * 977) * 2654435761u >> 13);
    for (int i = 0; i < N; i++)
        assert_int_equal(openvla_prompt(here, words[i], &prompt[i], &n_prompt[i]), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        free(prompt[i]);
    here = openvla_free(here);
    device = device_unref(device);
    return 0;
}

static struct openvla *make_there(bool half)
{
    struct openvla *model = spec_policy_with_heads();

    params_use_device(&model->params, device, half);
    assert_int_equal(openvla_pack(model, true), 0);
    return model;
}

static void act(const struct openvla *model, int first, int n, struct act_result *ret)
{
    struct openvla_session *session = NULL;
    struct act_item items[N] = {0};

    for (int i = 0; i < n; i++)
        items[i] = (struct act_item) {
            .images = {pixels[first + i]}, .n_images = 1, .prompt = prompt[first + i], .n_prompt = n_prompt[first + i],
            .temperature = first + i == 1 ? 0.0f : 1.2f, .seed = 7, .episode = (uint64_t)(first + i), .full = first + i == 2,
        };
    assert_int_equal(openvla_session_new(&model->config, N, &session), 0);
    assert_int_equal(openvla_act(model, session, items, n, ret), 0);
    openvla_session_free(session);
}

static void test_acts_as_on_the_cpu(void **state)
{
    struct openvla *there = make_there(false);
    struct act_result cpu[N], gpu[N], alone[N];

    (void)state;
    act(here, 0, N, cpu);
    act(there, 0, N, gpu);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(cpu[i].tokens, gpu[i].tokens, TOKENS * sizeof(int32_t));
        for (int k = 0; k < TOKENS; k++)
            assert_float_equal(cpu[i].logp[k], gpu[i].logp[k], 2e-5);
        assert_float_equal(cpu[i].value, gpu[i].value, 2e-5);
        act(there, i, 1, &alone[i]);                    /* a row does not depend on its batch */
        assert_memory_equal(&alone[i], &gpu[i], sizeof(gpu[i]));
    }
    openvla_free(there);
}

static void test_acts_in_bf16(void **state)
{
    struct openvla *there = make_there(true);
    struct act_result cpu[N], gpu[N];

    (void)state;
    act(here, 0, N, cpu);
    act(there, 0, N, gpu);
    for (int i = 0; i < N; i++)
        if (cpu[i].tokens[0] == gpu[i].tokens[0])       /* a draw at the edge may fall to the other side */
            assert_float_equal(cpu[i].logp[0], gpu[i].logp[0], 0.1);
        else
            assert_true(isfinite(gpu[i].logp[0]));
    openvla_free(there);
}

/* Adapters of what reads the same are multiplied by at once; where the own kernels do it every bit is as if each were alone. */
static void test_joined_adapters(void **state)
{
    const struct lora_spec spec = {.r = 4, .alpha = 8, .targets = "all-linear"};
    struct act_result joined[N], apart[N];
    struct error error = {0};

    (void)state;
    for (int half = 0; half < 2; half++) {
        struct openvla *model = spec_policy_with_heads();

        memset(joined, 0, sizeof(joined));
        memset(apart, 0, sizeof(apart));
        assert_int_equal(openvla_lora_new(model, &spec, 5, &error), 0);
        for (int i = 0; i < model->params.count; i++)   /* B is not zero */
            for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
                model->params.list[i]->value[k] = 0.02f * (float)((k * 7 + i) % 11 - 5);
        params_use_device(&model->params, device, half);
        model->params.fast = half;                      /* packing tells the device which numerics */
        assert_int_equal(openvla_pack(model, false), 0);
        assert_true(model->params.n_joins == 2 * model->config.layers);
        assert_true(half ? model->params.joins[0]->a.on_bf16 != NULL : model->params.joins[0]->a.on_f32 != NULL);
        act(model, 0, N, joined);
        model->params.fast = false;
        assert_int_equal(openvla_pack(model, half ? false : true), 0);   /* strict bf16, and training: each alone */
        assert_true(!model->params.joins[0]->a.on_bf16 && !model->params.joins[0]->a.on_f32);
        act(model, 0, N, apart);
        for (int i = 0; i < N && device->blas; i++)
            assert_float_equal(joined[i].logp[0], apart[i].logp[0], half ? .1 : 1e-4);
        if (!device->blas)
            assert_memory_equal(joined, apart, sizeof(joined));
        openvla_free(model);
    }
}

static void score(const struct openvla *model, float *ret)
{
    struct openvla_session *session = NULL;
    struct score_item items[N] = {0};

    for (int i = 0; i < N; i++)
        items[i] = (struct score_item) {.images = {pixels[0], pixels[i]}, .n_images = 2, .prompt = prompt[i],
                                        .n_prompt = n_prompt[i]};
    assert_int_equal(openvla_session_new(&model->config, N, &session), 0);
    assert_int_equal(openvla_score(model, session, items, N, ret), 0);
    openvla_session_free(session);
}

static void test_scores_as_on_the_cpu(void **state)
{
    struct openvla *there = make_there(false);
    float cpu[N], gpu[N];

    (void)state;
    score(here, cpu);
    score(there, gpu);
    for (int i = 0; i < N; i++)
        assert_float_equal(cpu[i], gpu[i], 1e-5);
    openvla_free(there);
}

/* Log-probabilities of fixed tokens, entropy and value in one loss. */
static int learn(struct tape *tape, int shard, int first, int last, void *arg)
{
    const struct openvla *model = arg;
    struct openvla_item *items = tape_alloc(tape, N * sizeof(*items));
    int32_t *tokens = tape_alloc(tape, N * TOKENS * sizeof(*tokens)), *target = tape_alloc(tape, N * TOKENS * sizeof(*target));
    int32_t *rows = tape_alloc(tape, N * TOKENS * sizeof(*rows));
    float *g = tape_alloc(tape, N * sizeof(*g));
    int n = last - first, base = model->config.vocab - OPENVLA_ACTION_BINS, r;
    struct openvla_pass pass;
    struct token_stats *stats;
    struct tensor *value;

    (void)shard;
    if (!items || !tokens || !target || !rows || !g)
        return tape->error;
    for (int i = 0; i < n; i++) {
        int at = (first + i) % N;

        for (int k = 0; k < TOKENS; k++) {
            target[i * TOKENS + k] = (at * 31 + k * 17) % OPENVLA_ACTION_BINS;
            tokens[i * TOKENS + k] = base + target[i * TOKENS + k];
        }
        items[i] = (struct openvla_item) {.images = {pixels[at]}, .n_images = 1, .prompt = prompt[at], .n_prompt = n_prompt[at],
                                          .actions = tokens + i * TOKENS, .n_actions = TOKENS - 1};
    }
    r = openvla_forward_tail(model, tape, items, n, &pass);
    if (r < 0)
        return r;
    for (int i = 0; i < n * TOKENS; i++)
        rows[i] = pass.first[i / TOKENS] + i % TOKENS;
    stats = op_token_stats(tape, openvla_logits(model, tape, op_gather(tape, pass.hidden, rows, n * TOKENS), true), target, 1.1f,
                           NULL);
    value = openvla_value(model, tape, op_gather(tape, pass.hidden, pass.first, n), NULL, false);
    if (!stats || !value)
        return tape->error;
    if (tape->planning)
        return 0;
    for (int i = 0; i < n * TOKENS; i++) {
        stats->dlogp[i] = -0.1f;
        stats->dentropy[i] = 0.01f;
    }
    for (int i = 0; i < n; i++)
        g[i] = 0.3f;
    if (tape_set_gradient(tape, value, g) < 0)
        return tape->error;
    tape_backward(tape);
    return tape->error;
}

/* The gradient of the whole policy and of one with adapters, blocks kept and computed twice, so many shards in a pass. */
static void learns(bool adapters, bool recompute, int together)
{
    struct lora_spec spec = {.r = 4, .alpha = 8, .targets = "all-linear"};
    float *grad[2];
    int64_t numel = 0;

    for (int k = 0; k < 2; k++) {
        struct openvla *model = spec_policy_with_heads();
        struct adamw_range ranges[1024];
        struct trainer *t = NULL;
        struct error error = {0};
        int n = 0;

        if (adapters)
            assert_int_equal(openvla_lora_new(model, &spec, 5, &error), 0);
        device_set_process(k ? device : NULL);
        assert_int_equal(trainer_new(model, 1, NULL, &t), 0);
        device_set_process(NULL);
        assert_ptr_equal(model->params.device, k ? device : NULL);
        shards_recompute(t->shards, recompute);
        shards_together(t->shards, together);
        device->strict = together == 1;
        for (int part = TRAIN_TRUNK; part <= TRAIN_VALUE; part++)
            for (int i = 0; i < t->parts[part].n; i++)
                ranges[n++] = t->parts[part].ranges[i];
        numel = model->params.numel;
        grad[k] = calloc((size_t)numel, sizeof(float));
        assert_int_equal(shards_gradient(t->shards, ranges, n, 4, learn, model, grad[k]), 0);
        trainer_free(t);
    }
    assert_true(numbers_distance(grad[1], grad[0], numel) < 1e-4);
    device->strict = true;
    free(grad[0]);
    free(grad[1]);
}

static void test_learns_as_on_the_cpu(void **state)
{
    (void)state;
    learns(false, false, 1);
}

static void test_learns_with_adapters_blocks_computed_twice_and_half_of_the_shards_in_a_pass(void **state)
{
    (void)state;
    learns(true, true, SHARDS / 2);
}

/* A reward model of its own backbone: patches are cut and looked up there, of pictures of two sizes. */
static void test_a_reward_model_scores_as_on_the_cpu(void **state)
{
    enum { PATCHES = 80, WIDTH = 64 };
    static const int side[2] = {56, 112};
    static float patches[2][PATCHES * WIDTH];
    float progress[2][2];
    struct error error = {0};

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct qwen_item items[2] = {0};
        struct qwen_session *session = NULL;
        struct qwen_vl *model = NULL;
        struct qwen_pass pass;
        struct tape tape;

        if (synthetic_reward(true, &model, &error) < 0)
            fail_msg("%s", error.text);
        if (k)
            params_use_device(&model->params, device, true);
        assert_int_equal(qwen_vl_pack(model, true), 0);
        for (int i = 0; i < 2; i++) {
            uint8_t *rgb = malloc((size_t)(side[i] * side[i] * 3));
            int32_t *ids;

            for (int at = 0; at < side[i] * side[i] * 3; at++)
                rgb[at] = (uint8_t)((unsigned)at * 2654435761u >> 13);
            assert_int_equal(synthetic_prompt(model, side[i], 5, &ids, &items[i].n_ids), 0);
            items[i].ids = ids;
            items[i].n_pictures = 1;
            items[i].pictures[0] = (struct qwen_picture) {rgb, side[i], side[i]};
        }
        tape_init(&tape, true);         /* nothing is forgotten */
        assert_int_equal(tape_attach(&tape, &model->params), 0);
        assert_int_equal(tape_reserve(&tape, 64 << 20), 0);
        tape_begin(&tape);
        assert_int_equal(qwen_vl_forward_full(model, &tape, items, 2, &pass), 0);
        assert_int_equal(pass.patches->rows * pass.patches->cols, PATCHES * WIDTH);
        memcpy(patches[k], tape_values(&tape, pass.patches), sizeof patches[k]);
        tape_release(&tape);
        assert_int_equal(qwen_session_new(&session), 0);
        assert_int_equal(qwen_vl_score(model, session, items, 2, progress[k]), 0);
        qwen_session_free(session);
        for (int i = 0; i < 2; i++) {
            free((void *)(uintptr_t)items[i].ids);
            free((void *)(uintptr_t)items[i].pictures[0].rgb);
        }
        qwen_vl_free(model);
        if (k)
            assert_true(numbers_distance(patches[1], patches[0], PATCHES * WIDTH) < 1e-2);
    }
    for (int i = 0; i < 2; i++)
        assert_true(fabsf(progress[1][i] - progress[0][i]) < 1e-2f);
}

/* Every layer of the reference's model, under the reference's own tolerances. */
static void test_goldens(void **state)
{
    const char *goldens = getenv("GANTRY_GOLDENS");
    struct error error = {0};
    char dir[4096];
    int r;

    (void)state;
    if (!goldens) {
        print_message("GANTRY_GOLDENS is not set: no reference numbers\n");
        skip();
    }
    snprintf(dir, sizeof(dir), "%s/openvla/tiny64", goldens);
    device_set_process(device);
    r = golden_check_forward_pass(dir, stdout, &error);
    device_set_process(NULL);
    if (r < 0)
        fail_msg("%s", error.text);
    assert_int_equal(r, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acts_as_on_the_cpu),
        cmocka_unit_test(test_acts_in_bf16),
        cmocka_unit_test(test_joined_adapters),
        cmocka_unit_test(test_scores_as_on_the_cpu),
        cmocka_unit_test(test_learns_as_on_the_cpu),
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_a_reward_model_scores_as_on_the_cpu),
        cmocka_unit_test(test_learns_with_adapters_blocks_computed_twice_and_half_of_the_shards_in_a_pass),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
