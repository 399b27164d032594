#include "tests/harness/plan_lab.h"

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
#include "proto/trajectory.pb-c.h"
#include "run/manifest.h"

enum { SIDE = 64, FRAME = SIDE * SIDE * 3, DIMS = 7, STEPS = 4 };

const char plan_lab_sft_settings[] = "kind: sft\nsteps: 4\nbatch: 4\nlr: 0.001\n";

void plan_lab_append(struct plan_lab *f, uint64_t id, Gantry__Purpose purpose, uint64_t version, float progress)
{
    static uint8_t frames[(STEPS + 1) * FRAME];
    float numbers[STEPS * DIMS], scores[STEPS + 1];
    uint32_t tokens[STEPS * DIMS];
    Gantry__Trajectory t = GANTRY__TRAJECTORY__INIT;
    uint8_t *bytes, digest[SHA256_SIZE];
    struct error error = {0};
    size_t n;

    for (int i = 0; i < (STEPS + 1) * FRAME; i++)
        frames[i] = (uint8_t)(i / 997 * 31 + (int)id * 17);
    for (int i = 0; i < STEPS * DIMS; i++) {
        numbers[i] = purpose == GANTRY__PURPOSE__PURPOSE_DEMO ? sinf((float)i) : -5;
        tokens[i] = 1023 - (uint32_t)i;
    }
    for (int i = 0; i <= STEPS; i++)
        scores[i] = i == (purpose == GANTRY__PURPOSE__PURPOSE_ROLLOUT ? STEPS : 2) ? progress : .5f;
    t.episode = id;
    t.purpose = purpose;
    t.task = (char *)"pick_up_object";
    t.instruction = (char *)"pick up the block";
    t.policy_version = version;
    t.temperature = 1;
    t.steps = STEPS;
    t.max_steps = 8;
    t.height = t.width = SIDE;
    t.action_dims = DIMS;
    t.success = id % 2;
    if (purpose == GANTRY__PURPOSE__PURPOSE_DEMO) {
        t.label = t.action = numbers;
        t.n_label = t.n_action = STEPS * DIMS;
    } else {
        t.tokens = tokens;
        t.logp = numbers;
        t.n_tokens = t.n_logp = STEPS * DIMS;
        t.progress = scores;
        t.n_progress = STEPS + 1;
        if (purpose == GANTRY__PURPOSE__PURPOSE_ROLLOUT) {
            t.action = numbers;
            t.n_action = STEPS * DIMS;
            t.state_seed = id;
        }
    }
    n = gantry__trajectory__get_packed_size(&t);
    bytes = malloc(n);
    gantry__trajectory__pack(&t, bytes);
    if (journal_append(f->journal, id, bytes, n, frames, sizeof frames, digest, &error) < 0)
        fail_msg("%s", error.text);
    free(bytes);
}

void plan_lab_segment(struct plan_lab *f, uint32_t stage)
{
    struct error error = {0};

    if (journal_segment(f->journal, stage, 0, &error) < 0)
        fail_msg("%s", error.text);
}

void plan_lab_runner(struct plan_lab *f)
{
    memset(&f->runner, 0, sizeof f->runner);
    snprintf(f->runner.run_dir, sizeof f->runner.run_dir, "%s", f->dir);
    f->runner.run = RUN;
    f->runner.seed = 7;
    f->runner.journal = f->journal;
    f->runner.threads = 2;
    f->runner.group.ranks = 1;
    if (f->lora)
        f->runner.lora = (struct lora_spec) {.r = 4, .alpha = 8};
    snprintf(f->runner.lora_targets, sizeof f->runner.lora_targets, "all-linear");
}

int plan_lab_set_up(void **state)
{
    struct plan_lab *f = calloc(1, sizeof *f);
    struct openvla *model = NULL;
    struct manifest manifest = {.run = RUN};
    struct error error = {0};
    char path[128];

    scratch_new(f->dir);
    snprintf(path, sizeof path, "%s/init", f->dir);
    assert_int_equal(mkdir_p(path, 0777), 0);
    assert_int_equal(openvla_new(NANO, 1, &model, &error), 0);
    if (openvla_save(model, path, "F32", &error) < 0 || version_import(f->dir, 0, 0, path, &manifest, &error) < 0)
        fail_msg("%s", error.text);
    manifest_release(&manifest);
    openvla_free(model);
    snprintf(path, sizeof path, "%s/journal", f->dir);
    if (journal_open(path, RUN, JOURNAL_WRITE, &f->journal, NULL, &error) < 0)
        fail_msg("%s", error.text);
    plan_lab_segment(f, DEMOS);
    for (uint64_t id = 1; id <= 4; id++)
        plan_lab_append(f, id, GANTRY__PURPOSE__PURPOSE_DEMO, 0, 0);
    plan_lab_segment(f, RL);
    for (uint64_t id = 11; id <= 16; id++)
        plan_lab_append(f, id, GANTRY__PURPOSE__PURPOSE_TRAIN, id == 16 ? 0 : 1, id == 15 ? NAN : .4f);
    assert_int_equal(journal_sync(f->journal, &error), 0);
    plan_lab_runner(f);
    *state = f;
    return 0;
}

int plan_lab_tear_down(void **state)
{
    struct plan_lab *f = *state;

    plan_runner_release(&f->runner);
    journal_close(f->journal);
    remove_tree(f->dir);
    free(f);
    return 0;
}

Gantry__Plan plan_of(const char *objective, uint64_t parent, const char *dir, const char *settings, uint8_t *digest)
{
    Gantry__Plan plan = GANTRY__PLAN__INIT;

    memset(digest, (int)parent + 1, SHA256_SIZE);
    plan.objective = (char *)objective;
    plan.parent = parent;
    plan.version = parent + 1;
    plan.parent_dir = (char *)dir;
    plan.settings = (char *)settings;
    plan.digest = (ProtobufCBinaryData) {SHA256_SIZE, digest};
    return plan;
}

int plan_lab_sft(struct plan_lab *f, uint64_t parent, const char *dir, struct intake_version *ret, struct error *error)
{
    static uint64_t stages[] = {DEMOS};
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", parent, dir, plan_lab_sft_settings, digest);

    plan.stage = SFT;
    plan.stages = stages;
    plan.n_stages = 1;
    return plan_run(&f->runner, &plan, ret, error);
}

int plan_lab_ppo(struct plan_lab *f, uint64_t parent, const char *dir, uint64_t *rows, size_t n, struct intake_version *ret,
                   struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    /* plans that go on for longer than the journal's episodes are fresh */
    Gantry__Plan plan = plan_of("ppo", parent, dir, f->lora ||
                                f->stale ? "kind: rl\npreset: tabletop\ncritic_warmup: 0\nmax_staleness: 4\n"
                                                            : "kind: rl\npreset: tabletop\ncritic_warmup: 0\n", digest);

    plan.stage = RL;
    plan.episodes = rows;
    plan.n_episodes = n;
    return plan_run(&f->runner, &plan, ret, error);
}

void plan_lab_digest(const struct plan_lab *f, const char *file, uint8_t ret[SHA256_SIZE])
{
    char path[VERSION_PATH + 64];

    snprintf(path, sizeof path, "%s/policies/%s", f->dir, file);
    if (sha256_file(path, ret) < 0)
        fail_msg("%s is not there", path);
}

bool plan_lab_has(const struct plan_lab *f, const char *file)
{
    char path[VERSION_PATH + 64];

    snprintf(path, sizeof path, "%s/policies/%s", f->dir, file);
    return access(path, F_OK) == 0;
}

void plan_lab_drop_versions(const struct plan_lab *f, int last)
{
    char dir[VERSION_PATH];

    for (int i = 1; i <= last; i++) {
        version_path(f->dir, 0, (uint64_t)i, dir);
        assert_int_equal(remove_tree(dir), 0);
    }
}

void plan_lab_restart(struct plan_lab *f)
{
    plan_runner_release(&f->runner);
    plan_lab_runner(f);
}
