/* test_env_worker_search: look-ahead in the worker: which candidate is chosen, played, and what happens when it is cut short. */
#include "tests/harness/worker_lab.h"

static void test_choice(void **state _unused_)
{
    static const float scores[3 * 2] = { .625f, .375f, .25f, .5f, .5f, .5f };
    static const bool all[3] = { true, true, true }, none[3], second[3] = { false, true, false };
    static const float ties[3 * 2] = { .5f, .25f, .25f, .5f, .25f, .5f };

    assert_int_equal(lookahead_choose(scores, all, 3, 2, false), 1);    /* last: .5 twice, lower index */
    assert_int_equal(lookahead_choose(scores, all, 3, 2, true), 2);     /* mean: .5 .375 .5, the higher last score */
    assert_int_equal(lookahead_choose(ties, all, 3, 2, true), 1);       /* all .375: higher last, lower index */
    assert_int_equal(lookahead_choose(scores, second, 3, 2, true), 1);
    assert_int_equal(lookahead_choose(scores, none, 3, 2, false), -1);
}

static void test_lookahead(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->max_steps = 10;
    lease->prm_version = 2;
    lease->search_n = 4;
    lease->search_horizon = 4;
    lease->search_execute = 4;
    lease->search_score = (char *)"last";
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].steps, 10);
    assert_int_equal(lab.delivered[0].first_token, 2);            /* the candidate that lifts the hand */
    assert_true(lab.delivered[0].first_action[2] == 1);
    assert_int_equal(lab.acts, 4 * (4 + 4 + 2));                  /* the last search looks no further than the limit */
    assert_int_equal(lab.scores, 3 * 4 + 1);
    assert_true(lab.delivered[0].state_digest != 0);
}

static void test_lookahead_needs_a_judge(void **state _unused_)
{
    worker_lab_lease(1, "pick_up_object", "")->search_n = 4;
    TURN_UNTIL(lab.n_returned == 1);
    assert_non_null(strstr(lab.returned[0].text, "PRM"));
}

static void test_lookahead_cancelled(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->prm_version = 2;
    lease->search_n = 8;
    TURN_UNTIL(lab.acts > 12);
    lab.revoke = 1;
    TURN_UNTIL(lab.revoke == 0);
    worker_lab_lease(2, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].episode, 2);
}

int main(void)
{
#define WORKER_TEST(t) cmocka_unit_test_setup_teardown(t, worker_lab_start, worker_lab_stop)
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        WORKER_TEST(test_lookahead),
        WORKER_TEST(test_lookahead_needs_a_judge),
        WORKER_TEST(test_lookahead_cancelled),
    };

    return worker_lab_can_draw("env_worker") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
