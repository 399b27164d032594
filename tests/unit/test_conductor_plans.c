/* test_conductor_plans.c - the conductor's rules: iterations, plans and versions in their order, restarts, drain, disk loss. */
#include "tests/harness/conductor_desk.h"

#include <errno.h>

/* ---- iterations, plans, versions ------------------------------------------------------------------------------ */

static void test_plan_commit_next(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;
    char hex[SHA256_HEX];

    desk_rl(d, 3, 0);
    desk_journaled(d, 3, true);
    desk_journaled(d, 1, false);
    assert_null(desk_find(d, CONDUCTOR_PLAN));
    desk_journaled(d, 2, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.n_episodes, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(plan.episodes[i], i + 1);              /* id order, whatever order they came in */
    assert_int_equal(plan.version, 1);
    assert_string_equal(plan.parent_dir, "policies/v000000");
    assert_string_equal(plan.settings, desk_settings[0]);
    assert_memory_equal(desk_find(d, CONDUCTOR_PUT_ITERATION)->iteration.plan_digest, plan.digest, SHA256_SIZE);
    sha256_hex(plan.digest, hex);
    /* As earlier builds made it, whose plans are open in runs that go on with this one. */
    assert_string_equal(hex, "9e02f1a15eb551efff08d2b39e0298aec1652fdad12b329c9318ba83bd19fc83");

    desk_step(d, (struct conductor_event) {
        .kind = CONDUCTOR_COMMITTED, .member = d->member[LEARNER],
        .committed = { .version = { .number = 1 }, .plan_digest = { 9 } },
    });
    assert_non_null(desk_find(d, CONDUCTOR_REFUSE));                 /* of no plan of ours */

    desk_committed(d, &plan, (uint64_t[]) { 1, 2, 3 }, 3, true);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_ENDED), 3);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_TRAINED);
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.keep[0]->number, 1);
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));                /* staleness 0: not before an actor has version 1 */
    desk_committed(d, &plan, (uint64_t[]) { 1, 2, 3 }, 3, true);
    assert_non_null(desk_find(d, CONDUCTOR_ACK));                    /* our answer had got lost */
    assert_null(desk_find(d, CONDUCTOR_EPISODE_ENDED));
    desk_ready(d, ACTOR, KIND_POLICY, 1);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 3);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.policy_version, 1);
}

static void test_committed_must_name_every_episode(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    desk_rl(d, 2, 0);
    desk_journaled(d, 1, true);
    desk_journaled(d, 2, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    desk_committed(d, &plan, (uint64_t[]) { 1 }, 1, true);
    assert_non_null(desk_find(d, CONDUCTOR_REFUSE));
    assert_non_null(desk_find(d, CONDUCTOR_STOPPED));
    assert_null(desk_find(d, CONDUCTOR_EPISODE_ENDED));
}

static void test_failed_plan(void **state)
{
    struct desk *d = *state;
    struct conductor_event event = { .kind = CONDUCTOR_PLAN_FAILED, .plan_failed = { .text = "no space left" } };
    struct conductor_status status;

    desk_rl(d, 1, 0);
    desk_journaled(d, 1, true);
    event.member = d->member[LEARNER];
    event.plan_failed.final = true;
    desk_step(d, event);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));                    /* of no plan that is open */
    desk_journaled(d, 1, true);
    d->now_ms += 5000;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER] });
    memcpy(event.plan_failed.plan_digest, desk_find(d, CONDUCTOR_PLAN)->plan.digest, SHA256_SIZE);
    event.plan_failed.final = false;
    desk_step(d, event);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));                    /* it is tried again */
    assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text, "rl/1: no space left");
    conductor_status(d->c, &status);
    assert_string_equal(status.trouble, "no space left");
    event.plan_failed.final = true;
    desk_step(d, event);
    assert_non_null(desk_find(d, CONDUCTOR_STOPPED));
    assert_string_equal(desk_find(d, CONDUCTOR_STOPPED)->text.text, "rl/1: no space left");     /* by its name: people count from 1 */
}

/* An evaluation of a version that never was does not wait for it for ever. */
static void test_unknown_version(void **state)
{
    struct desk *d = *state;
    struct eval_config *eval = &desk_add_stage(d, STAGE_EVAL, "eval")->eval;

    *eval = (struct eval_config){
        .episodes = 2, .n_policies = 1, .policies = {"99"}, .n_temperatures = 1, .temperatures = {1}, .val_episodes = 2};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text, "policy version 99 was never committed"));
}

static void test_overlap_with_staleness_1(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    desk_rl(d, 2, 1);
    desk_journaled(d, 1, true);
    desk_journaled(d, 2, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 2);       /* the next is rolled out while this one trains */
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.policy_version, 0);
    desk_confirm(d);
    desk_journaled(d, 3, true);
    desk_journaled(d, 4, true);
    assert_null(desk_find(d, CONDUCTOR_PLAN));                       /* one after the other */
    desk_committed(d, &plan, (uint64_t[]) { 1, 2 }, 2, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.parent, 1);
    assert_int_equal(plan.episodes[0], 3);
}

/* Groups whose returns are all alike have others drawn, which the learner hears of before they are leased; then all of them are
 * planned. */
static void test_groups_that_teach_nothing(void **state)
{
    struct desk *d = *state;

    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) {
        .iterations = 1, .episodes = 4, .temperature = 1, .group = 2, .advantage = ADVANTAGE_RLOO, .dynamic_sampling = 1};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    desk_confirm(d);
    for (uint64_t id = 1; id <= 4; id++) {
        assert_null(desk_find(d, CONDUCTOR_PLAN));
        desk_journaled(d, id, true);
    }
    assert_null(desk_find(d, CONDUCTOR_PLAN));
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 4);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.episode, 5);
    assert_int_equal(desk_find(d, CONDUCTOR_OPEN_ITERATION)->open.n_episodes, 8);
    assert_non_null(desk_find(d, CONDUCTOR_PUT_BLOB));              /* the numbers that were taken */
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    desk_confirm(d);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.leases[0].episode, 5);
    for (uint64_t id = 5; id <= 8; id++)
        desk_journaled(d, id, true);
    assert_int_equal(desk_find(d, CONDUCTOR_PLAN)->plan.n_episodes, 8);     /* once, as it was set */
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));
}

/* Who was cordoned, or drained, is so in the coordinator's next life, as long as its process lives: that was answered. */
static void test_cordon_and_drain_outlive_us(void **state)
{
    struct desk *d = *state;
    struct strbuf text = STRBUF_INIT;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = d->member[WORKER], .cordon.on = true});
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_DRAIN_MEMBER, .member = d->member[WORKER_2]});
    assert_non_null(desk_find(d, CONDUCTOR_PUT_BLOB));                      /* before anybody is told */
    assert_int_equal(plan_memory_write(conductor_memory(d->c), &text), 0);
    desk_start(d, &(struct conductor_restored) {.memory = text.text, .memory_size = text.length}, EPOCH + 1);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    assert_true(conductor_members(d->c)->items[0].cordoned);
    assert_false(conductor_members(d->c)->items[0].leaving);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    assert_false(conductor_members(d->c)->items[1].cordoned);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER_2], .epoch = EPOCH + 1});
    assert_true(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.sent_away);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_BYE, .member = d->member[WORKER_2], .epoch = EPOCH + 1});
    desk_worker_exits(d, 10, false);
    assert_int_equal(conductor_memory(d->c)->cordoned.n, 0);
    assert_int_equal(conductor_memory(d->c)->leaving.n, 0);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    assert_false(conductor_members(d->c)->items[conductor_members(d->c)->n - 1].cordoned);
    strbuf_release(&text);
}

/* In a run of weeks: the newest of them are remembered, in order, and read back as they were written. */
static void test_many_are_cordoned(void **state)
{
    enum { TOO_MANY = 2, ALL = PLAN_MEMBERS + TOO_MANY };
    struct strbuf text = STRBUF_INIT, again = STRBUF_INIT;
    const struct plan_members *list;
    struct plan_memory read;
    struct desk *d = *state;
    uint32_t member[ALL];

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    desk_start(d, NULL, EPOCH);
    list = &conductor_memory(d->c)->cordoned;
    for (uint32_t i = 0; i < ALL; i++) {
        desk_hello(d, WORKER, MEMBER_WORKER, 100 + i);
        member[i] = d->member[WORKER];
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = member[i], .cordon.on = true});
        assert_int_equal(list->n, MIN(i + 1, (uint32_t)PLAN_MEMBERS));
    }
    for (uint32_t i = 0; i < PLAN_MEMBERS; i++)
        assert_int_equal(list->instance[i], 100 + TOO_MANY + i);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = member[TOO_MANY + 1]});  /* again some */
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = member[TOO_MANY], .cordon.on = true});
    assert_int_equal(list->n, PLAN_MEMBERS - 1);
    for (uint32_t i = 0; i + 2 < PLAN_MEMBERS; i++)
        assert_int_equal(list->instance[i], 100 + TOO_MANY + 2 + i);
    assert_int_equal(list->instance[PLAN_MEMBERS - 2], 100 + TOO_MANY);             /* said again: the newest */
    assert_int_equal(plan_memory_write(conductor_memory(d->c), &text), 0);
    assert_int_equal(plan_memory_parse(text.text, text.length, &read, NULL), 0);
    assert_int_equal(plan_memory_write(&read, &again), 0);
    assert_string_equal(again.text, text.text);
    for (uint32_t i = 0; i < 2; i++)
        strbuf_addf(&text, "cordoned %u\n", i);
    assert_int_equal(plan_memory_parse(text.text, text.length, &read, NULL), -EBADMSG);     /* more than there can be */
    strbuf_release(&text);
    strbuf_release(&again);
}

/* Rollouts that are to be scored wait for the reward model; imitating them names their stage and moves no `sft`. */
static void test_filtered_imitation(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_PRM, "prm");
    desk_add_stage(d, STAGE_ROLLOUTS, "rollouts")->rollouts = (struct rollouts_config) { .episodes = 2, .temperature = 1,
                                                                                         .score = true };
    desk_add_stage(d, STAGE_SFT, "sft")->sft = (struct sft_config) { .steps = 1, .from = SFT_ROLLOUTS };
    desk_start(d, NULL, EPOCH);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_hello(d, PRM, MEMBER_PRM, 50);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    desk_committed(d, &plan, NULL, 0, true);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));
    desk_ready(d, PRM, KIND_PRM, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 1);
    desk_confirm(d);
    desk_journaled(d, 1, true);
    desk_journaled(d, 2, false);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.objective, WORK_SFT);
    assert_int_equal(plan.n_stages, 1);
    assert_int_equal(plan.stages[0], 1);
    desk_committed(d, &plan, NULL, 0, true);
    assert_int_equal(conductor_memory(d->c)->sft_version, 0);
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

    desk_rl(d, 2, 0);
    for (uint64_t id = 1; id <= 2; id++) {
        desk_journaled(d, id, true);
        rows[id - 1] = desk_find(d, CONDUCTOR_EPISODE_JOURNALED)->episode;
    }
    iteration = desk_find(d, CONDUCTOR_PUT_ITERATION)->iteration;
    memcpy(digest, desk_find(d, CONDUCTOR_PLAN)->plan.digest, SHA256_SIZE);
    assert_int_equal(plan_memory_write(conductor_memory(d->c), &memory), 0);
    restored.memory = memory.text;
    restored.memory_size = memory.length;

    desk_start(d, &restored, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);
    assert_memory_equal(desk_find(d, CONDUCTOR_PLAN)->plan.digest, digest, SHA256_SIZE);

    /* Its disk was lost: what is not in the inventory is played again, and the plan waits. */
    desk_inventory(d, 0, 0, 2, &(struct journaled_episode) { .episode = 1, .digest = { 1, 1 } }, 1);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_REOPENED), 1);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_REOPENED)->episode.episode, 2);
    assert_int_equal(desk_find(d, CONDUCTOR_PUT_ITERATION)->iteration.state, PROGRESS_OPEN);
    d->now_ms += 5000;
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 1);
    desk_journaled(d, 2, true);
    assert_memory_equal(desk_find(d, CONDUCTOR_PLAN)->plan.digest, digest, SHA256_SIZE);

    iteration.plan_digest[0] ^= 1;                              /* another configuration, say */
    d->c = conductor_free(d->c);
    assert_int_equal(
        conductor_new(&(struct conductor_setup){.config = &d->config, .stage_settings = desk_settings, .run = 8, .epoch = 4},
                      &d->c),
        0);
    assert_true(conductor_restore(d->c, &restored, 0, NULL) < 0);
}

static void inventory_on_disk(struct desk *d, uint64_t policy_version)
{
    desk_step(d, (struct conductor_event) {
        .kind = CONDUCTOR_INVENTORY, .member = d->member[LEARNER],
        .inventory = {.stage = 0, .iteration = 0, .rows = 2, .policy_version = policy_version, .prm_version = 0} });
}

/* What lies on the learner's disk when it joins: the version of the plan at hand, made before its Committed was heard, is
 * awaited; one that nobody planned is of another run. */
static void test_versions_on_the_learners_disk(void **state)
{
    struct journaled_episode other = desk_played(1, true);
    struct desk *d = *state;

    desk_rl(d, 2, 0);
    desk_journaled(d, 1, true);
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));
    desk_journaled(d, 1, true);                                 /* again: its acknowledgement was lost */
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));
    assert_null(desk_find(d, CONDUCTOR_EPISODE_JOURNALED));
    other.digest[5] ^= 1;
    desk_step(d, (struct conductor_event) {
        .kind = CONDUCTOR_JOURNALED, .member = d->member[LEARNER], .journaled = {d->stage, d->iteration, &other, 1}});
    assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.kind, "digest");
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.episode, 1);
    assert_null(desk_find(d, CONDUCTOR_EPISODE_JOURNALED));
    desk_journaled(d, 2, true);
    assert_int_equal(desk_find(d, CONDUCTOR_PLAN)->plan.version, 1);

    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);                 /* another process: an empty journal, and version 1 */
    inventory_on_disk(d, 1);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));
    assert_null(desk_find(d, CONDUCTOR_EPISODE_REOPENED));
    desk_hello(d, LEARNER, MEMBER_LEARNER, 42);                 /* one that has neither */
    inventory_on_disk(d, 0);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_REOPENED), 2);
    assert_int_equal(desk_find(d, CONDUCTOR_PUT_ITERATION)->iteration.state, PROGRESS_OPEN);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));
    inventory_on_disk(d, 1);                                    /* and now nothing is planned */
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text,
                           "policies/ holds version 1, the ledger knows none above 0: is the run directory put together"));
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
    struct held_lease held = { 2, (uint64_t)(EPOCH - 1) << 32 | 5, 7, false, 0 };
    struct conductor_event event = {
        .kind = CONDUCTOR_HELLO,
        .hello = {.member = {.role = MEMBER_WORKER, .instance = 5, .slots = 2}, .leases = &held, .n_leases = 1}};

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    desk_start(d, &restored, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, 0, 0, 2, NULL, 0);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    assert_int_equal(desk_request(d, WORKER_2, 2)->grant.n_leases, 0);
    desk_step(d, event);
    assert_int_equal(desk_find(d, CONDUCTOR_WELCOME)->welcome.n_kept, 1);
    d->now_ms += 2000;
    assert_int_equal(desk_request(d, WORKER_2, 2)->grant.n_leases, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_GRANT)->grant.leases[0].episode, 1);
}

/* It was stopped and is given up: what it has open ends, of what was played nothing is made, and the run has nothing left to do. */
static void test_a_dropped_evaluation(void **state)
{
    struct desk *d = *state;
    struct ledger_stage stage = { .state = PROGRESS_OPEN };
    struct ledger_version version_0 = { .gate_passed = true, .dir = "policies/v000000" };
    struct ledger_iteration iteration = {.purpose = EPISODE_EVAL, .state = PROGRESS_OPEN, .first_episode = 1, .last_episode = 3};
    struct ledger_episode rows[3];
    struct conductor_restored restored = {
        .stages = &stage, .n_stages = 1, .iterations = &iteration, .n_iterations = 1, .episodes = rows, .n_episodes = 3,
        .versions = &version_0, .n_versions = 1, .memory = "next_episode 4\niteration 1\n", .memory_size = 27,
    };
    struct journaled_episode there[] = { desk_played(1, true), desk_played(2, true) };
    struct eval_config *eval = &desk_add_stage(d, STAGE_EVAL, "later1")->eval;

    *eval = (struct eval_config){.episodes = 3, .policies = {"last", "0"}, .n_policies = 2, .n_at = 2, .n = {1}, .n_n = 1, .dropped = true};
    for (uint64_t i = 0; i < 3; i++)
        rows[i] = (struct ledger_episode){.episode = i + 1, .purpose = EPISODE_EVAL, .state = i ? EPISODE_OPEN : EPISODE_JOURNALED};
    memcpy(rows[0].digest, there[0].digest, SHA256_SIZE);
    desk_start(d, &restored, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_ENDED), 0);             /* the learner may have more than the ledger knows */
    desk_inventory(d, 0, 0, 3, there, 2);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_JOURNALED), 1);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_ENDED), 3);
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == CONDUCTOR_EPISODE_ENDED) {
            assert_int_equal(d->out.items[i].episode.state, EPISODE_FAILED);
            assert_string_equal(d->out.items[i].episode.reason, "its evaluation was dropped");
        }
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 0);               /* nobody stands in */
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_SCALAR), 0);
    assert_int_equal(desk_find(d, CONDUCTOR_PUT_ITERATION)->iteration.state, PROGRESS_DONE);
    assert_true(conductor_memory(d->c)->finished);                          /* without a pass of the other policy */
}

static void test_drain(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 3);
    (void)desk_request(d, WORKER, 1);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_DRAIN });
    assert_null(desk_find(d, CONDUCTOR_DRAINED));
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 0);
    assert_true(desk_find(d, CONDUCTOR_GRANT)->grant.drain);
    desk_journaled(d, 1, true);
    assert_non_null(desk_find(d, CONDUCTOR_DRAINED));
}

/* An update that fails is tried again, maybe for ever: a drain does not wait for what fails under it. */
static void test_drain_under_a_plan_that_fails(void **state)
{
    struct desk *d = *state;
    struct conductor_event failed = { .kind = CONDUCTOR_PLAN_FAILED, .plan_failed = { .text = "model.safetensors is not there" } };

    desk_rl(d, 1, 0);
    desk_journaled(d, 1, true);
    failed.member = d->member[LEARNER];
    memcpy(failed.plan_failed.plan_digest, desk_find(d, CONDUCTOR_PLAN)->plan.digest, SHA256_SIZE);
    desk_step(d, failed);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_DRAIN });
    assert_null(desk_find(d, CONDUCTOR_DRAINED));        /* it may come right this time */
    desk_step(d, failed);
    assert_non_null(desk_find(d, CONDUCTOR_DRAINED));
    assert_null(desk_find(d, CONDUCTOR_STOPPED));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plan_commit_next),
        TEST(test_committed_must_name_every_episode),
        TEST(test_failed_plan),
        TEST(test_unknown_version),
        TEST(test_overlap_with_staleness_1),
        TEST(test_groups_that_teach_nothing),
        TEST(test_cordon_and_drain_outlive_us),
        TEST(test_many_are_cordoned),
        TEST(test_filtered_imitation),
        TEST(test_restart_makes_the_same_plan),
        TEST(test_versions_on_the_learners_disk),
        TEST(test_restart_lets_workers_announce_first),
        TEST(test_a_dropped_evaluation),
        TEST(test_drain),
        TEST(test_drain_under_a_plan_that_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
