/* test_env_worker_search: look-ahead in the worker: which candidate is chosen, played, and what happens when it is cut short. */
#include "tests/harness/worker_lab.h"

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

/* Eight candidates, four steps of six executed: all of it through real actor and PRM requests; the same episode chooses the
 * same. */
static void test_mean_and_short_execution(void **state _unused_)
{
    for (uint64_t i = 1; i <= 2; i++) {
        Gantry__Lease *lease = worker_lab_lease(i, "pick_up_object", "");

        lease->max_steps = 8;
        lease->prm_version = 2;
        lease->search_n = 8;
        lease->search_horizon = 6;
        lease->search_execute = 4;
        lease->search_score = (char *)"mean";
        lease->state_seed = lease->sample_key = 9;
        TURN_UNTIL(lab.n_delivered == i);
    }
    assert_int_equal(lab.delivered[0].first_token, 2);
    assert_int_equal(lab.delivered[0].policy_steps, 8 * (6 + 4));
    assert_true(lab.delivered[0].search_chosen > lab.delivered[0].search_all && lab.delivered[0].search_all > .1f);
    assert_int_equal(lab.delivered[0].state_digest, lab.delivered[1].state_digest);
}

/* Controls play what the judge would not: the coin asks for no scores. */
static void test_random_asks_for_no_scores(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->max_steps = 4;
    lease->search_n = 4;
    lease->search_horizon = lease->search_execute = 4;
    lease->search_judge = (char *)"random";
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.scores, 0);
    assert_int_equal(lab.acts, 16);
}

/* Judged by the policy's own critic, which is asked once more about where each candidate ended; without one it goes back. */
static void test_critic(void **state _unused_)
{
    for (uint64_t i = 1; i <= 2; i++) {
        Gantry__Lease *lease = worker_lab_lease(i, "pick_up_object", "");

        lease->max_steps = 2;
        lease->search_n = 3;
        lease->search_horizon = lease->search_execute = 2;
        lease->search_judge = (char *)"value";
        lab.critic = i == 1;
        TURN_UNTIL(lab.n_delivered + lab.n_returned == i);
        assert_int_equal(lab.acts, i * 3 * (2 + 1));
    }
    assert_int_equal(lab.delivered[0].first_token, 1);
    assert_int_equal(lab.scores, 0);
    assert_int_equal(lab.returned[0].reason, GANTRY__LEASE_RETURN__REASON__SERVER_ERROR);
    assert_non_null(strstr(lab.returned[0].text, "the policy has no critic"));
}

/* One action of several, judged by the actor's confidence: no copies are stepped. */
static void test_sample_n(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->max_steps = 5;
    lease->search_n = 4;
    lease->search_method = (char *)"sample_n";
    lease->search_judge = (char *)"confidence";
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].first_token, 3);          /* the lab's actor is the surer the higher the sample */
    assert_int_equal(lab.acts, 5 * 4);
    assert_int_equal(lab.scores, 0);
}

/* A suspect waits until the worker is empty; by then the message that brought its lease is gone, its words are still there. */
static void test_waits_alone_with_its_words(void **state _unused_)
{
    Gantry__Lease *lease;

    worker_lab_lease(1, "pick_up_object", "clean")->max_steps = 30;
    lease = worker_lab_lease(2, "pick_up_object", "");
    lease->max_steps = 8;
    lease->alone = true;
    lease->search_n = 4;
    lease->search_method = (char *)"sample_n";
    lease->search_judge = (char *)"confidence";
    lease->search_proposals = (char *)"policy";
    lease->perturb = (char *)"offset";
    TURN_UNTIL(lab.n_delivered + lab.n_returned == 2);
    assert_int_equal(lab.n_returned, 0);
    assert_int_equal(lab.delivered[1].episode, 2);
    assert_int_equal(lab.acts, 8 * 4);
    assert_int_equal(lab.delivered[1].first_token, 3);
}

/* One that cannot be played, once the worker is empty for it, does not keep the worker from asking for others. */
static void test_suspect_refused(void **state _unused_)
{
    worker_lab_lease(1, "pick_up_object", "clean")->max_steps = 3;
    worker_lab_lease(2, "dance", "")->alone = true;
    TURN_UNTIL(lab.n_delivered + lab.n_returned == 2);
    assert_int_equal(lab.returned[0].episode, 2);
    worker_lab_lease(3, "pick_up_object", "clean")->max_steps = 3;
    TURN_UNTIL(lab.n_delivered == 2);
}

/* A judge that reads actions is asked about each proposal; they come from a few samples. */
static void test_sample_n_gaussian(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->max_steps = 3;
    lease->search_n = 9;
    lease->prm_version = 2;
    lease->search_method = (char *)"sample_n";
    lease->search_proposals = (char *)"gaussian";
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.acts, 3 * 5);
    assert_int_equal(lab.scores, 3 * 9 + 1);
}

/* A rollout, three times mended from its lowest-scored step: the lab's actor lifts the hand in the second mending (sample 2),
 * which is better than lowering it all the way. */
static void test_refine(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->max_steps = 6;
    lease->prm_version = 2;
    lease->search_n = 4;
    lease->search_method = (char *)"refine";
    TURN_UNTIL(lab.n_delivered == 1);
    assert_int_equal(lab.delivered[0].steps, 6);
    assert_int_equal(lab.delivered[0].last_token, 2);
    assert_true(lab.acts > 6 && lab.acts <= 4 * 6);             /* one whole rollout; mended from somewhere */
    assert_int_equal(lab.scores, 4 + 1);
}

static void test_terms_out_of_range(void **state _unused_)
{
    static const struct { uint32_t n, h; const char *method, *judge, *says; } terms[] = {
        {129, 4, "", "", "n 129"}, {4, 65, "", "", "horizon 65"}, {4, 4, "sample_n", "oracle", "oracle"},
        {4, 4, "refine", "random", "refine"}, {4, 4, "best_of_all", "", "best_of_all"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(terms); i++) {
        Gantry__Lease *lease = worker_lab_lease(i + 1, "pick_up_object", "");

        lease->search_n = terms[i].n;
        lease->search_horizon = terms[i].h;
        lease->search_method = (char *)(uintptr_t)terms[i].method;
        lease->search_judge = (char *)(uintptr_t)terms[i].judge;
        lease->prm_version = 2;
        TURN_UNTIL(lab.n_returned == i + 1);
        assert_non_null(strstr(lab.returned[i].text, terms[i].says));
    }
}

/* The world shoves once, at a step that the state fixes; the record says which. */
static void test_perturbed(void **state _unused_)
{
    for (uint64_t i = 1; i <= 2; i++) {
        Gantry__Lease *lease = worker_lab_lease(i, "pick_up_object", "");

        lease->max_steps = 16;
        lease->state_seed = 4;
        lease->perturb = (char *)"offset";
        TURN_UNTIL(lab.n_delivered == i);
    }
    assert_in_range(lab.delivered[0].perturbed_at, 3, 9);
    assert_int_equal(lab.delivered[0].perturbed_at, lab.delivered[1].perturbed_at);
}

static void test_lookahead_needs_a_judge(void **state _unused_)
{
    worker_lab_lease(1, "pick_up_object", "")->search_n = 4;
    TURN_UNTIL(lab.n_returned == 1);
    assert_non_null(strstr(lab.returned[0].text, "PRM"));
}

/* Nor can look-ahead be had of a simulator that cannot save: the episode goes back with the simulator's reason, at once. */
static void test_lookahead_needs_copies(void **state _unused_)
{
    static const char simulator[] = "import sys; sys.path.insert(0, 'deploy'); import gantry_sim\n"
                                    "class World:\n"
                                    "  height = width = 8\n"
                                    "  tasks = [{'name': 'wait', 'instruction': 'wait here', 'max_steps': 4}]\n"
                                    "  reset = lambda self, *state: {'pictures': bytes(192)}\n"
                                    "gantry_sim.serve(World)\n";
    char path[SCRATCH_PATH + 16];
    Gantry__Lease *lease;
    FILE *file;

    snprintf(path, sizeof(path), "%s/simulator.py", lab.dir);
    file = fopen(path, "we");
    fputs(simulator, file);
    fclose(file);
    snprintf(lab.suite, sizeof(lab.suite), "name: remote, remote: 'exec python3 %s', tasks: [wait]", path);
    lease = worker_lab_lease(1, "wait", "");
    lease->prm_version = 2;
    lease->search_n = 4;
    TURN_UNTIL(lab.n_returned == 1);
    assert_int_equal(lab.returned[0].reason, GANTRY__LEASE_RETURN__REASON__SIMULATOR_ERROR);
    assert_non_null(strstr(lab.returned[0].text, "cannot save its state"));
}

/* The first decision of a wide search takes long; what heartbeats say of it renews the lease. */
static void test_lookahead_renews_its_lease(void **state _unused_)
{
    Gantry__Lease *lease = worker_lab_lease(1, "pick_up_object", "");

    lease->prm_version = 2;
    lease->search_n = 64;
    lease->search_horizon = lease->search_execute = 24;
    TURN_UNTIL(lab.step > 64);
    assert_true(lab.acts < 64 * 24);        /* not one step of the episode has been executed yet */
    lab.revoke = 1;
    TURN_UNTIL(lab.revoke == 0);
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
        WORKER_TEST(test_lookahead),
        WORKER_TEST(test_mean_and_short_execution),
        WORKER_TEST(test_random_asks_for_no_scores),
        WORKER_TEST(test_critic),
        WORKER_TEST(test_sample_n),
        WORKER_TEST(test_waits_alone_with_its_words),
        WORKER_TEST(test_suspect_refused),
        WORKER_TEST(test_sample_n_gaussian),
        WORKER_TEST(test_refine),
        WORKER_TEST(test_terms_out_of_range),
        WORKER_TEST(test_perturbed),
        WORKER_TEST(test_lookahead_needs_a_judge),
        WORKER_TEST(test_lookahead_needs_copies),
        WORKER_TEST(test_lookahead_renews_its_lease),
        WORKER_TEST(test_lookahead_cancelled),
    };

    return worker_lab_can_draw("env_worker") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
