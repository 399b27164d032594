/* What a run starts from: whole weights or adapters, the reference that it keeps to, backbones of reward models, and what is
 * refused. */
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
#include "learner/record.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_start.h"
#include "run/manifest.h"
#include "tests/harness/plan_lab.h"

/* policy.train: lora. Imitation in two pieces: an adapter, then full weights; rl: adapters on those. No restart changes a bit. */
static void adapters_sit_on_the_start_of_their_stage(void **state)
{
    struct plan_lab *f = *state;
    uint64_t rows[] = {11, 12, 13, 14};
    uint8_t from_memory[2][SHA256_SIZE], from_disk[2][SHA256_SIZE], digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", 0, "policies/v000000", "kind: sft\nsteps: 4\nbatch: 4\nlr: 0.001\ncommit_every: 3\n",
                                digest);
    struct intake_version version;
    struct openvla *policy = NULL;
    struct error error;
    char path[VERSION_PATH];

    f->lora = true;
    plan_lab_restart(f);
    plan.stage = SFT;
    plan.stages = &(uint64_t) {DEMOS};
    plan.n_stages = 1;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(plan_lab_has(f, "v000001/adapter_model.safetensors") && plan_lab_has(f, "v000001/base.json"));
    assert_false(plan_lab_has(f, "v000001/model.safetensors"));
    plan_lab_restart(f);
    plan.iteration = plan.round = plan.parent = 1;
    plan.parent_dir = (char *)"policies/v000001";
    plan.version = 2;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(plan_lab_has(f, "v000002/model.safetensors"));
    assert_false(plan_lab_has(f, "v000002/adapter_model.safetensors") || plan_lab_has(f, "v000002/base.json"));

    MUST(plan_lab_ppo(f, 2, "policies/v000002", rows, 4, &version, &error));
    MUST(plan_lab_ppo(f, 3, "policies/v000003", rows, 4, &version, &error));
    assert_null(f->runner.reference);       /* the reference is the base: no second model */
    plan_lab_digest(f, "v000004/adapter_model.safetensors", from_memory[0]);
    plan_lab_digest(f, "v000004/train_state.safetensors", from_memory[1]);
    snprintf(path, sizeof path, "%s/policies/v000004", f->dir);
    assert_int_equal(remove_tree(path), 0);
    plan_lab_restart(f);
    MUST(plan_lab_ppo(f, 3, "policies/v000003", rows, 4, &version, &error));
    plan_lab_digest(f, "v000004/adapter_model.safetensors", from_disk[0]);
    plan_lab_digest(f, "v000004/train_state.safetensors", from_disk[1]);
    assert_memory_equal(from_memory, from_disk, sizeof from_memory);

    MUST(openvla_load(path, &policy, &error));
    assert_non_null(policy->lora);
    assert_true(policy->config.value_width > 0);
    openvla_free(policy);
    snprintf(path, sizeof path, "%s/policies/v000002/manifest.json", f->dir);
    assert_int_equal(atomic_file_write(path, "{}", 2), 0);
    plan_lab_restart(f);
    REFUSED(plan_lab_ppo(f, 4, "policies/v000004", rows, 4, &version, &error), EBADMSG, "was trained on another base");
}

/* A PEFT directory beside the run: adapters that say something on the fixture's start policy. */
static void put_peft(const struct plan_lab *f, char ret[VERSION_PATH])
{
    struct philox random = philox_at(3, PHILOX_TEST, 0, 0, 0);
    struct openvla *model = NULL;
    struct error error;
    char base[VERSION_PATH];

    snprintf(base, sizeof base, "%s/init", f->dir);
    snprintf(ret, VERSION_PATH, "%s/peft", f->dir);
    assert_int_equal(mkdir_p(ret, 0755), 0);
    MUST(openvla_load(base, &model, &error));
    MUST(openvla_lora_new(model, &(struct lora_spec) {.r = 3, .alpha = 6, .targets = "q_proj, v_proj, fc1", .base = base}, 5,
                          &error));
    for (int i = 0; i < model->params.count; i++)
        for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
            model->params.list[i]->value[k] = 0.1f * (float)philox_normal(&random);
    MUST(openvla_lora_save(model, ret, "BF16", base, &error));
    openvla_free(model);
}

/* policies/v000000 anew, from the adapter. */
static void start_from(struct plan_lab *f, const char *peft, bool merge)
{
    struct manifest manifest = {.run = RUN};
    char dir[VERSION_PATH], base[PATH_MAX];
    struct error error;

    version_path(f->dir, 0, 0, dir);
    assert_int_equal(remove_tree(dir), 0);
    MUST(openvla_start_base(peft, "", base, &error));
    MUST(version_begin(f->dir, 0, 0, dir, &error));
    MUST(openvla_start_write(peft, base, merge, dir, &error));
    MUST(version_commit(f->dir, dir, &manifest, &error));
    manifest_release(&manifest);
}

/* One rl iteration of one update: the divergence from the start is that before any update. */
static void assert_starts_at_its_reference(struct plan_lab *f, uint64_t parent, uint64_t *rows, double *ret_gap)
{
    struct intake_version version;
    struct record record = {0};
    struct error error;
    char dir[VERSION_PATH];
    json_t *metrics;

    snprintf(dir, sizeof dir, "policies/v%06d", (int)parent);
    MUST(plan_lab_ppo(f, parent, dir, rows, 4, &version, &error));
    version_path(f->dir, 0, parent + 1, dir);
    MUST(record_read(dir, &record, &error));
    metrics = json_loads(record.metrics, 0, NULL);
    assert_true(json_number_value(json_object_get(metrics, "updates")) == 1);
    assert_true(json_number_value(json_object_get(metrics, "gradient_norm")) > 0);
    assert_true(json_number_value(json_object_get(metrics, "reference_kl")) == 0);
    *ret_gap = json_number_value(json_object_get(metrics, "logp_gap_mean"));
    json_decref(metrics);
    record_release(&record);
}

/* Whole or by adapters, from a base or from a PEFT directory, with imitation between or not: the divergence from the start is 0
 * at the first update, and what the start says is base and adapter. */
static void the_start_is_the_reference(void **state)
{
    struct plan_lab *f = *state;
    uint64_t rows[] = {31, 32, 33, 34};
    struct intake_version version;
    struct error error;
    char peft[VERSION_PATH];
    double base, merged, fresh, attached, after;

    plan_lab_segment(f, RL);
    for (uint64_t id = 31; id <= 34; id++)
        plan_lab_append(f, id, GANTRY__PURPOSE__PURPOSE_TRAIN, 0, .4f);
    put_peft(f, peft);

    assert_starts_at_its_reference(f, 0, rows, &base);
    plan_lab_drop_versions(f, 1);
    f->lora = true;
    plan_lab_restart(f);
    assert_starts_at_its_reference(f, 0, rows, &fresh);
    assert_true(base == fresh);

    start_from(f, peft, false);
    plan_lab_drop_versions(f, 1);
    plan_lab_restart(f);
    assert_starts_at_its_reference(f, 0, rows, &attached);
    assert_true(fabs(attached - base) > 1e-3);          /* the adapter says something */
    assert_non_null(f->runner.reference);               /* base and adapter: more than what is below ours */
    assert_true(plan_lab_has(f, "v000001/adapter_model.safetensors") && !plan_lab_has(f, "v000001/model.safetensors"));
    plan_lab_restart(f);
    MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 4, &version, &error));

    plan_lab_drop_versions(f, 2);
    plan_lab_restart(f);
    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    assert_true(plan_lab_has(f, "v000001/model.safetensors") && !plan_lab_has(f, "v000001/adapter_model.safetensors"));
    assert_starts_at_its_reference(f, 1, rows, &after);
    assert_null(f->runner.reference);

    start_from(f, peft, true);
    plan_lab_drop_versions(f, 2);
    f->lora = false;
    plan_lab_restart(f);
    assert_starts_at_its_reference(f, 0, rows, &merged);
    assert_true(fabs(merged - attached) < 1e-4);
}

static void starts_that_are_refused(void **state)
{
    static const char hub[] = "{\"base_model_name_or_path\": \"openvla/openvla-7b\"}";
    struct plan_lab *f = *state;
    struct error error;
    char peft[VERSION_PATH], path[VERSION_PATH + 32], base[PATH_MAX], to[VERSION_PATH];

    put_peft(f, peft);
    snprintf(to, sizeof to, "%s/to", f->dir);
    assert_int_equal(mkdir_p(to, 0755), 0);
    REFUSED(openvla_start_base(peft, f->dir, base, &error), ENOENT, "no config.json in it");
    REFUSED(openvla_start_base(f->dir, "", base, &error), ENOENT, "adapter_config.json: No such file");
    REFUSED(openvla_start_write(peft, "tests/golden/nano_qwen", false, to, &error), ENOTSUP, "nano_qwen");
    snprintf(path, sizeof path, "%s/adapter_config.json", peft);
    assert_int_equal(atomic_file_write(path, hub, sizeof hub - 1), 0);
    REFUSED(openvla_start_base(peft, "", base, &error), ENOENT, "is openvla/openvla-7b, which is no model directory here");
    snprintf(path, sizeof path, "%s/init", f->dir);
    MUST(openvla_start_base(peft, path, base, &error));
    assert_string_equal(base, path);
}

/* A plan that trains a reward model from `dir` on eight rollouts, which the journal has from here on. */
static Gantry__Plan prm_plan(struct plan_lab *f, const char *dir, uint8_t *digest)
{
    static uint64_t stages[] = {ROLLOUTS};
    Gantry__Plan plan = plan_of("prm", 0, dir, "kind: prm\nsteps: 1\nbatch: 2\nholdout: 0.5\nforce: true\n", digest);

    plan_lab_segment(f, ROLLOUTS);
    for (uint64_t id = 21; id <= 28; id++)
        plan_lab_append(f, id, GANTRY__PURPOSE__PURPOSE_ROLLOUT, 0, .5f);
    plan.kind = GANTRY__VERSION_KIND__VERSION_PRM;
    plan.stage = ROLLOUTS + 1;
    plan.stages = stages;
    plan.n_stages = 1;
    return plan;
}

/* A backbone that prm.init names is copied once; what was written whole by earlier builds is gone on with, whole. */
static void backbones_are_not_copied(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    struct qwen_vl *model = NULL;
    struct error error;
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = prm_plan(f, "tests/golden/nano_qwen", digest);
    char path[VERSION_PATH];

    f->runner.prm_history = 2;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(plan_lab_has(f, "../prms/v000000/model.safetensors") && plan_lab_has(f, "../prms/v000001/base.json"));
    assert_false(plan_lab_has(f, "../prms/v000001/model.safetensors") || plan_lab_has(f, "../prms/v000001/config.json"));

    /* an older build's: whole, under number 2 */
    snprintf(path, sizeof path, "%s/prms/v000001", f->dir);
    MUST(qwen_vl_load(path, &model, &error));
    snprintf(path, sizeof path, "%s/prms/v000002", f->dir);
    assert_int_equal(mkdir_p(path, 0755), 0);
    MUST(qwen_vl_save(model, path, NULL, &error));
    qwen_vl_free(model);
    plan_lab_restart(f);
    f->runner.prm_history = 2;
    plan.parent = 2;
    plan.version = 3;
    plan.parent_dir = (char *)"prms/v000002";
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(plan_lab_has(f, "../prms/v000003/model.safetensors") && !plan_lab_has(f, "../prms/v000003/base.json"));
}

/* A policy's trunk takes eight pictures, whatever a configuration for a backbone of its own may say. */
static void a_trunk_is_shown_no_more_than_it_takes(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    struct error error;
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = prm_plan(f, "policies/v000000", digest);

    f->runner.prm_history = 7;
    REFUSED(plan_run(&f->runner, &plan, &version, &error), EINVAL, "prm.history: 7: a policy's trunk is shown at most 6 frames");
    f->runner.prm_history = 6;
    MUST(plan_run(&f->runner, &plan, &version, &error));
}

/* What lies beside the policy that a run begins with is another run's: moments of its optimiser, and what its stage began with. */
static void a_start_brings_no_training_with_it(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    uint8_t first[SHA256_SIZE], again[SHA256_SIZE];
    char from[VERSION_PATH], to[VERSION_PATH];
    struct error error;

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    plan_lab_digest(f, "v000001/model.safetensors", first);
    snprintf(from, sizeof from, "%s/policies/v000001/train_state.safetensors", f->dir);
    snprintf(to, sizeof to, "%s/policies/v000000/train_state.safetensors", f->dir);
    assert_int_equal(rename(from, to), 0);
    plan_lab_drop_versions(f, 1);
    plan_lab_restart(f);
    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    plan_lab_digest(f, "v000001/model.safetensors", again);
    assert_memory_equal(first, again, SHA256_SIZE);
}

/* A reward model on the trunk of a policy that learns by adapters: it has them merged, and nothing of their moments. */
static void a_trunk_is_merged(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    struct error error;
    uint8_t digest[SHA256_SIZE];
    uint64_t rows[] = {11, 12};
    Gantry__Plan plan = plan_of("prm", 0, "policies/v000002", "kind: prm\nsteps: 1\nbatch: 2\nholdout: 0.5\nforce: true\n", digest);

    f->lora = true;
    plan_lab_restart(f);
    plan_lab_segment(f, ROLLOUTS);
    for (uint64_t id = 21; id <= 28; id++)
        plan_lab_append(f, id, GANTRY__PURPOSE__PURPOSE_ROLLOUT, 0, .5f);
    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 2, &version, &error));
    assert_true(plan_lab_has(f, "v000002/adapter_model.safetensors"));
    plan.kind = GANTRY__VERSION_KIND__VERSION_PRM;
    plan.stage = ROLLOUTS + 1;
    plan.stages = &(uint64_t) {ROLLOUTS};
    plan.n_stages = 1;
    MUST(plan_run(&f->runner, &plan, &version, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(adapters_sit_on_the_start_of_their_stage, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(the_start_is_the_reference, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(starts_that_are_refused, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(backbones_are_not_copied, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(a_trunk_is_shown_no_more_than_it_takes, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(a_start_brings_no_training_with_it, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(a_trunk_is_merged, plan_lab_set_up, plan_lab_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
