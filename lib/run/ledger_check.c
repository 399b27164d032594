/* Is every byte that will be read one that was written? SQLite keeps no checksums: its own check finds broken trees and pages,
 * the schema's text is compared with what it must be, each row carries a sum of its columns and each table the total of those
 * sums. A row's sum takes the run's id, so that a page of another run's ledger does not pass, and its table's name. */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>

#include "base/crc32c.h"
#include "base/strbuf.h"
#include "run/ledger_sql.h"

/* ---- the sum of a row ----------------------------------------------------------------------------- */

static uint32_t add(uint32_t crc, int type, const void *bytes, size_t n)
{
    uint64_t head[2] = {htole64((uint64_t)type), htole64(n)};

    crc = crc32c(crc, head, sizeof head);
    return n ? crc32c(crc, bytes, n) : crc;
}

static uint32_t add_word(uint32_t crc, int type, uint64_t word)
{
    word = htole64(word);
    return add(crc, type, &word, sizeof word);
}

/* row_sum('table', column, ...) -> CRC-32C over the run's id and, of every argument, type (SQLite's number), size and bytes. */
static void row_sum(sqlite3_context *context, int n, sqlite3_value **values)
{
    const struct ledger *ledger = sqlite3_user_data(context);
    uint32_t crc = add_word(0, SQLITE_INTEGER, ledger->run.id);

    for (int i = 0; i < n; i++) {
        int type = sqlite3_value_type(values[i]);
        double real;
        uint64_t bits;

        switch (type) {
        case SQLITE_INTEGER:
            crc = add_word(crc, type, (uint64_t)sqlite3_value_int64(values[i]));
            break;
        case SQLITE_FLOAT:
            real = sqlite3_value_double(values[i]);
            memcpy(&bits, &real, sizeof bits);
            crc = add_word(crc, type, bits);
            break;
        case SQLITE_NULL:
            crc = add(crc, type, NULL, 0);
            break;
        default: {      /* as UTF-8, before its size is asked for */
            const void *bytes = type == SQLITE_TEXT ? (const void *)sqlite3_value_text(values[i]) : sqlite3_value_blob(values[i]);

            crc = add(crc, type, bytes, (size_t)sqlite3_value_bytes(values[i]));
        }
        }
    }
    sqlite3_result_int64(context, crc);
}

int ledger_add_functions(struct ledger *ledger)
{
    return sql_errno(ledger, sqlite3_create_function_v2(ledger->db, "row_sum", -1,
                                                        SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, ledger, row_sum,
                                                        NULL, NULL, NULL));
}

/* ---- the checks --------------------------------------------------------------------------------- */

static int damaged(struct error *error, const char *what)
{
    return error_set(error, EBADMSG, "damaged: %s: " LEDGER_REMEDY, what);
}

/* Trees, pages, and that every index has the rows of its table. */
static int check_structure(struct ledger *ledger, struct error *error)
{
    sqlite3_stmt *statement;
    char found[160], *line;
    int r = sql_query(ledger, &statement, "PRAGMA integrity_check(1)", "");

    if (r < 0)
        return r;
    r = sql_next(ledger, statement);
    if (r == 1)
        sql_text(statement, 0, found, sizeof found);
    sql_done(statement);
    if (r <= 0 || !strcmp(found, "ok"))
        return MIN(r, 0);
    while ((line = strchr(found, '\n')))
        *line = ' ';
    return damaged(error, found);
}

struct sums { int64_t wrong, n, total, n_expected, total_expected; };

/* Five numbers that a query returns; its text need not live on. */
static int read_sums(struct ledger *ledger, const char *text, struct sums *ret)
{
    sqlite3_stmt *s;
    int r = sql_errno(ledger, sqlite3_prepare_v2(ledger->db, text, -1, &s, NULL));

    if (r < 0)
        return r;
    r = sql_next(ledger, s);
    if (r == 1)
        *ret = (struct sums) {sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1), sqlite3_column_int64(s, 2),
                              sqlite3_column_int64(s, 3), sqlite3_column_int64(s, 4)};
    (void)sqlite3_finalize(s);
    return r == 1 ? 0 : r < 0 ? r : -EIO;
}

/* `sql` created `table`: it says how the rows' sums are computed. */
static int check_sums_of(struct ledger *ledger, const char *table, const char *sql, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    const char *begin = strstr(sql, "row_sum("), *end = begin ? strstr(begin, ") STORED") : NULL;
    bool has_total = strcmp(table, "totals") != 0;
    char what[120];
    struct sums s;
    int r;

    if (!end)
        return 0;       /* a table of SQLite's own */
    strbuf_addf(&text, "SELECT count(*) FILTER (WHERE sum IS NOT %.*s), count(*), sum(sum),"
                " (SELECT n FROM totals WHERE name = '%s'), (SELECT sums FROM totals WHERE name = '%s') FROM %s",
                (int)(end - begin), begin, table, table, table);
    r = text.failed ? -ENOMEM : read_sums(ledger, text.text, &s);
    if (r < 0)
        return r;
    if (s.wrong)
        snprintf(what, sizeof what, "%" PRId64 " of the rows in %s are not as they were written", s.wrong, table);
    else if (has_total && s.n != s.n_expected)
        snprintf(what, sizeof what, "%s has %" PRId64 " rows, not %" PRId64, table, s.n, s.n_expected);
    else if (has_total && s.total != s.total_expected)
        snprintf(what, sizeof what, "rows in %s are as they were earlier", table);
    else
        return 0;
    return damaged(error, what);
}

static int check_sums(struct ledger *ledger, struct error *error)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT name, sql FROM sqlite_master WHERE type = 'table'", "");

    if (r < 0)
        return r;
    while ((r = sql_next(ledger, s)) == 1) {
        r = check_sums_of(ledger, (const char *)sqlite3_column_text(s, 0), (const char *)sqlite3_column_text(s, 1), error);
        if (r < 0)
            break;
    }
    sql_done(s);
    return r;
}

/* A number in its header may say that only later programs can write it. */
static int check_writable(struct ledger *ledger, struct error *error)
{
    if (ledger->readonly || sqlite3_db_readonly(ledger->db, "main") != 1 ||
        access(sqlite3_db_filename(ledger->db, "main"), W_OK) < 0)
        return 0;
    return damaged(error, "it calls itself a file that may only be read");
}

int ledger_check(struct ledger *ledger, int *ret_layout, struct error *error)
{
    int layout, r = ledger_layout(ledger, &layout);

    if (r == 0)
        r = check_structure(ledger, error);
    if (r == 0)
        r = check_writable(ledger, error);
    if (r == 0)
        r = ledger_check_schema(ledger, layout, error);
    if (r == 0 && layout > 0) {
        r = ledger_read_run(ledger, &ledger->run);
        if (r == -ENOENT)
            r = 0;      /* it ended before its first commit */
    }
    if (r == 0 && layout >= 2)
        r = check_sums(ledger, error);
    if (r == 0)
        r = ledger_mark_check(ledger, layout, error);
    if (r == 0)
        *ret_layout = layout;
    return r;
}
