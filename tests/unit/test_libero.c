/* LIBERO's readers and numbers, without LIBERO's files: BDDL, XML, init states, numpy's arrays and generator, the controller's
 * rounding. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/npy.h"
#include "daemon/run_config.h"
#include "sim/sim.h"
#include "sim/suites/libero/bddl.h"
#include "sim/suites/libero/catalog.h"
#include "sim/suites/libero/controller.h"
#include "sim/suites/libero/init_states.h"
#include "sim/suites/libero/mt19937.h"
#include "sim/suites/libero/task.h"
#include "sim/suites/libero/xml.h"

static const char bddl_text[] =
    "(define (problem LIBERO_Kitchen_Tabletop_Manipulation)\n"
    "  (:domain robosuite) (:language turn on the stove) ; and a comment (\n"
    "  (:regions (left (:target kitchen_table) (:ranges ((-0.2 0.1 -0.1 0.3))) (:yaw_rotation ((-pi pi))))\n"
    "            (cook_region (:target flat_stove_1)) (drainer (:target not_there)))\n"
    "  (:fixtures kitchen_table - kitchen_table flat_stove_1 - flat_stove)\n"
    "  (:objects moka_pot_1 moka_pot_2 - moka_pot plate_1 - plate)\n"
    "  (:init (On flat_stove_1 kitchen_table_left))\n"
    "  (:goal (And (Turnon flat_stove_1) (On moka_pot_1 flat_stove_1_cook_region))))\n";

static void test_bddl(void **state)
{
    _cleanup_(bddl_freep) struct bddl_problem *p = NULL;
    struct error error = {0};

    (void)state;
    if (bddl_parse("a.bddl", bddl_text, strlen(bddl_text), &p, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(p->problem, "libero_kitchen_tabletop_manipulation");
    assert_string_equal(p->language, "turn on the stove");
    assert_int_equal(p->n_objects, 3);
    assert_string_equal(p->objects[1].category, "moka_pot");
    assert_int_equal(p->n_fixtures, 2);
    assert_string_equal(p->regions[0].name, "kitchen_table_left");
    assert_true(p->regions[0].has_range && p->regions[0].range[3] == 0.3 && p->regions[0].yaw[0] == -M_PI && p->regions[0].yaw[1] == M_PI);
    assert_false(p->regions[1].has_range);
    assert_int_equal(p->n_goal, 2);
    assert_int_equal(p->goal[1].predicate, BDDL_ON);
    assert_int_equal(p->goal[1].line, 8);
    assert_non_null(bddl_region(p, "flat_stove_1_cook_region"));
}

/* The text with `from` replaced by `to`, refused with these words. */
static void refuse(const char *from, const char *to, const char *words)
{
    char text[2000];
    const char *at = strstr(bddl_text, from);
    struct bddl_problem *p = NULL;
    struct error error = {0};
    int r;

    assert_non_null(at);
    snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - bddl_text), bddl_text, to, at + strlen(from));
    r = bddl_parse("a.bddl", text, strlen(text), &p, &error);
    if (r != -EINVAL || !strstr(error.text, words) || strncmp(error.text, "a.bddl: ", 8) != 0)
        fail_msg("'%s': %d '%s', expected '%s'", to, r, error.text, words);
}

static void test_bddl_refusals(void **state)
{
    (void)state;
    refuse("cook_region))))\n", "cook_region)))\n", "line 1: the parenthesis opened here is never closed");
    refuse("cook_region))))\n", "cook_region)))))\n", "line 8: a ')' without its '('");
    refuse("(Turnon", "(Toggle", "line 8: unknown predicate 'toggle'");
    refuse("(Turnon flat_stove_1)", "(Turnon flat_stove_1 plate_1)", "line 8: turnon takes one name");
    refuse("(On moka_pot_1 ", "(On moka_pot_9 ", "line 8: no object, fixture or region of one is called 'moka_pot_9'");
    refuse("flat_stove_1_cook_region", "not_there_drainer", "line 8: no object");
    refuse("((-0.2 0.1 -0.1 0.3))", "((-0.2 0.1 -0.1))", "line 3: a list of 4 numbers");
    refuse("-0.2 0.1 -0.1", "-0.2 x -0.1", "line 3: not a number: 'x'");
    refuse("-0.2 0.1 -0.1", "-0.2 0.1 -0.3", "line 3: :ranges: x1 < x0");
    refuse(" - plate)", ")", "line 6: names without '- category'");
    refuse("robosuite", "blocks", "the domain must be robosuite");
    refuse(":init", ":unit", "unknown group ':unit'");
    refuse("(:target flat_stove_1)", "(:color red)", "unknown attribute of a region: ':color'");
}

static void test_xml(void **state)
{
    static const char text[] =
        "<?xml version='1.0'?><!-- <no> --><a x=\"1 &lt; 2\">words<b name='n'><c/></b><b name=\"m\" y='\"'/></a>";
    static const struct { const char *text, *words;
    } bad[] = {
        {"<a>\n<b></a>", "line 2: expected </b>"},
        {"<a", "ends inside a tag"},
        {"<a x=1/>", "in quotes"},
        {"<a x/>", "without '='"},
        {"<a x='1' x='2'/>", "given twice"},
        {"<a/><b/>", "behind the last"},
        {"", "no element"},
        {"<a>words</a", "closing tag"},
        {"<a x='&nbsp;'/>", "entity"},
        {"<!DOCTYPE a><a/>", "declarations"},
        {"<a><!-- </a>", "never ends"},
    };
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};
    char path[60];

    (void)state;
    assert_int_equal(xml_parse("t.xml", text, strlen(text), &root, &error), 0);
    assert_string_equal(xml_get(root, "x"), "1 < 2");
    assert_int_equal(root->n_children, 2);
    assert_ptr_equal(xml_find(root, "b", "m"), root->children[1]);
    assert_int_equal(xml_append(root->children[1], root->children[0]->children[0]), 0);     /* c moves */
    assert_int_equal(xml_setf(root, "x", "%d", 3), 0);
    xml_print(root, &out);
    snprintf(path, sizeof(path), "/R&amp;D/&lt;a&gt; &quot;&amp;lt;&amp");         /* a file's name in what was printed */
    xml_unescape(path);
    assert_string_equal(path, "/R&D/<a> \"&lt;&amp");
    assert_string_equal(out.text, "<a x=\"3\">\n<b name=\"n\"/>\n<b name=\"m\" y=\"&quot;\">\n<c/>\n</b>\n</a>\n");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct xml_node *none = NULL;

        if (xml_parse("t.xml", bad[i].text, strlen(bad[i].text), &none, &error) != -EINVAL || !strstr(error.text, bad[i].words))
            fail_msg("'%s': '%s', expected '%s'", bad[i].text, error.text, bad[i].words);
    }
}

static void test_init_states(void **state)
{
    struct init_states states;
    struct error error = {0};

    (void)state;
    if (init_states_read("tests/golden/libero/init_ok.pruned_init", 5, &states, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(states.rows, 2);
    assert_true(states.values[9] == 9);
    init_states_release(&states);
    assert_int_equal(init_states_read("tests/golden/libero/init_width.pruned_init", 5, &states, &error), -EINVAL);
    assert_non_null(strstr(error.text, "rows of 4 numbers; this task's model needs 5"));
    assert_int_equal(init_states_read("tests/golden/libero/init_evil.pruned_init", 5, &states, &error), -EPERM);
    assert_non_null(strstr(error.text, "init_evil.pruned_init: archive/data.pkl: offset 2: the pickle asks for posix.system"));
    assert_int_equal(init_states_read("tests/golden/libero/small.npz", 5, &states, &error), -EINVAL);
    assert_non_null(strstr(error.text, "no data.pkl"));
}

static void test_npy(void **state)
{
    _cleanup_(zip_closep) struct zip_archive *file = NULL;
    struct error error = {0};
    struct npy array;
    char text[40];

    (void)state;
    assert_int_equal(zip_open("tests/golden/libero/small.npz", &file, &error), 0);
    assert_int_equal(npy_read(file, "a", &array, &error), 0);
    assert_true(array.dims == 2 && array.shape[0] == 2 && npy_number(&array, 1) == -2);
    npy_release(&array);
    assert_int_equal(npy_read(file, "b", &array, &error), 0);
    assert_true(npy_number(&array, 0) == -3 && npy_number(&array, 1) == 70000);
    npy_release(&array);
    assert_int_equal(npy_read(file, "s", &array, &error), 0);
    assert_true(array.dims == 0 && array.count == 1 && npy_number(&array, 0) == 0.25);
    npy_release(&array);
    assert_int_equal(npy_read(file, "n", &array, &error), 0);
    assert_int_equal(npy_text(&array, 0, text, sizeof(text)), 0);
    assert_string_equal(text, "wooden_cabinet_1");
    assert_int_equal(npy_text(&array, 1, text, sizeof(text)), 0);
    assert_string_equal(text, "é€");
    assert_int_equal(npy_text(&array, 0, text, 5), -ENAMETOOLONG);
    npy_release(&array);
    assert_int_equal(npy_read(file, "z", &array, &error), -ENOENT);
}

/* numpy.random.seed(7): uniform(2, -1) twice, randn(3), uniform(0, 1), randn() */
static void test_numpys_generator(void **state)
{
    struct mt19937 mt;

    (void)state;
    mt19937_seed(&mt, 7);
    assert_true(mt19937_uniform(&mt, 2, -1) == 0x1.c5652e0a2cea4p+0);
    assert_true(mt19937_uniform(&mt, 2, -1) == -0x1.5be9187a7c3e8p-2);
    assert_true(mt19937_normal(&mt) == 0x1.b0c64ae2deb29p+0);
    assert_true(mt19937_normal(&mt) == -0x1.dd1eafa1d414dp-2);
    assert_true(mt19937_normal(&mt) == 0x1.0cdcdf34c3aedp-5);
    assert_true(mt19937_uniform(&mt, 0, 1) == 0x1.0092dc858d345p-1);        /* the fourth Gaussian waits meanwhile */
    assert_true(mt19937_normal(&mt) == 0x1.a14bf2d03adc9p-2);
}

/* robosuite's quat2mat(axisangle2quat(v)) with its float32 steps, from numpy, to the last bit. */
static void test_controller_rotation(void **state)
{
    static const struct { double v[3], R[9];
    } cases[] = {
        {{.3, -.2, .1},
         {0x1.f359406400000p-1, -0x1.04c7fe0000000p-3, -0x1.71befe0000000p-3, 0x1.16a8020000000p-4, 0x1.e6b280b400000p-1,
          -0x1.3634000000000p-2, 0x1.ae78fe0000000p-3, 0x1.21f6000000000p-2, 0x1.df1b40f000000p-1}},
        {{0.5, 0, 0}, {1, 0, 0, 0, 0x1.c152804000000p-1, -0x1.eaee860000000p-2, 0, 0x1.eaee860000000p-2, 0x1.c152804000000p-1}},
        {{-.011, .4, -.5},
         {0x1.9a941a0000000p-1, 0x1.db896c0000000p-2, 0x1.80e45a0000000p-2, -0x1.dfe3f80000000p-2, 0x1.c220b12550000p-1,
          -0x1.61c0980000000p-4, -0x1.7b732a0000000p-2, -0x1.b5d4780000000p-4, 0x1.d86415a550000p-1}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        double R[9];

        controller_rotation(cases[i].v, R);
        for (int k = 0; k < 9; k++)
            if (R[k] != cases[i].R[k])
                fail_msg("case %zu, element %d: %a, expected %a", i, k, R[k], cases[i].R[k]);
    }
}

static void test_catalogue(void **state)
{
    char prompt[200];

    (void)state;
    for (int s = 0; s < LIBERO_SUITES; s++)
        assert_int_equal(libero_suites[s].n_tasks, s == 4 ? 90 : 10);
    libero_prompt("pick_up_the_milk_and_place_it_in_the_basket", prompt, sizeof(prompt));
    assert_string_equal(prompt, "pick up the milk and place it in the basket");
    libero_prompt("KITCHEN_SCENE3_turn_on_the_stove", prompt, sizeof(prompt));
    assert_string_equal(prompt, "turn on the stove");
    libero_prompt("KITCHEN_SCENE10_close_the_top_drawer", prompt, sizeof(prompt));
    assert_string_equal(prompt, "close the top drawer");
    for (int s = 0; s < LIBERO_SUITES; s++) {       /* the coordinator counts test states without seeing the files */
        struct run_config config = {0};

        snprintf(config.suite, sizeof(config.suite), "%s", libero_suites[s].name);
        assert_int_equal(run_config_test_states(&config), LIBERO_TEST_STATES);
    }
    assert_null(libero_category("teapot"));
    assert_null(libero_arena("libero_moon_manipulation"));
    assert_non_null(libero_category("chefmate_8_frypan"));
}

/* People without the files get the commands that fetch them. */
static void test_without_files(void **state)
{
    const struct sim_options nowhere = { .libero_root = "/nonexistent", .robosuite_root = "/nonexistent" };
    const struct sim_options version = { .libero_root = "/nonexistent", .robosuite = "1.5" };
    struct sim_suite *suite;
    struct error error = {0};

    (void)state;
    assert_int_equal(sim_suite_open("libero_goal", &nowhere, &suite, &error), -ENOENT);
    assert_non_null(strstr(error.text, "git clone https://github.com/Lifelong-Robot-Learning/LIBERO"));
    assert_int_equal(sim_suite_open("libero_goal", &version, &suite, &error), -EINVAL);
    assert_non_null(strstr(error.text, "1.4.0 and 1.4.1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bddl),
        cmocka_unit_test(test_bddl_refusals),
        cmocka_unit_test(test_xml),
        cmocka_unit_test(test_init_states),
        cmocka_unit_test(test_npy),
        cmocka_unit_test(test_numpys_generator),
        cmocka_unit_test(test_controller_rotation),
        cmocka_unit_test(test_catalogue),
        cmocka_unit_test(test_without_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
