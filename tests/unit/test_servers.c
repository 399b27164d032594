/* test_servers.c - a server is set aside by its errors, tried again now and then, back with its first answer; who is asked. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/loop.h"
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

/* A slow server gets four times what it takes, one that has not answered four times what was waited; it is forgotten by degrees. */
static void test_patience(void **state)
{
    struct patience p = {0};

    (void)state;
    assert_int_equal(patience_ms(&p, 15000), 15000);
    patience_note(&p, 200);
    assert_int_equal(patience_ms(&p, 15000), 15000);
    patience_note(&p, 15000);                           /* in vain */
    assert_int_equal(patience_ms(&p, 15000), 60000);
    patience_note(&p, 24000);
    assert_int_equal(patience_ms(&p, 15000), 96000);
    patience_note(&p, 96000);
    patience_note(&p, 10000000);
    assert_int_equal(patience_ms(&p, 15000), PATIENCE_MOST_MS);
    for (int i = 0; i < 60; i++)
        patience_note(&p, 200);
    assert_int_equal(patience_ms(&p, 15000), 15000);
}

/* Four actors of which two have version 7, the second of them cordoned; a PRM server; what is not to be asked. */
static void test_who_is_asked(void **state)
{
    static uint64_t old[] = { 6 }, many[] = { 7, 1, 2, 3, 4, 5, 6, 7, 8 };      /* the first of nine is not kept */
    Gantry__Endpoint all[7], *list[7];
    struct error error = {0};
    struct servers servers;
    struct wire_client *first, *last;
    struct loop *loop;
    struct wire *wire;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(wire_new(loop_uv(loop), GANTRY__ROLE__ROLE_ENV_WORKER, &wire), 0);
    servers = (struct servers) { .wire = wire, .credits = 4 };
    for (unsigned i = 0; i < 7; i++) {
        static char address[7][40];

        gantry__endpoint__init(list[i] = &all[i]);
        snprintf(address[i], sizeof(address[i]), "ipc:///tmp/nobody-listens-%u", i);
        all[i].address = address[i];
        all[i].member = i;
        all[i].role = i < 4 ? GANTRY__ROLE__ROLE_ACTOR : i == 4 ? GANTRY__ROLE__ROLE_PRM_SERVER :
                      i == 5 ? GANTRY__ROLE__ROLE_LEARNER : GANTRY__ROLE__ROLE_COORDINATOR;
        all[i].versions = i == 1 || i == 2 ? many : old;
        all[i].n_versions = i == 1 || i == 2 ? 9 : 1;
        all[i].rank = i == 5;
    }
    all[2].cordoned = true;
    assert_int_equal(servers_update(&servers, list, 7, &error), 0);
    assert_int_equal(servers.n, 5);             /* neither the coordinator nor a learner of another rank */
    assert_null(servers_pick(&servers, GANTRY__ROLE__ROLE_LEARNER, 0, 0));
    for (unsigned spread = 0; spread < 8; spread++)
        assert_ptr_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 7, spread), servers.entries[1].client);
    first = servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, 0);
    for (unsigned spread = 1; spread < 3; spread++)     /* any version: the three that are not cordoned, in turn */
        assert_ptr_not_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, spread), first);
    assert_ptr_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, 3), first);
    servers.offset = 3;
    assert_ptr_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, 0), first);
    assert_ptr_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_PRM_SERVER, 1, 5), servers.entries[4].client);

    assert_int_equal(servers_patience(&servers, first, 15000), PATIENCE_MOST_MS);       /* no other is up: whom else to ask? */
    servers_took(&servers, first, -ETIMEDOUT, 0);       /* nor is this one: that says nothing of how quick it is */
    for (unsigned i = 0; i < servers.n; i++)
        assert_int_equal(servers.entries[i].patience.slowest_ms, 0);

    for (int i = 0; i < 4; i++)
        servers_note(&servers, servers.entries[0].client, false);
    for (unsigned spread = 0; spread < 4; spread++)     /* set aside */
        assert_ptr_not_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, spread), servers.entries[0].client);
    servers.entries[0].health.aside_until_ms = 1;       /* that long ago: tried, once */
    assert_ptr_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, 1), servers.entries[0].client);
    assert_ptr_not_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 0, 0), servers.entries[0].client);

    last = servers.entries[3].client;
    list[0] = &all[3];                          /* a shorter list: who stays keeps the connection */
    assert_int_equal(servers_update(&servers, list, 1, &error), 0);
    assert_int_equal(servers.n, 1);
    assert_ptr_equal(servers_pick(&servers, GANTRY__ROLE__ROLE_ACTOR, 7, 2), last);
    all[2].address = (char *)(uintptr_t)"nonsense";
    list[1] = &all[2];
    assert_int_equal(servers_update(&servers, list, 2, &error), 1);
    assert_int_equal(servers.n, 1);
    servers_release(&servers);
    wire_free(wire);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_aside), cmocka_unit_test(test_not_sick), cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_who_is_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
