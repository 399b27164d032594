/* Which builds ran a run: told from the ledger's events, over restarts, in the words in which coordinator and conductor write
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "run/builds.h"
#include "tests/harness/scratch.h"

static char dir[SCRATCH_PATH];

static struct ledger *start(const char *build)
{
    struct ledger_run create = {.id = 5, .seed = 7};
    struct ledger *ledger;
    struct error error = {0};
    char path[SCRATCH_PATH + 16];

    snprintf(create.build, sizeof create.build, "%s", build);
    snprintf(path, sizeof path, "%s/ledger.sqlite", dir);
    if (ledger_open(path, &create, &ledger, &error) < 0)
        fail_msg("%s", error.text);
    return ledger;
}

static void joins(struct ledger *ledger, const char *text)
{
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_event(ledger, "joined", 0, text), 0);
    assert_int_equal(ledger_commit(ledger), 0);
}

static void test_builds_of_a_run(void **state)
{
    struct run_builds b;
    struct ledger *ledger;

    (void)state;
    scratch_new(dir);
    ledger = start("one");
    assert_int_equal(run_builds_read(ledger, &b), 0);
    assert_int_equal(b.n, 1);
    assert_int_equal(run_builds_at(&b, UINT64_MAX), -1);
    joins(ledger, "member 1: role 5, host a, pid 10, build one");
    joins(ledger, "member 2: role 2, host x, build spoofed, pid 11, build one");        /* a host may call itself anything */
    joins(ledger, "member 3: role 3, host c, pid 12, build other<b>");
    ledger_close(ledger);
    ledger = start("two");
    joins(ledger, "member 1: role 5, host a, pid 20, build one");
    joins(ledger, "member 2: learner, host a, pid 21, build two");      /* the words of today */
    joins(ledger, "member 3: PRM server, host a, pid 22, build two");
    joins(ledger, "member 4: learned, host a, pid 23, build none");
    assert_int_equal(run_builds_read(ledger, &b), 0);
    assert_int_equal(b.n, 3);
    assert_false(b.silent);
    assert_string_equal(b.items[0].name, "one");
    assert_int_equal(b.items[0].roles, 1 << 0 | 1 << 1 | 1 << 4);
    assert_string_equal(b.items[1].name, "other<b>");
    assert_int_equal(b.items[1].roles, 1 << 2);
    assert_string_equal(b.items[2].name, "two");
    assert_int_equal(b.items[2].roles, 1 << 0 | 1 << 3 | 1 << 4);
    assert_int_equal(b.n_learner, 2);
    assert_int_equal(run_builds_at(&b, b.learner[0].since_ms - 1), -1);
    assert_int_equal(run_builds_at(&b, b.learner[1].since_ms - 1), b.learner[0].since_ms < b.learner[1].since_ms ? 0 : -1);
    assert_int_equal(run_builds_at(&b, UINT64_MAX), 2);
    ledger_close(ledger);
    assert_int_equal(remove_tree(dir), 0);
}

/* More than there is room for, and those that say nothing. */
static void test_many_and_silent(void **state)
{
    struct run_builds b;
    struct ledger *ledger;
    char text[80];

    (void)state;
    scratch_new(dir);
    ledger = start("");
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "member %d: learner, host a, pid 1, build b%d", i, i);
        joins(ledger, text);
    }
    assert_int_equal(run_builds_read(ledger, &b), 0);
    assert_true(b.silent);
    assert_int_equal(b.n, RUN_BUILDS);
    assert_true(b.n_learner <= RUN_BUILD_SPANS);
    ledger_close(ledger);
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_builds_of_a_run), cmocka_unit_test(test_many_and_silent)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
