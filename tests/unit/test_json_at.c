/* test_json_at.c - what a JSON object does not say is not known, rather than 0. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_write.h"
#include "base/macro.h"
#include "cli/json_at.h"

static json_t *parse(const char *text)
{
    json_t *object = json_loads(text, 0, NULL);

    assert_non_null(object);
    return object;
}

static void numbers_and_texts(void **state)
{
    json_t *object = parse("{\"real\": 0.5, \"whole\": 3, \"null\": null, \"text\": \"a\"}");

    (void)state;
    assert_true(number_at(object, "real") == 0.5 && number_at(object, "whole") == 3);
    assert_true(isnan(number_at(object, "null")) && isnan(number_at(object, "text")) && isnan(number_at(object, "absent")));
    assert_true(isnan(number_at(NULL, "real")));
    assert_string_equal(text_at(object, "text"), "a");
    assert_string_equal(text_at(object, "whole"), "");
    assert_string_equal(text_at(object, "absent"), "");
    assert_string_equal(text_at(NULL, "text"), "");
    json_decref(object);
}

static void intervals(void **state)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};
    double low = 7, high = 8;
    json_t *object;

    (void)state;
    json_open(&w, NULL, '{');
    json_interval(&w, "whole", -1, 2);
    json_interval(&w, "half", NAN, 2);
    json_close(&w, '}');
    object = parse(out.text);
    assert_false(interval_at(object, "absent", &low, &high));
    assert_true(low == 7 && high == 8);
    assert_true(interval_at(object, "whole", &low, &high));
    assert_true(low == -1 && high == 2);
    assert_true(interval_at(object, "half", &low, &high));
    assert_true(isnan(low) && high == 2);
    json_decref(object);

    object = parse("{\"three\": [1, 2, 3], \"number\": 1}");
    assert_false(interval_at(object, "three", &low, &high) || interval_at(object, "number", &low, &high));
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_and_texts), cmocka_unit_test(intervals)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
