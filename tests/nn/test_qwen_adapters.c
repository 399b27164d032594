/* Adapters of a Qwen-VL as PEFT's users have them: named as one transformers or the other names modules; and of the vocabulary's
 * matrix, which the scores read row by row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/models/qwen_vl.h"
#include "tests/harness/scratch.h"

#define NANO "tests/golden/nano_qwen"
#define BASE "base_model.model."

static struct qwen_vl *load(const char *dir)
{
    struct qwen_vl *model = NULL;
    struct error error = {0};

    if (qwen_vl_load(dir, &model, &error) < 0)
        fail_msg("%s", error.text);
    return model;
}

/* adapter_model.safetensors once more, its names below model.language_model and model.visual. */
static void respell(void)
{
    static const char *const spellings[][2] = {{BASE "model.", BASE "model.language_model."},
                                               {BASE "visual.", BASE "model.visual."}};
    struct safetensors *file = NULL;
    struct st_write *list;
    char (*names)[200];

    assert_int_equal(safetensors_open(scratch_at("adapter_model.safetensors"), &file, NULL), 0);
    list = calloc((size_t)file->count, sizeof(*list));
    names = calloc((size_t)file->count, sizeof(*names));
    assert_true(list && names);
    for (int i = 0; i < file->count; i++) {
        const struct st_tensor *t = &file->list[i];

        for (size_t k = 0; k < ARRAY_SIZE(spellings); k++)
            if (!strncmp(t->name, spellings[k][0], strlen(spellings[k][0])))
                snprintf(names[i], sizeof(names[i]), "%s%s", spellings[k][1], t->name + strlen(spellings[k][0]));
        list[i] = (struct st_write) {.name = names[i], .dtype = t->dtype, .ndim = t->ndim, .raw = t->data};
        memcpy(list[i].dim, t->dim, sizeof(t->dim));
    }
    assert_int_equal(safetensors_write(scratch_at("respelt"), list, file->count, NULL), 0);
    safetensors_close(file);
    free(list);
    free(names);
    assert_int_equal(rename(scratch_at("respelt"), scratch_at("adapter_model.safetensors")), 0);
}

static void test_newer_names(void **state)
{
    static const char *const patterns[] = {"{}", "{\"q_proj\": 3}", "{\"model.language_model.layers.0.self_attn.q_proj\": 3}"};
    struct qwen_vl *model = load(NANO), *back = NULL;
    struct adapted adapted = qwen_vl_adapted(model);
    struct error error = {0};
    char config[160];

    (void)state;
    assert_int_equal(adapters_new(&adapted, &(struct lora_spec) {.r = 2, .alpha = 4, .targets = "q_proj, qkv"}, 5, &error), 0);
    for (int i = 0; i < model->params.count; i++)
        for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
            model->params.list[i]->value[k] += 0.25f;
    assert_int_equal(adapters_save(&adapted, scratch_dir, "F32", NULL, &error), 0);
    respell();
    for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
        back = load(NANO);
        adapted = qwen_vl_adapted(back);
        snprintf(config, sizeof(config), "{\"r\": 2, \"lora_alpha\": 4, \"alpha_pattern\": %s}", patterns[i]);
        assert_int_equal(file_write(scratch_at("adapter_config.json"), config, strlen(config)), 0);
        if (i == 2) {
            assert_true(adapters_load(&adapted, scratch_dir, &error) < 0);
            assert_non_null(strstr(error.text, "alpha_pattern"));
        } else if (adapters_load(&adapted, scratch_dir, &error) < 0) {
            fail_msg("%s", error.text);
        }
        for (int k = 0; i < 2 && k < model->params.count; k++) {
            const struct param *p = model->params.list[k], *q = param_find(&back->params, p->name);

            assert_non_null(q);
            assert_memory_equal(p->value, q->value, (size_t)p->numel * sizeof(float));
            assert_true(q->lora.scale == (i == 1 && strstr(q->name, "q_proj.weight") && !q->adapter ? 1.5f : p->lora.scale));
        }
        qwen_vl_free(back);
    }
    qwen_vl_free(model);
}

static void test_vocabulary_takes_none(void **state)
{
    static const float values[4096];
    struct qwen_vl *model = load(NANO);
    int64_t hidden = model->config.hidden, vocab = model->config.vocab;
    struct param *head = param_add(&model->params, "lm_head.weight", 2, (int64_t[]) {vocab, hidden}, false);
    struct adapted adapted = qwen_vl_adapted(model);
    struct st_write list[] = {
        {.name = BASE "lm_head.lora_A.weight", .dtype = DTYPE_F32, .ndim = 2, .dim = {2, hidden}, .values = values},
        {.name = BASE "lm_head.lora_B.weight", .dtype = DTYPE_F32, .ndim = 2, .dim = {vocab, 2}, .values = values},
    };
    struct error error = {0};

    (void)state;
    assert_non_null(head);          /* as of a model that is not tied */
    assert_int_equal(params_grow(&model->params, head->offset), 0);
    assert_int_equal(file_write(scratch_at("adapter_config.json"), "{}", 2), 0);
    assert_int_equal(safetensors_write(scratch_at("adapter_model.safetensors"), list, 2, NULL), 0);
    assert_true(adapters_load(&adapted, scratch_dir, &error) < 0);
    assert_non_null(strstr(error.text, "lm_head.lora_"));
    assert_non_null(strstr(error.text, "takes no adapter of that module"));
    assert_true(adapters_new(&adapted, &(struct lora_spec) {.r = 2, .alpha = 4, .targets = "lm_head"}, 5, &error) < 0);
    assert_null(model->adapters);
    qwen_vl_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_newer_names, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_vocabulary_takes_none, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
