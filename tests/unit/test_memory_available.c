/* memory_available promises: the least that the machine, or any control group around us, has left. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "daemon/memory_available.h"
#include "tests/harness/scratch.h"

#define MIB 1048576.0

static char root[SCRATCH_PATH];

static void put(const char *name, const char *text)
{
    char path[SCRATCH_PATH + 128];
    FILE *file;

    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int machine(void **state)
{
    (void)state;
    scratch_new(root);
    put("/proc/meminfo", "MemTotal:       2048000 kB\nMemFree:          10240 kB\nMemAvailable:    1024000 kB\n");
    return 0;
}

static int leave(void **state)
{
    (void)state;
    return remove_tree(root);
}

static void has(double mib, bool limited)
{
    bool is_limited = !limited;

    assert_true(memory_available(root, &is_limited) == mib * MIB);
    assert_int_equal(is_limited, limited);
}

static void no_groups(void **state)
{
    (void)state;
    has(1000, false);
    put("/proc/self/cgroup", "0::/\n");
    has(1000, false);
    put("/proc/self/cgroup", "0::/user.slice\n");
    put("/sys/fs/cgroup/user.slice/memory.max", "max\n");
    put("/sys/fs/cgroup/user.slice/memory.current", "104857600\n");
    has(1000, false);
}

/* Files that are only cached count as free; the tightest group counts, be it a parent. */
static void version_2(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/job/step\n");
    put("/sys/fs/cgroup/job/step/memory.max", "524288000\n");
    put("/sys/fs/cgroup/job/step/memory.current", "209715200\n");
    put("/sys/fs/cgroup/job/step/memory.stat", "anon 104857600\ninactive_file 104857600\nactive_file 0\n");
    has(400, true);
    put("/sys/fs/cgroup/job/memory.max", "314572800\n");
    put("/sys/fs/cgroup/job/memory.current", "209715200\n");
    has(100, true);
    put("/sys/fs/cgroup/job/memory.max", "104857600\n");
    has(1 / MIB, true);                 /* nothing, which is not "unknown" */
    put("/sys/fs/cgroup/job/memory.max", "9000000000\n");
    put("/sys/fs/cgroup/job/step/memory.max", "9000000000\n");
    has(1000, false);
}

/* A container's own view: the path is the host's, the limit stands at the top. */
static void version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "209715200\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "52428800\n");
    has(150, true);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    has(1000, false);
}

static void kills(void **state)
{
    (void)state;
    assert_int_equal(memory_oom_kills(root), 0);
    put("/proc/vmstat", "pgmajfault 12\noom_kill_other 5\noom_kill 3\nnuma_pages 0\n");
    assert_int_equal(memory_oom_kills(root), 3);
    put("/proc/self/cgroup", "9:cpu:/job/step\n0::/job/step\n");
    assert_int_equal(memory_oom_kills(root), 3);        /* no group counts */
    put("/sys/fs/cgroup/job/memory.events", "oom 9\noom_kill 2\noom_group_kill 0\n");
    assert_int_equal(memory_oom_kills(root), 2);        /* ours has no controller of its own */
    put("/sys/fs/cgroup/job/step/memory.events", "oom 9\noom_kill 0\noom_group_kill 0\n");
    assert_int_equal(memory_oom_kills(root), 0);        /* those were others' */
    put("/proc/self/cgroup", "9:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n");
    put("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    assert_int_equal(memory_oom_kills(root), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_groups, machine, leave),
        cmocka_unit_test_setup_teardown(version_2, machine, leave),
        cmocka_unit_test_setup_teardown(version_1, machine, leave),
        cmocka_unit_test_setup_teardown(kills, machine, leave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
