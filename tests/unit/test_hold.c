/* Where the expert's hand gets at a drawer and a door, on boxes made here: no simulator, no files. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sim/suites/libero/hold.h"

enum { FURNITURE = 1, PART = 2, BOWL = 3 }; /* bodies */

static const double unturned[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
static const double origin[3] = {0, 0, 0};

static void add(struct shapes *shapes, int body, double x, double y, double z, double hx, double hy, double hz)
{
    struct shape *s = &shapes->at[shapes->n++];

    *s = (struct shape){.c = {x, y, z}, .half = {hx, hy, hz}, .thing = body, .body = body, .movable = body == BOWL};
    memcpy(s->R, unturned, sizeof(unturned));
    s->r = mju_norm3(s->half);
}

/* A cabinet whose front is at y = 0 and faces -y, and its drawer, out by that much: a front with a bar across. */
static void cabinet(struct shapes *shapes, double out)
{
    shapes->n = 0;
    add(shapes, FURNITURE, 0, 0, -.5, 5, 5, .5); /* the table */
    add(shapes, FURNITURE, 0, .11, .2, .11, .1, .2);
    add(shapes, PART, 0, -out, .2, .1, .005, .05);
    add(shapes, PART, 0, -out - .03, .2, .045, .008, .008);
}

static struct part drawer(double q, double to)
{
    return (struct part){
        .joint = 0, .body = PART, .slides = true, .axis = {0, 1, 0}, .q = q, .to = to, .x = origin, .R = unturned};
}

/* A door 20 cm wide on a hinge at the origin, open at a right angle: it lies along -y, and shuts towards x. */
static struct part door(struct shapes *shapes)
{
    shapes->n = 0;
    add(shapes, FURNITURE, 0, 0, -.5, 5, 5, .5);
    add(shapes, PART, 0, -.1, .2, .01, .1, .1);
    return (struct part){.joint = 0, .body = PART, .axis = {0, 0, 1}, .q = -M_PI_2, .to = 0, .x = origin, .R = unturned};
}

static void test_push(void **state)
{
    static struct shapes shapes;
    struct part part = drawer(-.15, 0);
    struct hold hold;
    double x[3], R[9], before[3];

    (void)state;
    cabinet(&shapes, .15);
    assert_int_equal(hold_to_push(&shapes, &part, 0, &hold), 0);
    hold_pose(&hold, &part, x, R);
    hold_before(&hold, &part, before);
    assert_true(x[1] < -.15); /* in front of it, fingers not upwards */
    assert_true(R[8] < -.4);
    assert_true(before[1] < x[1] - .01);
    assert_true(hand_is_free(&shapes, before, R, HAND_CLOSED));
    assert_false(hand_is_free(&shapes, x, R, HAND_CLOSED)); /* it touches */

    add(&shapes, BOWL, 0, -.3, .2, .3, .1, .2); /* nowhere to stand */
    assert_int_equal(hold_to_push(&shapes, &part, 0, &hold), -ENOENT);
}

static void test_pull(void **state)
{
    static struct shapes shapes;
    struct part part = drawer(0, -.15);
    struct hold hold;
    double x[3], R[9], before[3], bar[3] = {0, -.03, .2}, local[3], offset[3];

    (void)state;
    cabinet(&shapes, 0);
    assert_int_equal(hold_to_pull(&shapes, &part, 0, &hold), 0);
    hold_pose(&hold, &part, x, R);
    hold_before(&hold, &part, before);
    assert_true(hand_is_free(&shapes, x, R, HAND_OPEN));
    assert_true(before[1] < x[1] - .03);
    bar[0] = x[0];
    mju_sub3(offset, bar, x);
    mju_mulMatTVec3(local, R, offset);
    assert_true(fabs(local[0]) < .02 && fabs(local[2]) < HAND_TIP); /* the bar is between the pads */

    shapes.n--; /* no bar, no hold */
    assert_int_equal(hold_to_pull(&shapes, &part, 0, &hold), -ENOENT);
}

/* What moves with the part makes way at the end; what is nailed down does not. */
static void test_in_the_way(void **state)
{
    static struct shapes shapes;
    struct part part = drawer(0, -.15);
    struct hold hold;

    (void)state;
    cabinet(&shapes, 0);
    add(&shapes, BOWL, 0, -.4, .2, .3, .04, .2); /* where the hand ends, not where it begins */
    assert_int_equal(hold_to_pull(&shapes, &part, 0, &hold), 0);
    shapes.n--;
    add(&shapes, FURNITURE, 0, -.4, .2, .3, .04, .2);
    assert_int_equal(hold_to_pull(&shapes, &part, 0, &hold), -ENOENT);
}

/* A door is pushed far from its hinge, from the side that it shall leave, and the hold goes round with it. */
static void test_door(void **state)
{
    static struct shapes shapes;
    struct part part = door(&shapes);
    struct hold hold;
    double x[3], R[9], before[3], go[3];

    (void)state;
    assert_int_equal(hold_to_push(&shapes, &part, 0, &hold), 0);
    hold_pose(&hold, &part, x, R);
    hold_before(&hold, &part, before);
    assert_true(x[1] < -.15);
    assert_true(x[0] < -.01 && before[0] < x[0]);
    part_velocity(&part, x, go);
    assert_true(go[0] > .15 && fabs(go[2]) < 1e-9);
    part_carry(&part, M_PI_2, x, R);
    assert_true(x[0] > .15 && x[1] < -.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_push),
        cmocka_unit_test(test_pull),
        cmocka_unit_test(test_in_the_way),
        cmocka_unit_test(test_door),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
