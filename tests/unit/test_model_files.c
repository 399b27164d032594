/* Checkpoint directories: written as read, converted, made up; and each way to be broken gets one line that names file, tensor,
 * what was found and what was expected, with nothing loaded. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/staged_dir.h"
#include "base/strbuf.h"
#include "nn/hf_convert.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_synth.h"
#include "run/manifest.h"

static const char victim[] = "language_model.model.layers.1.mlp.up_proj.weight";

static struct {
    char root[32];              /* of all directories of these tests */
    char good[64];              /* a sharded bf16 checkpoint */
} f;

static int setup(void **state)
{
    struct openvla_synthesis done;
    struct error error = {0};

    (void)state;
    snprintf(f.root, sizeof(f.root), "/tmp/gantry_test_XXXXXX");
    if (!mkdtemp(f.root))
        return -1;
    snprintf(f.good, sizeof(f.good), "%s/good", f.root);
    if (mkdir(f.good, 0755) < 0 || openvla_synth(openvla_size_find("tiny"), f.good, DTYPE_BF16, 3, 300000, &done, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return remove_tree(f.root);
}

static char *path_of(const char *dir, const char *name)
{
    static char path[2][256];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void slurp(const char *path, char **ret, size_t *ret_n)
{
    if (file_read(path, 64 << 20, ret, ret_n) < 0)
        fail_msg("%s cannot be read", path);
}

static void spew(const char *path, const void *bytes, size_t n)
{
    if (atomic_file_write(path, bytes, n) < 0)
        fail_msg("%s cannot be written", path);
}

/* A fresh copy of the good checkpoint, to break. */
static const char *copy(void)
{
    static char dir[64];
    struct hf_converted done;
    struct error error = {0};

    snprintf(dir, sizeof(dir), "%s/bad", f.root);
    (void)remove_tree(dir);
    if (mkdir(dir, 0755) < 0 || hf_convert(f.good, dir, &(struct hf_conversion) {0}, &done, &error) < 0)
        fail_msg("%s", error.text);
    return dir;
}

/* The line must say all words of the list; nothing is loaded. */
static void refused(const char *dir, const char *const *words)
{
    struct openvla *model = NULL;
    struct error error = {0};
    int r = openvla_load(dir, &model, &error);

    assert_null(model);
    assert_true(r < 0);
    for (; *words; words++)
        if (!strstr(error.text, *words))
            fail_msg("'%s' does not say '%s'", error.text, *words);
    assert_null(strchr(error.text, '\n'));
}
#define REFUSED(dir, ...) refused(dir, (const char *const []) {__VA_ARGS__, NULL})

/* The shard that holds a tensor, as a path inside `dir`. */
static char *shard_of(const char *dir, const char *tensor)
{
    struct hf_shards shards;
    struct error error = {0};
    char name[256];

    if (hf_shards_open(dir, &shards, &error) < 0)
        fail_msg("%s", error.text);
    snprintf(name, sizeof(name), "%s", strrchr(hf_shards_path(&shards, hf_shards_find(&shards, tensor), NULL), '/') + 1);
    hf_shards_close(&shards);
    return path_of(dir, name);
}

/* Write the shard of the victim again with one change to its entry. */
static void rewrite(const char *dir, void (*change)(struct st_write *list, int *n, int victim))
{
    char path[256], temporary[264];
    struct safetensors *file = NULL;
    struct st_write *list;
    int n, at = -1;

    snprintf(path, sizeof(path), "%s", shard_of(dir, victim));
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    assert_int_equal(safetensors_open(path, &file, NULL), 0);
    list = calloc((size_t)file->count + 1, sizeof(*list));
    for (n = 0; n < file->count; n++) {
        list[n] = (struct st_write) {.name = file->list[n].name, .dtype = file->list[n].dtype, .ndim = file->list[n].ndim,
                                     .raw = file->list[n].data};
        memcpy(list[n].dim, file->list[n].dim, sizeof(list[n].dim));
        if (!strcmp(list[n].name, victim))
            at = n;
    }
    assert_true(at >= 0);
    change(list, &n, at);
    assert_int_equal(safetensors_write(temporary, list, n, NULL), 0);
    safetensors_close(file);
    free(list);
    assert_int_equal(rename(temporary, path), 0);
}

/* ---- good directories -------------------------------------------------------------------------------------- */

static void same_file(const char *a, const char *b, const char *name)
{
    char *x, *y;
    size_t n, m;

    slurp(path_of(a, name), &x, &n);
    slurp(path_of(b, name), &y, &m);
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
    if (openvla_load(f.good, &model, &error) < 0 || openvla_clone(model, &clone) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < 2; i++) {
        snprintf(dir, sizeof(dir), "%s/again%d", f.root, i);
        assert_int_equal(mkdir(dir, 0755), 0);
        if (openvla_save(i ? clone : model, dir, NULL, &error) < 0 || hf_shards_open(f.good, &shards, &error) < 0)
            fail_msg("%s", error.text);
        assert_true(shards.n > 2);
        for (int s = 0; s < shards.n; s++)
            same_file(f.good, dir, strrchr(shards.file[s]->path, '/') + 1);
        for (size_t k = 0; k < ARRAY_SIZE(names); k++)
            same_file(f.good, dir, names[k]);
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
    snprintf(wide, sizeof(wide), "%s/wide", f.root);
    snprintf(narrow, sizeof(narrow), "%s/narrow", f.root);
    assert_int_equal(mkdir(wide, 0755), 0);
    assert_int_equal(mkdir(narrow, 0755), 0);
    if (hf_convert(f.good, wide, &(struct hf_conversion) {.change_dtype = true, .dtype = DTYPE_F32}, &done, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(access(path_of(wide, "model.safetensors"), F_OK), 0);
    slurp(path_of(wide, "config.json"), &config, &n);
    assert_non_null(strstr(config, "\"torch_dtype\": \"float32\""));
    assert_null(strstr(config, "bfloat16"));
    free(config);
    if (hf_convert(wide, narrow, &(struct hf_conversion){.change_dtype = true, .dtype = DTYPE_BF16, .shard_bytes = 200000}, &done,
                   &error) < 0 ||
        hf_shards_open(f.good, &a, &error) < 0 || hf_shards_open(narrow, &b, &error) < 0)
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

/* A .pt beside the shards becomes a .safetensors; two that would become the same are refused. */
static void test_convert_side_files(void **state)
{
    const char *dir = copy();
    char to[64], *bytes;
    struct safetensors *got = NULL, *want = NULL;
    struct hf_converted done;
    struct error error = {0};
    size_t n;

    (void)state;
    snprintf(to, sizeof(to), "%s/side", f.root);
    slurp("tests/golden/torch/module.pt", &bytes, &n);
    spew(path_of(dir, "action_head--100_checkpoint.pt"), bytes, n);
    assert_int_equal(mkdir(to, 0755), 0);
    if (hf_convert(dir, to, &(struct hf_conversion) {0}, &done, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(done.side_files, 1);
    free(bytes);
    assert_int_equal(safetensors_open(path_of(to, "action_head.safetensors"), &got, NULL), 0);
    assert_int_equal(safetensors_open("tests/golden/torch/module.safetensors", &want, NULL), 0);
    assert_int_equal(got->count, want->count);
    for (int i = 0; i < want->count; i++)
        assert_memory_equal(safetensors_find(got, want->list[i].name)->data, want->list[i].data, want->list[i].bytes);
    safetensors_close(got);
    safetensors_close(want);

    spew(path_of(dir, "action_head.safetensors"), "", 0);
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
    snprintf(dir, sizeof(dir), "%s/7b", f.root);
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
    snprintf(dir, sizeof(dir), "%s/heads", f.root);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (openvla_load(f.good, &model, &error) < 0 || openvla_add_value_head(model, 16, 2, 1) < 0 ||
        openvla_add_reward_head(model, 8, 2) < 0 || openvla_save(model, dir, NULL, &error) < 0 ||
        openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(access(path_of(dir, "value_head.safetensors"), F_OK), 0);
    assert_int_equal(access(path_of(dir, "reward_head.safetensors"), F_OK), 0);
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
    snprintf(run, sizeof(run), "%s/run", f.root);
    if (version_import(run, 0, 4, dir, &manifest, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(version_path(run, 0, 4, version), 0);
    assert_int_equal(manifest_verify(version, &manifest, NULL, &error), 0);
    for (size_t i = 0; i < manifest.n_files; i++)
        weights += strstr(manifest.files[i].name, ".safetensors") && !strstr(manifest.files[i].name, ".json");
    assert_true(weights > 2 + 2);
    assert_int_equal(version_drop(run, 0, 4), 0);
    for (size_t i = 0; i < manifest.n_files; i++)
        assert_int_equal(access(path_of(version, manifest.files[i].name), F_OK), -1);
    assert_int_equal(access(path_of(version, "manifest.json"), F_OK), 0);
    manifest_release(&manifest);
}

/* ---- broken directories --------------------------------------------------------------------------------------- */

static void test_shard_missing(void **state)
{
    const char *dir = copy(), *path = shard_of(dir, victim);

    (void)state;
    assert_int_equal(unlink(path), 0);
    REFUSED(dir, path, "is not there", "index.json puts tensor");
}

static void test_shard_truncated(void **state)
{
    const char *dir = copy(), *path = shard_of(dir, victim);
    struct stat st;

    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 10), 0);
    REFUSED(dir, path, "tensor ", "data_offsets", "cut short");
    assert_int_equal(truncate(path, 100), 0);           /* inside the header */
    REFUSED(dir, path, "header of", "does not fit a file of 100");
    assert_int_equal(truncate(path, 3), 0);
    REFUSED(dir, path, "too short");
}

static void test_header_too_long(void **state)
{
    const char *dir = copy(), *path = shard_of(dir, victim);
    char *bytes;
    size_t n;

    (void)state;
    slurp(path, &bytes, &n);
    bytes[5] = 1;
    spew(path, bytes, n);
    free(bytes);
    REFUSED(dir, path, "header of");
}

/* In the header's text: the victim's offsets are those of the tensor before it. */
static void test_overlap(void **state)
{
    const char *dir = copy(), *path = shard_of(dir, victim);
    char *bytes, *name, *offsets;
    size_t n;

    (void)state;
    slurp(path, &bytes, &n);
    name = memmem(bytes, n, victim, strlen(victim));
    offsets = strstr(name, "\"data_offsets\":[") + 16;
    memset(offsets, '0', strcspn(offsets, ","));        /* a number may not begin with 0 in JSON */
    *offsets = ' ';
    for (char *at = offsets; at[1] != ','; at++)
        *at = ' ';
    spew(path, bytes, n);
    free(bytes);
    REFUSED(dir, path, victim, "expected");
}

static void wrong_shape(struct st_write *list, int *n, int at)
{
    (void)n;
    list[at].dim[0] /= 2;
    list[at].dim[1] *= 2;
}

static void wrong_dtype(struct st_write *list, int *n, int at)
{
    (void)n;
    list[at].dtype = DTYPE_I16;
}

static uint16_t *poisoned;

static void not_a_number(struct st_write *list, int *n, int at)
{
    size_t bytes = st_write_bytes(&list[at]);

    (void)n;
    poisoned = malloc(bytes);
    memcpy(poisoned, list[at].raw, bytes);
    poisoned[list[at].dim[1] + 3] = 0x7fc0;
    list[at].raw = poisoned;
}

static void drop(struct st_write *list, int *n, int at)
{
    list[at] = list[--*n];
}

static void rename_it(struct st_write *list, int *n, int at)
{
    (void)n;
    list[at].name = "language_model.model.layers.1.mlp.upp_proj.weight";
}

static void test_wrong_tensor(void **state)
{
    const char *dir = copy(), *path = shard_of(dir, victim);

    (void)state;
    rewrite(dir, wrong_shape);
    REFUSED(dir, path, victim, "shape [88,128]", "expected [176,64]");
    dir = copy();
    rewrite(dir, wrong_dtype);
    REFUSED(dir, path, victim, "dtype I16", "expected BF16, F16 or F32");
    dir = copy();
    rewrite(dir, not_a_number);
    free(poisoned);
    REFUSED(dir, path, victim, "value [1,3] is nan", "expected finite");
    dir = copy();
    rewrite(dir, drop);
    REFUSED(dir, path, victim, "missing", "index.json puts it there");
    dir = copy();
    rewrite(dir, rename_it);
    REFUSED(dir, path, "upp_proj", "does not name it");
}

/* A single file has no index to disagree with: the architecture's own table says what is missing and what is too much. */
static void test_wrong_tensor_without_index(void **state)
{
    char dir[64];
    struct hf_converted done;
    struct error error = {0};

    (void)state;
    snprintf(dir, sizeof(dir), "%s/single", f.root);
    for (int i = 0; i < 2; i++) {
        (void)remove_tree(dir);
        assert_int_equal(mkdir(dir, 0755), 0);
        if (hf_convert(f.good, dir, &(struct hf_conversion) {.shard_bytes = INT64_MAX}, &done, &error) < 0)
            fail_msg("%s", error.text);
        rewrite(dir, i ? drop : rename_it);
        REFUSED(dir, "model.safetensors", victim, "missing", "[176,64]");
    }
}

/* All problems of a directory, one line each. */
struct lines { int n; char text[8][480]; };

static void collect(void *arg, const char *line)
{
    struct lines *lines = arg;

    if (lines->n < 8)
        snprintf(lines->text[lines->n], sizeof(lines->text[0]), "%s", line);
    lines->n++;
}

static void test_all_problems_are_listed(void **state)
{
    struct lines lines = {0};
    struct hf_problems all = {.found = collect, .arg = &lines};
    struct openvla *model = NULL;
    struct error error = {0};
    struct hf_converted done;
    char dir[64];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/listed", f.root);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (hf_convert(f.good, dir, &(struct hf_conversion) {.shard_bytes = INT64_MAX}, &done, &error) < 0)
        fail_msg("%s", error.text);
    rewrite(dir, rename_it);
    assert_int_equal(openvla_open(dir, &all, &model, NULL, &error), 0);
    assert_int_equal(lines.n, 2);
    assert_non_null(strstr(lines.text[0], victim));
    assert_non_null(strstr(lines.text[0], "missing"));
    assert_non_null(strstr(lines.text[1], "upp_proj"));
    assert_non_null(strstr(lines.text[1], "unexpected, found BF16 [176,64]"));
    openvla_free(model);
}

static void edit(const char *dir, const char *name, const char *from, const char *to)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    char *bytes, *at;
    size_t n;

    slurp(path_of(dir, name), &bytes, &n);
    at = strstr(bytes, from);
    if (!at)
        fail_msg("%s: there is no %s", name, from);
    strbuf_add(&out, bytes, (size_t)(at - bytes));
    strbuf_adds(&out, to);
    strbuf_adds(&out, at + strlen(from));
    spew(path_of(dir, name), out.text, out.length);
    free(bytes);
}

static void test_index(void **state)
{
    static const char name[] = "model.safetensors.index.json";
    const char *dir = copy();

    (void)state;
    edit(dir, name, "\"model-00001-of", "\"../model-00001-of");
    REFUSED(dir, name, "../model-00001-of", "expected the name of a file in this directory");
    dir = copy();
    edit(dir, name, "\"weight_map\"", "\"weight_mop\"");
    REFUSED(dir, name, "no weight_map");
    dir = copy();
    edit(dir, name, "\"language_model.lm_head.weight\"", "\"language_model.lm_heat.weight\"");
    REFUSED(dir, "language_model.lm_head.weight", "does not name it");
    dir = copy();
    edit(dir, name, "{", "");
    REFUSED(dir, name);
    dir = copy();
    assert_int_equal(unlink(path_of(dir, name)), 0);
    REFUSED(dir, dir, "neither model.safetensors nor", "expected one of them");
}

static void test_architecture(void **state)
{
    static const struct { const char *from, *to, *key, *expected;
    } cases[] = {
        {"OpenVLAForActionPrediction", "LlamaForCausalLM", "architectures: found LlamaForCausalLM", "OpenVLAForActionPrediction"},
        {"\"model_type\": \"openvla\"", "\"model_type\": \"prismatic\"", "model_type: found prismatic", "expected openvla"},
        {"no-align+fused-gelu-mlp", "no-align+gelu-mlp", "arch_specifier: found no-align+gelu-mlp", "fused"},
        {"\"model_type\": \"llama\"", "\"model_type\": \"mistral\"", "text_config.model_type: found mistral", "expected llama"},
        {"[null, null]", "[null, \"quick_gelu\"]", "timm_override_act_layers", "expected null"},
        {"\"use_fused_vision_backbone\": true", "\"use_fused_vision_backbone\": false", "found false", "expected true"},
        {"\"hidden_size\"", "\"rope_scaling\": {\"type\": \"linear\"}, \"hidden_size\"", "text_config.rope_scaling",
         "expected null"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *dir = copy();

        edit(dir, "config.json", cases[i].from, cases[i].to);
        REFUSED(dir, "config.json", cases[i].key, cases[i].expected);
    }
}

static void test_unknown_piece(void **state)
{
    const char *dir = copy();

    (void)state;
    edit(dir, "tokenizer.json", "\"O u\"", "\"O \xc3\xbc\"");
    REFUSED(dir, "tokenizer.json", "model.merges[");
}

/* A directory is there whole or not at all; one that is there is not touched. */
static void test_staged_dir(void **state)
{
    struct staged_dir dir = {0};
    struct error error = {0};
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "%s/staged/deep", f.root);
    assert_int_equal(staged_dir_open(&dir, path, &error), 0);
    spew(path_of(dir.temporary, "file"), "x", 1);
    assert_int_equal(access(path, F_OK), -1);
    staged_dir_release(&dir);                           /* no commit: nothing is left */
    assert_int_equal(rmdir(path_of(f.root, "staged")), 0);
    assert_int_equal(mkdir_p(path, 0755), 0);           /* an empty directory is taken over */
    assert_int_equal(staged_dir_open(&dir, path, &error), 0);
    spew(path_of(dir.temporary, "file"), "x", 1);
    assert_int_equal(staged_dir_commit(&dir, &error), 0);
    staged_dir_release(&dir);
    assert_int_equal(access(path_of(path, "file"), F_OK), 0);
    assert_int_equal(staged_dir_open(&dir, path, &error), -EEXIST);
    assert_non_null(strstr(error.text, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saved_as_read),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_convert_side_files),
        cmocka_unit_test(test_7b_is_7b),
        cmocka_unit_test(test_heads_beside_shards),
        cmocka_unit_test(test_shard_missing),
        cmocka_unit_test(test_shard_truncated),
        cmocka_unit_test(test_header_too_long),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_wrong_tensor),
        cmocka_unit_test(test_wrong_tensor_without_index),
        cmocka_unit_test(test_all_problems_are_listed),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_architecture),
        cmocka_unit_test(test_unknown_piece),
        cmocka_unit_test(test_staged_dir),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
