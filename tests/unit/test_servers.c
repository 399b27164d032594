/* test_servers.c - a server is set aside by its errors, tried again now and then, and back with its first answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "env_worker/servers.h"

static void test_set_aside(void **state)
{
    struct health h = {0};

    (void)state;
    assert_true(health_good(&h, 0));
    for (int i = 0; i < 3; i++)
        assert_false(health_note(&h, false, 1000, 0));
    assert_true(health_good(&h, 1000));                 /* three do not tell */
    assert_true(health_note(&h, false, 1000, 250));
    assert_false(health_good(&h, 1999));
    assert_true(health_good(&h, 2000));                 /* 1 s, jitter none: one is asked to see */
    health_asked(&h, 2000);
    assert_false(health_good(&h, 2001));
    assert_false(health_note(&h, false, 2500, 0));      /* still sick: twice as long, at least 3/4 of it */
    assert_false(health_good(&h, 2500 + 1499));
    assert_true(health_good(&h, 2500 + 1500));
    health_asked(&h, 4000);
    assert_true(health_good(&h, 4000 + 30000));         /* the one that was to see got lost */
    assert_true(health_note(&h, true, 4100, 0));        /* said: it answers again */
    assert_true(health_good(&h, 4100));
    assert_int_equal(h.times, 1);                       /* not forgotten at once */
}

/* A server with some errors is not sick. What was asked before and fails later does not keep it away for longer. */
static void test_not_sick(void **state)
{
    struct health h = {0};
    uint64_t until;

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_false(health_note(&h, i % 3, (uint64_t)i, 0));
    assert_true(health_good(&h, 1000));
    for (int i = 0; i < 4; i++)
        (void)health_note(&h, false, 1000, 0);
    until = h.aside_until_ms;
    assert_true(until > 1000);
    for (int i = 0; i < 20; i++)
        assert_false(health_note(&h, false, 1001, 0));
    assert_true(h.aside_until_ms == until && h.times == 1);
}

/* However sick, it is tried at least every 75 s. */
static void test_bounded(void **state)
{
    struct health h = {0};
    uint64_t now_ms = 0;

    (void)state;
    for (int i = 0; i < 4; i++)
        (void)health_note(&h, false, now_ms, 12345);
    for (int i = 0; i < 40; i++) {
        assert_true(h.aside_until_ms - now_ms <= 75000);
        now_ms = h.aside_until_ms;
        assert_true(health_good(&h, now_ms));
        health_asked(&h, now_ms);
        assert_false(health_note(&h, false, now_ms + 5, (uint64_t)i * 7919));
    }
    assert_true(h.aside_until_ms - now_ms >= 45000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_aside), cmocka_unit_test(test_not_sick), cmocka_unit_test(test_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
