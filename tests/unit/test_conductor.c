/* test_conductor.c - the conductor's rules: rows, leases, episodes that go wrong. tests/sim plays all at once under faults. */
#include "tests/harness/conductor_desk.h"

/* ---- fixed work ------------------------------------------------------------------------------------------ */

static void test_opening_writes_all_rows_at_once(void **state)
{
    struct desk *d = *state;
    const struct ledger_episode *first;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos = (struct demos_config) { .episodes = 5, .style = "slow", .max_steps = 40 };
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 0);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 5);
    assert_int_equal(desk_count(d, CONDUCTOR_PUT_ITERATION), 1);
    assert_int_equal(desk_count(d, CONDUCTOR_PUT_BLOB), 1);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_VERSION), 1);       /* version 0, with the digest the learner names */
    assert_int_equal(desk_count(d, CONDUCTOR_OPEN_ITERATION), 1);
    first = &desk_find(d, CONDUCTOR_ADD_EPISODE)->episode;
    assert_int_equal(first->episode, 1);
    assert_string_equal(first->task, "reach");
    assert_int_equal(first->max_steps, 40);
    assert_int_equal(first->purpose, EPISODE_DEMO);
}

static void test_leases(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;

    desk_demos(d, 5);
    grant = desk_request(d, WORKER, 3);
    assert_int_equal(grant->grant.n_leases, 3);
    assert_int_equal(grant->grant.leases[0].episode, 1);
    assert_string_equal(grant->grant.leases[0].style, "slow");
    assert_int_equal(grant->grant.leases[0].fence >> 32, EPOCH);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.n_leases, 2);
    assert_true(desk_find(d, CONDUCTOR_GRANT)->grant.retry_ms > 0);
    desk_journaled(d, 2, true);
    assert_null(lease_find(conductor_leases(d->c), 2));
    assert_int_equal(desk_request(d, WORKER, 4)->grant.n_leases, 0); /* played rows are not free again */
}

/* What a member says of itself is no reason to end: it gets what there is, in answers that fit a message. */
static void test_a_worker_of_boundless_slots(void **state)
{
    struct desk *d = *state;
    struct conductor_event hello = {.kind = CONDUCTOR_HELLO, .from = 1, .request = 7, .hello.member = {
        .role = MEMBER_WORKER, .instance = 11, .slots = UINT32_MAX, .host = "there", .pid = 9}};

    desk_demos(d, 60);
    desk_step(d, hello);
    d->member[WORKER_2] = desk_find(d, CONDUCTOR_WELCOME)->welcome.member;
    assert_in_range(desk_request(d, WORKER_2, UINT32_MAX)->grant.n_leases, 1, 60);
    for (int i = 0; i < 60 && desk_find(d, CONDUCTOR_GRANT)->grant.n_leases; i++)
        (void)desk_request(d, WORKER_2, UINT32_MAX);
    assert_int_equal(conductor_leases(d->c)->n, 60);
}

static void test_nothing_is_leased_before_the_learner_knows(void **state)
{
    struct desk *d = *state;

    desk_add_stage(d, STAGE_DEMOS, "demos")->demos.episodes = 2;
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 0);
    d->now_ms += 1500;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_non_null(desk_find(d, CONDUCTOR_OPEN_ITERATION));         /* said again */
    assert_null(desk_find(d, CONDUCTOR_SEND_WORK));
    desk_confirm(d);
    assert_int_equal(desk_count(d, CONDUCTOR_SEND_WORK), 1);         /* it need not wait until it would have asked again */
    assert_int_equal(desk_find(d, CONDUCTOR_SEND_WORK)->member, d->member[WORKER]);
    desk_confirm(d);
    assert_null(desk_find(d, CONDUCTOR_SEND_WORK));
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 2);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_CORDON, .member = d->member[WORKER], .cordon.on = true });
    assert_non_null(desk_find(d, CONDUCTOR_PUT_BLOB));               /* for our next life */
    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);
    desk_confirm(d);
    assert_null(desk_find(d, CONDUCTOR_SEND_WORK));                  /* who is cordoned would get none */
}

static void test_only_members_of_this_epoch(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 2);
    desk_step(d, (struct conductor_event){
                .kind = CONDUCTOR_LEASE_REQUEST, .member = d->member[WORKER], .epoch = EPOCH - 1, .lease_request = {1}});
    assert_int_equal(desk_find(d, CONDUCTOR_REFUSE)->refuse.why, REFUSE_STALE);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = 99 });
    assert_false(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.known);
}

/* Nobody says what is another role's to say. */
static void test_only_those_whose_word_it_is(void **state)
{
    static const struct { enum conductor_event_kind kind; uint32_t by; } words[] = {
        {CONDUCTOR_JOURNALED, WORKER}, {CONDUCTOR_INVENTORY, WORKER}, {CONDUCTOR_COMMITTED, WORKER},
        {CONDUCTOR_PLAN_FAILED, WORKER}, {CONDUCTOR_JOURNALED, ACTOR}, {CONDUCTOR_LEASE_REQUEST, LEARNER},
        {CONDUCTOR_LEASE_RETURN, LEARNER}, {CONDUCTOR_VERSION_STATE, WORKER}, {CONDUCTOR_VERSION_STATE, LEARNER},
        {CONDUCTOR_SHADOW_SCORED, ACTOR},
    };
    struct desk *d = *state;

    desk_demos(d, 2);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        desk_step(d, (struct conductor_event) { .kind = words[i].kind, .member = d->member[words[i].by] });
        assert_int_equal(desk_find(d, CONDUCTOR_REFUSE)->refuse.why, REFUSE_ROLE);
        assert_int_equal(desk_find(d, CONDUCTOR_REFUSE)->member, d->member[words[i].by]);
    }
    desk_journaled(d, 1, true);
    assert_non_null(desk_find(d, CONDUCTOR_ACK));
}

/* Another learner process: a group of its own, which is told what is open before anything more is leased. */
static void test_another_learner(void **state)
{
    struct desk *d = *state;
    uint64_t group;

    desk_demos(d, 2);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);
    group = desk_find(d, CONDUCTOR_PUT_GROUP_EPOCH)->group_epoch;
    assert_int_equal(desk_find(d, CONDUCTOR_OPEN_ITERATION)->member, d->member[LEARNER]);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 41);
    assert_null(desk_find(d, CONDUCTOR_PUT_GROUP_EPOCH));           /* the same, only cut off */
    desk_confirm(d);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 1);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 42);
    assert_int_equal(desk_find(d, CONDUCTOR_PUT_GROUP_EPOCH)->group_epoch, group + 1);
}

static void test_stale_leases_are_revoked(void **state)
{
    struct desk *d = *state;
    struct held_lease held;

    desk_demos(d, 2);
    held = (struct held_lease) { 1, desk_request(d, WORKER, 1)->grant.leases[0].fence - 1, 50, false, 0 };
    desk_step(d, (struct conductor_event){
                .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER], .heartbeat = {.leases = &held, .n_leases = 1}});
    assert_int_equal(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.n_revoked, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.revoked[0], 1);
}

/* ---- episodes that go wrong -------------------------------------------------------------------------------- */

static void test_killed_worker_counts_nothing(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;

    desk_demos(d, 3);
    (void)desk_request(d, WORKER, 2);
    desk_worker_exits(d, 10, false);
    assert_int_equal(conductor_leases(d->c)->n, 0);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
    for (uint64_t k = 0; k < 5; k++) {
        desk_hello(d, WORKER, MEMBER_WORKER, 11 + k);
        grant = desk_request(d, WORKER, 4);
        assert_int_equal(grant->grant.n_leases, 1);             /* alone now */
        assert_true(grant->grant.leases[0].alone);
        assert_int_equal(grant->grant.leases[0].episode, 1);
        assert_int_equal(desk_request(d, WORKER, 3)->grant.n_leases, 0);
        desk_worker_exits(d, 11 + k, false);
    }
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_ENDED), 0);
}

/* One worker is emptied for a suspected episode; when that one is cordoned, another is. */
static void test_cordoned_while_it_is_emptied(void **state)
{
    enum { WORKER_3 = ACTOR };
    struct desk *d = *state;

    desk_demos(d, 9);
    (void)desk_request(d, WORKER, 1);
    desk_worker_exits(d, 10, true);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    desk_hello(d, WORKER_3, MEMBER_WORKER, 30);
    assert_true(desk_request(d, WORKER, 1)->grant.leases[0].alone);
    assert_int_equal(desk_request(d, WORKER_2, 1)->grant.n_leases, 1);
    assert_int_equal(desk_request(d, WORKER_3, 1)->grant.n_leases, 1);
    desk_worker_exits(d, 11, false);
    assert_int_equal(desk_request(d, WORKER_2, 1)->grant.n_leases, 0);  /* it is emptied for episode 1 */
    assert_int_equal(desk_request(d, WORKER_3, 1)->grant.n_leases, 1);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_CORDON, .member = d->member[WORKER_2], .cordon.on = true});
    assert_int_equal(desk_request(d, WORKER_3, 1)->grant.n_leases, 0);
}

static void crash_alone(struct desk *d, uint64_t instance, uint64_t episode)
{
    desk_hello(d, WORKER, MEMBER_WORKER, instance);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.leases[0].episode, episode);
    desk_worker_exits(d, instance, true);
}

static void test_third_crash_alone_fails_and_is_replaced(void **state)
{
    struct desk *d = *state;
    const struct ledger_episode *new_row;

    desk_demos(d, 1);
    (void)desk_request(d, WORKER, 1);
    desk_worker_exits(d, 10, true);                                  /* in company or first: only suspected */
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
    crash_alone(d, 11, 1);
    crash_alone(d, 12, 1);
    assert_null(desk_find(d, CONDUCTOR_EPISODE_ENDED));
    crash_alone(d, 13, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_FAILED);
    assert_string_equal(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.reason, "signal 11");
    new_row = &desk_find(d, CONDUCTOR_ADD_EPISODE)->episode;
    assert_int_equal(new_row->episode, 2);
    assert_int_equal(new_row->replaces, 1);
    assert_string_equal(new_row->task, "reach");
    assert_int_equal(new_row->state_seed, 1);                   /* not the state that failed */
    desk_hello(d, WORKER, MEMBER_WORKER, 14);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.n_leases, 0);        /* the learner has not heard of it */
    desk_confirm(d);
    assert_int_equal(desk_request(d, WORKER, 4)->grant.leases[0].episode, 2);
    desk_journaled(d, 2, true);
    assert_non_null(desk_find(d, CONDUCTOR_FINISHED));
}

static void simulator_errors(struct desk *d, uint64_t episode)
{
    for (int i = 0; i < 3; i++) {
        const struct lease_terms *terms = desk_request(d, WORKER, 1)->grant.leases;
        uint64_t fence = terms->fence;

        assert_int_equal(terms->episode, episode);
        desk_step(d, (struct conductor_event){
                    .kind = CONDUCTOR_LEASE_RETURN,
                    .member = d->member[WORKER],
                    .lease_return = {episode, fence, LEASE_SIMULATOR_ERROR, "mj_step: diverged"},
                });
        desk_confirm(d);
    }
}

static void test_too_many_failures_stop_the_run(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 30);
    for (uint64_t episode = 1; episode <= 3; episode++)
        simulator_errors(d, episode);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));
    for (int i = 0; i < 3; i++) {
        uint64_t fence = desk_request(d, WORKER, 1)->grant.leases[0].fence;

        desk_step(d, (struct conductor_event){
                    .kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER],
                    .lease_return = {4, fence, LEASE_SIMULATOR_ERROR, "mj_step"}});
    }
    assert_non_null(desk_find(d, CONDUCTOR_STOPPED));
    assert_string_equal(desk_find(d, CONDUCTOR_STOPPED)->text.text,
                        "demos: 4 of 30 episodes failed (the env workers' logs say more; with that mended `gantry up` goes on): "
                        "1 reach/0, 2 open/1, 3 reach/2 (mj_step: diverged); 4 open/3 (mj_step)");
    desk_confirm(d);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 0);
}

/* One worker whose simulator fails whatever it is given takes no more from the others, or it would fail the whole run: it asks
 * soonest. It gets something as long as nobody else is there. */
static void test_an_ill_worker(void **state)
{
    struct desk *d = *state;
    const struct conductor_effect *grant;
    int n = 0;

    desk_demos(d, 30);
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    while ((grant = desk_request(d, WORKER, 1))->grant.n_leases) {
        const struct lease_terms *terms = grant->grant.leases;

        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER], .lease_return = {
            terms->episode, terms->fence, LEASE_SIMULATOR_ERROR, "no GPU any more"}});
        assert_null(desk_find(d, CONDUCTOR_STOPPED));
        if (desk_find(d, CONDUCTOR_ADD_EVENT))
            assert_non_null(strstr(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text, "its simulator failed in 3 episodes in a row"));
        n++;
        desk_confirm(d);
    }
    assert_int_equal(n, 7);             /* two episodes thrice, a third once */
    assert_int_equal(desk_request(d, WORKER_2, 1)->grant.n_leases, 1);
    desk_worker_exits(d, 20, false);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.n_leases, 1);
}

/* Ticks of a second, as long as the clock of the test goes on. */
static void wait_s(struct desk *d, int seconds)
{
    for (int i = 0; i < seconds; i++) {
        d->now_ms += 1000;
        desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    }
}

/* Three heartbeats without a word, less the time that looking may take. */
static void test_lost_after_three_heartbeats(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 3);
    d->now_ms += 1500;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER] });
    d->now_ms += 1400;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER] });
    d->now_ms += 1300;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_int_equal(membership_count(conductor_members(d->c), MEMBER_WORKER), 1);
    d->now_ms += 100;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_int_equal(membership_count(conductor_members(d->c), MEMBER_WORKER), 0);
    assert_int_equal(membership_count(conductor_members(d->c), MEMBER_LEARNER), 1);
    assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.kind, "lost");
}

/* The coordinator stood still (a full disk, SIGSTOP): what nobody could say meanwhile is held against nobody. */
static void test_time_that_stood_still(void **state)
{
    struct desk *d = *state;
    uint32_t worker;

    desk_demos(d, 3);
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 2);
    worker = d->member[WORKER];
    d->now_ms += 3600 * 1000;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_int_equal(lease_count(conductor_leases(d->c), worker), 2);
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));                 /* not lost, either */
    wait_s(d, 61);
    assert_int_equal(lease_count(conductor_leases(d->c), worker), 0);
}

/* A cold worker has a minute for its first step; one whose machine went away has not. */
static void test_lost_before_the_first_step(void **state)
{
    struct desk *d = *state;
    struct held_lease held;

    desk_demos(d, 3);
    held = (struct held_lease) { .episode = 1, .fence = desk_request(d, WORKER, 1)->grant.leases[0].fence };
    for (int s = 0; s < 50; s++) {
        d->now_ms += 1000;
        desk_step(d, (struct conductor_event){
                    .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER], .heartbeat = {.leases = &held, .n_leases = 1}});
    }
    assert_int_equal(conductor_leases(d->c)->n, 1);
    wait_s(d, 9);
    assert_int_equal(conductor_leases(d->c)->n, 1);
    wait_s(d, 1);
    assert_int_equal(conductor_leases(d->c)->n, 0);                 /* lease_ttl_ms after it was heard last */
}

/* Without a supervisor nobody says that a worker ended: lost while it played alone counts, until it comes back. */
static void test_lost_while_alone(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 1);
    (void)desk_request(d, WORKER, 1);
    wait_s(d, 61);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);
    assert_true(desk_request(d, WORKER, 1)->grant.leases[0].alone);
    wait_s(d, 61);
    desk_hello(d, WORKER, MEMBER_WORKER, 11);                       /* only cut off */
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, 0);
    for (uint64_t instance = 12; instance < 15; instance++) {
        desk_hello(d, WORKER, MEMBER_WORKER, instance);
        assert_true(desk_request(d, WORKER, 1)->grant.leases[0].alone);
        for (int i = 0; i < 61 && !desk_find(d, CONDUCTOR_EPISODE_FAILURE); i++)
            wait_s(d, 1);
        assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_FAILURE)->episode.failures, (int)instance - 11);
    }
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_FAILED);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.reason, "lost while it played this alone"));
}

/* A server's answers that cannot be used are no episode's fault; when nothing else comes the run stops. */
static void test_useless_servers_stop_the_run(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 30);
    for (int i = 0; i < 19; i++) {
        const struct lease_terms terms = desk_request(d, WORKER, 1)->grant.leases[0];

        desk_step(d, (struct conductor_event) {
            .kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER],
            .lease_return = {terms.episode, terms.fence, LEASE_SERVER_ERROR, "act: not finite"} });
        assert_null(desk_find(d, CONDUCTOR_EPISODE_FAILURE));
        assert_true(!desk_find(d, CONDUCTOR_STOPPED) == (i < 18));
        if (i == 8)
            desk_journaled(d, 30, true);                            /* something was played: they are of some use */
    }
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text, "10 in a row came back: act: not finite"));
}

/* ---- members that take over, leave, are sent away ------------------------------------------------------- */

/* -> NULL: refused. */
static const struct conductor_effect *named_hello(struct desk *d, uint32_t as, const char *name, uint64_t instance)
{
    struct member member = { .role = MEMBER_WORKER, .instance = instance, .slots = 4 };
    const struct conductor_effect *welcome;

    snprintf(member.name, sizeof(member.name), "%s", name);
    snprintf(member.host, sizeof(member.host), "%lu", (unsigned long)instance);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HELLO, .from = as, .hello = { .member = member } });
    welcome = desk_find(d, CONDUCTOR_WELCOME);
    if (welcome)
        d->member[as] = welcome->welcome.member;
    return welcome;
}

/* Requeued on another node: what the earlier life held is free at once, and that life, if it comes back, is refused. */
static void test_a_later_life_takes_over(void **state)
{
    struct desk *d = *state;
    uint32_t first;

    desk_demos(d, 3);
    assert_non_null(named_hello(d, WORKER_2, "job-7", 70));
    first = d->member[WORKER_2];
    assert_int_equal(desk_request(d, WORKER_2, 2)->grant.n_leases, 2);
    assert_non_null(named_hello(d, WORKER_2, "job-70", 90));        /* another name altogether */
    assert_int_equal(lease_count(conductor_leases(d->c), first), 2);
    assert_non_null(named_hello(d, WORKER_2, "job-7#1", 71));
    assert_int_equal(lease_count(conductor_leases(d->c), first), 0);
    assert_null(named_hello(d, WORKER_2, "job-7", 70));
    assert_non_null(desk_find(d, CONDUCTOR_REFUSE));
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_BYE, .member = d->member[WORKER_2] });
    assert_null(named_hello(d, WORKER_2, "job-7#0", 72));
    assert_non_null(named_hello(d, WORKER_2, "job-7#2", 73));
}

static void test_drain_one_member(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 5);
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 2);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_DRAIN_MEMBER, .member = d->member[WORKER] });
    assert_int_equal(desk_request(d, WORKER, 2)->grant.n_leases, 0);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER] });
    assert_true(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.drain);
    assert_true(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.sent_away);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER] });
    assert_false(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.drain);
    /* The run's drain sends nobody away: its next life finds them again. */
    desk_hello(d, WORKER_2, MEMBER_WORKER, 20);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_DRAIN });
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HEARTBEAT, .member = d->member[WORKER_2] });
    assert_true(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.drain);
    assert_false(desk_find(d, CONDUCTOR_HEARTBEAT_REPLY)->heartbeat.sent_away);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_opening_writes_all_rows_at_once),
        TEST(test_leases),
        TEST(test_a_worker_of_boundless_slots),
        TEST(test_nothing_is_leased_before_the_learner_knows),
        TEST(test_only_members_of_this_epoch),
        TEST(test_only_those_whose_word_it_is),
        TEST(test_another_learner),
        TEST(test_stale_leases_are_revoked),
        TEST(test_killed_worker_counts_nothing),
        TEST(test_cordoned_while_it_is_emptied),
        TEST(test_third_crash_alone_fails_and_is_replaced),
        TEST(test_too_many_failures_stop_the_run),
        TEST(test_an_ill_worker),
        TEST(test_lost_after_three_heartbeats),
        TEST(test_time_that_stood_still),
        TEST(test_lost_before_the_first_step),
        TEST(test_lost_while_alone),
        TEST(test_useless_servers_stop_the_run),
        TEST(test_a_later_life_takes_over),
        TEST(test_drain_one_member),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
