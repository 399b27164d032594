/* rename_noreplace: nothing is replaced, neither where the file system can refuse that by itself nor where it cannot (NFS,
 * Gluster). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "tests/harness/scratch.h"

static char root[SCRATCH_PATH], dir[SCRATCH_PATH + 8];
static int flags_fail;          /* errno of a rename with flags; 0: as the file system has it */

/* The linker takes this one instead of libc's. */
int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    if (flags && flags_fail) {
        errno = flags_fail;
        return -1;
    }
    return (int)syscall(SYS_renameat2, a, from, b, to, flags);
}

static const char *in(const char *name, char *path)
{
    snprintf(path, 128, "%s/%s", dir, name);
    return path;
}

static void make_dir(const char *name, const char *file)
{
    char path[128], below[160];

    assert_int_equal(mkdir_p(in(name, path), 0755), 0);
    snprintf(below, sizeof below, "%s/%s", path, file);
    assert_int_equal(file_write(below, file, 1), 0);
}

static int move(const char *from, const char *to)
{
    char a[128], b[128];

    return rename_noreplace(in(from, a), in(to, b));
}

static int there(const char *name)
{
    char path[128];

    return access(in(name, path), F_OK) == 0;
}

static void test_nothing_is_replaced(void **state)
{
    static const int ways[] = {0, EINVAL, ENOSYS};
    char path[128];

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        flags_fail = ways[i];
        make_dir("first", "a");
        make_dir("second", "b");
        assert_int_equal(file_write(in("file", path), "x", 1), 0);
        assert_int_equal(file_write(in("other", path), "y", 1), 0);
        assert_int_equal(move("first", "version"), 0);
        assert_true(there("version/a") && !there("first"));
        assert_int_equal(move("second", "version"), -EEXIST);
        assert_true(there("second/b") && there("version/a") && !there("version/b"));
        assert_int_equal(move("second", "file"), -EEXIST);
        assert_int_equal(move("file", "version"), -EEXIST);
        assert_int_equal(move("file", "other"), -EEXIST);
        assert_true(there("file") && there("other"));
        assert_int_equal(move("file", "third"), 0);
        assert_true(there("third") && !there("file"));
        assert_int_equal(move("nowhere", "fourth"), -ENOENT);
        assert_int_equal(remove_tree(dir), 0);
    }
}

static int set_up(void **state)
{
    (void)state;
    scratch_new(root);
    snprintf(dir, sizeof dir, "%s/dir", root);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return remove_tree(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_is_replaced)};

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
