/* Servers on a device: before the first version is served it is known whether the memory of all threads that will compute fits
 * beside its weights. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "actor/act.h"
#include "base/atomic_file.h"
#include "prm_server/score.h"
#include "run/manifest.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/plan_lab.h"

/* The device's table: so much is said to be free; full: there is nothing to be had. */
static size_t free_bytes;
static bool full;
static struct device_kernels table;
static const struct device_kernels *real;

static int told_use(int ordinal, struct device_facts *facts, char *why, size_t n)
{
    int r = real->use(ordinal, facts, why, n);

    if (r >= 0 && facts)
        facts->memory_free = free_bytes;
    return r;
}

static int told_alloc(size_t bytes, void **ret)
{
    return full ? -ENOMEM : real->alloc(bytes, ret);
}

static int setup(void **state)
{
    struct device *under = test_device_open();

    (void)state;
    real = under->k;
    table = *real;
    table.use = told_use;
    table.alloc = told_alloc;
    assert_int_equal(device_wrap(&table, under->ordinal, &device, NULL), 0);
    device_unref(under);
    device_set_process(device);
    return 0;
}

static int teardown(void **state)
{
    device_set_process(NULL);
    return test_device_teardown(state);
}

/* `from`, a model's directory, as the run's version 0 of that kind. */
static void import(const char *run_dir, int kind, const char *from, char dir[VERSION_PATH], uint8_t digest[SHA256_SIZE])
{
    struct manifest manifest = {.run = RUN};
    struct error error;

    MUST(version_import(run_dir, kind, 0, from, &manifest, &error));
    memcpy(digest, manifest.digest, SHA256_SIZE);
    manifest_release(&manifest);
    assert_int_equal(version_path(run_dir, kind, 0, dir), 0);
}

/* MiB that so many threads are said to need, with next to nothing free. */
static double refused(const struct serve_kind *kind, const char *dir, const uint8_t *digest, unsigned lanes, const char *knob)
{
    const struct serve_terms terms = {.lanes = lanes, .image = 64};
    struct error error;
    void *model;

    free_bytes = 1 << 10;
    REFUSED(kind->load(dir, digest, &terms, &model, &error), ENOMEM, "MiB are needed");
    if (!strstr(error.text, knob))
        fail_msg("said: %s", error.text);
    return atof(strstr(error.text, device->name) + strlen(device->name) + strlen(": "));
}

static void test_an_actor(void **state)
{
    char run_dir[SCRATCH_PATH], from[SCRATCH_PATH + 16], dir[VERSION_PATH];
    uint8_t digest[SHA256_SIZE];
    struct openvla *model = NULL;
    struct error error;
    double one, ten;
    void *served;

    (void)state;
    scratch_new(run_dir);
    snprintf(from, sizeof from, "%s/from", run_dir);
    assert_int_equal(mkdir_p(from, 0777), 0);
    MUST(openvla_new(NANO, 1, &model, &error));
    MUST(openvla_save(model, from, "F32", &error));
    openvla_free(model);
    import(run_dir, GANTRY__VERSION_KIND__VERSION_POLICY, from, dir, digest);
    one = refused(&act_kind, dir, digest, 1, "try: fewer threads");
    ten = refused(&act_kind, dir, digest, 10, "try: fewer threads");
    assert_true(one >= 1 && fabs(ten - 10 * one) <= 6);         /* each has its own */
    free_bytes = (size_t)((ten + 1) * 0x1p20);
    MUST(act_kind.load(dir, digest, &(struct serve_terms) {.lanes = 10}, &served, &error));
    act_kind.unload(served);
    remove_tree(run_dir);
}

static void test_a_prm_server(void **state)
{
    char run_dir[SCRATCH_PATH], dir[VERSION_PATH];
    uint8_t digest[SHA256_SIZE];
    struct error error;
    void *served;

    (void)state;
    scratch_new(run_dir);
    import(run_dir, GANTRY__VERSION_KIND__VERSION_PRM, "tests/golden/nano_qwen", dir, digest);
    full = true;
    REFUSED(score_kind.load(dir, digest, &(struct serve_terms) {.lanes = 1, .image = 64}, &served, &error), ENOMEM,
            "of weights do not fit into the memory of");
    assert_non_null(strstr(error.text, "or a smaller reward model (prm.init)"));
    full = false;
    assert_true(refused(&score_kind, dir, digest, 1000, "try: fewer threads, or a smaller prm.history") > 1000);
    remove_tree(run_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_actor),
        cmocka_unit_test(test_a_prm_server),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
