/* test_record.c - training.json: what is read is what was written, and a file that does not say what a version was made from is
 * named, before a coordinator hears of a version that accounts for nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "learner/record.h"
#include "tests/harness/scratch.h"

static void put(const char *text)
{
    char path[SCRATCH_PATH + 16];

    snprintf(path, sizeof path, "%s/training.json", scratch_dir);
    assert_int_equal(file_write(path, text, strlen(text)), 0);
}

static void what_is_written_is_read(void **state)
{
    uint64_t trained[] = {1, 7, (uint64_t)1 << 53 | 1, INT64_MAX}, filtered[] = {2}, *stale = NULL;
    struct record record = {
        .trained = trained, .n_trained = ARRAY_SIZE(trained), .filtered = filtered, .n_filtered = 1, .stale = stale,
        .metrics = (char *)"{\"loss\":0.1,\"kl\":1e-300,\"steps\":12}", .data = (char *)"[{\"name\":\"spatial\"}]",
        .gate_text = "AUC 0.91 \"at\" the last frame, \xc3\xbc",
    };
    struct record back = {0};
    struct error error = {0};

    (void)state;
    for (int passed = 0; passed < 2; passed++) {
        record.gate_passed = passed;
        assert_int_equal(record_write(scratch_dir, &record, &error), 0);
        assert_int_equal(record_read(scratch_dir, &back, &error), 0);
        assert_int_equal(back.n_trained, 4);
        assert_memory_equal(back.trained, trained, sizeof trained);
        assert_int_equal(back.n_filtered, 1);
        assert_int_equal(back.filtered[0], 2);
        assert_int_equal(back.n_stale, 0);
        assert_int_equal(back.gate_passed, passed);
        assert_string_equal(back.gate_text, record.gate_text);
        assert_string_equal(back.metrics, "{\"loss\":0.10000000000000001,\"kl\":1e-300,\"steps\":12}");
        assert_null(back.data);
        record_release(&back);
    }
    record = (struct record) {0};               /* nothing was measured, nothing was left out */
    assert_int_equal(record_write(scratch_dir, &record, &error), 0);
    assert_int_equal(record_read(scratch_dir, &back, &error), 0);
    assert_true(!back.n_trained && !back.n_filtered && !back.n_stale && !back.gate_passed && !back.gate_text[0]);
    assert_string_equal(back.metrics, "{}");
    record_release(&back);
}

static void damaged_files_are_named(void **state)
{
    static const struct { const char *text, *said; } cases[] = {
        {"", "training.json:1: "},
        {"{\"trained\": [1, 2", "training.json:1: "},
        {"[1, 2]", "training.json"},
        {"{}", "training.json: trained: expected a list of episodes"},
        {"{\"trained\": [1], \"stale\": []}", "training.json: filtered: expected a list of episodes"},
        {"{\"trained\": [1], \"filtered\": {}, \"stale\": []}", "training.json: filtered: expected a list of episodes"},
        {"{\"trained\": [1, \"2\"], \"filtered\": [], \"stale\": []}", "training.json: trained: expected a list of episodes"},
        {"{\"trained\": [1, 2.5], \"filtered\": [], \"stale\": []}", "training.json: trained: expected a list of episodes"},
        {"{\"trained\": [-1], \"filtered\": [], \"stale\": []}", "training.json: trained: expected a list of episodes"},
        {"{\"trained\": [], \"filtered\": [], \"stale\": null}", "training.json: stale: expected a list of episodes"},
    };
    struct record back = {.n_trained = 77};
    struct error error = {0};

    (void)state;
    assert_int_equal(record_read(scratch_dir, &back, &error), -ENOENT);
    assert_non_null(strstr(error.text, "training.json: not there"));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        put(cases[i].text);
        assert_int_equal(record_read(scratch_dir, &back, &error), -EBADMSG);
        if (!strstr(error.text, cases[i].said))
            fail_msg("case %zu: %s", i, error.text);
    }
    assert_int_equal(back.n_trained, 77);       /* untouched */
    put("{\"trained\": [3], \"filtered\": [], \"stale\": [], \"of a later build\": 1}");
    assert_int_equal(record_read(scratch_dir, &back, &error), 0);
    assert_true(back.n_trained == 1 && back.trained[0] == 3 && !back.gate_passed && !back.gate_text[0]);
    record_release(&back);
}

static void a_place_that_cannot_be_written(void **state)
{
    struct record record = {0};
    struct error error = {0};
    char nowhere[SCRATCH_PATH + 16];

    (void)state;
    snprintf(nowhere, sizeof nowhere, "%s/nowhere", scratch_dir);
    assert_int_equal(record_write(nowhere, &record, &error), -ENOENT);
    assert_non_null(strstr(error.text, "nowhere/training.json: No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(damaged_files_are_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(a_place_that_cannot_be_written, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
