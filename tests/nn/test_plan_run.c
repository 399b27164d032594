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
#include "learner/record.h"
#include "run/manifest.h"
#include "tests/harness/plan_lab.h"

static void imitation_is_committed_with_what_it_saw(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version = {0};
    struct manifest manifest = {0};
    struct record record = {0};
    struct error error;
    char dir[VERSION_PATH];

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
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
    struct plan_lab *f = *state;
    uint64_t rows[] = {11, 12, 13, 14};
    uint8_t from_memory[SHA256_SIZE], from_disk[SHA256_SIZE];
    struct intake_version version;
    struct error error;
    char dir[VERSION_PATH], path[VERSION_PATH + 32];

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 4, &version, &error));
    version_path(f->dir, 0, 2, dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(sha256_file(path, from_memory), 0);
    assert_int_equal(remove_tree(dir), 0);         /* as if it had been killed before the rename */
    plan_runner_release(&f->runner);
    plan_lab_runner(f);
    MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 4, &version, &error));
    assert_int_equal(sha256_file(path, from_disk), 0);
    assert_memory_equal(from_memory, from_disk, SHA256_SIZE);
}

/* Imitation in two pieces, the learner killed and started again between them, is imitation in one. */
static void pieces_are_the_whole(void **state)
{
    struct plan_lab *f = *state;
    uint8_t whole[SHA256_SIZE], pieces[SHA256_SIZE], digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("sft", 1, "policies/v000001", "kind: sft\nsteps: 4\nbatch: 4\nlr: 0.001\ncommit_every: 3\n",
                                digest);
    struct intake_version version;
    struct error error;
    char path[VERSION_PATH];

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    snprintf(path, sizeof path, "%s/policies/v000001/model.safetensors", f->dir);
    assert_int_equal(sha256_file(path, whole), 0);
    snprintf(path, sizeof path, "%s/policies/v000001", f->dir);
    assert_int_equal(remove_tree(path), 0);
    plan_runner_release(&f->runner);
    plan_lab_runner(f);
    plan.stage = SFT;
    plan.stages = &(uint64_t) {DEMOS};
    plan.n_stages = 1;
    plan.parent = 0;
    plan.parent_dir = (char *)"policies/v000000";
    plan.version = 1;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    plan_runner_release(&f->runner);
    plan_lab_runner(f);
    plan.iteration = plan.round = plan.parent = 1;
    plan.parent_dir = (char *)"policies/v000001";
    plan.version = 2;
    MUST(plan_run(&f->runner, &plan, &version, &error));
    snprintf(path, sizeof path, "%s/policies/v000002/model.safetensors", f->dir);
    assert_int_equal(sha256_file(path, pieces), 0);
    assert_memory_equal(whole, pieces, SHA256_SIZE);
}

/* What the reference says of an episode may be asked before the plan comes, of all of them, some, or none. */
static void what_was_asked_ahead_changes_no_bit(void **state)
{
    struct plan_lab *f = *state;
    uint64_t rows[] = {11, 12, 13, 14};
    uint8_t expected[2][SHA256_SIZE], digest[2][SHA256_SIZE];
    struct intake_version version;
    struct error error;
    char dir[VERSION_PATH];

    f->stale = true;
    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 2, &version, &error));
    MUST(plan_lab_ppo(f, 2, "policies/v000002", rows, 4, &version, &error));
    plan_lab_digest(f, "v000003/model.safetensors", expected[0]);
    plan_lab_digest(f, "v000003/train_state.safetensors", expected[1]);
    for (size_t known = 0; known <= 4; known += 2) {
        struct ahead *ahead;

        for (uint64_t number = 2; number <= 3; number++) {
            version_path(f->dir, 0, number, dir);
            assert_int_equal(remove_tree(dir), 0);
        }
        plan_lab_restart(f);
        assert_int_equal(ahead_new(f->journal, 3, false, &ahead), 0);
        f->runner.ahead = ahead;
        ahead_add(ahead, RL, 11);       /* no plan has come yet: nothing is known of a reference */
        MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 2, &version, &error));
        assert_int_equal(ahead_taken(ahead), 0);
        for (size_t i = 0; i < known; i++)
            ahead_add(ahead, RL, rows[3 - i]);
        ahead_add(ahead, RL, 9999);     /* not in the journal: the plan would say so */
        ahead_add(ahead, SFT, 11);
        ahead_wait(ahead);
        MUST(plan_lab_ppo(f, 2, "policies/v000002", rows, 4, &version, &error));
        assert_int_equal(ahead_taken(ahead), known);
        plan_lab_digest(f, "v000003/model.safetensors", digest[0]);
        plan_lab_digest(f, "v000003/train_state.safetensors", digest[1]);
        assert_memory_equal(digest, expected, sizeof expected);
        ahead_add(ahead, RL, 12);       /* freed in the middle of its work */
        ahead_free(ahead);
    }
}

static void the_loser_of_a_race_takes_the_winner(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version first, second;
    struct error error;

    MUST(plan_lab_sft(f, 0, "policies/v000000", &first, &error));
    MUST(plan_lab_sft(f, 0, "policies/v000000", &second, &error));
    assert_memory_equal(first.digest, second.digest, SHA256_SIZE);
    MUST(plan_lab_sft(f, 1, "policies/v000001", &second, &error));       /* and it goes on from the winner */
    assert_int_equal(second.number, 2);
}

/* Filtered imitation: by the simulator's verdict or by the last score alone, without or beside the demonstrations. */
static void own_episodes_are_chosen(void **state)
{
    static const struct { const char *settings; uint64_t stages[2]; size_t n_stages; int chosen, successes; uint64_t used[8];
                          int n_used; } cases[] = {
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: rollouts\n", {ROLLOUTS}, 1, 3, 3, {21, 23, 25}, 3},
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: rollouts\nchoose: score\nleast_score: 0.7\n", {ROLLOUTS}, 1, 2, 1, {23, 24}, 2},
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: rollouts\nchoose: all\n", {ROLLOUTS}, 1, 5, 3, {21, 22, 23, 24, 25}, 5},
        {"kind: sft\nsteps: 2\nbatch: 4\nfrom: both\n", {DEMOS, ROLLOUTS}, 2, 3, 3, {1, 2, 3, 4, 21, 23, 25}, 7},
    };
    static const float last[] = {.3f, .6f, .8f, .9f, .69f};
    struct plan_lab *f = *state;
    struct intake_version version;
    struct error error = {0};
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan;

    plan_lab_segment(f, ROLLOUTS);
    for (uint64_t id = 21; id <= 25; id++)
        plan_lab_append(f, id, GANTRY__PURPOSE__PURPOSE_ROLLOUT, 0, last[id - 21]);
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
        snprintf(text, sizeof text, "\"rollouts_offered\":5,\"rollouts_chosen\":%d,\"rollouts_chosen_successes\":%d",
                 cases[i].chosen, cases[i].successes);
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
    struct plan_lab *f = *state;
    uint64_t rows[] = {11, 12, 16};
    struct intake_version version;
    struct record record = {0};
    struct error error;
    char dir[VERSION_PATH];

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    MUST(plan_lab_ppo(f, 1, "policies/v000001", rows, 3, &version, &error));
    version_path(f->dir, 0, 2, dir);
    MUST(record_read(dir, &record, &error));
    assert_int_equal(record.n_trained, 2);
    assert_int_equal(record.n_stale, 1);
    assert_int_equal(record.stale[0], 16);
    record_release(&record);
}

static void bad_plans_are_refused_with_a_line(void **state)
{
    struct plan_lab *f = *state;
    uint64_t missing[] = {11, 99}, broken[] = {11, 15}, good[] = {11, 12};
    uint8_t digest[SHA256_SIZE];
    Gantry__Plan plan = plan_of("dance", 0, "policies/v000000", plan_lab_sft_settings, digest);
    struct intake_version version;
    struct error error;
    char path[128];
    uint64_t *numbers = NULL;
    size_t n;

    REFUSED(plan_run(&f->runner, &plan, &version, &error), EINVAL, "dance");
    plan.settings = (char *)"kind: sft\nstepz: 4\n";
    REFUSED(plan_run(&f->runner, &plan, &version, &error), EINVAL, "stepz");
    REFUSED(plan_lab_sft(f, 0, "policies/v000009", &version, &error), EBADMSG, "v000009");
    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    REFUSED(plan_lab_ppo(f, 1, "policies/v000001", missing, 2, &version, &error), ENOENT, "99");
    REFUSED(plan_lab_ppo(f, 1, "policies/v000001", broken, 2, &version, &error), EINVAL, "15");
    snprintf(path, sizeof path, "%s/policies/v000001/train_state.safetensors", f->dir);
    assert_int_equal(truncate(path, 50), 0);
    plan_runner_release(&f->runner);
    plan_lab_runner(f);
    assert_true(plan_lab_ppo(f, 1, "policies/v000001", good, 2, &version, &error) < 0);
    assert_non_null(strstr(error.text, "train_state"));
    assert_int_equal(version_list(f->dir, 0, &numbers, &n), 0);     /* nothing of all that was committed */
    assert_int_equal(n, 2);
    free(numbers);
}

/* By hand, while the run is on: said once with the remedy, and final. Once the file is there again, the plan is carried out. */
static void lacks(struct plan_lab *f, const char *file)
{
    struct intake_version version;
    struct error error = {0};
    char path[SCRATCH_PATH + 64], away[SCRATCH_PATH + 64];

    snprintf(path, sizeof path, "%s/policies/v000001/%s", f->dir, file);
    snprintf(away, sizeof away, "%s/away", f->dir);
    assert_int_equal(rename(path, away), 0);
    plan_lab_restart(f);                /* who holds it in memory needs no file */
    for (int again = 0; again < 2; again++)
        REFUSED(plan_lab_sft(f, 1, "policies/v000001", &version, &error), EBADMSG, file);
    assert_non_null(strstr(error.text, "it was removed: restore "));
    assert_non_null(strstr(error.text, "policies/v000001, and `gantry up` goes on"));
    assert_int_equal(rename(away, path), 0);
}

static void a_parent_without_its_files(void **state)
{
    struct plan_lab *f = *state;
    struct intake_version version;
    struct error error = {0};

    MUST(plan_lab_sft(f, 0, "policies/v000000", &version, &error));
    lacks(f, "model.safetensors");
    lacks(f, "train_state.safetensors");        /* not a fresh optimiser without a word */
    MUST(plan_lab_sft(f, 1, "policies/v000001", &version, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(imitation_is_committed_with_what_it_saw, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(a_restart_changes_no_bit, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(what_was_asked_ahead_changes_no_bit, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(pieces_are_the_whole, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(the_loser_of_a_race_takes_the_winner, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(own_episodes_are_chosen, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(stale_rows_are_named_and_left_out, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(bad_plans_are_refused_with_a_line, plan_lab_set_up, plan_lab_tear_down),
        cmocka_unit_test_setup_teardown(a_parent_without_its_files, plan_lab_set_up, plan_lab_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
