/* test_conductor_learner.c - the conductor's rules: what the learner's word changes, and what it may not. */
#include "tests/harness/conductor_desk.h"

/* ---- journaled, inventory ---------------------------------------------------------------------------------------- */

static const struct member *member_of(const struct desk *d, uint32_t name)
{
    const struct membership *members = conductor_members(d->c);

    for (size_t i = 0; i < members->n; i++)
        if (members->items[i].id == d->member[name])
            return &members->items[i];
    fail_msg("no member %u", d->member[name]);
    return NULL;
}

static void test_what_is_said_of_an_episode(void **state)
{
    struct desk *d = *state;
    struct journaled_episode said = {.episode = 2, .digest = {2, 1}, .success = true, .timeout = true, .steps = 39, .reward = .5f,
                                     .progress_end = .25f};
    const struct ledger_episode *row;
    uint64_t fence;

    desk_demos(d, 2);
    said.member = d->member[WORKER];
    fence = desk_request(d, WORKER, 1)->grant.leases[0].fence;
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_LEASE_RETURN, .member = said.member,
                                           .lease_return = {1, fence, LEASE_SIMULATOR_ERROR, "its simulator failed"}});
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
    assert_int_equal(member_of(d, WORKER)->failed, 1);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_JOURNALED, .member = d->member[LEARNER],
                                           .journaled = {d->stage, d->iteration, &said, 1}});
    row = &desk_find(d, CONDUCTOR_EPISODE_JOURNALED)->episode;
    assert_true(row->episode == 2 && row->state == EPISODE_JOURNALED && row->success && row->timeout && row->steps == 39);
    assert_true(row->member == said.member && row->reward == .5f && row->progress_end == .25f);
    assert_memory_equal(row->digest, said.digest, SHA256_SIZE);
    assert_true(member_of(d, WORKER)->delivered == 1 && member_of(d, WORKER)->failed == 0);     /* it can play, after all */
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
}

/* An inventory may have been drawn up before what the same process called durable since: nothing is played again for that. Nor
 * for what another process has said, once: that it lacks it is believed of one that has never had it. */
static void test_said_once_by_this_process(void **state)
{
    struct journaled_episode first = desk_played(1, true);
    struct desk *d = *state;

    desk_demos(d, 3);
    desk_journaled(d, 1, true);
    desk_journaled(d, 2, true);
    desk_confirm(d);
    assert_null(desk_find(d, CONDUCTOR_EPISODE_REOPENED));
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);
    first.digest[9] ^= 1;                                       /* other bytes than the first one's: noted, and it has them */
    desk_inventory(d, d->stage, d->iteration, 3, &first, 1);
    assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.kind, "digest");
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_REOPENED), 1);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_REOPENED)->episode.episode, 2);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_EPISODE_REOPENED)->episode.reason, "not in the learner's journal"));
    desk_journaled(d, 1, true);
    desk_confirm(d);
    assert_null(desk_find(d, CONDUCTOR_EPISODE_REOPENED));
}

/* The checkpoint that a run begins with is the one whose manifest the learner has. */
static void test_version_0(void **state)
{
    struct conductor_event event = {.kind = CONDUCTOR_INVENTORY,
                                    .inventory = {.stage = LEDGER_ALL, .iteration = LEDGER_ALL, .policy_digest = {4, 5}}};
    const struct ledger_version *version;
    struct desk *d = *state;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 1;
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    event.member = d->member[LEARNER];
    desk_step(d, event);
    version = &desk_find(d, CONDUCTOR_ADD_VERSION)->version;
    assert_true(version->kind == KIND_POLICY && version->number == 0 && version->gate_passed);
    assert_string_equal(version->dir, "policies/v000000");
    assert_memory_equal(version->digest, event.inventory.policy_digest, SHA256_SIZE);
    desk_step(d, event);
    assert_null(desk_find(d, CONDUCTOR_ADD_VERSION));
}

/* Rows are leased when the learner has named their iteration, with as many rows as it has. */
static void test_another_iteration_is_not_this_one(void **state)
{
    struct desk *d = *state;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) {.episodes = 2, .style = "slow", .max_steps = 40};
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    desk_inventory(d, d->stage + 1, d->iteration, 2, NULL, 0);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    desk_inventory(d, d->stage, d->iteration + 1, 2, NULL, 0);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    desk_inventory(d, d->stage, d->iteration, 1, NULL, 0);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    desk_confirm(d);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 1);
}

/* ---- plans ---------------------------------------------------------------------------------------------------------- */

/* An rl pass of three, all of it journaled: its plan. */
static struct conductor_plan planned(struct desk *d)
{
    desk_rl(d, 3, 0);
    for (uint64_t id = 1; id <= 3; id++)
        desk_journaled(d, id, true);
    return desk_find(d, CONDUCTOR_PLAN)->plan;
}

/* A learner that does not know the plan is told at once; one that does is left to it. */
static void test_the_plan_is_known(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan = planned(d);
    struct conductor_event event = {.kind = CONDUCTOR_INVENTORY, .member = d->member[LEARNER],
                                    .inventory = {.stage = d->stage, .iteration = d->iteration, .rows = 3}};

    memcpy(event.inventory.plan_digest, plan.digest, SHA256_SIZE);
    desk_step(d, event);
    assert_null(desk_find(d, CONDUCTOR_PLAN));
    assert_null(desk_find(d, CONDUCTOR_PUT_ITERATION));         /* nothing is missing: it stays planned */
    event.inventory.plan_digest[0] ^= 1;
    desk_step(d, event);
    assert_memory_equal(desk_find(d, CONDUCTOR_PLAN)->plan.digest, plan.digest, SHA256_SIZE);
}

struct lists { uint64_t trained[4], filtered[4], stale[4]; size_t n_trained, n_filtered, n_stale; };

static void commit(struct desk *d, const struct conductor_plan *plan, const struct lists *lists, uint64_t number)
{
    struct conductor_event event = {
        .kind = CONDUCTOR_COMMITTED, .member = d->member[LEARNER], .wall_ms = 77000,
        .committed = {.version = {.kind = plan->kind, .number = number, .gate_passed = true, .digest = {9},
                                  .stage = 5, .iteration = 6},
                      .trained = lists->trained, .n_trained = lists->n_trained, .filtered = lists->filtered,
                      .n_filtered = lists->n_filtered, .stale = lists->stale, .n_stale = lists->n_stale},
    };

    memcpy(event.committed.plan_digest, plan->digest, SHA256_SIZE);
    desk_step(d, event);
}

static void test_each_list_is_an_end(void **state)
{
    static const struct lists lists = {.trained = {2}, .filtered = {3}, .stale = {1},
                                       .n_trained = 1, .n_filtered = 1, .n_stale = 1};
    static const enum episode_state ends[] = {EPISODE_STALE, EPISODE_TRAINED, EPISODE_FILTERED};
    struct desk *d = *state;
    struct conductor_plan plan = planned(d);
    const struct ledger_version *version;
    struct conductor_event failed = {.kind = CONDUCTOR_PLAN_FAILED, .plan_failed = {.text = "no space left"}};
    struct conductor_status status;

    memcpy(failed.plan_failed.plan_digest, plan.digest, SHA256_SIZE);
    failed.member = d->member[LEARNER];
    desk_step(d, failed);
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
    commit(d, &plan, &lists, 2);                                /* a number that was not planned */
    assert_non_null(desk_find(d, CONDUCTOR_REFUSE));
    assert_null(desk_find(d, CONDUCTOR_EPISODE_ENDED));
    commit(d, &plan, &lists, 1);
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_ENDED), 3);
    for (size_t i = 0; i < d->out.n; i++) {
        const struct ledger_episode *row = &d->out.items[i].episode;

        if (d->out.items[i].kind != CONDUCTOR_EPISODE_ENDED)
            continue;
        assert_int_equal(row->state, ends[row->episode - 1]);
        assert_string_equal(row->reason, row->episode == 1 ? "played by too old a policy" : "");
    }
    version = &desk_find(d, CONDUCTOR_ADD_VERSION)->version;
    assert_true(version->stage == d->stage && version->iteration == plan.iteration && version->committed_ms == 77000);
    conductor_status(d->c, &status);
    assert_string_equal(status.trouble, "");                    /* the last try at it has not failed */
    plan.digest[0] ^= 1;
    commit(d, &plan, &lists, 1);                                /* said again, of whatever plan: it is known */
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_COMMITTED, .member = d->member[LEARNER],
                                           .committed = {.version = {.number = 1, .digest = {8}}}});
    assert_non_null(desk_find(d, CONDUCTOR_REFUSE));            /* other bytes under that number */
}

static void test_a_gate_that_is_not_passed(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;
    size_t said = 0;

    desk_add_stage(d, STAGE_PRM, "prm");
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    d->gate_text = "AUROC 0.41, the gate wants 0.8";
    desk_committed(d, &plan, NULL, 0, false);
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == CONDUCTOR_ADD_EVENT && !strcmp(d->out.items[i].text.kind, "gate")) {
            assert_string_equal(d->out.items[i].text.text,
                                "PRM version 1 did not pass, version 0 goes on: AUROC 0.41, the gate wants 0.8");
            said++;
        }
    assert_int_equal(said, 1);
}

/* What does not name each episode of the plan once is refused as a whole, and ends the run: somebody's books are wrong. */
static void test_lists_that_do_not_add_up(void **state)
{
    static const struct lists wrong[] = {
        {.trained = {1, 2}, .n_trained = 2}, {.trained = {1, 2, 2}, .n_trained = 3},
        {.trained = {1, 2}, .stale = {2}, .n_trained = 2, .n_stale = 1}, {.trained = {1, 2, 9}, .n_trained = 3},
        {.trained = {1, 2, 3}, .filtered = {3}, .n_trained = 3, .n_filtered = 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct desk *d = *state;
        struct conductor_plan plan = planned(d);

        commit(d, &plan, &wrong[i], 1);
        assert_non_null(strstr(desk_find(d, CONDUCTOR_REFUSE)->refuse.text, "do not name each episode of the plan once"));
        assert_non_null(desk_find(d, CONDUCTOR_STOPPED));
        assert_null(desk_find(d, CONDUCTOR_EPISODE_ENDED));
        assert_null(desk_find(d, CONDUCTOR_ADD_VERSION));
        assert_int_equal(desk_tear_down(state), 0);
        assert_int_equal(desk_set_up(state), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_said_of_an_episode),
        TEST(test_said_once_by_this_process),
        TEST(test_version_0),
        TEST(test_another_iteration_is_not_this_one),
        TEST(test_the_plan_is_known),
        TEST(test_each_list_is_an_end),
        TEST(test_a_gate_that_is_not_passed),
        TEST(test_lists_that_do_not_add_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
