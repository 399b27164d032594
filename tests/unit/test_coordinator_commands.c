/* test_coordinator_commands.c - what operators say to a coordinator, and how it ends: nothing is half done, no drain is
 * forgotten. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/fault.h"
#include "coordinator/drain_mark.h"
#include "tests/harness/coordinator_life.h"

/* An operator who forgets the number, or writes a blank too many, does not end the run. */
static void test_a_member_to_drain_is_named(void **state)
{
    static const char *const forgotten[] = {"member", "member ", "member 7", "member  7"};
    struct loop *loop;
    struct edge *edge;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    if (edge_new(life_config, NULL, &edge, &life_error) < 0 || edge_start(edge, loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
    for (size_t i = 0; i < ARRAY_SIZE(forgotten); i++) {
        assert_int_equal(life_command(edge, "drain", forgotten[i]), -ENOENT);
        assert_non_null(strstr(life_error.text, "is no member that is here"));
        assert_int_equal(lifecycle_phase(edge->lifecycle), LIFECYCLE_RUNNING);
    }
    assert_int_equal(life_command(edge, "drain", "members are away"), 0);
    assert_int_equal(lifecycle_phase(edge->lifecycle), LIFECYCLE_STOPPED);      /* nobody is here */
    edge_free(edge);
    loop_free(loop);
}

/* A run that stops is drained once its step is done; if everybody has left by then there is nothing to drain, nor anybody to do
 * it. */
static void test_stopped_as_the_last_member_leaves(void **state)
{
    struct conductor_event hello = {
        .kind = CONDUCTOR_HELLO, .hello.member = {.role = MEMBER_LEARNER, .instance = 1, .pid = 7, .host = "here"}};
    struct conductor_event another_run = {.kind = CONDUCTOR_INVENTORY, .member = 1, .epoch = 1, .inventory.policy_version = 9};
    struct loop *loop;
    struct edge *edge;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    if (edge_new(life_config, NULL, &edge, &life_error) < 0 || edge_start(edge, loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
    edge_step(edge, &hello);
    edge_step(edge, &another_run);
    assert_int_equal(lifecycle_phase(edge->lifecycle), LIFECYCLE_RUNNING);
    assert_int_equal(life_command(edge, "exited", "here 7 ended"), 0);
    assert_int_equal(lifecycle_phase(edge->lifecycle), LIFECYCLE_STOPPED);
    assert_int_equal(lifecycle_exit_code(edge->lifecycle), EX_CONFIG);
    edge_free(edge);
    loop_free(loop);
}

/* A drain that was promised outlives a coordinator that breaks off, where its unit's directory does; not one that is done. */
static void test_a_drain_outlives_us(void **state)
{
    struct loop *loop;
    struct edge *edge;

    (void)state;
    assert_int_equal(setenv("RUNTIME_DIRECTORY", life_dir, 1), 0);
    assert_int_equal(loop_new(&loop), 0);
    if (edge_new(life_config, NULL, &edge, &life_error) < 0 || edge_start(edge, loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
    assert_int_equal(life_command(edge, "drain", ""), 0);
    edge_free(edge);
    loop_free(loop);

    assert_int_equal(loop_new(&loop), 0);
    if (edge_new(life_config, NULL, &edge, &life_error) < 0)
        fail_msg("%s", life_error.text);
    edge->config.heartbeat_ms = 1;
    if (edge_start(edge, loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
    assert_int_equal(lifecycle_phase(edge->lifecycle), LIFECYCLE_RUNNING);
    while (lifecycle_phase(edge->lifecycle) != LIFECYCLE_STOPPED)
        loop_turn(loop, true);
    assert_int_equal(lifecycle_exit_code(edge->lifecycle), 0);
    drain_mark_clear();
    assert_false(drain_mark_is_set());
    assert_int_equal(unsetenv("RUNTIME_DIRECTORY"), 0);
    edge_free(edge);
    loop_free(loop);
}

/* While a step waits for room nothing else can be done, and nobody is told or counts that it was. */
static void test_no_command_is_done_without_room(void **state)
{
    struct conductor_event drain = {.kind = CONDUCTOR_DRAIN};
    struct loop *loop;
    struct edge *edge;
    uint64_t commits;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    if (edge_new(life_config, NULL, &edge, &life_error) < 0 || edge_start(edge, loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
    assert_int_equal(life_command(edge, "exited", "here 1 crashed"), 0);
    assert_int_equal(fault_arm("ledger.commit=enospc@1+"), 0);
    commits = edge->commits;
    edge_step(edge, &drain);
    assert_int_equal(edge->commits, commits);
    assert_int_equal(life_command(edge, "exited", "here 1 crashed"), -ENOSPC);
    assert_non_null(strstr(life_error.text, "no space left"));
    assert_int_equal(fault_arm(""), 0);
    edge->full_retry_ms = 0;
    edge_step_again(edge);
    assert_int_equal(life_command(edge, "exited", "here 1 crashed"), 0);
    edge_free(edge);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_member_to_drain_is_named, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_stopped_as_the_last_member_leaves, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_a_drain_outlives_us, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_no_command_is_done_without_room, life_setup, life_teardown),
    };

    return cmocka_run_group_tests_name("coordinator commands", tests, NULL, NULL);
}
