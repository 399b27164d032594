/* Llama BPE: a literal tokenizer with hand-made merges, and the reference's 267 strings and 60 decodings. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/strbuf.h"
#include "nn/tokenizer.h"

/* <unk> <s> </s>, 256 bytes (3..258), then pieces from 259 on. */
static struct tokenizer *make(const char *pieces[], int n, const char *merges)
{
    _cleanup_(strbuf_release) struct strbuf json = STRBUF_INIT;
    struct tokenizer *t = NULL;
    struct error error;

    strbuf_adds(
        &json,
        "{\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},\"pre_tokenizer\":null,"
        "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2");
    for (int i = 0; i < 256; i++)
        strbuf_addf(&json, ",\"<0x%02X>\":%d", (unsigned)i, i + 3);
    for (int i = 0; i < n; i++)
        strbuf_addf(&json, ",\"%s\":%d", pieces[i], 259 + i);
    strbuf_addf(&json, "},\"merges\":[%s]}}", merges);
    if (tokenizer_parse(json.text, json.length, &t, &error) < 0)
        fail_msg("%s", error.text);
    return t;
}

static void expect_ids(const struct tokenizer *t, const char *text, bool bos, const int32_t *ids, int n)
{
    _cleanup_free_ int32_t *got = NULL;
    int m;

    assert_int_equal(tokenizer_encode(t, text, strlen(text), bos, &got, &m), 0);
    assert_int_equal(m, n);
    if (n)
        assert_memory_equal(got, ids, (size_t)n * sizeof(*ids));
}
#define EXPECT(t, text, bos, ...) \
    expect_ids(t, text, bos, (const int32_t[]) {__VA_ARGS__}, (int)ARRAY_SIZE(((const int32_t[]) {__VA_ARGS__})))

static void test_merge_order(void **state)
{
    static const char *const pieces[] = {"\u2581", "a", "b", "c", "ab", "bc", "abc", "\u2581a"};
    struct tokenizer *t = make((const char **)pieces, 8, "\"b c\",\"a b\",[\"a\",\"bc\"],\"\u2581 a\"");

    (void)state;
    EXPECT(t, "abc", true, 1, 259, 265);            /* b c first, then a bc, although a b stands to the left */
    EXPECT(t, "ab", false, 259, 263);
    EXPECT(t, "a a", false, 266, 266);              /* a blank is the mark and merges with what follows */
    EXPECT(t, "aab", false, 266, 263);
    expect_ids(t, "", false, NULL, 0);              /* empty text gets no mark */
    EXPECT(t, "", true, 1);
    assert_int_equal(tokenizer_id(t, "abc"), 265);
    assert_int_equal(tokenizer_id(t, "abcd"), -ENOENT);
    assert_int_equal(tokenizer_size(t), 267);
    tokenizer_free(t);
    t = make((const char **)pieces, 8, "\"b c\",\"a b\",[\"a\",\"bc\"],\"b c\"");
    EXPECT(t, "abc", false, 259, 263, 262);         /* a pair that stands twice has the rank of its last place */
    tokenizer_free(t);
}

static void test_bytes_and_specials(void **state)
{
    static const char *const pieces[] = {"\u2581", "a", "b"};
    struct tokenizer *t = make((const char **)pieces, 3, "");
    _cleanup_free_ char *text = NULL;
    size_t n;

    (void)state;
    EXPECT(t, "\n", false, 259, 3 + 10);
    EXPECT(t, "\u00e9", false, 259, 3 + 0xc3, 3 + 0xa9);
    EXPECT(t, "a<s>b", true, 1, 259, 260, 1, 259, 261);     /* each fragment gets its own mark */
    EXPECT(t, "</s>", false, 2);
    assert_int_equal(tokenizer_encode(t, "\xc0\x80", 2, false, &(int32_t *) {NULL}, &(int) {0}), -EINVAL);
    assert_int_equal(tokenizer_encode(t, "\xed\xa0\x80", 3, false, &(int32_t *) {NULL}, &(int) {0}), -EINVAL);

    assert_int_equal(tokenizer_decode(t, (int32_t[]){1, 259, 260, 3 + 0xc3, 3 + 0xa9, 3 + 0xc3, 261, 99999}, 8, true, &text, &n),
                     0);
    assert_string_equal(text, "a\ufffd\ufffd\ufffdb");      /* one bad byte spoils the run of bytes it is in */
    tokenizer_free(t);
}

static void test_other_forms_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "[]", "{\"model\":{\"type\":\"WordPiece\"}}",
        "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{},\"merges\":[]}}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct tokenizer *t = NULL;
        struct error error = {0};

        assert_true(tokenizer_parse(bad[i], strlen(bad[i]), &t, &error) < 0);
        assert_null(t);
        assert_true(error.text[0]);
    }
}

/* The original takes the vocabulary's id then, whatever added_tokens says. */
static void test_two_ids_are_refused(void **state)
{
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"in\":0,\"<s>\":1},\"merges\":[]},"
        "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\"},{\"id\":2,\"content\":\"in\"}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]}}";
    struct tokenizer *t = NULL;
    struct error error = {0};

    (void)state;
    assert_int_equal(tokenizer_parse(json, sizeof json - 1, &t, &error), -EINVAL);
    assert_string_equal(error.text, "'in' is both id 0 and id 2");
}

static void check_decodings(const struct tokenizer *t, const json_t *list)
{
    size_t at;
    json_t *entry;

    json_array_foreach(list, at, entry) {
        const json_t *ids = json_object_get(entry, "ids");
        int n = (int)json_array_size(ids);
        _cleanup_free_ int32_t *values = calloc((size_t)n + 1, sizeof(*values));
        _cleanup_free_ char *text = NULL;
        size_t length;

        for (int i = 0; i < n; i++)
            values[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
        assert_int_equal(tokenizer_decode(t, values, n, at + 20 >= json_array_size(list), &text, &length), 0);
        assert_int_equal(length, json_string_length(json_object_get(entry, "text")));
        assert_memory_equal(text, json_string_value(json_object_get(entry, "text")), length);
    }
}

static void test_reference(void **state)
{
    const char *goldens = getenv("GANTRY_GOLDENS");
    char path[4096];
    struct tokenizer *t = NULL;
    struct error error;
    json_t *root, *list, *entry;
    size_t at;

    (void)state;
    if (!goldens) {
        print_message("GANTRY_GOLDENS is not set: no reference strings\n");
        skip();
    }
    snprintf(path, sizeof(path), "%s/openvla/tiny224/checkpoint/tokenizer.json", goldens);
    if (tokenizer_load(path, &t, &error) < 0)
        fail_msg("%s", error.text);
    snprintf(path, sizeof(path), "%s/openvla/tiny224/golden/tokenizer_golden.json", goldens);
    root = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    list = json_object_get(root, "encode");
    assert_int_equal(json_array_size(list), 267);
    json_array_foreach(list, at, entry) {
        const json_t *text = json_object_get(entry, "text"), *ids = json_object_get(entry, "ids");
        _cleanup_free_ int32_t *got = NULL;
        int n;

        assert_int_equal(tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &got, &n), 0);
        if (n != (int)json_array_size(ids))
            fail_msg("'%s': %d ids, the reference has %zu", json_string_value(text), n, json_array_size(ids));
        for (int i = 0; i < n; i++)
            assert_int_equal(got[i], json_integer_value(json_array_get(ids, (size_t)i)));
    }
    assert_int_equal(json_array_size(json_object_get(root, "decode")), 60);
    check_decodings(t, json_object_get(root, "decode"));
    json_decref(root);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_bytes_and_specials),
        cmocka_unit_test(test_other_forms_are_refused),
        cmocka_unit_test(test_two_ids_are_refused),
        cmocka_unit_test(test_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
