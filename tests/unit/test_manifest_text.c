/* A manifest's text: all of it comes back, and no key of it may be missing or of another kind. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "run/manifest.h"
#include "run/manifest_internal.h"
#include "tests/harness/scratch.h"

static char dir[SCRATCH_PATH], path[SCRATCH_PATH + 16];
static struct error error;
static struct manifest_episode consumed[2] = {{.episode = 5, .digest = {1, 0xab}}, {.episode = 9, .digest = {2}}};
static struct manifest_file files[1] = {{.name = "model.safetensors", .size = 7, .sha256 = {4}}};
static const struct manifest whole = {
    .run = 0xfeedull << 48, .kind = 1, .number = 12, .parent = 11, .plan_digest = {3}, .group_epoch = 4, .stage = 6,
    .iteration = 2, .consumed = consumed, .n_consumed = 2, .files = files, .n_files = 1,
};

static int setup(void **state)
{
    (void)state;
    scratch_new(dir);
    snprintf(path, sizeof path, "%s/manifest.json", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return remove_tree(dir);
}

static json_t *written(void)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    json_t *root;

    assert_int_equal(manifest_write(&whole, &text), 0);
    root = json_loads(text.text, 0, NULL);
    assert_non_null(root);
    return root;
}

/* Writes the tree in the manifest's place, reads it, and lets go of the tree. */
static int read_back(json_t *root, struct manifest *ret)
{
    char *text = json_dumps(root, 0);
    int r;

    assert_non_null(text);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
    r = manifest_read(dir, ret, &error);
    free(text);
    json_decref(root);
    return r;
}

static void test_all_of_it_comes_back(void **state)
{
    struct manifest m;

    (void)state;
    assert_int_equal(read_back(written(), &m), 0);
    assert_true(m.run == whole.run && m.kind == 1 && m.number == 12 && m.parent == 11 && m.group_epoch == 4);
    assert_true(m.stage == 6 && m.iteration == 2 && m.n_consumed == 2 && m.n_files == 1 && m.files[0].size == 7);
    assert_memory_equal(m.plan_digest, whole.plan_digest, SHA256_SIZE);
    assert_memory_equal(m.consumed, consumed, sizeof consumed);
    assert_string_equal(m.files[0].name, files[0].name);
    assert_memory_equal(m.files[0].sha256, files[0].sha256, SHA256_SIZE);
    manifest_release(&m);
}

/* The object that `of` names: the manifest, its last consumed episode, or its file. */
static json_t *object_of(json_t *root, const char *of)
{
    return *of ? json_array_get(json_object_get(root, of), json_array_size(json_object_get(root, of)) - 1) : root;
}

static void test_every_key_is_wanted(void **state)
{
    static const char *const objects[] = {"", "consumed", "files"};
    json_t *model = written();
    struct manifest m;
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(objects); i++) {
        const char *key;
        json_t *value;

        json_object_foreach(object_of(model, objects[i]), key, value) {
            for (int null = 0; null <= 1; null++) {
                json_t *root = written();

                if (null)
                    (void)json_object_set_new(object_of(root, objects[i]), key, json_null());
                else
                    (void)json_object_del(object_of(root, objects[i]), key);
                if (read_back(root, &m) != -EBADMSG)
                    fail_msg("%s %s %s: read all the same", objects[i], key, null ? "null" : "missing");
            }
            n++;
        }
    }
    assert_int_equal(n, 11 + 2 + 3);
    json_decref(model);
}

#define ZEROS_62 "00000000000000000000000000000000000000000000000000000000000000"

static void test_wrong_values(void **state)
{
    static const struct { const char *of, *key, *value; } wrong[] = {
        {"", "format", "2"}, {"", "kind", "\"critic\""}, {"", "number", "-1"}, {"", "number", "1.5"}, {"", "number", "\"12\""},
        {"", "stage", "4294967296"}, {"", "run", "\"feed\""}, {"", "run", "\"feed00000000000g\""}, {"", "consumed", "{}"},
        {"", "files", "{}"}, {"", "plan_digest", "\"" ZEROS_62 "0g\""}, {"", "plan_digest", "\"" ZEROS_62 "g0\""},
        {"", "plan_digest", "\"" ZEROS_62 "0/\""}, {"", "plan_digest", "\"" ZEROS_62 "0:\""},
        {"", "plan_digest", "\"" ZEROS_62 "0`\""}, {"", "plan_digest", "\"" ZEROS_62 "\""},
        {"", "plan_digest", "\"" ZEROS_62 "000\""}, {"consumed", "episode", "-9"}, {"consumed", "digest", "\"ab\""},
        {"files", "name", "\"\""}, {"files", "name", "\"../model.safetensors\""}, {"files", "name", "\".hidden\""},
        {"files", "name", "\"a/b\""}, {"files", "size", "-1"}, {"files", "sha256", "\"ab\""},
    };
    char *long_name = calloc(1, sizeof files[0].name + 1);
    struct manifest m;
    json_t *root;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        root = written();
        assert_int_equal(json_object_set_new(object_of(root, wrong[i].of), wrong[i].key,
                                             json_loads(wrong[i].value, JSON_DECODE_ANY, NULL)), 0);
        if (read_back(root, &m) != -EBADMSG)
            fail_msg("%s %s %s: read all the same", wrong[i].of, wrong[i].key, wrong[i].value);
    }
    assert_non_null(long_name);
    memset(long_name, 'x', sizeof files[0].name);
    assert_false(manifest_plain_name(long_name));
    long_name[sizeof files[0].name - 1] = '\0';
    assert_true(manifest_plain_name(long_name));
    free(long_name);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(manifest_read(dir, &m, &error), -ENOENT);
    assert_int_equal(atomic_file_write(path, "{\"format\":", 10), 0);
    assert_int_equal(manifest_read(dir, &m, &error), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_of_it_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_key_is_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_values, setup, teardown),
    };

    return cmocka_run_group_tests_name("manifest_text", tests, NULL, NULL);
}
