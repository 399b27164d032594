/* The ledger's tables, layout by layout, and the proof that those in a file are the ones of its layout. */
#include <errno.h>

#include "base/strbuf.h"
#include "run/ledger_sql.h"

/* Never edit a layout that has shipped: old runs are checked against its text. */
static const char layout_1[] =
    "CREATE TABLE run(one INTEGER PRIMARY KEY CHECK(one = 1), id INTEGER, seed INTEGER, config BLOB, epoch INTEGER,"
    " group_epoch INTEGER, created_ms INTEGER);"
    "CREATE TABLE stages(stage INTEGER PRIMARY KEY, name TEXT, kind TEXT, state INTEGER, start_ms INTEGER, end_ms INTEGER,"
    " wall_s REAL, policy_in INTEGER, policy_out INTEGER);"
    "CREATE TABLE iterations(stage INTEGER, iteration INTEGER, name TEXT, purpose INTEGER, policy_version INTEGER,"
    " prm_version INTEGER, state INTEGER, first_episode INTEGER, last_episode INTEGER, start_ms INTEGER, end_ms INTEGER,"
    " plan_digest BLOB, PRIMARY KEY(stage, iteration)) WITHOUT ROWID;"
    "CREATE TABLE episodes(episode INTEGER PRIMARY KEY, stage INTEGER, iteration INTEGER, purpose INTEGER, split INTEGER,"
    " task TEXT, state_seed INTEGER, policy_version INTEGER, prm_version INTEGER, temperature REAL, search_n INTEGER,"
    " max_steps INTEGER, sample_key INTEGER, tag TEXT, replaces INTEGER, state TEXT NOT NULL, failures INTEGER, suspect INTEGER,"
    " success INTEGER, timeout INTEGER, steps INTEGER, member INTEGER, reward REAL, progress_end REAL, digest BLOB, reason TEXT);"
    "CREATE INDEX episodes_by_iteration ON episodes(stage, iteration);"
    "CREATE TABLE versions(kind INTEGER, number INTEGER, parent INTEGER, stage INTEGER, iteration INTEGER, digest BLOB, dir TEXT,"
    " gate_passed INTEGER, gate_text TEXT, metrics TEXT, committed_ms INTEGER, PRIMARY KEY(kind, number)) WITHOUT ROWID;"
    "CREATE TABLE blobs(name TEXT PRIMARY KEY, bytes BLOB) WITHOUT ROWID;"
    "CREATE TABLE scalars(stage INTEGER, iteration INTEGER, name TEXT, value REAL, wall_ms INTEGER,"
    " PRIMARY KEY(stage, iteration, name)) WITHOUT ROWID;"
    "CREATE TABLE events(sequence INTEGER PRIMARY KEY AUTOINCREMENT, wall_ms INTEGER, epoch INTEGER, kind TEXT, episode INTEGER,"
    " text TEXT);"
    "CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;"
    "CREATE TRIGGER events_last BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;";

/* Layout 2 gave every row, as its last column, the sum of the others (ledger_check.c), which SQLite computes anew with each
 * INSERT and UPDATE; and every table the number of its rows and the total of their sums, so that a page as it was earlier, whose
 * rows are right one by one, does not pass. */
#define SUM(table, columns) ", sum INTEGER NOT NULL AS (row_sum('" table "', " columns ")) STORED"
#define TOTAL(table)                                                                                                        \
    "CREATE TRIGGER " table "_more AFTER INSERT ON " table " BEGIN"                                                         \
    " UPDATE totals SET n = n + 1, sums = sums + NEW.sum WHERE name = '" table "'; END;"                                    \
    "CREATE TRIGGER " table "_other AFTER UPDATE ON " table " BEGIN"                                                        \
    " UPDATE totals SET sums = sums - OLD.sum + NEW.sum WHERE name = '" table "'; END;"                                     \
    "CREATE TRIGGER " table "_less AFTER DELETE ON " table " BEGIN"                                                         \
    " UPDATE totals SET n = n - 1, sums = sums - OLD.sum WHERE name = '" table "'; END;"
static const char layout_2[] =
    "CREATE TABLE run(one INTEGER PRIMARY KEY CHECK(one = 1), id INTEGER, seed INTEGER, config BLOB, epoch INTEGER,"
    " group_epoch INTEGER, created_ms INTEGER" SUM("run", "one, id, seed, config, epoch, group_epoch, created_ms") ");"
    "CREATE TABLE stages(stage INTEGER PRIMARY KEY, name TEXT, kind TEXT, state INTEGER, start_ms INTEGER, end_ms INTEGER,"
    " wall_s REAL, policy_in INTEGER, policy_out INTEGER"
    SUM("stages", "stage, name, kind, state, start_ms, end_ms, wall_s, policy_in, policy_out") ");"
    "CREATE TABLE iterations(stage INTEGER, iteration INTEGER, name TEXT, purpose INTEGER, policy_version INTEGER,"
    " prm_version INTEGER, state INTEGER, first_episode INTEGER, last_episode INTEGER, start_ms INTEGER, end_ms INTEGER,"
    " plan_digest BLOB"
    SUM("iterations", "stage, iteration, name, purpose, policy_version, prm_version, state, first_episode, last_episode, start_ms,"
        " end_ms, plan_digest") ", PRIMARY KEY(stage, iteration)) WITHOUT ROWID;"
    "CREATE TABLE episodes(episode INTEGER PRIMARY KEY, stage INTEGER, iteration INTEGER, purpose INTEGER, split INTEGER,"
    " task TEXT, state_seed INTEGER, policy_version INTEGER, prm_version INTEGER, temperature REAL, search_n INTEGER,"
    " max_steps INTEGER, sample_key INTEGER, tag TEXT, replaces INTEGER, state TEXT NOT NULL, failures INTEGER, suspect INTEGER,"
    " success INTEGER, timeout INTEGER, steps INTEGER, member INTEGER, reward REAL, progress_end REAL, digest BLOB, reason TEXT"
    SUM("episodes", "episode, stage, iteration, purpose, split, task, state_seed, policy_version, prm_version, temperature, search_n,"
        " max_steps, sample_key, tag, replaces, state, failures, suspect, success, timeout, steps, member, reward, progress_end,"
        " digest, reason") ");"
    "CREATE TABLE versions(kind INTEGER, number INTEGER, parent INTEGER, stage INTEGER, iteration INTEGER, digest BLOB, dir TEXT,"
    " gate_passed INTEGER, gate_text TEXT, metrics TEXT, committed_ms INTEGER"
    SUM("versions", "kind, number, parent, stage, iteration, digest, dir, gate_passed, gate_text, metrics, committed_ms")
    ", PRIMARY KEY(kind, number)) WITHOUT ROWID;"
    "CREATE TABLE blobs(name TEXT PRIMARY KEY, bytes BLOB" SUM("blobs", "name, bytes") ") WITHOUT ROWID;"
    "CREATE TABLE scalars(stage INTEGER, iteration INTEGER, name TEXT, value REAL, wall_ms INTEGER"
    SUM("scalars", "stage, iteration, name, value, wall_ms") ", PRIMARY KEY(stage, iteration, name)) WITHOUT ROWID;"
    "CREATE TABLE events(sequence INTEGER PRIMARY KEY AUTOINCREMENT, wall_ms INTEGER, epoch INTEGER, kind TEXT, episode INTEGER,"
    " text TEXT" SUM("events", "sequence, wall_ms, epoch, kind, episode, text") ");"
    "CREATE INDEX episodes_by_iteration ON episodes(stage, iteration);"
    "CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;"
    "CREATE TRIGGER events_last BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;"
    "CREATE TABLE totals(name TEXT PRIMARY KEY, n INTEGER, sums INTEGER" SUM("totals", "name, n, sums") ") WITHOUT ROWID;"
    TOTAL("run") TOTAL("stages") TOTAL("iterations") TOTAL("episodes") TOTAL("versions") TOTAL("blobs") TOTAL("scalars")
    TOTAL("events");

#define EMPTY_TOTALS "INSERT OR REPLACE INTO totals VALUES('run', 0, 0), ('stages', 0, 0), ('iterations', 0, 0), ('episodes', 0, 0)," \
    " ('versions', 0, 0), ('blobs', 0, 0), ('scalars', 0, 0), ('events', 0, 0);"

static const char out_of_the_way_1[] =
    "DROP INDEX episodes_by_iteration; DROP TRIGGER events_stay; DROP TRIGGER events_last;"
    "ALTER TABLE run RENAME TO run_1; ALTER TABLE stages RENAME TO stages_1; ALTER TABLE iterations RENAME TO iterations_1;"
    "ALTER TABLE episodes RENAME TO episodes_1; ALTER TABLE versions RENAME TO versions_1; ALTER TABLE blobs RENAME TO blobs_1;"
    "ALTER TABLE scalars RENAME TO scalars_1; ALTER TABLE events RENAME TO events_1;";
#define TAKE_OVER(table) "INSERT INTO " table " SELECT * FROM " table "_1; DROP TABLE " table "_1;"
static const char taken_over_1[] = EMPTY_TOTALS
    TAKE_OVER("run") TAKE_OVER("stages") TAKE_OVER("iterations") TAKE_OVER("episodes") TAKE_OVER("versions") TAKE_OVER("blobs")
    TAKE_OVER("scalars") TAKE_OVER("events");

static const struct layout {
    const char *tables;             /* what makes an empty ledger */
    const char *before, *after;     /* run around `tables` in a ledger of the layout below */
} layouts[LEDGER_LAYOUT + 1] = {
    [0] = {.tables = ""},
    [1] = {.tables = layout_1},
    [2] = {.tables = layout_2, .before = out_of_the_way_1, .after = taken_over_1},
};

int ledger_layout(struct ledger *ledger, int *ret)
{
    sqlite3_stmt *statement;
    int r = sql_query(ledger, &statement, "PRAGMA user_version", "");

    if (r < 0)
        return r;
    r = sql_next(ledger, statement);
    if (r > 0)
        *ret = sqlite3_column_int(statement, 0);
    sql_done(statement);
    return r == 1 ? 0 : r < 0 ? r : -EIO;
}

/* Everything the file says of its tables, indexes and triggers. */
static int schema_text(struct ledger *ledger, struct strbuf *text)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || ifnull(sql, '') FROM sqlite_master"
                      " ORDER BY type, name", "");

    if (r < 0)
        return r;
    while ((r = sql_next(ledger, s)) == 1) {
        strbuf_add(text, sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0));
        strbuf_addc(text, '\n');
    }
    sql_done(s);
    return r < 0 ? r : text->failed ? -ENOMEM : 0;
}

/* An empty ledger of that layout, in memory. layout: 0 to LEDGER_LAYOUT. */
static int model_of(int layout, struct ledger **ret)
{
    _cleanup_(ledger_closep) struct ledger *model = calloc(1, sizeof *model);
    int r;

    if (!model)
        return -ENOMEM;
    model->mark_fd = -1;
    r = sql_errno(model, sqlite3_open(":memory:", &model->db));
    if (r == 0)
        r = ledger_add_functions(model);
    if (r == 0)
        r = sql_exec(model, layouts[layout].tables);
    if (r == 0)
        *ret = TAKE_PTR(model);
    return r;
}

int ledger_check_schema(struct ledger *ledger, int layout, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf found = STRBUF_INIT, expected = STRBUF_INIT;
    _cleanup_(ledger_closep) struct ledger *model = NULL;
    int r;

    if (layout < 0 || layout > LEDGER_LAYOUT)
        return error_set(error, ENOTSUP, "the ledger has layout %d, this gantry knows up to %d: use the gantry that wrote it",
                         layout, LEDGER_LAYOUT);
    r = model_of(layout, &model);
    if (r == 0)
        r = schema_text(model, &expected);
    if (r == 0)
        r = schema_text(ledger, &found);
    if (r == 0 && strcmp(found.text, expected.text))
        return error_set(error, EBADMSG, "damaged: its tables are not those of layout %d: " LEDGER_REMEDY, layout);
    return r;
}

static int migrate_step(struct ledger *ledger, int from, int to)
{
    char pragma[48];
    int r = sql_exec(ledger, "BEGIN IMMEDIATE;");

    if (r < 0)
        return r;
    if (from > 0)
        r = sql_exec(ledger, layouts[to].before);
    if (r == 0)
        r = sql_exec(ledger, layouts[to].tables);
    if (r == 0 && from > 0)
        r = sql_exec(ledger, layouts[to].after);
    snprintf(pragma, sizeof pragma, "PRAGMA user_version=%d; COMMIT;", to);
    if (r == 0)
        r = sql_exec(ledger, pragma);
    if (r < 0)
        (void)sqlite3_exec(ledger->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

int ledger_empty_totals(struct ledger *ledger) { return sql_exec(ledger, EMPTY_TOTALS); }

int ledger_migrate(struct ledger *ledger, int layout)
{
    int r = 0;

    while (r == 0 && layout < LEDGER_LAYOUT) {
        int to = layout == 0 ? LEDGER_LAYOUT : layout + 1;      /* a new file: the newest at once */

        r = migrate_step(ledger, layout, to);
        layout = to;
    }
    return r;
}
