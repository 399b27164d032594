/* Pickles and ZIP archives: what Python wrote is read back, what could act is refused by name and offset. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/pickle.h"
#include "base/zip.h"

static int allow(const char *module, const char *name)
{
    if (strcmp(module, "_codecs") == 0 && strcmp(name, "encode") == 0)
        return 1;
    return strcmp(module, "collections") == 0 && strcmp(name, "OrderedDict") == 0 ? 2 : -EPERM;
}

static struct pickle *parse(const char *bytes, size_t n)
{
    struct pickle *pickle = NULL;
    struct error error = {0};

    if (pickle_parse(bytes, n, "test", allow, &pickle, &error) < 0)
        fail_msg("%s", error.text);
    return pickle;
}
#define PARSE(literal) parse(literal, sizeof(literal) - 1)

/* pickle.dumps([None, True, False, 5, 300, -7, 2**40, 1.5, 'ab', b'cd', (1, 2, 3, 4), {'k': 1}], 2) and protocol 4 */
static void test_plain_values(void **state)
{
    static const char two[] =
        "\x80\x02]q\x00(N\x88\x89K\x05M,\x01J\xf9\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01G?\xf8\x00\x00\x00\x00\x00\x00"
        "X\x02\x00\x00\x00"
        "abq\x01"
        "c_codecs\nencode\nq\x02X\x02\x00\x00\x00"
        "cdq\x03X\x06\x00\x00\x00latin1q\x04\x86q\x05Rq\x06"
        "(K\x01K\x02K\x03K\x04tq\x07}q\x08X\x01\x00\x00\x00kq\tK\x01s"
        "e.";
    static const char four[] =
        "\x80\x04\x95\x41\x00\x00\x00\x00\x00\x00\x00]\x94(N\x88\x89K\x05M,\x01J\xf9\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01"
        "G?\xf8\x00\x00\x00\x00\x00\x00\x8c\x02"
        "ab\x94"
        "C\x02"
        "cd\x94(K\x01K\x02K\x03K\x04t\x94}\x94\x8c\x01k\x94K\x01s"
        "e.";
    struct pickle *both[2] = { PARSE(two), PARSE(four) };

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct pickle_value *list = pickle_root(both[i]), *const *v = list->items;
        uint8_t *bytes = NULL;
        size_t n = 0;

        assert_int_equal(list->kind, PICKLE_LIST);
        assert_int_equal(list->count, 12);
        assert_int_equal(v[0]->kind, PICKLE_NONE);
        assert_true(v[1]->kind == PICKLE_BOOL && v[1]->boolean && !v[2]->boolean);
        assert_int_equal(v[3]->integer, 5);
        assert_int_equal(v[4]->integer, 300);
        assert_int_equal(v[5]->integer, -7);
        assert_true(v[6]->integer == (int64_t)1 << 40);
        assert_true(v[7]->kind == PICKLE_FLOAT && v[7]->real == 1.5);
        assert_true(pickle_is_text(v[8], "ab"));
        assert_int_equal(pickle_bytes(v[9], &bytes, &n), 0);
        assert_int_equal(n, 2);
        assert_memory_equal(bytes, "cd", 2);
        free(bytes);
        assert_int_equal(pickle_bytes(v[8], &bytes, &n), -EINVAL);
        assert_true(v[10]->kind == PICKLE_TUPLE && v[10]->count == 4 && v[10]->items[3]->integer == 4);
        assert_int_equal(pickle_get(v[11], "k")->integer, 1);
        assert_null(pickle_get(v[11], "j"));
        pickle_free(both[i]);
    }
}

/* What other pickle protocols and other Pythons write for the same: strings by every width of their length, integers of any
 * width, sets, marks that come to nothing, a memo index of four bytes. */
static void test_other_opcodes(void **state)
{
    static const char *const texts[] = {"ab", "cd", "gh", "ij", "kl"};
    static const int64_t integers[] = {-1, -32768, 0, -2, INT64_MIN + 1, 255, 7, 7};
    struct pickle *pickle =
        PARSE("\x80\x05("
              "U\x02" "ab" "T\x02\0\0\0" "cd" "B\x02\0\0\0" "gh" "\x8e\x02\0\0\0\0\0\0\0" "ij" "\x96\x02\0\0\0\0\0\0\0" "kl"
              "\x8d\x02\0\0\0\0\0\0\0" "ef"
              "\x8a\x01\xff\x8a\x02\x00\x80\x8a\x00\x8a\x08\xfe\xff\xff\xff\xff\xff\xff\xff"
              "\x8a\x08\x01\0\0\0\0\0\0\x80\x8a\x02\xff\0"
              "K\x07r\x2c\x01\0\0j\x2c\x01\0\0"
              "(K\x01K\x02\x91\x8f(K\x03\x90(X\x01\0\0\0kK\x05" "d(K\x01K\x02" "1l.");
    const struct pickle_value *list = pickle_root(pickle), *const *v = list->items;
    uint8_t *bytes;
    size_t n;

    (void)state;
    assert_true(list->kind == PICKLE_LIST && list->count == 6 + 8 + 3);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_int_equal(pickle_bytes(v[i], &bytes, &n), 0);
        assert_int_equal(n, 2);
        assert_memory_equal(bytes, texts[i], 2);
        free(bytes);
    }
    assert_true(pickle_is_text(v[5], "ef"));
    for (size_t i = 0; i < ARRAY_SIZE(integers); i++)
        assert_true(v[6 + i]->kind == PICKLE_INT && v[6 + i]->integer == integers[i]);
    assert_true(v[14]->kind == PICKLE_SET && v[14]->count == 2 && v[14]->items[1]->integer == 2);
    assert_true(v[15]->kind == PICKLE_SET && v[15]->count == 1 && v[15]->items[0]->integer == 3);
    assert_int_equal(pickle_get(v[16], "k")->integer, 5);
    pickle_free(pickle);
}

/* As Unicode has it, but for surrogates: Python writes those. */
static void test_utf8(void **state)
{
    static const struct { const char *text; bool good; } cases[] = {
        {"\xc2\x80", true}, {"\xe2\x82\xac", true}, {"\xf0\x9f\x98\x80", true}, {"\xed\xa0\x80", true},
        {"\xe0\xa0\x80", true}, {"\xf0\x90\x80\x80", true}, {"\xf4\x8f\xbf\xbf", true},
        {"\x80", false}, {"\xc1\x80", false}, {"\xe0\x9f\xbf", false}, {"\xf0\x8f\xbf\xbf", false},
        {"\xf4\x90\x80\x80", false}, {"\xf5\x80\x80\x80", false}, {"\xe2\x82", false},
        {"\xe2\x28\xa1", false}, {"\xf0\x9f\x98", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t n = strlen(cases[i].text);
        struct pickle *pickle = NULL;
        struct error error = {0};
        char bytes[16] = "\x80\x04\x8c";

        bytes[3] = (char)n;
        memcpy(bytes + 4, cases[i].text, n);
        bytes[4 + n] = '.';
        assert_int_equal(pickle_parse(bytes, 5 + n, "text", allow, &pickle, &error), cases[i].good ? 0 : -EINVAL);
        if (cases[i].good)
            assert_true(pickle_is_text(pickle_root(pickle), cases[i].text));
        else
            assert_non_null(strstr(error.text, "not UTF-8"));
        pickle_free(pickle);
    }
}

/* OrderedDict() filled by SETITEMS, a persistent id inside, a state by BUILD: the shape of torch.save's output. */
static void test_objects_are_described(void **state)
{
    struct pickle *pickle =
        PARSE("\x80\x02"
              "ccollections\nOrderedDict\n)Rq\x00(X\x01\x00\x00\x00wX\x02\x00\x00\x00idQX\x01\x00\x00\x00vK\x01u"
              "}X\x01\x00\x00\x00mK\x02sb.");
    const struct pickle_value *root = pickle_root(pickle);

    (void)state;
    assert_int_equal(root->kind, PICKLE_CALL);
    assert_int_equal(root->tag, 2);
    assert_int_equal(root->call.arguments->count, 0);
    assert_int_equal(pickle_get(root, "w")->kind, PICKLE_PERSISTENT);
    assert_true(pickle_is_text(pickle_get(root, "w")->id, "id"));
    assert_int_equal(pickle_get(root->state, "m")->integer, 2);
    pickle_free(pickle);
}

/* Latin-1 written as UTF-8: code points up to 255 come back as bytes, above they are refused. */
static void test_bytes_of_protocol_2(void **state)
{
    struct pickle *good = PARSE("\x80\x02"
                                "c_codecs\nencode\nX\x05\x00\x00\x00"
                                "a\xc3\xbf\xc2\x80X\x06\x00\x00\x00latin1\x86R.");
    struct pickle *high = PARSE("\x80\x02" "c_codecs\nencode\nX\x02\x00\x00\x00\xc4\x80X\x06\x00\x00\x00latin1\x86R.");
    uint8_t *bytes = NULL;
    size_t n;

    (void)state;
    assert_int_equal(pickle_bytes(pickle_root(good), &bytes, &n), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(bytes, "a\xff\x80", 3);
    free(bytes);
    assert_int_equal(pickle_bytes(pickle_root(high), &bytes, &n), -EINVAL);
    pickle_free(good);
    pickle_free(high);
}

static void test_refusals(void **state)
{
#define CASE(literal, code, words) { literal, sizeof(literal) - 1, code, words }
    static const struct { const char *bytes; size_t n; int code; const char *words; } cases[] = {
        CASE("\x80\x02" "cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", -EPERM, "offset 2: the pickle asks for os.system"),
        CASE("\x80\x04\x8c\x05posix\x8c\x06system\x93.", -EPERM, "offset 17: the pickle asks for posix.system"),
        CASE("\x80\x02" "(X\x01\x00\x00\x00xios\nsystem\n.", -EINVAL, "offset 9: opcode 0x69 'i'"),
        CASE("\x80\x02\x82\x01.", -EINVAL, "offset 2: opcode 0x82"),
        CASE("(lp0\n.", -EINVAL, "protocol 2 to 5"),
        CASE("\x80\x06N.", -EINVAL, "protocols 2 to 5"),
        CASE("\x80\x02N", -EINVAL, "without STOP"),
        CASE("\x80\x02NN.", -EINVAL, "exactly one value"),
        CASE("\x80\x02.", -EINVAL, "exactly one value"),
        CASE("\x80\x02(N.", -EINVAL, "exactly one value"),
        CASE("\x80\x02X\xff\x00\x00\x00" "a.", -EINVAL, "the file ends inside it"),
        CASE("\x80\x02X\x01\x00\x00\x00\xff.", -EINVAL, "not UTF-8"),
        CASE("\x80\x02h\x07.", -EINVAL, "nothing was kept"),
        CASE("\x80\x02Nr\xff\xff\xff\x7f.", -EINVAL, "memo index"),
        CASE("\x80\x02K\x01K\x02\x86K\x03R.", -EINVAL, "expected a global"),
        CASE("\x80\x02NK\x01" "b.", -EINVAL, "no object"),
        CASE("\x80\x02}(K\x01u.", -EINVAL, "without its value"),
        CASE("\x80\x02]q\x00h\x00" "a.", -EINVAL, "inside themselves"),
        CASE("\x80\x02]N0(a.", -EINVAL, "the stack is empty"),
        CASE("\x80\x02Nt.", -EINVAL, "there is no mark"),
        CASE("\x80\x02" "0.", -EINVAL, "the stack is empty"),
        CASE("\x80\x02(Nd.", -EINVAL, "a key without its value"),
        CASE("\x80\x02}N" "a.", -EINVAL, "what it fills is no list"),
        CASE("\x80\x02]NNs.", -EINVAL, "what it fills is no dict"),
        CASE("\x80\x04](N\x90.", -EINVAL, "what it fills is no set"),
        CASE("\x80\x02" "ccollections\nOrderedDict\n)R}b}b.", -EINVAL, "an object with two states"),
        CASE("\x80\x02" "ccollections\nOrderedDict", -EINVAL, "a name without its end of line"),
        CASE("\x80\x02" "ccollec tions\nOrderedDict\n.", -EINVAL, "an odd character"),
        CASE("\x80\x04K\x01K\x02\x93.", -EINVAL, "module and name must be text"),
        CASE("\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", -EINVAL, "64 bits"),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pickle *pickle = NULL;
        struct error error = {0};
        int r = pickle_parse(cases[i].bytes, cases[i].n, "file", allow, &pickle, &error);

        if (r != cases[i].code || !strstr(error.text, cases[i].words) || strncmp(error.text, "file: ", 6) != 0)
            fail_msg("case %zu: %d '%s', expected '%s'", i, r, error.text, cases[i].words);
        assert_null(pickle);
    }
}

static void test_depth_is_bounded(void **state)
{
    char bytes[2 + 1 + 200 + 1] = "\x80\x02N";
    struct pickle *pickle = NULL;
    struct error error = {0};

    (void)state;
    memset(bytes + 3, '\x85', 200);
    bytes[3 + PICKLE_MAX_DEPTH] = '.';
    assert_int_equal(pickle_parse(bytes, 4 + PICKLE_MAX_DEPTH, "deep", NULL, &pickle, &error), 0);
    pickle = pickle_free(pickle);
    bytes[3 + PICKLE_MAX_DEPTH] = '\x85';
    bytes[4 + PICKLE_MAX_DEPTH] = '.';
    assert_int_equal(pickle_parse(bytes, 5 + PICKLE_MAX_DEPTH, "deep", NULL, &pickle, &error), -EINVAL);
    assert_non_null(strstr(error.text, "64 deep"));
}

/* Python's zipfile, one entry stored ("a" = "stored"), one deflated ("d/b" = 300 times 'x'). */
static const uint8_t archive_bytes[] = {
#include "tests/golden/zip/two_entries.inc"
};

static void test_zip(void **state)
{
    _cleanup_(zip_closep) struct zip_archive *archive = NULL;
    struct error error = {0};
    const uint8_t *bytes;
    void *memory = NULL;
    size_t n;

    (void)state;
    if (zip_parse("two.zip", archive_bytes, sizeof(archive_bytes), &archive, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(archive->count, 2);
    assert_null(zip_find(archive, "b"));
    assert_int_equal(zip_read(archive, zip_find(archive, "a"), 100, &bytes, &n, &memory, &error), 0);
    assert_null(memory);
    assert_int_equal(n, 6);
    assert_memory_equal(bytes, "stored", 6);
    assert_int_equal(zip_read(archive, zip_find(archive, "d/b"), 300, &bytes, &n, &memory, &error), 0);
    assert_int_equal(n, 300);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], 'x');
    free(memory);
    assert_int_equal(zip_read(archive, zip_find(archive, "d/b"), 299, &bytes, &n, &memory, &error), -EFBIG);
}

static void test_zip_damage(void **state)
{
    uint8_t copy[sizeof(archive_bytes)];
    struct zip_archive *archive = NULL;
    struct error error = {0};
    const uint8_t *bytes;
    void *memory = NULL;
    size_t n;

    (void)state;
    for (size_t cut = 0; cut < sizeof(copy); cut++)
        assert_int_equal(zip_parse("cut.zip", archive_bytes, cut, &archive, &error), -EINVAL);
    memcpy(copy, archive_bytes, sizeof(copy));
    copy[31] ^= 1;              /* first byte of entry a's contents */
    assert_int_equal(zip_parse("bad.zip", copy, sizeof(copy), &archive, &error), 0);
    assert_int_equal(zip_read(archive, zip_find(archive, "a"), 100, &bytes, &n, &memory, &error), -EBADMSG);
    assert_string_equal(error.text, "bad.zip: entry a is damaged (CRC)");
    zip_close(archive);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_values),
        cmocka_unit_test(test_other_opcodes),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_objects_are_described),
        cmocka_unit_test(test_bytes_of_protocol_2),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_zip),
        cmocka_unit_test(test_zip_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
