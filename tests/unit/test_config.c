/* test_config.c - typed tables over YAML: what is refused, and that every message says where. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/config.h"

struct part { char label[8]; int size; };

struct sample {
    int count, colour;
    double rate;
    bool on;
    uint64_t seed;
    char name[8];
    int sizes[3], n_sizes;
    char words[2][8];
    int n_words;
    struct part parts[2];
    int n_parts;
};

static const char *const colours[] = {"red", "green", NULL};
static const struct config_key part_keys[] = {
    CONFIG_STRING(struct part, label, "none", "label"),
    CONFIG_INT(struct part, size, 0, 9, "3", "size"),
    CONFIG_END,
};
static const struct config_key keys[] = {
    CONFIG_INT(struct sample, count, -5, 100, "7", "how many"),
    CONFIG_CHOICE(struct sample, colour, colours, "green", "which"),
    CONFIG_DOUBLE(struct sample, rate, 0, 1, "0.1", "how fast"),
    CONFIG_BOOL(struct sample, on, "true", "whether"),
    CONFIG_U64(struct sample, seed, "18446744073709551615", "where from"),
    CONFIG_STRING(struct sample, name, "x", "name"),
    {.name = "sizes", .type = CONFIG_TYPE_INTS, .offset = offsetof(struct sample, sizes),
     .count_offset = offsetof(struct sample, n_sizes), .max_count = 3, .min = 0, .max = 9, .value = "[1, 2]", .help = "sizes"},
    {.name = "words", .type = CONFIG_TYPE_STRINGS, .offset = offsetof(struct sample, words),
     .count_offset = offsetof(struct sample, n_words), .size = 8, .max_count = 2, .value = "[]", .help = "words"},
    {.name = "parts", .type = CONFIG_TYPE_SECTIONS, .offset = offsetof(struct sample, parts),
     .count_offset = offsetof(struct sample, n_parts),
     .size = sizeof(struct part), .max_count = 2, .table = part_keys, .value = "[{size: 4}]", .help = "parts"},
    CONFIG_END,
};

static int apply(const char *text, struct sample *s, struct error *error)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *root = NULL;
    struct config_faults faults = {.name = "f.yaml"};
    int r = yaml_tree_parse(text, strlen(text), "f.yaml", &root, error);

    memset(s, 0, sizeof *s);
    config_defaults(keys, s);
    if (r < 0)
        return r;
    r = config_apply(keys, root, "top", s, &faults);
    assert_int_equal(faults.n, r < 0);
    if (error)
        *error = faults.items[0];
    return r;
}

static void test_defaults(void **state _unused_)
{
    struct sample s;

    assert_int_equal(apply("", &s, NULL), 0);
    assert_int_equal(s.count, 7);
    assert_int_equal(s.colour, 1);
    assert_true(s.on && s.rate == 0.1 && s.seed == UINT64_MAX);
    assert_int_equal(s.n_sizes, 2);
    assert_int_equal(s.sizes[1], 2);
    assert_int_equal(s.n_words, 0);
    assert_int_equal(s.n_parts, 1);
    assert_string_equal(s.parts[0].label, "none");
    assert_int_equal(s.parts[0].size, 4);
}

static void test_values(void **state _unused_)
{
    struct sample s;

    assert_int_equal(apply("count: -5\ncolour: red\nrate: 1e-3\non: false\nname: \"a b\"\nsizes: []\nwords: [p, '7']\n"
                           "parts:\n  - label: q\n  - {size: 0}\n", &s, NULL), 0);
    assert_int_equal(s.count, -5);
    assert_int_equal(s.colour, 0);
    assert_true(!s.on && s.rate == 1e-3);
    assert_string_equal(s.name, "a b");
    assert_int_equal(s.n_sizes, 0);
    assert_string_equal(s.words[1], "7");
    assert_string_equal(s.parts[0].label, "q");
    assert_int_equal(s.parts[0].size, 3);
    assert_int_equal(s.parts[1].size, 0);
}

static void test_refusals(void **state _unused_)
{
    static const struct { const char *text, *message; } cases[] = {
        {"count: 1\ncoutn: 2\n", "f.yaml:2:1: top.coutn: unknown key; nearest: count"},
        {"zzzzzzzz: 2\n", "f.yaml:1:1: top.zzzzzzzz: unknown key"},
        {"count: 101\n", "f.yaml:1:8: top.count: 101 is out of range; it must be from -5 to 100"},
        {"count: 99999999999999999999\n",
         "f.yaml:1:8: top.count: 99999999999999999999 is out of range; it must be from -5 to 100"},
        {"count: 1.5\n", "f.yaml:1:8: top.count: 1.5 is not right here; expected: a whole number from -5 to 100"},
        {"count: \"5\"\n", "f.yaml:1:8: top.count: a quoted string is not right here; expected: a whole number from -5 to 100"},
        {"count: 1x\n", "f.yaml:1:8: top.count: 1x is not right here; expected: a whole number from -5 to 100"},
        {"count: -6\n", "f.yaml:1:8: top.count: -6 is out of range; it must be from -5 to 100"},
        {"rate: 1e400\n", "f.yaml:1:7: top.rate: 1e400 is not right here; expected: a number from 0 to 1"},
        {"seed: 99999999999999999999\n",
         "f.yaml:1:7: top.seed: 99999999999999999999 is out of range; it must fit 64 bits"},
        {"seed: 1x\n", "f.yaml:1:7: top.seed: 1x is not right here; expected: a whole number of 64 bits"},
        {"colour: blueish\n", "f.yaml:1:9: top.colour: blueish is not right here; expected: one of red, green"},
        {"name: \"a\\tb\"\n", "f.yaml:1:7: top.name: a control character in a name or path"},
        {"name: \"\\x7f\"\n", "f.yaml:1:7: top.name: a control character in a name or path"},
        {"name: \"a\\N\"\n", "f.yaml:1:7: top.name: a control character in a name or path"},
        {"name: \"\\x80\"\n", "f.yaml:1:7: top.name: a control character in a name or path"},
        {"name: \"\\L\"\n", "f.yaml:1:7: top.name: a control character in a name or path"},
        {"name: \"a\\uFEFF\"\n", "f.yaml:1:7: top.name: a control character in a name or path"},
        {"sizes: [[1]]\n", "f.yaml:1:9: top.sizes[0]: a list is not right here; expected: a list of at most 3 whole numbers"},
        {"sizes: ['1']\n",
         "f.yaml:1:9: top.sizes[0]: a quoted string is not right here; expected: a list of at most 3 whole numbers"},
        {"ocunt: 2\n", "f.yaml:1:1: top.ocunt: unknown key; nearest: count"},
        {"aprst: 2\n", "f.yaml:1:1: top.aprst: unknown key; nearest: parts"},
        {"count: [5]\n", "f.yaml:1:8: top.count: a list is not right here; expected: a whole number from -5 to 100"},
        {"count:\n", "f.yaml:1:7: top.count: nothing is not right here; expected: a whole number from -5 to 100"},
        {"rate: nan\n", "f.yaml:1:7: top.rate: nan is not right here; expected: a number from 0 to 1"},
        {"rate: 0x1\n", "f.yaml:1:7: top.rate: 0x1 is not right here; expected: a number from 0 to 1"},
        {"rate: 1.01\n", "f.yaml:1:7: top.rate: 1.01 is out of range; it must be from 0 to 1"},
        {"on: yes\n", "f.yaml:1:5: top.on: yes is not right here; expected: true or false"},
        {"colour: gren\n", "f.yaml:1:9: top.colour: there is no 'gren'; nearest: green"},
        {"seed: -1\n", "f.yaml:1:7: top.seed: -1 is not right here; expected: a whole number of 64 bits"},
        {"name: 12345678\n", "f.yaml:1:7: top.name: 8 bytes; at most 7 fit"},
        {"sizes: [1, 2, 3, 4]\n", "f.yaml:1:8: top.sizes: 4 entries; at most 3 fit"},
        {"sizes: [1, 12]\n", "f.yaml:1:12: top.sizes[1]: 12 is out of range; it must be from 0 to 9"},
        {"sizes: 4\n", "f.yaml:1:8: top.sizes: a list is expected: [4]"},
        {"sizes: {a: 4}\n", "f.yaml:1:8: top.sizes: a map is not right here; expected: a list of at most 3 whole numbers"},
        {"parts: [{size: 1}, {siez: 1}]\n", "f.yaml:1:21: top.parts[1].siez: unknown key; nearest: size"},
        {"parts: [3]\n", "f.yaml:1:9: top.parts[0]: a value is not right here; expected: a list of at most 2 maps "
                           "with the keys label, size"},
        {"count: 1\ncount: 2\n", "f.yaml:2:1: this key was given before"},
        {"count: &a 1\n", "f.yaml:1:8: anchors (&name) are not supported: write the value out"},
        {"count: *a\n", "f.yaml:1:8: aliases (*name) are not supported: write the value out"},
        {"count: !!int 1\n", "f.yaml:1:8: tags (!type) are not supported"},
        {"parts: &a [1]\n", "f.yaml:1:8: anchors (&name) are not supported: write the value out"},
        {"parts: [&a {size: 1}]\n", "f.yaml:1:9: anchors (&name) are not supported: write the value out"},
        {"&a count: 1\n", "f.yaml:1:1: anchors (&name) are not supported: write the value out"},
        {"parts: !t [1]\n", "f.yaml:1:8: tags (!type) are not supported"},
        {"parts: [!t {size: 1}]\n", "f.yaml:1:9: tags (!type) are not supported"},
        {"name: \"a\\0b\"\n", "f.yaml:1:7: a NUL byte in a value"},
        {"\"a\\0b\": 1\n", "f.yaml:1:1: a NUL byte in a value"},
        {"[a]: 1\n", "f.yaml:1:1: a key must be a plain word"},
        {"count: 1\n---\ncount: 2\n", "f.yaml:2:1: a second document begins here; one is expected"},
        {"a: [[[[[[[[[[[[[[1]]]]]]]]]]]]]]\n", "f.yaml:1:16: nested too deeply for a configuration"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error error = {0};
        struct sample s;

        assert_int_equal(apply(cases[i].text, &s, &error), -EINVAL);
        assert_string_equal(error.text, cases[i].message);
    }
}

static void test_not_yaml(void **state _unused_)
{
    struct error error = {0};
    struct sample s;

    assert_int_equal(apply("count: [1\nrate: 2", &s, &error), -EINVAL);
    assert_non_null(strstr(error.text, "f.yaml:2:"));
    assert_int_equal(apply("a: \xff\xfe\n", &s, &error), -EINVAL);
    assert_non_null(strstr(error.text, "f.yaml: byte"));
}

static void test_size_cap(void **state _unused_)
{
    _cleanup_free_ char *text = malloc(YAML_MAX_BYTES + 1);
    struct error error = {0};
    struct yaml_node *root = NULL;

    assert_non_null(text);
    memset(text, '\n', YAML_MAX_BYTES + 1);
    assert_int_equal(yaml_tree_parse(text, YAML_MAX_BYTES + 1, "f", &root, NULL), -EFBIG);
    assert_null(root);
    for (int i = 0; i < YAML_MAX_NODES - 1; i++)            /* and the list itself */
        memcpy(text + 4 * i, "- 1\n", 4);
    assert_int_equal(yaml_tree_parse(text, 4 * (YAML_MAX_NODES - 1), "f", &root, NULL), 0);
    root = yaml_tree_free(root);
    memcpy(text + 4 * (YAML_MAX_NODES - 1), "- 1\n", 4);
    assert_int_equal(yaml_tree_parse(text, 4 * YAML_MAX_NODES, "f", &root, &error), -EINVAL);
    assert_string_equal(error.text, "f:20000:3: too many values for a configuration");
}

static void test_write_reads_back(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT, again = STRBUF_INIT;
    struct sample a, b;

    assert_int_equal(apply("count: 3\nrate: 0.30000000000000004\nname: 'a\"\\ b'\nwords: ['', \"a: b\"]\n"
                           "parts: [{label: '#', size: 1}]\n", &a, NULL), 0);
    config_write(keys, &a, 0, &out);
    assert_int_equal(apply(out.text, &b, NULL), 0);
    assert_true(a.rate == b.rate);
    assert_string_equal(b.name, "a\"\\ b");
    assert_string_equal(b.words[1], "a: b");
    config_write(keys, &b, 0, &again);
    assert_string_equal(out.text, again.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_values), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_not_yaml), cmocka_unit_test(test_size_cap), cmocka_unit_test(test_write_reads_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
