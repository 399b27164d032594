/* What tests/gpu/check.sh measures of whole models on a device runs here in small on the emulated one, so that the first run over
 * there measures instead of failing: every part, both numerics, all lines there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/emulate/test_device.h"
#include "tests/harness/device_bench.h"

static int count(const char *text, const char *what)
{
    int n = 0;

    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

static void run(const char *part, bool fast, const char *line, int lines)
{
    char *text = NULL;
    size_t size = 0;
    struct device_bench bench = {.device = device, .model = "tiny", .layers = 1, .small_reward = true, .fast = fast,
                                 .batch = {1, 1, 2}, .train_batch = {1, 1},
                                 .repeats = 1, .flops = 1e15, .bytes = 1e15, .out = open_memstream(&text, &size)};
    struct error error = {0};
    int r = device_bench_run(&bench, part, &error);

    fclose(bench.out);
    if (r < 0)
        fail_msg("%s: %s\n%s", part, error.text, text);
    if (count(text, line) != lines)
        fail_msg("%s: '%s' %d times, wanted %d\n%s", part, line, count(text, line), lines, text);
    assert_null(strstr(text, "nan"));
    free(text);
}

static void test_acts(void **state)
{
    (void)state;
    run("act", false, "actions/s", 3);
    run("adapters", true, "acts with adapters, numerics fast", 3);
}

static void test_learns(void **state)
{
    (void)state;
    run("train", true, "samples/s", 2);
}

static void test_answers_and_scores(void **state)
{
    (void)state;
    run("oft", true, "chunks/s", 6);
    run("prm", true, "scores/s", 3);
    run("score", true, "scores/s", 3);
}

static void test_contract(void **state)
{
    (void)state;
    run("contract", true, "after a flip", 3);
}

static void test_all_parts_are_known(void **state)
{
    struct device_bench bench = {.device = device, .model = "no-such-size", .out = stdout};
    struct error error = {0};

    (void)state;
    assert_true(device_bench_run(&bench, "act", &error) < 0);        /* no size, so a directory */
    assert_non_null(strstr(error.text, "no-such-size"));
    assert_true(device_bench_run(&bench, "nothing", &error) < 0);
    assert_non_null(strstr(error.text, "nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acts),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_answers_and_scores),
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_all_parts_are_known),
    };

    return cmocka_run_group_tests(tests, test_device_setup, test_device_teardown);
}
