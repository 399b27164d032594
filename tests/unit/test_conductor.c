/* test_conductor.c - the conductor's rules, one by one; tests/sim plays them all at once under faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/conductor.h"

enum { EPOCH = 3, WORKER = 1, WORKER_2 = 2, ACTOR = 3, LEARNER = 4, PRM = 5 };

struct desk {
    struct run_config config;
    struct conductor *c;
    struct conductor_effects out;
    uint64_t now_ms;
    uint32_t member[8];             /* by the names above */
    uint32_t stage, iteration;      /* of the last OpenIteration */
    uint64_t opened[64];
    size_t n_opened;
};

static const char *const settings[RUN_MAX_STAGES] = { "a: 1", "b: 2", "c: 3", "d: 4", "e: 5", "f: 6" };

static void step(struct desk *d, struct conductor_event event)
{
    event.epoch = event.epoch ? event.epoch : EPOCH;
    event.request = event.request ? event.request : 1;
    assert_int_equal(conductor_step(d->c, &event, d->now_ms, &d->out), 0);
    for (size_t i = 0, sent = 0; i < d->out.n; i++) {       /* all of the ledger before all of the messages */
        sent |= d->out.items[i].kind > CONDUCTOR_LAST_LEDGER;
        assert_true(!sent || d->out.items[i].kind > CONDUCTOR_LAST_LEDGER);
        if (d->out.items[i].kind != CONDUCTOR_OPEN_ITERATION)
            continue;
        d->stage = d->out.items[i].open.stage;
        d->iteration = d->out.items[i].open.iteration;
        d->n_opened = d->out.items[i].open.n_episodes;
        memcpy(d->opened, d->out.items[i].open.episodes, d->n_opened * sizeof(*d->opened));
    }
}

static const struct conductor_effect *find(const struct desk *d, enum conductor_effect_kind kind)
{
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == kind)
            return &d->out.items[i];
    return NULL;
}

static size_t count(const struct desk *d, enum conductor_effect_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < d->out.n; i++)
        n += d->out.items[i].kind == kind;
    return n;
}

/* ---- a run of stages, members, and what they say -------------------------------------------------------- */

static struct stage_config *add_stage(struct desk *d, enum stage_kind kind, const char *name)
{
    struct stage_config *stage = &d->config.stages[d->config.n_stages++];

    stage->kind = kind;
    snprintf(stage->name, sizeof(stage->name), "%s", name);
    return stage;
}

static void start(struct desk *d, const struct conductor_restored *restored, uint64_t epoch)
{
    struct conductor_setup setup = { .config = &d->config, .stage_settings = settings, .run = 8, .epoch = epoch };
    struct error error = { 0 };

    d->c = conductor_free(d->c);
    assert_int_equal(conductor_new(&setup, &d->c), 0);
    if (conductor_restore(d->c, restored ? restored : &(struct conductor_restored) { 0 }, d->now_ms, &error) < 0)
        fail_msg("%s", error.text);
}

static void hello(struct desk *d, uint32_t name, enum member_role role, uint64_t instance)
{
    struct member member = { .role = role, .instance = instance, .slots = 4, .pid = (uint32_t)instance };

    snprintf(member.host, sizeof(member.host), "here");
    step(d, (struct conductor_event) { .kind = CONDUCTOR_HELLO, .from = name, .hello = { .member = member } });
    d->member[name] = find(d, CONDUCTOR_WELCOME)->welcome.member;
}

static void inventory(struct desk *d, uint32_t stage, uint32_t iteration, uint32_t rows, const struct journaled_episode *episodes,
                      size_t n)
{
    step(d, (struct conductor_event) {
        .kind = CONDUCTOR_INVENTORY, .member = d->member[LEARNER],
        .inventory = { .stage = stage, .iteration = iteration, .rows = rows, .episodes = episodes, .n_episodes = n },
    });
}

static void confirm(struct desk *d)
{
    inventory(d, d->stage, d->iteration, (uint32_t)d->n_opened, NULL, 0);
}

static struct journaled_episode played(uint64_t episode, bool success)
{
    return (struct journaled_episode) { .episode = episode, .digest = { (uint8_t)episode, 1 }, .success = success, .steps = 5 };
}

static void journaled(struct desk *d, uint64_t episode, bool success)
{
    struct journaled_episode e = played(episode, success);

    step(d, (struct conductor_event){
                .kind = CONDUCTOR_JOURNALED, .member = d->member[LEARNER], .journaled = {d->stage, d->iteration, &e, 1}});
}

static void ready(struct desk *d, uint32_t name, enum version_kind kind, uint64_t version)
{
    step(d, (struct conductor_event){
                .kind = CONDUCTOR_VERSION_STATE,
                .member = d->member[name],
                .version_state = {.kind = kind, .version = version, .ready = true},
            });
}

static const struct conductor_effect *request(struct desk *d, uint32_t name, uint32_t slots)
{
    step(d, (struct conductor_event) { .kind = CONDUCTOR_LEASE_REQUEST, .member = d->member[name], .lease_request = { slots } });
    return find(d, CONDUCTOR_GRANT);
}

static void worker_exits(struct desk *d, uint64_t instance, bool crashed)
{
    step(d,
         (struct conductor_event){.kind = CONDUCTOR_EXIT,
                                  .exit = {.host = "here", .pid = (uint32_t)instance, .crashed = crashed, .text = "signal 11"}});
}

static void committed(struct desk *d, const struct conductor_plan *plan, const uint64_t *trained, size_t n, bool gate)
{
    struct conductor_event event = {
        .kind = CONDUCTOR_COMMITTED,
        .member = d->member[LEARNER],
        .committed = {.version = {.kind = plan->kind,
                                  .number = plan->version,
                                  .parent = plan->parent,
                                  .gate_passed = gate,
                                  .digest = {(uint8_t)plan->version}},
                      .trained = trained,
                      .n_trained = n},
    };

    memcpy(event.committed.plan_digest, plan->digest, SHA256_SIZE);
    step(d, event);
}

static int set_up(void **state)
{
    static struct desk d;

    d = (struct desk) { .now_ms = 1000000 };
    d.config = (struct run_config){
        .seed = 7, .n_tasks = 2, .prm_init = "policy", .heartbeat_ms = 1000, .lease_ttl_ms = 10000, .first_step_ms = 60000};
    snprintf(d.config.tasks[0], sizeof(d.config.tasks[0]), "reach");
    snprintf(d.config.tasks[1], sizeof(d.config.tasks[1]), "open");
    *state = &d;
    return 0;
}

static int tear_down(void **state)
{
    struct desk *d = *state;

    d->c = conductor_free(d->c);
    conductor_effects_release(&d->out);
    return 0;
}

/* A single stage of demonstrations, `episodes` of them, opened and known to the learner. */
static void demos(struct desk *d, int episodes)
{
    add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) { .episodes = episodes, .style = "slow", .max_steps = 40 };
    start(d, NULL, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    confirm(d);
    hello(d, WORKER, MEMBER_WORKER, 10);
}

/* A single rl stage, first train iteration open and known. */
static void rl(struct desk *d, int episodes, int max_staleness)
{
    struct rl_config *rl_config = &add_stage(d, STAGE_RL, "rl")->rl;

    *rl_config = (struct rl_config) { .iterations = 3, .episodes = episodes, .temperature = 1, .max_staleness = max_staleness };
    start(d, NULL, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    hello(d, WORKER, MEMBER_WORKER, 10);
    hello(d, ACTOR, MEMBER_ACTOR, 30);
    ready(d, ACTOR, KIND_POLICY, 0);
    confirm(d);
}

/* ---- fixed work ------------------------------------------------------------------------------------------ */

static void test_opening_writes_all_rows_at_once(void **state)
{
    struct desk *d = *state;
    const struct ledger_episode *first;

    add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) { .episodes = 5, .style = "slow", .max_steps = 40 };
    start(d, NULL, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    assert_int_equal(count(d, CONDUCTOR_ADD_EPISODE), 0);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    assert_int_equal(count(d, CONDUCTOR_ADD_EPISODE), 5);
    assert_int_equal(count(d, CONDUCTOR_PUT_ITERATION), 1);
    assert_int_equal(count(d, CONDUCTOR_PUT_BLOB), 1);
    assert_int_equal(count(d, CONDUCTOR_ADD_VERSION), 1);       /* version 0, with the digest the learner names */
    assert_int_equal(count(d, CONDUCTOR_OPEN_ITERATION), 1);
    first = &find(d, CONDUCTOR_ADD_EPISODE)->episode;
    assert_int_equal(first->episode, 1);
    assert_string_equal(first->task, "reach");
    assert_int_equal(first->max_steps, 40);
    assert_int_equal(first->purpose, EPISODE_DEMO);
}

static void test_leases(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;

    demos(d, 5);
    grant = request(d, WORKER, 3);
    assert_int_equal(grant->grant.n_leases, 3);
    assert_int_equal(grant->grant.leases[0].episode, 1);
    assert_string_equal(grant->grant.leases[0].style, "slow");
    assert_int_equal(grant->grant.leases[0].fence >> 32, EPOCH);
    assert_int_equal(request(d, WORKER, 4)->grant.n_leases, 2);
    assert_true(find(d, CONDUCTOR_GRANT)->grant.retry_ms > 0);
    journaled(d, 2, true);
    assert_null(lease_find(conductor_leases(d->c), 2));
    assert_int_equal(request(d, WORKER, 4)->grant.n_leases, 0); /* played rows are not free again */
}

static void test_nothing_is_leased_before_the_learner_knows(void **state)
{
    struct desk *d = *state;

    add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    start(d, NULL, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    hello(d, WORKER, MEMBER_WORKER, 10);
    assert_int_equal(request(d, WORKER, 2)->grant.n_leases, 0);
    d->now_ms += 1500;
    step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_non_null(find(d, CONDUCTOR_OPEN_ITERATION));         /* said again */
    assert_null(find(d, CONDUCTOR_SEND_WORK));
    confirm(d);
    assert_int_equal(count(d, CONDUCTOR_SEND_WORK), 1);         /* it need not wait until it would have asked again */
    assert_int_equal(find(d, CONDUCTOR_SEND_WORK)->member, d->member[WORKER]);
    confirm(d);
    assert_null(find(d, CONDUCTOR_SEND_WORK));
    assert_int_equal(request(d, WORKER, 2)->grant.n_leases, 2);
}

static void test_only_members_of_this_epoch(void **state)
{
    struct desk *d = *state;

    demos(d, 2);
    step(d, (struct conductor_event){
                .kind = CONDUCTOR_LEASE_REQUEST, .member = d->member[WORKER], .epoch = EPOCH - 1, .lease_request = {1}});
    assert_int_equal(find(d, CONDUCTOR_REFUSE)->refuse.why, REFUSE_STALE);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_JOURNALED, .member = d->member[WORKER] });
    assert_int_equal(find(d, CONDUCTOR_REFUSE)->refuse.why, REFUSE_ROLE);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = 99 });
    assert_false(find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.known);
}

static void test_stale_leases_are_revoked(void **state)
{
    struct desk *d = *state;
    struct held_lease held;

    demos(d, 2);
    held = (struct held_lease) { 1, request(d, WORKER, 1)->grant.leases[0].fence - 1, 50 };
    step(d, (struct conductor_event){
                .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER], .heartbeat = {.leases = &held, .n_leases = 1}});
    assert_int_equal(find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.n_revoked, 1);
    assert_int_equal(find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.revoked[0], 1);
}

/* ---- episodes that go wrong -------------------------------------------------------------------------------- */

static void test_killed_worker_counts_nothing(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;

    demos(d, 3);
    (void)request(d, WORKER, 2);
    worker_exits(d, 10, false);
    assert_int_equal(conductor_leases(d->c)->n, 0);
    assert_int_equal(find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
    for (uint64_t k = 0; k < 5; k++) {
        hello(d, WORKER, MEMBER_WORKER, 11 + k);
        grant = request(d, WORKER, 4);
        assert_int_equal(grant->grant.n_leases, 1);             /* alone now */
        assert_true(grant->grant.leases[0].alone);
        assert_int_equal(grant->grant.leases[0].episode, 1);
        assert_int_equal(request(d, WORKER, 3)->grant.n_leases, 0);
        worker_exits(d, 11 + k, false);
    }
    assert_int_equal(count(d, CONDUCTOR_EPISODE_ENDED), 0);
}

static void crash_alone(struct desk *d, uint64_t instance, uint64_t episode)
{
    hello(d, WORKER, MEMBER_WORKER, instance);
    assert_int_equal(request(d, WORKER, 4)->grant.leases[0].episode, episode);
    worker_exits(d, instance, true);
}

static void test_third_crash_alone_fails_and_is_replaced(void **state)
{
    struct desk *d = *state;
    const struct ledger_episode *new_row;

    demos(d, 1);
    (void)request(d, WORKER, 1);
    worker_exits(d, 10, true);                                  /* in company or first: only suspected */
    assert_int_equal(find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
    crash_alone(d, 11, 1);
    crash_alone(d, 12, 1);
    assert_null(find(d, CONDUCTOR_EPISODE_ENDED));
    crash_alone(d, 13, 1);
    assert_int_equal(find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_FAILED);
    assert_string_equal(find(d, CONDUCTOR_EPISODE_ENDED)->episode.reason, "signal 11");
    new_row = &find(d, CONDUCTOR_ADD_EPISODE)->episode;
    assert_int_equal(new_row->episode, 2);
    assert_int_equal(new_row->replaces, 1);
    assert_string_equal(new_row->task, "reach");
    assert_int_equal(new_row->state_seed, 1);                   /* not the state that failed */
    confirm(d);
    hello(d, WORKER, MEMBER_WORKER, 14);
    assert_int_equal(request(d, WORKER, 4)->grant.leases[0].episode, 2);
    journaled(d, 2, true);
    assert_non_null(find(d, CONDUCTOR_FINISHED));
}

static void simulator_errors(struct desk *d, uint64_t episode)
{
    for (int i = 0; i < 3; i++) {
        const struct lease_terms *terms = request(d, WORKER, 1)->grant.leases;
        uint64_t fence = terms->fence;

        assert_int_equal(terms->episode, episode);
        step(d, (struct conductor_event){
                    .kind = CONDUCTOR_LEASE_RETURN,
                    .member = d->member[WORKER],
                    .lease_return = {episode, fence, LEASE_SIMULATOR_ERROR, "mj_step: diverged"},
                });
        confirm(d);
    }
}

static void test_too_many_failures_stop_the_run(void **state)
{
    struct desk *d = *state;

    demos(d, 30);
    for (uint64_t episode = 1; episode <= 3; episode++)
        simulator_errors(d, episode);
    assert_null(find(d, CONDUCTOR_STOPPED));
    for (int i = 0; i < 3; i++) {
        uint64_t fence = request(d, WORKER, 1)->grant.leases[0].fence;

        step(d, (struct conductor_event){
                    .kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER], .lease_return = {4, fence, LEASE_SIMULATOR_ERROR, "mj_step"}});
    }
    assert_non_null(find(d, CONDUCTOR_STOPPED));
    assert_non_null(
        strstr(find(d, CONDUCTOR_STOPPED)->text.text, "demos: 4 of 30 episodes failed: 1 reach/0 (mj_step: diverged); 2 open/1"));
    confirm(d);
    assert_int_equal(request(d, WORKER, 1)->grant.n_leases, 0);
}

/* ---- iterations, plans, versions ------------------------------------------------------------------------------ */

static void test_waits_for_a_ready_actor(void **state)
{
    struct desk *d = *state;
    struct conductor_status status;

    add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 1, .episodes = 2 };
    start(d, NULL, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    conductor_status(d->c, &status);
    assert_string_equal(status.waiting_for, "an actor with policy version 0");
    hello(d, ACTOR, MEMBER_ACTOR, 30);
    assert_int_equal(find(d, CONDUCTOR_VERSIONS)->versions.keep[0]->number, 0);
    step(d, (struct conductor_event){
                .kind = CONDUCTOR_VERSION_STATE,
                .member = d->member[ACTOR],
                .version_state = {.version = 0, .ready = false, .text = "truncated shard"},
            });
    assert_null(find(d, CONDUCTOR_ADD_EPISODE));
    ready(d, ACTOR, KIND_POLICY, 0);
    assert_int_equal(count(d, CONDUCTOR_ADD_EPISODE), 2);
}

static void test_plan_commit_next(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    rl(d, 3, 0);
    journaled(d, 3, true);
    journaled(d, 1, false);
    assert_null(find(d, CONDUCTOR_PLAN));
    journaled(d, 2, true);
    plan = find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.n_episodes, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(plan.episodes[i], i + 1);              /* id order, whatever order they came in */
    assert_int_equal(plan.version, 1);
    assert_string_equal(plan.parent_dir, "policies/v000000");
    assert_string_equal(plan.settings, settings[0]);
    assert_memory_equal(find(d, CONDUCTOR_PUT_ITERATION)->iteration.plan_digest, plan.digest, SHA256_SIZE);

    step(d, (struct conductor_event) {
        .kind = CONDUCTOR_COMMITTED, .member = d->member[LEARNER],
        .committed = { .version = { .number = 1 }, .plan_digest = { 9 } },
    });
    assert_non_null(find(d, CONDUCTOR_REFUSE));                 /* of no plan of ours */

    committed(d, &plan, (uint64_t[]) { 1, 2, 3 }, 3, true);
    assert_int_equal(count(d, CONDUCTOR_EPISODE_ENDED), 3);
    assert_int_equal(find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_TRAINED);
    assert_int_equal(find(d, CONDUCTOR_VERSIONS)->versions.keep[0]->number, 1);
    assert_null(find(d, CONDUCTOR_ADD_EPISODE));                /* staleness 0: not before an actor has version 1 */
    committed(d, &plan, (uint64_t[]) { 1, 2, 3 }, 3, true);
    assert_non_null(find(d, CONDUCTOR_ACK));                    /* our answer had got lost */
    assert_null(find(d, CONDUCTOR_EPISODE_ENDED));
    ready(d, ACTOR, KIND_POLICY, 1);
    assert_int_equal(count(d, CONDUCTOR_ADD_EPISODE), 3);
    assert_int_equal(find(d, CONDUCTOR_ADD_EPISODE)->episode.policy_version, 1);
}

static void test_committed_must_name_every_episode(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    rl(d, 2, 0);
    journaled(d, 1, true);
    journaled(d, 2, true);
    plan = find(d, CONDUCTOR_PLAN)->plan;
    committed(d, &plan, (uint64_t[]) { 1 }, 1, true);
    assert_non_null(find(d, CONDUCTOR_REFUSE));
    assert_non_null(find(d, CONDUCTOR_STOPPED));
    assert_null(find(d, CONDUCTOR_EPISODE_ENDED));
}

static void test_failed_plan(void **state)
{
    struct desk *d = *state;
    struct conductor_event event = { .kind = CONDUCTOR_PLAN_FAILED, .plan_failed = { .text = "no space left" } };

    rl(d, 1, 0);
    journaled(d, 1, true);
    event.member = d->member[LEARNER];
    event.plan_failed.final = true;
    step(d, event);
    assert_null(find(d, CONDUCTOR_STOPPED));                    /* of no plan that is open */
    journaled(d, 1, true);
    d->now_ms += 5000;
    step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER] });
    memcpy(event.plan_failed.plan_digest, find(d, CONDUCTOR_PLAN)->plan.digest, SHA256_SIZE);
    event.plan_failed.final = false;
    step(d, event);
    assert_null(find(d, CONDUCTOR_STOPPED));                    /* it is tried again */
    assert_string_equal(find(d, CONDUCTOR_ADD_EVENT)->text.text, "rl/0: no space left");
    event.plan_failed.final = true;
    step(d, event);
    assert_non_null(find(d, CONDUCTOR_STOPPED));
}

/* An evaluation of a version that never was does not wait for it for ever. */
static void test_unknown_version(void **state)
{
    struct desk *d = *state;
    struct eval_config *eval = &add_stage(d, STAGE_EVAL, "eval")->eval;

    *eval = (struct eval_config){
        .episodes = 2, .n_policies = 1, .policies = {"99"}, .n_temperatures = 1, .temperatures = {1}, .val_episodes = 2};
    start(d, NULL, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    assert_non_null(strstr(find(d, CONDUCTOR_STOPPED)->text.text, "policy version 99 was never committed"));
}

static void test_overlap_with_staleness_1(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    rl(d, 2, 1);
    journaled(d, 1, true);
    journaled(d, 2, true);
    plan = find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(count(d, CONDUCTOR_ADD_EPISODE), 2);       /* the next is rolled out while this one trains */
    assert_int_equal(find(d, CONDUCTOR_ADD_EPISODE)->episode.policy_version, 0);
    confirm(d);
    journaled(d, 3, true);
    journaled(d, 4, true);
    assert_null(find(d, CONDUCTOR_PLAN));                       /* one after the other */
    committed(d, &plan, (uint64_t[]) { 1, 2 }, 2, true);
    plan = find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.parent, 1);
    assert_int_equal(plan.episodes[0], 3);
}

static void test_gate_and_swap(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    add_stage(d, STAGE_PRM, "prm");
    add_stage(d, STAGE_PRM, "prm2");
    add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 2, .episodes = 1 };
    start(d, NULL, EPOCH);
    hello(d, ACTOR, MEMBER_ACTOR, 30);
    hello(d, PRM, MEMBER_PRM, 50);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    plan = find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.kind, KIND_PRM);
    assert_int_equal(plan.version, 1);
    assert_string_equal(plan.parent_dir, "policies/v000000");   /* its trunk */
    committed(d, &plan, NULL, 0, true);
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);
    plan = find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.version, 2);
    assert_int_equal(plan.parent, 1);
    committed(d, &plan, NULL, 0, false);
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);   /* did not pass: the old one goes on */
    ready(d, ACTOR, KIND_POLICY, 0);
    assert_null(find(d, CONDUCTOR_ADD_EPISODE));
    ready(d, PRM, KIND_PRM, 1);
    assert_int_equal(find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 1);
    confirm(d);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 9 } });
    assert_non_null(find(d, CONDUCTOR_REFUSE));
    step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 2 } });
    assert_int_equal(find(d, CONDUCTOR_VERSIONS)->versions.n_keep, 2);     /* running episodes finish on the old one */
    hello(d, WORKER, MEMBER_WORKER, 10);
    assert_int_equal(request(d, WORKER, 1)->grant.leases[0].prm_version, 1);
}

/* ---- restart, drain, disk loss ---------------------------------------------------------------------------------- */

static void test_restart_makes_the_same_plan(void **state)
{
    struct desk *d = *state;
    struct ledger_version version_0 = { .gate_passed = true, .dir = "policies/v000000" };
    struct ledger_stage stage = { .state = PROGRESS_OPEN };
    struct ledger_iteration iteration;
    struct ledger_episode rows[2];
    struct conductor_restored restored = {
        .stages = &stage, .n_stages = 1, .iterations = &iteration, .n_iterations = 1, .episodes = rows, .n_episodes = 2,
        .versions = &version_0, .n_versions = 1,
    };
    _cleanup_(strbuf_release) struct strbuf memory = STRBUF_INIT;
    uint8_t digest[SHA256_SIZE];

    rl(d, 2, 0);
    for (uint64_t id = 1; id <= 2; id++) {
        journaled(d, id, true);
        rows[id - 1] = find(d, CONDUCTOR_EPISODE_JOURNALED)->episode;
    }
    iteration = find(d, CONDUCTOR_PUT_ITERATION)->iteration;
    memcpy(digest, find(d, CONDUCTOR_PLAN)->plan.digest, SHA256_SIZE);
    assert_int_equal(plan_memory_write(conductor_memory(d->c), &memory), 0);
    restored.memory = memory.text;
    restored.memory_size = memory.length;

    start(d, &restored, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 41);
    assert_memory_equal(find(d, CONDUCTOR_PLAN)->plan.digest, digest, SHA256_SIZE);

    /* Its disk was lost: what is not in the inventory is played again, and the plan waits. */
    inventory(d, 0, 0, 2, &(struct journaled_episode) { .episode = 1, .digest = { 1, 1 } }, 1);
    assert_int_equal(count(d, CONDUCTOR_EPISODE_REOPENED), 1);
    assert_int_equal(find(d, CONDUCTOR_EPISODE_REOPENED)->episode.episode, 2);
    assert_int_equal(find(d, CONDUCTOR_PUT_ITERATION)->iteration.state, PROGRESS_OPEN);
    d->now_ms += 5000;
    hello(d, WORKER, MEMBER_WORKER, 10);
    assert_int_equal(request(d, WORKER, 2)->grant.n_leases, 1);
    journaled(d, 2, true);
    assert_memory_equal(find(d, CONDUCTOR_PLAN)->plan.digest, digest, SHA256_SIZE);

    iteration.plan_digest[0] ^= 1;                              /* another configuration, say */
    d->c = conductor_free(d->c);
    assert_int_equal(
        conductor_new(&(struct conductor_setup){.config = &d->config, .stage_settings = settings, .run = 8, .epoch = 4}, &d->c),
        0);
    assert_true(conductor_restore(d->c, &restored, 0, NULL) < 0);
}

static void test_restart_lets_workers_announce_first(void **state)
{
    struct desk *d = *state;
    struct ledger_stage stage = { .state = PROGRESS_OPEN };
    struct ledger_version version_0 = { .gate_passed = true, .dir = "policies/v000000" };
    struct ledger_iteration iteration = {.purpose = EPISODE_DEMO, .state = PROGRESS_OPEN, .first_episode = 1, .last_episode = 2};
    struct ledger_episode rows[2] = { { .episode = 1, .purpose = EPISODE_DEMO }, { .episode = 2, .purpose = EPISODE_DEMO } };
    struct conductor_restored restored = {
        .stages = &stage, .n_stages = 1, .iterations = &iteration, .n_iterations = 1, .episodes = rows, .n_episodes = 2,
        .versions = &version_0, .n_versions = 1, .memory = "next_episode 3\niteration 1\n", .memory_size = 27,
    };
    struct held_lease held = { 2, (uint64_t)(EPOCH - 1) << 32 | 5, 7 };
    struct conductor_event event = {
        .kind = CONDUCTOR_HELLO,
        .hello = {.member = {.role = MEMBER_WORKER, .instance = 5, .slots = 2}, .leases = &held, .n_leases = 1}};

    add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    start(d, &restored, EPOCH);
    hello(d, LEARNER, MEMBER_LEARNER, 40);
    inventory(d, 0, 0, 2, NULL, 0);
    hello(d, WORKER_2, MEMBER_WORKER, 20);
    assert_int_equal(request(d, WORKER_2, 2)->grant.n_leases, 0);
    step(d, event);
    assert_int_equal(find(d, CONDUCTOR_WELCOME)->welcome.n_kept, 1);
    d->now_ms += 2000;
    assert_int_equal(request(d, WORKER_2, 2)->grant.n_leases, 1);
    assert_int_equal(find(d, CONDUCTOR_GRANT)->grant.leases[0].episode, 1);
}

static void test_drain(void **state)
{
    struct desk *d = *state;

    demos(d, 3);
    (void)request(d, WORKER, 1);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_DRAIN });
    assert_null(find(d, CONDUCTOR_DRAINED));
    assert_int_equal(request(d, WORKER, 2)->grant.n_leases, 0);
    assert_true(find(d, CONDUCTOR_GRANT)->grant.drain);
    journaled(d, 1, true);
    assert_non_null(find(d, CONDUCTOR_DRAINED));
}

/* -> NULL: refused. */
static const struct conductor_effect *named_hello(struct desk *d, uint32_t as, const char *name, uint64_t instance)
{
    struct member member = { .role = MEMBER_WORKER, .instance = instance, .slots = 4 };
    const struct conductor_effect *welcome;

    snprintf(member.name, sizeof(member.name), "%s", name);
    snprintf(member.host, sizeof(member.host), "%lu", (unsigned long)instance);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_HELLO, .from = as, .hello = { .member = member } });
    welcome = find(d, CONDUCTOR_WELCOME);
    if (welcome)
        d->member[as] = welcome->welcome.member;
    return welcome;
}

/* Requeued on another node: what the earlier life held is free at once, and that life, if it comes back, is refused. */
static void test_a_later_life_takes_over(void **state)
{
    struct desk *d = *state;
    uint32_t first;

    demos(d, 3);
    assert_non_null(named_hello(d, WORKER_2, "job-7", 70));
    first = d->member[WORKER_2];
    assert_int_equal(request(d, WORKER_2, 2)->grant.n_leases, 2);
    assert_non_null(named_hello(d, WORKER_2, "job-70", 90));        /* another name altogether */
    assert_int_equal(lease_count(conductor_leases(d->c), first), 2);
    assert_non_null(named_hello(d, WORKER_2, "job-7#1", 71));
    assert_int_equal(lease_count(conductor_leases(d->c), first), 0);
    assert_null(named_hello(d, WORKER_2, "job-7", 70));
    assert_non_null(find(d, CONDUCTOR_REFUSE));
    step(d, (struct conductor_event) { .kind = CONDUCTOR_BYE, .member = d->member[WORKER_2] });
    assert_null(named_hello(d, WORKER_2, "job-7#0", 72));
    assert_non_null(named_hello(d, WORKER_2, "job-7#2", 73));
}

static void test_drain_one_member(void **state)
{
    struct desk *d = *state;

    demos(d, 5);
    assert_int_equal(request(d, WORKER, 2)->grant.n_leases, 2);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_DRAIN_MEMBER, .member = d->member[WORKER] });
    assert_int_equal(request(d, WORKER, 2)->grant.n_leases, 0);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER] });
    assert_true(find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.drain);
    step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER] });
    assert_false(find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.drain);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_opening_writes_all_rows_at_once),
        TEST(test_leases),
        TEST(test_nothing_is_leased_before_the_learner_knows),
        TEST(test_only_members_of_this_epoch),
        TEST(test_stale_leases_are_revoked),
        TEST(test_killed_worker_counts_nothing),
        TEST(test_third_crash_alone_fails_and_is_replaced),
        TEST(test_too_many_failures_stop_the_run),
        TEST(test_waits_for_a_ready_actor),
        TEST(test_plan_commit_next),
        TEST(test_committed_must_name_every_episode),
        TEST(test_failed_plan), TEST(test_unknown_version), TEST(test_overlap_with_staleness_1),
        TEST(test_gate_and_swap),
        TEST(test_restart_makes_the_same_plan),
        TEST(test_restart_lets_workers_announce_first),
        TEST(test_drain), TEST(test_drain_one_member), TEST(test_a_later_life_takes_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
