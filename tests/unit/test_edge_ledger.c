/* test_edge_ledger: each change that a step of the conductor asks for stands in the ledger, and what begins a run does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "tests/harness/coordinator_life.h"

enum { STAGE = 1 };

static struct edge *begin(void)
{
    struct edge *edge;

    if (edge_new(life_config, NULL, &edge, &life_error) < 0)
        fail_msg("%s", life_error.text);
    return edge;
}

static struct conductor_effect *next(struct edge *edge, enum conductor_effect_kind kind)
{
    struct conductor_effects *effects = &edge->effects;

    effects->items = realloc(effects->items, (effects->n + 1) * sizeof *effects->items);
    assert_non_null(effects->items);
    effects->capacity = effects->n + 1;
    effects->items[effects->n] = (struct conductor_effect) {.kind = kind};
    return &effects->items[effects->n++];
}

#define SAY(field, text) snprintf(field, sizeof(field), "%s", text)

static struct conductor_effect *of_episode(struct edge *edge, enum conductor_effect_kind kind, uint64_t episode)
{
    struct conductor_effect *e = next(edge, kind);

    e->episode = (struct ledger_episode) {.episode = episode, .stage = STAGE, .task = "pick_up_object", .purpose = 1};
    return e;
}

static struct ledger *close_and_read(struct edge *edge)
{
    char path[128];
    struct ledger *ledger;

    edge_free(edge);
    snprintf(path, sizeof path, "%s/ledger.sqlite", life_run_dir);
    if (ledger_open_readonly(path, &ledger, &life_error) < 0)
        fail_msg("%s", life_error.text);
    return ledger;
}

static void test_episodes(void **state)
{
    struct edge *edge = begin();
    struct conductor_effect *e;
    struct ledger_episode *rows;
    struct ledger *ledger;
    size_t n;

    (void)state;
    for (uint64_t id = 1; id <= 3; id++)
        of_episode(edge, CONDUCTOR_ADD_EPISODE, id);
    e = of_episode(edge, CONDUCTOR_EPISODE_FAILURE, 1);         /* its worker died: it is played alone, in the next life, too */
    e->episode.failures = 2;
    e->episode.suspect = true;
    SAY(e->episode.reason, "crashed");
    of_episode(edge, CONDUCTOR_EPISODE_JOURNALED, 2)->episode.steps = 7;
    e = of_episode(edge, CONDUCTOR_EPISODE_REOPENED, 2);
    SAY(e->episode.reason, "lost with a disk");
    of_episode(edge, CONDUCTOR_EPISODE_JOURNALED, 3)->episode.steps = 9;
    of_episode(edge, CONDUCTOR_EPISODE_ENDED, 3)->episode.state = EPISODE_KEPT;
    assert_int_equal(edge_ledger_apply(edge), 0);
    assert_int_equal(edge->commits, 1);                         /* all, or none */
    ledger = close_and_read(edge);
    assert_int_equal(ledger_episodes(ledger, STAGE, 0, &rows, &n), 0);
    assert_int_equal(n, 3);
    assert_true(rows[0].suspect && rows[0].failures == 2 && rows[0].state == EPISODE_OPEN);
    assert_true(!rows[1].suspect && rows[1].state == EPISODE_OPEN && rows[1].steps == 0);
    assert_true(rows[2].state == EPISODE_KEPT && rows[2].steps == 9);
    free(rows);
    ledger_close(ledger);
}

static double scalar(struct ledger *ledger, const char *name)
{
    struct ledger_scalar *all;
    double value;
    size_t n;

    assert_int_equal(ledger_scalars(ledger, name, &all, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(all[0].stage, STAGE);
    value = all[0].value;
    free(all);
    return value;
}

/* Numbers that the learner reports with a version are points of curves; words are not. */
static void test_versions_and_curves(void **state)
{
    struct edge *edge = begin();
    struct conductor_effect *e = next(edge, CONDUCTOR_ADD_VERSION);
    struct ledger_version *versions;
    struct ledger_scalar *words;
    struct ledger_event *events;
    struct ledger *ledger;
    size_t n, said = 0;

    (void)state;
    e->version = (struct ledger_version) {.kind = KIND_POLICY, .number = 1, .stage = STAGE, .dir = "policies/v000001",
                                          .metrics = (char *)"{\"loss\": 0.5, \"rate\": 3, \"kind\": \"sft\"}"};
    e = next(edge, CONDUCTOR_ADD_SCALAR);
    e->scalar.stage = STAGE;
    SAY(e->scalar.name, "success");
    e->scalar.value = .25;
    e = next(edge, CONDUCTOR_ADD_EVENT);
    SAY(e->text.kind, "swap");
    SAY(e->text.text, "by hand");
    next(edge, CONDUCTOR_PUT_GROUP_EPOCH)->group_epoch = 5;
    next(edge, CONDUCTOR_ACK);                                  /* none of the ledger's business */
    assert_int_equal(edge_ledger_apply(edge), 0);
    ledger = close_and_read(edge);
    assert_true(scalar(ledger, "loss") == .5 && scalar(ledger, "rate") == 3 && scalar(ledger, "success") == .25);
    assert_int_equal(ledger_scalars(ledger, "kind", &words, &n), 0);
    assert_int_equal(n, 0);
    free(words);
    assert_int_equal(ledger_events(ledger, 0, 100, &events, &n), 0);
    for (size_t i = 0; i < n; i++)
        said += !strcmp(events[i].kind, "swap") && !strcmp(events[i].text, "by hand");
    assert_int_equal(said, 1);
    free(events);
    assert_int_equal(ledger_run(ledger)->group_epoch, 5);
    assert_int_equal(ledger_versions(ledger, &versions, &n), 0);
    assert_int_equal(n, 2);
    assert_true(versions[0].number == 0 && versions[0].gate_passed);    /* what a run begins with may be played */
    assert_true(versions[1].number == 1 && !versions[1].gate_passed);
    ledger_versions_free(versions, n);
    ledger_close(ledger);
}

/* A change that cannot be made: nothing of its step is. */
static void test_all_or_nothing(void **state)
{
    struct edge *edge = begin();
    struct ledger_episode *rows;
    size_t n;

    (void)state;
    of_episode(edge, CONDUCTOR_ADD_EPISODE, 1);
    of_episode(edge, CONDUCTOR_ADD_EPISODE, 1);
    assert_true(edge_ledger_apply(edge) < 0);
    assert_int_equal(edge->commits, 0);
    assert_int_equal(ledger_episodes(edge->ledger, LEDGER_ALL, LEDGER_ALL, &rows, &n), 0);
    assert_int_equal(n, 0);
    free(rows);
    edge->effects.n = 0;
    of_episode(edge, CONDUCTOR_ADD_EPISODE, 1);                 /* and the next one can be */
    assert_int_equal(edge_ledger_apply(edge), 0);
    edge_free(edge);
}

static void write_stages(const char *stages)
{
    char text[512];

    snprintf(text, sizeof text, "run: {name: t, dir: %s}\nsuite: {name: tabletop, tasks: [pick_up_object]}\npolicy: {init: %s/init}\n"
             "stages:\n%s", life_run_dir, life_dir, stages);
    assert_int_equal(atomic_file_write(life_config, text, strlen(text)), 0);
}

/* A run goes on with stages behind those it had, however many these were; with others it does not. */
static void test_stages_are_added(void **state)
{
    struct edge *edge;

    (void)state;
    write_stages("  - demos: {episodes: 6}\n");
    edge_free(begin());
    write_stages("  - demos: {episodes: 6}\n  - sft: {steps: 2}\n");
    edge_free(begin());
    edge_free(begin());
    write_stages("  - demos: {episodes: 6}\n  - sft: {steps: 2}\n  - sft: {steps: 3}\n  - sft: {steps: 4}\n");
    edge_free(begin());
    write_stages("  - demos: {episodes: 6}\n  - sft: {steps: 3}\n  - sft: {steps: 3}\n  - sft: {steps: 4}\n  - sft: {steps: 4}\n");
    assert_true(edge_new(life_config, NULL, &edge, &life_error) < 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_episodes, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_versions_and_curves, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_all_or_nothing, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_stages_are_added, life_setup, life_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
