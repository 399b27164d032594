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
#include "tests/harness/journal_lab.h"

/* What a seal finds unsynced is made durable first, or is as if it had never been written. */
static void test_a_seal_syncs_first(void **state)
{
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(fault_arm("journal.fsync=eio@1"), 0);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), -EIO);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(journal_find(j, 1, &entry), -ENOENT);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    journal_close(j);
}

/* Where something has the sealed segment's name, the segment stays open, and goes on. */
static void test_a_name_that_is_taken(void **state)
{
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(mkdir(journal_lab_in("", "0004-000012.seg"), 0755), 0);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), -EEXIST);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_true(entry.durable && !entry.sealed);
    assert_int_equal(rmdir(journal_lab_in("", "0004-000012.seg")), 0);
    journal_lab_append(j, 2, "b");
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    journal_close(j);
    j = journal_lab_open("", RUN, JOURNAL_READ);
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
    assert_int_equal(journal_append(j, episode, "b", 1, NULL, 0, digest, &journals.error), -EBADF);
    assert_int_equal(pwrite(replacement[1], rest, sizeof rest, lseek(replacement[1], 0, SEEK_END)), sizeof rest);
    assert_true(journal_append(j, episode, "b", 1, NULL, 0, digest, &journals.error) < 0);
}

/* A failed write that cannot be taken back leaves bytes behind the last good record: nothing may come behind them, neither a
 * record nor a footer, until they are cut off: when the disk is well again, or by the journal that is opened next. */
static void test_a_write_that_cannot_be_taken_back(void **state)
{
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    struct journal_entry entry;
    int fd, well[2];

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    fd = descriptor_of(journal_lab_in("", "0004-000012.open"));
    well[0] = open(journal_lab_in("", "0004-000012.open"), O_RDONLY | O_CLOEXEC);
    well[1] = dup(fd);
    assert_true(well[0] >= 0 && well[1] >= 0);
    fail_for_good(j, 2, fd, well);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_int_equal(dup2(well[1], fd), fd);            /* the disk is well again */
    journal_lab_append(j, 2, "b");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    assert_int_equal(lseek(well[1], 0, SEEK_END), journal_bytes(j));
    fail_for_good(j, 3, fd, well);
    assert_true(journal_seal(j, 4, 12, &journals.error) < 0);
    journal_close(j);
    close(well[0]);
    close(well[1]);

    j = journal_lab_open("", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 3, "c");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    fd = descriptor_of(journal_lab_in("", "0004-000012.open"));
    well[0] = open(journal_lab_in("", "0004-000012.open"), O_RDONLY | O_CLOEXEC);
    well[1] = dup(fd);
    fail_for_good(j, 4, fd, well);
    assert_int_equal(dup2(well[1], fd), fd);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    journal_close(j);
    close(well[0]);
    close(well[1]);
    j = journal_lab_open("", RUN, JOURNAL_READ);
    for (uint64_t episode = 1; episode <= 3; episode++)
        assert_int_equal(journal_find(j, episode, &entry), 0);
    journal_close(j);
}

/* What is taken back is taken back to the last good sync: no further, also in a segment of an earlier life, and with no hole left
 * behind it, or what comes next would be lost with the process. */
static void test_taken_back_to_the_last_sync(void **state)
{
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    struct journal_entry entry;
    uint8_t digest[SHA256_SIZE];

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_lab_append(j, 2, "b");
    assert_int_equal(fault_arm("journal.fsync=eio@1"), 0);
    assert_int_equal(journal_sync(j, &journals.error), -EIO);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(journal_find(j, 2, &entry), -ENOENT);
    journal_lab_append(j, 3, "c");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_close(j);

    j = journal_lab_open("", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 3, &entry), 0);
    assert_true(entry.durable);
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    assert_int_equal(fault_arm("journal.write=enospc@1"), 0);
    assert_int_equal(journal_append(j, 4, "d", 1, NULL, 0, digest, &journals.error), -ENOSPC);
    assert_int_equal(fault_arm(""), 0);
    journal_lab_append(j, 4, "d");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_close(j);
    j = journal_lab_open("", RUN, JOURNAL_READ);
    for (uint64_t episode = 1; episode <= 4; episode++)
        assert_int_equal(journal_find(j, episode, &entry), episode == 2 ? -ENOENT : 0);
    journal_close(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_seal_syncs_first, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_name_that_is_taken, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_write_that_cannot_be_taken_back, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_taken_back_to_the_last_sync, journal_lab_set_up, journal_lab_tear_down),
    };

    return cmocka_run_group_tests_name("journal_taken_back", tests, NULL, NULL);
}
