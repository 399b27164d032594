/* test_figure.c - nobody reads "-0.0": of a return that is a little below zero, of an interval's end, of a loss times zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/figure.h"
#include "base/json_write.h"
#include "base/macro.h"
#include "cli/progress.h"

static void test_what_rounds_to_zero(void **state _unused_)
{
    static const struct { double value; int decimals; const char *text; } cases[] = {
        {-.04, 1, "0.0"}, {-0.0, 1, "0.0"}, {-.05, 1, "-0.1"}, {-.5, 0, "0"}, {-.51, 0, "-1"}, {-.005, 2, "-0.01"},
        {-.0049, 2, "0.00"}, {-1e-300, 3, "0.000"}, {.04, 1, "0.0"}, {-1, 1, "-1.0"}, {-1e300, 0, NULL}, {1.25, 1, "1.2"},
        {-NAN, 1, NULL}, {-INFINITY, 1, "-inf"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char shown[400], as_before[400];

        snprintf(shown, sizeof shown, "%.*f", cases[i].decimals, figure(cases[i].value, cases[i].decimals));
        snprintf(as_before, sizeof as_before, "%.*f", cases[i].decimals, cases[i].value);
        assert_string_equal(shown, cases[i].text ? cases[i].text : as_before);
    }
}

static void test_json(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};

    json_open(&w, NULL, '[');
    json_number(&w, NULL, -0.0);
    json_number(&w, NULL, -1e-12);
    json_close(&w, ']');
    assert_string_equal(out.text, "[0,-1e-12]");
}

static void test_progress_line(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    json_t *status = json_pack("{s:s, s:s, s:f, s:{s:i, s:i}}", "state", "collecting", "stage", "rl", "return", -.004, "episodes",
                               "journaled", 4, "planned", 8);

    assert_non_null(status);
    progress_line(status, &out);
    json_decref(status);
    if (!strstr(out.text, "return 0.00"))
        fail_msg("%s", out.text);
}

/* A run without a reward model has none of any number. */
static void test_progress_page(void **state _unused_)
{
    for (int prm = 0; prm < 2; prm++) {
        _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
        json_t *status = json_pack("{s:i, s:i}", "policy_version", 5, "prm_version", prm);

        assert_non_null(status);
        progress_page(status, &out);
        json_decref(status);
        if (!strstr(out.text, prm ? "\npolicy version 5  reward model version 1\n" : "\npolicy version 5\n"))
            fail_msg("%s", out.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_rounds_to_zero),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_progress_line),
        cmocka_unit_test(test_progress_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
