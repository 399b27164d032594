/* Rows of the ledger: a restart finds all of what was said of them, and their events say it too. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/method.h"
#include "run/ledger.h"
#include "tests/harness/ledger_lab.h"

static const struct ledger_stage stage = {
    .stage = 4, .name = "rl", .kind = "rl", .state = PROGRESS_DONE, .start_ms = 11, .end_ms = 12, .wall_s = 1.5, .policy_in = 13,
    .policy_out = 14};
static const struct ledger_iteration iteration = {
    .stage = 4, .iteration = 2, .name = "rl/2", .purpose = 3, .policy_version = 15, .prm_version = 16, .state = PROGRESS_DONE,
    .first_episode = 17, .last_episode = 18, .start_ms = 19, .end_ms = 20, .plan_digest = {21, 22}};
static char metrics[] = "{\"loss\":0.5}";
static const struct ledger_version version = {
    .kind = KIND_POLICY, .number = 23, .parent = 24, .stage = 25, .iteration = 26, .digest = {27}, .dir = "policies/v000023",
    .gate_text = "-", .metrics = metrics, .committed_ms = 28};

/* What an episode goes through at worst: it stands in for another, fails twice, is played alone, ends by its limit, too late. */
static struct ledger_episode worst(void)
{
    struct ledger_episode e = ledger_lab_played(2);

    e.replaces = 1;
    e.timeout = true;
    e.state = EPISODE_STALE;
    e.failures = 2;
    e.suspect = true;
    snprintf(e.reason, sizeof e.reason, "played by too old a policy");
    return e;
}

static void write_all(struct ledger *ledger)
{
    const struct ledger_episode end = worst();
    struct ledger_episode e = ledger_lab_row(1);

    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_put_stage(ledger, &stage), 0);
    assert_int_equal(ledger_put_iteration(ledger, &iteration), 0);
    assert_int_equal(ledger_add_version(ledger, &version), 0);
    assert_int_equal(ledger_add_episode(ledger, &e), 0);
    e = ledger_lab_row(2);
    e.replaces = 1;
    assert_int_equal(ledger_add_episode(ledger, &e), 0);
    assert_int_equal(ledger_episode_failure(ledger, 2, 2, true, "signal 11"), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &end), 0);
    assert_int_equal(ledger_episode_reopened(ledger, 2, "its disk is gone"), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &end), 0);
    assert_int_equal(ledger_episode_ended(ledger, 2, EPISODE_STALE, end.reason), 0);
    assert_int_equal(ledger_add_event(ledger, "note", 2, "that is all"), 0);
    assert_int_equal(ledger_commit(ledger), 0);
}

static void test_all_of_a_row(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    const struct ledger_episode e = worst();
    struct ledger_stage *stages;
    struct ledger_iteration *iterations;
    struct ledger_version *versions, read;
    struct ledger_episode *episodes;
    size_t n;

    (void)state;
    write_all(ledger);
    ledger_close(ledger);
    ledger = ledger_lab_open();
    assert_int_equal(ledger_run(ledger)->seed, ledger_lab.run.seed);
    assert_int_equal(ledger_run(ledger)->created_ms, ledger_lab.run.created_ms);
    assert_int_equal(ledger_stages(ledger, &stages, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(stages, &stage, sizeof stage);
    assert_int_equal(ledger_iterations(ledger, &iterations, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(iterations, &iteration, sizeof iteration);
    assert_int_equal(ledger_versions(ledger, &versions, &n), 0);
    assert_int_equal(n, 1);
    assert_string_equal(versions[0].metrics, metrics);
    read = versions[0];
    read.metrics = metrics;
    assert_memory_equal(&read, &version, sizeof read);
    ledger_versions_free(versions, n);
    assert_int_equal(ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &episodes, &n), 0);
    assert_int_equal(n, 2);
    assert_memory_equal(&episodes[1], &e, sizeof e);
    free(stages); free(iterations); free(episodes);
    ledger_close(ledger);
}

static void test_its_events(void **state)
{
    static const struct { const char *kind; uint64_t episode; const char *text; } expected[] = {
        {"start", 0, "epoch=1"}, {"stage", 0, "stage=4 name=rl state=done"}, {"iteration", 0, "stage=4 iteration=2 state=done"},
        {"version", 0, "kind=policy number=23 parent=24 manifest=1b00"}, {"added", 1, "stage=4 iteration=2"},
        {"added", 2, "stage=4 iteration=2"}, {"failure", 2, "failures=2 suspect=1 signal 11"}, {"journaled", 2, "02020202"},
        {"reopened", 2, "its disk is gone"}, {"journaled", 2, "02020202"}, {"ended", 2, "stale played by too old a policy"},
        {"note", 2, "that is all"},
    };
    struct ledger *ledger = ledger_lab_open();
    struct ledger_event *events;
    size_t n;

    (void)state;
    write_all(ledger);
    assert_int_equal(ledger_events(ledger, 0, 100, &events, &n), 0);
    assert_int_equal(n, ARRAY_SIZE(expected));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(events[i].sequence, i + 1);
        assert_int_equal(events[i].epoch, 1);
        assert_true(events[i].wall_ms > 1000000000000);
        assert_string_equal(events[i].kind, expected[i].kind);
        assert_int_equal(events[i].episode, expected[i].episode);
        if (strncmp(events[i].text, expected[i].text, strlen(expected[i].text)))
            fail_msg("%s: %s", events[i].kind, events[i].text);
    }
    free(events);
    assert_int_equal(ledger_events(ledger, 3, 2, &events, &n), 0);
    assert_true(n == 2 && events[0].sequence == 4 && events[1].sequence == 5);
    free(events);
    ledger_close(ledger);
}

static int follow(const struct ledger_event *event, void *arg)
{
    uint64_t *last = arg;

    assert_int_equal(event->sequence, *last + 1);
    *last = event->sequence;
    return event->sequence == 5000 ? -ECANCELED : 0;
}

/* Of a run of weeks: each once, in order, until somebody has had enough. */
static void test_many_events(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    uint64_t last = 0;

    (void)state;
    assert_int_equal(ledger_begin(ledger), 0);
    for (int i = 1; i < 4500; i++)
        assert_int_equal(ledger_add_event(ledger, "note", 0, ""), 0);
    assert_int_equal(ledger_each_event(ledger, 0, follow, &last), 0);
    assert_int_equal(last, 4500);
    last = 4490;
    assert_int_equal(ledger_each_event(ledger, 4490, follow, &last), 0);
    assert_int_equal(last, 4500);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(ledger_add_event(ledger, "note", 0, ""), 0);
    last = 0;
    assert_int_equal(ledger_each_event(ledger, 0, follow, &last), -ECANCELED);
    assert_int_equal(last, 5000);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
}

/* What was lost with a trajectory is nothing of the row's own. */
static void test_a_forgotten_episode(void **state)
{
    struct ledger_episode e = worst(), expected = ledger_lab_row(2);

    (void)state;
    expected.replaces = 1;
    expected.failures = 2;
    expected.suspect = true;
    memcpy(expected.reason, e.reason, sizeof e.reason);
    ledger_episode_forget(&e);
    assert_memory_equal(&e, &expected, sizeof e);
}

static void test_words(void **state)
{
    struct ledger_version v = {.kind = KIND_PRM, .gate_passed = true, .gate_text = "AUROC .9"};
    enum episode_state end;

    (void)state;
    for (int s = EPISODE_OPEN; s <= EPISODE_FAILED; s++) {
        assert_int_equal(episode_state_parse(episode_state_name((enum episode_state)s), &end), 0);
        assert_int_equal(end, s);
        assert_int_equal(episode_state_is_end(end), s != EPISODE_OPEN && s != EPISODE_JOURNALED);
    }
    assert_int_equal(episode_state_parse("lost", &end), -EINVAL);
    assert_false(ledger_version_failed_gate(&v));
    snprintf(v.gate_text, sizeof v.gate_text, PRM_FORCED ": AUROC .4");
    assert_true(ledger_version_failed_gate(&v));
    v.kind = KIND_POLICY;
    assert_false(ledger_version_failed_gate(&v));
    v = (struct ledger_version) {.kind = KIND_PRM, .gate_text = "AUROC .4"};
    assert_true(ledger_version_failed_gate(&v));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ledger_lab_set_up, ledger_lab_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_of_a_row), TEST(test_its_events), TEST(test_many_events),
        cmocka_unit_test(test_a_forgotten_episode), cmocka_unit_test(test_words),
    };

    return cmocka_run_group_tests_name("ledger_rows", tests, NULL, NULL);
}
