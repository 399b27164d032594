/* Adapters: nothing changes while B is zero; written and read back to the bit; sizes as PEFT's files have them; what cannot be
 * used is refused with a line and leaves the model as it was; actor and learner agree to the bit. */
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
#include "base/philox.h"
#include "nn/lora_join.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "tests/harness/scratch.h"
#include "tests/harness/synthetic.h"

#define NANO "tests/golden/nano"
enum { SIDE = 64, FRAME = SIDE * SIDE * 3, BATCH = 64 };

static const struct lora_spec everything = {.r = 4, .alpha = 8, .targets = "all-linear"};

static struct openvla *new_model(void)
{
    struct openvla *model = NULL;
    struct error error = {0};

    if (openvla_new(NANO, 3, &model, &error) < 0)
        fail_msg("%s", error.text);
    return model;
}

/* B too is drawn, so that the adapters say something. */
static void stir(struct openvla *model)
{
    struct philox random = philox_at(1, PHILOX_TEST, 0, 0, 0);

    for (int i = 0; i < model->params.count; i++)
        for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
            model->params.list[i]->value[k] = 0.05f * (float)philox_normal(&random);
}

static struct openvla *adapted_model(const struct lora_spec *spec)
{
    struct openvla *model = new_model();
    struct error error = {0};

    if (openvla_lora_new(model, spec, 9, &error) < 0)
        fail_msg("%s", error.text);
    stir(model);
    assert_int_equal(openvla_pack(model, false), 0);
    return model;
}

/* ---- what a model says ------------------------------------------------------------------------------------------- */

struct scene { uint8_t *frames; int32_t *prompt[BATCH]; int n_prompt[BATCH]; };

static void scene_init(struct scene *s, const struct openvla *model)
{
    static const char *const words[] = {"pick up the block", "open the drawer and then close it again, slowly", "push"};
    struct philox random = philox_at(2, PHILOX_TEST, 0, 0, 0);

    s->frames = malloc((size_t)BATCH * FRAME);
    assert_non_null(s->frames);
    for (int i = 0; i < BATCH * FRAME; i++)
        s->frames[i] = (uint8_t)(i % 48 ? s->frames[i - 1] : philox_u32(&random));
    for (int i = 0; i < BATCH; i++)
        assert_int_equal(openvla_prompt(model, words[i % 3], &s->prompt[i], &s->n_prompt[i]), 0);
}

static void scene_release(struct scene *s)
{
    free(s->frames);
    for (int i = 0; i < BATCH; i++)
        free(s->prompt[i]);
}

static void act(const struct openvla *model, const struct scene *s, int first, int n, struct act_result *ret)
{
    struct openvla_session *session = NULL;
    struct act_item items[BATCH];

    for (int i = 0; i < n; i++)
        items[i] = (struct act_item) {.images = {s->frames + (first + i) * FRAME}, .n_images = 1, .prompt = s->prompt[first + i],
                                      .n_prompt = s->n_prompt[first + i], .temperature = 1, .seed = 5,
                                      .episode = (uint64_t)(first + i)};
    assert_int_equal(openvla_session_new(&model->config, BATCH, &session), 0);
    assert_int_equal(openvla_act(model, session, items, n, ret), 0);
    openvla_session_free(session);
}

/* Teacher-forced log-probs of what was acted, all in one pass as the learner makes it. */
static void relive(const struct openvla *model, const struct scene *s, const struct act_result *acted, int n, bool plain,
                   float *ret)
{
    enum { DIMS = 7 };
    struct openvla_item items[BATCH];
    int32_t target[BATCH * DIMS], rows[BATCH * DIMS];
    struct openvla_pass pass;
    struct token_stats *stats;
    struct tape tape;

    tape_init(&tape, false);
    tape.plain = plain;
    for (int i = 0; i < n; i++) {
        items[i] = (struct openvla_item) {.images = {s->frames + i * FRAME}, .n_images = 1, .prompt = s->prompt[i],
                                          .n_prompt = s->n_prompt[i], .actions = acted[i].tokens, .n_actions = DIMS - 1};
        for (int k = 0; k < DIMS; k++)
            target[i * DIMS + k] = acted[i].tokens[k] - (model->config.vocab - OPENVLA_ACTION_BINS);
    }
    assert_int_equal(tape_reserve(&tape, (size_t)512 << 20), 0);
    assert_int_equal(openvla_forward_tail(model, &tape, items, n, &pass), 0);
    for (int i = 0; i < n * DIMS; i++)
        rows[i] = pass.first[i / DIMS] + i % DIMS;
    stats = op_token_stats(&tape, openvla_logits(model, &tape, op_gather(&tape, pass.hidden, rows, n * DIMS), true), target, 1,
                           NULL);
    assert_non_null(stats);
    memcpy(ret, stats->logp, (size_t)(n * DIMS) * sizeof(*ret));
    tape_release(&tape);
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void test_zero_b_changes_nothing(void **state)
{
    struct openvla *base = new_model(), *model = new_model();
    struct act_result a[3], b[3];
    struct error error = {0};
    struct scene scene;

    (void)state;
    scene_init(&scene, base);
    assert_int_equal(openvla_lora_new(model, &everything, 9, &error), 0);
    assert_int_equal(openvla_lora_new(model, &everything, 9, &error), -EEXIST);
    assert_int_equal(openvla_pack(base, false), 0);
    assert_int_equal(openvla_pack(model, false), 0);
    act(base, &scene, 0, 3, a);
    act(model, &scene, 0, 3, b);
    assert_memory_equal(a, b, sizeof(a));
    scene_release(&scene);
    openvla_free(base);
    openvla_free(model);
}

static void test_actor_equals_learner(void **state)
{
    static const int batches[] = {1, 7, BATCH};
    struct openvla *model = adapted_model(&(struct lora_spec) {.r = 5, .alpha = 3,
                                                               .targets = "q_proj v_proj down_proj qkv fc1 lm_head "
                                                                                              "patch_embed.proj"}), *copy = NULL;
    struct act_result whole[BATCH] = {0}, part[BATCH] = {0};
    float logp[BATCH * 7], plain[BATCH * 7];
    struct scene scene;

    (void)state;
    scene_init(&scene, model);
    assert_int_equal(openvla_clone(model, &copy), 0);
    assert_int_equal(openvla_pack(copy, false), 0);
    act(model, &scene, 0, BATCH, whole);
    for (size_t b = 0; b < 3; b++) {
        for (int first = 0; first < BATCH; first += batches[b])
            act(copy, &scene, first, MIN(batches[b], BATCH - first), part + first);
        assert_memory_equal(whole, part, sizeof(whole));
    }
    relive(copy, &scene, whole, BATCH, false, logp);
    relive(copy, &scene, whole, BATCH, true, plain);
    for (int i = 0; i < BATCH; i++)
        assert_memory_equal(logp + i * 7, whole[i].logp, 7 * sizeof(*logp));
    assert_memory_not_equal(plain, logp, sizeof(logp));

    /* the base alone is what is left when the adapters are taken off */
    assert_int_equal(openvla_lora_detach(copy), 0);
    assert_int_equal(openvla_pack(copy, false), 0);
    relive(copy, &scene, whole, BATCH, false, logp);
    assert_memory_equal(plain, logp, sizeof(logp));
    scene_release(&scene);
    openvla_free(model);
    openvla_free(copy);
}

/* One product for the A matrices of what reads the same gives every bit that a product for each gives, in both numerics. */
static void test_joined_changes_nothing(void **state)
{
    static const struct { const char *targets; int per_layer; } cases[] = {{"all-linear", 2},
                                                                           {"q_proj k_proj up_proj gate_proj", 1}, {"q_proj", 0}};
    struct act_result joined[7], apart[7];
    struct scene scene;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (int fast = 0; fast < 2; fast++) {
            struct openvla *model = adapted_model(&(struct lora_spec) {.r = 5, .alpha = 3, .targets = cases[i].targets});

            memset(joined, 0, sizeof joined);
            memset(apart, 0, sizeof apart);
            if (fast && !params_use_fast(&model->params)) {
                openvla_free(model);
                continue;
            }
            assert_int_equal(openvla_pack(model, false), 0);
            assert_int_equal(model->params.n_joins, cases[i].per_layer * model->config.layers);
            scene_init(&scene, model);
            act(model, &scene, 0, 7, joined);
            for (int k = 0; k < model->params.n_joins; k++) {
                assert_non_null(model->params.joins[k]->a.forward);
                assert_ptr_equal(lora_join_of(model->params.joins[k]->weight, model->params.joins[k]->n, false),
                                 model->params.joins[k]);
            }
            if (cases[i].per_layer) {           /* it is renewed with the adapters */
                stir(model);
                model->params.joins[0]->weight[0]->lora.a->value[0] += 1;
                assert_int_equal(openvla_pack(model, false), 0);
                act(model, &scene, 0, 7, apart);
                assert_memory_not_equal(joined, apart, sizeof(joined));
                act(model, &scene, 0, 7, joined);
            }
            lora_join_free(&model->params);
            act(model, &scene, 0, 7, apart);
            assert_memory_equal(joined, apart, sizeof(joined));
            scene_release(&scene);
            openvla_free(model);
        }
}

static void test_merged_is_close(void **state)
{
    struct openvla *model = adapted_model(&everything);
    struct act_result acted[4] = {0};
    float unmerged[28], merged[28];
    struct error error = {0};
    struct scene scene;

    (void)state;
    scene_init(&scene, model);
    act(model, &scene, 0, 4, acted);
    relive(model, &scene, acted, 4, false, unmerged);
    assert_int_equal(openvla_lora_merge(model, &error), 0);
    assert_null(model->lora);
    assert_int_equal(openvla_pack(model, false), 0);
    relive(model, &scene, acted, 4, false, merged);
    for (int i = 0; i < 28; i++)
        assert_true(fabsf(merged[i] - unmerged[i]) < 1e-4f);
    assert_int_equal(openvla_lora_merge(model, &error), -ENOENT);
    scene_release(&scene);
    openvla_free(model);
}

static void assert_same_adapters(const struct openvla *a, const struct openvla *b)
{
    assert_int_equal(a->params.count, b->params.count);
    assert_int_equal(a->params.numel, b->params.numel);
    for (int i = 0; i < a->params.count; i++) {
        const struct param *p = a->params.list[i], *q = b->params.list[i];

        assert_string_equal(p->name, q->name);
        assert_int_equal(p->frozen, q->frozen);
        assert_true(p->lora.scale == q->lora.scale);
        assert_memory_equal(p->value, q->value, (size_t)p->numel * sizeof(float));
    }
}

static void test_round_trip(void **state)
{
    struct openvla *model = adapted_model(&(struct lora_spec) {.r = 3, .alpha = 5, .rslora = true,
                                                               .targets = "q_proj,lm_head,proj,fc2"});
    struct openvla *back = new_model();
    struct error error = {0};
    char dir[SCRATCH_PATH];

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_lora_save(model, dir, "F32", "somewhere/base", &error), 0);
    if (openvla_lora_load(back, dir, &error) < 0)
        fail_msg("%s", error.text);
    assert_same_adapters(model, back);

    /* a head that comes later, and the whole taken apart again */
    assert_int_equal(openvla_add_value_head(back, 8, 0, 1), 0);
    assert_int_equal(openvla_lora_detach(back), 0);
    assert_int_equal(back->config.value_width, 8);
    assert_int_equal(openvla_lora_load(back, dir, &error), 0);
    assert_int_equal(openvla_lora_save(back, dir, "BF16", NULL, &error), 0);
    assert_int_equal(openvla_lora_detach(back), 0);
    assert_int_equal(openvla_lora_load(back, dir, &error), 0);
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i], *q = p->adapter ? param_find(&back->params, p->name) : NULL;

        for (int64_t k = 0; q && k < p->numel; k++)
            assert_int_equal(float_to_bf16(p->value[k]), float_to_bf16(q->value[k]));
    }
    assert_int_equal(remove_tree(dir), 0);
    openvla_free(model);
    openvla_free(back);
}

/* The checkpoint's own files are written as if there were no adapters. */
static void test_save_leaves_adapters_out(void **state)
{
    struct openvla *model = adapted_model(&everything), *back = NULL;
    struct error error = {0};
    char dir[SCRATCH_PATH];

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_add_value_head(model, 8, 0, 1), 0);
    assert_int_equal(openvla_save(model, dir, "F32", &error), 0);
    if (openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(back->config.value_width, 8);
    for (int i = 0; i < back->params.count; i++) {
        const struct param *p = back->params.list[i];

        assert_memory_equal(p->value, param_find(&model->params, p->name)->value, (size_t)p->numel * sizeof(float));
    }
    assert_int_equal(remove_tree(dir), 0);
    openvla_free(model);
    openvla_free(back);
}

/* ---- OpenVLA-7B's adapter: known to the byte ------------------------------------------------------------------------- */

static int64_t any_rank(const struct param *weight, const char *module, const void *arg)
{
    const struct peft_config *config = arg;

    (void)weight;
    return peft_config_matches(config, module) ? config->r : 0;
}

static void test_size_of_openvla_7b(void **state)
{
    static char *targets[] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head", "qkv",
                              "proj", "fc1",    "fc2",    "fc3",    "q",      "kv"};
    struct peft_config config = {.r = 32, .alpha = 16, .targets = targets, .n_targets = ARRAY_SIZE(targets)},
        taken = {.r = 32, .alpha = 16};
    struct openvla *model = synthetic_shapes_of_7b();
    struct adapted adapted;
    int64_t numel = 0;
    int n = 0;

    (void)state;
    assert_non_null(model);
    adapted = openvla_adapted(model);
    assert_int_equal(adapters_register(&adapted, &taken, any_rank, &config), 0);
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i];

        if (!p->adapter)
            continue;
        numel += p->numel;
        n++;
    }
    assert_int_equal(n, 878);
    assert_int_equal(numel, 110828288);
    openvla_free(model);
}

/* ---- refused ------------------------------------------------------------------------------------------------------------ */

static void put(const char *dir, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

/* An adapter of one module, all values the same. parts: A, B, another module's B alone (b), a copy of the weight below (w). */
static void put_adapter(const char *dir, const char *module, int64_t r, int64_t in, int64_t out, float value, const char *parts)
{
    const struct { char part; const char *module, *tensor; int64_t dim[2]; } all[] = {
        {'A', module, "lora_A", {r, in}}, {'B', module, "lora_B", {out, r}}, {'w', module, "base_layer", {out, in}},
        {'b', "language_model.model.layers.1.self_attn.v_proj", "lora_B", {out, r}},
    };
    char names[ARRAY_SIZE(all)][256], path[256];
    _cleanup_free_ float *numbers = malloc((size_t)(MAX(r, out) * MAX(in, out) + 1) * sizeof(*numbers));
    struct st_write list[ARRAY_SIZE(all)];
    int n = 0;

    assert_non_null(numbers);
    for (int64_t i = 0; i < MAX(r, out) * MAX(in, out); i++)
        numbers[i] = value;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (!strchr(parts, all[i].part))
            continue;
        snprintf(names[i], sizeof(names[i]), "base_model.model.%s.%s.weight", all[i].module, all[i].tensor);
        list[n++] = (struct st_write) {.name = names[i], .dtype = DTYPE_F32, .ndim = 2,
                                       .dim = {all[i].dim[0], all[i].dim[1]}, .values = numbers};
    }
    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
    assert_int_equal(safetensors_write(path, list, n, NULL), 0);
}

static void test_refusals(void **state)
{
    static const struct { const char *config, *line; } configs[] = {
        {"{\"peft_type\": \"LORA\", \"use_dora\": true}", "use_dora is true: DoRA is not supported"},
        {"{\"peft_type\": \"LORA\", \"bias\": \"all\"}", "bias is all: trained biases are not supported"},
        {"{\"peft_type\": \"LORA\", \"modules_to_save\": [\"lm_head\"]}", "modules_to_save is [\"lm_head\"]"},
        {"{\"init_lora_weights\": \"pissa_niter_4\"}", "init_lora_weights is pissa_niter_4: it changes the base"},
        {"{\"alora_invocation_tokens\": [151644]}", "alora_invocation_tokens is [151644]: adapters that begin at a token"},
        {"{\"peft_type\": \"IA3\"}", "peft_type is IA3: only LoRA adapters are read"},
        {"{\"r\": 0}", "r is 0 and lora_alpha 8"},
        {"{\"r\": \"4\"}", "r: must be a whole number"},
        {"{\"lora_alpha\": [1]}", "lora_alpha: must be a number"},
        {"{\"alpha_pattern\": {\"q_proj\": \"x\"}}", "alpha_pattern: q_proj is not a number"},
        {"{\"alpha_pattern\": {\"(\": 2}}", "alpha_pattern: ( is no regular expression"},
        {"{\"alpha_pattern\": {\"((a{1,250}){1,250}){1,250}\": 2}}", "is no regular expression"},
        {"[1]", "not an object"},
        {"{\"r\": 4,\n \"r\": 5}", "adapter_config.json:2: "},
    };
    struct openvla *model = new_model();
    int64_t hidden = model->config.hidden;
    struct error error = {0};
    int count = model->params.count;
    char dir[SCRATCH_PATH];
    static const char *const q = "language_model.model.layers.0.self_attn.q_proj";

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_lora_load(model, dir, &error), -ENOENT);
    put_adapter(dir, q, 2, hidden, hidden, 1, "AB");
    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        put(dir, "adapter_config.json", configs[i].config);
        assert_true(openvla_lora_load(model, dir, &error) < 0);
        if (!strstr(error.text, configs[i].line))
            fail_msg("%s", error.text);
    }
    put(dir, "adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 2, \"base_model_name_or_path\": \"elsewhere\"}");
    const struct { const char *module; int64_t in, out; float value; const char *parts, *line; } files[] = {
        {q, hidden + 1, hidden, 1, "AB", "the adapter is for another base"},
        {q, hidden, 2 * hidden, 1, "AB", "the adapter is for another base"},
        {"language_model.model.layers.99.self_attn.q_proj", hidden, hidden, 1, "AB",
         "has no such module: the adapter is for another base (elsewhere)"},
        {q, hidden, hidden, NAN, "AB", "value 0 is not finite"},
        {q, hidden, hidden, 1, "A", "q_proj.lora_B.weight is missing"},
        {q, hidden, hidden, 1, "ABb", "layers.1.self_attn.v_proj.lora_A.weight is missing"},
        {q, hidden, hidden, 1, "ABw", "base_layer.weight: value 0 is 1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        put_adapter(dir, files[i].module, 2, files[i].in, files[i].out, files[i].value, files[i].parts);
        assert_true(openvla_lora_load(model, dir, &error) < 0);
        if (!strstr(error.text, files[i].line))
            fail_msg("%s", error.text);
        assert_int_equal(model->params.count, count);
        assert_null(model->lora);
        for (int k = 0; k < count; k++)
            assert_null(model->params.list[k]->lora.a);
    }
    assert_int_equal(openvla_lora_new(model, &(struct lora_spec) {.r = 2, .alpha = 2, .targets = "q_proj, no_such"}, 1, &error),
                     -EINVAL);
    assert_non_null(strstr(error.text, "no_such"));
    assert_int_equal(openvla_lora_save(model, dir, "F32", NULL, &error), -ENOENT);
    assert_int_equal(remove_tree(dir), 0);
    openvla_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_b_changes_nothing), cmocka_unit_test(test_actor_equals_learner),
        cmocka_unit_test(test_joined_changes_nothing),
        cmocka_unit_test(test_merged_is_close),        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_save_leaves_adapters_out), cmocka_unit_test(test_size_of_openvla_7b),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
