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
#include "base/philox.h"
#include "run/journal_segment.h"
#include "tests/harness/journal_lab.h"

/* One sealed segment 0004-000012 with this episode. */
static void write_one(const char *folder, uint64_t run, uint64_t episode, const char *meta)
{
    struct journal *j = journal_lab_open(folder, run, JOURNAL_WRITE);

    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, episode, meta);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    journal_close(j);
}

/* A sync is for the segment that is written: the one before it is synced when it is left. */
static void test_what_is_left_is_durable(void **state)
{
    struct journal *j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_false(entry.durable);
    assert_int_equal(journal_segment(j, 4, 13, &journals.error), 0);
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
    write_one("j", RUN, 1, "a");
    for (size_t i = 0; i < ARRAY_SIZE(copies); i++)
        assert_int_equal(file_copy(journal_lab_in("j", "0004-000012.seg"), journal_lab_in("j", copies[i])), 0);
    j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    journal_close(j);
}

/* A segment both open and sealed, or an episode in two of them: neither is guessed. */
static void test_twice_there(void **state)
{
    struct journal *j;

    (void)state;
    write_one("j", RUN, 1, "a");
    assert_int_equal(file_copy(journal_lab_in("j", "0004-000012.seg"), journal_lab_in("j", "0004-000012.open")), 0);
    assert_int_equal(journal_open(journal_lab_in("j", ""), RUN, JOURNAL_READ, &j, NULL, &journals.error), -EBADMSG);
    assert_non_null(strstr(journals.error.text, "0004-000012 is there both sealed and open: move one away"));
    assert_int_equal(unlink(journal_lab_in("j", "0004-000012.open")), 0);
    j = journal_lab_open("other", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_segment(j, 4, 13, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_seal(j, 4, 13, &journals.error), 0);
    journal_close(j);
    assert_int_equal(file_copy(journal_lab_in("other", "0004-000013.seg"), journal_lab_in("j", "0004-000013.seg")), 0);
    assert_int_equal(journal_open(journal_lab_in("j", ""), RUN, JOURNAL_READ, &j, NULL, &journals.error), -EBADMSG);
    assert_non_null(strstr(journals.error.text, "episode 1 is in segments"));
}

/* A file that another takes the place of under a reader: nothing of it is handed out, be it another trajectory, another run's or
 * another episode's. */
static void test_replaced_under_a_reader(void **state)
{
    static const struct { uint64_t run, episode; const char *meta; } others[] = {{RUN, 1, "b"}, {RUN + 1, 1, "a"}, {RUN, 2, "a"}};
    uint8_t *meta;
    size_t n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        struct journal *j;

        write_one("j", RUN, 1, "a");
        write_one("other", others[i].run, others[i].episode, others[i].meta);
        j = journal_lab_open("j", RUN, JOURNAL_READ);
        assert_int_equal(journal_load(j, 1, &meta, &n, NULL, NULL, &journals.error), 0);
        free(meta);
        assert_int_equal(rename(journal_lab_in("other", "0004-000012.seg"), journal_lab_in("j", "0004-000012.seg")), 0);
        assert_int_equal(journal_load(j, 1, &meta, &n, NULL, NULL, &journals.error), -EBADMSG);
        assert_non_null(strstr(journals.error.text, "episode 1 at offset"));
        journal_close(j);
        assert_int_equal(remove_tree(journal_lab_in("j", "")), 0);
    }
}

static void refused(int errnum, const char *why)
{
    struct journal *j;

    assert_int_equal(journal_open(journal_lab_in("j", ""), RUN, JOURNAL_WRITE, &j, NULL, &journals.error), -errnum);
    if (!strstr(journals.error.text, why))
        fail_msg("%s", journals.error.text);
}

/* Open or sealed: another run's segment, one that was renamed, and a file that only looks like one are refused by name. */
static void test_segments_of_others(void **state)
{
    static const char *const ends[] = {"seg", "open"};
    _cleanup_free_ char *bytes = NULL;
    size_t n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        char name[2][32];

        write_one("other", RUN + 1, 1, "a");
        write_one("own", RUN, 1, "a");
        for (size_t k = 0; k < 2; k++)
            snprintf(name[k], sizeof name[k], "0004-00001%zu.%s", 2 + k, ends[i]);
        assert_int_equal(mkdir(journal_lab_in("j", ""), 0755), 0);
        assert_int_equal(rename(journal_lab_in("other", "0004-000012.seg"), journal_lab_in("j", name[0])), 0);
        refused(EXDEV, "belongs to run 4e, this is run 4d");
        assert_int_equal(rename(journal_lab_in("own", "0004-000012.seg"), journal_lab_in("j", name[0])), 0);
        assert_int_equal(rename(journal_lab_in("j", name[0]), journal_lab_in("j", name[1])), 0);
        refused(EBADMSG, "its header says stage 4 iteration 12");
        assert_int_equal(file_read(journal_lab_in("j", name[1]), 1 << 20, &bytes, &n), 0);
        assert_int_equal(unlink(journal_lab_in("j", name[1])), 0);
        n -= sizeof(struct journal_header);
        assert_int_equal(atomic_file_write(journal_lab_in("j", name[0]), bytes + sizeof(struct journal_header), n), 0);
        refused(EBADMSG, "does not begin with a segment header");
        assert_int_equal(remove_tree(journal_lab_in("j", "")), 0);
        free(bytes);
        bytes = NULL;
    }
}

/* A record whose checksums are good, behind those of another segment: a disk or a copy put it there, and it is not believed. */
static void test_a_misplaced_record(void **state)
{
    _cleanup_free_ char *bytes = NULL;
    struct journal_entry entry;
    struct journal *j;
    size_t n;
    int fd;

    (void)state;
    write_one("other", RUN, 2, "b");
    assert_int_equal(file_read(journal_lab_in("other", "0004-000012.seg"), 1 << 20, &bytes, &n), 0);
    j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_segment(j, 4, 13, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_close(j);
    fd = open(journal_lab_in("j", "0004-000013.open"), O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, bytes + sizeof(struct journal_header), n - sizeof(struct journal_header)),
                     n - sizeof(struct journal_header));
    close(fd);
    j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_int_equal(journal_find(j, 2, &entry), -ENOENT);
    journal_close(j);
}

/* A learner rank reads what rank 0 is writing: it finds what it saw open after it was sealed, too. */
static void test_sealed_under_a_reader(void **state)
{
    struct journal *writer = journal_lab_open("j", RUN, JOURNAL_WRITE), *reader;
    uint8_t *meta;
    size_t n;

    (void)state;
    assert_int_equal(journal_segment(writer, 4, 12, &journals.error), 0);
    journal_lab_append(writer, 1, "a");
    assert_int_equal(journal_sync(writer, &journals.error), 0);
    reader = journal_lab_open("j", RUN, JOURNAL_READ);
    assert_int_equal(journal_seal(writer, 4, 12, &journals.error), 0);
    if (journal_load(reader, 1, &meta, &n, NULL, NULL, &journals.error) < 0)
        fail_msg("%s", journals.error.text);
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
        assert_int_equal(journal_segment(writer, 4, i, &journals.error), 0);
        journal_lab_append(writer, i, "a");
        assert_int_equal(journal_sync(writer, &journals.error), 0);
        durable = i;
        assert_int_equal(journal_seal(writer, 4, i, &journals.error), 0);
        assert_int_equal(journal_retain(writer, 4, i > KEPT ? i - KEPT : 0), 0);
    }
    return NULL;
}

/* Whatever the writer renames and drops while the directory is read: an episode that was durable before is there, or was dropped. */
static void test_opened_beside_a_writer(void **state)
{
    struct journal *writer = journal_lab_open("j", RUN, JOURNAL_WRITE), *reader;
    struct error why = {0};
    pthread_t thread;

    (void)state;
    durable = 0;
    assert_int_equal(pthread_create(&thread, NULL, seal_along, writer), 0);
    while (durable < SEALS) {
        uint64_t episode = durable;
        struct journal_entry entry;

        if (journal_open(journal_lab_in("j", ""), RUN, JOURNAL_READ, &reader, NULL, &why) < 0)
            fail_msg("%s", why.text);
        if (episode && journal_find(reader, episode, &entry) < 0 && durable <= episode + KEPT)
            fail_msg("episode %llu is missing, %llu are durable", (unsigned long long)episode, (unsigned long long)durable);
        journal_close(reader);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    journal_close(writer);
}

/* The digest is of all its bytes: of the trajectory's, then of the frames'. */
static void test_the_digest(void **state)
{
    struct journal *j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    uint8_t expected[SHA256_SIZE], digest[SHA256_SIZE] = {0};
    struct journal_entry entry;
    struct sha256 whole;

    (void)state;
    sha256_init(&whole);
    sha256_add(&whole, "trajectoryframes", 16);
    sha256_end(&whole, expected);
    assert_int_equal(journal_append(j, 1, "t", 1, "f", 1, digest, &journals.error), -EINVAL);        /* into no segment */
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_append(j, 1, "trajectory", 10, "frames", 6, digest, &journals.error), 0);
    assert_memory_equal(digest, expected, SHA256_SIZE);
    memset(digest, 0, sizeof digest);
    assert_int_equal(journal_append(j, 1, "another", 7, NULL, 0, digest, &journals.error), -EEXIST);
    assert_memory_equal(digest, expected, SHA256_SIZE);
    assert_int_equal(journal_append(j, 2, "t", JOURNAL_META_MAX + 1, "f", 1, digest, &journals.error), -EFBIG);
    assert_int_equal(journal_append(j, 2, "t", 1, "f", JOURNAL_FRAMES_MAX + 1, digest, &journals.error), -EFBIG);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_append(j, 2, "t", 1, "f", 1, digest, &journals.error), -EINVAL);        /* into a sealed one */
    assert_int_equal(journal_find(j, 1, &entry), 0);
    assert_memory_equal(entry.digest, expected, SHA256_SIZE);
    journal_close(j);
}

/* What retention drops leaves the others as they are, wherever it lies among them; one whose file is gone is dropped, too. */
static void test_dropped_from_among_others(void **state)
{
    struct journal *j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    struct journal_entry entry;

    (void)state;
    for (uint32_t iteration = 11; iteration <= 13; iteration++) {
        assert_int_equal(journal_segment(j, 4, iteration, &journals.error), 0);
        journal_lab_append(j, iteration, "a");
        if (iteration < 13)
            assert_int_equal(journal_seal(j, 4, iteration, &journals.error), 0);
    }
    assert_int_equal(unlink(journal_lab_in("j", "0004-000011.seg")), 0);
    assert_int_equal(journal_retain(j, 4, 13), 0);
    assert_int_equal(journal_find(j, 11, &entry), -ENOENT);
    assert_int_equal(journal_find(j, 12, &entry), -ENOENT);
    assert_int_equal(access(journal_lab_in("j", "0004-000012.seg"), F_OK), -1);
    journal_lab_append(j, 14, "b");
    assert_int_equal(journal_seal(j, 4, 13, &journals.error), 0);
    journal_close(j);
    j = journal_lab_open("j", RUN, JOURNAL_READ);
    assert_int_equal(journal_find(j, 13, &entry), 0);
    assert_int_equal(journal_find(j, 14, &entry), 0);
    assert_true(entry.stage == 4 && entry.iteration == 13 && entry.sealed && entry.durable);
    journal_close(j);
}

/* A trajectory of many pages whose bytes do not compress: checked as a whole when its segment is opened again, and damage in it
 * is seen, however far behind it the next one lies that was acknowledged. */
static void test_a_large_one(void **state)
{
    enum { LARGE = 300000 };
    struct journal *j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    _cleanup_free_ uint8_t *frames = malloc(LARGE);
    uint8_t digest[SHA256_SIZE], *meta, *got;
    struct philox random = philox_at(1, PHILOX_TEST, 0, 0, 0);
    struct journal_entry entry;
    size_t n, n_got;
    int fd;

    (void)state;
    assert_non_null(frames);
    for (size_t i = 0; i < LARGE; i++)
        frames[i] = (uint8_t)philox_u32(&random);
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_append(j, 1, "a", 1, frames, LARGE, digest, &journals.error), 0);
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_lab_append(j, 2, "b");
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_close(j);
    j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_find(j, 2, &entry), 0);
    assert_int_equal(journal_load(j, 1, &meta, &n, &got, &n_got, &journals.error), 0);
    assert_int_equal(n_got, LARGE);
    assert_memory_equal(got, frames, LARGE);
    free(meta);
    free(got);
    journal_close(j);
    fd = open(journal_lab_in("j", "0004-000012.open"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "xyz", 3, 1000), 3);
    close(fd);
    refused(EBADMSG, "trajectories behind it were acknowledged");
}

/* Its size is what lies in its files; a trajectory need not have frames; a path that does not fit is not cut short. */
static void test_sizes(void **state)
{
    struct journal *j = journal_lab_open("j", RUN, JOURNAL_WRITE);
    uint8_t digest[SHA256_SIZE], *meta, *frames;
    size_t n, n_frames = 1;
    char path[5000];
    struct stat st[2];

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    journal_lab_append(j, 1, "a");
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_segment(j, 4, 13, &journals.error), 0);
    assert_int_equal(journal_append(j, 2, "b", 1, NULL, 0, digest, &journals.error), 0);
    assert_int_equal(stat(journal_lab_in("j", "0004-000012.seg"), &st[0]), 0);
    assert_int_equal(stat(journal_lab_in("j", "0004-000013.open"), &st[1]), 0);
    assert_int_equal(journal_bytes(j), st[0].st_size + st[1].st_size);
    assert_int_equal(journal_load(j, 2, &meta, &n, &frames, &n_frames, &journals.error), 0);
    assert_int_equal(n, 1);
    assert_int_equal(n_frames, 0);
    free(meta);
    free(frames);
    journal_close(j);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(journal_open(path, RUN, JOURNAL_WRITE, &j, NULL, &journals.error), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_digest, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_large_one, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_dropped_from_among_others, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_sizes, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_left_is_durable, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_copies_beside, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_twice_there, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_replaced_under_a_reader, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_segments_of_others, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_misplaced_record, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_sealed_under_a_reader, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_opened_beside_a_writer, journal_lab_set_up, journal_lab_tear_down),
    };

    return cmocka_run_group_tests_name("journal_files", tests, NULL, NULL);
}
