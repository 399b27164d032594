/* How each task goes, from a ledger whose passes are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/episode.h"
#include "coordinator/status_tasks.h"
#include "tests/harness/scratch.h"

static struct run_config config;
static struct ledger *ledger;

static void configure(const char *tasks)
{
    char yaml[600];
    struct error error = {0};

    snprintf(yaml, sizeof yaml,
             "run: {name: t, dir: /tmp/t, seed: 7}\nsuite: {tasks: [%s]}\npolicy: {init: /tmp/init}\n"
             "stages: [{demos: {}}, {rl: {reward: sparse}}, {rl: {reward: sparse}}, {eval: {}}]\n", tasks);
    if (run_config_parse(yaml, strlen(yaml), "test", &config, &error) < 0)
        fail_msg("%s", error.text);
}

static int setup(void **state)
{
    const struct ledger_run run = {.id = 1, .seed = 7};
    struct error error = {0};
    char path[SCRATCH_PATH + 16];

    scratch_set_up(state);
    snprintf(path, sizeof path, "%s/ledger.sqlite", scratch_dir);
    if (ledger_open(path, &run, &ledger, &error) < 0)
        fail_msg("%s", error.text);
    configure("pick_up_object, open_drawer");
    return 0;
}

static int teardown(void **state)
{
    ledger = ledger_close(ledger);
    return scratch_tear_down(state);
}

/* first, second: success of the two tasks; NAN: not played. */
static void pass(uint32_t stage, uint32_t iteration, uint32_t purpose, double first, double second)
{
    const struct ledger_iteration it = {.stage = stage, .iteration = iteration, .purpose = purpose, .state = PROGRESS_DONE};

    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_put_iteration(ledger, &it), 0);
    if (!isnan(first))
        assert_int_equal(ledger_add_scalar(ledger, stage, iteration, "success/pick_up_object", first), 0);
    if (!isnan(second))
        assert_int_equal(ledger_add_scalar(ledger, stage, iteration, "success/open_drawer", second), 0);
    assert_int_equal(ledger_commit(ledger), 0);
}

static void drawn(uint32_t stage, uint32_t iteration, double second)
{
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_scalar(ledger, stage, iteration, "curriculum/open_drawer", second), 0);
    assert_int_equal(ledger_commit(ledger), 0);
}

static void says(const char *expected)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};

    json_open(&w, NULL, '[');
    status_tasks_write(ledger, &config, &w);
    json_close(&w, ']');
    assert_string_equal(out.text, expected);
}

#define FIRST "[{\"task\":\"pick_up_object\",\"success\":"
#define SECOND "},{\"task\":\"open_drawer\",\"success\":"

static void test_tasks(void **state)
{
    (void)state;
    says("[]");
    pass(0, 0, EPISODE_DEMO, 1, 1);                 /* a demonstrator's */
    says("[]");
    pass(1, 0, EPISODE_EVAL, .125, .25);
    says(FIRST "null,\"passes\":0,\"val\":0.125,\"drawn\":null" SECOND "null,\"passes\":0,\"val\":0.25,\"drawn\":null}]");
    pass(1, 1, EPISODE_TRAIN, .5, NAN);
    drawn(1, 1, .75);
    pass(1, 2, EPISODE_TRAIN, .25, .75);
    drawn(1, 2, .625);
    says(FIRST "0.375,\"passes\":2,\"val\":0.125,\"drawn\":null" SECOND "0.75,\"passes\":1,\"val\":0.25,\"drawn\":0.625}]");
    for (uint32_t i = 3; i < 8; i++)                /* the last five alone count */
        pass(1, i, EPISODE_TRAIN, 1, i == 7 ? 0 : 1);
    pass(1, 8, EPISODE_EVAL, .5, .375);
    says(FIRST "1,\"passes\":5,\"val\":0.5,\"drawn\":null" SECOND "0.8,\"passes\":5,\"val\":0.375,\"drawn\":0.625}]");
    pass(2, 0, EPISODE_TRAIN, .5, .5);              /* another stage has another policy, and nothing was tried on val yet */
    pass(3, 0, EPISODE_EVAL, .9, .9);               /* a test's rows are of several policies */
    says(FIRST "0.5,\"passes\":1,\"val\":null,\"drawn\":null" SECOND "0.5,\"passes\":1,\"val\":null,\"drawn\":null}]");
}

static void test_one_task(void **state)
{
    (void)state;
    configure("pick_up_object");
    pass(1, 1, EPISODE_TRAIN, .5, NAN);
    says("[]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tasks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_task, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
