/* summary.json: figures of a ledger whose outcomes are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/atomic_file.h"
#include "base/episode.h"
#include "coordinator/summary.h"
#include "tests/harness/scratch.h"

static const char yaml[] =
    "run: {name: t, dir: /tmp/t, seed: 7}\n"
    "suite: {name: tabletop, tasks: [pick_up_object, open_drawer], image: 64}\n"
    "policy: {init: /tmp/init}\n"
    "stages:\n"
    "  - demos: {episodes: 10}\n"
    "  - sft: {steps: 240}\n"
    "  - sft: {steps: 120}\n"
    "  - prm: {steps: 5}\n"
    "  - rl: {iterations: 30, episodes: 8, preset: tabletop, reward: sparse, critic_prm: false}\n"
    "  - eval: {episodes: 200, val_episodes: 100, policies: [demonstrator, sft, sft-earlier, best, last], "
    "temperatures: [0.3, 1], n: [1, 4], first_state: 7}\n";
enum { EVAL_STAGE = 5, STATES = 100 };      /* 2 tasks x 100 states = 200 episodes */

static struct run_config config;
static struct ledger *ledger;
static char dir[SCRATCH_PATH];
static uint64_t next_id;

static void add_row(struct ledger_episode e, const char *tag, int task, enum episode_state end)
{
    e.episode = ++next_id;
    e.purpose = EPISODE_EVAL;
    e.split = SPLIT_TEST;
    e.steps = e.success ? 5 : 15;
    snprintf(e.task, sizeof e.task, "%s", config.tasks[task]);
    snprintf(e.tag, sizeof e.tag, "%s", tag);
    assert_int_equal(ledger_add_episode(ledger, &e), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &e), 0);
    assert_int_equal(ledger_episode_ended(ledger, e.episode, end, NULL), 0);
}

/* Rows of one pass: state i of the first task succeeds when i < first, of the second when i < second. */
static void add_pass(const char *tag, float temperature, uint64_t version, int states, int first, int second)
{
    for (int i = 0; i < 2 * states; i++)
        add_row((struct ledger_episode) {.stage = EVAL_STAGE, .state_seed = (uint64_t)i / 2, .policy_version = version,
                                         .temperature = temperature, .success = i / 2 < (i % 2 ? second : first)},
                tag, i % 2, EPISODE_EVALUATED);
}

static int setup(void **state)
{
    const struct ledger_run run = {.id = 1, .seed = 7};
    static const char runtime[] = "\"actions_per_s\":12.5";
    struct ledger_iteration iteration = {.stage = 4, .purpose = EPISODE_TRAIN};
    struct ledger_episode played = {.stage = 4, .iteration = 1, .purpose = EPISODE_TRAIN, .steps = 40};
    const struct ledger_version version = {.kind = KIND_POLICY, .number = 2};
    struct error error;
    char path[96];

    (void)state;
    scratch_new(dir);
    snprintf(path, sizeof path, "%s/ledger.sqlite", dir);
    if (run_config_parse(yaml, strlen(yaml), "test", &config, &error) < 0 || ledger_open(path, &run, &ledger, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(ledger_begin(ledger), 0);
    for (uint32_t i = 0; i <= EVAL_STAGE; i++) {
        struct ledger_stage stage = {.stage = i, .state = PROGRESS_DONE, .wall_s = 10 + i, .policy_out = i};

        snprintf(stage.name, sizeof stage.name, "%s", config.stages[i].name);
        snprintf(stage.kind, sizeof stage.kind, "%s", stage_kind_name(config.stages[i].kind));
        assert_int_equal(ledger_put_stage(ledger, &stage), 0);
    }
    next_id = 0;
    add_pass("test demonstrator", 0, 0, STATES, 100, 90);
    add_pass("test sft t=0.3", 0.3f, 2, STATES, 40, 20);
    add_pass("test sft t=0", 0, 2, STATES, 10, 10);
    add_pass("test sft t=1", 1, 2, STATES, 30, 10);
    add_pass("test last t=1", 1, 40, STATES, 70, 50);
    add_pass("val sft t=0.3", 0.3f, 2, 50, 20, 10);
    add_pass("val sft t=1", 1, 2, 50, 10, 10);
    add_pass("val sft-earlier t=0.3", 0.3f, 1, 50, 19, 10);
    add_pass("val sft-earlier t=1", 1, 1, 50, 8, 10);
    add_pass("val last t=0.3", 0.3f, 40, 50, 20, 20);
    add_pass("val last t=1", 1, 40, 50, 30, 20);
    add_pass("search last n=1", 1, 40, 10, 4, 4);
    add_pass("search last n=4", 1, 40, 10, 8, 6);
    played.episode = ++next_id;
    assert_int_equal(ledger_add_episode(ledger, &played), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &played), 0);
    assert_int_equal(ledger_episode_ended(ledger, played.episode, EPISODE_TRAINED, NULL), 0);
    for (int i = 0; i < 2; i++) {       /* one that could not be played, and one of another stage: neither counts */
        struct ledger_episode other = {.episode = ++next_id, .stage = i ? 3 : EVAL_STAGE, .purpose = EPISODE_EVAL,
                                       .split = SPLIT_TEST, .success = true, .tag = "test sft t=0.3"};

        snprintf(other.task, sizeof other.task, "%s", config.tasks[0]);
        assert_int_equal(ledger_add_episode(ledger, &other), 0);
        assert_int_equal(ledger_episode_journaled(ledger, &other), 0);
        assert_int_equal(ledger_episode_ended(ledger, other.episode, i ? EPISODE_EVALUATED : EPISODE_FAILED, NULL), 0);
    }
    for (iteration.iteration = 1; iteration.iteration <= 4; iteration.iteration++) {    /* one of val states, one not done */
        iteration.purpose = iteration.iteration == 3 ? EPISODE_EVAL : EPISODE_TRAIN;
        iteration.state = iteration.iteration == 4 ? PROGRESS_OPEN : PROGRESS_DONE;
        assert_int_equal(ledger_put_iteration(ledger, &iteration), 0);
    }
    assert_int_equal(ledger_add_version(ledger, &version), 0);
    assert_int_equal(ledger_put_blob(ledger, "runtime", runtime, sizeof runtime - 1), 0);
    return ledger_commit(ledger);
}

static int teardown(void **state)
{
    (void)state;
    ledger = ledger_close(ledger);
    return remove_tree(dir);
}

static json_t *at(json_t *root, const char *path)
{
    char copy[96], *save = NULL;

    snprintf(copy, sizeof copy, "%s", path);
    for (char *key = strtok_r(copy, ".", &save); key; key = strtok_r(NULL, ".", &save))
        root = json_object_get(root, key);
    if (!root)
        fail_msg("summary.json has no %s", path);
    return root;
}

static void near(json_t *root, const char *path, double expected)
{
    double value = json_number_value(at(root, path));

    if (value < expected - 1e-6 || value > expected + 1e-6)
        fail_msg("%s is %g, not %g", path, value, expected);
}

/* An interval around the figure that it belongs to. */
static void between(json_t *root, const char *path, double low, double high)
{
    const json_t *interval = at(root, path);
    double found_low = json_number_value(json_array_get(interval, 0)), found_high = json_number_value(json_array_get(interval, 1));

    if (json_array_size(interval) != 2 || fabs(found_low - low) > 1e-3 || fabs(found_high - high) > 1e-3)
        fail_msg("%s is %g to %g", path, found_low, found_high);
}

static void is_text(json_t *root, const char *path, const char *expected)
{
    assert_string_equal(json_string_value(at(root, path)), expected);
}

static void test_figures(void **state)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct error error;
    json_t *s, *interval;
    double low, high;

    (void)state;
    if (summary_make(ledger, &config, &text, &error) < 0)
        fail_msg("%s", error.text);
    s = json_loads(text.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(s);
    near(s, "success_before", 0.30);
    near(s, "success_after", 0.60);
    near(s, "difference", 0.30);
    near(s, "paired.pairs", 200);
    near(s, "paired.gained", 60);
    near(s, "paired.lost", 0);
    near(s, "paired_t1.difference", 0.40);
    near(s, "eval_episodes", 200);
    near(s, "policies.sft.temperature", 0.3);
    near(s, "policies.sft.version", 2);
    near(s, "policies.sft.greedy", 0.10);
    near(s, "policies.sft.t1", 0.20);
    near(s, "policies.sft.tasks.pick_up_object.success", 0.40);
    near(s, "policies.last.tasks.open_drawer.success", 0.50);
    near(s, "policies.last.tasks.open_drawer.episodes", 100);
    /* 60 of 200 pairs gained: mean .30, standard error sqrt(.3 * .7 / 200) = .0324 */
    interval = at(s, "difference_interval");
    low = json_number_value(json_array_get(interval, 0));
    high = json_number_value(json_array_get(interval, 1));
    assert_true(low > 0.22 && low < 0.25 && high > 0.35 && high < 0.38);
    assert_true(json_is_true(at(s, "sft_plateau.checked")));
    assert_true(json_is_true(at(s, "sft_plateau.at_plateau")));
    near(s, "sft_plateau.earlier_steps", 240);
    near(s, "sft_plateau.steps", 360);
    near(s, "sft_plateau.gain", 0.015);         /* 1 and 2 successes more at the two temperatures, of 100 rows each */
    near(s, "sft_plateau.states", 100);
    near(s, "sft_plateau.success_val", 0.30);
    near(s, "sft_plateau.earlier_success_val", 0.29);
    near(s, "success_demonstrator", 0.95);
    near(s, "policies.demonstrator.success", 0.95);
    assert_null(json_object_get(at(s, "policies.demonstrator"), "temperature"));
    assert_null(json_object_get(at(s, "policies.demonstrator"), "val"));
    assert_null(json_object_get(at(s, "policies"), "best"));
    assert_true(json_is_null(at(s, "success_best")));       /* not evaluated: said so, not guessed */
    near(s, "policies.sft.success", 0.30);
    near(s, "policies.sft.episodes", 200);
    near(s, "policies.sft.mean_steps", 12);
    between(s, "policies.sft.interval95", .24075, .36679);   /* Wilson's, of 60 in 200 */
    assert_int_equal(json_object_size(at(s, "policies.sft.test")), 3);
    assert_true(json_number_value(json_object_get(at(s, "policies.sft.test"), "0.3")) == .3);
    assert_true(json_number_value(json_object_get(at(s, "policies.sft.test"), "0")) == .1);
    assert_true(json_number_value(json_object_get(at(s, "policies.sft.test"), "1")) == .2);
    assert_int_equal(json_object_size(at(s, "policies.sft.val")), 2);
    assert_true(json_number_value(json_object_get(at(s, "policies.sft.val"), "0.3")) == .3);
    assert_true(json_is_null(at(s, "policies.last.greedy")));
    assert_true(json_number_value(at(s, "paired.mcnemar_p")) < 1e-9);
    interval = at(s, "paired.interval95");
    assert_true(json_number_value(json_array_get(interval, 0)) == low && json_number_value(json_array_get(interval, 1)) == high);
    assert_int_equal(json_object_size(at(s, "search")), 1);
    near(s, "search.last.n1.success", .4);
    near(s, "search.last.n4.success", .7);
    near(s, "search.last.n4.episodes", 20);
    near(s, "search.last.n4.over_n1.difference", .3);
    near(s, "search.last.n4.over_n1.gained", 6);
    assert_null(json_object_get(at(s, "search.last.n1"), "over_n1"));
    interval = at(s, "sft_plateau.gain_interval95");
    assert_true(json_number_value(json_array_get(interval, 0)) <= .015 && json_number_value(json_array_get(interval, 1)) >= .015);

    is_text(s, "run", "t");
    is_text(s, "run_id", "0000000000000001");
    near(s, "seed", 7);
    is_text(s, "numerics", "strict");
    is_text(s, "suite", "tabletop");
    is_text(s, "eval_stage", "eval");
    is_text(s, "eval_split", "test");
    assert_string_equal(json_string_value(json_array_get(at(s, "tasks"), 1)), "open_drawer");
    assert_int_equal(json_array_size(at(s, "tasks")), 2);
    between(s, "eval_seeds", 7, 106);
    near(s, "wall_s.sft2", 12);
    near(s, "wall_total_s", 10 + 11 + 12 + 13 + 14 + 15);
    near(s, "env_steps", 18210 + 40);
    near(s, "env_steps_per_s.rl", 40. / 14);
    near(s, "env_steps_per_s.eval", 18210. / 15);
    assert_int_equal(json_object_size(at(s, "env_steps_per_s")), 2);
    near(s, "iterations", 2);
    near(s, "episodes.evaluated", 1640 + 1);
    near(s, "episodes.trained", 1);
    near(s, "episodes.failed", 1);
    near(s, "versions", 1);
    near(s, "coordinator_starts", 1);
    near(s, "actions_per_s", 12.5);
    json_decref(s);
}

/* Of what was not played in full: tasks weigh the same among those that were, pairs need both halves, and of temperatures that
 * were as good the first is the one that was played. */
static void test_gaps(void **state)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct ledger_episode row = {.stage = 3, .policy_version = 9, .temperature = .3f};
    struct error error;
    json_t *s;

    (void)state;
    assert_int_equal(ledger_begin(ledger), 0);
    add_row(row, "test best t=0.3", 0, EPISODE_EVALUATED);      /* of another stage */
    row.stage = EVAL_STAGE;
    row.policy_version = 30;
    add_pass("val best t=0.3", .3f, 30, 50, 20, 20);
    add_pass("val best t=1", 1, 30, 50, 20, 20);
    for (row.state_seed = 0; row.state_seed < 10; row.state_seed++) {
        row.success = row.state_seed < 5;
        add_row(row, "test best t=0.3", 0, EPISODE_EVALUATED);
    }
    row.state_seed = 500;
    add_row(row, "test last t=1", 0, EPISODE_EVALUATED);
    add_row(row, "test sft t=0.3", 0, EPISODE_FAILED);
    add_row(row, "val sft t=0.3", 0, EPISODE_EVALUATED);
    add_row(row, "val sft t=1", 0, EPISODE_EVALUATED);
    add_row(row, "val sft-earlier t=0.3", 0, EPISODE_EVALUATED);
    add_row(row, "val sft-earlier t=1", 0, EPISODE_FAILED);
    assert_int_equal(ledger_commit(ledger), 0);
    config.stages[EVAL_STAGE].eval.episodes++;
    if (summary_make(ledger, &config, &text, &error) < 0)
        fail_msg("%s", error.text);
    s = json_loads(text.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(s);
    near(s, "success_best", .5);
    near(s, "policies.best.success", .5);
    near(s, "policies.best.temperature", .3);
    near(s, "policies.best.version", 30);
    near(s, "paired.pairs", 200);
    near(s, "eval_episodes", 201);
    near(s, "sft_plateau.states", 100);
    between(s, "eval_seeds", 7, 107);           /* one task has a state more */
    json_decref(s);
}

/* Temperatures that were settled before: nothing on val chooses others. */
static void test_settled_temperatures(void **state)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct eval_config *eval = &config.stages[EVAL_STAGE].eval;
    struct error error;
    json_t *s;

    (void)state;
    eval->n_at = eval->n_policies;
    for (int i = 0; i < eval->n_at; i++)
        eval->at[i] = 1;
    if (summary_make(ledger, &config, &text, &error) < 0)
        fail_msg("%s", error.text);
    s = json_loads(text.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(s);
    near(s, "success_before", 0.20);
    near(s, "success_after", 0.60);
    near(s, "policies.sft.temperature", 1);
    near(s, "policies.sft.success", 0.20);
    json_decref(s);
}

/* A run that only imitates: its episodes are counted, too. */
static void test_imitation_alone(void **state)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct eval_config *eval = &config.stages[EVAL_STAGE].eval;
    struct error error;
    json_t *s;

    (void)state;
    eval->n_policies = 1;
    snprintf(eval->policies[0], sizeof eval->policies[0], "sft");
    if (summary_make(ledger, &config, &text, &error) < 0)
        fail_msg("%s", error.text);
    s = json_loads(text.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(s);
    near(s, "success_before", 0.30);
    near(s, "eval_episodes", 200);
    assert_null(json_object_get(s, "difference"));
    json_decref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_figures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gaps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_settled_temperatures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_imitation_alone, setup, teardown),
    };

    return cmocka_run_group_tests_name("summary", tests, NULL, NULL);
}
