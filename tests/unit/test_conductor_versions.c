/* test_conductor_versions.c - the conductor's rules: a pass waits for servers that have its version ready, or refuse it. */
#include "tests/harness/conductor_desk.h"

/* A pass of reinforcement learning is to come, and its learner is there. */
static void begin_rl(struct desk *d)
{
    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 1, .episodes = 2 };
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
}

static void test_waits_for_a_ready_actor(void **state)
{
    struct desk *d = *state;
    struct conductor_status status;

    begin_rl(d);
    conductor_status(d->c, &status);
    assert_string_equal(status.waiting_for, "an actor with policy version 0");
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.keep[0]->number, 0);
    desk_step(d, (struct conductor_event){
                .kind = CONDUCTOR_VERSION_STATE,
                .member = d->member[ACTOR],
                .version_state = {.version = 0, .ready = false, .text = "truncated shard"},
            });
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 2);
}

/* Every server refuses what a pass waits for: after a while for a slow file system, the run stops with their reason. */
static void test_version_that_nobody_loads(void **state)
{
    char said[400];
    struct desk *d = *state;
    struct conductor_status status;

    begin_rl(d);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    for (int i = 0; i <= 10; i++) {
        desk_step(d, (struct conductor_event){
                    .kind = CONDUCTOR_VERSION_STATE,
                    .member = d->member[ACTOR],
                    .version_state = {.version = 0, .ready = false, .text = DESK_REFUSAL},
                });
        assert_int_equal(desk_count(d, CONDUCTOR_ADD_EVENT), i == 0 || i == 10);
        if (i == 0) {                                               /* said once */
            assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.kind, "refused");
            snprintf(said, sizeof(said), "refused policy version 0: %s", DESK_REFUSAL);
            assert_non_null(strstr(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text, said));        /* whole */
        }
        assert_true(!desk_find(d, CONDUCTOR_STOPPED) == (i < 10));
        conductor_status(d->c, &status);
        snprintf(said, sizeof(said), "an actor with policy version 0 (refused: %s)", DESK_REFUSAL);
        assert_string_equal(status.waiting_for, said);
        d->now_ms += 1000;
    }
    snprintf(said, sizeof(said), "no server loads policy version 0: %s", DESK_REFUSAL);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text, said));
}

/* The same of a pass that is played already: its version's files were removed, and the actors started again. */
static void test_version_that_nobody_loads_any_more(void **state)
{
    struct desk *d = *state;
    struct conductor_event refuses;
    struct conductor_status status;

    desk_rl(d, 2, 0);
    refuses = (struct conductor_event){.kind = CONDUCTOR_VERSION_STATE, .member = d->member[ACTOR],
                                       .version_state = {.version = 0, .ready = false, .text = "not there (any more)"}};
    for (int round = 0; round < 2; round++)             /* it is back in time, once */
        for (int i = 0; i <= 10; i++) {
            desk_step(d, refuses);
            conductor_status(d->c, &status);
            assert_string_equal(status.waiting_for, "an actor with policy version 0 (refused: not there (any more))");
            assert_true(!desk_find(d, CONDUCTOR_STOPPED) == (round == 0 || i < 10));
            d->now_ms += 1000;
            if (round == 0 && i == 8) {
                desk_ready(d, ACTOR, KIND_POLICY, 0);
                conductor_status(d->c, &status);
                assert_string_equal(status.waiting_for, "");
                break;
            }
        }
}

/* A refusal is what a server once found. While it loads the version again, which may take minutes (all of it brought over from
 * the learner), nothing new is known of it, and nothing is given up. */
static void test_version_that_is_loaded_again(void **state)
{
    struct desk *d = *state;
    struct conductor_event refuses;

    begin_rl(d);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    refuses = (struct conductor_event) {.kind = CONDUCTOR_VERSION_STATE, .member = d->member[ACTOR],
                                        .version_state = {.version = 0, .text = "not readable"}};
    desk_step(d, refuses);
    for (int i = 0; i < 60; i++) {
        d->now_ms += 1000;
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER]});
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[ACTOR]});
        assert_null(desk_find(d, CONDUCTOR_STOPPED));
    }
    desk_step(d, refuses);
    assert_non_null(desk_find(d, CONDUCTOR_STOPPED));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_waits_for_a_ready_actor),
        TEST(test_version_that_nobody_loads),
        TEST(test_version_that_nobody_loads_any_more),
        TEST(test_version_that_is_loaded_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
