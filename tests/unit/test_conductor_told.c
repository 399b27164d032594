/* test_conductor_told.c - the conductor's rules: what members and the learner are told, each of them all of it. */
#include "tests/harness/conductor_desk.h"

/* ---- members --------------------------------------------------------------------------------------------------------- */

static const struct conductor_effect *heartbeat(struct desk *d, uint32_t name, uint64_t revision)
{
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .from = 70 + name, .request = 9,
                                           .member = d->member[name], .heartbeat.revision = revision});
    return desk_find(d, CONDUCTOR_HEARTBEAT_REPLY);
}

static void test_welcome_and_heartbeat(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *reply;
    uint64_t revision;

    desk_demos(d, 2);
    reply = desk_find(d, CONDUCTOR_WELCOME);
    assert_true(reply->to == WORKER && reply->request == 1 && reply->welcome.epoch == EPOCH && reply->welcome.n_kept == 0);
    revision = conductor_members(d->c)->revision;
    reply = heartbeat(d, WORKER, revision);
    assert_true(reply->to == 70 + WORKER && reply->request == 9 && reply->member == d->member[WORKER]);
    assert_true(reply->heartbeat.known && !reply->heartbeat.drain && !reply->heartbeat.sent_away);
    assert_true(reply->heartbeat.revision == revision && !reply->heartbeat.endpoints_changed);
    assert_true(heartbeat(d, WORKER, revision - 1)->heartbeat.endpoints_changed);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);
    assert_false(heartbeat(d, LEARNER, revision)->heartbeat.known);     /* its inventory is wanted first */
    desk_confirm(d);
    assert_true(heartbeat(d, LEARNER, revision)->heartbeat.known);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_DRAIN});
    assert_true(heartbeat(d, WORKER, revision)->heartbeat.drain);
    assert_false(heartbeat(d, LEARNER, revision)->heartbeat.drain);     /* workers first */
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_BYE, .member = d->member[WORKER]});
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
    assert_int_equal(membership_count(conductor_members(d->c), MEMBER_WORKER), 0);
}

/* A list that got lost, or was overtaken by an older one, comes again with each heartbeat: to the servers of its kind. */
static void test_versions_with_each_heartbeat(void **state)
{
    struct desk *d = *state;

    desk_rl(d, 1, 0);
    desk_hello(d, PRM, MEMBER_PRM, 50);
    for (int i = 0; i < 2; i++) {
        (void)heartbeat(d, ACTOR, 0);
        assert_int_equal(desk_count(d, CONDUCTOR_VERSIONS), 1);
        assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->to, 70 + ACTOR);
        assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.kind, KIND_POLICY);
    }
    (void)heartbeat(d, WORKER, 0);
    assert_null(desk_find(d, CONDUCTOR_VERSIONS));
    (void)heartbeat(d, PRM, 0);
    assert_null(desk_find(d, CONDUCTOR_VERSIONS));              /* there is no reward model */
}

/* What a worker plays is what it says it plays: the rest of what it was given is free, when it says Hello again at once, and when
 * heartbeats do not name it after three of them. */
static void test_what_it_does_not_play_is_free(void **state)
{
    struct member member = {.role = MEMBER_WORKER, .instance = 10, .slots = 4, .pid = 10, .host = "here"};
    struct desk *d = *state;
    const struct conductor_effect *grant;
    struct held_lease held;
    uint32_t other;

    desk_demos(d, 4);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    other = d->member[WORKER_2];
    assert_int_equal(desk_request(d, WORKER_2, 1)->grant.n_leases, 1);
    grant = desk_request(d, WORKER, 2);
    assert_int_equal(grant->grant.n_leases, 2);
    held = (struct held_lease) {.episode = 2, .fence = grant->grant.leases[0].fence};
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HELLO, .from = WORKER,
                                           .hello = {.member = member, .leases = &held, .n_leases = 1}});
    assert_int_equal(desk_find(d, CONDUCTOR_WELCOME)->welcome.n_kept, 1);
    assert_int_equal(lease_count(conductor_leases(d->c), d->member[WORKER]), 1);
    assert_int_equal(lease_count(conductor_leases(d->c), other), 1);
    assert_non_null(lease_find(conductor_leases(d->c), 2));
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 2);
    for (int i = 0; i < LEASE_UNMENTIONED; i++) {
        assert_int_equal(lease_count(conductor_leases(d->c), d->member[WORKER]), 3);
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .from = WORKER, .member = d->member[WORKER],
                                               .heartbeat = {.leases = &held, .n_leases = 1}});
    }
    assert_int_equal(lease_count(conductor_leases(d->c), d->member[WORKER]), 1);
    assert_non_null(lease_find(conductor_leases(d->c), 2));
    assert_int_equal(lease_count(conductor_leases(d->c), other), 1);
}

/* ---- the learner ------------------------------------------------------------------------------------------------------ */

static void test_open_says_all(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *open;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) {.episodes = 1, .style = "slow", .max_steps = 40};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    open = desk_find(d, CONDUCTOR_OPEN_ITERATION);
    assert_true(open->to == LEARNER && open->member == d->member[LEARNER] && open->open.purpose == EPISODE_DEMO);
    assert_true(open->open.keep && open->open.n_episodes == 1 && open->open.n_failed == 0);
    assert_string_equal(open->open.name, "demos");
    desk_confirm(d);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    for (int i = 0; i < 3; i++) {
        uint64_t fence = desk_request(d, WORKER, 1)->grant.leases[0].fence;

        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER],
                                               .lease_return = {1, fence, LEASE_SIMULATOR_ERROR, "mj_step: diverged"}});
    }
    open = desk_find(d, CONDUCTOR_OPEN_ITERATION);
    assert_true(open->open.n_episodes == 2 && open->open.n_failed == 1 && open->open.failed[0] == 1);
}

/* A benchmark's last state fails whoever plays it: when nothing is left to play instead, the second failure ends the run, however
 * few have failed. */
static void test_a_state_that_cannot_be_replaced(void **state)
{
    enum { STATES = 50 };
    struct desk *d = *state;
    struct eval_config *eval;

    snprintf(d->config.suite, sizeof d->config.suite, "libero_goal");
    d->config.n_tasks = 1;
    eval = &desk_add_stage(d, STAGE_EVAL, "eval")->eval;
    *eval = (struct eval_config) {.episodes = STATES, .n_policies = 1, .policies = {"0"}, .n_at = 1, .at = {1},
                                  .n_temperatures = 1, .temperatures = {1}};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    assert_int_equal(d->n_opened, STATES);
    desk_confirm(d);
    for (uint64_t id = 2; id <= STATES; id++)
        desk_journaled(d, id, true);
    for (int i = 0; i < 6; i++) {
        struct lease_terms terms;

        assert_null(desk_find(d, CONDUCTOR_STOPPED));
        desk_hello(d, WORKER, MEMBER_WORKER, 10 + (uint64_t)i);
        terms = desk_request(d, WORKER, 1)->grant.leases[0];
        assert_int_equal(terms.episode, i < 3 ? 1 : STATES + 1);
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER],
                                               .lease_return = {terms.episode, terms.fence, LEASE_SIMULATOR_ERROR, "mj_step"}});
        if (i == 2)
            desk_confirm(d);
    }
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text, "2 of 50 episodes failed"));
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text,
                           "1 reach/0, 51 reach/0 (mj_step)"));
}

/* All that is open is played, and durable. */
static void play_all(struct desk *d)
{
    const size_t n = d->n_opened;
    uint64_t ids[ARRAY_SIZE(d->opened)];

    memcpy(ids, d->opened, sizeof ids);
    desk_confirm(d);
    for (size_t i = 0; i < n; i++)
        desk_journaled(d, ids[i], true);
}

static void expect_stages(const struct conductor_plan *plan, const uint64_t *stages, size_t n)
{
    assert_int_equal(plan->n_stages, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(plan->stages[i], stages[i]);
}

/* demos, other demos, rollouts, and then a stage that trains on what was kept: its plan. */
static struct conductor_plan kept_plan(struct desk *d, enum stage_kind kind, enum sft_source from)
{
    desk_add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) {.episodes = 1, .style = "slow", .max_steps = 40};
    desk_add_stage(d, STAGE_DEMOS, "demos2")->demos = (struct demos_config) {.episodes = 1, .style = "clean", .max_steps = 40};
    desk_add_stage(d, STAGE_ROLLOUTS, "rollouts")->rollouts = (struct rollouts_config) {.episodes = 1, .temperature = 1};
    desk_add_stage(d, kind, "learn");
    if (kind == STAGE_SFT)
        d->config.stages[3].sft = (struct sft_config) {.steps = 1, .from = from};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    for (int i = 0; i < 3; i++)
        play_all(d);
    return desk_find(d, CONDUCTOR_PLAN)->plan;
}

/* Imitation is of the latest teacher, the latest rollouts, or both; a reward model learns from all of them. The plan's digest
 * says which. */
static void test_which_data_sets(void **state)
{
    static const struct { enum stage_kind kind; enum sft_source from; uint64_t stages[3]; size_t n; } cases[] = {
        {STAGE_SFT, SFT_DEMOS, {1}, 1}, {STAGE_SFT, SFT_ROLLOUTS, {2}, 1}, {STAGE_SFT, SFT_BOTH, {1, 2}, 2},
        {STAGE_PRM, SFT_DEMOS, {0, 1, 2}, 3},
    };
    uint8_t digests[ARRAY_SIZE(cases)][SHA256_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct conductor_plan plan = kept_plan(*state, cases[i].kind, cases[i].from);

        expect_stages(&plan, cases[i].stages, cases[i].n);
        assert_int_equal(plan.n_episodes, 0);
        memcpy(digests[i], plan.digest, SHA256_SIZE);
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(digests[k], digests[i], SHA256_SIZE);
        assert_int_equal(desk_tear_down(state), 0);
        assert_int_equal(desk_set_up(state), 0);
    }
}

/* A reward model that is refreshed learns from its rl stage's own episodes, too; a policy's update, from its pass alone. Each
 * rank of the learner is told, under the group's epoch; nobody else is. */
static void test_a_refresh(void **state)
{
    struct desk *d = *state;
    struct member rank_1 = {.role = MEMBER_LEARNER, .instance = 60, .rank = 1, .pid = 60, .host = "here"};
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) {.episodes = 1, .style = "slow", .max_steps = 40};
    desk_add_stage(d, STAGE_RL, "rl")->rl =
        (struct rl_config) {.iterations = 2, .episodes = 1, .temperature = 1, .prm_refresh = 1};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HELLO, .from = 6, .hello.member = rank_1});
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    play_all(d);
    play_all(d);
    assert_int_equal(desk_count(d, CONDUCTOR_PLAN), 2);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_true(plan.kind == KIND_POLICY && plan.n_episodes == 1 && plan.n_stages == 0 && plan.group_epoch == 1);
    desk_committed(d, &plan, plan.episodes, 1, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_true(plan.kind == KIND_PRM && plan.n_episodes == 0);
    expect_stages(&plan, (uint64_t[]) {0, 1}, 2);
}

/* A plan's digest is of all of each number: episodes of a long run are told from those of its first hours. */
static void test_large_numbers_are_in_the_digest(void **state)
{
    static const char *const memories[] = {"next_episode 1\niteration 0\n", "next_episode 257\niteration 0\n",
                                           "next_episode 72057594037927937\niteration 0\n"};
    uint8_t digests[ARRAY_SIZE(memories)][SHA256_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(memories); i++) {
        struct desk *d = *state;
        const struct ledger_version version_0 = {.gate_passed = true, .dir = "policies/v000000"};
        struct conductor_plan plan;

        desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) {.iterations = 1, .episodes = 1, .temperature = 1};
        desk_start(d, &(struct conductor_restored) {.versions = &version_0, .n_versions = 1, .memory = memories[i],
                                                    .memory_size = strlen(memories[i])}, EPOCH);
        desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
        desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
        desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
        desk_ready(d, ACTOR, KIND_POLICY, 0);
        play_all(d);
        plan = desk_find(d, CONDUCTOR_PLAN)->plan;
        assert_int_equal(plan.n_episodes, 1);
        memcpy(digests[i], plan.digest, SHA256_SIZE);
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(digests[k], digests[i], SHA256_SIZE);
        assert_int_equal(desk_tear_down(state), 0);
        assert_int_equal(desk_set_up(state), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_welcome_and_heartbeat),
        TEST(test_versions_with_each_heartbeat),
        TEST(test_what_it_does_not_play_is_free),
        TEST(test_open_says_all),
        TEST(test_a_state_that_cannot_be_replaced),
        TEST(test_which_data_sets),
        TEST(test_a_refresh),
        TEST(test_large_numbers_are_in_the_digest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
