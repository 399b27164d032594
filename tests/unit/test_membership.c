/* test_membership.c - who is a member: a process, under the key it speaks with; what servers say of versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "coordinator/membership.h"

static int set_up(void **state)
{
    static struct membership m;

    m = (struct membership) {0};
    *state = &m;
    return 0;
}

static int tear_down(void **state)
{
    membership_release(*state);
    return 0;
}

static struct member *hello(struct membership *m, struct member hello, bool expect_new)
{
    struct member *member = NULL;
    bool is_new;

    assert_int_equal(membership_hello(m, &hello, 1000, &member, &is_new), 0);
    assert_int_equal(is_new, expect_new);
    return member;
}

/* Nobody speaks in another's name, not even with its instance; the same process saying Hello again keeps its number. */
static void test_a_process_under_its_key(void **state)
{
    struct membership *m = *state;
    struct member alice = {.role = MEMBER_WORKER, .instance = 7, .user = "alice"};
    struct member mallory = alice, actor = alice;
    uint32_t id = hello(m, alice, true)->id;

    snprintf(mallory.user, sizeof mallory.user, "mallory");
    actor.role = MEMBER_ACTOR;
    assert_int_equal(hello(m, mallory, true)->id, id + 1);
    assert_int_equal(hello(m, actor, true)->id, id + 2);
    alice.address_id = 9;                                   /* it has connected anew: answers go there */
    assert_int_equal(hello(m, alice, false)->id, id);
    assert_int_equal(membership_find(m, id)->address_id, 9);
    assert_non_null(membership_take_lost(m, 1000 + 3000, 3000));
    assert_int_equal(hello(m, alice, true)->id, id);        /* was lost, is back */
    assert_int_equal(membership_find(m, id)->state, MEMBER_ALIVE);
    membership_remove(m, membership_find(m, id));
    assert_null(membership_find(m, id));
    assert_int_equal(hello(m, alice, true)->id, id + 3);    /* who said Bye is somebody new */
}

/* One learner of a rank, one server at an address; what others should know has changed. */
static void test_a_new_process_in_the_place_of_an_old_one(void **state)
{
    struct membership *m = *state;
    struct member actor = {.role = MEMBER_ACTOR, .instance = 1, .address = "tcp://a:1"};
    uint32_t learner = hello(m, (struct member) {.role = MEMBER_LEARNER, .instance = 1, .rank = 1}, true)->id;
    uint32_t first = hello(m, actor, true)->id;
    uint64_t revision = m->revision;

    assert_null(membership_learner(m));                     /* who speaks for the learner is rank 0 */
    (void)hello(m, (struct member) {.role = MEMBER_LEARNER, .instance = 2, .rank = 0}, true);
    assert_non_null(membership_find(m, learner));
    assert_int_equal(membership_learner(m)->instance, 2);
    (void)hello(m, (struct member) {.role = MEMBER_LEARNER, .instance = 3, .rank = 1}, true);
    assert_null(membership_find(m, learner));
    actor.instance = 2;
    (void)hello(m, actor, true);
    assert_null(membership_find(m, first));
    assert_int_equal(membership_count(m, MEMBER_ACTOR), 1);
    assert_true(m->revision > revision);
    revision = m->revision;
    (void)hello(m, (struct member) {.role = MEMBER_WORKER, .instance = 4}, true);
    assert_int_equal(m->revision, revision);                /* nobody connects to a worker */
    (void)hello(m, (struct member) {.role = MEMBER_PRM, .instance = 1}, true);
    (void)hello(m, (struct member) {.role = MEMBER_PRM, .instance = 2}, true);
    assert_int_equal(membership_count(m, MEMBER_PRM), 2);   /* nowhere is no place */
}

/* Ready by one is ready; refused is refused by all; who was lost has said nothing; what is not kept is forgotten. */
static void test_versions(void **state)
{
    struct membership *m = *state;
    uint32_t a = hello(m, (struct member) {.role = MEMBER_PRM, .instance = 1, .address = "x"}, true)->id;
    uint32_t b = hello(m, (struct member) {.role = MEMBER_PRM, .instance = 2, .address = "y"}, true)->id;

    (void)hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 1, .address = "z"}, true);     /* has no say in this */
    membership_version(m, membership_find(m, a), KIND_PRM, 5, false, 0);
    assert_false(membership_refused(m, KIND_PRM, 5, 0));
    membership_version(m, membership_find(m, b), KIND_PRM, 5, false, 0);
    assert_true(membership_refused(m, KIND_PRM, 5, 0));
    assert_false(membership_refused(m, KIND_POLICY, 5, 0));
    membership_version(m, membership_find(m, a), KIND_PRM, 5, true, 0);
    assert_true(membership_ready(m, KIND_PRM, 5) && !membership_refused(m, KIND_PRM, 5, 0) && !membership_ready(m, KIND_POLICY, 5));
    membership_version(m, membership_find(m, a), KIND_PRM, 6, true, 0);
    membership_keep(m, KIND_POLICY, NULL, 0);
    assert_true(membership_ready(m, KIND_PRM, 5));
    membership_keep(m, KIND_PRM, (uint64_t[]) {6}, 1);
    assert_true(!membership_ready(m, KIND_PRM, 5) && membership_ready(m, KIND_PRM, 6));
    assert_int_equal(membership_find(m, a)->n_versions, 1);
    assert_int_equal(membership_find(m, b)->n_versions, 0);
    membership_find(m, a)->reserved = true;
    while (membership_take_lost(m, 9000, 3000))
        ;
    assert_false(membership_find(m, a)->reserved);
    assert_false(membership_ready(m, KIND_PRM, 6));
    assert_int_equal(hello(m, (struct member) {.role = MEMBER_PRM, .instance = 1, .address = "x"}, true)->id, a);
    assert_false(membership_ready(m, KIND_PRM, 6));         /* it is back, and may have lost what it had */
    membership_version(m, membership_find(m, a), KIND_PRM, 7, false, 0);
    assert_true(membership_refused(m, KIND_PRM, 7, 0));        /* of those that are here */
}

/* The number that tells others to ask anew moves with what a server can be asked for, and only then. */
static void test_revisions(void **state)
{
    struct membership *m = *state;
    uint32_t id = hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 1, .address = "x"}, true)->id;
    uint64_t before = m->revision;

    assert_true(before > 0);
    (void)hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 1, .address = "x"}, false);
    assert_int_equal(m->revision, before);
    membership_version(m, membership_find(m, id), KIND_POLICY, 5, true, 0);
    assert_true(m->revision > before);
    before = m->revision;
    membership_version(m, membership_find(m, id), KIND_POLICY, 5, true, 0);
    membership_keep(m, KIND_POLICY, (uint64_t[]) {5}, 1);
    assert_int_equal(m->revision, before);
    membership_version(m, membership_find(m, id), KIND_POLICY, 5, false, 0);
    assert_true(m->revision > before);
    before = m->revision;
    membership_keep(m, KIND_POLICY, NULL, 0);
    assert_true(m->revision > before);
    membership_version(m, membership_find(m, id), KIND_POLICY, 6, true, 0);
    membership_keep(m, KIND_POLICY, NULL, 0);
    before = m->revision;
    membership_version(m, membership_find(m, id), KIND_POLICY, 7, true, 0);    /* in the place of one that was ready, too */
    assert_true(m->revision > before);
    before = m->revision;
    assert_non_null(membership_take_lost(m, 1000 + 3000, 3000));
    assert_true(m->revision > before);
    before = m->revision;
    membership_remove(m, membership_find(m, id));           /* nobody was sent to it any more */
    assert_int_equal(m->revision, before);
    id = hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 2, .address = "y"}, true)->id;
    assert_true(m->revision > before);
    before = m->revision;
    membership_remove(m, membership_find(m, id));           /* said Bye */
    assert_true(m->revision > before);
}

/* A server that names more versions than there are places for: the oldest word goes. */
static void test_more_versions_than_places(void **state)
{
    struct membership *m = *state;
    struct member *server = hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 1, .address = "x"}, true);

    for (uint64_t v = 0; v <= MEMBER_VERSIONS; v++) {
        uint64_t before = m->revision;

        membership_version(m, server, KIND_POLICY, v, true, 0);
        assert_true(m->revision > before);
    }
    assert_int_equal(server->n_versions, MEMBER_VERSIONS);
    assert_false(membership_ready(m, KIND_POLICY, 0));
    for (uint64_t v = 1; v <= MEMBER_VERSIONS; v++)
        assert_true(membership_ready(m, KIND_POLICY, v));
}

/* Another of its role for what it is to be asked no more; not one that is leaving itself. */
static void test_another(void **state)
{
    struct membership *m = *state;
    uint32_t a = hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 1, .address = "x"}, true)->id;
    uint32_t b;

    (void)hello(m, (struct member) {.role = MEMBER_PRM, .instance = 1, .address = "z"}, true);
    assert_null(membership_other(m, membership_find(m, a)));
    b = hello(m, (struct member) {.role = MEMBER_ACTOR, .instance = 2, .address = "y"}, true)->id;
    assert_ptr_equal(membership_other(m, membership_find(m, a)), membership_find(m, b));
    membership_find(m, b)->leaving = true;
    assert_null(membership_other(m, membership_find(m, a)));
}

/* Those that are over make room for others, those that are away for a while do not; all are found by number and by process. */
static void test_many_come_and_go(void **state)
{
    enum { AWAY = 1, FIRST = 32, MANY = 200 };
    struct membership *m = *state;
    uint32_t id[MANY + 1];

    for (uint32_t i = 1; i <= MANY; i++) {
        id[i] = hello(m, (struct member) {.role = MEMBER_WORKER, .instance = i, .pid = i % 100, .host = "h"}, true)->id;
        if (i == AWAY)
            assert_non_null(membership_take_lost(m, 4000, 3000));
        else if (i > AWAY && i < FIRST)
            membership_remove(m, membership_find(m, id[i]));
    }
    assert_int_equal(m->n, MANY - FIRST + 2);
    assert_int_equal(membership_count(m, MEMBER_WORKER), MANY - FIRST + 1);
    assert_int_equal(membership_find(m, id[AWAY])->state, MEMBER_LOST);
    for (uint32_t i = FIRST; i <= MANY; i++)
        assert_int_equal(membership_find(m, id[i])->instance, i);
    membership_remove(m, membership_find_process(m, "h", 50));          /* its number is given to another process */
    assert_int_equal(membership_find_process(m, "h", 50)->instance, 150);
    assert_null(membership_find_process(m, "elsewhere", 50));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_process_under_its_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_new_process_in_the_place_of_an_old_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_versions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_revisions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_versions_than_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_come_and_go, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
