/* The checker: a true history passes, and each single lie in it is caught; loading reads the three writers back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "proto/trajectory.pb-c.h"
#include "run/history.h"
#include "run/journal.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "tests/harness/scratch.h"

enum { N_EVENTS = 12 };

/* Three episodes: 1 trained into version 1, 2 stale, 3 failed. */
struct scene {
    struct history_event events[N_EVENTS];
    struct history_record records[4], consumed[4], more[4];
    struct history_version versions[3];
    struct history_played played[3];
    uint64_t dropped[4];
    struct history history;
};

static void set_scene(struct scene *s)
{
    *s = (struct scene){
        .events =
            {
                {.kind = HISTORY_ADDED, .episode = 1, .stage = 4, .iteration = 2},
                {.kind = HISTORY_ADDED, .episode = 2, .stage = 4, .iteration = 2},
                {.kind = HISTORY_ADDED, .episode = 3, .stage = 4, .iteration = 2},
                {.kind = HISTORY_JOURNALED, .episode = 1, .digest = {1}},
                {.kind = HISTORY_JOURNALED, .episode = 2, .digest = {2}},
                {.kind = HISTORY_ENDED, .episode = 1, .end = EPISODE_TRAINED},
                {.kind = HISTORY_ENDED, .episode = 2, .end = EPISODE_STALE},
                {.kind = HISTORY_ENDED, .episode = 3, .end = EPISODE_FAILED},
                {.kind = HISTORY_CLOSED, .stage = 4, .iteration = 2},
            },
        .records = {{1, {1}}, {2, {2}}},
        .consumed = {{1, {1}}},
        .played = {{.episode = 1, .policy_version = 7, .row_policy_version = 7, .prm_version = 2, .row_prm_version = 2,
                    .fence_epoch = 3},
                   {.episode = 2, .policy_version = 7, .row_policy_version = 7, .row_prm_version = 2, .fence_epoch = 1}},
        .versions = {{.kind = KIND_POLICY, .number = 1, .parent = 0, .n_consumed = 1, .in_ledger = true}},
    };
    s->versions[0].consumed = s->consumed;
    s->history = (struct history){.events = s->events,
                                  .n_events = 9,
                                  .records = s->records,
                                  .n_records = 2,
                                  .played = s->played,
                                  .n_played = 2,
                                  .epoch = 3,
                                  .versions = s->versions,
                                  .n_versions = 1,
                                  .complete = true,
                                  .dropped = s->dropped};
}

static size_t violations(const struct scene *s, const char *expected)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct history_result result;

    assert_int_equal(history_check(&s->history, &out, &result), 0);
    if (expected && !strstr(out.text, expected))
        fail_msg("expected \"%s\", the checker said:\n%s", expected, out.text);
    return result.violations;
}

static void test_a_true_history(void **state)
{
    struct history_result result;
    struct scene s;

    (void)state;
    set_scene(&s);
    assert_int_equal(violations(&s, NULL), 0);
    assert_int_equal(history_check(&s.history, NULL, &result), 0);
    assert_true(result.episodes == 3 && result.journaled == 2 && result.trained == 1 && result.stale == 1 && result.failed == 1);
    s.events[6].end = EPISODE_FILTERED;
    s.events[7] = s.events[8];
    s.events[7].iteration = 1;
    s.history.n_events = 8;
    s.history.complete = false;
    assert_int_equal(history_check(&s.history, NULL, &result), 0);
    assert_true(result.filtered == 1 && result.evaluated == 0 && result.open == 1 && result.violations == 0);
    s.events[6].end = EPISODE_EVALUATED;
    assert_int_equal(history_check(&s.history, NULL, &result), 0);
    assert_true(result.filtered == 0 && result.evaluated == 1 && result.stale == 0);
}

/* A run that was stopped in the middle: of what has not ended, some was played already. */
static void test_what_is_open(void **state)
{
    struct history_result result;
    struct scene s;

    (void)state;
    set_scene(&s);          /* 1 and 2 are journaled, and known to be; 3 is not played */
    s.history.n_events = 5;
    s.history.n_versions = 0;
    s.history.complete = false;
    assert_int_equal(history_check(&s.history, NULL, &result), 0);
    assert_true(result.open == 3 && result.waiting == 2 && result.journaled == 2 && result.violations == 0);
    s.history.n_events = 4; /* killed before the ledger heard of 2 */
    assert_int_equal(history_check(&s.history, NULL, &result), 0);
    assert_true(result.open == 3 && result.waiting == 2 && result.journaled == 1 && result.violations == 0);
    set_scene(&s);
    assert_int_equal(history_check(&s.history, NULL, &result), 0);
    assert_true(result.open == 0 && result.waiting == 0);
}

static void test_every_lie_is_caught(void **state)
{
    struct scene s;

    (void)state;
#define LIE(expected, ...) do { set_scene(&s); __VA_ARGS__; assert_true(violations(&s, expected) > 0); } while (0)
    LIE("trained twice, in policy versions 1 and 2", s.versions[1] = s.versions[0]; s.versions[1].number = 2;
        s.versions[1].parent = 1; s.history.n_versions = 2);
    LIE("ended twice", s.events[9] = s.events[5]; s.history.n_events = 10);
    LIE("reopened after it had ended", s.events[9] = s.events[6]; s.events[9].kind = HISTORY_REOPENED; s.history.n_events = 10);
    LIE("which is no end", s.events[7].end = EPISODE_OPEN);
    LIE("which was never journaled", s.consumed[1].episode = 3; s.versions[0].n_consumed = 2);
    LIE("the ledger has it open", s.events[5] = s.events[6]; s.history.n_events = 6; s.history.complete = false);
    LIE("the ledger says stale", s.consumed[1] = s.records[1]; s.versions[0].n_consumed = 2);
    LIE("no version lists it", s.versions[0].n_consumed = 0);
    LIE("but not in the journal", s.history.n_records = 1);
    LIE("digest is not the one", s.records[1].digest[5] = 1);
    LIE("other bytes", s.consumed[0].digest[5] = 1);
    LIE("never promised", s.records[2].episode = 8; s.history.n_records = 3);
    LIE("twice in the journal", s.records[2] = s.records[1]; s.history.n_records = 3);
    LIE("which the ledger does not know", s.consumed[1].episode = 8; s.versions[0].n_consumed = 2);
    LIE("added twice", s.events[9] = s.events[0]; s.history.n_events = 10);
    LIE("was never added", s.events[9] = s.events[3]; s.events[9].episode = 7; s.history.n_events = 10);
    LIE("nothing was journaled", s.events[4].episode = 1; s.events[4].digest[0] = 1);
    LIE("different digests", s.events[4].episode = 1);
    LIE("without its end", s.history.n_events = 9; s.events[7] = s.events[8]; s.history.complete = false);
    LIE("the run ended without its end", s.history.n_events = 7);
    LIE("journaled after it had ended", s.events[9] = s.events[4]; s.history.n_events = 10);
    LIE("not in the ledger", s.versions[0].in_ledger = false);
    LIE("does not exist", s.versions[0].number = 9; s.versions[0].parent = 8);
    LIE("is younger", s.versions[0].parent = 8);
    LIE("more than one policy version acted", s.played[1].mixed = true);
    LIE("played by policy version 8, its row says 7", s.played[0].policy_version = 8);
    LIE("scored by PRM version 1, its row says 2", s.played[0].prm_version = 1);
    LIE("a lease of epoch 4", s.played[1].fence_epoch = 4);
    LIE("prm version 1: its parent 8 is younger", s.versions[0].kind = KIND_PRM; s.versions[0].parent = 8);
    LIE("committed twice", s.versions[1] = s.versions[0]; s.versions[1].n_consumed = 0; s.history.n_versions = 2);
    LIE("prm version 1: trained on other bytes", s.versions[0].kind = KIND_PRM; s.consumed[0].digest[5] = 1);
#undef LIE
}

static void test_an_open_row_is_said_once(void **state)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct history_result result;
    struct scene s;

    (void)state;
    set_scene(&s);
    s.events[7] = s.events[8];
    s.history.complete = false;
    assert_int_equal(history_check(&s.history, &out, &result), 0);
    assert_int_equal(result.violations, 1);
    assert_string_equal(out.text, "episode 3: stage 4 iteration 2 was closed without its end\n");
}

static void test_what_is_allowed(void **state)
{
    struct scene s;

    (void)state;
    set_scene(&s);          /* retention removed a closed segment */
    s.history.n_records = 1;
    s.dropped[0] = 2;
    s.history.n_dropped = 1;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* killed between the rename and the ledger: the ledger hears of it later */
    s.events[5] = s.events[6];
    s.history.n_events = 6;
    s.history.complete = false;
    s.versions[0].in_ledger = false;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* a kept data set serves imitation and reward models again and again */
    s.events[5].end = EPISODE_KEPT;
    s.versions[1] = (struct history_version){
        .kind = KIND_POLICY, .number = 2, .parent = 1, .consumed = s.consumed, .n_consumed = 1, .in_ledger = true};
    s.versions[2] =
        (struct history_version){.kind = KIND_PRM, .number = 1, .consumed = s.consumed, .n_consumed = 1, .in_ledger = true};
    s.history.n_versions = 3;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* a trained episode may teach a reward model, too */
    s.versions[1] =
        (struct history_version){.kind = KIND_PRM, .number = 1, .consumed = s.consumed, .n_consumed = 1, .in_ledger = true};
    s.history.n_versions = 2;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* told twice of the same bytes */
    s.events[2] = s.events[4];
    s.events[7] = s.events[8];
    s.history.n_events = 8;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* killed between the journal's sync and the telling */
    s.events[4] = s.events[5];
    s.history.n_events = 5;
    s.history.complete = false;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* another iteration of the stage, and the same of another stage, are open */
    s.events[7] = s.events[8];
    s.events[7].iteration = 1;
    s.events[8].stage = 3;
    s.history.complete = false;
    assert_int_equal(violations(&s, NULL), 0);
    set_scene(&s);          /* lost with a disk, played again with the same sampling keys: to other bytes, perhaps */
    s.events[6] = (struct history_event) {.kind = HISTORY_REOPENED, .episode = 2};
    s.events[7] = (struct history_event) {.kind = HISTORY_JOURNALED, .episode = 2, .digest = {9}};
    s.records[1].digest[0] = 9;
    s.history.n_events = 8;
    s.history.complete = false;
    assert_int_equal(violations(&s, NULL), 0);
}

static void test_load_and_export(void **state)
{
    const struct ledger_run run = {.id = 42};
    struct ledger_iteration iteration = {.stage = 1, .iteration = 0, .name = "rl/0", .state = PROGRESS_DONE};
    struct ledger_iteration demos = {.stage = 0, .iteration = 0, .name = "demos", .state = PROGRESS_DONE};
    struct manifest m = {.run = 42, .number = 1, .stage = 1};
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct ledger_version version = {.kind = KIND_POLICY, .number = 1, .dir = "policies/v000001"};
    struct ledger_episode row = {.episode = 1, .stage = 1}, demo = {.episode = 2}, lost;
    char dir[SCRATCH_PATH], path[RUN_PATH], temporary[VERSION_PATH];
    uint64_t step_version = 3;
    Gantry__Trajectory trajectory = GANTRY__TRAJECTORY__INIT;
    uint8_t meta[64];
    size_t n_meta;
    struct ledger *ledger;
    struct journal *journal;
    struct history history;
    struct history_result result;
    struct error error;

    (void)state;
    trajectory.fence = 1ull << 32 | 5;
    trajectory.policy_version = row.policy_version = demo.policy_version = 3;
    trajectory.n_step_version = 1;
    trajectory.step_version = &step_version;
    n_meta = gantry__trajectory__pack(&trajectory, meta);
    scratch_new(dir);
    assert_int_equal(rundir_prepare(dir, &error), 0);
    assert_int_equal(rundir_path(dir, "journal", path, &error), 0);
    assert_int_equal(journal_open(path, 42, JOURNAL_WRITE, &journal, NULL, &error), 0);
    assert_int_equal(journal_segment(journal, 1, 0, &error), 0);
    assert_int_equal(journal_append(journal, 1, meta, n_meta, "f", 1, row.digest, &error), 0);
    assert_int_equal(journal_seal(journal, 1, 0, &error), 0);
    assert_int_equal(journal_segment(journal, 0, 0, &error), 0);
    assert_int_equal(journal_append(journal, 2, meta, n_meta, "g", 1, demo.digest, &error), 0);
    assert_int_equal(journal_seal(journal, 0, 0, &error), 0);
    journal_close(journal);

    m.consumed = calloc(1, sizeof *m.consumed);
    m.n_consumed = 1;
    m.consumed[0].episode = 1;
    memcpy(m.consumed[0].digest, row.digest, SHA256_SIZE);
    assert_int_equal(version_begin(dir, 0, 1, temporary, &error), 0);
    assert_int_equal(version_commit(dir, temporary, &m, &error), 0);
    memcpy(version.digest, m.digest, SHA256_SIZE);
    manifest_release(&m);

    assert_int_equal(rundir_path(dir, "ledger.sqlite", path, &error), 0);
    assert_int_equal(ledger_open(path, &run, &ledger, &error), 0);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_episode(ledger, &row), 0);
    lost = row;
    lost.digest[0]++;
    assert_int_equal(ledger_episode_journaled(ledger, &lost), 0);
    assert_int_equal(ledger_episode_reopened(ledger, 1, "its disk is gone"), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &row), 0);
    assert_int_equal(ledger_add_version(ledger, &version), 0);
    assert_int_equal(ledger_episode_ended(ledger, 1, EPISODE_TRAINED, NULL), 0);
    assert_int_equal(ledger_put_iteration(ledger, &iteration), 0);
    assert_int_equal(ledger_add_episode(ledger, &demo), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &demo), 0);
    assert_int_equal(ledger_episode_ended(ledger, 2, EPISODE_KEPT, NULL), 0);
    assert_int_equal(ledger_put_iteration(ledger, &demos), 0);
    assert_int_equal(ledger_add_event(ledger, "finished", 0, ""), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    assert_int_equal(history_export(ledger, 0, &out), 0);
    ledger_close(ledger);
    assert_non_null(strstr(out.text, "\"kind\":\"journaled\",\"episode\":1"));

    if (history_load(dir, &history, &error) < 0)
        fail_msg("%s", error.text);
    strbuf_reset(&out);
    assert_int_equal(history_check(&history, &out, &result), 0);
    assert_string_equal(out.text, "");
    assert_true(history.complete && result.trained == 1 && result.kept == 1 && result.violations == 0);
    assert_int_equal(history.n_played, 2);
    assert_true(history.played[0].policy_version == 3 && history.played[0].fence_epoch == 1 && !history.played[0].mixed);
    history_release(&history);

    assert_int_equal(rundir_path(dir, "journal/0001-000000.seg", path, &error), 0);
    assert_int_equal(unlink(path), 0);              /* retention of a closed iteration: no violation */
    assert_int_equal(history_load(dir, &history, &error), 0);
    assert_int_equal(history_check(&history, NULL, &result), 0);
    assert_int_equal(result.violations, 0);
    history_release(&history);

    assert_int_equal(rundir_path(dir, "journal/0000-000000.seg", path, &error), 0);
    assert_int_equal(unlink(path), 0);              /* a data set that is kept: somebody lost it */
    assert_int_equal(history_load(dir, &history, &error), 0);
    strbuf_reset(&out);
    assert_int_equal(history_check(&history, &out, &result), 0);
    assert_int_equal(result.violations, 1);
    assert_non_null(strstr(out.text, "episode 2: acknowledged as journaled, but not in the journal"));
    history_release(&history);

    assert_int_equal(rundir_path(dir, "ledger.sqlite", path, &error), 0);
    assert_int_equal(ledger_open(path, &run, &ledger, &error), 0);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_event(ledger, "ended", 1, "somehow"), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
    assert_int_equal(history_load(dir, &history, &error), -EBADMSG);     /* what it cannot understand it does not pass over */
    assert_non_null(strstr(error.text, "(ended) cannot be understood: somehow"));
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_true_history),
        cmocka_unit_test(test_what_is_open),
        cmocka_unit_test(test_every_lie_is_caught),
        cmocka_unit_test(test_an_open_row_is_said_once),
        cmocka_unit_test(test_what_is_allowed),
        cmocka_unit_test(test_load_and_export),
    };

    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
