#include "run/ledger.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "base/clock.h"
#include "base/fault.h"
#include "run/ledger_place.h"
#include "run/ledger_sql.h"

/* Index = the user_version it leads to, less one. Append; never edit one that has shipped. */
static const char *const migrations[] = {
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
    "CREATE TRIGGER events_last BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;",
};

static int user_version(struct ledger *ledger, int *ret)
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

int ledger_migrate(struct ledger *ledger, struct error *error)
{
    char pragma[48];
    int version, r = user_version(ledger, &version);

    if (r < 0)
        return r;
    if (version > (int)ARRAY_SIZE(migrations))
        return error_set(error, ENOTSUP, "the ledger has layout %d, this gantry knows up to %zu: use the gantry that wrote it",
                         version, ARRAY_SIZE(migrations));
    for (; version < (int)ARRAY_SIZE(migrations); version++) {
        snprintf(pragma, sizeof pragma, "PRAGMA user_version=%d; COMMIT;", version + 1);
        if ((r = sql_exec(ledger, "BEGIN IMMEDIATE;")) < 0)
            return r;
        r = sql_exec(ledger, migrations[version]);
        if (r == 0)
            r = sql_exec(ledger, pragma);
        if (r < 0) {
            (void)sqlite3_exec(ledger->db, "ROLLBACK", NULL, NULL, NULL);
            return r;
        }
    }
    return 0;
}

/* The structure of the file, not the bytes of its rows: SQLite keeps no checksums. 13 ms for 20,000 episodes. */
static int check_structure(struct ledger *ledger, struct error *error)
{
    sqlite3_stmt *statement;
    char found[160], *line;
    int r = sql_query(ledger, &statement, "PRAGMA quick_check(1)", "");

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
    return error_set(error, EBADMSG, "damaged: %s: restore it from a copy, or start a new run directory", found);
}

static int read_run(struct ledger *ledger, struct ledger_run *ret)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT id, seed, config, epoch, group_epoch, created_ms,"
                      " (SELECT ifnull(max(episode), 0) + 1 FROM episodes) FROM run", "");

    if (r < 0)
        return r;
    r = sql_next(ledger, s);
    if (r == 1) {
        *ret = (struct ledger_run) {
            .id = (uint64_t)sqlite3_column_int64(s, 0), .seed = (uint64_t)sqlite3_column_int64(s, 1),
            .epoch = (uint64_t)sqlite3_column_int64(s, 3), .group_epoch = (uint64_t)sqlite3_column_int64(s, 4),
            .created_ms = (uint64_t)sqlite3_column_int64(s, 5),
        };
        sql_digest(s, 2, ret->config_digest);
        ledger->next_episode = (uint64_t)sqlite3_column_int64(s, 6);
    }
    sql_done(s);
    return r == 1 ? 0 : r < 0 ? r : -ENOENT;
}

/* One commit: the run's row if it is new, the epoch raised. */
static int enter(struct ledger *ledger, const struct ledger_run *create, struct error *error)
{
    struct ledger_run *run = &ledger->run;
    int r = ledger_begin(ledger);

    if (r < 0)
        return r;
    r = read_run(ledger, run);
    if (r == -ENOENT) {
        *run = *create;
        run->epoch = 0;
        ledger->next_episode = 1;
        r = sql_run(ledger, "INSERT INTO run VALUES(1,?,?,?,0,?,?)", "iibii", run->id, run->seed, run->config_digest,
                    (size_t)SHA256_SIZE, run->group_epoch, run->created_ms);
    } else if (r == 0 && memcmp(run->config_digest, create->config_digest, SHA256_SIZE)) {
        r = error_set(error, ESTALE,
                      "the run was started with another configuration: use its own config.yaml, or another run.dir");
    }
    run->epoch++;
    if (r == 0)
        r = sql_run(ledger, "UPDATE run SET epoch = ?", "i", run->epoch);
    if (r == 0)
        r = ledger_event(ledger, "start", 0, "epoch=%" PRIu64, run->epoch);
    if (r == 0)
        r = ledger_commit(ledger);
    if (r < 0)
        ledger_rollback(ledger);
    return r;
}

static int describe(struct error *error, const struct ledger *ledger, const char *path, int r)
{
    if (error && error->errnum == -r)
        return error_prefix(error, r, "%s", path);
    if (r == -EBUSY)
        return error_set(error, EBUSY, "%s: held by another process; a run has one coordinator", path);
    if (r == -EBADMSG)
        return error_set(error, EBADMSG, "%s: %s: restore it from a copy, or start a new run directory", path, ledger->error);
    return error_set(error, -r, "%s: %s", path, ledger->error[0] ? ledger->error : strerror(-r));
}

static int open_database(const char *path, int flags, struct ledger **ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = calloc(1, sizeof *ledger);
    int r;

    if (!ledger)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    r = sql_errno(ledger, sqlite3_open_v2(path, &ledger->db, flags | SQLITE_OPEN_NOMUTEX, NULL));
    if (r == 0)
        r = sql_errno(ledger, sqlite3_busy_timeout(ledger->db, 2000));     /* a reader that is about to leave */
    if (r < 0)
        return describe(error, ledger, path, r);
    *ret = TAKE_PTR(ledger);
    return 0;
}

int ledger_open(const char *path, const struct ledger_run *create, struct ledger **ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    enum ledger_place place;
    int r;

    if (error)
        *error = (struct error) {0};
    r = ledger_place_check(path, &place, error);
    if (r == 0)
        r = open_database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &ledger, error);
    if (r < 0)
        return r;
    r = sql_exec(ledger, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                 " PRAGMA foreign_keys=OFF; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-512;");   /* KB: rows are written once, hardly read */
    if (r == 0)
        r = check_structure(ledger, error);
    if (r == 0)
        r = ledger_migrate(ledger, error);
    if (r == 0)
        r = enter(ledger, create, error);
    if (r < 0)
        return describe(error, ledger, path, r);
    (void)sqlite3_busy_timeout(ledger->db, 0);      /* ours alone now: nothing to wait for */
    *ret = TAKE_PTR(ledger);
    return 0;
}

int ledger_open_readonly(const char *path, struct ledger **ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    char name[LEDGER_PLACE_NAME];
    enum ledger_place place;
    int r, version = 0;

    if (error)
        *error = (struct error) {0};
    /* Read-write for SQLite's sake: reading a WAL that a crash left behind needs its index rebuilt. */
    r = open_database(path, SQLITE_OPEN_READWRITE, &ledger, error);
    if (r < 0)
        return r;
    ledger->readonly = true;
    r = ledger_place_of(path, &place, name);
    if (r == 0 && place != LEDGER_LOCAL)        /* no memory to share: one reader at a time */
        r = sql_exec(ledger, "PRAGMA locking_mode=EXCLUSIVE;");
    if (r == 0)
        r = sql_exec(ledger, "PRAGMA query_only=ON;");
    if (r == 0)
        r = user_version(ledger, &version);
    if (r == 0 && (version < 1 || version > (int)ARRAY_SIZE(migrations)))
        r = error_set(error, ENOTSUP, "the ledger has layout %d, this gantry reads 1 to %zu: use the gantry that wrote it", version, ARRAY_SIZE(migrations));
    if (r == 0)
        r = read_run(ledger, &ledger->run);
    if (r < 0)
        return describe(error, ledger, path, r);
    *ret = TAKE_PTR(ledger);
    return 0;
}

int ledger_extend(const char *path, const uint8_t config_digest[SHA256_SIZE], struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    int r;

    if (error)
        *error = (struct error) {0};
    r = open_database(path, SQLITE_OPEN_READWRITE, &ledger, error);
    if (r < 0)
        return r;
    r = sql_exec(ledger, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;");
    if (r == 0)
        r = ledger_migrate(ledger, error);
    if (r == 0)
        r = ledger_begin(ledger);
    if (r == 0)
        r = read_run(ledger, &ledger->run);
    if (r == 0)
        r = sql_run(ledger, "UPDATE run SET config = ?", "b", config_digest, (size_t)SHA256_SIZE);
    if (r == 0)
        r = ledger_event(ledger, "extended", 0, "stages were added");
    if (r == 0)
        r = ledger_commit(ledger);
    return r < 0 ? describe(error, ledger, path, r) : 0;
}

struct ledger *ledger_close(struct ledger *ledger)
{
    if (!ledger)
        return NULL;
    ledger_rollback(ledger);
    for (int i = 0; i < ledger->n_cache; i++)
        (void)sqlite3_finalize(ledger->cache[i].statement);
    (void)sqlite3_close(ledger->db);
    free(ledger);
    return NULL;
}

const struct ledger_run *ledger_run(const struct ledger *ledger) { return &ledger->run; }
const char *ledger_error(const struct ledger *ledger) { return ledger->error; }
uint64_t ledger_next_episode(const struct ledger *ledger) { return ledger->next_episode; }

double ledger_commit_ms(const struct ledger *ledger, double *ret_worst)
{
    if (ret_worst)
        *ret_worst = ledger->commit_worst_ms;
    return ledger->commit_ms;
}

int ledger_begin(struct ledger *ledger)
{
    int r = fault_errno("ledger.begin");

    if (r < 0)
        return r;
    if (ledger->in_transaction || ledger->readonly)
        return -EINVAL;
    r = sql_run(ledger, "BEGIN IMMEDIATE", "");
    if (r < 0)
        return r;
    ledger->in_transaction = true;
    ledger->next_episode_saved = ledger->next_episode;
    ledger->group_epoch_saved = ledger->run.group_epoch;
    return 0;
}

int ledger_commit(struct ledger *ledger)
{
    uint64_t start = clock_mono_ns();
    int r = fault_errno("ledger.commit");

    if (r < 0)
        return r;
    if (!ledger->in_transaction)
        return -EINVAL;
    r = sql_run(ledger, "COMMIT", "");
    if (r < 0)
        return r;
    ledger->in_transaction = false;
    ledger->commit_ms = (double)(clock_mono_ns() - start) / 1e6;
    ledger->commit_worst_ms = MAX(ledger->commit_worst_ms, ledger->commit_ms);
    (void)fault_point("ledger.committed");
    return 0;
}

void ledger_rollback(struct ledger *ledger)
{
    if (!ledger->in_transaction)
        return;
    (void)sqlite3_exec(ledger->db, "ROLLBACK", NULL, NULL, NULL);   /* -errno: SQLite had rolled back by itself */
    ledger->in_transaction = false;
    ledger->next_episode = ledger->next_episode_saved;
    ledger->run.group_epoch = ledger->group_epoch_saved;
}

int ledger_may_write(struct ledger *ledger)
{
    return ledger->in_transaction ? fault_errno("ledger.write") : -EINVAL;
}

int ledger_event(struct ledger *ledger, const char *kind, uint64_t episode, const char *format, ...)
{
    char text[sizeof ((struct ledger_event *)0)->text];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return sql_run(ledger, "INSERT INTO events(wall_ms, epoch, kind, episode, text) VALUES(?,?,?,?,?)", "iitit",
                   clock_wall_ms(), ledger->run.epoch, kind, episode, text);
}
