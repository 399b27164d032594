/* The coordinator as a whole, with members that speak the real protocol: a run of every kind of stage finishes, also when the
 * coordinator is lost at each of its commits, and ledger, journal and manifests tell one story. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "base/log.h"
#include "coordinator/edge.h"
#include "run/history.h"
#include "tests/harness/coordinator_life.h"
#include "tests/harness/fake_members.h"
#include "tests/harness/scratch.h"

static json_t *read_summary(void)
{
    char path[128];
    json_t *root;

    snprintf(path, sizeof path, "%s/summary.json", life_run_dir);
    root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    return root;
}

/* The three writers agree, the run is complete, and every episode has the end its purpose asks for. */
static struct history_result check_history(void)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct history_result result;
    struct history history;

    if (history_load(life_run_dir, &history, &life_error) < 0)
        fail_msg("%s", life_error.text);
    assert_int_equal(history_check(&history, &out, &result), 0);
    if (result.violations)
        fail_msg("%s", out.text);
    assert_true(history.complete);
    assert_int_equal(result.open, 0);
    assert_int_equal(result.kept, 6 + 4);
    assert_int_equal(result.trained, 2 * 6);
    assert_int_equal(result.failed, 0);
    history_release(&history);
    return result;
}

/* A worker is told all of what the ledger has of an episode, and of its stage. */
static void check_lease(const Gantry__Lease *lease, const struct ledger_episode *row, const struct stage_config *stage)
{
    bool search = row->search_n > 1, demonstrator = strstr(row->tag, "demonstrator") || stage->kind == STAGE_DEMOS;

    assert_int_equal(lease->purpose, row->purpose);
    assert_int_equal(lease->split, row->split);
    assert_string_equal(lease->task, row->task);
    assert_true(lease->state_seed == row->state_seed && lease->sample_key == row->sample_key);
    assert_true(lease->policy_version == row->policy_version && lease->prm_version == row->prm_version);
    assert_true(lease->temperature == row->temperature && lease->max_steps == row->max_steps);
    assert_int_equal(lease->score_every, 2);
    assert_int_equal(lease->fence >> 32, ledger_run(life_edge->ledger)->epoch);
    assert_false(lease->alone);
    assert_string_equal(lease->style, demonstrator ? "slow" : "");
    assert_string_equal(lease->perturb, stage->kind == STAGE_EVAL && row->split == SPLIT_TEST ? "push" : "");
    assert_int_equal(lease->draw_turns, !search);
    assert_int_equal(lease->want_hidden, row->purpose == EPISODE_TRAIN && stage->rl.advantage == ADVANTAGE_GAE);
    assert_int_equal(lease->search_n, row->search_n);
    assert_int_equal(lease->search_horizon, search ? 3 : 0);
    assert_int_equal(lease->search_execute, search ? 2 : 0);
    assert_true(lease->search_temperature == (search ? row->temperature : 0));
    assert_string_equal(lease->search_score, search ? "mean" : "last");
    assert_string_equal(lease->search_method, search ? "search_n" : "");
    assert_string_equal(lease->search_judge, search ? "prm" : "");
    assert_string_equal(lease->search_proposals, search ? "policy" : "");
}

static void check_grant(const Gantry__LeaseGrant *grant)
{
    struct ledger_episode *rows;
    size_t n;

    assert_int_equal(ledger_episodes(life_edge->ledger, LEDGER_ALL, LEDGER_ALL, &rows, &n), 0);
    for (size_t i = 0; i < grant->n_leases; i++) {
        size_t k = 0;

        while (k < n && rows[k].episode != grant->leases[i]->episode)
            k++;
        assert_true(k < n);         /* what is played is in the ledger first */
        check_lease(grant->leases[i], &rows[k], &life_edge->config.stages[rows[k].stage]);
    }
    free(rows);
}

static void check_open(const Gantry__OpenIteration *open)
{
    struct ledger_iteration *all;
    size_t n, i = 0;

    assert_int_equal(ledger_iterations(life_edge->ledger, &all, &n), 0);
    while (i < n && (all[i].stage != open->stage || all[i].iteration != open->iteration))
        i++;
    assert_true(i < n);
    assert_string_equal(open->name, all[i].name);
    assert_int_equal(open->purpose, all[i].purpose);
    assert_true(open->prm_version == all[i].prm_version);
    assert_true(open->policy_version == all[i].policy_version || !open->policy_version);
    assert_int_equal(open->n_failed, 0);
    assert_int_equal(open->keep, life_edge->config.stages[open->stage].kind == STAGE_DEMOS ||
                                     life_edge->config.stages[open->stage].kind == STAGE_ROLLOUTS);
    free(all);
}

static void check_plan(const Gantry__Plan *plan)
{
    static const char *const objectives[] = {[STAGE_SFT] = "sft", [STAGE_PRM] = "prm", [STAGE_RL] = "ppo"};
    const struct stage_config *stage = &life_edge->config.stages[plan->stage];
    char path[200];

    assert_string_equal(plan->objective, objectives[stage->kind]);
    assert_string_equal(plan->settings, life_edge->stage_settings[plan->stage]);
    assert_int_equal(plan->kind, stage->kind == STAGE_PRM);
    assert_true(plan->parent < plan->version);
    snprintf(path, sizeof path, "%s/%s", life_run_dir, plan->parent_dir);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(plan->round, stage->kind == STAGE_RL && plan->iteration > 1);      /* behind val and train */
    assert_int_equal(plan->digest.len, SHA256_SIZE);
    if (stage->kind == STAGE_SFT)
        assert_true(plan->n_stages == 1 && plan->stages[0] == 0);
    assert_int_equal(plan->n_episodes, stage->kind == STAGE_RL ? 6 : 0);
}

static unsigned grants, opens, plans;

static void check_message(const struct message *message, void *arg)
{
    (void)arg;
    switch (message->envelope.kind) {
    case WIRE_KIND(LEASE_GRANT): grants++; check_grant((const Gantry__LeaseGrant *)message->body); break;
    case WIRE_KIND(OPEN_ITERATION): opens++; check_open((const Gantry__OpenIteration *)message->body); break;
    case WIRE_KIND(PLAN): plans++; check_plan((const Gantry__Plan *)message->body); break;
    default: break;
    }
}

/* Curves for TensorBoard: what passes won, and what the learner said of its versions. */
static void check_curves(void)
{
    static const char *const tags[] = {"demos/success", "rl/success", "sft/train/loss", "prm/train/loss", "rl/train/loss"};
    char path[200], *bytes = NULL;
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/tb", life_run_dir);
    dir = opendir(path);
    assert_non_null(dir);
    while (!bytes && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/tb/%s", life_run_dir, entry->d_name);
        if (entry->d_name[0] != '.')
            assert_int_equal(file_read(path, 1 << 20, &bytes, &n), 0);
    }
    closedir(dir);
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++)
        if (!memmem(bytes, n, tags[i], strlen(tags[i])))
            fail_msg("there is no curve %s", tags[i]);
    free(bytes);
}

static void test_a_whole_run(void **state)
{
    struct history_result result;
    struct loop *loop;
    struct fakes *fakes;
    json_t *summary;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(fakes_new(loop_uv(loop), life_run_dir, &fakes, &life_error), 0);
    fakes_watch(fakes, check_message, NULL);
    assert_int_equal(life_live(loop), 0);
    assert_true(grants && opens && plans);
    assert_int_equal(fakes_count(fakes)->refused, 0);
    assert_int_equal(fakes_count(fakes)->drains, 4);        /* everybody was told to leave */
    assert_int_equal(fakes_count(fakes)->commits, 4);       /* sft, prm, two of rl */
    fakes_free(fakes);
    loop_free(loop);

    result = check_history();
    assert_true(result.evaluated > 3 * 8);
    summary = read_summary();
    assert_true(json_is_number(json_object_get(summary, "success_before")));
    assert_true(json_is_number(json_object_get(summary, "success_after")));
    assert_int_equal(json_array_size(json_object_get(summary, "difference_interval")), 2);
    assert_int_equal(json_integer_value(json_object_get(summary, "eval_episodes")), 8);
    assert_int_equal(json_integer_value(json_object_get(summary, "iterations")), 2);
    assert_true(json_is_object(json_object_get(json_object_get(summary, "policies"), "sft")));
    assert_true(json_is_number(json_object_get(json_object_get(json_object_get(summary, "policies"), "last"), "t1")));
    assert_true(json_is_object(json_object_get(json_object_get(json_object_get(summary, "search"), "last"), "n2")));
    assert_false(json_is_true(json_object_get(json_object_get(summary, "sft_plateau"), "checked")));
    assert_true(json_is_number(json_object_get(summary, "actions_per_s")));     /* of its members, who have gone */
    check_curves();
    json_decref(summary);
}

/* What ended has its times on the wall. Returns the number of the group of learner ranks. */
static uint64_t check_lives(uint64_t lives)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ struct ledger_stage *stages = NULL;
    char path[128];
    size_t n;

    snprintf(path, sizeof path, "%s/ledger.sqlite", life_run_dir);
    assert_int_equal(ledger_open_readonly(path, &ledger, &life_error), 0);
    assert_int_equal(ledger_run(ledger)->epoch, lives);
    assert_int_equal(ledger_stages(ledger, &stages, &n), 0);
    for (size_t i = 0; i < n; i++)
        assert_true(stages[i].start_ms > 1000000000000 && stages[i].end_ms >= stages[i].start_ms);
    return ledger_run(ledger)->group_epoch;
}

/* Lost at its nth commit, before it or right after (nothing of that step was said), started again: the same run. */
static uint64_t lose_at(const char *point, int nth, bool *ret_lost)
{
    struct loop *loop;
    struct fakes *fakes;
    char fault[64];
    int r;

    snprintf(fault, sizeof fault, "%s=eio@%d", point, nth);
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(fakes_new(loop_uv(loop), life_run_dir, &fakes, &life_error), 0);
    assert_int_equal(fault_arm(fault), 0);
    r = life_live(loop);
    assert_int_equal(fault_arm(""), 0);
    *ret_lost = r != 0;
    if (r)
        assert_int_equal(life_live(loop), 0);
    assert_int_equal(fakes_count(fakes)->refused, 0);
    assert_int_equal(fakes_count(fakes)->commits, 4);
    fakes_free(fakes);
    loop_free(loop);
    (void)check_history();
    return check_lives(*ret_lost ? 2 : 1);
}

static void test_lost_at_a_commit(void **state)
{
    bool lost = true, again = false;
    uint64_t group;
    int times = 0;

    /* Two commits belong to the start; then one in 37: the sweep over all of them is chaos-sim's. */
    for (int nth = 4; lost; nth += 37) {
        group = lose_at("ledger.commit", nth, &lost);
        again |= group == 2;
        times += lost;
        assert_int_equal(life_teardown(state), 0);
        assert_int_equal(life_setup(state), 0);
    }
    assert_true(times >= 2);            /* a life whose commit fails ends: its memory is ahead of the ledger */
    assert_true(again);                 /* the next life's group of learner ranks is none that was before */
}

static void fill_the_disk(const struct message *message, void *arg)
{
    unsigned *plans_seen = arg;

    if (message->envelope.kind == WIRE_KIND(PLAN) && !(*plans_seen)++)
        assert_int_equal(fault_arm("ledger.commit=enospc@1"), 0);
}

/* The learner says that it has made a version, and there is no room to write that down: what it said is kept beyond its message,
 * numbers and all, and written once there is; he who said it, and was told BUSY, finds it known. */
static void test_a_version_without_room(void **state)
{
    unsigned plans_seen = 0;
    struct loop *loop;
    struct fakes *fakes;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(fakes_new(loop_uv(loop), life_run_dir, &fakes, &life_error), 0);
    fakes_watch(fakes, fill_the_disk, &plans_seen);
    assert_int_equal(life_live(loop), 0);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(fakes_count(fakes)->commits, 4);
    assert_int_equal(fakes_count(fakes)->broken, 0);
    fakes_free(fakes);
    loop_free(loop);
    (void)check_history();
    check_curves();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_whole_run, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_lost_at_a_commit, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_a_version_without_room, life_setup, life_teardown),
    };

    return cmocka_run_group_tests_name("coordinator", tests, NULL, NULL);
}
