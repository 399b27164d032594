/* test_json_write.c - what others say of themselves goes into JSON that everybody can read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/json_write.h"
#include "base/macro.h"

/* Written as a text, and read back by somebody else. */
static void round_trip(const char *text, const char *expected)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};
    json_error_t error;
    json_t *root;

    json_open(&w, NULL, '{');
    json_text(&w, "text", text);
    json_close(&w, '}');
    root = json_loads(out.text, 0, &error);
    if (!root)
        fail_msg("%s: %s", out.text, error.text);
    assert_string_equal(json_string_value(json_object_get(root, "text")), expected);
    json_decref(root);
}

static void texts(void **state)
{
    (void)state;
    round_trip("", "");
    round_trip("a \"b\" \\ \n \t \x01 \x7f", "a \"b\" \\ \n \t \x01 \x7f");
    round_trip("\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf",
               "\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf");
}

/* A path that was cut inside a character, a host name in another encoding, a stranger's bytes. */
static void no_utf8(void **state)
{
    static const char *const bad[] = {"\x80", "\xbf", "\xc0", "\xc1", "\xf5", "\xff", "\xe4", "\xf0"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char text[16], expected[16];

        snprintf(text, sizeof text, "%sx", bad[i]);
        snprintf(expected, sizeof expected, "\xef\xbf\xbdx");
        round_trip(text, expected);
        round_trip(bad[i], "\xef\xbf\xbd");
    }
    round_trip("\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd");                         /* cut */
    round_trip("\xe0\x9f\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");         /* too long for what it says */
    round_trip("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");         /* half a pair of UTF-16 */
    round_trip("\xf0\x8f\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    round_trip("\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    round_trip("\xc3(", "\xef\xbf\xbd(");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(no_utf8)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
