/* What actor and learner promise each other about the model's bits: rows do not depend on the batch, the tail of a pass equals
 * the whole pass, and what was sampled token by token from the cache has the log-probabilities that training computes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/models/openvla.h"

enum { N = 11, IMAGE = 64 * 64 * 3 };
static const char spec[] = "models/tiny-spec";

static bool fast;

struct world {
    struct openvla *model;
    uint8_t *images;            /* [N][IMAGE] */
    int32_t *prompt[2]; int n_prompt[2];
};

static int world_setup(void **state)
{
    struct philox random = philox_at(81, PHILOX_TEST, 0, 0, 0);
    struct world *w = calloc(1, sizeof(*w));
    struct error error = {0};

    assert_non_null(w);
    if (openvla_new(spec, 5, &w->model, &error) < 0)
        fail_msg("%s", error.text);
    if (fast)
        assert_true(params_use_fast(&w->model->params));
    assert_int_equal(openvla_pack(w->model, false), 0);
    assert_int_equal(w->model->config.image_height * w->model->config.image_width * 3, IMAGE);
    assert_int_equal(openvla_prompt(w->model, "push the red block", &w->prompt[0], &w->n_prompt[0]), 0);
    assert_int_equal(openvla_prompt(w->model, "stack the blue block on the green one", &w->prompt[1], &w->n_prompt[1]), 0);
    w->images = malloc(N * IMAGE);
    assert_non_null(w->images);
    for (size_t i = 0; i < N * IMAGE; i++)
        w->images[i] = (uint8_t)philox_u32(&random);
    *state = w;
    return 0;
}

static int world_teardown(void **state)
{
    struct world *w = *state;

    openvla_free(w->model);
    free(w->images);
    free(w->prompt[0]);
    free(w->prompt[1]);
    free(w);
    return 0;
}

static struct act_item act_item(const struct world *w, int i)
{
    return (struct act_item) {.images = {w->images + i * IMAGE}, .n_images = 1, .prompt = w->prompt[i % 2],
                              .n_prompt = w->n_prompt[i % 2], .temperature = 1.3f, .seed = 9, .episode = (uint64_t)i};
}

static void test_an_act_does_not_depend_on_its_batch(void **state)
{
    const struct world *w = *state;
    struct openvla_session *session = NULL;
    struct act_item items[N];
    struct act_result all[N], alone;

    assert_int_equal(openvla_session_new(&w->model->config, N, &session), 0);
    for (int i = 0; i < N; i++)
        items[i] = act_item(w, i);
    assert_int_equal(openvla_act(w->model, session, items, N, all), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(openvla_act(w->model, session, &items[i], 1, &alone), 0);
        assert_memory_equal(alone.tokens, all[i].tokens, sizeof(alone.tokens));
        assert_memory_equal(alone.logp, all[i].logp, sizeof(alone.logp));
    }
    openvla_session_free(session);
}

static struct openvla_item sequence(const struct world *w, int i, const struct act_result *acted)
{
    return (struct openvla_item) {.images = {w->images + i * IMAGE}, .n_images = 1, .prompt = w->prompt[i % 2],
                                  .n_prompt = w->n_prompt[i % 2],
                                  .actions = acted->tokens, .n_actions = w->model->config.action_dims};
}

static void test_tail_equals_whole_and_training_equals_acting(void **state)
{
    const struct world *w = *state;
    const struct openvla_config *config = &w->model->config;
    struct openvla_session *session = NULL;
    struct act_item items[N];
    struct act_result acted[N];
    struct openvla_item sequences[N];
    struct openvla_pass whole, tail;
    struct tape a, b;
    int rows = config->action_dims + 1;

    assert_int_equal(openvla_session_new(config, N, &session), 0);
    for (int i = 0; i < N; i++)
        items[i] = act_item(w, i);
    assert_int_equal(openvla_act(w->model, session, items, N, acted), 0);
    for (int i = 0; i < N; i++)
        sequences[i] = sequence(w, i, &acted[i]);
    tape_init(&a, false);
    tape_init(&b, false);
    assert_int_equal(tape_reserve(&a, 64 << 20), 0);
    assert_int_equal(tape_reserve(&b, 64 << 20), 0);
    assert_int_equal(openvla_forward(w->model, &a, sequences, N, &whole), 0);
    assert_int_equal(openvla_forward_tail(w->model, &b, sequences, N, &tail), 0);
    assert_int_equal(tail.hidden->rows, N * rows);
    for (int i = 0; i < N; i++) {
        int32_t index[OPENVLA_MAX_ACTION_DIMS], target[OPENVLA_MAX_ACTION_DIMS];
        struct token_stats *stats;

        assert_memory_equal(tail.hidden->x + tail.first[i] * config->hidden, whole.hidden->x + whole.first[i] * config->hidden,
                            (size_t)(rows * config->hidden) * sizeof(float));
        for (int k = 0; k < config->action_dims; k++) {
            index[k] = tail.first[i] + k;
            target[k] = acted[i].tokens[k] - (config->vocab - OPENVLA_ACTION_BINS);
        }
        stats = op_token_stats(&b, openvla_logits(w->model, &b, op_gather(&b, tail.hidden, index, config->action_dims), true),
                               target, 1.3f, NULL);
        assert_non_null(stats);
        assert_memory_equal(stats->logp, acted[i].logp, (size_t)config->action_dims * sizeof(float));
    }
    tape_release(&a);
    tape_release(&b);
    openvla_session_free(session);
}

/* Neighbours with the same first picture share its rows; whoever stands alone, or is scored alone, computes them itself. */
static void test_a_shared_beginning_changes_no_bit(void **state)
{
    static const int first[N] = {0, 0, 0, 3, 4, 4, 3, 3, 3, 3, 10}, second[N] = {0, 1, 2, 0, 5, 4, 3, 7, 8, 9, 1};
    const struct world *w = *state;
    struct openvla *model = NULL;
    struct openvla_session *session = NULL;
    struct score_item items[N];
    struct param *last;
    float all[N], alone;

    assert_int_equal(openvla_clone(w->model, &model), 0);
    assert_int_equal(openvla_add_reward_head(model, 32, 4), 0);
    last = param_find(&model->params, "reward_head.fc2.weight");
    for (int64_t i = 0; i < last->numel; i++)
        last->value[i] = i % 2 ? .5f : -.5f;    /* fresh it is zero: every score would be alike */
    assert_int_equal(openvla_pack(model, false), 0);
    assert_int_equal(openvla_session_new(&model->config, N, &session), 0);
    for (int i = 0; i < N; i++) {
        items[i] = (struct score_item) {.images = {w->images + first[i] * IMAGE, w->images + second[i] * IMAGE},
                                        .n_images = 1 + (i != 5), .prompt = w->prompt[i > 7], .n_prompt = w->n_prompt[i > 7]};
    }
    assert_int_equal(openvla_score(model, session, items, N, all), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(openvla_score(model, session, &items[i], 1, &alone), 0);
        assert_memory_equal(&alone, &all[i], sizeof(alone));
        assert_true(i == 0 || all[i] != all[i - 1]);
    }
    openvla_session_free(session);
    openvla_free(model);
}

/* Pictures of a camera that stands still: all like the first but for some pixels, one of them the very last. */
static uint8_t *alike_pictures(const struct world *w)
{
    uint8_t *images = malloc(N * IMAGE);

    assert_non_null(images);
    for (int i = 0; i < N; i++) {
        memcpy(images + i * IMAGE, w->images, IMAGE);
        images[i * IMAGE + i / 2 * 1000] ^= 255;            /* every other one like its neighbour there */
        images[i * IMAGE + IMAGE - 1] ^= (uint8_t)(i % 3);
    }
    return images;
}

/* Patches that occur several times in a batch are computed once: nobody may see it. */
static void test_alike_pictures(void **state)
{
    const struct world *w = *state;
    _cleanup_free_ uint8_t *images = alike_pictures(w);
    struct openvla_session *session = NULL;
    struct act_item items[N];
    struct act_result all[N], alone;

    assert_int_equal(openvla_session_new(&w->model->config, N, &session), 0);
    for (int i = 0; i < N; i++) {
        items[i] = act_item(w, i);
        items[i].images[0] = images + i * IMAGE;
    }
    assert_int_equal(openvla_act(w->model, session, items, N, all), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(openvla_act(w->model, session, &items[i], 1, &alone), 0);
        assert_memory_equal(alone.tokens, all[i].tokens, sizeof(alone.tokens));
        assert_memory_equal(alone.logp, all[i].logp, sizeof(alone.logp));
    }
    openvla_session_free(session);
}

static void test_which_patches_are_alike(void **state)
{
    const struct world *w = *state;
    _cleanup_free_ uint8_t *images = alike_pictures(w);
    const uint8_t *list[N];
    struct pictures p = {.images = list, .b = N, .height = 64, .width = 64, .patch = 16};
    struct tape tape;

    for (int i = 0; i < N; i++)
        list[i] = images + i * IMAGE;
    tape_init(&tape, false);
    assert_int_equal(tape_reserve(&tape, 1 << 22), 0);
    tape_begin(&tape);
    assert_int_equal(pictures_look(&tape, &p), 0);
    assert_non_null(p.pick);
    for (int at = 0; at < N * 16; at++) {
        int found = p.pick[p.index[at]], differ = 0;

        assert_true(found <= at && found % 16 == at % 16);
        for (int y = 0; y < 16; y++)
            differ |= memcmp(list[at / 16] + (at % 16 / 4 * 16 + y) * 192 + at % 4 * 48,
                             list[found / 16] + (at % 16 / 4 * 16 + y) * 192 + at % 4 * 48, 48);
        assert_int_equal(differ, 0);
    }
    assert_in_range(p.picked, 16 + 2 + 5, 16 + 2 + 2 * N);      /* three last corners, and what the first pixels changed */
    p.b = 1;
    assert_int_equal(pictures_look(&tape, &p), 0);
    assert_null(p.pick);
    tape_release(&tape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_act_does_not_depend_on_its_batch),
        cmocka_unit_test(test_tail_equals_whole_and_training_equals_acting),
        cmocka_unit_test(test_a_shared_beginning_changes_no_bit),
        cmocka_unit_test(test_alike_pictures),
        cmocka_unit_test(test_which_patches_are_alike),
    };

    int failed = cmocka_run_group_tests(tests, world_setup, world_teardown);

    fast = cpu_kernels()->gemm_bf16;        /* the same promises in numerics: fast */
    if (!fast)
        print_message("numerics: fast is not tested: no VDPBF16PS here\n");
    return fast ? failed + cmocka_run_group_tests(tests, world_setup, world_teardown) : failed;
}
