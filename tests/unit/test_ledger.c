/* The ledger: transactions are all or nothing under any crash, episodes end once, what is loaded is what was written. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "run/ledger.h"
#include "run/ledger_place.h"
#include "tests/harness/ledger_lab.h"

static void expect_place(uint32_t f_type, const char *type, enum ledger_place place, const char *name)
{
    const char *found;

    assert_int_equal(ledger_place(f_type, type, &found), place);
    assert_string_equal(found, name);
}

static void test_where_a_ledger_may_lie(void **state)
{
    enum { EXT4 = 0xEF53, TMPFS = 0x01021994, FUSE = 0x65735546 };
    char name[LEDGER_PLACE_NAME], below[sizeof ledger_lab.dir + 64];
    enum ledger_place place = LEDGER_REFUSED;
    struct error error;

    (void)state;
    expect_place(EXT4, "ext4", LEDGER_LOCAL, "ext4");
    expect_place(TMPFS, "tmpfs", LEDGER_LOCAL, "tmpfs");
    expect_place(0x6969, "nfs4", LEDGER_SHARED, "NFS");
    expect_place(0x0BD00BD0, "lustre", LEDGER_SHARED, "Lustre");
    expect_place(0x47504653, "gpfs", LEDGER_SHARED, "GPFS");
    expect_place(0xFF534D42, "cifs", LEDGER_SHARED, "CIFS");
    expect_place(0x00C36400, "ceph", LEDGER_SHARED, "CephFS");
    expect_place(0x5346414F, "afs", LEDGER_REFUSED, "AFS");
    expect_place(FUSE, "virtiofs", LEDGER_SHARED, "virtiofs");
    expect_place(FUSE, "fuse.fuse-overlayfs", LEDGER_LOCAL, "fuse.fuse-overlayfs");
    expect_place(FUSE, "fuse.sshfs", LEDGER_REFUSED, "fuse.sshfs");
    expect_place(FUSE, "fuse.never-heard-of", LEDGER_REFUSED, "fuse.never-heard-of");

    snprintf(below, sizeof below, "%s/not/there/yet", ledger_lab.dir);
    assert_int_equal(ledger_place_of(below, &place, name), 0);
    assert_int_equal(place, LEDGER_LOCAL);
    assert_string_not_equal(name, "unknown");
    assert_int_equal(ledger_place_of("/proc/self/status", &place, name), 0);
    assert_string_equal(name, "proc");
    assert_int_equal(ledger_place_check(below, &place, &error), 0);
}

/* One of everything. */
static const struct ledger_stage one_stage = {
    .stage = 4, .name = "rl", .kind = "rl", .state = PROGRESS_OPEN, .start_ms = 5, .wall_s = 2.5, .policy_in = 1};
static const struct ledger_iteration one_iteration = {
    .stage = 4, .iteration = 2, .name = "rl/2", .purpose = 3, .policy_version = 12, .prm_version = 3, .state = PROGRESS_PLANNED,
    .first_episode = 1, .last_episode = 2, .plan_digest = {1, 2, 3}};
static char metrics[] = "{\"loss\":0.5}";
static const struct ledger_version one_version = {
    .kind = KIND_PRM, .number = 3, .parent = 2, .stage = 3, .digest = {7}, .dir = "prms/v000003", .gate_passed = true,
    .gate_text = "mid .70", .metrics = metrics, .committed_ms = 9};

static void write_one_of_everything(struct ledger *ledger)
{
    struct ledger_episode e = ledger_lab_played(2);

    ledger_lab_add_rows(ledger, 1, 2);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_put_stage(ledger, &one_stage), 0);
    assert_int_equal(ledger_put_iteration(ledger, &one_iteration), 0);
    assert_int_equal(ledger_add_version(ledger, &one_version), 0);
    assert_int_equal(ledger_put_blob(ledger, "memory", "a\0b", 3), 0);
    assert_int_equal(ledger_put_group_epoch(ledger, 6), 0);
    assert_int_equal(ledger_add_scalar(ledger, 4, 2, "success", 0.25), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &e), 0);
    assert_int_equal(ledger_episode_ended(ledger, 2, EPISODE_TRAINED, NULL), 0);
    assert_int_equal(ledger_commit(ledger), 0);
}

/* As written above, by a ledger that was opened to write `epoch` times. */
static void expect_one_of_everything(struct ledger *ledger, uint64_t epoch)
{
    struct ledger_episode e = ledger_lab_played(2);
    struct ledger_stage *stages;
    struct ledger_iteration *iterations;
    struct ledger_episode *episodes;
    struct ledger_version *versions, version;
    struct ledger_scalar *scalars;
    struct ledger_event *events;
    void *blob;
    size_t n;

    assert_int_equal(ledger_run(ledger)->epoch, epoch);
    assert_int_equal(ledger_run(ledger)->group_epoch, 6);
    assert_int_equal(ledger_run(ledger)->id, 0x1234);
    assert_int_equal(ledger_stages(ledger, &stages, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(stages, &one_stage, sizeof one_stage);
    assert_int_equal(ledger_iterations(ledger, &iterations, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(iterations, &one_iteration, sizeof one_iteration);
    assert_int_equal(ledger_episodes(ledger, 4, 2, &episodes, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(episodes[0].state, EPISODE_OPEN);
    assert_true(episodes[0].state_seed == UINT64_MAX - 1);
    e.state = EPISODE_TRAINED;
    assert_memory_equal(&episodes[1], &e, sizeof e);
    assert_int_equal(ledger_versions(ledger, &versions, &n), 0);
    assert_int_equal(n, 1);
    assert_string_equal(versions[0].metrics, metrics);
    version = versions[0];
    version.metrics = metrics;
    assert_memory_equal(&version, &one_version, sizeof version);
    ledger_versions_free(versions, n);
    assert_int_equal(ledger_get_blob(ledger, "memory", &blob, &n), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(blob, "a\0b", 3);
    assert_int_equal(ledger_scalars(ledger, "success", &scalars, &n), 0);
    assert_int_equal(n, 1);
    assert_true(scalars[0].stage == 4 && scalars[0].iteration == 2 && scalars[0].value == 0.25 && scalars[0].wall_ms > 0);
    free(scalars);
    assert_int_equal(ledger_scalars(ledger, "absent", &scalars, &n), 0);
    assert_int_equal(n, 0);
    free(scalars);
    assert_int_equal(ledger_scalars(ledger, NULL, &scalars, &n), 0);
    assert_int_equal(n, 1);
    assert_string_equal(scalars[0].name, "success");
    assert_int_equal(ledger_events(ledger, 0, 100, &events, &n), 0);
    assert_int_equal(n, 8 + epoch);     /* starts, two rows, stage, iteration, version, group, journaled, ended */
    free(events); free(scalars); free(blob); free(episodes); free(iterations); free(stages);
}

static void test_what_is_written_is_read(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    void *blob;
    size_t n;

    (void)state;
    write_one_of_everything(ledger);
    ledger_close(ledger);
    ledger = ledger_lab_open();
    expect_one_of_everything(ledger, 2);
    assert_int_equal(ledger_get_blob(ledger, "absent", &blob, &n), -ENOENT);
    ledger_close(ledger);
}

/* tests/golden/run/ledger_layout_N.sqlite: one of everything, as builds that shipped wrote it; 1 is from before rows had sums.
 * Runs in the field look like this: tables, and how a row's sum is computed, stay as they are. */
static void expect_old_ledger(const char *golden)
{
    _cleanup_free_ char *bytes = NULL;
    struct ledger *ledger;
    struct error error;
    size_t size;

    assert_int_equal(file_read(golden, 1 << 20, &bytes, &size), 0);
    assert_int_equal(atomic_file_write(ledger_lab.path, bytes, size), 0);
    if (ledger_open_readonly(ledger_lab.path, &ledger, &error) < 0)
        fail_msg("%s", error.text);
    expect_one_of_everything(ledger, 1);
    ledger = ledger_close(ledger);
    ledger = ledger_lab_open();
    expect_one_of_everything(ledger, 2);
    ledger = ledger_close(ledger);
    ledger = ledger_lab_open();                 /* every row has its sum, or this would be refused */
    expect_one_of_everything(ledger, 3);
    ledger_close(ledger);
}

static void test_a_ledger_of_layout_1(void **state)
{
    (void)state;
    expect_old_ledger("tests/golden/run/ledger_layout_1.sqlite");
}

static void test_a_ledger_of_layout_2(void **state)
{
    (void)state;
    expect_old_ledger("tests/golden/run/ledger_layout_2.sqlite");
}

/* Made, but nothing was written before the end: a reader says so, a coordinator begins. */
static void test_an_empty_file(void **state)
{
    struct ledger *ledger;
    struct error error;

    (void)state;
    assert_int_equal(ledger_open_readonly(ledger_lab.path, &ledger, &error), -ENOENT);
    assert_int_equal(access(ledger_lab.path, F_OK), -1);
    assert_int_equal(atomic_file_write(ledger_lab.path, "", 0), 0);
    assert_int_equal(ledger_open_readonly(ledger_lab.path, &ledger, &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "its run never started"));
    ledger = ledger_lab_open();
    assert_int_equal(ledger_run(ledger)->epoch, 1);
    ledger_close(ledger);
}

static void test_an_episode_ends_once(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    struct ledger_episode e = ledger_lab_played(1), other = ledger_lab_played(1);

    (void)state;
    other.digest[0]++;
    ledger_lab_add_rows(ledger, 1, 1);
    assert_int_equal(ledger_add_event(ledger, "swap", 0, "asked"), -EINVAL);                /* no transaction */
    assert_int_equal(ledger_put_stage(ledger, &one_stage), -EINVAL);
    assert_int_equal(ledger_commit(ledger), -EINVAL);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_episode_ended(ledger, 1, EPISODE_TRAINED, NULL), -EINVAL);     /* nothing durable */
    assert_int_equal(ledger_episode_journaled(ledger, &e), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &e), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &other), -EEXIST);
    assert_int_equal(ledger_episode_ended(ledger, 1, EPISODE_OPEN, NULL), -EINVAL);
    assert_int_equal(ledger_episode_ended(ledger, 1, EPISODE_TRAINED, NULL), 0);
    assert_int_equal(ledger_episode_ended(ledger, 1, EPISODE_TRAINED, NULL), 0);
    assert_int_equal(ledger_episode_ended(ledger, 1, EPISODE_STALE, NULL), -EALREADY);
    assert_int_equal(ledger_episode_reopened(ledger, 1, "x"), -EALREADY);
    assert_int_equal(ledger_episode_ended(ledger, 99, EPISODE_FAILED, NULL), -ENOENT);
    e = ledger_lab_row(1);
    assert_int_equal(ledger_add_episode(ledger, &e), -EEXIST);
    e = ledger_lab_row(0);
    assert_int_equal(ledger_add_episode(ledger, &e), -EINVAL);
    ledger_rollback(ledger);
    ledger_close(ledger);
}

/* What was lost with a disk is an open row again, with nothing of the trajectory that is gone. */
static void test_a_lost_episode_is_open_again(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    struct ledger_episode e = ledger_lab_played(1), *opened, *episodes;
    size_t n;

    (void)state;
    ledger_lab_add_rows(ledger, 1, 1);
    assert_int_equal(ledger_episodes(ledger, LEDGER_ALL, 0, &opened, &n), 0);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_episode_reopened(ledger, 1, "x"), 0);       /* it is open */
    assert_int_equal(ledger_episode_journaled(ledger, &e), 0);
    assert_int_equal(ledger_episode_reopened(ledger, 1, "its disk is gone"), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    assert_int_equal(ledger_episodes(ledger, LEDGER_ALL, 0, &episodes, &n), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(episodes, opened, sizeof *opened);
    free(opened);
    free(episodes);
    e.digest[0]++;                      /* played again, it is another */
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &e), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
}

static void test_a_version_is_added_once(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    struct ledger_version v = {.kind = KIND_POLICY, .number = 1, .digest = {1}, .dir = "policies/v000001"};

    (void)state;
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_version(ledger, &v), 0);
    assert_int_equal(ledger_add_version(ledger, &v), 0);
    v.digest[0] = 2;
    assert_int_equal(ledger_add_version(ledger, &v), -EEXIST);
    v.kind = KIND_PRM;
    assert_int_equal(ledger_add_version(ledger, &v), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
}

static void test_one_holder_one_configuration(void **state)
{
    struct ledger *ledger = ledger_lab_open(), *second = NULL;
    struct ledger_run other = ledger_lab.run;
    struct error error;

    (void)state;
    assert_int_equal(ledger_open_readonly(ledger_lab.path, &second, &error), -EBUSY);
    assert_non_null(strstr(error.text, "held by another process"));
    ledger_close(ledger);
    other.config_digest[0] = 1;
    assert_int_equal(ledger_open(ledger_lab.path, &other, &second, &error), -ESTALE);
    assert_non_null(strstr(error.text, ledger_lab.path));
    assert_int_equal(ledger_open_readonly(ledger_lab.path, &second, &error), 0);
    assert_int_equal(ledger_run(second)->epoch, 1);     /* the refused start raised nothing */
    assert_int_equal(ledger_begin(second), -EINVAL);
    ledger_close(second);
}

/* Rows in eights and a change of every kind: a transaction that must be wholly there or not at all. */
static int work(struct ledger *ledger, uint64_t first)
{
    struct ledger_episode played = ledger_lab_played(first);
    struct ledger_version version = one_version;
    int r = ledger_begin(ledger);

    version.number = first;
    for (uint64_t i = 0; r == 0 && i < 8; i++) {
        struct ledger_episode e = ledger_lab_row(first + i);

        r = ledger_add_episode(ledger, &e);
    }
    if (r == 0)
        r = ledger_put_stage(ledger, &one_stage);
    if (r == 0)
        r = ledger_put_iteration(ledger, &one_iteration);
    if (r == 0)
        r = ledger_add_version(ledger, &version);
    if (r == 0)
        r = ledger_episode_journaled(ledger, &played);
    if (r == 0)
        r = ledger_episode_reopened(ledger, first, "its disk is gone");
    if (r == 0)
        r = ledger_episode_failure(ledger, first, 1, true, "killed");
    if (r == 0)
        r = ledger_episode_ended(ledger, first, EPISODE_FAILED, "killed twice");
    if (r == 0)
        r = ledger_put_group_epoch(ledger, first);
    if (r == 0)
        r = ledger_add_scalar(ledger, 4, 2, "success", 0.25);
    if (r == 0)
        r = ledger_add_event(ledger, "swap", first, "asked");
    if (r == 0)
        r = ledger_put_blob(ledger, "memory", &first, sizeof first);
    if (r == 0)
        r = ledger_commit(ledger);
    return r;
}

/* All or nothing: rows come in eights with one version, and blob and group epoch name the last eight. */
static size_t assert_whole(struct ledger *ledger)
{
    struct ledger_episode *rows;
    struct ledger_version *versions;
    uint64_t *memory = NULL;
    size_t n, n_versions, size;
    int r;

    assert_int_equal(ledger_episodes(ledger, LEDGER_ALL, 0, &rows, &n), 0);
    assert_int_equal(n % 8, 0);
    r = ledger_get_blob(ledger, "memory", (void **)&memory, &size);
    assert_int_equal(r, n ? 0 : -ENOENT);
    if (n)
        assert_int_equal(*memory, n - 7);
    assert_int_equal(ledger_run(ledger)->group_epoch, n ? n - 7 : 0);
    assert_int_equal(ledger_versions(ledger, &versions, &n_versions), 0);
    assert_int_equal(n_versions, n / 8);
    ledger_versions_free(versions, n_versions);
    free(memory);
    free(rows);
    return n;
}

static void test_every_failing_write_leaves_all_or_nothing(void **state)
{
    static const char *const points[] = {"ledger.begin", "ledger.write", "ledger.commit"};

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(points); p++)
        for (int nth = 1; ; nth++) {
            struct ledger *ledger = ledger_lab_open();
            char fault[64];
            size_t before = assert_whole(ledger);
            int r;

            snprintf(fault, sizeof fault, "%s=eio@%d", points[p], nth);
            assert_int_equal(fault_arm(fault), 0);
            r = work(ledger, before + 1);
            assert_int_equal(fault_arm(""), 0);
            if (r < 0) {
                ledger_rollback(ledger);
                assert_int_equal(assert_whole(ledger), before);
                assert_int_equal(work(ledger, before + 1), 0);      /* the handle works on */
            }
            assert_int_equal(assert_whole(ledger), before + 8);
            ledger_close(ledger);
            if (r == 0) {
                assert_true(nth > (p == 1 ? 19 : 1));   /* the fault was there to be met, at every change */
                break;
            }
            assert_true(nth < 50);
        }
}

/* The commit itself is refused, as by a full disk: nothing of it is there, and the handle works on. */
static void test_a_commit_that_the_disk_refuses(void **state)
{
    struct ledger *ledger = ledger_lab_open();
    struct rlimit before, full;
    int r;

    (void)state;
    assert_int_equal(work(ledger, 1), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    full = (struct rlimit) {.rlim_cur = 4096, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    r = work(ledger, 9);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(r, -EFBIG);        /* SQLite's own word for it is any failure of the disk */
    ledger_rollback(ledger);
    assert_int_equal(assert_whole(ledger), 8);
    assert_int_equal(work(ledger, 9), 0);
    ledger_close(ledger);
    ledger = ledger_lab_open();
    assert_int_equal(assert_whole(ledger), 16);
    ledger_close(ledger);
}

static void test_killed_at_every_point(void **state)
{
    static const char *const points[] = {"ledger.begin", "ledger.write", "ledger.commit", "ledger.committed"};
    bool killed;

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(points); p++)
        for (int nth = 1; ; nth++) {
            struct ledger *ledger;
            size_t before, after;
            pid_t child;
            int status;

            ledger = ledger_lab_open();
            before = assert_whole(ledger);
            ledger_close(ledger);
            child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                char fault[64];

                ledger = ledger_lab_open();
                snprintf(fault, sizeof fault, "%s=abort@%d", points[p], nth);
                _exit(fault_arm(fault) < 0 || work(ledger, before + 1) < 0);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            killed = WIFSIGNALED(status);
            assert_true(killed || WEXITSTATUS(status) == 0);
            ledger = ledger_lab_open();
            after = assert_whole(ledger);
            ledger_close(ledger);
            assert_int_equal(after, before + (!killed || !strcmp(points[p], "ledger.committed") ? 8u : 0u));
            if (!killed) {
                assert_true(nth > (p == 1 ? 19 : 1));
                break;
            }
            assert_true(nth < 50);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_where_a_ledger_may_lie, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_written_is_read, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_ledger_of_layout_1, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_ledger_of_layout_2, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_an_empty_file, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_an_episode_ends_once, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_lost_episode_is_open_again, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_version_is_added_once, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_one_holder_one_configuration, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_every_failing_write_leaves_all_or_nothing, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_commit_that_the_disk_refuses, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_killed_at_every_point, ledger_lab_set_up, ledger_lab_tear_down),
    };

    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
