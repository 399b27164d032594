/* What a ledger is refused for: a row, a table, a page, a commit that is not as it was left. (Thousands of seeded damages:
 * test_ledger_damage.c.) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "run/ledger.h"
#include "tests/harness/ledger_lab.h"

static void test_a_file_that_is_no_ledger(void **state)
{
    static const char text[] =
        "this is not a database, and long enough to be taken for one, if only its header were right............";
    struct ledger *ledger;
    struct error error;

    (void)state;
    assert_int_equal(atomic_file_write(ledger_lab.path, text, sizeof text), 0);
    assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "restore"));
}

/* SQLite would read around a lost page that no start needs. */
static void test_every_lost_page(void **state)
{
    _cleanup_free_ char *bytes = NULL;
    struct ledger *ledger = ledger_lab_open();
    struct error error;
    size_t size;

    (void)state;
    ledger_close(ledger);
    assert_int_equal(file_read(ledger_lab.path, 1 << 20, &bytes, &size), 0);
    for (size_t at = 4096; at < size; at += 4096) {
        _cleanup_free_ char *copy = malloc(size);

        memcpy(copy, bytes, size);
        memset(copy + at, 0, 4096);
        assert_int_equal(atomic_file_write(ledger_lab.path, copy, size), 0);
        assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -EBADMSG);
        assert_non_null(strstr(error.text, ledger_lab.path));
    }
}

/* The first place of `text` in the file takes another letter. */
static void misspell(const char *text)
{
    _cleanup_free_ char *bytes = NULL;
    char *at;
    size_t size;

    assert_int_equal(file_read(ledger_lab.path, 1 << 20, &bytes, &size), 0);
    at = memmem(bytes, size, text, strlen(text));
    assert_non_null(at);
    at[1]++;
    assert_int_equal(atomic_file_write(ledger_lab.path, bytes, size), 0);
}

static void expect_refused(const char *found)
{
    struct ledger *ledger = NULL;
    struct error error;

    assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -EBADMSG);
    assert_non_null(strstr(error.text, ledger_lab.path));
    assert_non_null(strstr(error.text, found));
    assert_int_equal(ledger_open_readonly(ledger_lab.path, &ledger, &error), -EBADMSG);
    assert_non_null(strstr(error.text, found));
}

static void test_a_row_that_has_changed(void **state)
{
    struct ledger *ledger = ledger_lab_open();

    (void)state;
    ledger_lab_add_rows(ledger, 1, 2);
    ledger_close(ledger);
    misspell("open_drawer");
    expect_refused("1 of the rows in episodes are not as they were written");
}

static void keep(const char *ending, char **ret, size_t *ret_n)
{
    char name[sizeof ledger_lab.path + 8];

    snprintf(name, sizeof name, "%s%s", ledger_lab.path, ending);
    assert_int_equal(file_read(name, 1 << 20, ret, ret_n), 0);
}

/* An earlier page in place of a later one: each of its rows is one that was written, and the tree is whole; its table's total
 * knows better. */
static void test_every_page_as_it_was_earlier(void **state)
{
    enum { PAGE = 4096 };
    _cleanup_free_ char *before = NULL, *after = NULL;
    struct ledger *ledger = ledger_lab_open();
    struct ledger_episode played = {.episode = 2, .success = true, .steps = 9, .digest = {1}};
    bool totals = false;
    size_t n_before, n_after, size;

    (void)state;
    ledger_lab_add_rows(ledger, 1, 2);
    ledger_close(ledger);
    keep("", &before, &n_before);
    ledger = ledger_lab_open();
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_episode_journaled(ledger, &played), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
    keep("", &after, &n_after);
    size = MIN(n_before, n_after);
    for (size_t at = PAGE; at < size; at += PAGE) {         /* the first has SQLite's own numbers */
        _cleanup_free_ char *copy = malloc(n_after);
        struct ledger_event *events = NULL;
        struct error error;

        if (!memcmp(before + at, after + at, PAGE))
            continue;
        memcpy(copy, after, n_after);
        memcpy(copy + at, before + at, PAGE);
        assert_int_equal(atomic_file_write(ledger_lab.path, copy, n_after), 0);
        if (ledger_open_readonly(ledger_lab.path, &ledger, &error) < 0) {
            totals |= strstr(error.text, "rows in episodes are as they were earlier") != NULL;
            continue;
        }
        assert_int_equal(ledger_events(ledger, 0, SIZE_MAX, &events, &n_before), 0);    /* SQLite's own, of no row: all is
                                                                                         * there */
        assert_string_equal(events[n_before - 1].kind, "journaled");
        free(events);
        ledger_close(ledger);
    }
    assert_true(totals);
}

/* Nothing is read through a trigger: the rows are as they were. */
static void test_tables_that_have_changed(void **state)
{
    struct ledger *ledger = ledger_lab_open();

    (void)state;
    ledger_close(ledger);
    misspell("events are append-only");
    expect_refused("its tables are not those of layout 2");
}

/* One byte of the header is another. */
static void set_byte(size_t at, char value)
{
    _cleanup_free_ char *bytes = NULL;
    size_t size;

    assert_int_equal(file_read(ledger_lab.path, 1 << 20, &bytes, &size), 0);
    bytes[at] = value;
    assert_int_equal(atomic_file_write(ledger_lab.path, bytes, size), 0);
}

/* Byte 47 is SQLite's own number of formats, 1 to 4; byte 18 says who may write, 1 or 2. */
static void test_a_format_that_nobody_knows(void **state)
{
    struct ledger *ledger;
    struct error error;

    (void)state;
    ledger_close(ledger_lab_open());
    set_byte(18, 9);
    assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "may only be read"));
    assert_int_equal(ledger_open_readonly(ledger_lab.path, &ledger, &error), 0);       /* all else is as it was */
    ledger_close(ledger);
    set_byte(47, 9);
    expect_refused("unsupported file format");
}

/* A ledger put back from a copy, while the rest of the run went on: its mark is ahead. */
static void test_an_older_copy(void **state)
{
    _cleanup_free_ char *bytes = NULL, *mark = NULL;
    struct ledger *ledger = ledger_lab_open();
    char name[sizeof ledger_lab.path + 8];
    size_t size, n_mark;

    (void)state;
    ledger_lab_add_rows(ledger, 1, 2);
    ledger_close(ledger);
    keep("", &bytes, &size);
    ledger = ledger_lab_open();
    ledger_lab_add_rows(ledger, 3, 2);
    ledger_close(ledger);
    keep("-mark", &mark, &n_mark);
    assert_int_equal(atomic_file_write(ledger_lab.path, bytes, size), 0);
    expect_refused("it ends at event 3, and events up to 6 had been committed");

    snprintf(name, sizeof name, "%s-mark", ledger_lab.path);
    mark[9]++;                  /* no mark of its own: it is not believed, and written anew */
    assert_int_equal(atomic_file_write(name, mark, n_mark), 0);
    ledger = ledger_lab_open();
    ledger_lab_add_rows(ledger, 3, 1);
    ledger_close(ledger);
    assert_int_equal(atomic_file_write(ledger_lab.path, bytes, size), 0);
    expect_refused("it ends at event 3, and events up to 5 had been committed");
}

/* A transaction that was taken back leaves no mark: the next life is not asked for its events, but still for those before it. */
static void test_what_was_taken_back_leaves_no_mark(void **state)
{
    _cleanup_free_ char *bytes = NULL;
    struct ledger *ledger = ledger_lab_open();
    size_t size;

    (void)state;
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_event(ledger, "note", 0, "never happened"), 0);
    ledger_rollback(ledger);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_put_blob(ledger, "memory", "a", 1), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
    keep("", &bytes, &size);
    ledger = ledger_lab_open();
    ledger_lab_add_rows(ledger, 1, 2);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_add_event(ledger, "note", 0, "never happened"), 0);
    ledger_rollback(ledger);
    ledger_rollback(ledger);
    assert_int_equal(ledger_begin(ledger), 0);
    assert_int_equal(ledger_put_blob(ledger, "memory", "b", 1), 0);
    assert_int_equal(ledger_commit(ledger), 0);
    ledger_close(ledger);
    assert_int_equal(atomic_file_write(ledger_lab.path, bytes, size), 0);
    expect_refused("it ends at event 1, and events up to 4 had been committed");
}

static int last_kind(const struct ledger_event *event, void *kind)
{
    snprintf(kind, 24, "%s", event->kind);
    return 0;
}

/* A configuration that has gained stages opens the run, which becomes its own when it is told so: from then on it is refused the one
 * before. */
static void test_an_extended_run(void **state)
{
    const uint8_t before[][SHA256_SIZE] = {{9}, {1, 2}}, now[SHA256_SIZE] = {5, 6};
    struct ledger *ledger;
    char kind[24] = "";
    struct error error;

    (void)state;
    memcpy(ledger_lab.run.config_digest, before[1], SHA256_SIZE);
    ledger = ledger_lab_open();
    ledger_lab_add_rows(ledger, 1, 2);
    ledger_close(ledger);

    memcpy(ledger_lab.run.config_digest, now, SHA256_SIZE);
    assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -ESTALE);
    ledger_lab.run.begins_with = before;
    ledger_lab.run.n_begins_with = 1;
    assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -ESTALE);
    ledger_lab.run.n_begins_with = 2;
    ledger_close(ledger_lab_open());            /* killed before it was told */
    ledger = ledger_lab_open();
    assert_memory_equal(ledger_run(ledger)->config_digest, before[1], SHA256_SIZE);
    assert_int_equal(ledger_extend(ledger, now), 0);
    assert_memory_equal(ledger_run(ledger)->config_digest, now, SHA256_SIZE);
    assert_int_equal(ledger_each_event(ledger, 0, last_kind, kind), 0);
    assert_string_equal(kind, "extended");
    ledger_close(ledger);

    ledger_lab.run.n_begins_with = 0;
    ledger = ledger_lab_open();
    assert_int_equal(ledger_extend(ledger, now), 0);            /* once */
    assert_int_equal(ledger_each_event(ledger, 0, last_kind, kind), 0);
    assert_string_equal(kind, "start");
    assert_true(ledger_run(ledger)->epoch == 4 && ledger_run(ledger)->seed == ledger_lab.run.seed);
    ledger_close(ledger);
    memcpy(ledger_lab.run.config_digest, before[1], SHA256_SIZE);
    assert_int_equal(ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error), -ESTALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_file_that_is_no_ledger, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_every_lost_page, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_row_that_has_changed, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_every_page_as_it_was_earlier, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_tables_that_have_changed, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_a_format_that_nobody_knows, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_an_older_copy, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_taken_back_leaves_no_mark, ledger_lab_set_up, ledger_lab_tear_down),
        cmocka_unit_test_setup_teardown(test_an_extended_run, ledger_lab_set_up, ledger_lab_tear_down),
    };

    return cmocka_run_group_tests_name("ledger_check", tests, NULL, NULL);
}
