/* test_env_worker_leases: what a worker does with leases that are not just played: lost with a coordinator, for itself alone, in the
 * way of its leaving. Against a coordinator and servers played here (worker_lab.h). */
#include "tests/harness/worker_lab.h"
#include "wire/envelope.h"

/* The coordinator comes back and knows of one of three: the others are somebody else's by now. */
static void test_what_is_not_kept_is_dropped(void **state _unused_)
{
    lab.mute_actor = true;
    for (unsigned i = 1; i <= 3; i++)
        worker_lab_lease(i, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(lab.held == 3 && lab.acts >= 3);
    lab.kept[lab.n_kept++] = 2;
    lab.forget = true;
    TURN_UNTIL(lab.hellos == 2);
    assert_int_equal(lab.held, 3);              /* announced */
    TURN_UNTIL(lab.held == 1);
    assert_int_equal(lab.held_first, 2);
    lab.mute_actor = false;
    TURN_UNTIL(lab.n_delivered == 1 && lab.held == 0);
    assert_int_equal(lab.delivered[0].episode, 2);
    assert_int_equal(lab.n_returned, 0);        /* nobody waits for it */
}

/* Also one that waits for the worker to be empty. */
static void test_a_waiting_one_is_lost(void **state _unused_)
{
    lab.mute_actor = true;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 3;
    worker_lab_lease(2, "pick_up_object", "")->alone = true;
    TURN_UNTIL(lab.held == 2);
    lab.revoke = 2;
    TURN_UNTIL(lab.held == 1);
    assert_int_equal(lab.held_first, 1);
    worker_lab_lease(3, "pick_up_object", "clean")->max_steps = 3;     /* nothing waits: others may come */
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].episode, 3);
}

static unsigned granted_at[4];          /* so many leases were out when this episode was delivered */

static void note_granted(const Gantry__Trajectory *t, const uint8_t *frames _unused_) { granted_at[t->episode] = lab.granted; }

/* Work turns up while the second of the leases is played. */
static void push_work(const Gantry__ActRequest *act _unused_, float *ret_action _unused_, float *ret_confidence _unused_)
{
    if (lab.n_delivered == 1)
        (void)wire_push(lab.servers[COORDINATOR], lab.pushes_to, WIRE_KIND(WORK), 0, NULL);
}

/* While one waits to be played alone, and while it is, nothing else is asked for; then the worker goes on. A second one that
 * wants it is given back. */
static void test_alone(void **state _unused_)
{
    lab.on_delivery = note_granted;
    lab.on_act = push_work;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 6;
    worker_lab_lease(2, "pick_up_object", "")->alone = true;
    worker_lab_lease(9, "pick_up_object", "")->alone = true;
    worker_lab_lease(3, "pick_up_object", "")->max_steps = 6;
    TURN_UNTIL(lab.n_delivered == 3);
    assert_int_equal(lab.n_returned, 1);
    assert_int_equal(lab.returned[0].episode, 9);
    assert_int_equal(granted_at[1], 3);
    assert_int_equal(granted_at[2], 3);
    assert_int_equal(granted_at[3], 4);
}

/* A step waits for a server that is up: its lease must not end for it. One without a server waits for nothing. */
static void test_heartbeats_tell_of_waiting(void **state _unused_)
{
    lab.mute_actor = true;
    worker_lab_lease(1, "pick_up_object", "");
    TURN_UNTIL(lab.waits);
    lab.servers[ACTOR] = wire_server_free(lab.servers[ACTOR]);
    TURN_UNTIL(!lab.waits);
}

/* ---- leaving -------------------------------------------------------------------------------------------------------- */

static void finish(int status)
{
    TURN_UNTIL(lifecycle_phase(lab.lifecycle) == LIFECYCLE_STOPPED);
    assert_int_equal(lifecycle_exit_code(lab.lifecycle), status);
    assert_int_equal(lab.byes, 1);
}

/* It leaves as soon as it is empty, whatever time it has; what only waits goes back at once. */
static void test_drain(void **state _unused_)
{
    lab.mute_actor = true;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 3;
    worker_lab_lease(2, "pick_up_object", "")->alone = true;
    TURN_UNTIL(lab.held == 2 && lab.acts == 1);
    env_edge_drain(lab.edge, "test");
    TURN_UNTIL(lab.n_returned == 1);
    assert_int_equal(lab.returned[0].episode, 2);
    assert_int_equal(lab.n_delivered, 0);
    lab.mute_actor = false;
    finish(0);
    assert_int_equal(lab.n_delivered, 1);
}

static void drain_now(void)
{
    if (lab.n_leases > 1)
        env_edge_drain(lab.edge, "test");
}

/* A lease that comes while the worker leaves goes back. */
static void test_drain_with_a_grant_on_its_way(void **state _unused_)
{
    lab.mute_actor = true;
    lab.on_lease_request = drain_now;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(lab.granted == 1 && lab.acts == 1);
    worker_lab_lease(2, "pick_up_object", "");
    TURN_UNTIL(lab.n_returned == 1);
    assert_int_equal(lab.returned[0].episode, 2);
    assert_string_equal(lab.returned[0].text, "draining");
    lab.mute_actor = false;
    finish(0);
    assert_int_equal(lab.n_delivered, 1);
}

static void test_drain_said_with_a_grant(void **state _unused_)
{
    lab.drain = true;
    finish(0);
}

static void test_sent_away(void **state _unused_)
{
    lab.send_away = true;
    finish(LIFECYCLE_SENT_AWAY);
}

/* What is still played after a while goes back; what waits for a learner has a little longer. */
static void test_drain_runs_out_of_time(void **state _unused_)
{
    lab.mute_deliveries = UINT_MAX;
    worker_lab_lease(1, "pick_up_object", "clean")->max_steps = 3;
    TURN_UNTIL(lab.mute_deliveries < UINT_MAX);
    lab.mute_actor = true;
    worker_lab_lease(2, "pick_up_object", "");
    TURN_UNTIL(lab.acts == 1);
    env_edge_drain(lab.edge, "test");
    finish(0);
    assert_int_equal(lab.n_delivered, 0);
    assert_int_equal(lab.n_returned, 2);
    assert_int_equal(lab.returned[0].episode, 2);
    assert_int_equal(lab.returned[1].episode, 1);
    assert_non_null(strstr(lab.returned[1].text, "no learner"));
}

/* ---- what the run says ------------------------------------------------------------------------------------------------ */

/* Work has turned up: nobody waits until it is time to ask again. */
static void test_work_is_asked_for_when_it_turns_up(void **state _unused_)
{
    lab.retry_ms = 3600000;
    worker_lab_lease(1, "pick_up_object", "clean")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 1 && lab.held == 0);
    worker_lab_lease(2, "pick_up_object", "clean")->max_steps = 3;
    assert_int_equal(wire_push(lab.servers[COORDINATOR], lab.pushes_to, WIRE_KIND(WORK), 0, NULL), 0);
    TURN_UNTIL(lab.n_delivered == 2);
}

static bool full, ended;

static void see_ways(const Gantry__ActRequest *act, float *ret_action _unused_, float *ret_confidence _unused_)
{
    full = act->full;
    ended = act->end_token;
}

static void see_ways_told(const Gantry__Trajectory *t, const uint8_t *frames _unused_)
{
    assert_int_equal(t->full_support, full);
    assert_int_equal(t->end_token, ended);
}

/* How tokens are drawn: what the actor is asked for is what the learner is told. */
static void test_support(void **state)
{
    static const char *const policies[] = {NULL, ", support: full", ", support: full, eos_in_logp: true"};

    for (int i = 0; i < 3; i++) {
        worker_lab_stop(state);
        worker_lab_start(state);
        lab.policy = policies[i];
        lab.on_act = see_ways;
        lab.on_delivery = see_ways_told;
        worker_lab_lease(1, "pick_up_object", "")->max_steps = 2;
        TURN_UNTIL(lab.n_delivered == 1);
        assert_int_equal(full, i > 0);
        assert_int_equal(ended, i > 1);
    }
}

/* A demonstrator's noise is the run's: another seed, other demonstrations. */
static void test_seed(void **state)
{
    float first[SIM_ACTION_DIMS];

    worker_lab_lease(1, "pick_up_object", "slow")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 1);
    memcpy(first, lab.delivered[0].first_action, sizeof first);
    worker_lab_stop(state);
    worker_lab_start(state);
    lab.seed = 6;
    worker_lab_lease(1, "pick_up_object", "slow")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 1);
    assert_memory_not_equal(first, lab.delivered[0].first_action, sizeof first);
}

static int start_patient(void **state _unused_) { return worker_lab_start_with(3600000, 3600000); }
static int start_in_haste(void **state _unused_) { return worker_lab_start_with(200, 500); }

int main(void)
{
#define WORKER_TEST(t) cmocka_unit_test_setup_teardown(t, worker_lab_start, worker_lab_stop)
#define PATIENT_TEST(t) cmocka_unit_test_setup_teardown(t, start_patient, worker_lab_stop)
    static const struct CMUnitTest tests[] = {
        WORKER_TEST(test_what_is_not_kept_is_dropped),
        WORKER_TEST(test_a_waiting_one_is_lost),
        WORKER_TEST(test_alone),
        WORKER_TEST(test_heartbeats_tell_of_waiting),
        PATIENT_TEST(test_drain),
        PATIENT_TEST(test_drain_with_a_grant_on_its_way),
        PATIENT_TEST(test_drain_said_with_a_grant),
        PATIENT_TEST(test_sent_away),
        cmocka_unit_test_setup_teardown(test_drain_runs_out_of_time, start_in_haste, worker_lab_stop),
        WORKER_TEST(test_work_is_asked_for_when_it_turns_up),
        WORKER_TEST(test_support),
        WORKER_TEST(test_seed),
    };

    return worker_lab_can_draw("env_worker_leases") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
