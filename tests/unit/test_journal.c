/* The journal: what was acknowledged survives every crash, fault, truncation; damage is found and named. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "run/journal.h"
#include "run/journal_segment.h"
#include "tests/harness/scratch.h"

enum { RUN = 77, FRAMES = 3 * 8 * 8 * 3 };

static char dir[SCRATCH_PATH], open_path[96], seg_path[96];
static struct error error;

static int setup(void **state)
{
    (void)state;
    scratch_new(dir);
    snprintf(open_path, sizeof open_path, "%s/0004-000012.open", dir);
    snprintf(seg_path, sizeof seg_path, "%s/0004-000012.seg", dir);
    return fault_arm("");
}

static int teardown(void **state)
{
    (void)state;
    (void)fault_arm("");
    return remove_tree(dir);
}

static void contents(uint64_t episode, char meta[64], uint8_t frames[FRAMES])
{
    snprintf(meta, 64, "trajectory of episode %d, verbatim", (int)episode);
    for (int i = 0; i < FRAMES; i++)
        frames[i] = (uint8_t)(i * (int)episode % 251);
}

static int append(struct journal *j, uint64_t episode)
{
    char meta[64] = "";
    uint8_t frames[FRAMES], digest[SHA256_SIZE];

    contents(episode, meta, frames);
    return journal_append(j, episode, meta, sizeof meta, frames, sizeof frames, digest, &error);
}

static struct journal *must_open(enum journal_mode mode)
{
    struct journal *j;

    if (journal_open(dir, RUN, mode, &j, NULL, &error) < 0)
        fail_msg("%s", error.text);
    return j;
}

static void assert_episode(struct journal *j, uint64_t episode)
{
    char meta[64] = "";
    uint8_t frames[FRAMES], *got_meta, *got_frames;
    size_t n_meta, n_frames;
    struct error why;

    contents(episode, meta, frames);
    if (journal_load(j, episode, &got_meta, &n_meta, &got_frames, &n_frames, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(n_meta, sizeof meta);
    assert_memory_equal(got_meta, meta, n_meta);
    assert_int_equal(n_frames, FRAMES);
    assert_memory_equal(got_frames, frames, FRAMES);
    free(got_meta);
    free(got_frames);
}

static void write_three(bool seal)
{
    struct journal *j = must_open(JOURNAL_WRITE);

    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    for (uint64_t e = 3; e >= 1; e--) {
        assert_int_equal(append(j, e), 0);
        assert_int_equal(journal_sync(j, &error), 0);
    }
    if (seal)
        assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    journal_close(j);
}

static void test_round_trip(void **state)
{
    struct journal_entry entry, *entries;
    struct journal *j = must_open(JOURNAL_WRITE);
    uint8_t *meta;
    size_t n;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    assert_int_equal(append(j, 9), 0);
    assert_int_equal(append(j, 2), 0);
    assert_int_equal(append(j, 9), -EEXIST);
    assert_int_equal(journal_find(j, 9, &entry), 0);
    assert_false(entry.durable);
    assert_int_equal(journal_sync(j, &error), 0);
    assert_int_equal(journal_find(j, 9, &entry), 0);
    assert_true(entry.durable);
    assert_episode(j, 9);
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
    assert_int_equal(journal_segment(j, 4, 12, &error), -EROFS);
    assert_int_equal(access(open_path, F_OK), -1);
    assert_int_equal(journal_segment(j, 4, 13, &error), 0);
    assert_int_equal(append(j, 9), -EEXIST);        /* in another segment: still once */
    assert_int_equal(append(j, 10), 0);
    assert_int_equal(journal_sync(j, &error), 0);
    journal_close(j);

    j = must_open(JOURNAL_READ);
    assert_int_equal(journal_list(j, JOURNAL_ALL, JOURNAL_ALL, &entries, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(entries[0].episode, 2);
    assert_int_equal(entries[1].episode, 9);
    assert_true(entries[1].sealed && !entries[2].sealed);
    free(entries);
    assert_episode(j, 2);
    assert_episode(j, 9);
    assert_episode(j, 10);
    assert_int_equal(journal_load(j, 9, &meta, &n, NULL, NULL, &error), 0);
    free(meta);
    assert_int_equal(journal_load(j, 11, &meta, &n, NULL, NULL, &error), -ENOENT);
    assert_int_equal(journal_segment(j, 4, 13, &error), -EROFS);
    journal_close(j);

    j = must_open(JOURNAL_WRITE);
    assert_int_equal(journal_retain(j, 4, 13), 0);
    assert_int_equal(journal_retain(j, 4, 13), 0);
    assert_int_equal(journal_find(j, 9, &entry), -ENOENT);
    assert_episode(j, 10);
    journal_close(j);
}

static void test_retention(void **state)
{
    struct journal *j = must_open(JOURNAL_WRITE);
    struct journal_entry *entries, entry;
    size_t n;

    (void)state;
    for (uint32_t iteration = 0; iteration < 5; iteration++) {
        assert_int_equal(journal_segment(j, 4, iteration, &error), 0);
        assert_int_equal(append(j, 10 + iteration), 0);
        assert_int_equal(journal_sync(j, &error), 0);
        if (iteration != 1)
            assert_int_equal(journal_seal(j, 4, iteration, &error), 0);
    }
    assert_int_equal(journal_segment(j, 3, 0, &error), 0);
    assert_int_equal(append(j, 1), 0);
    assert_int_equal(journal_seal(j, 3, 0, &error), 0);
    assert_int_equal(journal_retain(j, 4, 3), 0);
    assert_int_equal(journal_retain(j, 4, 3), 0);
    assert_int_equal(journal_list(j, JOURNAL_ALL, JOURNAL_ALL, &entries, &n), 0);
    assert_int_equal(n, 4);         /* another stage's, the one still open, the last two */
    free(entries);
    assert_int_equal(journal_find(j, 10, &entry), -ENOENT);
    journal_close(j);
    j = must_open(JOURNAL_READ);
    assert_episode(j, 1);
    assert_episode(j, 11);
    assert_episode(j, 13);
    assert_episode(j, 14);
    assert_int_equal(journal_find(j, 12, &entry), -ENOENT);
    journal_close(j);
}

static void *read_along(void *arg)
{
    struct journal *j = arg;
    struct journal_entry *entries;
    size_t n = 0, most = 0;

    while (most < 60) {
        if (journal_list(j, 4, JOURNAL_ALL, &entries, &n) < 0)
            return NULL;
        for (size_t i = most; i < n; i++)
            if (entries[i].durable)
                assert_episode(j, entries[i].episode);
        most = MAX(most, n);
        free(entries);
        (void)journal_bytes(j);
        (void)journal_retain(j, 3, 1);
    }
    return j;
}

/* The train thread reads while the journal thread appends, syncs and seals. */
static void test_readers_beside_the_writer(void **state)
{
    struct journal *j = must_open(JOURNAL_WRITE);
    pthread_t reader;
    void *end;

    (void)state;
    assert_int_equal(pthread_create(&reader, NULL, read_along, j), 0);
    for (uint64_t e = 1; e <= 60; e++) {
        assert_int_equal(journal_segment(j, 4, (uint32_t)(e / 20), &error), 0);
        assert_int_equal(append(j, e), 0);
        if (e % 3 == 0)
            assert_int_equal(journal_sync(j, &error), 0);
        if (e % 20 == 19)
            assert_int_equal(journal_seal(j, 4, (uint32_t)(e / 20), &error), 0);
    }
    assert_int_equal(pthread_join(reader, &end), 0);
    assert_ptr_equal(end, j);
    journal_close(j);
}

static void test_another_run(void **state)
{
    struct journal *j;

    (void)state;
    write_three(true);
    assert_int_equal(journal_open(dir, RUN + 1, JOURNAL_READ, &j, NULL, &error), -EXDEV);
    assert_non_null(strstr(error.text, seg_path));
}

/* What a failed append or sync takes away was not acknowledged; the rest stays, and the same deliveries succeed again. */
static void test_every_failing_write(void **state)
{
    static const char *const actions[] = {"journal.write=eio", "journal.write=enospc", "journal.write=short", "journal.fsync=eio",
                                          "journal.seal=eio", "journal.rename=eio"};

    (void)state;
    for (size_t a = 0; a < ARRAY_SIZE(actions); a++)
        for (int nth = 1; ; nth++) {
            struct journal *j = must_open(JOURNAL_WRITE);
            struct journal_entry entry;
            bool acknowledged[5] = {false}, failed = false;
            char fault[64];

            snprintf(fault, sizeof fault, "%s@%d", actions[a], nth);
            assert_int_equal(fault_arm(fault), 0);
            while (journal_segment(j, 4, 12, &error) < 0)
                failed = true;
            for (uint64_t e = 1; e <= 4; e++) {     /* groups of two */
                if (append(j, e) < 0 || (e % 2 == 0 && journal_sync(j, &error) < 0)) {
                    failed = true;
                    break;
                }
                if (e % 2 == 0)
                    acknowledged[e] = acknowledged[e - 1] = true;
            }
            if (!failed && journal_seal(j, 4, 12, &error) < 0)
                failed = true;
            assert_int_equal(fault_arm(""), 0);
            for (uint64_t e = 1; e <= 4; e++) {
                int r = journal_find(j, e, &entry);

                assert_int_equal(r, acknowledged[e] ? 0 : -ENOENT);     /* what went with it is not in the way */
                if (r < 0)
                    assert_int_equal(append(j, e), 0);
            }
            assert_int_equal(journal_sync(j, &error), 0);
            assert_int_equal(journal_seal(j, 4, 12, &error), 0);
            journal_close(j);
            j = must_open(JOURNAL_READ);
            for (uint64_t e = 1; e <= 4; e++)
                assert_episode(j, e);
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
                if (fault_arm(fault) < 0 || journal_open(dir, RUN, JOURNAL_WRITE, &j, NULL, &error) < 0
                    || journal_segment(j, 4, 12, &error) < 0)
                    _exit(1);
                for (uint8_t e = 1; e <= 4; e++)
                    if (append(j, e) < 0 || journal_sync(j, &error) < 0 || write(pipes[1], &e, 1) != 1)
                        _exit(1);
                _exit(journal_seal(j, 4, 12, &error) < 0);
            }
            close(pipes[1]);
            for (n = 0; read(pipes[0], acknowledged + n, 1) == 1; )
                n++;
            close(pipes[0]);
            assert_int_equal(waitpid(child, &status, 0), child);
            assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
            assert_int_equal(journal_open(dir, RUN, JOURNAL_WRITE, &j, &notice, &error), 0);
            for (ssize_t i = 0; i < n; i++)
                assert_episode(j, acknowledged[i]);
            if (journal_segment(j, 4, 12, &error) == 0) {      /* not sealed: it goes on where it stopped */
                for (uint64_t e = 1; e <= 4; e++) {
                    int r = append(j, e);

                    assert_true(r == 0 || r == -EEXIST);
                }
                assert_int_equal(journal_seal(j, 4, 12, &error), 0);
            }
            journal_close(j);
            j = must_open(JOURNAL_READ);
            for (uint64_t e = 1; e <= 4; e++)
                assert_episode(j, e);
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
    struct journal *j = must_open(JOURNAL_WRITE);
    struct journal_entry first;
    struct error notice;
    int fd;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    assert_int_equal(append(j, 1), 0);
    assert_int_equal(journal_sync(j, &error), 0);
    for (uint64_t e = 2; e <= 4; e++)
        assert_int_equal(append(j, e), 0);
    assert_int_equal(journal_find(j, 2, &first), 0);
    journal_close(j);
    fd = open(open_path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\0\0\0\0\0\0\0\0", 8, (off_t)first.offset + 100), 8);
    close(fd);

    assert_int_equal(journal_open(dir, RUN, JOURNAL_WRITE, &j, &notice, &error), 0);
    assert_int_equal(notice.errnum, EUCLEAN);
    assert_non_null(strstr(notice.text, open_path));
    assert_episode(j, 1);
    assert_int_equal(journal_find(j, 2, &first), -ENOENT);
    assert_int_equal(journal_find(j, 4, &first), -ENOENT);
    assert_int_equal(journal_segment(j, 4, 12, &error), 0);
    assert_int_equal(append(j, 2), 0);
    assert_int_equal(journal_seal(j, 4, 12, &error), 0);
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
    write_three(false);
    j = must_open(JOURNAL_READ);
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
        j = must_open(JOURNAL_READ);
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
        if (journal_open(dir, RUN, JOURNAL_READ, &j, NULL, &error) < 0) {
            assert_non_null(strstr(error.text, path));
            damage = true;
        }
        for (uint64_t e = 1; j && e <= 3; e++) {
            uint8_t *meta, *frames;
            size_t n, n_frames;

            if (journal_load(j, e, &meta, &n, &frames, &n_frames, &error) < 0) {
                damage = true;
                continue;
            }
            free(meta);
            free(frames);
            assert_episode(j, e);
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
    write_three(false);
    flip_all(open_path, false);
}

static void test_every_flipped_bit_sealed(void **state)
{
    (void)state;
    write_three(true);
    flip_all(seg_path, true);
}

static void test_acknowledged_damage_is_named(void **state)
{
    struct journal *j = NULL;
    struct journal_entry entry;
    struct error notice;
    int fd;

    (void)state;
    write_three(false);             /* in the order 3, 2, 1 */
    j = must_open(JOURNAL_READ);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    j = journal_close(j);
    fd = open(open_path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)entry.offset + 8), 1);
    close(fd);
    assert_int_equal(journal_open(dir, RUN, JOURNAL_WRITE, &j, &notice, &error), -EBADMSG);
    assert_non_null(strstr(error.text, open_path));
    assert_non_null(strstr(error.text, "acknowledged"));
    assert_non_null(strstr(error.text, "restore"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readers_beside_the_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_failing_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_at_every_point, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_group_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_sealed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_acknowledged_damage_is_named, setup, teardown),
    };

    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
