/* test_sim.c - seeded histories of the whole protocol under faults, and bugs that must not get through.
 *
 *   SIM_HISTORIES=100000    how many (default 10000)
 *   SIM_SEED=n              this one only, with a trace on stderr
 *   SIM_FIRST=n             the first seed (default 1) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/sim/sim_check.h"

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* A seed fixes the kind of history, too. */
static struct sim_options options_of(uint64_t seed)
{
    return (struct sim_options) {
        .seed = seed, .faults = true, .poison = seed % 4 == 1, .admin = seed % 8 == 2, .disk_loss = seed % 8 == 4,
        .max_staleness = seed % 5 == 0, .grouped = seed % 6 == 3,
    };
}

static uint64_t story_without_faults(bool grouped)
{
    struct sim_world *w = sim_world_new(&(struct sim_options) { .seed = 1, .grouped = grouped });
    uint64_t story;

    sim_world_run(w);
    if (w->failure[0])
        fail_msg("without any fault: %s", w->failure);
    story = sim_check_story(w);
    sim_world_free(w);
    return story;
}

/* Whether faults must leave no trace in what the run decided. */
static bool must_be_equal(const struct sim_options *options)
{
    return !options->poison && !options->admin && !options->disk_loss && !options->max_staleness;
}

static bool play(const struct sim_options *options, const uint64_t story[2], uint64_t *ret_events, uint64_t *ret_ms)
{
    struct sim_world *w = sim_world_new(options);
    bool good;

    sim_world_run(w);
    if (!w->failure[0] && w->finished && must_be_equal(options) && sim_check_story(w) != story[options->grouped])
        sim_fail(w, "the run with faults decided something else than the one without");
    good = !w->failure[0];
    if (!good)
        print_message("seed %llu at %llu ms, event %llu: %s\n", (unsigned long long)options->seed, (unsigned long long)w->now_ms,
                      (unsigned long long)w->events, w->failure);
    *ret_events += w->events;
    *ret_ms += w->now_ms;
    sim_world_free(w);
    return good;
}

static void test_histories(void **state)
{
    uint64_t n = number_from("SIM_HISTORIES", 10000), first = number_from("SIM_FIRST", 1), one = number_from("SIM_SEED", 0);
    uint64_t story[] = { story_without_faults(false), story_without_faults(true) }, events = 0, simulated_ms = 0,
        started = clock_mono_ms(), bad = 0;

    (void)state;
    if (one) {
        struct sim_options options = options_of(one);

        options.trace = stderr;
        assert_true(play(&options, story, &events, &simulated_ms));
        return;
    }
    for (uint64_t seed = first; seed < first + n && bad < 10; seed++) {
        struct sim_options options = options_of(seed);

        bad += !play(&options, story, &events, &simulated_ms);
    }
    print_message("%llu histories, %llu events, %.1f simulated hours in %.1f s\n", (unsigned long long)n,
                  (unsigned long long)events, (double)simulated_ms / 3.6e6, (double)(clock_mono_ms() - started) / 1e3);
    if (bad)
        fail_msg("%llu histories went wrong; SIM_SEED=n plays one again with a trace", (unsigned long long)bad);
}

/* ---- seeded bugs -------------------------------------------------------------------------------------------- */

struct seeded { const char *name; struct sim_options options; uint64_t limit; };

static bool caught(const struct seeded *bug, uint64_t *ret_seed, char *ret_text, size_t size)
{
    for (uint64_t seed = 1; seed <= bug->limit; seed++) {
        struct sim_options options = bug->options;
        struct sim_world *w;
        bool found;

        options.seed = seed;
        options.faults = true;
        w = sim_world_new(&options);
        sim_world_run(w);
        found = w->failure[0];
        if (found)
            snprintf(ret_text, size, "%s", w->failure);
        sim_world_free(w);
        *ret_seed = seed;
        if (found)
            return true;
    }
    return false;
}

static void test_seeded_bugs(void **state)
{
    static const struct seeded bugs[] = {
        {"conductor: a heartbeat renews under a stale fence", {.conductor_bug = CONDUCTOR_BUG_STALE_RENEW}, 200},
        {"conductor: a lease names the newest version", {.conductor_bug = CONDUCTOR_BUG_NEWEST_VERSION, .max_staleness = 1}, 200},
        {"conductor: and the intake takes it",
         {.conductor_bug = CONDUCTOR_BUG_NEWEST_VERSION, .intake_bug = INTAKE_BUG_ANY_VERSION, .max_staleness = 1},
         200},
        {"conductor: an episode is lost from the plan", {.conductor_bug = CONDUCTOR_BUG_LOSE_EPISODE}, 50},
        {"conductor: a repeated Committed ends episodes again", {.conductor_bug = CONDUCTOR_BUG_END_TWICE}, 500},
        {"conductor: a plan is numbered anew after a restart", {.conductor_bug = CONDUCTOR_BUG_PLAN_TWICE}, 500},
        {"intake: acknowledged before it is synced", {.intake_bug = INTAKE_BUG_ACK_BEFORE_SYNC}, 500},
        {"intake: admitted twice", {.intake_bug = INTAKE_BUG_ADMIT_TWICE}, 500},
        {"intake: a plan that was committed is trained again", {.intake_bug = INTAKE_BUG_TRAIN_AGAIN}, 500},
        {"intake: a plan of an older epoch is carried out", {.intake_bug = INTAKE_BUG_OLD_PLAN}, 5000},
        {"conductor: versions are listed once", {.conductor_bug = CONDUCTOR_BUG_LIST_ONCE}, 2000},
        {"intake: no inventory after a reconnect", {.intake_bug = INTAKE_BUG_NO_INVENTORY}, 200},
        {"edge: sent before it is committed", {.bug = SIM_BUG_SEND_BEFORE_COMMIT}, 50},
        {"edge: a transaction in parts", {.bug = SIM_BUG_COMMIT_IN_PARTS}, 500},
        {"edge: what was brought over is not checked", {.bug = SIM_BUG_NO_DIGEST}, 500},
        {"edge: no fsync", {.bug = SIM_BUG_NO_FSYNC}, 500},
        {"edge: what a dead process had not synced is believed", {.bug = SIM_BUG_OPEN_UNSYNCED}, 2000},
        {"conductor: pushes go to the connection of the Hello", {.conductor_bug = CONDUCTOR_BUG_OLD_ADDRESS}, 500},
    };
    size_t missed = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bugs); i++) {
        char text[512] = "";
        uint64_t seed = 0;

        if (caught(&bugs[i], &seed, text, sizeof(text))) {
            print_message("caught, history %llu: %s: %s\n", (unsigned long long)seed, bugs[i].name, text);
            continue;
        }
        print_message("MISSED in %llu histories: %s\n", (unsigned long long)bugs[i].limit, bugs[i].name);
        missed++;
    }
    assert_int_equal(missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_histories), cmocka_unit_test(test_seeded_bugs) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
