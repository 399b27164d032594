/* Directories of a Qwen-VL: what is wrong is said in one line; what newer writers write is read. */
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

static void copy_nano(char dir[SCRATCH_PATH])
{
    char command[640];

    scratch_new(dir);
    snprintf(command, sizeof(command), "cp " NANO "/* '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* In the file `name`, `from` is replaced by `to` (of the same length where offsets matter). */
static void change(const char *dir, const char *name, const char *from, const char *to)
{
    _cleanup_(strbuf_release) struct strbuf changed = STRBUF_INIT;
    char path[320], *text, *at;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(file_read(path, 1 << 20, &text, &n), 0);
    assert_non_null(at = memmem(text, n, from, strlen(from)));
    strbuf_add(&changed, text, (size_t)(at - text));
    strbuf_adds(&changed, to);
    strbuf_add(&changed, at + strlen(from), n - (size_t)(at - text) - strlen(from));
    assert_int_equal(atomic_file_write(path, changed.text, changed.length), 0);
    free(text);
}

static void expect_refused(const char *name, const char *from, const char *to, const char *why)
{
    struct qwen_vl *model = NULL;
    struct error error = {0};
    char dir[SCRATCH_PATH];

    copy_nano(dir);
    change(dir, name, from, to);
    assert_true(qwen_vl_load(dir, &model, &error) < 0 && !model);
    if (!strstr(error.text, why))
        fail_msg("'%s' does not say '%s'", error.text, why);
    assert_int_equal(remove_tree(dir), 0);
}

static void test_bad_directories(void **state)
{
    (void)state;
    expect_refused("config.json", "qwen2_5_vl", "qwen9_vl", "neither qwen2_vl nor qwen2_5_vl");
    expect_refused("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
                   "model.layers.2.input_layernorm.weight is missing");
    expect_refused("config.json", "\"intermediate_size\": 24", "\"intermediate_size\": 25", "shape [24,16], expected [25,16]");
    expect_refused("config.json", "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 4", "key-value heads");
    expect_refused("config.json", "\"fullatt_block_indexes\": [\n   1\n  ]", "\"fullatt_block_indexes\": 1", "must be a list");
    expect_refused("config.json", "\"use_sliding_window\": false", "\"use_sliding_window\": true", "use_sliding_window");
    expect_refused("config.json", "\"type\": \"mrope\"", "\"type\": \"yarn\", \"factor\": 4.0", "rope_scaling: type yarn");
    expect_refused("preprocessor_config.json", "\"merge_size\": 2", "\"merge_size\": 3", "merged by 3");
    expect_refused("preprocessor_config.json", "\"merge_size\": 2", "\"merge_size\": 2, \"resample\": 2",
                   "resample: 2, expected 3");
    expect_refused("tokenizer.json", "<|image_pad|>", "<|image_pab|>", "<|image_pad|>");
    expect_refused("model.safetensors", "model.norm.weight", "model.morn.weight", "model.norm.weight is missing");
}

/* What transformers 5 writes for the same: rope_parameters, with the theta in it; a size instead of numbers of pixels, and the
 * whole of it in processor_config.json. */
static void test_newer_spelling(void **state)
{
    static const char *const changes[][3] = {
        {"config.json", "\"rope_theta\": 1000000.0,", ""},
        {"config.json", "\"rope_scaling\": {", "\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"default\","},
        {"preprocessor_config.json", "\"min_pixels\": 3136", "\"size\": {\"shortest_edge\": 784, \"longest_edge\": 6272}"},
        {"preprocessor_config.json", "\"max_pixels\": 12544", "\"max_pixels\": null"},
        {"preprocessor_config.json", "{", "{\"image_processor\": {"},
        {"preprocessor_config.json", "\"image_processor_type\": \"Qwen2VLImageProcessor\"", "\"resample\": 3}"},
    };
    struct qwen_vl *model = NULL;
    struct error error = {0};
    char dir[SCRATCH_PATH], from[320], to[320];

    (void)state;
    copy_nano(dir);
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
        change(dir, changes[i][0], changes[i][1], changes[i][2]);
    snprintf(from, sizeof(from), "%s/preprocessor_config.json", dir);
    snprintf(to, sizeof(to), "%s/processor_config.json", dir);
    assert_int_equal(rename(from, to), 0);
    if (qwen_vl_load(dir, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(model->config.rope_theta == 500000 && model->config.min_pixels == 784 && model->config.max_pixels == 6272);
    qwen_vl_free(model);
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bad_directories), cmocka_unit_test(test_newer_spelling)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
