/* Versions that hold only what was trained share the base below them (nn/base_files.h): its files are looked through once, and a device
 * has its matrices once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/base_files.h"
#include "nn/base_link.h"
#include "nn/device/mirror.h"
#include "nn/models/openvla_adapter.h"
#include "run/manifest.h"
#include "serve/policy_version.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/plan_lab.h"

enum { BASE, FIRST, SECOND, VERSIONS };

static char run_dir[SCRATCH_PATH], dirs[VERSIONS][VERSION_PATH];
static uint8_t digests[VERSIONS][SHA256_SIZE];

/* The device's table: counts what is had of it; may have nothing to give. */
static struct device_kernels table;
static const struct device_kernels *real;
static size_t taken;
static bool full;

static int told_alloc(size_t bytes, void **ret)
{
    int r = full ? -ENOMEM : real->alloc(bytes, ret);

    taken += r >= 0 ? bytes : 0;
    return r;
}

static int setup(void **state)
{
    struct device *under = test_device_open();

    (void)state;
    real = under->k;
    table = *real;
    table.alloc = told_alloc;
    assert_int_equal(device_wrap(&table, under->ordinal, &device, NULL), 0);
    device_unref(under);
    return 0;
}

static void commit(int number, struct openvla *model)
{
    struct manifest manifest = {.run = RUN, .number = (uint64_t)number};
    struct error error;
    char dir[VERSION_PATH];

    MUST(version_begin(run_dir, 0, (uint64_t)number, dir, &error));
    MUST(number == BASE ? openvla_save(model, dir, "BF16", &error) : openvla_adapter_save(model, dir, &error));
    MUST(version_commit(run_dir, dir, &manifest, &error));
    memcpy(digests[number], manifest.digest, SHA256_SIZE);
    assert_int_equal(version_path(run_dir, 0, (uint64_t)number, dirs[number]), 0);
    manifest_release(&manifest);
}

/* A base, and two adapters on it that change what it answers. */
static int make_versions(void **state)
{
    const struct lora_spec spec = {.r = 4, .alpha = 8, .targets = "all-linear", .base = "../v000000"};
    struct openvla *model = NULL;
    struct error error;

    (void)state;
    scratch_new(run_dir);
    MUST(openvla_new(NANO, 1, &model, &error));
    commit(BASE, model);
    for (int v = FIRST; v <= SECOND; v++) {
        MUST(openvla_lora_new(model, &spec, (uint64_t)v, &error));
        for (int i = 0; i < model->params.count; i++)
            for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
                model->params.list[i]->value[k] += 0.01f * (float)((k * 7 + v * 5) % 11 - 5);
        commit(v, model);
        assert_int_equal(openvla_lora_detach(model), 0);
    }
    openvla_free(model);
    return 0;
}

static int remove_versions(void **state)
{
    (void)state;
    device_set_process(NULL);
    full = false;
    return remove_tree(run_dir);
}

/* As an actor of a large model loads it: matrices of bf16 stay so. */
static struct openvla *load(int number)
{
    struct openvla *model = NULL;
    struct error error;

    MUST(openvla_load_halves(dirs[number], 0, &model, &error));
    MUST(openvla_pack(model, false));
    return model;
}

static void act(const struct openvla *model, struct act_result *ret)
{
    size_t bytes = (size_t)model->config.image_height * (size_t)model->config.image_width * 3;
    _cleanup_free_ uint8_t *picture = malloc(bytes);
    _cleanup_free_ int32_t *prompt = NULL;
    struct openvla_session *session = NULL;
    int n;

    for (size_t i = 0; i < bytes; i++)
        picture[i] = (uint8_t)(i * 37);
    assert_int_equal(openvla_prompt(model, "pick up the red block", &prompt, &n), 0);
    assert_int_equal(openvla_session_new(&model->config, 1, &session), 0);
    *ret = (struct act_result) {0};
    assert_int_equal(openvla_act(model, session, &(struct act_item) {.images = {picture}, .n_images = 1, .prompt = prompt,
                                                                     .n_prompt = n, .temperature = 1, .seed = 3}, 1, ret), 0);
    openvla_session_free(session);
}

static void expect_the_same(const struct act_result *a, const struct act_result *b)
{
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->logp, b->logp, sizeof a->logp);
}

static const struct param *matrix(const struct openvla *model)
{
    for (int i = 0; i < model->params.count; i++)
        if (model->params.list[i]->half)
            return model->params.list[i];
    fail_msg("no matrix is kept as bf16");
    return NULL;
}

static bool is_held(void)
{
    char unused[PATH_MAX], sha256[65];
    struct base_files *files;

    assert_int_equal(base_link_read(dirs[FIRST], unused, sha256, NULL), 1);
    files = base_files_held(sha256, BASE_FINITE);
    base_files_unref(files);
    return files;
}

/* What two versions answer does not depend on whether the other is loaded, before or after. */
static void check_answers(void)
{
    struct act_result alone[2], beside;
    struct openvla *first, *second;

    for (int i = 0; i < 2; i++) {
        first = load(FIRST + i);
        act(first, &alone[i]);
        openvla_free(first);
        assert_false(is_held());
    }
    assert_memory_not_equal(alone[0].logp, alone[1].logp, sizeof alone[0].logp);
    first = load(FIRST);
    second = load(SECOND);
    assert_true(is_held());
    assert_ptr_equal(matrix(first)->bf16, matrix(second)->bf16);
    act(second, &beside);
    expect_the_same(&beside, &alone[1]);
    act(first, &beside);
    expect_the_same(&beside, &alone[0]);
    openvla_free(first);
    assert_true(is_held());
    act(second, &beside);
    expect_the_same(&beside, &alone[1]);
    openvla_free(second);
    assert_false(is_held());
}

static void test_on_the_host(void **state)
{
    (void)state;
    check_answers();
}

static void test_on_a_device(void **state)
{
    struct openvla *first, *second;
    size_t one, two;

    (void)state;
    device_set_process(device);
    check_answers();
    taken = 0;
    first = load(FIRST);
    one = taken;
    second = load(SECOND);
    two = taken - one;
    assert_ptr_equal(matrix(first)->on_bf16, matrix(second)->on_bf16);
    assert_true(mirror_shared_bytes(&first->params) > 0);
    assert_int_equal(one - two, mirror_shared_bytes(&first->params));
    openvla_free(first);
    first = load(BASE);         /* the base itself, which is version 0 */
    assert_ptr_equal(matrix(first)->on_bf16, matrix(second)->on_bf16);
    openvla_free(first);
    openvla_free(second);
}

/* No memory for the first who wants it: said, and tried again by the next. */
static void test_a_device_that_is_full(void **state)
{
    struct openvla *model = NULL;
    struct error error;

    (void)state;
    device_set_process(device);
    MUST(openvla_load_halves(dirs[FIRST], 0, &model, &error));
    full = true;
    assert_int_equal(openvla_pack(model, false), -ENOMEM);
    full = false;
    assert_int_equal(openvla_pack(model, false), 0);
    openvla_free(model);
}

/* Versions are checked against their manifests as they are loaded; the base's files with the first of them, not again as long as one on
 * it is there. */
static void test_verified_once(void **state)
{
    struct policy_version *first = NULL, *second = NULL;
    struct error error;
    char weights[VERSION_PATH + 32], away[VERSION_PATH + 32];

    (void)state;
    snprintf(weights, sizeof weights, "%s/model.safetensors", dirs[BASE]);
    snprintf(away, sizeof away, "%s/away", dirs[BASE]);
    MUST(policy_version_load(dirs[FIRST], digests[FIRST], false, false, &first, &error));
    assert_int_equal(rename(weights, away), 0);
    MUST(policy_version_load(dirs[SECOND], digests[SECOND], false, false, &second, &error));
    first = policy_version_free(first);
    second = policy_version_free(second);
    REFUSED(policy_version_load(dirs[SECOND], digests[SECOND], false, false, &second, &error), ENOENT, "model.safetensors");
    assert_int_equal(rename(away, weights), 0);
    MUST(policy_version_load(dirs[SECOND], digests[SECOND], false, false, &second, &error));
    policy_version_free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_on_the_host, make_versions, remove_versions),
        cmocka_unit_test_setup_teardown(test_on_a_device, make_versions, remove_versions),
        cmocka_unit_test_setup_teardown(test_a_device_that_is_full, make_versions, remove_versions),
        cmocka_unit_test_setup_teardown(test_verified_once, make_versions, remove_versions),
    };

    return cmocka_run_group_tests(tests, setup, test_device_teardown);
}
