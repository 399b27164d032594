/* Slow workers: found by what a step costs them, not by how much work they get; said once, and taken back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "coordinator/member_gauges.h"

enum { WORKERS = 4 };

struct town {
    struct membership members;
    struct gauges gauges;
    double steps[WORKERS], ms[WORKERS];
    uint64_t now_ms;
    unsigned changes;
    double others;              /* the others' median, at the last change */
};

static void set_up(struct town *t)
{
    *t = (struct town) {0};
    for (uint64_t i = 0; i < WORKERS; i++) {
        struct member hello = {.role = MEMBER_WORKER, .instance = 100 + i, .slots = 4}, *member;
        bool is_new;

        assert_int_equal(membership_hello(&t->members, &hello, 1, &member, &is_new), 0);
        assert_int_equal(member->id, i + 1);
    }
}

static void tear_down(struct town *t)
{
    gauges_release(&t->gauges);
    membership_release(&t->members);
}

/* Worker w has played so many steps more, at so many ms each. */
static bool plays(struct town *t, int w, double steps, double ms)
{
    struct member_gauges *place = gauges_place(&t->gauges, &t->members, (uint32_t)w + 1);
    double others;
    bool changed;

    t->steps[w] += steps;
    t->ms[w] += steps * ms;
    t->now_ms += 1000;
    gauges_put(place, "steps_total", t->steps[w]);
    gauges_put(place, "sim_wall_ms_total", t->ms[w] / 4);
    gauges_put(place, "act_ms_total", t->ms[w] * 3 / 4);
    changed = pace_note(&t->gauges, place, t->now_ms, &others);
    t->changes += changed;
    if (changed)
        t->others = others;
    if (changed && place->pace.slow)
        assert_true(others > 4 && others < 8);
    return place->pace.slow;
}

static void test_found_and_taken_back(void **state)
{
    struct town t;

    (void)state;
    set_up(&t);
    for (int i = 0; i < 5; i++)
        for (int w = 0; w < WORKERS; w++)
            assert_false(plays(&t, w, PACE_STEPS, w == 2 ? 7 : 5));     /* differences, nothing more */
    for (int i = 1; i <= PACE_WINDOWS; i++) {
        assert_false(plays(&t, 0, PACE_STEPS, 5));
        assert_false(plays(&t, 1, PACE_STEPS, 6));
        assert_int_equal(plays(&t, 2, PACE_STEPS, 40), i == PACE_WINDOWS);
    }
    assert_int_equal(t.changes, 1);
    assert_true(plays(&t, 2, PACE_STEPS, 30));
    assert_true(plays(&t, 2, PACE_STEPS, 15));          /* not yet as the others */
    assert_false(plays(&t, 2, PACE_STEPS, 6));
    assert_int_equal(t.changes, 2);
    tear_down(&t);
}

static void test_waiting_is_not_slow(void **state)
{
    struct town t;

    (void)state;
    set_up(&t);
    for (int i = 0; i < 40; i++) {
        assert_false(plays(&t, 0, PACE_STEPS, 5));
        assert_false(plays(&t, 1, PACE_STEPS / 20.0, 5));       /* gets a twentieth of the work */
    }
    assert_int_equal(t.changes, 0);
    tear_down(&t);
}

/* With nobody to compare with, or with what was long ago, there is no slow. */
static void test_alone(void **state)
{
    struct town t;

    (void)state;
    set_up(&t);
    for (int i = 0; i < 10; i++)
        assert_false(plays(&t, 0, PACE_STEPS, 5));
    t.now_ms += PACE_FRESH_MS + 1;
    for (int i = 0; i < 10; i++)
        assert_false(plays(&t, 1, PACE_STEPS, 500));
    assert_int_equal(t.changes, 0);
    tear_down(&t);
}

/* The bounds themselves: PACE_SLOW times as long is slow, PACE_BACK times is not yet back; windows count in a row only, and one is
 * PACE_STEPS steps. */
static void test_bounds(void **state)
{
    struct town t;

    (void)state;
    set_up(&t);
    assert_false(plays(&t, 0, PACE_STEPS, 5));
    assert_false(plays(&t, 1, 1, 1));                                   /* too little to say what a step costs there */
    assert_false(plays(&t, 3, 1, 1));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW - .5));         /* between the two bounds: begins to count anew */
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW));
    assert_false(plays(&t, 2, PACE_STEPS, 5));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_SLOW));
    assert_false(plays(&t, 2, PACE_STEPS - 1, 5 * PACE_SLOW));          /* no window yet */
    assert_true(plays(&t, 2, 1, 5 * PACE_SLOW));
    assert_true(plays(&t, 2, PACE_STEPS, 5 * PACE_BACK));
    assert_false(plays(&t, 2, PACE_STEPS, 5 * PACE_BACK - .5));
    assert_int_equal(t.changes, 2);
    tear_down(&t);
}

/* Who is compared with: the median of the other workers' fresh windows, neither oneself nor what is no worker. */
static void test_others(void **state)
{
    static const double ms[WORKERS] = {400, 14, .1, 5};
    struct member hello = {.role = MEMBER_ACTOR, .instance = 7}, *actor;
    struct member_gauges *place;
    struct town t;
    double others;
    bool is_new;

    (void)state;
    set_up(&t);
    assert_int_equal(membership_hello(&t.members, &hello, 1, &actor, &is_new), 0);
    for (int i = 0; i < PACE_WINDOWS; i++)
        for (int w = 1; w < WORKERS; w++)
            assert_false(plays(&t, w, PACE_STEPS, 5));
    for (int i = 1; i <= PACE_WINDOWS; i++) {
        place = gauges_place(&t.gauges, &t.members, actor->id);
        gauges_put(place, "steps_total", i * PACE_STEPS);
        gauges_put(place, "act_ms_total", i * PACE_STEPS * 1000.0);
        assert_false(pace_note(&t.gauges, place, t.now_ms, &others));
        place->pace.ms_per_step = 1000;
        place->pace.at_ms = t.now_ms;
        for (int w = 1; w < WORKERS; w++)
            assert_false(plays(&t, w, PACE_STEPS, ms[w]));
        assert_int_equal(plays(&t, 0, PACE_STEPS, ms[0]), i == PACE_WINDOWS);
    }
    assert_int_equal(t.changes, 1);
    assert_true(t.others == 5);

    t.now_ms += PACE_FRESH_MS - 2000;
    assert_true(plays(&t, 0, PACE_STEPS, 400));         /* the last window of the others is PACE_FRESH_MS old and counts */
    assert_false(plays(&t, 0, PACE_STEPS, 400));        /* there is nobody left to compare with */
    assert_false(plays(&t, 1, PACE_STEPS, 5));
    for (int i = 1; i <= PACE_WINDOWS; i++)
        assert_int_equal(plays(&t, 0, PACE_STEPS, 400), i == PACE_WINDOWS);
    tear_down(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_and_taken_back),
        cmocka_unit_test(test_waiting_is_not_slow),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
