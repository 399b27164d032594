/* Plans of a learner on a device: what it foretells of the memory there counts the reference of whole-model rl, on the first plan
 * of a stage and on a later one after a start; nobody works ahead of a plan whose reference rests there; and what one
 * training took is free before the next is asked for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/device/mirror.h"
#include "run/manifest.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/plan_lab.h"

/* The device's table: so much is said to be free, and there is none of it where a plan shall not get beyond the question.
 * counting: what is taken is no longer free. */
enum { MOST = 256 };
static size_t free_bytes, taken_bytes, peak_bytes;
static struct { void *memory; size_t bytes; } held[MOST];
static bool empty, counting;
static struct device_kernels table;
static const struct device_kernels *real;

static int told_use(int ordinal, struct device_facts *facts, char *why, size_t n)
{
    int r = real->use(ordinal, facts, why, n);

    if (r >= 0 && facts)
        facts->memory_free = free_bytes - taken_bytes;
    return r;
}

static int told_alloc(size_t bytes, void **ret)
{
    int r = empty || (counting && taken_bytes + bytes > free_bytes) ? -ENOMEM : real->alloc(bytes, ret), i = 0;

    if (r < 0 || !counting)
        return r;
    while (held[i].memory)
        assert_true(++i < MOST);
    held[i].memory = *ret;
    held[i].bytes = bytes;
    taken_bytes += bytes;
    peak_bytes = MAX(peak_bytes, taken_bytes);
    return 0;
}

static void told_release(void *memory)
{
    for (int i = 0; i < MOST && memory; i++)
        if (held[i].memory == memory) {
            taken_bytes -= held[i].bytes;
            held[i].memory = NULL;
        }
    real->release(memory);
}

static int setup(void **state)
{
    struct device *under = test_device_open();

    (void)state;
    real = under->k;
    table = *real;
    table.use = told_use;
    table.alloc = told_alloc;
    table.release = told_release;
    assert_int_equal(device_wrap(&table, under->ordinal, &device, NULL), 0);
    device_unref(under);
    return 0;
}

static int ppo(struct plan_lab *f, uint64_t parent, const char *kl, struct intake_version *ret, struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    char dir[64], settings[256];
    Gantry__Plan plan;

    snprintf(dir, sizeof dir, "policies/v%06d", (int)parent);
    snprintf(settings, sizeof settings, "kind: rl\npreset: tabletop\ncritic_warmup: 0\nmax_staleness: 4\nminibatch: 4\n"
             "epochs: 1\nvalue_epochs: 1\nkl: %s\n", kl);
    plan = plan_of("ppo", parent, dir, settings, digest);
    plan.stage = RL;
    plan.episodes = (uint64_t[]) {11};
    plan.n_episodes = 1;
    return plan_run(&f->runner, &plan, ret, error);
}

/* The fewest free bytes with which a process that has just started does not refuse the plan. */
static size_t foretold(struct plan_lab *f, uint64_t parent, const char *kl)
{
    size_t refused = 0, taken = (size_t)1 << 30;

    plan_lab_restart(f);
    empty = true;
    while (taken - refused > 1) {
        struct intake_version version;
        struct error error = {0};

        free_bytes = refused + (taken - refused) / 2;
        assert_int_equal(ppo(f, parent, kl, &version, &error), -ENOMEM);
        if (strstr(error.text, "MiB are needed"))
            refused = free_bytes;
        else if (strstr(error.text, "cannot be made ready for training"))
            taken = free_bytes;
        else
            fail_msg("said: %s", error.text);
    }
    empty = false;
    return taken;
}

static void the_reference_is_foretold(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    struct openvla *reference = NULL;
    struct ahead *ahead;
    struct error error;
    char dir[VERSION_PATH];
    size_t bytes;

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    MUST(ppo(f, 1, "exact", &version, &error));         /* on this host: 2 goes on in the stage that 1 began */
    snprintf(dir, sizeof dir, "%s/policies/v000001", f->dir);
    MUST(openvla_load(dir, &reference, &error));
    bytes = mirror_bytes(&reference->params, false);
    openvla_free(reference);
    device_set_process(device);
    for (uint64_t parent = 1; parent <= 2; parent++)
        assert_int_equal(foretold(f, parent, "exact") - foretold(f, parent, "none"), bytes);

    plan_lab_restart(f);
    free_bytes = (size_t)1 << 30;
    assert_int_equal(ahead_new(f->journal, 1, false, &ahead), 0);
    f->runner.ahead = ahead;
    MUST(ppo(f, 2, "exact", &version, &error));
    assert_int_equal(f->runner.reference->version, 1);
    assert_ptr_equal(f->runner.reference->model->params.device, device);
    assert_int_equal(atomic_load(&f->runner.reference->holders), 1);    /* nobody works ahead: it is the plan's to ask */
    f->runner.ahead = NULL;
    ahead_free(ahead);
    plan_lab_restart(f);                /* nothing is left on the device */
    device_set_process(NULL);
}

static void imitate(struct plan_lab *f, uint64_t parent, const char *dir)
{
    struct intake_version version;
    struct error error;
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", parent, dir, "kind: sft\nsteps: 1\nbatch: 1\nlr: 0.001\n", digest);

    plan_lab_restart(f);
    free_bytes = (size_t)1 << 30;
    plan.stage = SFT;
    plan.stages = &(uint64_t) {DEMOS};
    plan.n_stages = 1;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(taken_bytes > 0);
    free_bytes = peak_bytes * 3 / 2;
    empty = true;               /* what follows shall not get beyond the question whether it fits */
}

/* On a device that holds the policy's training, or the reward model's, and less than two: what is held of another kind, or of
 * another stage, goes before the next is asked for. */
static void one_training_is_held_at_a_time(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan prm = plan_of("prm", 0, "policies/v000001", "kind: prm\nsteps: 1\nbatch: 8\nforce: true\n", digest);
    struct error error;

    prm.kind = GANTRY__VERSION_KIND__VERSION_PRM;
    counting = true;
    device_set_process(device);
    imitate(f, 0, "policies/v000000");
    REFUSED(plan_run(&f->runner, &prm, &version, &error), ENOMEM, "cannot be made ready for training");
    assert_int_equal(taken_bytes, 0);
    empty = false;
    imitate(f, 1, "policies/v000001");
    REFUSED(ppo(f, 2, "none\ncritic: none", &version, &error), ENOMEM, "cannot be made ready for training");
    assert_int_equal(taken_bytes, 0);
    empty = counting = false;
    device_set_process(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_reference_is_foretold, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(one_training_is_held_at_a_time, plan_lab_set_up, plan_lab_tear_down),
    };

    return cmocka_run_group_tests(tests, setup, test_device_teardown);
}
