/* OpenVLA-OFT as the actor and the learner use it: answers see the whole sequence; what is sampled is what training computes
 * again; a row does not depend on its batch; heads go to their files and come back; what does not fit is refused. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"
#include "nn/safetensors.h"
#include "tests/harness/scratch.h"

enum { BATCH = 64, SIDE = 64, PIXELS = SIDE * SIDE * 3, CHUNK = 3, DIMS = 7, SLOTS = CHUNK * DIMS, STATE = 5 };

static const char *const instructions[] = {"pick up the red block", "open the drawer", "x"};

static struct {
    struct openvla *model; /* Laplace: it has all heads */
    uint8_t pixels[BATCH][PIXELS];
    float state[BATCH][STATE];
    int32_t *prompt[3];
    int n_prompt[3];
} f;

static struct openvla *make(void)
{
    struct openvla *model = NULL;
    struct error error;

    if (openvla_new("tests/golden/nano", 1, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(oft_add_scale_head(model, 8, -1.5f, 4), -EINVAL);
    assert_int_equal(oft_add_action_head(model, CHUNK, 24, 2, 2), 0);
    assert_int_equal(oft_add_action_head(model, CHUNK, 24, 2, 2), -EEXIST);
    assert_int_equal(oft_add_state(model, STATE, 3), 0);
    assert_int_equal(oft_add_scale_head(model, 8, -1.5f, 4), 0);
    assert_int_equal(openvla_add_value_head(model, 16, 0, 5), 0);
    for (int i = 0; i < model->params.count; i++) /* last layers of new heads are zero: make them speak */
        if (strstr(model->params.list[i]->name, "_head.fc2.weight"))
            for (int64_t k = 0; k < model->params.list[i]->numel; k++)
                model->params.list[i]->value[k] = 0.05f * (float)(k % 5 - 2);
    return model;
}

static int setup(void **state)
{
    (void)state;
    f.model = make();
    assert_int_equal(openvla_pack(f.model, true), 0);
    for (int i = 0; i < BATCH; i++) {
        for (int k = 0; k < PIXELS; k++)
            f.pixels[i][k] = (uint8_t)((unsigned)(k + i * 977) * 2654435761u >> 13);
        for (int k = 0; k < STATE; k++)
            f.state[i][k] = (float)((i * 7 + k * 3) % 11 - 5) / 5.0f;
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(openvla_prompt(f.model, instructions[i], &f.prompt[i], &f.n_prompt[i]), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        free(f.prompt[i]);
    f.model = openvla_free(f.model);
    return 0;
}

static struct oft_item item(int i)
{
    return (struct oft_item){
        .images = {f.pixels[i], f.pixels[(i + 1) % BATCH]},
        .n_images = 2,
        .prompt = f.prompt[i % 3],
        .n_prompt = f.n_prompt[i % 3],
        .proprio = f.state[i],
        .temperature = i % 4 ? 1.0f : 0.5f,
        .full = i % 5 == 0,
        .seed = 7,
        .episode = (uint64_t)i,
        .step = 2,
    };
}

static void act(enum oft_kind kind, const struct oft_item *items, int n, struct oft_result *results)
{
    _cleanup_(openvla_session_freep) struct openvla_session *session = NULL;

    f.model->config.oft.kind = kind;
    assert_int_equal(openvla_session_new(&f.model->config, BATCH, &session), 0);
    assert_int_equal(oft_act(f.model, session, items, n, results), 0);
}

/* ---- the pass ------------------------------------------------------------------------------------------------------ */

static void test_answers_see_everything(void **state)
{
    struct oft_item items[4] = {item(1), item(1), item(1), item(1)};
    struct oft_result results[4];
    int32_t other[32];

    (void)state;
    memcpy(other, f.prompt[1], (size_t)f.n_prompt[1] * sizeof(*other));
    other[1]++;
    items[1].prompt = other;
    items[2].proprio = f.state[2];
    items[3].images[1] = f.pixels[9];
    act(OFT_L1, items, 4, results);
    for (int i = 1; i < 4; i++)
        for (int k = 0; k < SLOTS; k++)
            assert_true(results[i].action[k] != results[0].action[k]);
}

/* The stop token stands behind all slots: in a causal model no answer could know it. */
static void test_answers_see_what_follows(void **state)
{
    struct oft_item one = item(1);
    struct oft_result before, after;
    int eos = f.model->config.eos_id;

    (void)state;
    act(OFT_L1, &one, 1, &before);
    f.model->config.eos_id = 5;
    act(OFT_L1, &one, 1, &after);
    f.model->config.eos_id = eos;
    assert_true(before.action[0] != after.action[0]);
}

static void test_batch_does_not_matter(void **state)
{
    static const enum oft_kind kinds[] = {OFT_L1, OFT_TOKENS, OFT_LAPLACE};
    static const int sizes[] = {1, 7};
    struct oft_result *all = calloc(BATCH, sizeof(*all)), *some = calloc(BATCH, sizeof(*some));
    struct oft_item items[BATCH];

    (void)state;
    for (int i = 0; i < BATCH; i++)
        items[i] = item(i);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        act(kinds[k], items, BATCH, all);
        assert_true(all[0].value != 0 && all[0].value != all[1].value);
        for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
            for (int first = 0; first < BATCH; first += sizes[s]) {
                int n = MIN(sizes[s], BATCH - first);

                act(kinds[k], items + first, n, some);
                assert_memory_equal(some, all + first, (size_t)n * sizeof(*some));
            }
    }
    free(all);
    free(some);
}

/* ---- actor and learner --------------------------------------------------------------------------------------------------- */

struct learner {
    const struct oft_item *item;
    const struct oft_result *result;
    struct token_stats *stats;
    struct tensor *value;
};

static int learn(struct tape *tape, const struct learner *in, struct learner *out)
{
    const struct openvla_config *c = &f.model->config;
    struct openvla_item sequence = {.images = {in->item->images[0], in->item->images[1]},
                                    .n_images = 2,
                                    .prompt = in->item->prompt,
                                    .n_prompt = in->item->n_prompt,
                                    .proprio = in->item->proprio,
                                    .slots = SLOTS};
    struct openvla_pass pass;
    struct tensor *answers;
    int32_t target[SLOTS];
    float numbers[SLOTS];

    *out = *in;
    if (openvla_forward(f.model, tape, &sequence, 1, &pass) < 0)
        return tape->error;
    answers = oft_answers(f.model, tape, &pass, 1);
    out->value = openvla_value(f.model, tape, op_gather(tape, pass.hidden, pass.first, 1), NULL, true);
    for (int i = 0; i < SLOTS; i++)
        target[i] = in->result->tokens[i] - (in->item->full ? 0 : c->vocab - OPENVLA_ACTION_BINS);
    memcpy(numbers, in->result->tokens, sizeof(numbers));
    if (c->oft.kind == OFT_TOKENS)
        out->stats =
            op_token_stats(tape, openvla_logits(f.model, tape, answers, !in->item->full), target, in->item->temperature, NULL);
    else
        out->stats = op_laplace_stats(tape, oft_actions(f.model, tape, answers), oft_log_scale(f.model, tape, answers), numbers,
                                      in->item->temperature, NULL);
    return tape->error;
}

static void test_actor_equals_learner(void **state)
{
    static const enum oft_kind kinds[] = {OFT_TOKENS, OFT_LAPLACE};
    struct oft_item items[6];
    struct oft_result results[6];

    (void)state;
    for (int i = 0; i < 6; i++)
        items[i] = item(i);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        act(kinds[k], items, 6, results);
        for (int i = 0; i < 6; i++) {
            struct learner in = {.item = &items[i], .result = &results[i]}, out;
            struct tape tape;

            tape_init(&tape, true);
            tape_plan(&tape);
            assert_int_equal(learn(&tape, &in, &out), 0);
            assert_int_equal(tape_allocate(&tape), 0);
            tape_begin(&tape);
            assert_int_equal(learn(&tape, &in, &out), 0);
            assert_memory_equal(out.stats->logp, results[i].logp, SLOTS * sizeof(float));
            assert_memory_equal(out.value->x, &results[i].value, sizeof(float));
            tape_release(&tape);
        }
    }
}

static void test_sampling(void **state)
{
    enum { N = 2000 };
    struct oft_item items[3] = {item(1), item(1), item(1)};
    struct oft_result results[3];
    double sum = 0, width = 0;

    (void)state;
    items[1].step = 9;
    items[2].temperature = 0;
    act(OFT_LAPLACE, items, 3, results);
    assert_memory_not_equal(results[0].tokens, results[1].tokens, SLOTS * sizeof(int32_t));
    for (int i = 0; i < SLOTS; i++) {
        float x;

        memcpy(&x, &results[0].tokens[i], sizeof(x)); /* the journal holds exactly what was drawn */
        assert_true((double)x == results[0].action[i]);
        assert_true(results[2].logp[i] >= results[0].logp[i]); /* greedy: the middle is the densest place */
    }
    for (int i = 0; i < N; i++) {
        float x = laplace_draw(((float)i + 0.5f) / N, 2.0f, -0.7f);

        sum += (double)x / N;
        width += fabs((double)x - 2.0) / N; /* mean distance from the middle is the scale */
    }
    assert_true(fabs(sum - 2.0) < 1e-3 && fabs(width - exp(-0.7)) < 1e-2);
    assert_true(isfinite((double)laplace_draw(0.0f, 0.0f, 0.0f)) && isfinite((double)laplace_draw(0x1.fffffep-1f, 0.0f, 0.0f)));
}

/* ---- files ------------------------------------------------------------------------------------------------------------------
 */

static void test_save_and_load(void **state)
{
    char dir[SCRATCH_PATH], path[96];
    struct openvla *back = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    f.model->config.oft.kind = OFT_LAPLACE;
    if (openvla_save(f.model, dir, "F32", &error) < 0 || openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(back->config.oft.kind, OFT_LAPLACE);
    assert_int_equal(back->config.oft.chunk, CHUNK);
    assert_int_equal(back->config.oft.head_blocks, 2);
    assert_int_equal(back->config.oft.proprio, STATE);
    assert_int_equal(back->params.count, f.model->params.count);
    for (int i = 0; i < back->params.count; i++) {
        const struct param *p = back->params.list[i], *q = param_find(&f.model->params, p->name);

        assert_non_null(q);
        assert_memory_equal(p->value, q->value, (size_t)p->numel * sizeof(float));
    }
    back = openvla_free(back);

    snprintf(path, sizeof(path), "%s/scale_head.safetensors", dir); /* without a scale: the L1 policy */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(openvla_load(dir, &back, &error), 0);
    assert_int_equal(back->config.oft.kind, OFT_L1);
    back = openvla_free(back);

    snprintf(path, sizeof(path), "%s/action_head.safetensors", dir); /* without a head: an OpenVLA */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(openvla_load(dir, &back, &error), 0);
    assert_int_equal(back->config.oft.kind, OFT_NONE);
    assert_int_equal(back->config.oft.proprio, 0);
    back = openvla_free(back);
    remove_tree(dir);
}

static void write_head(const char *dir, int64_t cols)
{
    static const float zeros[4096];
    struct st_write list[] = {
        {.name = "model.fc1.weight", .dtype = DTYPE_F32, .ndim = 2, .dim = {4, cols}, .values = zeros},
        {.name = "model.layer_norm1.weight", .dtype = DTYPE_F32, .ndim = 1, .dim = {cols}, .values = zeros},
    };
    struct error error = {0};
    char path[96];

    snprintf(path, sizeof(path), "%s/action_head.safetensors", dir);
    if (safetensors_write(path, list, ARRAY_SIZE(list), &error) < 0)
        fail_msg("%s", error.text);
}

static void test_tokens_are_said(void **state)
{
    char dir[SCRATCH_PATH];
    struct openvla *model = NULL, *back = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_new("tests/golden/nano", 1, &model, &error), 0);
    assert_int_equal(oft_make_tokens(model, 100), -EINVAL);
    assert_int_equal(oft_make_tokens(model, 5), 0);
    assert_int_equal(oft_make_tokens(model, 5), -EEXIST);
    assert_int_equal(oft_add_action_head(model, 5, 8, 1, 1), -EEXIST);
    if (openvla_save(model, dir, "F32", &error) < 0 || openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(back->config.oft.kind, OFT_TOKENS);
    assert_int_equal(back->config.oft.chunk, 5);
    openvla_free(model);
    openvla_free(back);
    remove_tree(dir);
}

static void test_files_that_do_not_fit(void **state)
{
    const struct oft_config l1 = {.kind = OFT_L1, .chunk = CHUNK}, laplace = {.kind = OFT_LAPLACE, .chunk = CHUNK},
                            long_chunk = {.kind = OFT_L1, .chunk = OFT_MAX_SLOTS};
    char dir[SCRATCH_PATH], path[96];
    struct openvla *model = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_new("tests/golden/nano", 1, &model, &error), 0);
    assert_int_equal(oft_attach(model, dir, &long_chunk, &error), -EINVAL);
    assert_int_equal(oft_attach(model, dir, &l1, &error), -ENOENT);
    assert_non_null(strstr(error.text, "action_head"));
    assert_int_equal(oft_attach(model, dir, &laplace, &error), -ENOENT);
    snprintf(path, sizeof(path), "%s/action_head--latest_checkpoint.pt", dir);     /* the script's save_latest_checkpoint_only */
    assert_int_equal(atomic_file_write(path, "", 0), 0);
    assert_int_equal(oft_attach(model, dir, &l1, &error), -EINVAL);
    assert_non_null(strstr(error.text, path));
    write_head(dir, 40);
    assert_int_equal(oft_attach(model, dir, &l1, &error), -EINVAL);
    assert_non_null(strstr(error.text, "action_head.safetensors: tensor model.layer_norm1.weight"));
    openvla_free(model);
    remove_tree(dir);
}

/* Of 14 dims and nothing said the constants are those of the original for ALOHA: chunks of 25, numbers between min and max. */
static void test_aloha_bounds(void **state)
{
#define FOURTEEN(x) "[" x "," x "," x "," x "," x "," x "," x "," x "," x "," x "," x "," x "," x "," x "]"
    static const char *const small[] = {"config.json", "preprocessor_config.json", "tokenizer.json"};
    static const char aloha[] = "{\"a\": {\"action\": {\"q01\": " FOURTEEN("-1") ", \"q99\": " FOURTEEN("1") ", \"min\": "
                                FOURTEEN("-2") ", \"max\": " FOURTEEN("3") "}, \"proprio\": {\"q01\": [0, 0], \"q99\": [1, 1],"
                                "\"min\": [-4, -4], \"max\": [5, 5]}}}";
    char dir[SCRATCH_PATH], path[96], *bytes;
    struct openvla *model = NULL;
    struct error error = {0};
    size_t n;

    (void)state;
    scratch_new(dir);
    for (size_t i = 0; i < ARRAY_SIZE(small); i++) {
        char from[96];

        snprintf(from, sizeof(from), "tests/golden/nano/%s", small[i]);
        snprintf(path, sizeof(path), "%s/%s", dir, small[i]);
        assert_int_equal(file_copy(from, path), 0);
    }
    snprintf(path, sizeof(path), "%s/dataset_statistics.json", dir);
    assert_int_equal(atomic_file_write(path, aloha, sizeof(aloha) - 1), 0);
    if (openvla_new(dir, 1, &model, &error) < 0 || oft_add_action_head(model, 25, 8, 0, 1) < 0 ||
        oft_add_state(model, 2, 1) < 0 || openvla_save(model, dir, "F32", &error) < 0)
        fail_msg("%s", error.text);
    for (int said = 1; said >= 0; said--) {
        model = openvla_free(model);
        if (openvla_load(dir, &model, &error) < 0)
            fail_msg("%s", error.text);
        assert_int_equal(model->config.oft.chunk, 25);
        assert_true(model->stats[0].q01[13] == (said ? -1 : -2) && model->stats[0].q99[13] == (said ? 1 : 3));
        assert_true(model->stats[0].proprio_low[1] == (said ? 0 : -4) && model->stats[0].proprio_high[1] == (said ? 1 : 5));
        if (!said)
            break;
        snprintf(path, sizeof(path), "%s/config.json", dir);
        assert_int_equal(file_read(path, 1 << 20, &bytes, &n), 0);
        memcpy(strstr(bytes, "gantry_oft"), "gantry_off", 10);
        assert_int_equal(atomic_file_write(path, bytes, n), 0);
        free(bytes);
    }
    openvla_free(model);
    remove_tree(dir);
}

static void test_state_is_normalised(void **state)
{
    const struct action_stats stats = {.proprio = 3, .proprio_low = {-1, 0, 2}, .proprio_high = {1, 4, 2}};
    double out[3];

    (void)state;
    oft_normalise_state(&stats, (const double[]){0.5, 9, 2}, out);
    assert_true(fabs(out[0] - 0.5) < 1e-8 && out[1] == 1 && out[2] == -1);
}

/* LIBERO's data: 1 open, 0 closed; its environment: -1 open, 1 closed, 0 holds. */
static void test_gripper(void **state)
{
    static const struct { bool binarise, invert; double in, want; } cases[] = {
        {true, true, 0.9, -1}, {true, true, 0.1, 1}, {true, true, 0.5, 0}, {true, false, 0.9, 1}, {false, true, 0.3, -0.3},
        {false, false, 0.3, 0.3},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        double action[3] = {0.25, -4, cases[i].in};

        gripper_to_environment(&(struct gripper_rule){.binarise = cases[i].binarise, .invert = cases[i].invert}, action, 3);
        assert_true(action[0] == 0.25 && action[1] == -4 && action[2] == cases[i].want);
    }
}

static void test_unnormalise(void **state)
{
    const struct action_stats stats = {.dims = 3, .q01 = {-1, 2, 7}, .q99 = {3, 2, 9}, .mask = {true, true, false}};
    const double in[3] = {0.5, 1, 0.25};
    double out[3];

    (void)state;
    openvla_unnormalise(&stats, in, out);
    assert_true(out[0] == 2 && out[1] == 2 && out[2] == 0.25);
    oft_unnormalise(&stats, in, out);
    assert_true(out[0] > 2 && out[0] < 2 + 1e-7 && out[1] > 2 && out[1] < 2 + 2e-8 && out[2] == 0.25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_see_everything),
        cmocka_unit_test(test_answers_see_what_follows),
        cmocka_unit_test(test_batch_does_not_matter),
        cmocka_unit_test(test_actor_equals_learner),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_tokens_are_said),        cmocka_unit_test(test_files_that_do_not_fit),
        cmocka_unit_test(test_state_is_normalised),    cmocka_unit_test(test_aloha_bounds),
        cmocka_unit_test(test_gripper),                cmocka_unit_test(test_unnormalise),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
