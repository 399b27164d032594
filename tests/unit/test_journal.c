/* The journal: what was appended is found, also by readers beside the writer, until retention drops it. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/harness/journal_lab.h"

static void test_round_trip(void **state)
{
    struct journal_entry entry, *entries;
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    uint8_t *meta;
    size_t n;

    (void)state;
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_lab_put(j, 9), 0);
    assert_int_equal(journal_lab_put(j, 2), 0);
    assert_int_equal(journal_lab_put(j, 9), -EEXIST);
    assert_int_equal(journal_find(j, 9, &entry), 0);
    assert_false(entry.durable);
    assert_int_equal(journal_sync(j, &journals.error), 0);
    assert_int_equal(journal_find(j, 9, &entry), 0);
    assert_true(entry.durable);
    journal_lab_expect(j, 9);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_seal(j, 4, 12, &journals.error), 0);
    assert_int_equal(journal_segment(j, 4, 12, &journals.error), -EROFS);
    assert_int_equal(access(journal_lab_in("", "0004-000012.open"), F_OK), -1);
    assert_int_equal(journal_segment(j, 4, 13, &journals.error), 0);
    assert_int_equal(journal_lab_put(j, 9), -EEXIST);        /* in another segment: still once */
    assert_int_equal(journal_lab_put(j, 10), 0);
    assert_int_equal(journal_sync(j, &journals.error), 0);
    journal_close(j);

    j = journal_lab_open("", RUN, JOURNAL_READ);
    assert_int_equal(journal_list(j, JOURNAL_ALL, JOURNAL_ALL, &entries, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(entries[0].episode, 2);
    assert_int_equal(entries[1].episode, 9);
    assert_true(entries[1].sealed && !entries[2].sealed);
    free(entries);
    journal_lab_expect(j, 2);
    journal_lab_expect(j, 9);
    journal_lab_expect(j, 10);
    assert_int_equal(journal_load(j, 9, &meta, &n, NULL, NULL, &journals.error), 0);
    free(meta);
    assert_int_equal(journal_load(j, 11, &meta, &n, NULL, NULL, &journals.error), -ENOENT);
    assert_int_equal(journal_segment(j, 4, 13, &journals.error), -EROFS);
    journal_close(j);

    j = journal_lab_open("", RUN, JOURNAL_WRITE);
    assert_int_equal(journal_retain(j, 4, 13), 0);
    assert_int_equal(journal_retain(j, 4, 13), 0);
    assert_int_equal(journal_find(j, 9, &entry), -ENOENT);
    journal_lab_expect(j, 10);
    journal_close(j);
}

static void test_retention(void **state)
{
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    struct journal_entry *entries, entry;
    size_t n;

    (void)state;
    for (uint32_t iteration = 0; iteration < 5; iteration++) {
        assert_int_equal(journal_segment(j, 4, iteration, &journals.error), 0);
        assert_int_equal(journal_lab_put(j, 10 + iteration), 0);
        assert_int_equal(journal_sync(j, &journals.error), 0);
        if (iteration != 1)
            assert_int_equal(journal_seal(j, 4, iteration, &journals.error), 0);
    }
    assert_int_equal(journal_segment(j, 3, 0, &journals.error), 0);
    assert_int_equal(journal_lab_put(j, 1), 0);
    assert_int_equal(journal_seal(j, 3, 0, &journals.error), 0);
    assert_int_equal(journal_retain(j, 4, 3), 0);
    assert_int_equal(journal_retain(j, 4, 3), 0);
    assert_int_equal(journal_list(j, JOURNAL_ALL, JOURNAL_ALL, &entries, &n), 0);
    assert_int_equal(n, 4);         /* another stage's, the one still open, the last two */
    free(entries);
    assert_int_equal(journal_find(j, 10, &entry), -ENOENT);
    journal_close(j);
    j = journal_lab_open("", RUN, JOURNAL_READ);
    journal_lab_expect(j, 1);
    journal_lab_expect(j, 11);
    journal_lab_expect(j, 13);
    journal_lab_expect(j, 14);
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
                journal_lab_expect(j, entries[i].episode);
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
    struct journal *j = journal_lab_open("", RUN, JOURNAL_WRITE);
    pthread_t reader;
    void *end;

    (void)state;
    assert_int_equal(pthread_create(&reader, NULL, read_along, j), 0);
    for (uint64_t e = 1; e <= 60; e++) {
        assert_int_equal(journal_segment(j, 4, (uint32_t)(e / 20), &journals.error), 0);
        assert_int_equal(journal_lab_put(j, e), 0);
        if (e % 3 == 0)
            assert_int_equal(journal_sync(j, &journals.error), 0);
        if (e % 20 == 19)
            assert_int_equal(journal_seal(j, 4, (uint32_t)(e / 20), &journals.error), 0);
    }
    assert_int_equal(pthread_join(reader, &end), 0);
    assert_ptr_equal(end, j);
    journal_close(j);
}

static void test_another_run(void **state)
{
    struct journal *j;

    (void)state;
    journal_lab_write_three(true);
    assert_int_equal(journal_open(journals.dir, RUN + 1, JOURNAL_READ, &j, NULL, &journals.error), -EXDEV);
    assert_non_null(strstr(journals.error.text, journal_lab_in("", "0004-000012.seg")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_retention, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_readers_beside_the_writer, journal_lab_set_up, journal_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_another_run, journal_lab_set_up, journal_lab_tear_down),
    };

    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
