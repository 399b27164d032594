/* The journal: what was acknowledged survives every crash, fault, truncation; damage is found and named. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "run/journal_segment.h"
#include "tests/harness/journal_lab.h"

static char open_path[SCRATCH_PATH + 24], seg_path[SCRATCH_PATH + 24];

static int set_up(void **state)
{
    (void)journal_lab_set_up(state);
    snprintf(open_path, sizeof open_path, "%s/0004-000012.open", journals.dir);
    snprintf(seg_path, sizeof seg_path, "%s/0004-000012.seg", journals.dir);
    return fault_arm("");
}

static int tear_down(void **state)
{
    (void)fault_arm("");
    return journal_lab_tear_down(state);
}

/* What a failed append or sync takes away was not acknowledged; the rest stays, and the same deliveries succeed again. */
static void test_every_failing_write(void **state)
{
    static const char *const actions[] = {"journal.write=eio", "journal.write=enospc", "journal.write=short", "journal.fsync=eio",
                                          "journal.seal=eio", "journal.rename=eio"};

    (void)state;
    for (size_t a = 0; a < ARRAY_SIZE(actions); a++)
        for (int nth = 1; ; nth++) {
            struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
            struct journal_entry entry;
            bool acknowledged[5] = {false}, failed = false;
            char fault[64];

            snprintf(fault, sizeof fault, "%s@%d", actions[a], nth);
            assert_int_equal(fault_arm(fault), 0);
            while (journal_segment(j, 4, 12, &journals.error) < 0)
                failed = true;
            for (uint64_t e = 1; e <= 4; e++) {     /* groups of two */
                if (journal_lab_put(j, e) < 0 || (e % 2 == 0 && journal_sync(j, &journals.error) < 0)) {
                    failed = true;
                    break;
                }
                if (e % 2 == 0)
                    acknowledged[e] = acknowledged[e - 1] = true;
            }
            if (!failed && journal_seal(j, 4, 12, &journals.error) < 0)
                failed = true;
            assert_int_equal(fault_arm(""), 0);
            for (uint64_t e = 1; e <= 4; e++) {
                int r = journal_find(j, e, &entry);

                assert_int_equal(r, acknowledged[e] ? 0 : -ENOENT);     /* what went with it is not in the way */
                if (r < 0)
                    assert_int_equal(journal_lab_put(j, e), 0);
            }
            assert_int_equal(journal_sync(j, &journals.error), 0);
            assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
            journal_close(j);
            j = journal_lab_open("", RUN, JOURNAL_READ);
            for (uint64_t e = 1; e <= 4; e++)
                journal_lab_expect(j, e);
            journal_close(j);
            assert_int_equal(unlink(seg_path), 0);
            if (!failed) {
                assert_true(nth > 1);       /* the fault was there to be met */
                break;
            }
            assert_true(nth < 30);
        }
}

/* The child says through a pipe what it acknowledged; it is killed at the nth passage of a fault point. */
static void test_killed_at_every_point(void **state)
{
    static const char *const points[] = {"journal.write", "journal.fsync", "journal.seal", "journal.rename"};

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(points); p++)
        for (int nth = 1; ; nth++) {
            int pipes[2], status;
            uint8_t acknowledged[8];
            ssize_t n;
            pid_t child;
            struct journal *j;
            struct error notice;

            assert_int_equal(pipe(pipes), 0);
            child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                char fault[64];

                snprintf(fault, sizeof fault, "%s=abort@%d", points[p], nth);
                if (fault_arm(fault) < 0 || journal_open(journals.dir, RUN, JOURNAL_WRITE, &j, NULL, &journals.error) < 0
                    || journal_segment(j, 4, 12, &journals.error) < 0)
                    _exit(1);
                for (uint8_t e = 1; e <= 4; e++)
                    if (journal_lab_put(j, e) < 0 || journal_sync(j, &journals.error) < 0 || write(pipes[1], &e, 1) != 1)
                        _exit(1);
                _exit(journal_seal(j, 4, 12, &journals.error) < 0);
            }
            close(pipes[1]);
            for (n = 0; read(pipes[0], acknowledged + n, 1) == 1; )
                n++;
            close(pipes[0]);
            assert_int_equal(waitpid(child, &status, 0), child);
            assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
            assert_int_equal(journal_open(journals.dir, RUN, JOURNAL_WRITE, &j, &notice, &journals.error), 0);
            for (ssize_t i = 0; i < n; i++)
                journal_lab_expect(j, acknowledged[i]);
            if (journal_segment(j, 4, 12, &journals.error) == 0) {      /* not sealed: it goes on where it stopped */
                for (uint64_t e = 1; e <= 4; e++) {
                    int r = journal_lab_put(j, e);

                    assert_true(r == 0 || r == -EEXIST);
                }
                assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
            }
            journal_close(j);
            j = journal_lab_open("", RUN, JOURNAL_READ);
            for (uint64_t e = 1; e <= 4; e++)
                journal_lab_expect(j, e);
            journal_close(j);
            assert_int_equal(unlink(seg_path), 0);
            if (!WIFSIGNALED(status)) {
                assert_true(nth > 1);
                break;
            }
            assert_true(nth < 30);
        }
}

/* Group commit: of three unsynced records an OS crash may keep the last and lose the first. None was acknowledged. */
static void test_torn_group_is_cut_off(void **state)
{
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    struct journal_entry first;
    struct error notice;
    int fd;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_lab_put(j, 1), 0);
    assert_int_equal(journal_sync(j, &journals.error), 0);
    for (uint64_t e = 2; e <= 4; e++)
        assert_int_equal(journal_lab_put(j, e), 0);
    assert_int_equal(journal_find(j, 2, &first), 0);
    journal_close(j);
    fd = open(open_path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\0\0\0\0\0\0\0\0", 8, (off_t)first.offset + 100), 8);
    close(fd);

    assert_int_equal(journal_open(journals.dir, RUN, JOURNAL_WRITE, &j, &notice, &journals.error), 0);
    assert_int_equal(notice.errnum, EUCLEAN);
    assert_non_null(strstr(notice.text, open_path));
    journal_lab_expect(j, 1);
    assert_int_equal(journal_find(j, 2, &first), -ENOENT);
    assert_int_equal(journal_find(j, 4, &first), -ENOENT);
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_lab_put(j, 2), 0);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    journal_close(j);
}

/* Cut an open segment at every length: the whole records before the cut are there, nothing else is. */
static void test_every_truncation(void **state)
{
    _cleanup_free_ char *bytes = NULL;
    size_t size, ends[4];
    struct journal *j;
    struct journal_entry entry;

    (void)state;
    journal_lab_write_three(false);
    j = journal_lab_open("", RUN, JOURNAL_READ);
    for (uint64_t e = 1; e <= 3; e++) {
        assert_int_equal(journal_find(j, e, &entry), 0);
        ends[e] = entry.offset + sizeof(struct journal_header) + entry.meta_size + entry.packed_size;
    }
    journal_close(j);
    assert_int_equal(file_read(open_path, 1 << 20, &bytes, &size), 0);
    for (size_t cut = 0; cut <= size; cut++) {
        int fd = open(open_path, O_WRONLY | O_TRUNC | O_CLOEXEC);

        assert_int_equal(write(fd, bytes, cut), cut);
        close(fd);
        j = journal_lab_open("", RUN, JOURNAL_READ);
        for (uint64_t e = 1; e <= 3; e++)
            assert_int_equal(journal_find(j, e, &entry), ends[e] <= cut ? 0 : -ENOENT);
        journal_close(j);
    }
}

/* Flip every bit of a file in turn: no episode is ever handed out with other bytes than were put in. Damage before something
 * acknowledged is an error; in the last record it reads as a torn tail (the ledger knows better: the checker tells). */
static void flip_all(const char *path, bool sealed)
{
    _cleanup_free_ char *bytes = NULL;
    size_t size, refused = 0;

    assert_int_equal(file_read(path, 1 << 20, &bytes, &size), 0);
    for (size_t bit = 0; bit < size * 8; bit += sealed ? 3 : 5) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        char flipped = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        struct journal *j = NULL;
        bool damage = false;

        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)(bit / 8)), 1);
        if (journal_open(journals.dir, RUN, JOURNAL_READ, &j, NULL, &journals.error) < 0) {
            assert_non_null(strstr(journals.error.text, path));
            damage = true;
        }
        for (uint64_t e = 1; j && e <= 3; e++) {
            uint8_t *meta, *frames;
            size_t n, n_frames;

            if (journal_load(j, e, &meta, &n, &frames, &n_frames, &journals.error) < 0) {
                damage = true;
                continue;
            }
            free(meta);
            free(frames);
            journal_lab_expect(j, e);
        }
        journal_close(j);
        refused += damage;
        assert_int_equal(pwrite(fd, &bytes[bit / 8], 1, (off_t)(bit / 8)), 1);
        close(fd);
        if (!damage && !sealed)
            fail_msg("bit %zu of the open segment is not guarded", bit);
    }
    assert_true(refused > 0);
}

static void test_every_flipped_bit_open(void **state)
{
    (void)state;
    journal_lab_write_three(false);
    flip_all(open_path, false);
}

static void test_every_flipped_bit_sealed(void **state)
{
    (void)state;
    journal_lab_write_three(true);
    flip_all(seg_path, true);
}

static void test_acknowledged_damage_is_named(void **state)
{
    struct journal *j = NULL;
    struct journal_entry entry;
    struct error notice;
    int fd;

    (void)state;
    journal_lab_write_three(false);             /* in the order 3, 2, 1 */
    j = journal_lab_open("", RUN, JOURNAL_READ);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    j = journal_close(j);
    fd = open(open_path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)entry.offset + 8), 1);
    close(fd);
    assert_int_equal(journal_open(journals.dir, RUN, JOURNAL_WRITE, &j, &notice, &journals.error), -EBADMSG);
    assert_non_null(strstr(journals.error.text, open_path));
    assert_non_null(strstr(journals.error.text, "acknowledged"));
    assert_non_null(strstr(journals.error.text, "restore"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_failing_write, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_killed_at_every_point, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_torn_group_is_cut_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_truncation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_sealed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_acknowledged_damage_is_named, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("journal damage", tests, NULL, NULL);
}
