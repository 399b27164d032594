/* Qwen-VL reward models on a tiny random one: what goes in, what does not, equal bits in any company, on disk and back, and a
 * head that learns over a frozen backbone. (The numbers themselves are test_golden's.) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/models/qwen_vl_episode.h"
#include "tests/harness/scratch.h"
#include "train/checkpoint.h"
#include "train/objective.h"
#include "train/reward_items.h"

#define NANO "tests/golden/nano_qwen"

enum { SIDE = 64, FRAMES = 6, DIMS = 7 };

struct bright_episode { uint8_t frames[FRAMES * SIDE * SIDE * 3]; float action[(FRAMES - 1) * DIMS]; };

/* Stripes that move; a success ends bright. */
static void paint(struct bright_episode *e, int number, bool success)
{
    for (int t = 0; t < FRAMES; t++)
        for (int i = 0; i < SIDE * SIDE * 3; i++)
            e->frames[t * SIDE * SIDE * 3 + i] = (uint8_t)((i / 3 % SIDE + number + 3 * t) % 16 * 6 + (success ? 25 * t : 0));
    for (int i = 0; i < (FRAMES - 1) * DIMS; i++)
        e->action[i] = (float)((i + number) % 9) / 9 - 0.5f;
}

static struct qwen_episode view(const struct bright_episode *e)
{
    return (struct qwen_episode) {.instruction = "put the cup on the plate", .frames = e->frames, .n = FRAMES, .height = SIDE,
                                  .width = SIDE, .action = e->action, .dims = DIMS};
}

static struct qwen_vl *load(const char *dir, int64_t halves_from)
{
    struct qwen_vl *model = NULL;
    struct error error;

    if (qwen_vl_load_halves(dir, halves_from, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(qwen_vl_pack(model, false), 0);
    return model;
}

static struct qwen_vl *load_with_head(void)
{
    struct qwen_vl *model = load(NANO, -1);

    assert_int_equal(qwen_vl_add_reward_head(model, 24, 3), 0);
    for (int i = 0; i < 24; i++)            /* the last layer begins at zero: give it something to say */
        param_find(&model->params, "reward_head.fc2.weight")->value[i] = (float)(i % 5) - 2;
    assert_int_equal(qwen_vl_pack(model, false), 0);
    return model;
}

static void score(const struct qwen_vl *model, const struct qwen_episode *episode, const uint32_t *at, int n, float *ret)
{
    struct qwen_prompts prompts = {0};
    struct qwen_session *session = NULL;
    struct error error;

    if (qwen_prompts_make(model, episode, at, n, &prompts, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(qwen_session_new(&session), 0);
    assert_int_equal(qwen_vl_score(model, session, prompts.items, n, ret), 0);
    qwen_session_free(session);
    qwen_prompts_release(&prompts);
}

static const uint32_t all_frames[FRAMES] = {0, 1, 2, 3, 4, 5};

static void score_all(const struct qwen_vl *model, float ret[FRAMES])
{
    struct bright_episode e;
    struct qwen_episode episode = view(&e);

    paint(&e, 1, true);
    score(model, &episode, all_frames, FRAMES, ret);
}

/* ---- the same bits ---------------------------------------------------------------------------------------------- */

static void test_company_does_not_matter(void **state)
{
    struct qwen_vl *model = load_with_head(), *half = load(NANO, 0);
    struct bright_episode e;
    struct qwen_episode episode = view(&e);
    float together[FRAMES], alone, some[2], words[FRAMES], half_words[FRAMES];

    (void)state;
    paint(&e, 1, true);
    score(model, &episode, all_frames, FRAMES, together);
    for (uint32_t t = 0; t < FRAMES; t++) {
        score(model, &episode, &t, 1, &alone);
        assert_memory_equal(&alone, &together[t], sizeof(alone));
    }
    score(model, &episode, (const uint32_t[]) {4, 1}, 2, some);
    assert_true(some[0] == together[4] && some[1] == together[1]);
    assert_true(together[0] != together[5]);

    /* matrices kept as bf16 give the same bits, here through the words Yes and No */
    struct qwen_vl *plain = load(NANO, -1);

    assert_true(plain->config.yes_id >= 0 && plain->config.no_id >= 0);
    score_all(plain, words);
    score_all(half, half_words);
    assert_memory_equal(words, half_words, sizeof(words));
    qwen_vl_free(plain);
    qwen_vl_free(half);
    qwen_vl_free(model);
}

static void test_save_and_load(void **state)
{
    struct qwen_vl *model = load_with_head(), *back;
    struct adapted adapted = qwen_vl_adapted(model);
    struct error error;
    float before[FRAMES], after[FRAMES];
    char dir[SCRATCH_PATH], path[320], *ours, *original;
    size_t n, m;

    (void)state;
    if (adapters_new(&adapted, &(struct lora_spec) {.r = 2, .alpha = 4, .targets = "q_proj, down_proj"}, 5, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < model->params.count; i++)
        for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
            model->params.list[i]->value[k] += 0.1f;        /* B begins at zero */
    model->history = 1;
    assert_int_equal(qwen_vl_pack(model, false), 0);
    score_all(model, before);
    scratch_new(dir);
    if (qwen_vl_save(model, dir, NULL, &error) < 0)
        fail_msg("%s", error.text);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    assert_int_equal(file_read(path, 1 << 20, &ours, &n), 0);
    assert_int_equal(file_read(NANO "/model.safetensors", 1 << 20, &original, &m), 0);
    assert_true(n == m);
    back = load(dir, -1);
    assert_int_equal(back->history, 1);
    assert_int_equal(back->config.reward_width, 24);
    score_all(back, after);
    assert_memory_equal(before, after, sizeof(before));
    free(ours);
    free(original);
    qwen_vl_free(back);
    qwen_vl_free(model);
    assert_int_equal(remove_tree(dir), 0);
}

/* A version with head and adapters alone scores as the whole one; another backbone than the one that it names is refused. */
static void test_what_was_trained_alone(void **state)
{
    struct qwen_vl *model = load_with_head(), *back;
    struct adapted adapted = qwen_vl_adapted(model);
    struct error error = {0};
    float before[FRAMES], after[FRAMES];
    char dir[SCRATCH_PATH], backbone[320], version[320], path[400], config[400], *text;
    size_t n;

    (void)state;
    scratch_new(dir);
    snprintf(backbone, sizeof(backbone), "%s/v000000", dir);
    snprintf(version, sizeof(version), "%s/v000001", dir);
    snprintf(path, sizeof(path), "%s/manifest.json", backbone);
    assert_int_equal(mkdir_p(backbone, 0755) | mkdir_p(version, 0755), 0);
    assert_int_equal(qwen_vl_save(model, backbone, NULL, &error), 0);
    assert_int_equal(atomic_file_write(path, "{1}", 3), 0);
    if (adapters_new(&adapted, &(struct lora_spec) {.r = 2, .alpha = 4, .targets = "q_proj, down_proj"}, 5, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < model->params.count; i++)
        for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
            model->params.list[i]->value[k] += 0.1f;
    ((struct param *)(uintptr_t)param_find(&model->params, "reward_head.fc1.weight"))->value[0] += 1;
    assert_int_equal(qwen_vl_pack(model, false), 0);
    score_all(model, before);
    assert_int_equal(qwen_vl_set_base(model, "../v000000"), 0);
    if (qwen_vl_save_trained(model, version, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(qwen_vl_is(version));
    back = load(version, -1);
    assert_string_equal(back->base, "../v000000");
    assert_string_equal(back->adapters->config.base, "../v000000");
    snprintf(config, sizeof(config), "%s/adapter_config.json", version);
    assert_int_equal(file_read(config, 1 << 20, &text, &n), 0);
    assert_non_null(strstr(text, "\"base_model_class\": \"Qwen2_5_VLForConditionalGeneration\""));
    free(text);
    score_all(back, after);
    assert_memory_equal(before, after, sizeof(before));
    qwen_vl_free(back);

    assert_int_equal(atomic_file_write(path, "{2}", 3), 0);
    assert_int_equal(qwen_vl_load(version, &back, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "was trained on another base"));
    assert_int_equal(remove_tree(backbone), 0);
    assert_int_equal(qwen_vl_load(version, &back, &error), -ENOENT);
    assert_non_null(strstr(error.text, "v000000/manifest.json"));
    qwen_vl_free(model);
    assert_int_equal(remove_tree(dir), 0);
}

/* ---- prompts ------------------------------------------------------------------------------------------------------ */

static void test_prompt(void **state)
{
    static const float action[] = {0.12f, -0.001f, 0.125f};
    const struct qwen_step past = {.frame = 3, .action = action, .dims = 3};
    _cleanup_free_ char *text = NULL;
    int frames[8];
    size_t n;

    (void)state;
    assert_int_equal(qwen_vl_prompt_text("lift it", &past, 1, &text, &n), 0);
    assert_string_equal(
        text, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nTask: lift it\n\nProgress so far:\n"
              "Step 3: <|vision_start|><|image_pad|><|vision_end|> -> Action: [0.12, -0.00, 0.12]\n"
              "Current observation: <|vision_start|><|image_pad|><|vision_end|>\n"
              "Rate the progress toward completing the task (0-1):<|im_end|>\n<|im_start|>assistant\n");
    assert_int_equal(qwen_vl_kept_frames(0, 4, 1, true, frames), 0);
    assert_int_equal(qwen_vl_kept_frames(17, 2, 1, true, frames), 3);
    assert_true(frames[0] == 0 && frames[1] == 15 && frames[2] == 16);
    assert_int_equal(qwen_vl_kept_frames(17, 2, 3, false, frames), 2);
    assert_true(frames[0] == 11 && frames[1] == 14);
}

static void expect_no_prompt(const struct qwen_vl *model, const struct qwen_episode *episode, const char *why)
{
    struct qwen_prompts prompts = {0};
    struct error error = {0};

    assert_true(qwen_prompts_make(model, episode, (const uint32_t[]) {FRAMES - 1}, 1, &prompts, &error) < 0);
    assert_null(prompts.items);
    if (!strstr(error.text, why))
        fail_msg("'%s' does not say '%s'", error.text, why);
}

static void test_bad_episodes(void **state)
{
    struct qwen_vl *model = load(NANO, -1);
    struct bright_episode e;
    struct qwen_episode good = view(&e), bad;
    static const uint32_t backwards[FRAMES] = {0, 1, 2, 2, 3, 4}, apart[FRAMES] = {0, 20, 21, 22, 23, 24};
    _cleanup_free_ char *long_text = calloc(3000, 1);
    struct qwen_prompts prompts = {0};
    struct error error = {0};

    (void)state;
    paint(&e, 1, true);
    bad = good;
    bad.action = NULL;
    expect_no_prompt(model, &bad, "actions");
    bad = good;
    bad.instruction = "look at <|image_pad|> first";
    expect_no_prompt(model, &bad, "instruction");
    bad = good;
    bad.height = 20;
    expect_no_prompt(model, &bad, "20");
    bad = good;
    memset(long_text, 'z', 2999);
    bad.instruction = long_text;
    expect_no_prompt(model, &bad, "context of 2048");
    bad = good;
    bad.step = backwards;
    assert_int_equal(qwen_episode_check(model, &bad, &error), -EINVAL);
    assert_non_null(strstr(error.text, "image 3 is frame 2"));

    /* frames that a look-ahead did not send are left out: the first, and those of 20..23 that the model keeps */
    good.step = apart;
    assert_int_equal(qwen_prompts_make(model, &good, (const uint32_t[]) {1, 5}, 2, &prompts, NULL), 0);
    assert_int_equal(prompts.items[0].n_pictures, 2);
    assert_int_equal(prompts.items[1].n_pictures, 1 + model->history + 1);
    qwen_prompts_release(&prompts);
    qwen_vl_free(model);
}

/* ---- training ---------------------------------------------------------------------------------------------------------- */

enum { EPISODES = 40 };

static struct dataset *episodes(const struct qwen_vl *model)
{
    struct dataset *data = NULL;
    struct error error;

    assert_int_equal(dataset_new_reward(model, &data), 0);
    for (int i = 1; i <= EPISODES; i++) {
        struct bright_episode *e = malloc(sizeof(*e));
        uint8_t *frames = malloc(sizeof(e->frames));
        struct episode_input in = {
            .id = (uint64_t)i,
            .task = i % 2 ? "one" : "two",
            .instruction = "put the cup on the plate",
            .state_seed = (uint64_t)i,
            .steps = FRAMES - 1,
            .max_steps = FRAMES - 1,
            .success = i % 4 < 2,
            .height = SIDE,
            .width = SIDE,
            .action_dims = DIMS,
            .frames = frames,
            .n_frames = sizeof(e->frames), .images = 1,
        };

        assert_true(e && frames);
        paint(e, i, in.success);
        memcpy(frames, e->frames, sizeof(e->frames));
        in.action = e->action;
        in.n_action = (FRAMES - 1) * DIMS;
        if (dataset_add(data, &in, &error) < 0)
            fail_msg("%s", error.text);
        free(e);
    }
    dataset_sort(data);
    return data;
}

/* Of an episode's frames the first, the third and the last: what is asked about each is what is asked of the whole. */
static void test_prompts_of_drawn_frames(void **state)
{
    static uint32_t observed[] = {0, 2, FRAMES - 1}, turns[] = {0, 2};
    struct qwen_vl *model = load(NANO, -1);
    struct dataset *data[2];
    struct reward_items items[2] = {0};
    struct error error;
    struct bright_episode *e = malloc(sizeof(*e));

    (void)state;
    assert_non_null(e);
    model->history = 0;
    paint(e, 1, true);
    for (int drawn = 0; drawn < 2; drawn++) {
        struct episode_input in = {
            .id = 1, .task = "one", .instruction = "put the cup on the plate", .steps = FRAMES - 1, .max_steps = FRAMES - 1,
            .height = SIDE, .width = SIDE, .action_dims = DIMS, .action = e->action, .n_action = (FRAMES - 1) * DIMS, .images = 1,
            .frames = malloc(sizeof(e->frames)), .n_frames = sizeof(e->frames) / (drawn ? FRAMES : 1) * (drawn ? 3 : 1),
            .turns = turns, .n_turns = 2, .observed = observed, .n_observed = drawn ? 3 : 0,
        };
        size_t one = sizeof(e->frames) / FRAMES;

        assert_non_null(in.frames);
        for (uint32_t i = 0; i < (drawn ? 3 : FRAMES); i++)
            memcpy(in.frames + i * one, (const uint8_t *)e->frames + (drawn ? observed[i] : i) * one, one);
        assert_int_equal(dataset_new_reward(model, &data[drawn]), 0);
        if (dataset_add(data[drawn], &in, &error) < 0)
            fail_msg("%s", error.text);
        assert_int_equal(reward_items_make(data[drawn], (struct step_ref[]) {{0, 0}, {0, 2}, {0, FRAMES - 1}}, 3, NULL,
                                           &items[drawn]), 0);
    }
    for (int i = 0; i < 3; i++) {
        const struct qwen_item *a = &items[0].items[i], *b = &items[1].items[i];

        assert_int_equal(a->n_ids, b->n_ids);
        assert_memory_equal(a->ids, b->ids, (size_t)a->n_ids * sizeof *a->ids);
        assert_int_equal(a->n_pictures, b->n_pictures);
        assert_int_equal(a->n_pictures, i ? 2 : 1);
        for (int k = 0; k < a->n_pictures; k++)
            assert_memory_equal(a->pictures[k].rgb, b->pictures[k].rgb,
                                (size_t)(a->pictures[k].height * a->pictures[k].width * 3));
    }
    for (int drawn = 0; drawn < 2; drawn++) {
        reward_items_release(&items[drawn]);
        dataset_free(data[drawn]);
    }
    qwen_vl_free(model);
    free(e);
}

static struct trainer *trainer(struct qwen_vl *model, int threads)
{
    struct trainer *ret = NULL;

    assert_int_equal(trainer_new_reward(model, threads, NULL, &ret), 0);
    return ret;
}

static void train(struct trainer *t, int steps, struct prm_result *ret)
{
    struct prm_config config = {
        .steps = steps, .batch = 8, .lr = 1e-2, .clip = 1, .holdout = .3, .gate_mid = .5, .gate_last = .5};
    struct dataset *data = episodes(t->reward);
    struct error error;

    if (objective_prm(t, data, &config, &(struct objective) {.seed = 1}, ret, &error) < 0)
        fail_msg("%s", error.text);
    dataset_free(data);
}

static struct qwen_vl *fresh(bool adapters)
{
    struct qwen_vl *model = load(NANO, -1);
    struct adapted adapted = qwen_vl_adapted(model);

    assert_int_equal(qwen_vl_add_reward_head(model, 16, 3), 0);
    model->history = 1;
    if (adapters)
        assert_int_equal(adapters_new(&adapted, &(struct lora_spec){.r = 2, .alpha = 4, .targets = "q_proj, v_proj"}, 5, NULL),
                         0);
    return model;
}

static void test_head_learns(void **state)
{
    struct qwen_vl *model = fresh(false), *before = load(NANO, -1);
    struct trainer *t = trainer(model, 2);
    struct prm_result result;

    (void)state;
    train(t, 150, &result);
    assert_true(result.last_loss < 0.8 * result.first_loss);
    assert_true(result.prm.auc_last > 0.8 && result.prm.auc_last > result.blind.auc_last + 0.3);
    for (int i = 0; i < before->params.count; i++) {        /* the backbone has not moved */
        const struct param *p = before->params.list[i];

        assert_memory_equal(param_find(&model->params, p->name)->value, p->value, (size_t)p->numel * sizeof(float));
    }
    trainer_free(t);
    qwen_vl_free(before);
}

/* One thread or two, in one go or saved, loaded and gone on with: the same bits. With adapters, so that the backbone's way back
 * runs. */
static void test_same_bits_however_trained(void **state)
{
    struct trainer *one = trainer(fresh(true), 1), *two = trainer(fresh(true), 2), *resumed;
    struct qwen_vl *loaded = NULL;
    struct prm_result result;
    struct error error;
    char dir[SCRATCH_PATH];

    (void)state;
    train(one, 3, &result);
    train(two, 3, &result);
    assert_int_equal(one->params->numel, two->params->numel);
    assert_memory_equal(one->params->values, two->params->values, (size_t)one->params->numel * sizeof(float));
    assert_true(one->parts[TRAIN_TRUNK].n > 0);
    scratch_new(dir);
    if (checkpoint_save(one, dir, &error) < 0 || qwen_vl_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    resumed = trainer(loaded, 1);
    if (checkpoint_load_state(resumed, dir, &error) < 0)
        fail_msg("%s", error.text);
    train(one, 2, &result);
    train(resumed, 2, &result);
    for (int i = 0; i < one->params->count; i++) {
        const struct param *p = one->params->list[i], *q = param_find(resumed->params, p->name);

        assert_non_null(q);
        assert_memory_equal(p->value, q->value, (size_t)p->numel * sizeof(float));
    }
    trainer_free(one);
    trainer_free(two);
    trainer_free(resumed);
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company_does_not_matter),  cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_what_was_trained_alone),   cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_bad_episodes),             cmocka_unit_test(test_prompts_of_drawn_frames),
        cmocka_unit_test(test_head_learns),
        cmocka_unit_test(test_same_bits_however_trained),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
