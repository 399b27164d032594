/* The curriculum's weights, its climbing, and that its state and draws survive a restart to the bit. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rl/curriculum.h"

static void near(double x, double expected)
{
    if (!(fabs(x - expected) < 1e-12))
        fail_msg("%.15g, expected %.15g", x, expected);
}

static void weights_of_three_tasks(enum curriculum_mode mode, const double *expected)
{
    struct curriculum c;
    double p[3];

    assert_int_equal(curriculum_init(&c, mode, NULL, 3), 0);
    curriculum_record(&c, (int[]) {8, 10, 2}, (int[]) {6, 2, 0});
    near(curriculum_success(&c, 0), .7);
    curriculum_weights(&c, p);
    for (int j = 0; j < 3; j++)
        near(p[j], expected[j]);
}

static void frontier_weights(void **state)
{
    (void)state;
    weights_of_three_tasks(CURRICULUM_FRONTIER_CENTRED, (double[]) {0.3745705411179233, 0.3127147294410384, 0.3127147294410384});
    weights_of_three_tasks(CURRICULUM_FRONTIER, (double[]) {0.0763399866506885, 0.46183000667465574, 0.46183000667465574});
    weights_of_three_tasks(CURRICULUM_UNIFORM, (double[]) {1 / 3., 1 / 3., 1 / 3.});
}

static void old_results_fade(void **state)
{
    struct curriculum c;

    (void)state;
    curriculum_init(&c, CURRICULUM_FRONTIER_CENTRED, NULL, 1);
    curriculum_record(&c, (int[]) {10}, (int[]) {10});
    curriculum_record(&c, (int[]) {10}, (int[]) {0});
    near(c.tries[0], 19);
    near(c.wins[0], 9);
}

static void levels_climb_after_ten_good_iterations(void **state)
{
    struct curriculum c;
    double p[4];
    int good[] = {8, 0, 0, 0}, tries[] = {10, 0, 0, 0};

    (void)state;
    curriculum_init(&c, CURRICULUM_LEVELS, (int[]) {0, 5, 2, 2}, 4);         /* the next level need not be the next task's */
    curriculum_weights(&c, p);
    near(p[0], 1);
    for (int i = 0; i < 9; i++)
        assert_false(curriculum_record(&c, tries, good));
    assert_false(curriculum_record(&c, (int[]) {0, 0, 0, 0}, (int[]) {0, 0, 0, 0}));    /* nothing played, nothing proved */
    assert_true(curriculum_record(&c, tries, good));
    assert_int_equal(c.level, 2);
    assert_int_equal(c.in_history, 0);
    curriculum_weights(&c, p);
    near(p[0], .1);
    near(p[1], 0);
    near(p[2], .45);
    near(p[3], .45);
    for (int i = 0; i < 20; i++)
        curriculum_record(&c, tries, good);
    assert_int_equal(c.level, 5);
    for (int i = 0; i < 20; i++)
        assert_false(curriculum_record(&c, tries, good));   /* the top */
}

static void draws_follow_the_weights_and_repeat(void **state)
{
    struct curriculum c;
    int seen[3] = {0};

    (void)state;
    curriculum_init(&c, CURRICULUM_FRONTIER, NULL, 3);
    curriculum_record(&c, (int[]) {8, 10, 2}, (int[]) {6, 2, 0});
    for (uint32_t i = 0; i < 20000; i++) {
        int task = curriculum_draw(&c, 7, 3, i);

        assert_in_range(task, 0, 2);
        assert_int_equal(task, curriculum_draw(&c, 7, 3, i));
        seen[task]++;
    }
    assert_true(fabs(seen[0] / 20000. - .0763) < .01 && fabs(seen[1] / 20000. - .4618) < .02);
    c.mode = CURRICULUM_FIXED;
    assert_int_equal(curriculum_draw(&c, 7, 3, 7), 1);
}

/* It begins at the lowest level that there is and climbs to the next that there is, wherever in the list they stand. */
static void levels_in_any_order(void **state)
{
    struct curriculum c;

    (void)state;
    assert_int_equal(curriculum_init(&c, CURRICULUM_LEVELS, (int[]) {4, 7, 2, 4}, 4), 0);
    assert_int_equal(c.level, 2);
    for (int level = 4; level <= 7; level += 3) {
        for (int i = 0; i < CURRICULUM_HISTORY - 1; i++)
            assert_false(curriculum_record(&c, (int[]) {1, 1, 1, 1}, (int[]) {1, 1, 1, 1}));
        assert_true(curriculum_record(&c, (int[]) {1, 1, 1, 1}, (int[]) {1, 1, 1, 1}));
        assert_int_equal(c.level, level);
    }
}

/* One more task than there may be, all of them there: it is refused before they are read. */
static void too_many_tasks(void **state)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct curriculum c;

    (void)state;
    strbuf_addf(&text, "curriculum 1 1 %d 0 0", CURRICULUM_MAX_TASKS + 1);
    for (int j = 0; j <= CURRICULUM_MAX_TASKS; j++)
        strbuf_addf(&text, " 0 0x1p+1 0x1p+0");
    assert_int_equal(curriculum_parse(text.text, &c, NULL), -EINVAL);
    assert_int_equal(curriculum_init(&c, CURRICULUM_UNIFORM, NULL, CURRICULUM_MAX_TASKS + 1), -EINVAL);
    assert_int_equal(curriculum_init(&c, CURRICULUM_UNIFORM, NULL, CURRICULUM_MAX_TASKS), 0);
}

static void text_restores_every_bit(void **state)
{
    struct curriculum c, back;
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct error error = {0};

    (void)state;
    curriculum_init(&c, CURRICULUM_LEVELS, (int[]) {0, 0, 1}, 3);
    for (int i = 0; i < 7; i++)
        curriculum_record(&c, (int[]) {3, 5, i}, (int[]) {i % 3, 1, 0});
    assert_int_equal(curriculum_write(&c, &text), 0);
    memset(&back, 0, sizeof back);
    assert_int_equal(curriculum_parse(text.text, &back, &error), 0);
    assert_memory_equal(&c, &back, sizeof c);
    text.text[text.length - 30] = 0;
    assert_int_equal(curriculum_parse(text.text, &back, &error), -EINVAL);
    assert_int_equal(curriculum_parse("curriculum 1 1 1 0 0 0 0x1p+1 0x1p+0", &back, &error), 0);
    assert_int_equal(curriculum_parse("curriculum 1 9 1 0 0 0 0x1p+1 0x1p+0", &back, &error), -EINVAL);
    assert_non_null(strstr(error.text, "out of range"));
    assert_int_equal(curriculum_parse("curriculum 1 1 3000000 0 0", &back, &error), -EINVAL);
    assert_int_equal(curriculum_parse("curriculum 1 1 1 0 0 0 nan 0x1p+0", &back, &error), -EINVAL);
    assert_int_equal(curriculum_init(&c, CURRICULUM_UNIFORM, NULL, 0), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frontier_weights), cmocka_unit_test(old_results_fade),
            cmocka_unit_test(levels_climb_after_ten_good_iterations),
        cmocka_unit_test(draws_follow_the_weights_and_repeat), cmocka_unit_test(text_restores_every_bit),
        cmocka_unit_test(levels_in_any_order), cmocka_unit_test(too_many_tasks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
