/* Checkpoint directories that are broken: each way gets one line that names file, tensor, what was found and what was expected,
 * with nothing loaded. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/hf_convert.h"
#include "nn/models/openvla_internal.h"
#include "tests/harness/model_dirs.h"

static const char *victim = "language_model.model.layers.1.mlp.up_proj.weight";

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
    return model_dirs_path(dir, name);
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

static void test_shard_missing(void **state)
{
    const char *dir = model_dirs_copy(), *path = shard_of(dir, victim);

    (void)state;
    assert_int_equal(unlink(path), 0);
    REFUSED(dir, path, "is not there", "index.json puts tensor");
}

static void test_shard_truncated(void **state)
{
    const char *dir = model_dirs_copy(), *path = shard_of(dir, victim);
    struct stat st;

    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 10), 0);
    REFUSED(dir, path, "tensor ", "data_offsets", "cut short", "copy it again");
    assert_int_equal(truncate(path, 100), 0);           /* inside the header */
    REFUSED(dir, path, "header of", "does not fit a file of 100");
    assert_int_equal(truncate(path, 3), 0);
    REFUSED(dir, path, "too short");
}

static void test_lfs_pointer(void **state)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 6000000\n";
    const char *dir = model_dirs_copy(), *path = shard_of(dir, victim);

    (void)state;
    assert_int_equal(file_write(path, pointer, sizeof pointer - 1), 0);
    REFUSED(dir, path, "Git LFS", "git lfs pull");
}

static void test_header_too_long(void **state)
{
    const char *dir = model_dirs_copy(), *path = shard_of(dir, victim);
    char *bytes;
    size_t n;

    (void)state;
    model_dirs_read(path, &bytes, &n);
    bytes[5] = 1;
    model_dirs_write(path, bytes, n);
    free(bytes);
    REFUSED(dir, path, "header of");
}

/* In the header's text: the victim's offsets are those of the tensor before it. */
static void test_overlap(void **state)
{
    const char *dir = model_dirs_copy(), *path = shard_of(dir, victim);
    char *bytes, *name, *offsets;
    size_t n;

    (void)state;
    model_dirs_read(path, &bytes, &n);
    name = memmem(bytes, n, victim, strlen(victim));
    offsets = strstr(name, "\"data_offsets\":[") + 16;
    memset(offsets, '0', strcspn(offsets, ","));        /* a number may not begin with 0 in JSON */
    *offsets = ' ';
    for (char *at = offsets; at[1] != ','; at++)
        *at = ' ';
    model_dirs_write(path, bytes, n);
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
    const char *dir = model_dirs_copy(), *path = shard_of(dir, victim);

    (void)state;
    rewrite(dir, wrong_shape);
    REFUSED(dir, path, victim, "shape [88,128]", "expected [176,64]");
    dir = model_dirs_copy();
    rewrite(dir, wrong_dtype);
    REFUSED(dir, path, victim, "dtype I16", "expected BF16, F16 or F32");
    dir = model_dirs_copy();
    rewrite(dir, not_a_number);
    free(poisoned);
    REFUSED(dir, path, victim, "value [1,3] is nan", "expected finite");
    dir = model_dirs_copy();
    rewrite(dir, drop);
    REFUSED(dir, path, victim, "missing", "index.json puts it there");
    dir = model_dirs_copy();
    rewrite(dir, rename_it);
    REFUSED(dir, path, "upp_proj", "does not name it");
}

static void edit(const char *dir, const char *name, const char *from, const char *to)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    char *bytes, *at;
    size_t n;

    model_dirs_read(model_dirs_path(dir, name), &bytes, &n);
    at = strstr(bytes, from);
    if (!at)
        fail_msg("%s: there is no %s", name, from);
    strbuf_add(&out, bytes, (size_t)(at - bytes));
    strbuf_adds(&out, to);
    strbuf_adds(&out, at + strlen(from));
    model_dirs_write(model_dirs_path(dir, name), out.text, out.length);
    free(bytes);
}

/* The good checkpoint with one file of weights. */
static void single_file(char ret_dir[64])
{
    struct hf_converted done;
    struct error error = {0};

    snprintf(ret_dir, 64, "%s/single", model_dirs.root);
    (void)remove_tree(ret_dir);
    assert_int_equal(mkdir(ret_dir, 0755), 0);
    if (hf_convert(model_dirs.good, ret_dir, &(struct hf_conversion) {.shard_bytes = INT64_MAX}, &done, &error) < 0)
        fail_msg("%s", error.text);
}

/* A single file has no index to disagree with: the architecture's own table says what is missing and what is too much. */
static void test_wrong_tensor_without_index(void **state)
{
    char dir[64];

    (void)state;
    for (int i = 0; i < 2; i++) {
        single_file(dir);
        rewrite(dir, i ? drop : rename_it);
        REFUSED(dir, "model.safetensors", victim, "missing", "[176,64]");
    }
}

/* LayerScale is in all blocks of a tower or in none, and DINOv2's cls_token has registers beside it. */
static void test_optional_tensor_missing(void **state)
{
    const char *usual = victim;
    char dir[64];

    (void)state;
    victim = "vision_backbone.featurizer.blocks.1.ls2.scale_factor";
    single_file(dir);
    rewrite(dir, drop);
    REFUSED(dir, "model.safetensors", victim, "missing");
    victim = "vision_backbone.featurizer.reg_token";
    single_file(dir);
    edit(dir, "config.json", "\"gantry_vision\"", "\"other\"");       /* which says how many there are */
    rewrite(dir, drop);
    REFUSED(dir, "config.json", "reg_token is missing");
    victim = usual;
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
    snprintf(dir, sizeof(dir), "%s/listed", model_dirs.root);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (hf_convert(model_dirs.good, dir, &(struct hf_conversion) {.shard_bytes = INT64_MAX}, &done, &error) < 0)
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

static void test_index(void **state)
{
    static const char name[] = "model.safetensors.index.json";
    const char *dir = model_dirs_copy();

    (void)state;
    edit(dir, name, "\"model-00001-of", "\"../model-00001-of");
    REFUSED(dir, name, "../model-00001-of", "expected the name of a file in this directory");
    dir = model_dirs_copy();
    edit(dir, name, "\"weight_map\"", "\"weight_mop\"");
    REFUSED(dir, name, "no weight_map");
    dir = model_dirs_copy();
    edit(dir, name, "\"language_model.lm_head.weight\"", "\"language_model.lm_heat.weight\"");
    REFUSED(dir, "language_model.lm_head.weight", "does not name it");
    dir = model_dirs_copy();
    edit(dir, name, "{", "");
    REFUSED(dir, name);
    dir = model_dirs_copy();
    assert_int_equal(unlink(model_dirs_path(dir, name)), 0);
    REFUSED(dir, dir, "neither model.safetensors nor", "expected one of them");
    dir = model_dirs_copy();
    model_dirs_write(model_dirs_path(dir, "model.safetensors"), "", 0);
    REFUSED(dir, "/model.safetensors", name, "does not name it", "remove one of them");
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
        {"\"hidden_size\"", "\"rope_parameters\": {\"rope_theta\": 5e5}, \"hidden_size\"", "text_config.rope_parameters",
         "expected null"},
        {"\"n_action_bins\": 256", "\"n_action_bins\": 128", "n_action_bins: found 128", "expected 256"},
        {"\"hidden_size\"", "\"rms_norm_eps\": -1, \"hidden_size\"", "rms_norm_eps: -1", "above 0"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *dir = model_dirs_copy();

        edit(dir, "config.json", cases[i].from, cases[i].to);
        REFUSED(dir, "config.json", cases[i].key, cases[i].expected);
    }
}

/* numpy takes 1 for true. */
static void test_mask_of_numbers(void **state)
{
    const char *dir = model_dirs_copy();
    struct openvla *model = NULL;
    struct error error = {0};

    (void)state;
    edit(dir, "config.json", "[true, true, true, true, true, true, false]", "[1, 1, 1, 1, 1, 0, 0]");
    if (openvla_load(dir, &model, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < 7; i++)
        assert_int_equal(model->stats[0].mask[i], i < 5);
    openvla_free(model);
    edit(dir, "config.json", "[1, 1, 1, 1, 1, 0, 0]", "[1, 1, 1, 1, 1, \"no\", 0]");
    REFUSED(dir, "norm_stats: dataset synth: action", "mask");
}

static void test_pictures(void **state)
{
    static const char name[] = "preprocessor_config.json";
    const char *dir = model_dirs_copy();

    (void)state;
    edit(dir, name, "\"interpolation\": 3", "\"interpolation\": 2");
    REFUSED(dir, name, "tvf_resize_params", "interpolation: 2, expected 3 (bicubic)");
}

/* The colour of a letterbox that the file does not give is the last tower's mean, as the original computes it. */
static void test_letterbox_colour(void **state)
{
    static const char *const texts[] = {
        "{\"image_resize_strategy\": \"letterbox\", \"means\": [[0.485, 0.456, 0.406], [0.5, 0.6, 0.7]]}",
        "{\"image_resize_strategy\": \"letterbox\", \"means\": [[0, 0, 0], [0, 0, 0]], \"tvf_letterbox_fill\": [127, 153, 178]}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct openvla_config config = {.image_height = 8, .image_width = 8};
        _cleanup_json_ json_t *json = json_loads(texts[i], 0, NULL);
        struct error error = {0};

        if (openvla_read_pictures(&config, json, &error) < 0)
            fail_msg("%s", error.text);
        assert_true(config.prepare.letterbox);
        assert_memory_equal(config.prepare.fill, ((const uint8_t[]){127, 153, 178}), 3);
    }
}

static void test_unknown_piece(void **state)
{
    const char *dir = model_dirs_copy();

    (void)state;
    edit(dir, "tokenizer.json", "\"O u\"", "\"O \xc3\xbc\"");
    REFUSED(dir, "tokenizer.json", "model.merges[");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shard_missing),
        cmocka_unit_test(test_shard_truncated),
        cmocka_unit_test(test_lfs_pointer),
        cmocka_unit_test(test_header_too_long),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_wrong_tensor),
        cmocka_unit_test(test_wrong_tensor_without_index),
        cmocka_unit_test(test_optional_tensor_missing),
        cmocka_unit_test(test_all_problems_are_listed),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_architecture),
        cmocka_unit_test(test_mask_of_numbers),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_letterbox_colour),
        cmocka_unit_test(test_unknown_piece),
    };

    return cmocka_run_group_tests(tests, model_dirs_set_up, model_dirs_tear_down);
}
