/* test_bounded.c - what the coordinator keeps of members and versions that are gone: nothing that grows with how long it has been
 * running. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/member_gauges.h"
#include "coordinator/versions.h"

enum { LIVES = 1000 };

static uint32_t join(struct membership *m, uint64_t instance, uint64_t now_ms)
{
    struct member hello = {.role = MEMBER_WORKER, .instance = instance}, *member;
    bool is_new;

    assert_int_equal(membership_hello(m, &hello, now_ms, &member, &is_new), 0);
    return member->id;
}

static void say(struct gauges *gauges, const struct membership *m, uint32_t member, double steps, double peak)
{
    struct member_gauges *place = gauges_place(gauges, m, member);

    assert_non_null(place);
    gauges_put(place, "steps_total", steps);
    gauges_put(place, "rss_peak_bytes", peak);
}

/* Two workers at a time, a thousand in all: as many places as for a few, sums and peaks as of all of them. */
static void test_gauges_of_those_gone_are_added_up(void **state)
{
    struct membership m = {0};
    struct gauges gauges = {0};
    uint32_t before = 0;

    (void)state;
    for (uint64_t life = 1; life <= LIVES; life++) {
        uint32_t now = join(&m, life, life);

        say(&gauges, &m, now, 1, 5);                        /* the last word of a member counts, not each */
        say(&gauges, &m, now, 3, life == 7 ? 900 : 10);
        if (before)
            membership_remove(&m, membership_find(&m, before));
        before = now;
    }
    assert_true(gauges.capacity <= 16);
    assert_true(m.capacity <= 32);
    assert_true(gauges_over_role(&gauges, MEMBER_WORKER, "steps_total", false) == 3.0 * LIVES);
    assert_true(gauges_over_role(&gauges, MEMBER_WORKER, "rss_peak_bytes", true) == 900);
    assert_true(gauges_over_role(&gauges, MEMBER_ACTOR, "steps_total", false) == 0);
    assert_true(gauges_value(gauges_find(&gauges, before), "steps_total") == 3);
    assert_null(gauges_place(&gauges, &m, before - 1));     /* gone: a late heartbeat of it is not counted twice */
    gauges_release(&gauges);
    membership_release(&m);
}

/* A number that is none would stay in the sums for as long as the coordinator lives; a name that is said twice counts once. */
static void test_gauges_that_make_no_sense(void **state)
{
    struct membership m = {0};
    struct gauges gauges = {0};
    struct member_gauges *place;
    uint32_t first = join(&m, 1, 1);

    (void)state;
    say(&gauges, &m, first, NAN, -INFINITY);
    membership_remove(&m, membership_find(&m, first));
    for (uint64_t i = 2; i < 100; i++)                      /* until those gone are added up */
        say(&gauges, &m, join(&m, i, i), INFINITY, NAN);
    place = gauges_place(&gauges, &m, join(&m, 100, 100));
    for (int i = 0; i < 2 * MEMBER_GAUGES; i++)
        gauges_put(place, "steps_total", 5);
    gauges_put(place, "rss_peak_bytes", 70);
    assert_int_equal(place->n, 2);
    assert_true(gauges_over_role(&gauges, MEMBER_WORKER, "steps_total", false) == 5);
    assert_true(gauges_over_role(&gauges, MEMBER_WORKER, "rss_peak_bytes", true) == 70);
    gauges_release(&gauges);
    membership_release(&m);
}

/* A machine that went away without a word is shown as lost, for an hour. */
static void test_lost_members_are_forgotten(void **state)
{
    enum { MINUTE = 60000 };
    struct membership m = {0};

    (void)state;
    for (uint64_t i = 1; i <= LIVES; i++) {                 /* one each minute, none says Bye */
        uint32_t id = join(&m, i, i * MINUTE);

        assert_non_null(membership_take_lost(&m, i * MINUTE + 5000, 3000));
        assert_non_null(membership_find(&m, id));
        if (i > 30)
            assert_non_null(membership_find(&m, id - 30));  /* may come back */
    }
    assert_true(m.capacity <= 256);
    membership_release(&m);
}

static void test_versions_whose_weights_are_gone_are_forgotten(void **state)
{
    const uint64_t keep[] = {0, 3};
    struct ledger_version version;
    struct versions v = {0};
    bool is_new = true;

    (void)state;
    for (uint64_t i = 0; i < LIVES; i++)
        for (enum version_kind kind = KIND_POLICY; kind <= KIND_PRM; kind++) {
            version = (struct ledger_version) {.kind = kind, .number = i, .gate_passed = kind == KIND_POLICY || i < 100,
                                               .digest = {(uint8_t)i}};
            assert_int_equal(versions_add(&v, &version, NULL), 0);
            versions_forget(&v, kind, keep, 2);
        }
    assert_int_equal(v.n, 2 + VERSIONS_RECENT + 3 + VERSIONS_RECENT);   /* of the PRMs also 99, on which the next is trained */
    assert_int_equal(versions_newest(&v, KIND_POLICY)->number, LIVES - 1);
    assert_int_equal(versions_newest_passed(&v, KIND_PRM)->number, 99);
    assert_non_null(versions_find(&v, KIND_POLICY, 3));
    assert_non_null(versions_find(&v, KIND_PRM, LIVES - VERSIONS_RECENT));
    assert_null(versions_find(&v, KIND_PRM, LIVES - VERSIONS_RECENT - 1));
    version = (struct ledger_version) {.kind = KIND_PRM, .number = LIVES - 1, .digest = {(uint8_t)(LIVES - 1)}};
    assert_int_equal(versions_add(&v, &version, &is_new), 0);
    assert_false(is_new);                                   /* said again */
    version.digest[SHA256_SIZE - 1] = 1;
    assert_int_equal(versions_add(&v, &version, &is_new), -EEXIST);
    version.number = LIVES;
    assert_int_equal(versions_add(&v, &version, &is_new), 0);
    assert_true(is_new);
    versions_release(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gauges_of_those_gone_are_added_up),
        cmocka_unit_test(test_gauges_that_make_no_sense),
        cmocka_unit_test(test_lost_members_are_forgotten),
        cmocka_unit_test(test_versions_whose_weights_are_gone_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
