/* test_env_worker: the worker's edge and its real simulator against a coordinator, actor, PRM server and learner played here,
 * over real sockets in one process. What is promised: every leased episode comes to one end (delivered or given back with a
 * reason), whatever the servers do; what is delivered is what was played; look-ahead plays the candidate the scores prefer. */
#include "tests/harness/worker_lab.h"

/* What was delivered, played again: it ends the same way, and its labels are what the expert does there; a slow one labels what it
 * did. */
static void replay(const Gantry__Trajectory *t, const uint8_t *frames _unused_)
{
    float expert[SIM_ACTION_DIMS];
    struct error error = {0};
    struct sim_suite *suite;
    struct sim_task *task;
    struct sim_slot *slot;
    bool success = false;

    assert_int_equal(sim_suite_open("tabletop", NULL, &suite, &error), 0);
    assert_int_equal(sim_task_open(suite, t->task, &task, &error), 0);
    assert_int_equal(sim_slot_new(task, &slot), 0);
    assert_int_equal(sim_reset(slot, SIM_VAL, t->state_seed, NULL), 0);
    for (uint32_t i = 0; i < t->steps; i++) {
        const float *action = t->action + i * SIM_ACTION_DIMS, *label = t->label + i * SIM_ACTION_DIMS;

        assert_int_equal(sim_expert(slot, expert), 0);
        assert_memory_equal(label, t->episode <= 8 ? expert : action, sizeof(expert));
        assert_int_equal(sim_step(slot, action, &success), 0);
    }
    assert_int_equal(success, t->success);
    sim_slot_free(slot);
    sim_task_close(task);
    sim_suite_close(suite);
}

static void test_demonstrations(void **state _unused_)
{
    static const char *const tasks[] = { "pick_up_object", "open_drawer", "push_to_target", "stack_two_blocks" };
    unsigned i, won = 0;

    lab.on_delivery = replay;
    for (i = 0; i < 12; i++)
        worker_lab_lease(i + 1, tasks[i % 4], i < 8 ? "clean" : "slow")->max_steps = 60;
    TURN_UNTIL(lab.n_delivered == 12);
    for (i = 0; i < 12; i++) {
        const struct delivered *d = &lab.delivered[i];

        won += d->success;
        assert_int_equal(d->n_tokens, 0);
        assert_int_equal(d->n_label, d->steps * SIM_ACTION_DIMS);
        assert_int_equal(d->n_action, d->n_label);
        assert_int_equal(d->n_progress, 0);
        assert_true(d->success != d->timeout);
        assert_false(d->first_frame_is_last);
        assert_true(strlen(d->instruction) > 5);
        assert_int_equal(d->fence, 1ull << 32 | d->episode);
    }
    assert_true(won >= 10);
    assert_int_equal(lab.acts, 0);
    assert_int_equal(lab.n_returned, 0);
}

/* The same lease gives the same trajectory, whoever plays it and beside whom. */
static void test_demonstrations_repeat(void **state _unused_)
{
    struct delivered first;

    worker_lab_lease(5, "pick_up_object", "slow");
    TURN_UNTIL(lab.n_delivered == 1);
    first = lab.delivered[0];
    worker_lab_lease(6, "open_drawer", "slow");
    worker_lab_lease(7, "open_drawer", "slow");
    worker_lab_lease(5, "pick_up_object", "slow");
    TURN_UNTIL(lab.n_delivered == 4);
    for (unsigned i = 1; i < 4; i++)
        if (lab.delivered[i].episode == 5) {
            assert_int_equal(lab.delivered[i].steps, first.steps);
            assert_memory_equal(lab.delivered[i].first_action, first.first_action, sizeof(first.first_action));
            assert_string_equal(lab.delivered[i].instruction, first.instruction);
        }
}

/* Whoever leases it: what is learnt from was never tested on. */
static void test_test_states_are_refused(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->split = GANTRY__SPLIT__SPLIT_TEST;
    lease->purpose = GANTRY__PURPOSE__PURPOSE_TRAIN;
    TURN_UNTIL(lab.n_returned == 1);
    assert_non_null(strstr(lab.returned[0].text, "test state"));
}

static void test_policy_plays(void **state _unused_)
{
    unsigned i;

    for (i = 0; i < 8; i++) {
        Gantry__Lease *lease = worker_lab_lease(i + 1, "pick_up_object", "");

        lease->prm_version = i < 4 ? 2 : 0;
        lease->want_hidden = i != 5;
    }
    TURN_UNTIL(lab.n_delivered == 8);
    for (i = 0; i < 8; i++) {
        const struct delivered *d = &lab.delivered[i];

        assert_int_equal(d->steps, 24);         /* the suite's limit */
        assert_true(d->timeout);
        assert_int_equal(d->n_tokens, 24 * K);
        assert_int_equal(d->n_hidden, d->episode == 6 ? 0 : 24 * WIDTH);     /* no critic reads them */
        assert_int_equal(d->n_progress, d->episode <= 4 ? 25 : 0);
        assert_int_equal(d->n_label, 0);
    }
    assert_int_equal(lab.acts, 8 * 24);
    assert_int_equal(lab.scores, 4);
    TURN_UNTIL(lab.held == 0);
    assert_true(lab.held_most <= 3);
}

/* Five actions an answer: the policy is asked at every fifth step, and what is left over at the end is dropped. */
static void test_chunks(void **state _unused_)
{
    lab.chunk = 5;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 12;
    lab.leases[0].want_hidden = true;
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].steps, 12);
    assert_int_equal(lab.delivered[0].n_tokens, 12 * K);
    assert_int_equal(lab.delivered[0].n_hidden, 3 * WIDTH);     /* of each answer */
    assert_int_equal(lab.acts, 3);
    assert_int_equal(lab.n_turns, 3);
    assert_memory_equal(lab.turns, ((uint32_t[]){0, 5, 10}), 3 * sizeof(uint32_t));
    lab.chunk = 1;
    worker_lab_lease(2, "pick_up_object", "")->max_steps = 4;
    TURN_UNTIL(lab.n_delivered == 2);
    assert_int_equal(lab.n_turns, 0);             /* asked at every step: nothing to say */
}

static struct { uint8_t pictures[13][FRAME]; float action[12 * SIM_ACTION_DIMS]; } whole;

static void keep_whole(const Gantry__Trajectory *t, const uint8_t *frames)
{
    assert_int_equal(t->n_observed, 0);
    memcpy(whole.pictures, frames, sizeof whole.pictures);
    memcpy(whole.action, t->action, sizeof whole.action);
}

static void compare_drawn(const Gantry__Trajectory *t, const uint8_t *frames)
{
    assert_memory_equal(t->action, whole.action, sizeof whole.action);
    for (size_t i = 0; i < t->n_observed; i++)
        assert_memory_equal(frames + i * FRAME, whole.pictures[t->observed[i]], FRAME);
}

/* What nobody looks at is not drawn; what is drawn, and what is played, is the same. */
static void test_draws_turns(void **state _unused_)
{
    lab.chunk = 5;
    lab.on_delivery = keep_whole;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 12;
    TURN_UNTIL(lab.n_delivered == 1);
    lab.on_delivery = compare_drawn;
    for (uint32_t every = 1; every <= 8; every += 7) {
        Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");
        unsigned before = lab.n_delivered;

        lease->max_steps = 12;
        lease->draw_turns = true;
        lease->prm_version = 4;
        lease->score_every = every;
        TURN_UNTIL(lab.n_delivered == before + 1);
        assert_int_equal(lab.n_observed, 4);
        assert_memory_equal(lab.observed, ((uint32_t[]){0, 5, 10, 12}), 4 * sizeof(uint32_t));
        assert_memory_equal(lab.turns, ((uint32_t[]){0, 5, 10}), 3 * sizeof(uint32_t));
        assert_int_equal(lab.delivered[before].n_progress, 13);
    }
}

static int brightness(const uint8_t *rgb, int from, int to)     /* of columns from..to-1 */
{
    int sum = 0;

    for (int i = 0; i < IMAGE * IMAGE * 3; i++)
        sum += i / 3 % IMAGE >= from && i / 3 % IMAGE < to ? rgb[i] : 0;
    return sum;
}

/* The same state drawn both ways: turned by 180 degrees from the bottom row up, a picture is upright, mirrored. */
static void test_picture_chain(void **state _unused_)
{
    static uint8_t plain[FRAME];
    int left, right, turned_left, turned_right;

    worker_lab_lease(1, "open_drawer", "")->max_steps = 2;
    TURN_UNTIL(lab.n_delivered == 1);
    memcpy(plain, lab.first_picture, FRAME);
    worker_lab_stop(NULL);
    worker_lab_start(NULL);
    lab.chain = true;
    worker_lab_lease(1, "open_drawer", "")->max_steps = 2;
    TURN_UNTIL(lab.n_delivered == 1);
    left = brightness(plain, 0, IMAGE / 2);
    right = brightness(plain, IMAGE / 2, IMAGE);
    turned_left = brightness(lab.first_picture, 0, IMAGE / 2);
    turned_right = brightness(lab.first_picture, IMAGE / 2, IMAGE);
    assert_true(abs(left - right) > (left + right) / 50);
    assert_true(abs(turned_left - right) < abs(left - right) / 2 && abs(turned_right - left) < abs(left - right) / 2);
}

static void test_servers_stumble(void **state _unused_)
{
    lab.loading = 3;
    lab.internal = 2;
    lab.mute_deliveries = 2;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 4;
    worker_lab_lease(2, "pick_up_object", "")->max_steps = 4;
    TURN_UNTIL(lab.n_delivered == 2);
    assert_int_equal(lab.n_returned, 0);
}

static void test_nan_action_is_refused(void **state _unused_)
{
    lab.nan_action = true;
    worker_lab_lease(1, "pick_up_object", "");
    TURN_UNTIL(lab.n_returned == 1);
    assert_int_equal(lab.returned[0].episode, 1);
    assert_non_null(strstr(lab.returned[0].text, "not finite"));
    assert_int_equal(lab.returned[0].reason, GANTRY__LEASE_RETURN__REASON__SERVER_ERROR);
    assert_int_equal(lab.acts, 3);                        /* it is asked again, then it is the actor's fault */
    lab.nan_action = false;
    worker_lab_lease(2, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].episode, 2);
}

static void test_simulator_errors(void **state _unused_)
{
    assert_int_equal(fault_arm("sim.step=eio@5"), 0);
    worker_lab_lease(1, "pick_up_object", "slow");
    TURN_UNTIL(lab.n_returned == 1);
    assert_int_equal(lab.returned[0].reason, GANTRY__LEASE_RETURN__REASON__SIMULATOR_ERROR);
    worker_lab_lease(2, "juggle", "");
    TURN_UNTIL(lab.n_returned == 2);
    assert_non_null(strstr(lab.returned[1].text, "juggle"));
    worker_lab_lease(3, "pick_up_object", "clean");
    TURN_UNTIL(lab.n_delivered == 1);
}

static void test_revoked_while_the_actor_is_silent(void **state _unused_)
{
    lab.mute_actor = true;
    worker_lab_lease(1, "pick_up_object", "");
    TURN_UNTIL(lab.acts > 0 && lab.held == 1);
    lab.revoke = 1;
    TURN_UNTIL(lab.held == 0);
    lab.mute_actor = false;
    worker_lab_lease(2, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].episode, 2);
    assert_int_equal(lab.n_returned, 0);
}

static void third_is_the_last(const Gantry__ActRequest *act _unused_, float *ret_action, float *ret_confidence _unused_)
{
    memset(ret_action, 0, SIM_ACTION_DIMS * sizeof *ret_action);
    lab.mute_actor = lab.acts == 3;
}

/* The step counter moves with everything that is finished; how many actions were executed is said beside it. */
static void test_heartbeats_tell_what_was_played(void **state _unused_)
{
    lab.on_act = third_is_the_last;
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 60;
    TURN_UNTIL(lab.acts > 3 && lab.step == 1 + 3 * 2);        /* the reset; three times an answer and a step */
    assert_int_equal(lab.played, 3);
}

static void test_without_coordinator(void **state _unused_)
{
    unsigned i;

    for (i = 0; i < 3; i++)
        worker_lab_lease(i + 1, "pick_up_object", "");
    TURN_UNTIL(lab.acts > 3);
    lab.servers[COORDINATOR] = wire_server_free(lab.servers[COORDINATOR]);
    TURN_UNTIL(lab.n_delivered == 3);         /* what was leased is played and delivered */
    assert_int_equal(lab.n_returned, 0);
    worker_lab_open(COORDINATOR);
    worker_lab_lease(4, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 4);         /* and when it is back, work goes on */
}

static void test_drain_finishes_what_is_held(void **state _unused_)
{
    worker_lab_lease(1, "pick_up_object", "")->max_steps = 8;      /* one is done before the other */
    worker_lab_lease(2, "pick_up_object", "")->max_steps = 200;
    TURN_UNTIL(lab.acts > 4);
    worker_lab_lease(3, "pick_up_object", "");
    env_edge_drain(lab.edge, "test");
    TURN_UNTIL(lifecycle_phase(lab.lifecycle) == LIFECYCLE_STOPPED);
    /* a third lease may have been on its way: then it came back */
    assert_int_equal(lab.n_delivered + lab.n_returned, lab.granted);
    assert_true(lab.n_delivered >= 2);
    assert_int_equal(lab.byes, 1);
    assert_int_equal(lifecycle_exit_code(lab.lifecycle), 0);
}

static void test_alone(void **state _unused_)
{
    unsigned i;

    worker_lab_lease(1, "pick_up_object", "");
    worker_lab_lease(2, "pick_up_object", "")->alone = true;
    worker_lab_lease(3, "pick_up_object", "");
    TURN_UNTIL(lab.n_delivered == 3);
    for (i = 0; i < 3; i++)
        assert_true(lab.delivered[i].episode != 2 || i > 0);      /* not before the ones it found */
}

int main(void)
{
#define WORKER_TEST(t) cmocka_unit_test_setup_teardown(t, worker_lab_start, worker_lab_stop)
    static const struct CMUnitTest tests[] = {
        WORKER_TEST(test_demonstrations),
        WORKER_TEST(test_demonstrations_repeat),
        WORKER_TEST(test_policy_plays),
        WORKER_TEST(test_test_states_are_refused),
        WORKER_TEST(test_chunks),
        WORKER_TEST(test_draws_turns),
        WORKER_TEST(test_picture_chain),
        WORKER_TEST(test_servers_stumble),
        WORKER_TEST(test_nan_action_is_refused),
        WORKER_TEST(test_simulator_errors),
        WORKER_TEST(test_revoked_while_the_actor_is_silent),
        WORKER_TEST(test_heartbeats_tell_what_was_played),
        WORKER_TEST(test_without_coordinator),
        WORKER_TEST(test_drain_finishes_what_is_held),
        WORKER_TEST(test_alone),
    };

    return worker_lab_can_draw("env_worker") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
