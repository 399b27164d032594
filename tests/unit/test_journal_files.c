/* The journal's files among others: what lies beside them, what takes their place, and which of them a sync is for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "run/journal.h"
#include "tests/harness/scratch.h"

enum { RUN = 77 };

static char dir[SCRATCH_PATH];
static struct error error;

static int setup(void **state)
{
    (void)state;
    scratch_new(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return remove_tree(dir);
}

static const char *in(const char *folder, const char *name)
{
    static char path[4][SCRATCH_PATH + 48];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[0], "%s/%s/%s", dir, folder, name);
    return path[turn];
}

static struct journal *must_open(const char *folder, uint64_t run, enum journal_mode mode)
{
    struct journal *j;

    if (journal_open(in(folder, ""), run, mode, &j, NULL, &error) < 0)
        fail_msg("%s", error.text);
    return j;
}

static void append(struct journal *j, uint64_t episode, const char *meta)
{
    uint8_t digest[SHA256_SIZE];

    if (journal_append(j, episode, meta, strlen(meta), "frames", 6, digest, &error) < 0)
        fail_msg("%s", error.text);
}

/* One sealed segment 0004-000012 with episode 1. */
static void write_one(const char *folder, uint64_t run, const char *meta)
{
    struct journal *j = must_open(folder, run, JOURNAL_WRITE);

    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, meta);
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
}

/* A sync is for the segment that is written: the one before it is synced when it is left. */
static void test_what_is_left_is_durable(void **state)
{
    struct journal *j = must_open("j", RUN, JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_false(entry.durable);
    assert_int_equal(journal_segment(j, 4, 13, &error), 0);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_true(entry.durable);
    journal_close(j);
}

/* Copies that people make are not read. */
static void test_copies_beside(void **state)
{
    static const char *const copies[] = {"4-12.seg", "0004-000012.seg.bak", "0004-000012.segment", "00004-000012.seg", "notes"};
    struct journal_entry entry;
    struct journal *j;

    (void)state;
    write_one("j", RUN, "a");
    for (size_t i = 0; i < ARRAY_SIZE(copies); i++)
        assert_int_equal(file_copy(in("j", "0004-000012.seg"), in("j", copies[i])), 0);
    j = must_open("j", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    journal_close(j);
}

/* A segment both open and sealed, or an episode in two of them: neither is guessed. */
static void test_twice_there(void **state)
{
    struct journal *j;

    (void)state;
    write_one("j", RUN, "a");
    assert_int_equal(file_copy(in("j", "0004-000012.seg"), in("j", "0004-000012.open")), 0);
    assert_int_equal(journal_open(in("j", ""), RUN, JOURNAL_READ, &j, NULL, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "0004-000012 is there both sealed and open: move one away"));
    assert_int_equal(unlink(in("j", "0004-000012.open")), 0);
    j = must_open("other", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_segment(j, 4, 13, &error), 0);
    append(j, 1, "a");
    assert_int_equal(journal_seal(j, 4, 13, &error), 0);
    journal_close(j);
    assert_int_equal(file_copy(in("other", "0004-000013.seg"), in("j", "0004-000013.seg")), 0);
    assert_int_equal(journal_open(in("j", ""), RUN, JOURNAL_READ, &j, NULL, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "episode 1 is in segments"));
}

/* A file that another takes the place of under a reader: nothing of it is handed out, be it another trajectory or another
 * run's. */
static void test_replaced_under_a_reader(void **state)
{
    static const struct { uint64_t run; const char *meta; } others[] = {{RUN, "b"}, {RUN + 1, "a"}};
    uint8_t *meta;
    size_t n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        struct journal *j;

        write_one("j", RUN, "a");
        write_one("other", others[i].run, others[i].meta);
        j = must_open("j", RUN, JOURNAL_READ);
        assert_int_equal(journal_load(j, 1, &meta, &n, NULL, NULL, &error), 0);
        free(meta);
        assert_int_equal(rename(in("other", "0004-000012.seg"), in("j", "0004-000012.seg")), 0);
        assert_int_equal(journal_load(j, 1, &meta, &n, NULL, NULL, &error), -EBADMSG);
        assert_non_null(strstr(error.text, "episode 1 at offset"));
        journal_close(j);
        assert_int_equal(remove_tree(in("j", "")), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_left_is_durable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copies_beside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_twice_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replaced_under_a_reader, setup, teardown),
    };

    return cmocka_run_group_tests_name("journal_files", tests, NULL, NULL);
}
