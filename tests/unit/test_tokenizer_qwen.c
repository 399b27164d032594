/* Byte-level BPE after NFC and the split pattern; Unicode's classes and composition against the reference's tables; and a
 * tokenizer.model made of a tokenizer.json says the same ids. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/strbuf.h"
#include "nn/tokenizer.h"
#include "nn/unicode.h"

static const char *goldens(void)
{
    const char *dir = getenv("GANTRY_GOLDENS");

    if (!dir)
        print_message("GANTRY_GOLDENS is not set: no reference strings\n");
    return dir;
}

static json_t *read_json(const char *dir, const char *name)
{
    char path[4096];
    json_t *json;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    json = json_load_file(path, JSON_ALLOW_NUL, NULL);
    if (!json)
        fail_msg("%s cannot be read", path);
    return json;
}

static struct tokenizer *load(const char *path)
{
    struct tokenizer *t = NULL;
    struct error error;

    if (tokenizer_load(path, &t, &error) < 0)
        fail_msg("%s", error.text);
    return t;
}

static void expect_nfc(const char *text, const char *wanted)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;

    assert_int_equal(unicode_nfc(text, strlen(text), &out), 0);
    assert_string_equal(out.text, wanted);
}

static void test_nfc(void **state)
{
    (void)state;
    expect_nfc("", "");
    expect_nfc("plain", "plain");
    expect_nfc("cafe\u0301", "caf\u00e9");
    expect_nfc("q\u0307\u0323", "q\u0323\u0307");               /* marks are ordered by class */
    expect_nfc("\u1e9b\u0323", "\u1e9b\u0323");
    expect_nfc("\u212b\u2126", "\u00c5\u03a9");                 /* singletons are replaced */
    expect_nfc("\u0958", "\u0915\u093c");                       /* an excluded composition stays apart */
    expect_nfc("\u1100\u1161\u11a8", "\uac01");                 /* Hangul by arithmetic */
    expect_nfc("\uac00\u11a8", "\uac01");
    expect_nfc("\uac01\u11a8", "\uac01\u11a8");
    expect_nfc("a\u0315\u0300\u05ae\u0300b", "\u00e0\u05ae\u0300\u0315b");  /* the Unicode test suite's first hard case */
    expect_nfc("\u0301a", "\u0301a");
    /* To the original's normalizer a mark later than Unicode 9 is an ordinary character: it keeps its place and parts others. */
    expect_nfc("q\u0301\u0c3c", "q\u0301\u0c3c");
    expect_nfc("q\u1df9\u0301\u0323", "q\u1df9\u0323\u0301");
    expect_nfc("e\u1ac1\u0301", "e\u1ac1\u0301");
}

static void put(struct strbuf *out, const json_t *list, size_t first)
{
    for (size_t i = first; i < json_array_size(list); i++)
        utf8_write(out, (uint32_t)json_integer_value(json_array_get(list, i)));
}

/* Every pair that composes does, and every decomposition comes together again to what NFC has for it. */
static void test_nfc_tables(void **state)
{
    const char *dir = goldens();
    json_t *root, *row;
    size_t at;

    (void)state;
    if (!dir)
        skip();
    root = read_json(dir, "prm/common/unicode.json");
    json_array_foreach(json_object_get(root, "primary_composites"), at, row) {
        _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT, one = STRBUF_INIT;

        utf8_write(&text, (uint32_t)json_integer_value(json_array_get(row, 0)));
        utf8_write(&text, (uint32_t)json_integer_value(json_array_get(row, 1)));
        put(&one, row, 2);
        expect_nfc(text.text, one.text);
        expect_nfc(one.text, one.text);
    }
    json_array_foreach(json_object_get(root, "canonical_decomposition"), at, row) {
        _cleanup_(strbuf_release) struct strbuf one = STRBUF_INIT, text = STRBUF_INIT, a = STRBUF_INIT, b = STRBUF_INIT;

        utf8_write(&one, (uint32_t)json_integer_value(json_array_get(row, 0)));
        put(&text, row, 1);
        assert_int_equal(unicode_nfc(one.text, one.length, &a), 0);
        assert_int_equal(unicode_nfc(text.text, text.length, &b), 0);
        assert_string_equal(a.text, b.text);
    }
    json_decref(root);
}

static void check_strings(const struct tokenizer *t, const json_t *list)
{
    size_t at;
    json_t *entry;

    json_array_foreach(list, at, entry) {
        const json_t *text = json_object_get(entry, "text"), *ids = json_object_get(entry, "ids");
        const json_t *decoded = json_object_get(entry, "decoded");
        _cleanup_free_ int32_t *got = NULL;
        _cleanup_free_ char *back = NULL;
        size_t length;
        int n;

        assert_int_equal(tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &got, &n), 0);
        if (n != (int)json_array_size(ids))
            fail_msg("'%s': %d ids, the reference has %zu", json_string_value(text), n, json_array_size(ids));
        for (int i = 0; i < n; i++)
            if (got[i] != json_integer_value(json_array_get(ids, (size_t)i)))
                fail_msg("'%s': id %d is %d", json_string_value(text), i, got[i]);
        assert_int_equal(tokenizer_decode(t, got, n, false, &back, &length), 0);
        assert_int_equal(length, json_string_length(decoded));
        assert_memory_equal(back, json_string_value(decoded), length);
    }
}

static void test_reference(void **state)
{
    static const char *const models[] = {"qwen2_5_vl_tiny", "qwen2_vl_tiny"};
    const char *dir = goldens();

    (void)state;
    if (!dir)
        skip();
    for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
        char base[2048], path[4096];
        struct tokenizer *t;
        json_t *list;

        snprintf(base, sizeof(base), "%s/prm/%s", dir, models[i]);
        snprintf(path, sizeof(path), "%s/model/tokenizer.json", base);
        t = load(path);
        list = read_json(base, "tokenizer_goldens.json");
        assert_true(json_array_size(list) >= 260);
        check_strings(t, list);
        json_decref(list);
        tokenizer_free(t);
    }
}

/* ---- tokenizer.model ------------------------------------------------------------------------------------ */

static void put_varint(struct strbuf *out, uint64_t value)
{
    for (; value > 0x7f; value >>= 7)
        strbuf_addc(out, (char)(0x80 | (value & 0x7f)));
    strbuf_addc(out, (char)value);
}

static void put_field(struct strbuf *out, int number, const struct strbuf *message)
{
    put_varint(out, (uint64_t)number << 3 | 2);
    put_varint(out, message->length);
    strbuf_add(out, message->text, message->length);
}

static void put_number(struct strbuf *out, int number, uint64_t value)
{
    put_varint(out, (uint64_t)number << 3);
    put_varint(out, value);
}

static void put_piece(struct strbuf *out, const char *text, float score, int type)
{
    _cleanup_(strbuf_release) struct strbuf piece = STRBUF_INIT, name = STRBUF_INIT;

    strbuf_adds(&name, text);
    put_field(&piece, 1, &name);
    put_varint(&piece, 2 << 3 | 5);
    strbuf_add(&piece, &score, sizeof(score));
    put_number(&piece, 3, (uint64_t)type);
    put_field(out, 1, &piece);
}

static void put_specs(struct strbuf *out, uint64_t extra_blanks_go)
{
    _cleanup_(strbuf_release) struct strbuf trainer = STRBUF_INIT, normalizer = STRBUF_INIT;

    put_number(&trainer, 3, 2);
    put_number(&trainer, 35, 1);
    put_field(out, 2, &trainer);
    put_number(&normalizer, 3, 1);
    put_number(&normalizer, 4, extra_blanks_go);
    put_field(out, 3, &normalizer);
}

/* The reference's vocabulary as a SentencePiece file: ids 0..2 special, 3..258 bytes, then pieces by falling score. */
static void test_model_file(void **state)
{
    const char *dir = goldens(), *text;
    _cleanup_(strbuf_release) struct strbuf model = STRBUF_INIT, added = STRBUF_INIT;
    json_t *root, *list, *entry, *vocab, *id;
    const char *piece[40000] = {0};
    struct tokenizer *t = NULL;
    struct error error;
    size_t at;
    int n = 0;

    (void)state;
    if (!dir)
        skip();
    root = read_json(dir, "openvla/tiny224/checkpoint/tokenizer.json");
    vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_object_foreach(vocab, text, id) {
        assert_true(json_integer_value(id) < (json_int_t)ARRAY_SIZE(piece));
        piece[json_integer_value(id)] = text;
        n = MAX(n, (int)json_integer_value(id) + 1);
    }
    for (int i = 0; i < n; i++)
        put_piece(&model, piece[i], i < 259 ? 0 : -(float)(i - 259), i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
    put_specs(&model, 0);
    strbuf_adds(&added, "{");
    json_array_foreach(json_object_get(root, "added_tokens"), at, entry)
        if (json_integer_value(json_object_get(entry, "id")) >= n)
            strbuf_addf(&added, "\"%s\": %d", json_string_value(json_object_get(entry, "content")),
                        (int)json_integer_value(json_object_get(entry, "id")));
    strbuf_adds(&added, "}");
    if (tokenizer_parse_model(model.text, model.length, added.text, added.length, &t, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(tokenizer_size(t), n);
    list = read_json(dir, "openvla/tiny224/golden/tokenizer_golden.json");
    json_array_foreach(json_object_get(list, "encode"), at, entry) {
        const json_t *string = json_object_get(entry, "text"), *ids = json_object_get(entry, "ids");
        _cleanup_free_ int32_t *got = NULL;
        int count;

        assert_int_equal(tokenizer_encode(t, json_string_value(string), json_string_length(string), true, &got, &count), 0);
        assert_int_equal(count, json_array_size(ids));
        for (int i = 0; i < count; i++)
            assert_int_equal(got[i], json_integer_value(json_array_get(ids, (size_t)i)));
    }
    json_decref(list);
    json_decref(root);
    tokenizer_free(t);
}

static void expect_refused(const struct strbuf *model, const char *why)
{
    struct tokenizer *t = NULL;
    struct error error = {0};

    assert_true(tokenizer_parse_model(model->text, model->length, NULL, 0, &t, &error) < 0);
    assert_null(t);
    if (!strstr(error.text, why))
        fail_msg("'%s' does not say '%s'", error.text, why);
}

static void test_bad_model_files(void **state)
{
    _cleanup_(strbuf_release) struct strbuf model = STRBUF_INIT;

    (void)state;
    expect_refused(&model, "only SentencePiece BPE");
    put_specs(&model, 0);
    expect_refused(&model, "<0x00> is missing");
    strbuf_reset(&model);
    put_specs(&model, 1);
    expect_refused(&model, "normalizer");
    strbuf_reset(&model);
    put_piece(&model, "a", 0, 4);
    expect_refused(&model, "piece 0 ('a'): type 4");
    strbuf_reset(&model);
    put_piece(&model, "a", 0, 1);
    model.length -= 3;              /* cut off within the piece */
    expect_refused(&model, "behind piece 0");
}

static void test_bad_json(void **state)
{
    static const char *const bad[][2] = {
        {"{\"model\":{\"type\":\"BPE\"}}", "neither Llama's form"},
        {"{\"model\":{\"type\":\"Unigram\"}}", "the model is Unigram"},
        {"{\"model\":{\"type\":\"BPE\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":"
         "\"Isolated\",\"pattern\":{\"Regex\":\"x\"}},{\"type\":\"ByteLevel\",\"use_regex\":false}]}}", "NFC"},
        {"{\"normalizer\":{\"type\":\"NFC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{}},\"pre_tokenizer\":{\"type\":\"Sequence\","
         "\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"x\"}},{\"type\":\"ByteLevel\","
         "\"use_regex\":false}]}}", "not Qwen2's: x"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct tokenizer *t = NULL;
        struct error error = {0};

        assert_true(tokenizer_parse(bad[i][0], strlen(bad[i][0]), &t, &error) < 0);
        if (!strstr(error.text, bad[i][1]))
            fail_msg("'%s' does not say '%s'", error.text, bad[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nfc),        cmocka_unit_test(test_nfc_tables),       cmocka_unit_test(test_reference),
        cmocka_unit_test(test_model_file), cmocka_unit_test(test_bad_model_files), cmocka_unit_test(test_bad_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
