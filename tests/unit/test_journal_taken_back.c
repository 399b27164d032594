/* Writes that fail: what is taken back, and what may not come behind what cannot be. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
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

static const char *in(const char *name)
{
    static char path[4][SCRATCH_PATH + 48];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[0], "%s/%s", dir, name);
    return path[turn];
}

static struct journal *must_open(enum journal_mode mode)
{
    struct journal *j;

    if (journal_open(dir, RUN, mode, &j, NULL, &error) < 0)
        fail_msg("%s", error.text);
    return j;
}

static void append(struct journal *j, uint64_t episode, const char *meta)
{
    uint8_t digest[SHA256_SIZE];

    if (journal_append(j, episode, meta, strlen(meta), "frames", 6, digest, &error) < 0)
        fail_msg("%s", error.text);
}

/* What a seal finds unsynced is made durable first, or is as if it had never been written. */
static void test_a_seal_syncs_first(void **state)
{
    struct journal *j = must_open(JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(fault_arm("journal.fsync=eio@1"), 0);
    assert_int_equal(journal_seal(j, 4, 12, &error), -EIO);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(journal_find(j, 1, &entry), -ENOENT);
    append(j, 1, "a");
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
}

/* Where something has the sealed segment's name, the segment stays open, and goes on. */
static void test_a_name_that_is_taken(void **state)
{
    struct journal *j = must_open(JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(mkdir(in("0004-000012.seg"), 0755), 0);
    assert_int_equal(journal_seal(j, 4, 12, &error), -EEXIST);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_true(entry.durable && !entry.sealed);
    assert_int_equal(rmdir(in("0004-000012.seg")), 0);
    append(j, 2, "b");
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
    j = must_open(JOURNAL_READ);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    journal_close(j);
}

/* This process's descriptor of the file. */
static int descriptor_of(const char *path)
{
    struct stat file, open_one;

    assert_int_equal(stat(path, &file), 0);
    for (int fd = 3; fd < 64; fd++)
        if (fstat(fd, &open_one) == 0 && open_one.st_dev == file.st_dev && open_one.st_ino == file.st_ino)
            return fd;
    fail_msg("%s is not open", path);
    return -1;
}

/* A descriptor that reads, in place of the journal's: its next write fails, and cannot be taken back. What others wrote lies
 * there then: more than any record or footer covers. */
static void fail_for_good(struct journal *j, uint64_t episode, int fd, const int replacement[2])
{
    static const char rest[4096] = "half a record";
    uint8_t digest[SHA256_SIZE];

    assert_int_equal(dup2(replacement[0], fd), fd);
    assert_int_equal(journal_append(j, episode, "b", 1, NULL, 0, digest, &error), -EBADF);
    assert_int_equal(pwrite(replacement[1], rest, sizeof rest, lseek(replacement[1], 0, SEEK_END)), sizeof rest);
    assert_true(journal_append(j, episode, "b", 1, NULL, 0, digest, &error) < 0);
}

/* A failed write that cannot be taken back leaves bytes behind the last good record: nothing may come behind them, neither a
 * record nor a footer, until they are cut off: when the disk is well again, or by the journal that is opened next. */
static void test_a_write_that_cannot_be_taken_back(void **state)
{
    struct journal *j = must_open(JOURNAL_WRITE);
    struct journal_entry entry;
    int fd, well[2];

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(journal_sync(j, &error), 0);
    fd = descriptor_of(in("0004-000012.open"));
    well[0] = open(in("0004-000012.open"), O_RDONLY | O_CLOEXEC);
    well[1] = dup(fd);
    assert_true(well[0] >= 0 && well[1] >= 0);
    fail_for_good(j, 2, fd, well);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_int_equal(dup2(well[1], fd), fd);            /* the disk is well again */
    append(j, 2, "b");
    assert_int_equal(journal_sync(j, &error), 0);
    assert_int_equal(lseek(well[1], 0, SEEK_END), journal_bytes(j));
    fail_for_good(j, 3, fd, well);
    assert_true(journal_seal(j, 4, 12, &error) < 0);
    journal_close(j);
    close(well[0]);
    close(well[1]);

    j = must_open(JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 3, "c");
    assert_int_equal(journal_sync(j, &error), 0);
    fd = descriptor_of(in("0004-000012.open"));
    well[0] = open(in("0004-000012.open"), O_RDONLY | O_CLOEXEC);
    well[1] = dup(fd);
    fail_for_good(j, 4, fd, well);
    assert_int_equal(dup2(well[1], fd), fd);
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
    close(well[0]);
    close(well[1]);
    j = must_open(JOURNAL_READ);
    for (uint64_t episode = 1; episode <= 3; episode++)
        assert_int_equal(journal_find(j, episode, &entry), 0);
    journal_close(j);
}

/* What is taken back is taken back to the last good sync: no further, also in a segment of an earlier life, and with no hole left
 * behind it, or what comes next would be lost with the process. */
static void test_taken_back_to_the_last_sync(void **state)
{
    struct journal *j = must_open(JOURNAL_WRITE);
    struct journal_entry entry;
    uint8_t digest[SHA256_SIZE];

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(journal_sync(j, &error), 0);
    append(j, 2, "b");
    assert_int_equal(fault_arm("journal.fsync=eio@1"), 0);
    assert_int_equal(journal_sync(j, &error), -EIO);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(journal_find(j, 2, &entry), -ENOENT);
    append(j, 3, "c");
    assert_int_equal(journal_sync(j, &error), 0);
    journal_close(j);

    j = must_open(JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 3, &entry), 0);
    assert_true(entry.durable);
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    assert_int_equal(fault_arm("journal.write=enospc@1"), 0);
    assert_int_equal(journal_append(j, 4, "d", 1, NULL, 0, digest, &error), -ENOSPC);
    assert_int_equal(fault_arm(""), 0);
    append(j, 4, "d");
    assert_int_equal(journal_sync(j, &error), 0);
    journal_close(j);
    j = must_open(JOURNAL_READ);
    for (uint64_t episode = 1; episode <= 4; episode++)
        assert_int_equal(journal_find(j, episode, &entry), episode == 2 ? -ENOENT : 0);
    journal_close(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_seal_syncs_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_name_that_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_write_that_cannot_be_taken_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_taken_back_to_the_last_sync, setup, teardown),
    };

    return cmocka_run_group_tests_name("journal_taken_back", tests, NULL, NULL);
}
