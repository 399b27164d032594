/* Slow workers: found by what a step costs them, not by how much work they get; said once, and taken back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "coordinator/member_gauges.h"

enum { WORKERS = 3 };

struct town {
    struct membership members;
    struct gauges gauges;
    double steps[WORKERS], ms[WORKERS];
    uint64_t now_ms;
    unsigned changes;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_and_taken_back),
        cmocka_unit_test(test_waiting_is_not_slow),
        cmocka_unit_test(test_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
