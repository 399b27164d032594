/* The policy as the actor and the learner use it: what is sampled from the cache is what training computes again, to the bit;
 * a row does not depend on its batch. Directories: test_openvla_dirs.c. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "image/tf_image.h"
#include "nn/models/openvla_internal.h"
#include "nn/tokenizer.h"
#include "tests/harness/scratch.h"
#include "tests/harness/spec_policy.h"

enum { BATCH = 64, SIDE = 64, PIXELS = SIDE * SIDE * 3 };

static const char *const instructions[] = {"pick up the red block", "open the drawer",
                                           "Stack the GREEN block on top of the blue one", "x"};

static struct {
    struct openvla *model;
    uint8_t pixels[BATCH][PIXELS];
    int32_t *prompt[4];
    int n_prompt[4];
} f;

static int setup(void **state)
{
    (void)state;
    f.model = spec_policy_with_heads();
    assert_int_equal(openvla_pack(f.model, false), 0);
    for (int i = 0; i < BATCH; i++)
        for (int k = 0; k < PIXELS; k++)
            f.pixels[i][k] = (uint8_t)((unsigned)(k + i * 977) * 2654435761u >> 13);
    for (int i = 0; i < 4; i++)
        assert_int_equal(openvla_prompt(f.model, instructions[i], &f.prompt[i], &f.n_prompt[i]), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        free(f.prompt[i]);
    f.model = openvla_free(f.model);
    return 0;
}

static struct act_item item(int i)
{
    return (struct act_item){
        .images = {f.pixels[i]},
        .n_images = 1,
        .prompt = f.prompt[i % 4],
        .n_prompt = f.n_prompt[i % 4],
        .temperature = i % 5 ? 1.0f : 0.6f,
        .seed = 7,
        .episode = (uint64_t)i,
        .step = 3,
        .sample = 1,
        .full = i % 3 == 0,
    };
}

static void test_prompt(void **state)
{
    const struct openvla_config *c = &f.model->config;
    char *text;
    size_t n;

    (void)state;
    assert_int_equal(c->action_dims, 7);
    assert_int_equal(c->vocab, 640);
    assert_int_equal(f.n_prompt[0], 9);             /* <s>, one piece in front, five words, one behind, the empty token */
    assert_int_equal(f.prompt[0][0], c->bos_id);
    assert_int_equal(f.prompt[0][8], c->empty_id);
    assert_int_equal(tokenizer_decode(f.model->tokenizer, f.prompt[2], f.n_prompt[2] - 1, true, &text, &n), 0);
    assert_string_equal(text, "In: What action should the robot take to stack the green block on top of the blue one?\nOut:");
    free(text);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < f.n_prompt[i]; k++)
            assert_in_range(f.prompt[i][k], 0, c->vocab - OPENVLA_ACTION_BINS - 1);    /* the suite's words use no action's id */
}

/* Teacher-forced log-probs of the sampled tokens on a training tape, over the action ids and over the vocabulary. */
static void test_cache_equals_training(void **state)
{
    struct openvla *model = NULL;
    struct openvla_session *session;
    struct openvla_item items[4];
    struct act_item acts[4];
    struct act_result results[4];
    struct openvla_pass pass;
    struct tape tape;

    (void)state;
    assert_int_equal(openvla_clone(f.model, &model), 0);
    assert_int_equal(openvla_pack(model, true), 0);
    assert_int_equal(openvla_session_new(&model->config, 4, &session), 0);
    for (int i = 0; i < 4; i++)
        acts[i] = item(i + 1);
    assert_int_equal(openvla_act(f.model, session, acts, 4, results), 0);
    tape_init(&tape, true);
    for (int i = 0; i < 4; i++)
        items[i] = (struct openvla_item){.images = {acts[i].images[0]},
                                         .n_images = 1,
                                         .prompt = acts[i].prompt,
                                         .n_prompt = acts[i].n_prompt,
                                         .actions = results[i].tokens,
                                         .n_actions = 6};
    for (int run = 0; run < 2; run++) {
        if (run == 0)
            tape_plan(&tape);
        else
            tape_begin(&tape);
        assert_int_equal(openvla_forward(model, &tape, items, 4, &pass), 0);
        for (int i = 0; i < 4; i++) {
            int32_t rows[7], target[7];
            struct token_stats *stats;
            struct tensor *value;

            for (int t = 0; t < 7; t++) {
                rows[t] = pass.first[i] + t;
                target[t] = results[i].tokens[t] - (acts[i].full ? 0 : model->config.vocab - OPENVLA_ACTION_BINS);
            }
            stats = op_token_stats(&tape,
                                   openvla_logits(model, &tape, op_gather(&tape, pass.hidden, rows, 7), !acts[i].full),
                                   target, acts[i].temperature, NULL);
            value = openvla_value(model, &tape, op_gather(&tape, pass.hidden, rows, 1), NULL, true);
            assert_non_null(stats);
            assert_non_null(value);
            if (run == 0)
                continue;
            assert_memory_equal(stats->logp, results[i].logp, 7 * sizeof(float));
            assert_memory_equal(value->x, &results[i].value, sizeof(float));
            assert_true(results[i].value != 0);
        }
        if (run == 0)
            assert_int_equal(tape_allocate(&tape), 0);
    }
    tape_release(&tape);
    openvla_session_free(session);
    openvla_free(model);
}

/* Rows t of a and b: KL of the softmaxes over 256 logits, the plain way. */
static double plain_divergence(const float *a, const float *b)
{
    double za = 0, zb = 0, kl = 0;

    for (int i = 0; i < OPENVLA_ACTION_BINS; i++) {
        za += exp((double)a[i]);
        zb += exp((double)b[i]);
    }
    for (int i = 0; i < OPENVLA_ACTION_BINS; i++)
        kl += exp((double)a[i]) / za * ((double)a[i] - log(za) - (double)b[i] + log(zb));
    return kl;
}

/* A shadow follows another's tokens under its own prompt; how far apart they are is what training's logits say. */
static void test_confidence(void **state)
{
    struct openvla_session *session;
    struct act_item acts[2] = {item(1), item(1)}, alone = item(1);
    struct act_result results[2], by_itself;
    struct openvla_item items[2];
    struct openvla_pass pass;
    struct openvla *model = NULL;
    struct tape tape;

    (void)state;
    alone.full = acts[0].full = acts[1].full = false;
    acts[1].prompt = f.prompt[0] == acts[0].prompt ? f.prompt[1] : f.prompt[0];
    acts[1].n_prompt = f.prompt[0] == acts[0].prompt ? f.n_prompt[1] : f.n_prompt[0];
    acts[1].shadow_of = 1;
    assert_int_equal(openvla_session_new(&f.model->config, 2, &session), 0);
    assert_int_equal(openvla_act(f.model, session, &alone, 1, &by_itself), 0);
    assert_int_equal(openvla_act(f.model, session, acts, 2, results), 0);
    assert_memory_equal(results[0].tokens, by_itself.tokens, sizeof(by_itself.tokens));
    assert_memory_equal(results[0].logp, by_itself.logp, sizeof(by_itself.logp));
    assert_memory_equal(results[1].tokens, results[0].tokens, sizeof(results[0].tokens));
    assert_int_equal(openvla_clone(f.model, &model), 0);
    assert_int_equal(openvla_pack(model, true), 0);
    for (int i = 0; i < 2; i++)
        items[i] = (struct openvla_item){.images = {acts[i].images[0]}, .n_images = 1, .prompt = acts[i].prompt,
                                         .n_prompt = acts[i].n_prompt, .actions = results[0].tokens, .n_actions = 6};
    tape_init(&tape, true);
    for (int run = 0; run < 2; run++) {
        struct tensor *logits[2];
        double sum = 0;

        if (run == 0)
            tape_plan(&tape);
        else
            tape_begin(&tape);
        assert_int_equal(openvla_forward(model, &tape, items, 2, &pass), 0);
        for (int i = 0; i < 2; i++) {
            int32_t rows[7];

            for (int t = 0; t < 7; t++)
                rows[t] = pass.first[i] + t;
            logits[i] = openvla_logits(model, &tape, op_gather(&tape, pass.hidden, rows, 7), true);
            assert_non_null(logits[i]);
        }
        if (run == 0) {
            assert_int_equal(tape_allocate(&tape), 0);
            continue;
        }
        for (int t = 0; t < 7; t++)
            sum += plain_divergence(logits[0]->x + t * OPENVLA_ACTION_BINS, logits[1]->x + t * OPENVLA_ACTION_BINS);
        assert_true(sum > 0);
        assert_true(fabs((double)results[0].confidence - sum) < 1e-4 * (1 + sum));
    }
    tape_release(&tape);
    openvla_session_free(session);
    openvla_free(model);
}

static void test_batch_does_not_matter(void **state)
{
    static const int sizes[] = {1, 7, 64};
    struct act_result all[BATCH], some[BATCH];
    struct act_item items[BATCH];
    struct openvla_session *session;

    (void)state;
    for (int i = 0; i < BATCH; i++)
        items[i] = item(i);
    assert_int_equal(openvla_session_new(&f.model->config, BATCH, &session), 0);
    assert_int_equal(openvla_act(f.model, session, items, BATCH, all), 0);
    for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
        for (int first = 0; first < BATCH; first += sizes[s]) {
            int n = MIN(sizes[s], BATCH - first);

            assert_int_equal(openvla_act(f.model, session, items + first, n, some), 0);
            assert_memory_equal(some, all + first, (size_t)n * sizeof(*some));
        }
    /* values alone, in between */
    for (int i = 0; i < BATCH; i += 2)
        items[i].value_only = true;
    assert_int_equal(openvla_act(f.model, session, items, BATCH, some), 0);
    for (int i = 0; i < BATCH; i++) {
        assert_true(some[i].value == all[i].value);
        if (i % 2)
            assert_memory_equal(some[i].tokens, all[i].tokens, sizeof(all[i].tokens));
        else
            assert_true(some[i].tokens[0] == 0 && some[i].logp[0] == 0);
    }
    openvla_session_free(session);
}

static void test_sampling_counter(void **state)
{
    struct act_item items[4] = {item(1), item(1), item(1), item(1)};
    struct act_result results[4], greedy[2];
    struct openvla_session *session;

    (void)state;
    items[1].episode = 99;
    items[2].sample = 2;
    items[3].images[0] = f.pixels[1];               /* the very same request again */
    assert_int_equal(openvla_session_new(&f.model->config, 4, &session), 0);
    assert_int_equal(openvla_act(f.model, session, items, 4, results), 0);
    assert_memory_equal(results[0].tokens, results[3].tokens, sizeof(results[0].tokens));
    assert_memory_not_equal(results[0].tokens, results[1].tokens, sizeof(results[0].tokens));
    assert_memory_not_equal(results[0].tokens, results[2].tokens, sizeof(results[0].tokens));
    items[0].temperature = items[1].temperature = 0;
    assert_int_equal(openvla_act(f.model, session, items, 2, greedy), 0);
    assert_memory_equal(greedy[0].tokens, greedy[1].tokens, sizeof(greedy[0].tokens));
    for (int t = 0; t < 7; t++)
        assert_in_range(results[1].tokens[t], 640 - 256, 639);
    assert_int_equal(openvla_act(f.model, session, items, 5, results), -EINVAL);       /* more than the session holds */
    openvla_session_free(session);
}

static void test_score(void **state)
{
    struct score_item items[6];
    struct openvla_session *session;
    float all[6], one;

    (void)state;
    assert_int_equal(openvla_session_new(&f.model->config, 6, &session), 0);
    for (int i = 0; i < 6; i++) {                   /* one first frame for all, and once eight images */
        items[i] = (struct score_item){
            .images = {f.pixels[0], f.pixels[i]}, .n_images = 2, .prompt = f.prompt[0], .n_prompt = f.n_prompt[0]};
        for (int k = 2; i == 5 && k < OPENVLA_MAX_IMAGES; k++)
            items[i].images[items[i].n_images++] = f.pixels[k];
    }
    assert_int_equal(openvla_score(f.model, session, items, 6, all), 0);
    for (int i = 0; i < 6; i++) {
        assert_true(all[i] > 0 && all[i] < 1);
        assert_int_equal(openvla_score(f.model, session, &items[i], 1, &one), 0);
        assert_true(one == all[i]);
    }
    assert_true(all[1] != all[2]);
    openvla_session_free(session);
}

/* A policy trained with random crops sees the middle of every picture, whoever shows it; a training pass crops by itself. */
static void test_center_crop(void **state)
{
    struct act_item items[2] = {item(1), item(2)};
    struct act_result plain[2], cropped[2], by_hand[2];
    struct openvla *model = NULL, *back = NULL;
    struct openvla_session *session;
    uint8_t middle[2][PIXELS];
    char dir[SCRATCH_PATH];
    struct error error = {0};

    (void)state;
    assert_int_equal(openvla_clone(f.model, &model), 0);
    assert_int_equal(openvla_pack(model, false), 0);
    assert_int_equal(openvla_session_new(&model->config, 2, &session), 0);
    assert_int_equal(openvla_act(model, session, items, 2, plain), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tf_center_crop(items[i].images[0], SIDE, SIDE, 0.9f, middle[i]), 0);
        items[i].images[0] = middle[i];
    }
    assert_int_equal(openvla_act(model, session, items, 2, by_hand), 0);
    if (openvla_set_pictures(model, TF_EVALUATION_CHAIN, 0.9f, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < 2; i++)
        items[i].images[0] = f.pixels[i + 1];
    assert_int_equal(openvla_act(model, session, items, 2, cropped), 0);
    assert_memory_equal(cropped, by_hand, sizeof(cropped));
    assert_memory_not_equal(cropped, plain, sizeof(cropped));

    /* config.json says so from now on, and other pictures are refused */
    scratch_new(dir);
    if (openvla_save(model, dir, "F32", &error) < 0 || openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(back->config.image_chain, TF_EVALUATION_CHAIN);
    assert_true(back->config.center_crop == 0.9f);
    assert_int_equal(openvla_set_pictures(back, TF_EVALUATION_CHAIN, 0.9f, &error), 0);
    assert_int_equal(openvla_set_pictures(back, "render", 0.9f, &error), -EINVAL);
    assert_non_null(strstr(error.text, TF_EVALUATION_CHAIN));
    assert_int_equal(openvla_set_pictures(back, TF_EVALUATION_CHAIN, 0.5f, &error), -EINVAL);
    openvla_free(back);
    remove_tree(dir);
    openvla_session_free(session);
    openvla_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_cache_equals_training),
        cmocka_unit_test(test_confidence),
        cmocka_unit_test(test_batch_does_not_matter),
        cmocka_unit_test(test_sampling_counter),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_center_crop),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
