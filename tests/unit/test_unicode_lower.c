/* Small letters as Python makes them: every character, and the sigma that depends on where it stands. What is expected comes from
 * tests/ref/make_lower_table.py --digest and from str.lower(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/sha256.h"
#include "nn/unicode.h"

static void test_every_character(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf in = STRBUF_INIT, out = STRBUF_INIT;
    char hex[SHA256_HEX];
    uint8_t digest[SHA256_SIZE];

    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000)
            continue;
        in.length = 0;
        utf8_write(&in, c);
        assert_int_equal(unicode_lower(in.text, in.length, &out), 0);
    }
    sha256_of(out.text, out.length, digest);
    sha256_hex(digest, hex);
    assert_string_equal(hex, "958a7ea6410864d6bdee95e35373a838cd50f39ae4208f30d5fe14da0a0faff2");
}

static void test_words(void **state _unused_)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"Pick UP the Cup", "pick up the cup"},
        {"Öffne die SCHUBLADE, GROẞ", "öffne die schublade, groß"},
        {"ОТКРОЙ ЯЩИК", "открой ящик"},
        {"İZMİR", "i̇zmi̇r"},
        {"ΆΝΟΙΞΕ ΤΟΥΣ", "άνοιξε τους"},
        {"ΣΑΣ Σ ΑΣ'Α Α'Σ Σ.", "σας σ ασ'α α'ς σ."},
        {"打开 B", "打开 b"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;

        assert_int_equal(unicode_lower(cases[i][0], strlen(cases[i][0]), &out), 0);
        assert_string_equal(out.text ?: "", cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
