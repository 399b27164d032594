/* Checkpoint directories: written as read, converted, made up. Those that are broken: test_model_damage.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/staged_dir.h"
#include "nn/hf_convert.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_synth.h"
#include "run/manifest.h"
#include "tests/harness/model_dirs.h"

static void same_file(const char *a, const char *b, const char *name)
{
    char *x, *y;
    size_t n, m;

    model_dirs_read(model_dirs_path(a, name), &x, &n);
    model_dirs_read(model_dirs_path(b, name), &y, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

/* What is loaded and saved "as read" is the same to the byte: names, dtypes, order, shards, index, small files. */
static void test_saved_as_read(void **state)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "preprocessor_config.json", "added_tokens.json",
                                        "model.safetensors.index.json"};
    struct openvla *model = NULL, *clone = NULL;
    struct hf_shards shards;
    struct error error = {0};
    char dir[64];

    (void)state;
    if (openvla_load(model_dirs.good, &model, &error) < 0 || openvla_clone(model, &clone) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < 2; i++) {
        snprintf(dir, sizeof(dir), "%s/again%d", model_dirs.root, i);
        assert_int_equal(mkdir(dir, 0755), 0);
        if (openvla_save(i ? clone : model, dir, NULL, &error) < 0 || hf_shards_open(model_dirs.good, &shards, &error) < 0)
            fail_msg("%s", error.text);
        assert_true(shards.n > 2);
        for (int s = 0; s < shards.n; s++)
            same_file(model_dirs.good, dir, strrchr(shards.file[s]->path, '/') + 1);
        for (size_t k = 0; k < ARRAY_SIZE(names); k++)
            same_file(model_dirs.good, dir, names[k]);
        hf_shards_close(&shards);
    }
    openvla_free(model);
    openvla_free(clone);
}

/* bf16 -> f32 in one file -> bf16 in shards: the same values; torch_dtype says what is there; total_size is right. */
static void test_convert(void **state)
{
    char wide[64], narrow[64];
    struct hf_converted done;
    struct hf_shards a, b;
    struct error error = {0};
    char *config;
    size_t n;

    (void)state;
    snprintf(wide, sizeof(wide), "%s/wide", model_dirs.root);
    snprintf(narrow, sizeof(narrow), "%s/narrow", model_dirs.root);
    assert_int_equal(mkdir(wide, 0755), 0);
    assert_int_equal(mkdir(narrow, 0755), 0);
    if (hf_convert(model_dirs.good, wide, &(struct hf_conversion) {.change_dtype = true, .dtype = DTYPE_F32}, &done, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(access(model_dirs_path(wide, "model.safetensors"), F_OK), 0);
    model_dirs_read(model_dirs_path(wide, "config.json"), &config, &n);
    assert_non_null(strstr(config, "\"torch_dtype\": \"float32\""));
    assert_null(strstr(config, "bfloat16"));
    free(config);
    if (hf_convert(wide, narrow, &(struct hf_conversion){.change_dtype = true, .dtype = DTYPE_BF16, .shard_bytes = 200000}, &done,
                   &error) < 0 ||
        hf_shards_open(model_dirs.good, &a, &error) < 0 || hf_shards_open(narrow, &b, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(b.n > a.n);
    assert_int_equal(b.total_size, done.bytes);
    assert_int_equal(a.total_size, done.bytes);
    for (int s = 0; s < a.n; s++)
        for (int i = 0; i < a.file[s]->count; i++) {
            const struct st_tensor *x = &a.file[s]->list[i], *y = hf_shards_find(&b, x->name);

            assert_non_null(y);
            assert_int_equal(y->dtype, DTYPE_BF16);
            assert_memory_equal(x->data, y->data, x->bytes);
        }
    hf_shards_close(&a);
    hf_shards_close(&b);
}

/* Both names of the dtype are brought up to date, and nothing else. */
static void test_dtype_said(void **state)
{
    static const char *const cases[][2] = {
        {"{\"dtype\": \"bfloat16\", \"a\": {\"torch_dtype\": \"bfloat16\", \"quant_dtype\": \"bfloat16\"}}",
         "{\"dtype\": \"float32\", \"a\": {\"torch_dtype\": \"float32\", \"quant_dtype\": \"bfloat16\"}}"},
        {"{\"torch_dtype\": null, \"dtype\":\"float16\"}", "{\"torch_dtype\": null, \"dtype\":\"float32\"}"},
        {"{\"a\": 1}", "{\n  \"torch_dtype\": \"float32\",\"a\": 1}"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct hf_file config = {.name = "config.json", .bytes = (char *)(uintptr_t)cases[i][0], .n = strlen(cases[i][0])};
        char *bytes;
        size_t n;

        assert_int_equal(hf_files_write(&(struct hf_files) {&config, 1}, model_dirs.root, "float32", NULL), 0);
        model_dirs_read(model_dirs_path(model_dirs.root, "config.json"), &bytes, &n);
        assert_string_equal(bytes, cases[i][1]);
        free(bytes);
    }
}

/* A shard is what the index names, whatever it is called; it is no file beside the shards. */
static void test_convert_shards_of_other_names(void **state)
{
    static const char name[] = "model.safetensors.index.json";
    const char *dir = model_dirs_copy();
    char to[64], shard[256], *index;
    struct hf_shards shards;
    struct hf_converted done;
    struct error error = {0};
    size_t n;

    (void)state;
    snprintf(to, sizeof(to), "%s/others", model_dirs.root);
    assert_int_equal(mkdir(to, 0755), 0);
    assert_int_equal(hf_shards_open(dir, &shards, &error), 0);
    for (int i = 0; i < shards.n; i++) {
        snprintf(shard, sizeof(shard), "%s", shards.file[i]->path);
        memcpy(strrchr(shard, '/') + 1, "Model_", 6);
        assert_int_equal(rename(shards.file[i]->path, shard), 0);
    }
    hf_shards_close(&shards);
    model_dirs_read(model_dirs_path(dir, name), &index, &n);
    for (char *at = index; (at = strstr(at, "model-0")); at++)
        memcpy(at, "Model_0", 7);
    model_dirs_write(model_dirs_path(dir, name), index, n);
    free(index);
    if (hf_convert(dir, to, &(struct hf_conversion) {0}, &done, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(done.side_files, 0);
    assert_int_not_equal(access(model_dirs_path(to, strrchr(shard, '/') + 1), F_OK), 0);
}

/* A .pt beside the shards becomes a .safetensors; two that would become the same are refused. */
static void test_convert_side_files(void **state)
{
    const char *dir = model_dirs_copy();
    char to[64], *bytes;
    struct safetensors *got = NULL, *want = NULL;
    struct hf_converted done;
    struct error error = {0};
    size_t n;

    (void)state;
    snprintf(to, sizeof(to), "%s/side", model_dirs.root);
    model_dirs_read("tests/golden/torch/module.pt", &bytes, &n);
    model_dirs_write(model_dirs_path(dir, "action_head--100_checkpoint.pt"), bytes, n);
    assert_int_equal(mkdir(to, 0755), 0);
    if (hf_convert(dir, to, &(struct hf_conversion) {0}, &done, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(done.side_files, 1);
    free(bytes);
    assert_int_equal(safetensors_open(model_dirs_path(to, "action_head.safetensors"), &got, NULL), 0);
    assert_int_equal(safetensors_open("tests/golden/torch/module.safetensors", &want, NULL), 0);
    assert_int_equal(got->count, want->count);
    for (int i = 0; i < want->count; i++)
        assert_memory_equal(safetensors_find(got, want->list[i].name)->data, want->list[i].data, want->list[i].bytes);
    safetensors_close(got);
    safetensors_close(want);

    model_dirs_write(model_dirs_path(dir, "action_head.safetensors"), "", 0);
    (void)remove_tree(to);
    assert_int_equal(mkdir(to, 0755), 0);
    assert_true(hf_convert(dir, to, &(struct hf_conversion) {0}, &done, &error) < 0);
    assert_non_null(strstr(error.text, "action_head"));
}

static void test_7b_is_7b(void **state)
{
    struct openvla *model = NULL;
    struct error error = {0};
    int64_t parameters = 0;
    char dir[64];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/7b", model_dirs.root);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (openvla_synth_files(openvla_size_find("openvla-7b"), dir, DTYPE_BF16, &error) < 0 ||
        openvla_plan(dir, &model, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < model->params.count; i++)
        parameters += model->params.list[i]->numel;
    assert_int_equal(model->params.count, 982);
    assert_int_equal(parameters, 7541237184);
    assert_int_equal(model->config.empty_id, 29871);
    openvla_free(model);
}

/* Heads are beside the shards, F32 whatever the shards are, and come back; dropped versions leave nothing of either. */
static void test_heads_beside_shards(void **state)
{
    struct openvla *model = NULL, *back = NULL;
    struct manifest manifest = {0};
    struct error error = {0};
    char dir[64], run[64], version[VERSION_PATH];
    int weights = 0;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/heads", model_dirs.root);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (openvla_load(model_dirs.good, &model, &error) < 0 || openvla_add_value_head(model, 16, 2, 1) < 0 ||
        openvla_add_reward_head(model, 8, 2) < 0 || openvla_save(model, dir, NULL, &error) < 0 ||
        openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(access(model_dirs_path(dir, "value_head.safetensors"), F_OK), 0);
    assert_int_equal(access(model_dirs_path(dir, "reward_head.safetensors"), F_OK), 0);
    assert_int_equal(back->config.value_width, 16);
    assert_int_equal(back->config.value_inputs, 2);
    assert_int_equal(back->config.reward_width, 8);
    assert_int_equal(back->params.count, model->params.count);
    for (int i = 0; i < model->params.count; i++)
        assert_memory_equal(model->params.list[i]->value, back->params.list[i]->value,
                            (size_t)model->params.list[i]->numel * sizeof(float));
    openvla_free(model);
    openvla_free(back);

    /* As a version of a run: every file is in the manifest, and retention takes them all. */
    snprintf(run, sizeof(run), "%s/run", model_dirs.root);
    if (version_import(run, 0, 4, dir, &manifest, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(version_path(run, 0, 4, version), 0);
    assert_int_equal(manifest_verify(version, &manifest, NULL, &error), 0);
    for (size_t i = 0; i < manifest.n_files; i++)
        weights += strstr(manifest.files[i].name, ".safetensors") && !strstr(manifest.files[i].name, ".json");
    assert_true(weights > 2 + 2);
    assert_int_equal(version_drop(run, 0, 4), 0);
    for (size_t i = 0; i < manifest.n_files; i++)
        assert_int_equal(access(model_dirs_path(version, manifest.files[i].name), F_OK), -1);
    assert_int_equal(access(model_dirs_path(version, "manifest.json"), F_OK), 0);
    manifest_release(&manifest);
}

/* A directory is there whole or not at all; one that is there is not touched. */
static void test_staged_dir(void **state)
{
    struct staged_dir dir = {0};
    struct error error = {0};
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "%s/staged/deep", model_dirs.root);
    assert_int_equal(staged_dir_open(&dir, path, &error), 0);
    model_dirs_write(model_dirs_path(dir.temporary, "file"), "x", 1);
    assert_int_equal(access(path, F_OK), -1);
    staged_dir_release(&dir);                           /* no commit: nothing is left */
    assert_int_equal(rmdir(model_dirs_path(model_dirs.root, "staged")), 0);
    assert_int_equal(mkdir_p(path, 0755), 0);           /* an empty directory is taken over */
    assert_int_equal(staged_dir_open(&dir, path, &error), 0);
    model_dirs_write(model_dirs_path(dir.temporary, "file"), "x", 1);
    assert_int_equal(staged_dir_commit(&dir, &error), 0);
    staged_dir_release(&dir);
    assert_int_equal(access(model_dirs_path(path, "file"), F_OK), 0);
    assert_int_equal(staged_dir_open(&dir, path, &error), -EEXIST);
    assert_non_null(strstr(error.text, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saved_as_read),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_dtype_said), cmocka_unit_test(test_convert_shards_of_other_names),
        cmocka_unit_test(test_convert_side_files),
        cmocka_unit_test(test_7b_is_7b),
        cmocka_unit_test(test_heads_beside_shards),
        cmocka_unit_test(test_staged_dir),
    };

    return cmocka_run_group_tests(tests, model_dirs_set_up, model_dirs_tear_down);
}
