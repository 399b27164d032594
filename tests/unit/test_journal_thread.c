/* test_journal_thread.c - nobody is told that an episode is durable before it is; who is told otherwise can deliver it again. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "learner/journal_thread.h"
#include "tests/harness/scratch.h"

enum { RUN = 77, MANY = 100 };

struct desk {
    char dir[SCRATCH_PATH];
    struct loop *loop;
    struct journal *journal;
    struct journal_thread *thread;
    unsigned told;
    struct { uint64_t episode, token; int result; bool durable; } reports[MANY];
};

static void appended(uint64_t episode, uint64_t token, int result, void *arg)
{
    struct desk *desk = arg;
    struct journal_entry entry = {0};
    bool found = journal_find(desk->journal, episode, &entry) == 0;

    assert_true(desk->told < MANY);
    desk->reports[desk->told].episode = episode;
    desk->reports[desk->told].token = token;
    desk->reports[desk->told].result = result;
    desk->reports[desk->told++].durable = found && entry.durable;
}

static void set_up(struct desk *desk)
{
    struct error error = {0};

    *desk = (struct desk) {0};
    scratch_new(desk->dir);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(loop_new(&desk->loop), 0);
    if (journal_open(desk->dir, RUN, JOURNAL_WRITE, &desk->journal, NULL, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(journal_thread_new(desk->loop, desk->journal, appended, desk, &desk->thread), 0);
}

static void tear_down(struct desk *desk)
{
    assert_int_equal(fault_arm(""), 0);
    desk->thread = journal_thread_free(desk->thread);
    desk->journal = journal_close(desk->journal);
    desk->loop = loop_free(desk->loop);
    assert_int_equal(remove_tree(desk->dir), 0);
}

static void append(struct desk *desk, uint32_t iteration, uint64_t episode)
{
    assert_int_equal(journal_thread_append(desk->thread, 4, iteration, episode, 1000 + episode, "meta", 4, "frames", 6), 0);
}

static void until_told(struct desk *desk, unsigned n)
{
    while (desk->told < n)
        loop_turn(desk->loop, true);
}

/* Also for what the thread does without telling anybody: it is behind what is asked for now. */
static int append_and_hear(struct desk *desk, uint32_t iteration, uint64_t episode)
{
    unsigned n = desk->told;

    append(desk, iteration, episode);
    until_told(desk, n + 1);
    assert_int_equal(desk->reports[n].episode, episode);
    return desk->reports[n].result;
}

static bool is_there(const struct desk *desk, const char *name)
{
    char path[SCRATCH_PATH + 32];

    snprintf(path, sizeof path, "%s/%s", desk->dir, name);
    return access(path, F_OK) == 0;
}

/* In order, each once, each durable when it is told; an episode that is there already is as good as written. The end does first
 * what was asked for. */
static void test_in_order(void **state _unused_)
{
    struct desk desk;

    set_up(&desk);
    assert_int_equal(journal_thread_segment(desk.thread, 4, 1), 0);
    for (uint64_t i = 0; i < 60; i++)
        append(&desk, 1, i / 2);
    assert_int_equal(journal_thread_seal(desk.thread, 4, 1), 0);
    for (uint64_t i = 30; i < 70; i++)
        append(&desk, 2, i);            /* nobody said that it begins */
    desk.thread = journal_thread_free(desk.thread);
    assert_int_equal(desk.told, MANY);
    for (uint64_t i = 0; i < MANY; i++) {
        uint64_t episode = i < 60 ? i / 2 : i - 30;

        assert_int_equal(desk.reports[i].episode, episode);
        assert_int_equal(desk.reports[i].token, 1000 + episode);
        assert_int_equal(desk.reports[i].result, 0);
        assert_true(desk.reports[i].durable);
    }
    assert_true(is_there(&desk, "0004-000001.seg"));
    assert_true(is_there(&desk, "0004-000002.open"));
    tear_down(&desk);
}

/* Each to the segment of its own stage and iteration, also without a word that it begins. */
static void test_segments(void **state _unused_)
{
    struct desk desk;

    set_up(&desk);
    assert_int_equal(append_and_hear(&desk, 1, 1), 0);
    assert_int_equal(journal_thread_append(desk.thread, 5, 1, 2, 1002, "meta", 4, "frames", 6), 0);
    until_told(&desk, 2);
    assert_true(is_there(&desk, "0004-000001.open") && is_there(&desk, "0005-000001.open"));
    tear_down(&desk);
}

/* A sync or a write that fails: those since the last good sync are told so, are not in the journal, and can come again. */
static void test_failures(void **state _unused_)
{
    static const struct { const char *fault; int result; } cases[] = {
        {"journal.fsync=eio@1", -EIO}, {"journal.write=eio@3", -EIO},
        {"journal.write=short@2", -ENOSPC}, {"journal.fsync=enospc@1", -ENOSPC}, {"journal.fsync=edquot@1", -EDQUOT},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct desk desk;
        unsigned failed = 0;

        set_up(&desk);
        assert_int_equal(append_and_hear(&desk, 1, 50), 0);
        assert_int_equal(fault_arm(cases[i].fault), 0);
        for (uint64_t k = 0; k < 5; k++)
            append(&desk, 1, k);
        until_told(&desk, 6);
        assert_int_equal(fault_arm(""), 0);
        for (unsigned k = 1; k < 6; k++) {
            failed += desk.reports[k].result < 0;
            assert_true(desk.reports[k].result == 0 || desk.reports[k].result == cases[i].result);
            assert_int_equal(desk.reports[k].durable, desk.reports[k].result == 0);
        }
        assert_in_range(failed, 1, 5);
        for (uint64_t k = 0; k < 5; k++)
            assert_int_equal(append_and_hear(&desk, 1, k), 0);
        assert_false(journal_thread_full(desk.thread));
        for (unsigned k = 6; k < 11; k++)
            assert_true(desk.reports[k].durable);
        tear_down(&desk);
    }
}

/* The sync that fails is the one before another segment: by its first append, because it begins, or because the one before is sealed. */
static void test_failures_between_segments(void **state _unused_)
{
    for (int how = 0; how < 3; how++) {
        struct desk desk;

        set_up(&desk);
        assert_int_equal(append_and_hear(&desk, 1, 50), 0);
        assert_int_equal(fault_arm("journal.write=delay:300@1,journal.fsync=eio@1"), 0);   /* the delay: others are behind it */
        append(&desk, 1, 1);
        append(&desk, 1, 2);
        if (how == 1)
            assert_int_equal(journal_thread_segment(desk.thread, 4, 2), 0);
        if (how == 2)
            assert_int_equal(journal_thread_seal(desk.thread, 4, 1), 0);
        append(&desk, 2, 3);
        until_told(&desk, 4);
        assert_int_equal(fault_arm(""), 0);
        assert_int_equal(desk.reports[1].result, -EIO);
        for (unsigned k = 1; k < 4; k++)
            assert_int_equal(desk.reports[k].durable, desk.reports[k].result == 0);
        tear_down(&desk);
    }
}

/* A full disk is said while it is full; a segment that could not be opened is opened by its first append, one that could not be
 * sealed is after a later good sync. */
static void test_full(void **state _unused_)
{
    struct desk desk;

    set_up(&desk);
    assert_int_equal(append_and_hear(&desk, 1, 1), 0);
    assert_int_equal(fault_arm("journal.write=enospc@1+,journal.seal=enospc@1+"), 0);
    assert_int_equal(journal_thread_seal(desk.thread, 4, 1), 0);
    assert_int_equal(journal_thread_segment(desk.thread, 4, 2), 0);
    assert_int_equal(append_and_hear(&desk, 2, 2), -ENOSPC);
    assert_true(journal_thread_full(desk.thread));
    assert_int_equal(append_and_hear(&desk, 2, 2), -ENOSPC);
    assert_true(is_there(&desk, "0004-000001.open"));
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(append_and_hear(&desk, 2, 2), 0);
    assert_false(journal_thread_full(desk.thread));
    assert_int_equal(append_and_hear(&desk, 2, 3), 0);          /* the seal was behind the one before */
    assert_true(is_there(&desk, "0004-000001.seg"));
    assert_true(is_there(&desk, "0004-000002.open"));
    assert_int_equal(journal_thread_seal(desk.thread, 9, 9), 0);        /* an iteration without episodes: no harm */
    assert_int_equal(append_and_hear(&desk, 2, 4), 0);
    tear_down(&desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order), cmocka_unit_test(test_segments), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_failures_between_segments), cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
