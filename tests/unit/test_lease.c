/* test_lease.c - the lease table: fences ascend, only a moved step counter, or waiting for a server, under the right fence renews. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "coordinator/lease.h"

enum { EPOCH = 5, TTL_MS = 10000, FIRST_MS = 60000 };

static int set_up(void **state)
{
    static struct lease_table table;

    lease_table_init(&table, EPOCH, TTL_MS, FIRST_MS);
    *state = &table;
    return 0;
}

static int tear_down(void **state)
{
    lease_table_release(*state);
    return 0;
}

static void test_grant(void **state)
{
    struct lease_table *t = *state;
    struct lease a, b;

    assert_int_equal(lease_grant(t, 11, 1, false, 1000, &a), 0);
    assert_int_equal(lease_grant(t, 12, 1, false, 1000, &b), 0);
    assert_int_equal(a.fence >> 32, EPOCH);
    assert_true(b.fence > a.fence);
    assert_int_equal(a.expires_ms, 1000 + FIRST_MS);
    assert_int_equal(lease_grant(t, 11, 2, false, 1000, &b), -EEXIST);
    assert_int_equal(lease_count(t, 1), 2);
    assert_null(lease_find(t, 13));
    assert_int_equal(lease_end(t, 11), 0);
    assert_int_equal(lease_end(t, 11), -ENOENT);
    assert_int_equal(lease_grant(t, 11, 2, false, 1000, &b), 0);
    assert_true(b.fence > a.fence);
}

static int progress(struct lease_table *t, uint64_t episode, uint64_t fence, uint32_t step, uint64_t now_ms)
{
    return lease_progress(t, &(struct held_lease) {episode, fence, step, false, step / 2}, now_ms);
}

static void test_progress(void **state)
{
    struct lease_table *t = *state;
    struct lease lease, old;

    (void)lease_grant(t, 11, 1, false, 0, &old);
    (void)lease_end(t, 11);
    (void)lease_grant(t, 11, 2, false, 0, &lease);

    assert_int_equal(progress(t, 11, old.fence, 9, 500), -ESTALE);     /* the old holder plays on: no matter */
    assert_int_equal(lease_find(t, 11)->expires_ms, FIRST_MS);
    assert_int_equal(lease_find(t, 11)->step, 0);

    assert_int_equal(progress(t, 11, lease.fence, 1, 500), 0);
    assert_int_equal(lease_find(t, 11)->expires_ms, 500 + TTL_MS);
    assert_int_equal(progress(t, 11, lease.fence, 1, 900), 0);         /* it lives, but does not move */
    assert_int_equal(lease_find(t, 11)->expires_ms, 500 + TTL_MS);
    assert_int_equal(progress(t, 11, lease.fence, 0, 900), 0);         /* a late heartbeat */
    assert_int_equal(lease_find(t, 11)->step, 1);
    assert_int_equal(progress(t, 12, lease.fence, 1, 900), -ESTALE);
    assert_int_equal(progress(t, 11, lease.fence, 9, 900), 0);
    assert_int_equal(lease_find(t, 11)->played, 4);                    /* of its nine steps these were actions */
}

/* Who does nothing but wait for a server keeps its lease, as long as it says so. */
static void test_waiting(void **state)
{
    struct lease_table *t = *state;
    struct lease lease, taken;

    (void)lease_grant(t, 11, 1, false, 0, &lease);
    assert_int_equal(lease_progress(t, &(struct held_lease) {11, lease.fence, 0, true, 0}, 500), 0);
    assert_int_equal(lease_find(t, 11)->expires_ms, FIRST_MS);          /* no sooner than without */
    assert_int_equal(lease_progress(t, &(struct held_lease) {11, lease.fence, 0, true, 0}, FIRST_MS - 1), 0);
    assert_int_equal(lease_find(t, 11)->expires_ms, FIRST_MS - 1 + TTL_MS);
    assert_int_equal(lease_progress(t, &(struct held_lease) {11, lease.fence - 1, 0, true, 0}, FIRST_MS), -ESTALE);
    assert_int_equal(progress(t, 11, lease.fence, 0, FIRST_MS + 5), 0); /* it works again, and gets no further */
    assert_int_equal(lease_find(t, 11)->expires_ms, FIRST_MS - 1 + TTL_MS);
    assert_int_equal(progress(t, 11, lease.fence, 1, FIRST_MS + 6), 0);
    assert_int_equal(lease_progress(t, &(struct held_lease) {11, lease.fence, 0, true, 0}, FIRST_MS + 9), 0);     /* a late heartbeat */
    assert_int_equal(lease_find(t, 11)->expires_ms, FIRST_MS + 6 + TTL_MS);
    assert_int_equal(lease_take_expired(t, FIRST_MS + 6 + TTL_MS, &taken), 0);
}

static void test_expiry(void **state)
{
    struct lease_table *t = *state;
    struct lease lease, taken;

    (void)lease_grant(t, 11, 1, false, 0, &lease);
    (void)lease_grant(t, 12, 1, false, 0, &lease);
    (void)progress(t, 12, lease.fence, 3, 100);
    assert_int_equal(lease_take_expired(t, 100 + TTL_MS - 1, &taken), -ENOENT);
    assert_int_equal(lease_take_expired(t, 100 + TTL_MS, &taken), 0);
    assert_int_equal(taken.episode, 12);
    assert_int_equal(taken.step, 3);
    assert_int_equal(lease_take_expired(t, 100 + TTL_MS, &taken), -ENOENT);
    assert_int_equal(lease_take_expired(t, FIRST_MS, &taken), 0);
    assert_int_equal(taken.episode, 11);
}

/* After a restart of the coordinator: what workers announce is taken over, the later grant wins. */
static void test_adopt(void **state)
{
    struct lease_table *t = *state;
    uint64_t early = (uint64_t)(EPOCH - 2) << 32 | 7, late = (uint64_t)(EPOCH - 1) << 32 | 2;
    struct lease lease;

    assert_int_equal(lease_adopt(t, 11, early, 1, 4, 0), 0);
    assert_int_equal(lease_find(t, 11)->expires_ms, TTL_MS);
    assert_int_equal(lease_adopt(t, 11, late, 2, 0, 0), 0);
    assert_int_equal(lease_find(t, 11)->member, 2);
    assert_int_equal(lease_find(t, 11)->expires_ms, FIRST_MS);               /* it has not begun */
    assert_int_equal(lease_adopt(t, 11, early, 1, 9, 0), -ESTALE);
    assert_int_equal(progress(t, 11, early, 9, 10), -ESTALE);

    (void)lease_grant(t, 12, 3, false, 0, &lease);
    assert_int_equal(lease_adopt(t, 12, late, 2, 1, 0), -ESTALE);            /* granted anew in this epoch */
    assert_int_equal(lease_adopt(t, 12, lease.fence, 3, 1, 0), 0);           /* it says Hello again: still its own */
    assert_int_equal(lease_find(t, 12)->expires_ms, FIRST_MS);               /* which renews nothing */
    assert_int_equal(lease_adopt(t, 12, lease.fence, 2, 1, 0), -ESTALE);     /* another says so */
    (void)lease_end(t, 12);
    assert_int_equal(lease_adopt(t, 12, lease.fence, 3, 1, 0), -ESTALE);     /* ended in this epoch: it stays ended */
}

/* A member that is not heard of: nothing of it outlives `until`, and what would have ended before still does. */
static void test_silence(void **state)
{
    struct lease_table *t = *state;
    struct lease lease;

    (void)lease_grant(t, 11, 1, false, 0, &lease);
    (void)lease_grant(t, 12, 1, false, 0, &lease);
    (void)progress(t, 12, lease.fence, 1, 0);
    (void)lease_grant(t, 13, 2, false, 0, &lease);
    lease_hasten(t, 1, 2 * TTL_MS);
    assert_int_equal(lease_find(t, 11)->expires_ms, 2 * TTL_MS);
    assert_int_equal(lease_find(t, 12)->expires_ms, TTL_MS);
    assert_int_equal(lease_find(t, 13)->expires_ms, FIRST_MS);
    lease_excuse(t, 700);                       /* nobody could be heard: for none of them does that count */
    assert_int_equal(lease_find(t, 12)->expires_ms, TTL_MS + 700);
    assert_int_equal(lease_find(t, 13)->expires_ms, FIRST_MS + 700);
}

/* A grant whose answer got lost comes free again when its member's heartbeats do not name it. */
static void test_unmentioned(void **state)
{
    struct lease_table *t = *state;
    struct lease lost, known, taken;
    struct held_lease held;

    (void)lease_grant(t, 11, 1, false, 0, &lost);
    (void)lease_grant(t, 12, 1, false, 0, &known);
    held = (struct held_lease) { 12, known.fence, 1, false, 0 };
    for (int i = 1; i < LEASE_UNMENTIONED; i++)
        assert_int_equal(lease_take_unmentioned(t, 1, &held, 1, true, &taken), -ENOENT);
    assert_int_equal(lease_take_unmentioned(t, 1, &held, 1, true, &taken), 0);
    assert_int_equal(taken.episode, 11);
    assert_int_equal(lease_take_unmentioned(t, 1, &held, 1, false, &taken), -ENOENT);
    assert_non_null(lease_find(t, 12));
    (void)lease_grant(t, 13, 2, false, 0, &lost);
    for (int i = 1; i < LEASE_UNMENTIONED; i++)             /* what another does not name is its own: nothing is counted */
        assert_int_equal(lease_take_unmentioned(t, 2, &held, 0, true, &taken), -ENOENT);
    assert_int_equal(lease_take_unmentioned(t, 1, &held, 1, true, &taken), -ENOENT);
    held = (struct held_lease) { 12, known.fence + 1, 1, false, 0 };  /* an earlier grant of it is not this one */
    for (int i = 1; i < LEASE_UNMENTIONED; i++)
        assert_int_equal(lease_take_unmentioned(t, 1, &held, 1, true, &taken), -ENOENT);
    assert_int_equal(lease_take_unmentioned(t, 1, &held, 1, true, &taken), 0);
    assert_int_equal(taken.episode, 12);
    (void)lease_grant(t, 12, 1, false, 0, &known);
    held = (struct held_lease) { 12, known.fence, 1, false, 0 };
    for (int i = 0; i < 4 * LEASE_UNMENTIONED; i++)         /* in a row: one that names it begins the count anew */
        assert_int_equal(lease_take_unmentioned(t, 1, &held, i % LEASE_UNMENTIONED == 0, true, &taken), -ENOENT);
}

/* A number of its own for each i. */
static uint64_t scattered(uint64_t i) { return i << 32 | (i ^ i << 7) * 2654435761u % 1000003; }

/* Many, taken out in another order than they went in: the index stays right. */
static void test_many(void **state)
{
    enum { MANY = 5000 };
    struct lease_table *t = *state;
    struct lease lease;

    /* not in a row: the index would spread those evenly */
    for (uint64_t i = 0; i < MANY; i++)
        assert_int_equal(lease_grant(t, scattered(i), (uint32_t)(i % 7), false, 0, &lease), 0);
    for (uint64_t i = 0; i < MANY; i++)                     /* before one that leaves puts another's index right */
        assert_int_equal(lease_find(t, scattered(i))->episode, scattered(i));
    for (uint64_t i = 0; i < MANY; i += 3)
        assert_int_equal(lease_end(t, scattered(i)), 0);
    while (lease_take_member(t, 2, &lease) == 0)
        ;
    for (uint64_t i = 0; i < MANY; i++) {
        const struct lease *found = lease_find(t, scattered(i));

        assert_int_equal(found != NULL, i % 3 != 0 && i % 7 != 2);
        if (found)
            assert_true(found->episode == scattered(i) && found->member == i % 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_grant, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_progress, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_expiry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_adopt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unmentioned, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
