/* test_conductor_leases.c - the conductor's rules: who is given what, when not everybody can play everything. */
#include "tests/harness/conductor_desk.h"

/* ---- suspected episodes ------------------------------------------------------------------------------------------ */

/* A life that begins with two open demonstrations, the first of them suspected. */
static void restarted(struct desk *d)
{
    static struct ledger_stage stage = {.state = PROGRESS_OPEN};
    static struct ledger_version version_0 = {.gate_passed = true, .dir = "policies/v000000"};
    static struct ledger_iteration iteration = {.purpose = EPISODE_DEMO, .state = PROGRESS_OPEN, .first_episode = 1,
                                                .last_episode = 2};
    static struct ledger_episode rows[2] = {{.episode = 1, .purpose = EPISODE_DEMO, .suspect = true},
                                            {.episode = 2, .purpose = EPISODE_DEMO}};
    struct conductor_restored restored = {
        .stages = &stage, .n_stages = 1, .iterations = &iteration, .n_iterations = 1, .episodes = rows, .n_episodes = 2,
        .versions = &version_0, .n_versions = 1, .memory = "next_episode 3\niteration 1\n", .memory_size = 27,
    };

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    desk_start(d, &restored, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, 0, 0, 2, NULL, 0);
}

static void announce(struct desk *d, const struct held_lease *held, size_t n)
{
    struct member member = {.role = MEMBER_WORKER, .instance = 10, .slots = 4, .pid = 10, .host = "here"};

    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HELLO, .hello = {.member = member, .leases = held, .n_leases = n}});
    assert_int_equal(desk_find(d, CONDUCTOR_WELCOME)->welcome.n_kept, n);
    d->member[WORKER] = desk_find(d, CONDUCTOR_WELCOME)->welcome.member;
    d->now_ms += 2000;
}

/* What a worker plays alone it still plays alone after a restart of the coordinator: nothing comes beside it, a crash counts. */
static void test_adopted_alone(void **state)
{
    struct desk *d = *state;
    struct held_lease held = {1, (uint64_t)(EPOCH - 1) << 32 | 5, 7, false, 0};

    restarted(d);
    announce(d, &held, 1);
    assert_int_equal(desk_request(d, WORKER, 3)->grant.n_leases, 0);
    desk_worker_exits(d, 10, true);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 1);
}

/* It was given to this worker before it was suspected: it does not play it alone. */
static void test_adopted_beside_another(void **state)
{
    struct desk *d = *state;
    struct held_lease held[] = {{1, (uint64_t)(EPOCH - 1) << 32 | 5, 7, false, 0},
                                {2, (uint64_t)(EPOCH - 1) << 32 | 6, 7, false, 0}};

    restarted(d);
    announce(d, held, 2);
    desk_worker_exits(d, 10, true);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
}

/* It says Hello again with an earlier lease of what it holds: that is over, and so is the one on our books. */
static void test_another_fence(void **state)
{
    struct desk *d = *state;
    struct held_lease held = {.episode = 1};
    struct member member = {.role = MEMBER_WORKER, .instance = 10, .slots = 4, .pid = 10, .host = "here"};

    desk_demos(d, 2);
    held.fence = desk_request(d, WORKER, 1)->grant.leases[0].fence - 1;
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HELLO, .hello = {.member = member, .leases = &held, .n_leases = 1}});
    assert_int_equal(desk_find(d, CONDUCTOR_WELCOME)->welcome.n_kept, 0);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.n_leases, 2);
}

/* Its operator took its key: what it played is under no suspicion, and is played beside others. */
static void test_of_a_worker_that_was_shut_out(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;

    desk_demos(d, 2);
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 2);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_EXIT, .member = d->member[WORKER], .exit.shut_out = true});
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_FAILURE), 0);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    grant = desk_request(d, WORKER, 2);
    assert_true(grant->grant.n_leases == 2 && !grant->grant.leases[0].alone);
}

static void test_nothing_for_no_slots(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 2);
    (void)desk_request(d, WORKER, 1);
    desk_worker_exits(d, 10, true);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    assert_int_equal(desk_request(d, WORKER, 0)->grant.n_leases, 0);
    assert_true(desk_request(d, WORKER, 1)->grant.leases[0].alone);
}

/* One after the other: who has delivered what it played alone comes back as soon as the learner may have said so, and not a second
 * later for each. */
static void test_suspects_follow_one_another(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;
    uint32_t usual;

    desk_demos(d, 2);
    (void)desk_request(d, WORKER, 4);
    desk_worker_exits(d, 10, true);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    grant = desk_request(d, WORKER, 4);
    assert_true(grant->grant.n_leases == 1 && grant->grant.leases[0].alone);
    grant = desk_request(d, WORKER, 3);             /* one slot plays it */
    assert_int_equal(grant->grant.n_leases, 0);
    usual = grant->grant.retry_ms;
    grant = desk_request(d, WORKER, 4);             /* it was delivered */
    assert_int_equal(grant->grant.n_leases, 0);
    assert_true(grant->grant.retry_ms > 0 && grant->grant.retry_ms < usual);
}

/* Up to twice a worker's slots: what it has delivered is on our books until the learner has told us. */
static void test_twice_its_slots(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;

    desk_demos(d, 14);
    grant = desk_request(d, WORKER, 4);
    assert_true(grant->grant.n_leases == 4 && grant->grant.retry_ms == 0);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.n_leases, 4);
    grant = desk_request(d, WORKER, 4);
    assert_true(grant->grant.n_leases == 0 && grant->grant.retry_ms > 0);
    desk_journaled(d, 3, true);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.n_leases, 1);
}

/* A worker that was cut off while it played alone takes back what was counted for that, once, and nobody else's. */
static void test_cut_off_twice(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 1);
    (void)desk_request(d, WORKER, 1);
    desk_worker_exits(d, 10, true);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    assert_true(desk_request(d, WORKER, 1)->grant.leases[0].alone);
    for (int lost = 0; lost < 2; lost++) {
        for (int s = 0; s < 61; s++) {
            d->now_ms += 1000;
            desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_TICK});
        }
        desk_hello(d, WORKER, MEMBER_WORKER, 11);
        if (lost == 0)
            assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
        else
            assert_null(desk_find(d, CONDUCTOR_EPISODE_FAILURE));
        if (lost == 0) {
            desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
            assert_true(desk_request(d, WORKER_2, 1)->grant.leases[0].alone);
            desk_worker_exits(d, 20, true);
            assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 1);
        }
    }
}

/* ---- workers that cannot play ---------------------------------------------------------------------------------- */

static void give_back(struct desk *d, uint32_t name, const struct lease_terms *terms, enum lease_return reason)
{
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_LEASE_RETURN, .member = d->member[name], .lease_return = {
        terms->episode, terms->fence, reason, "act: no server answers"}});
}

/* The only episode that is granted. */
static struct lease_terms granted(struct desk *d, uint32_t name, uint32_t slots)
{
    const struct conductor_effect *grant = desk_request(d, name, slots);

    assert_int_equal(grant->grant.n_leases, 1);
    return grant->grant.leases[0];
}

/* A worker that reaches no actor holds on to each episode for seconds before it gives it back: the last ones of a pass would come
 * to it again and again, as it asks soonest. It comes after those that have room, until an episode of it has come in. */
static void test_a_worker_that_no_server_answers(void **state)
{
    struct desk *d = *state;
    struct lease_terms terms;
    struct journaled_episode played = desk_played(1, true);

    desk_demos(d, 2);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    terms = granted(d, WORKER, 1);
    give_back(d, WORKER, &terms, LEASE_GIVEN_BACK);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text, "act: no server answers"));
    (void)granted(d, WORKER_2, 1);
    terms = granted(d, WORKER, 1);                              /* the other has all that it wanted */
    give_back(d, WORKER, &terms, LEASE_GIVEN_BACK);
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));             /* said once */
    terms = granted(d, WORKER_2, 3);                            /* and wants more */
    give_back(d, WORKER_2, &terms, LEASE_SERVER_ERROR);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    d->now_ms += 1000;
    terms = granted(d, WORKER_2, 3);
    assert_int_equal(terms.episode, 2);
    give_back(d, WORKER_2, &terms, LEASE_SERVER_ERROR);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    played.member = d->member[WORKER];                          /* something of it comes in after all */
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_JOURNALED, .member = d->member[LEARNER],
                                           .journaled = {d->stage, d->iteration, &played, 1}});
    assert_int_equal(granted(d, WORKER, 1).episode, 2);
}

/* The same when the actor's silence lasts longer than the lease. */
static void test_a_worker_whose_lease_runs_out(void **state)
{
    struct desk *d = *state;
    struct lease_terms terms;
    struct held_lease held;

    desk_demos(d, 1);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    terms = granted(d, WORKER, 1);
    held = (struct held_lease) {.episode = terms.episode, .fence = terms.fence};
    for (int second = 1; second < 60; second++) {               /* of first_step_ms */
        d->now_ms += 1000;
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER],
                                               .heartbeat = {.leases = &held, .n_leases = 1}});
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER]});
        assert_int_equal(desk_request(d, WORKER_2, 1)->grant.n_leases, 0);
    }
    d->now_ms += 1000;
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_TICK});
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    (void)granted(d, WORKER_2, 1);
}

/* Nobody waits for one that is given nothing itself, does not ask any more, or cannot either. */
static void test_all_workers_that_no_server_answers(void **state)
{
    struct desk *d = *state;
    struct lease_terms terms;

    desk_demos(d, 2);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    terms = granted(d, WORKER, 1);
    (void)granted(d, WORKER_2, 4);
    give_back(d, WORKER, &terms, LEASE_GIVEN_BACK);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = d->member[WORKER_2], .cordon.on = true});
    terms = granted(d, WORKER, 1);
    give_back(d, WORKER, &terms, LEASE_GIVEN_BACK);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = d->member[WORKER_2]});
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    d->now_ms += 3000;                                          /* it has not asked again */
    terms = granted(d, WORKER, 1);
    give_back(d, WORKER, &terms, LEASE_GIVEN_BACK);
    terms = granted(d, WORKER_2, 4);
    give_back(d, WORKER_2, &terms, LEASE_GIVEN_BACK);
    (void)granted(d, WORKER, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_adopted_alone),
        TEST(test_adopted_beside_another),
        TEST(test_another_fence),
        TEST(test_of_a_worker_that_was_shut_out),
        TEST(test_nothing_for_no_slots),
        TEST(test_suspects_follow_one_another),
        TEST(test_twice_its_slots),
        TEST(test_cut_off_twice),
        TEST(test_a_worker_that_no_server_answers),
        TEST(test_a_worker_whose_lease_runs_out),
        TEST(test_all_workers_that_no_server_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
