/* The journal's files among others: what lies beside them, what takes their place, and which of them a sync is for. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
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

/* A learner rank reads what rank 0 is writing: it finds what it saw open after it was sealed, too. */
static void test_sealed_under_a_reader(void **state)
{
    struct journal *writer = must_open("j", RUN, JOURNAL_WRITE), *reader;
    uint8_t *meta;
    size_t n;

    (void)state;
    assert_int_equal(journal_segment(writer, 4, 12, &error), 0);
    append(writer, 1, "a");
    assert_int_equal(journal_sync(writer, &error), 0);
    reader = must_open("j", RUN, JOURNAL_READ);
    assert_int_equal(journal_seal(writer, 4, 12, &error), 0);
    if (journal_load(reader, 1, &meta, &n, NULL, NULL, &error) < 0)
        fail_msg("%s", error.text);
    free(meta);
    journal_close(reader);
    journal_close(writer);
}

enum { SEALS = 40, KEPT = 4 };

static _Atomic uint64_t durable;

static void *seal_along(void *arg)
{
    struct journal *writer = arg;

    for (uint32_t i = 1; i <= SEALS; i++) {
        assert_int_equal(journal_segment(writer, 4, i, &error), 0);
        append(writer, i, "a");
        assert_int_equal(journal_sync(writer, &error), 0);
        durable = i;
        assert_int_equal(journal_seal(writer, 4, i, &error), 0);
        assert_int_equal(journal_retain(writer, 4, i > KEPT ? i - KEPT : 0), 0);
    }
    return NULL;
}

/* Whatever the writer renames and drops while the directory is read: an episode that was durable before is there, or was dropped. */
static void test_opened_beside_a_writer(void **state)
{
    struct journal *writer = must_open("j", RUN, JOURNAL_WRITE), *reader;
    struct error why = {0};
    pthread_t thread;

    (void)state;
    durable = 0;
    assert_int_equal(pthread_create(&thread, NULL, seal_along, writer), 0);
    while (durable < SEALS) {
        uint64_t episode = durable;
        struct journal_entry entry;

        if (journal_open(in("j", ""), RUN, JOURNAL_READ, &reader, NULL, &why) < 0)
            fail_msg("%s", why.text);
        if (episode && journal_find(reader, episode, &entry) < 0 && durable <= episode + KEPT)
            fail_msg("episode %llu is missing, %llu are durable", (unsigned long long)episode, (unsigned long long)durable);
        journal_close(reader);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    journal_close(writer);
}

/* What a seal finds unsynced is made durable first, or is as if it had never been written. */
static void test_a_seal_syncs_first(void **state)
{
    struct journal *j = must_open("j", RUN, JOURNAL_WRITE);
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
    struct journal *j = must_open("j", RUN, JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(mkdir(in("j", "0004-000012.seg"), 0755), 0);
    assert_int_equal(journal_seal(j, 4, 12, &error), -EEXIST);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_true(entry.durable && !entry.sealed);
    assert_int_equal(rmdir(in("j", "0004-000012.seg")), 0);
    append(j, 2, "b");
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
    j = must_open("j", RUN, JOURNAL_READ);
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

/* A failed write that cannot be taken back leaves bytes behind the last good record: nothing may come behind them, neither a
 * record nor a footer, until they are cut off: when the disk is well again, or by the journal that is opened next. */
static void test_a_write_that_cannot_be_taken_back(void **state)
{
    struct journal *j = must_open("j", RUN, JOURNAL_WRITE);
    struct journal_entry entry;
    uint8_t digest[SHA256_SIZE];
    int fd, writable, readable;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(journal_sync(j, &error), 0);
    fd = descriptor_of(in("j", "0004-000012.open"));
    writable = dup(fd);
    readable = open(in("j", "0004-000012.open"), O_RDONLY | O_CLOEXEC);
    assert_true(writable >= 0 && readable >= 0);
    assert_int_equal(dup2(readable, fd), fd);
    assert_int_equal(journal_append(j, 2, "b", 1, NULL, 0, digest, &error), -EBADF);
    assert_int_equal(pwrite(writable, "half a record", 13, lseek(writable, 0, SEEK_END)), 13);
    assert_true(journal_append(j, 2, "b", 1, NULL, 0, digest, &error) < 0);
    assert_true(journal_seal(j, 4, 12, &error) < 0);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_int_equal(dup2(writable, fd), fd);           /* the disk is well again */
    append(j, 2, "b");
    assert_int_equal(journal_sync(j, &error), 0);
    assert_int_equal(dup2(readable, fd), fd);
    assert_int_equal(journal_append(j, 3, "c", 1, NULL, 0, digest, &error), -EBADF);
    assert_int_equal(pwrite(writable, "half a record", 13, lseek(writable, 0, SEEK_END)), 13);
    journal_close(j);
    close(writable);
    close(readable);
    j = must_open("j", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 3, "c");
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
    j = must_open("j", RUN, JOURNAL_READ);
    for (uint64_t episode = 1; episode <= 3; episode++)
        assert_int_equal(journal_find(j, episode, &entry), 0);
    journal_close(j);
}

/* Its size is what lies in its files; a trajectory need not have frames; a path that does not fit is not cut short. */
static void test_sizes(void **state)
{
    struct journal *j = must_open("j", RUN, JOURNAL_WRITE);
    uint8_t digest[SHA256_SIZE], *meta, *frames;
    size_t n, n_frames = 1;
    char path[5000];
    struct stat st[2];

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    append(j, 1, "a");
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    assert_int_equal(journal_segment(j, 4, 13, &error), 0);
    assert_int_equal(journal_append(j, 2, "b", 1, NULL, 0, digest, &error), 0);
    assert_int_equal(stat(in("j", "0004-000012.seg"), &st[0]), 0);
    assert_int_equal(stat(in("j", "0004-000013.open"), &st[1]), 0);
    assert_int_equal(journal_bytes(j), st[0].st_size + st[1].st_size);
    assert_int_equal(journal_load(j, 2, &meta, &n, &frames, &n_frames, &error), 0);
    assert_int_equal(n, 1);
    assert_int_equal(n_frames, 0);
    free(meta);
    free(frames);
    journal_close(j);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(journal_open(path, RUN, JOURNAL_WRITE, &j, NULL, &error), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_seal_syncs_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_name_that_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_write_that_cannot_be_taken_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_left_is_durable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copies_beside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_twice_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replaced_under_a_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sealed_under_a_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_opened_beside_a_writer, setup, teardown),
    };

    return cmocka_run_group_tests_name("journal_files", tests, NULL, NULL);
}
