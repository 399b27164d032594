/* test_coordinator_starts.c - what a coordinator finds when it starts: a directory that is another's, another run's, damaged or
 * full, and evaluations that were added. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "tests/harness/coordinator_life.h"

static void refuses(const char *expected)
{
    struct edge *edge;

    assert_true(edge_new(life_config, NULL, &edge, &life_error) < 0);
    if (!strstr(life_error.text, expected))
        fail_msg("expected \"%s\" in: %s", expected, life_error.text);
}

static void put_later(const char *text)
{
    char path[128];

    snprintf(path, sizeof path, "%s/evals.yaml", life_run_dir);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

static void test_starts_that_are_refused(void **state)
{
    struct edge *first, *second;
    char *text, *stage, path[128];
    size_t n;

    (void)state;
    if (edge_new(life_config, NULL, &first, &life_error) < 0)
        fail_msg("%s", life_error.text);
    assert_int_equal(edge_new(life_config, NULL, &second, &life_error), -EBUSY);
    assert_non_null(strstr(life_error.text, "held by process"));
    first = edge_free(first);

    assert_int_equal(file_read(life_config, 4096, &text, &n), 0);
    stage = strstr(text, "steps: 2");
    stage[7] = '3';
    assert_int_equal(atomic_file_write(life_config, text, n), 0);
    refuses("another configuration");
    stage[7] = '2';
    assert_int_equal(atomic_file_write(life_config, text, n), 0);
    free(text);

    put_later("stages:\n - demos:\n");
    refuses("stages[0] is no eval stage; only those may be added to a run");
    put_later("stages:\n - eval: {episodes: 0}\n");
    refuses("evals.yaml:2:21: stages[0].eval.episodes: 0 is out of range");
    put_later("stages:\n - eval: {policies: [sft]}\n - eval: {policies: [last]}\n");
    if (edge_new(life_config, NULL, &first, &life_error) < 0)
        fail_msg("%s", life_error.text);
    assert_int_equal(first->config.n_stages, 6 + 2);
    assert_int_equal(first->n_config_stages, 6);
    assert_string_equal(first->config.stages[7].name, "later2");
    assert_non_null(strstr(first->stage_settings[7], "policies: [last]"));
    assert_null(strstr(first->config_text, "later"));       /* what the run was started with */
    first = edge_free(first);

    snprintf(path, sizeof path, "%s/init/config.json", life_dir);
    assert_int_equal(file_read(path, 4096, &text, &n), 0);
    *strrchr(text, '\n') = ' ';                             /* another file of the same model */
    assert_int_equal(atomic_file_write(path, text, n), 0);
    free(text);
    snprintf(path, sizeof path, "%s/policies/v000000", life_run_dir);
    assert_int_equal(remove_tree(path), 0);
    refuses("policies/v000000 is not the one the ledger knows");
    snprintf(path, sizeof path, "%s/ledger.sqlite", life_run_dir);
    assert_int_equal(unlink(path), 0);
    refuses("damaged: it ends at event 0, and events up to");
    (void)unlink(path);
    snprintf(path, sizeof path, "%s/ledger.sqlite-mark", life_run_dir);
    assert_int_equal(unlink(path), 0);
    refuses("the directory is put together from two runs, or ledger.sqlite was removed");
    snprintf(path, sizeof path, "%s/policies/v000000", life_run_dir);
    assert_int_equal(remove_tree(path), 0);
    snprintf(path, sizeof path, "%s/init", life_dir);
    assert_int_equal(remove_tree(path), 0);
    refuses("policy.init");
}

/* A full disk: what has not begun is put elsewhere, what has begun waits. */
static void test_no_room_to_start(void **state)
{
    struct edge *edge;

    (void)state;
    assert_int_equal(fault_arm("atomic_file.write=enospc@1+"), 0);
    assert_int_equal(edge_new(life_config, NULL, &edge, &life_error), -ENOSPC);
    assert_non_null(strstr(life_error.text, "or put run.dir elsewhere"));
    assert_int_equal(fault_arm(""), 0);
    if (edge_new(life_config, NULL, &edge, &life_error) < 0)
        fail_msg("%s", life_error.text);
    edge = edge_free(edge);
    assert_int_equal(fault_arm("atomic_file.write=enospc@1+"), 0);
    assert_int_equal(edge_new(life_config, NULL, &edge, &life_error), -EAGAIN);
    assert_null(strstr(life_error.text, "elsewhere"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_starts_that_are_refused, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_no_room_to_start, life_setup, life_teardown),
    };

    return cmocka_run_group_tests_name("coordinator starts", tests, NULL, NULL);
}
