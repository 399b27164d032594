/* atomic_file_write and file_read: the new contents are on the disk before they take the name, the name before it is said that
 * they have, and whatever fails leaves what was there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "base/strbuf.h"
#include "tests/harness/scratch.h"

static char path[SCRATCH_PATH + 8];
static struct strbuf calls = STRBUF_INIT;
static int fsync_fails;         /* at this one of the next fsyncs */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;       /* of both: a directory is synced by several threads */

/* The linker takes these in place of libc's. */
int fsync(int fd)
{
    struct stat st;
    bool fails;

    pthread_mutex_lock(&lock);
    if (fstat(fd, &st) == 0)
        strbuf_addf(&calls, "%s ", S_ISDIR(st.st_mode) ? "fsync(dir)" : "fsync(file)");
    fails = fsync_fails && --fsync_fails == 0;
    pthread_mutex_unlock(&lock);
    if (fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    strbuf_addf(&calls, "rename ");
    return (int)syscall(SYS_rename, from, to);
}

static int setup(void **state)
{
    (void)scratch_set_up(state);
    snprintf(path, sizeof path, "%s/f", scratch_dir);
    strbuf_reset(&calls);
    fsync_fails = 0;
    return fault_arm("");
}

static int teardown(void **state)
{
    strbuf_release(&calls);
    (void)fault_arm("");
    return scratch_tear_down(state);
}

static void expect(const char *contents)
{
    char *text, temporary[SCRATCH_PATH + 32];
    size_t n;

    assert_int_equal(file_read(path, 100, &text, &n), 0);
    assert_int_equal(n, strlen(contents));
    assert_string_equal(text, contents);
    free(text);
    snprintf(temporary, sizeof temporary, "%s.tmp.%d", path, (int)getpid());
    assert_int_equal(access(temporary, F_OK), -1);
}

static void test_in_order(void **state)
{
    (void)state;
    assert_int_equal(atomic_file_write(path, "old", 3), 0);
    assert_string_equal(calls.text, "fsync(file) rename fsync(dir) ");
    assert_int_equal(atomic_file_write(path, "new one", 7), 0);
    expect("new one");
}

static void test_what_fails_leaves_what_was_there(void **state)
{
    static const struct { const char *fault; int errnum; } faults[] = {
        {"atomic_file.fsync=eio@1", EIO}, {"atomic_file.rename=eio@1", EIO}, {"atomic_file.rename=enospc@1", ENOSPC}};

    (void)state;
    assert_int_equal(atomic_file_write(path, "old", 3), 0);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        assert_int_equal(fault_arm(faults[i].fault), 0);
        assert_int_equal(atomic_file_write(path, "new", 3), -faults[i].errnum);
        assert_int_equal(fault_arm(""), 0);
        expect("old");
    }
    fsync_fails = 1;
    assert_int_equal(atomic_file_write(path, "new", 3), -EIO);
    expect("old");
    fsync_fails = 2;                    /* the directory's: it is there, and nobody may rely on it */
    assert_int_equal(atomic_file_write(path, "new", 3), -EIO);
    expect("new");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_true(atomic_file_write(path, "new", 3) < 0);
    assert_int_equal(rmdir(path), 0);
    snprintf(path, sizeof path, "%s/g/f", scratch_dir);
    assert_int_equal(atomic_file_write(path, "new", 3), -ENOENT);
}

/* A name that was given, or taken by somebody else before, is durable when it is said. */
static void test_a_name_that_is_given(void **state)
{
    char to[SCRATCH_PATH + 8];

    (void)state;
    snprintf(to, sizeof to, "%s/g", scratch_dir);
    for (int taken = 0; taken <= 1; taken++) {
        assert_int_equal(atomic_file_write(path, "new", 3), 0);
        strbuf_reset(&calls);
        assert_int_equal(rename_noreplace(path, to), taken ? -EEXIST : 0);
        assert_string_equal(calls.text, "fsync(dir) ");
    }
    assert_int_equal(unlink(to), 0);
    fsync_fails = 1;
    assert_int_equal(rename_noreplace(path, to), -EIO);
}

static void test_reading(void **state)
{
    char *text = NULL;
    size_t n = 9;

    (void)state;
    assert_int_equal(file_read(path, 100, &text, &n), -ENOENT);
    assert_int_equal(file_read(scratch_dir, 100, &text, &n), -EISDIR);
    assert_int_equal(atomic_file_write(path, "a\0b", 3), 0);
    assert_int_equal(file_read(path, 2, &text, &n), -EFBIG);
    assert_true(!text && n == 9);
    assert_int_equal(file_read(path, 3, &text, &n), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(text, "a\0b", 4);       /* and a zero behind it */
    free(text);
    assert_int_equal(atomic_file_write(path, "", 0), 0);
    assert_int_equal(file_read(path, 0, &text, &n), 0);
    assert_true(n == 0 && text[0] == '\0');
    free(text);
}

/* A pipe says that its size is 0, and more may come than was asked for at once. */
static void test_reading_a_pipe(void **state)
{
    enum { MANY = 5000 };
    char sent[MANY], name[32], *text = NULL;
    size_t n = 0;

    (void)state;
    memset(sent, 'x', sizeof sent);
    for (int limit = MANY - 1; limit <= MANY; limit++) {
        int ends[2];

        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], sent, sizeof sent), (int)sizeof sent);
        close(ends[1]);
        snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
        assert_int_equal(file_read(name, (size_t)limit, &text, &n), limit < MANY ? -EFBIG : 0);
        close(ends[0]);
    }
    assert_int_equal(n, MANY);
    assert_memory_equal(text, sent, MANY);
    assert_int_equal(text[MANY], '\0');
    free(text);
}

static size_t times(const char *word)
{
    size_t n = 0;

    for (const char *at = calls.text; (at = strstr(at, word)); at += strlen(word))
        n++;
    return n;
}

/* With all the files that are in it, none left out, and with their names; that one of them failed is said. */
static void test_a_directory(void **state)
{
    enum { FILES = 40 };
    char file[SCRATCH_PATH + 16];

    (void)state;
    for (int i = 0; i < FILES; i++) {
        snprintf(file, sizeof file, "%s/f%d", scratch_dir, i);
        assert_int_equal(file_write(file, "x", 1), 0);
    }
    assert_int_equal(mkdir(path, 0755), 0);
    strbuf_reset(&calls);
    assert_int_equal(directory_sync(scratch_dir), 0);
    assert_int_equal(times("fsync(file)"), FILES);
    assert_int_equal(times("fsync(dir)"), 1);
    for (int nth = 1; nth <= FILES + 1; nth += FILES / 2) {
        fsync_fails = nth;
        assert_int_equal(directory_sync(scratch_dir), -EIO);
    }
    assert_int_equal(fault_arm("atomic_file.fsync=enospc@1"), 0);
    assert_int_equal(directory_sync(scratch_dir), -ENOSPC);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(directory_sync(path), -ENOENT);
}

/* `-o /dev/stdout`, a pipe: no file takes its place. */
static void test_a_pipe_stays_a_pipe(void **state)
{
    struct stat st;
    char got[8] = "";
    int fd;

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(atomic_file_write(path, "page", 4), 0);
    assert_int_equal(read(fd, got, sizeof got), 4);
    assert_string_equal(got, "page");
    assert_true(stat(path, &st) == 0 && S_ISFIFO(st.st_mode));
    assert_string_equal(calls.text, "");
    assert_int_equal(atomic_file_write("/dev/full", "page", 4), -ENOSPC);
    assert_true(stat("/dev/full", &st) == 0 && S_ISCHR(st.st_mode));
    close(fd);
}

/* ---- links, where a person names the file --------------------------------------------------------------------------------- */

static void expect_link(const char *name, const char *to)
{
    char got[SCRATCH_PATH + 32] = "";

    assert_true(readlink(scratch_at(name), got, sizeof got - 1) > 0);
    assert_string_equal(got, to);
}

static void expect_entries(int wanted)
{
    DIR *directory = opendir(scratch_dir);
    int n = -2;                         /* . and .. */

    assert_non_null(directory);
    while (readdir(directory))
        n++;
    closedir(directory);
    assert_int_equal(n, wanted);
}

/* What a link leads to is replaced, as a whole; it may lie elsewhere, be led to by several, or not be there yet. */
static void test_a_link_is_followed(void **state)
{
    struct stat before, after;

    (void)state;
    assert_int_equal(mkdir(scratch_at("site"), 0755), 0);
    snprintf(path, sizeof path, "%s/site/f", scratch_dir);
    assert_int_equal(symlink("site/f", scratch_at("link")), 0);
    assert_int_equal(symlink(scratch_at("link"), scratch_at("chain")), 0);
    assert_int_equal(atomic_file_write_through(scratch_at("chain"), "first", 5), 0);       /* which dangles */
    expect("first");
    strbuf_reset(&calls);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(atomic_file_write_through(scratch_at("link"), "second", 6), 0);
    expect("second");
    assert_true(stat(path, &after) == 0 && after.st_ino != before.st_ino);       /* renamed into place, not written over */
    assert_string_equal(calls.text, "fsync(file) rename fsync(dir) ");
    expect_link("link", "site/f");
    expect_link("chain", scratch_at("link"));
    expect_entries(3);

    assert_int_equal(atomic_file_write(scratch_at("link"), "ours", 4), 0);      /* a name of our own is not somebody else's file */
    expect("second");
    assert_true(lstat(scratch_at("link"), &after) == 0 && S_ISREG(after.st_mode));
    assert_int_equal(atomic_file_write_through(scratch_at("link"), "no link", 7), 0);
    assert_int_equal(atomic_file_write_through(scratch_at("new"), "no file", 7), 0);
    assert_true(stat(scratch_at("new"), &after) == 0 && after.st_size == 7);
}

static void test_a_link_that_cannot_be_followed(void **state)
{
    (void)state;
    assert_int_equal(symlink("b", scratch_at("a")), 0);
    assert_int_equal(symlink("a", scratch_at("b")), 0);
    assert_int_equal(atomic_file_write_through(scratch_at("a"), "new", 3), -ELOOP);
    assert_int_equal(symlink("nowhere/f", scratch_at("far")), 0);
    assert_int_equal(atomic_file_write_through(scratch_at("far"), "new", 3), -ENOENT);
    assert_int_equal(mkdir(scratch_at("site"), 0755), 0);
    assert_int_equal(symlink("site", scratch_at("folder")), 0);
    assert_true(atomic_file_write_through(scratch_at("folder"), "new", 3) < 0);
    expect_link("a", "b");
    expect_link("far", "nowhere/f");
    expect_link("folder", "site");
    expect_entries(5);
}

/* What would fail when it is written is known before, and nothing is left of the question. */
static void test_asked_before(void **state)
{
    static const struct { const char *name; int result; } cases[] = {
        {"new", 0}, {"there", 0}, {"link", 0}, {"dangling", 0}, {"site", -EISDIR}, {"folder", -EISDIR}, {"nowhere/f", -ENOENT},
        {"far", -ENOENT}, {"loop", -ELOOP},
    };

    (void)state;
    assert_int_equal(file_write(scratch_at("there"), "old", 3), 0);
    assert_int_equal(mkdir(scratch_at("site"), 0755), 0);
    assert_int_equal(symlink("there", scratch_at("link")), 0);
    assert_int_equal(symlink("site/f", scratch_at("dangling")), 0);
    assert_int_equal(symlink("site", scratch_at("folder")), 0);
    assert_int_equal(symlink("nowhere/f", scratch_at("far")), 0);
    assert_int_equal(symlink("loop", scratch_at("loop")), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int r = atomic_file_may_write_through(scratch_at(cases[i].name));

        if (r != cases[i].result)
            fail_msg("%s: %d, expected %d", cases[i].name, r, cases[i].result);
    }
    assert_int_equal(atomic_file_may_write_through("/dev/full"), 0);
    assert_int_equal(atomic_file_may_write_through(""), -ENOENT);
    expect_entries(7);
    assert_int_equal(access(scratch_at("site/f"), F_OK), -1);
}

/* The old file is there still, and where there was none, there is none. */
static void test_what_fails_behind_a_link(void **state)
{
    (void)state;
    assert_int_equal(symlink("f", scratch_at("link")), 0);
    for (int there = 0; there <= 1; there++) {
        assert_int_equal(fault_arm("atomic_file.rename=enospc@1"), 0);
        assert_int_equal(atomic_file_write_through(scratch_at("link"), "new", 3), -ENOSPC);
        assert_int_equal(fault_arm(""), 0);
        expect_link("link", "f");
        expect_entries(1 + there);
        if (there)
            expect("old");
        assert_int_equal(atomic_file_write(path, "old", 3), 0);
    }
}

/* /dev/stdout is a link to a link to what the shell opened: a file that is replaced, or one that has no name any more. */
static void test_an_open_file(void **state)
{
    char link[32], got[8] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    (void)state;
    assert_true(fd >= 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    assert_int_equal(symlink(link, scratch_at("stdout")), 0);
    assert_int_equal(atomic_file_write_through(scratch_at("stdout"), "page", 4), 0);
    expect("page");
    expect_link("stdout", link);

    assert_int_equal(read(fd, got, sizeof got), 0);     /* the one before, which the rename has taken the name of */
    assert_int_equal(atomic_file_write_through(scratch_at("stdout"), "again", 5), 0);
    assert_int_equal(read(fd, got, sizeof got), 5);
    assert_string_equal(got, "again");
    expect("page");
    expect_entries(2);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_pipe_stays_a_pipe), TEST(test_in_order), TEST(test_what_fails_leaves_what_was_there),
        TEST(test_a_name_that_is_given), TEST(test_reading), TEST(test_reading_a_pipe), TEST(test_a_directory), TEST(test_a_link_is_followed),
        TEST(test_a_link_that_cannot_be_followed),
        TEST(test_asked_before), TEST(test_what_fails_behind_a_link),
        TEST(test_an_open_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
