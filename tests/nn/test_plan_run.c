/* The learner carries out plans on a run directory: what it commits, that a restart changes no bit of it, and what it refuses. */
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
#include "learner/plan_run.h"
#include "learner/record.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_start.h"
#include "proto/trajectory.pb-c.h"
#include "run/manifest.h"

#define NANO "tests/golden/nano"
enum { SIDE = 64, FRAME = SIDE * SIDE * 3, DIMS = 7, STEPS = 4, RUN = 77, DEMOS = 0, SFT = 1, RL = 2, ROLLOUTS = 3 };

static const char sft_settings[] = "kind: sft\nsteps: 4\nbatch: 4\nlr: 0.001\n";

struct fixture {
    char dir[64];
    struct journal *journal;
    struct plan_runner runner;
    bool lora;
    bool stale;                 /* plans take what was played some versions ago */
};

static void append(struct fixture *f, uint64_t id, Gantry__Purpose purpose, uint64_t version, float progress)
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

static void segment(struct fixture *f, uint32_t stage)
{
    struct error error = {0};

    if (journal_segment(f->journal, stage, 0, &error) < 0)
        fail_msg("%s", error.text);
}

static void new_runner(struct fixture *f)
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

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct openvla *model = NULL;
    struct manifest manifest = {.run = RUN};
    struct error error = {0};
    char path[128];

    snprintf(f->dir, sizeof f->dir, "/tmp/gantry-test-plan.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
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
    segment(f, DEMOS);
    for (uint64_t id = 1; id <= 4; id++)
        append(f, id, GANTRY__PURPOSE__PURPOSE_DEMO, 0, 0);
    segment(f, RL);
    for (uint64_t id = 11; id <= 16; id++)
        append(f, id, GANTRY__PURPOSE__PURPOSE_TRAIN, id == 16 ? 0 : 1, id == 15 ? NAN : .4f);
    assert_int_equal(journal_sync(f->journal, &error), 0);
    new_runner(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    plan_runner_release(&f->runner);
    journal_close(f->journal);
    remove_tree(f->dir);
    free(f);
    return 0;
}

/* A plan and what it points at; the digest stands for its content. */
static Gantry__Plan plan_of(const char *objective, uint64_t parent, const char *dir, const char *settings, uint8_t *digest)
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

static int run_sft(struct fixture *f, uint64_t parent, const char *dir, struct intake_version *ret, struct error *error)
{
    static uint64_t stages[] = {DEMOS};
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", parent, dir, sft_settings, digest);

    plan.stage = SFT;
    plan.stages = stages;
    plan.n_stages = 1;
    return plan_run(&f->runner, &plan, ret, error);
}

static int run_ppo(struct fixture *f, uint64_t parent, const char *dir, uint64_t *rows, size_t n, struct intake_version *ret,
                   struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    /* plans that go on for longer than the journal's episodes are fresh */
    Gantry__Plan plan = plan_of("ppo", parent, dir, f->lora || f->stale ? "kind: rl\npreset: tabletop\ncritic_warmup: 0\nmax_staleness: 4\n"
                                                            : "kind: rl\npreset: tabletop\ncritic_warmup: 0\n", digest);

    plan.stage = RL;
    plan.episodes = rows;
    plan.n_episodes = n;
    return plan_run(&f->runner, &plan, ret, error);
}

#define MUST(call) do { error = (struct error) {0}; if ((call) < 0) fail_msg("%s", error.text); } while (0)
#define REFUSED(call, errnum, text_part) do { error = (struct error) {0}; assert_int_equal(call, -(errnum)); \
        if (!strstr(error.text, text_part)) fail_msg("said: %s", error.text); } while (0)

static void imitation_is_committed_with_what_it_saw(void **state)
{
    struct fixture *f = *state;
    struct intake_version version = {0};
    struct manifest manifest = {0};
    struct record record = {0};
    struct error error;
    char dir[VERSION_PATH];

    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    assert_int_equal(version.number, 1);
    version_path(f->dir, 0, 1, dir);
    MUST(manifest_read(dir, &manifest, &error));
    MUST(manifest_verify(dir, &manifest, NULL, &error));
    assert_int_equal(manifest.n_consumed, 4);
    assert_int_equal(manifest.consumed[3].episode, 4);
    assert_memory_equal(manifest.digest, version.digest, SHA256_SIZE);
    MUST(record_read(dir, &record, &error));
    assert_non_null(strstr(record.metrics, "\"frames\":16"));
    assert_true(record.gate_passed);
    manifest_release(&manifest);
    record_release(&record);
}

static void a_restart_changes_no_bit(void **state)
{
    struct fixture *f = *state;
    uint64_t rows[] = {11, 12, 13, 14};
    uint8_t from_memory[SHA256_SIZE], from_disk[SHA256_SIZE];
    struct intake_version version;
    struct error error;
    char dir[VERSION_PATH], path[VERSION_PATH + 32];

    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    MUST(run_ppo(f, 1, "policies/v000001", rows, 4, &version, &error));
    version_path(f->dir, 0, 2, dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(sha256_file(path, from_memory), 0);
    assert_int_equal(remove_tree(dir), 0);         /* as if it had been killed before the rename */
    plan_runner_release(&f->runner);
    new_runner(f);
    MUST(run_ppo(f, 1, "policies/v000001", rows, 4, &version, &error));
    assert_int_equal(sha256_file(path, from_disk), 0);
    assert_memory_equal(from_memory, from_disk, SHA256_SIZE);
}

/* Imitation in two pieces, the learner killed and started again between them, is imitation in one. */
static void pieces_are_the_whole(void **state)
{
    struct fixture *f = *state;
    uint8_t whole[SHA256_SIZE], pieces[SHA256_SIZE], digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", 1, "policies/v000001", "kind: sft\nsteps: 4\nbatch: 4\nlr: 0.001\ncommit_every: 3\n", digest);
    struct intake_version version;
    struct error error;
    char path[VERSION_PATH];

    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    snprintf(path, sizeof path, "%s/policies/v000001/model.safetensors", f->dir);
    assert_int_equal(sha256_file(path, whole), 0);
    snprintf(path, sizeof path, "%s/policies/v000001", f->dir);
    assert_int_equal(remove_tree(path), 0);
    plan_runner_release(&f->runner);
    new_runner(f);
    plan.stage = SFT;
    plan.stages = &(uint64_t) {DEMOS};
    plan.n_stages = 1;
    plan.parent = 0;
    plan.parent_dir = (char *)"policies/v000000";
    plan.version = 1;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    plan_runner_release(&f->runner);
    new_runner(f);
    plan.iteration = plan.round = plan.parent = 1;
    plan.parent_dir = (char *)"policies/v000001";
    plan.version = 2;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    snprintf(path, sizeof path, "%s/policies/v000002/model.safetensors", f->dir);
    assert_int_equal(sha256_file(path, pieces), 0);
    assert_memory_equal(whole, pieces, SHA256_SIZE);
}

static void digest_of(const struct fixture *f, const char *file, uint8_t ret[SHA256_SIZE])
{
    char path[VERSION_PATH + 64];

    snprintf(path, sizeof path, "%s/policies/%s", f->dir, file);
    if (sha256_file(path, ret) < 0)
        fail_msg("%s is not there", path);
}

static bool has_file(const struct fixture *f, const char *file)
{
    char path[VERSION_PATH + 64];

    snprintf(path, sizeof path, "%s/policies/%s", f->dir, file);
    return access(path, F_OK) == 0;
}

static void drop_versions(const struct fixture *f, int last)
{
    char dir[VERSION_PATH];

    for (int i = 1; i <= last; i++) {
        version_path(f->dir, 0, (uint64_t)i, dir);
        assert_int_equal(remove_tree(dir), 0);
    }
}

static void restart(struct fixture *f)
{
    plan_runner_release(&f->runner);
    new_runner(f);
}

/* What the reference says of an episode may be asked before the plan comes, of all of them, some, or none. */
static void what_was_asked_ahead_changes_no_bit(void **state)
{
    struct fixture *f = *state;
    uint64_t rows[] = {11, 12, 13, 14};
    uint8_t expected[2][SHA256_SIZE], digest[2][SHA256_SIZE];
    struct intake_version version;
    struct error error;
    char dir[VERSION_PATH];

    f->stale = true;
    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    MUST(run_ppo(f, 1, "policies/v000001", rows, 2, &version, &error));
    MUST(run_ppo(f, 2, "policies/v000002", rows, 4, &version, &error));
    digest_of(f, "v000003/model.safetensors", expected[0]);
    digest_of(f, "v000003/train_state.safetensors", expected[1]);
    for (size_t known = 0; known <= 4; known += 2) {
        struct ahead *ahead;

        for (uint64_t number = 2; number <= 3; number++) {
            version_path(f->dir, 0, number, dir);
            assert_int_equal(remove_tree(dir), 0);
        }
        restart(f);
        assert_int_equal(ahead_new(f->journal, 3, false, &ahead), 0);
        f->runner.ahead = ahead;
        ahead_add(ahead, RL, 11);       /* no plan has come yet: nothing is known of a reference */
        MUST(run_ppo(f, 1, "policies/v000001", rows, 2, &version, &error));
        assert_int_equal(ahead_taken(ahead), 0);
        for (size_t i = 0; i < known; i++)
            ahead_add(ahead, RL, rows[3 - i]);
        ahead_add(ahead, RL, 9999);     /* not in the journal: the plan would say so */
        ahead_add(ahead, SFT, 11);
        ahead_wait(ahead);
        MUST(run_ppo(f, 2, "policies/v000002", rows, 4, &version, &error));
        assert_int_equal(ahead_taken(ahead), known);
        digest_of(f, "v000003/model.safetensors", digest[0]);
        digest_of(f, "v000003/train_state.safetensors", digest[1]);
        assert_memory_equal(digest, expected, sizeof expected);
        ahead_add(ahead, RL, 12);       /* freed in the middle of its work */
        ahead_free(ahead);
    }
}

/* policy.train: lora. Imitation in two pieces: an adapter, then full weights; rl: adapters on those. No restart changes a bit. */
static void adapters_sit_on_the_start_of_their_stage(void **state)
{
    struct fixture *f = *state;
    uint64_t rows[] = {11, 12, 13, 14};
    uint8_t from_memory[2][SHA256_SIZE], from_disk[2][SHA256_SIZE], digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", 0, "policies/v000000", "kind: sft\nsteps: 4\nbatch: 4\nlr: 0.001\ncommit_every: 3\n", digest);
    struct intake_version version;
    struct openvla *policy = NULL;
    struct error error;
    char path[VERSION_PATH];

    f->lora = true;
    restart(f);
    plan.stage = SFT;
    plan.stages = &(uint64_t) {DEMOS};
    plan.n_stages = 1;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(has_file(f, "v000001/adapter_model.safetensors") && has_file(f, "v000001/base.json"));
    assert_false(has_file(f, "v000001/model.safetensors"));
    restart(f);
    plan.iteration = plan.round = plan.parent = 1;
    plan.parent_dir = (char *)"policies/v000001";
    plan.version = 2;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(has_file(f, "v000002/model.safetensors"));
    assert_false(has_file(f, "v000002/adapter_model.safetensors") || has_file(f, "v000002/base.json"));

    MUST(run_ppo(f, 2, "policies/v000002", rows, 4, &version, &error));
    MUST(run_ppo(f, 3, "policies/v000003", rows, 4, &version, &error));
    assert_null(f->runner.reference);       /* the reference is the base: no second model */
    digest_of(f, "v000004/adapter_model.safetensors", from_memory[0]);
    digest_of(f, "v000004/train_state.safetensors", from_memory[1]);
    snprintf(path, sizeof path, "%s/policies/v000004", f->dir);
    assert_int_equal(remove_tree(path), 0);
    restart(f);
    MUST(run_ppo(f, 3, "policies/v000003", rows, 4, &version, &error));
    digest_of(f, "v000004/adapter_model.safetensors", from_disk[0]);
    digest_of(f, "v000004/train_state.safetensors", from_disk[1]);
    assert_memory_equal(from_memory, from_disk, sizeof from_memory);

    MUST(openvla_load(path, &policy, &error));
    assert_non_null(policy->lora);
    assert_true(policy->config.value_width > 0);
    openvla_free(policy);
    snprintf(path, sizeof path, "%s/policies/v000002/manifest.json", f->dir);
    assert_int_equal(atomic_file_write(path, "{}", 2), 0);
    restart(f);
    REFUSED(run_ppo(f, 4, "policies/v000004", rows, 4, &version, &error), EBADMSG, "was trained on another base");
}

/* A PEFT directory beside the run: adapters that say something on the fixture's start policy. */
static void put_peft(const struct fixture *f, char ret[VERSION_PATH])
{
    struct philox random = philox_at(3, PHILOX_TEST, 0, 0, 0);
    struct openvla *model = NULL;
    struct error error;
    char base[VERSION_PATH];

    snprintf(base, sizeof base, "%s/init", f->dir);
    snprintf(ret, VERSION_PATH, "%s/peft", f->dir);
    assert_int_equal(mkdir_p(ret, 0755), 0);
    MUST(openvla_load(base, &model, &error));
    MUST(openvla_lora_new(model, &(struct lora_spec) {.r = 3, .alpha = 6, .targets = "q_proj, v_proj, fc1", .base = base}, 5, &error));
    for (int i = 0; i < model->params.count; i++)
        for (int64_t k = 0; model->params.list[i]->adapter && k < model->params.list[i]->numel; k++)
            model->params.list[i]->value[k] = 0.1f * (float)philox_normal(&random);
    MUST(openvla_lora_save(model, ret, "BF16", base, &error));
    openvla_free(model);
}

/* policies/v000000 anew, from the adapter. */
static void start_from(struct fixture *f, const char *peft, bool merge)
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
static void assert_starts_at_its_reference(struct fixture *f, uint64_t parent, uint64_t *rows, double *ret_gap)
{
    struct intake_version version;
    struct record record = {0};
    struct error error;
    char dir[VERSION_PATH];
    json_t *metrics;

    snprintf(dir, sizeof dir, "policies/v%06d", (int)parent);
    MUST(run_ppo(f, parent, dir, rows, 4, &version, &error));
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

/* Whole or by adapters, from a base or from a PEFT directory, with imitation between or not: the divergence from the start is 0 at
 * the first update, and what the start says is base and adapter. */
static void the_start_is_the_reference(void **state)
{
    struct fixture *f = *state;
    uint64_t rows[] = {31, 32, 33, 34};
    struct intake_version version;
    struct error error;
    char peft[VERSION_PATH];
    double base, merged, fresh, attached, after;

    segment(f, RL);
    for (uint64_t id = 31; id <= 34; id++)
        append(f, id, GANTRY__PURPOSE__PURPOSE_TRAIN, 0, .4f);
    put_peft(f, peft);

    assert_starts_at_its_reference(f, 0, rows, &base);
    drop_versions(f, 1);
    f->lora = true;
    restart(f);
    assert_starts_at_its_reference(f, 0, rows, &fresh);
    assert_true(base == fresh);

    start_from(f, peft, false);
    drop_versions(f, 1);
    restart(f);
    assert_starts_at_its_reference(f, 0, rows, &attached);
    assert_true(fabs(attached - base) > 1e-3);          /* the adapter says something */
    assert_non_null(f->runner.reference);               /* base and adapter: more than what is below ours */
    assert_true(has_file(f, "v000001/adapter_model.safetensors") && !has_file(f, "v000001/model.safetensors"));
    restart(f);
    MUST(run_ppo(f, 1, "policies/v000001", rows, 4, &version, &error));

    drop_versions(f, 2);
    restart(f);
    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    assert_true(has_file(f, "v000001/model.safetensors") && !has_file(f, "v000001/adapter_model.safetensors"));
    assert_starts_at_its_reference(f, 1, rows, &after);
    assert_null(f->runner.reference);

    start_from(f, peft, true);
    drop_versions(f, 2);
    f->lora = false;
    restart(f);
    assert_starts_at_its_reference(f, 0, rows, &merged);
    assert_true(fabs(merged - attached) < 1e-4);
}

static void starts_that_are_refused(void **state)
{
    static const char hub[] = "{\"base_model_name_or_path\": \"openvla/openvla-7b\"}";
    struct fixture *f = *state;
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

/* A backbone that prm.init names is copied once; what was written whole by earlier builds is gone on with, whole. */
static void backbones_are_not_copied(void **state)
{
    struct fixture *f = *state;
    struct intake_version version;
    struct qwen_vl *model = NULL;
    struct error error;
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("prm", 0, "tests/golden/nano_qwen", "kind: prm\nsteps: 1\nbatch: 2\nholdout: 0.5\nforce: true\n", digest);
    char path[VERSION_PATH];

    segment(f, ROLLOUTS);
    for (uint64_t id = 21; id <= 28; id++)
        append(f, id, GANTRY__PURPOSE__PURPOSE_ROLLOUT, 0, .5f);
    plan.kind = GANTRY__VERSION_KIND__VERSION_PRM;
    plan.stage = ROLLOUTS + 1;
    plan.stages = &(uint64_t) {ROLLOUTS};
    plan.n_stages = 1;
    f->runner.prm_history = 2;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(has_file(f, "../prms/v000000/model.safetensors") && has_file(f, "../prms/v000001/base.json"));
    assert_false(has_file(f, "../prms/v000001/model.safetensors") || has_file(f, "../prms/v000001/config.json"));

    /* an older build's: whole, under number 2 */
    snprintf(path, sizeof path, "%s/prms/v000001", f->dir);
    MUST(qwen_vl_load(path, &model, &error));
    snprintf(path, sizeof path, "%s/prms/v000002", f->dir);
    assert_int_equal(mkdir_p(path, 0755), 0);
    MUST(qwen_vl_save(model, path, NULL, &error));
    qwen_vl_free(model);
    restart(f);
    f->runner.prm_history = 2;
    plan.parent = 2;
    plan.version = 3;
    plan.parent_dir = (char *)"prms/v000002";
    MUST(plan_run(&f->runner, &plan, &version, &error));
    assert_true(has_file(f, "../prms/v000003/model.safetensors") && !has_file(f, "../prms/v000003/base.json"));
}

static void the_loser_of_a_race_takes_the_winner(void **state)
{
    struct fixture *f = *state;
    struct intake_version first, second;
    struct error error;

    MUST(run_sft(f, 0, "policies/v000000", &first, &error));
    MUST(run_sft(f, 0, "policies/v000000", &second, &error));
    assert_memory_equal(first.digest, second.digest, SHA256_SIZE);
    MUST(run_sft(f, 1, "policies/v000001", &second, &error));       /* and it goes on from the winner */
    assert_int_equal(second.number, 2);
}

/* Filtered imitation: by the simulator's verdict or by the last score alone, without or beside the demonstrations. */
static void own_episodes_are_chosen(void **state)
{
    static const struct { const char *settings; uint64_t stages[2]; size_t n_stages; int chosen, successes; uint64_t used[8]; int n_used; } cases[] = {
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: rollouts\n", {ROLLOUTS}, 1, 3, 3, {21, 23, 25}, 3},
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: rollouts\nchoose: score\nleast_score: 0.7\n", {ROLLOUTS}, 1, 2, 1, {23, 24}, 2},
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: rollouts\nchoose: all\n", {ROLLOUTS}, 1, 5, 3, {21, 22, 23, 24, 25}, 5},
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: both\n", {DEMOS, ROLLOUTS}, 2, 3, 3, {1, 2, 3, 4, 21, 23, 25}, 7},
    };
    static const float last[] = {.3f, .6f, .8f, .9f, .69f};
    struct fixture *f = *state;
    struct intake_version version;
    struct error error = {0};
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan;

    segment(f, ROLLOUTS);
    for (uint64_t id = 21; id <= 25; id++)
        append(f, id, GANTRY__PURPOSE__PURPOSE_ROLLOUT, 0, last[id - 21]);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct manifest manifest = {0};
        struct record record = {0};
        char dir[VERSION_PATH], text[96];

        plan = plan_of("sft", i, i ? "" : "policies/v000000", cases[i].settings, digest);
        version_path(f->dir, 0, i, dir);
        plan.parent_dir = dir;
        plan.stage = 4;
        plan.stages = (uint64_t *)cases[i].stages;
        plan.n_stages = cases[i].n_stages;
        MUST(plan_run(&f->runner, &plan, &version, &error));
        version_path(f->dir, 0, i + 1, dir);
        MUST(manifest_read(dir, &manifest, &error));
        assert_int_equal(manifest.n_consumed, cases[i].n_used);
        for (int k = 0; k < cases[i].n_used; k++)
            assert_int_equal(manifest.consumed[k].episode, cases[i].used[k]);
        MUST(record_read(dir, &record, &error));
        snprintf(text, sizeof text, "\"rollouts_offered\":5,\"rollouts_chosen\":%d,\"rollouts_chosen_successes\":%d", cases[i].chosen,
                 cases[i].successes);
        if (!strstr(record.metrics, text))
            fail_msg("case %zu: %s", i, record.metrics);
        manifest_release(&manifest);
        record_release(&record);
    }
    plan = plan_of("sft", 4, "policies/v000004", "kind: sft\nfrom: rollouts\nchoose: score\nleast_score: 1\n", digest);
    plan.stages = (uint64_t[]) {ROLLOUTS};
    plan.n_stages = 1;
    REFUSED(plan_run(&f->runner, &plan, &version, &error), EINVAL, "none of 5 rollouts was chosen");
}

static void stale_rows_are_named_and_left_out(void **state)
{
    struct fixture *f = *state;
    uint64_t rows[] = {11, 12, 16};
    struct intake_version version;
    struct record record = {0};
    struct error error;
    char dir[VERSION_PATH];

    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    MUST(run_ppo(f, 1, "policies/v000001", rows, 3, &version, &error));
    version_path(f->dir, 0, 2, dir);
    MUST(record_read(dir, &record, &error));
    assert_int_equal(record.n_trained, 2);
    assert_int_equal(record.n_stale, 1);
    assert_int_equal(record.stale[0], 16);
    record_release(&record);
}

static void bad_plans_are_refused_with_a_line(void **state)
{
    struct fixture *f = *state;
    uint64_t missing[] = {11, 99}, broken[] = {11, 15}, good[] = {11, 12};
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("dance", 0, "policies/v000000", sft_settings, digest);
    struct intake_version version;
    struct error error;
    char path[128];
    uint64_t *numbers = NULL;
    size_t n;

    REFUSED(plan_run(&f->runner, &plan, &version, &error), EINVAL, "dance");
    plan.settings = (char *)"kind: sft\nstepz: 4\n";
    REFUSED(plan_run(&f->runner, &plan, &version, &error), EINVAL, "stepz");
    REFUSED(run_sft(f, 0, "policies/v000009", &version, &error), ENOENT, "v000009");
    MUST(run_sft(f, 0, "policies/v000000", &version, &error));
    REFUSED(run_ppo(f, 1, "policies/v000001", missing, 2, &version, &error), ENOENT, "99");
    REFUSED(run_ppo(f, 1, "policies/v000001", broken, 2, &version, &error), EINVAL, "15");
    snprintf(path, sizeof path, "%s/policies/v000001/train_state.safetensors", f->dir);
    assert_int_equal(truncate(path, 50), 0);
    plan_runner_release(&f->runner);
    new_runner(f);
    assert_true(run_ppo(f, 1, "policies/v000001", good, 2, &version, &error) < 0);
    assert_non_null(strstr(error.text, "train_state"));
    assert_int_equal(version_list(f->dir, 0, &numbers, &n), 0);     /* nothing of all that was committed */
    assert_int_equal(n, 2);
    free(numbers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(imitation_is_committed_with_what_it_saw, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_restart_changes_no_bit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_asked_ahead_changes_no_bit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pieces_are_the_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(adapters_sit_on_the_start_of_their_stage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_start_is_the_reference, set_up, tear_down),
        cmocka_unit_test_setup_teardown(starts_that_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(backbones_are_not_copied, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_loser_of_a_race_takes_the_winner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(own_episodes_are_chosen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stale_rows_are_named_and_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_plans_are_refused_with_a_line, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
