#include "run/ledger.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "base/clock.h"
#include "base/fault.h"
#include "run/ledger_place.h"
#include "run/ledger_sql.h"

int ledger_read_run(struct ledger *ledger, struct ledger_run *ret)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT id, seed, config, epoch, group_epoch, created_ms FROM run", "");

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
    }
    sql_done(s);
    return r == 1 ? 0 : r < 0 ? r : -ENOENT;
}

/* Does a run with this digest belong to who opens it? */
static bool belongs(const uint8_t digest[SHA256_SIZE], const struct ledger_run *who)
{
    for (size_t i = 0; i < who->n_begins_with; i++)
        if (!memcmp(digest, who->begins_with[i], SHA256_SIZE))
            return true;
    return !memcmp(digest, who->config_digest, SHA256_SIZE);
}

/* One commit: the run's row if it is new, the epoch raised. */
static int enter(struct ledger *ledger, const struct ledger_run *create, struct error *error)
{
    struct ledger_run *run = &ledger->run;
    int r = ledger_begin(ledger);

    if (r < 0)
        return r;
    r = ledger_read_run(ledger, run);
    if (r == -ENOENT) {
        *run = *create;
        run->begins_with = NULL;
        run->n_begins_with = 0;
        run->epoch = 0;
        r = ledger_empty_totals(ledger);
        if (r == 0)
            r = sql_run(ledger, "INSERT INTO run VALUES(1,?,?,?,0,?,?)", "iibii", run->id, run->seed, run->config_digest,
                        (size_t)SHA256_SIZE, run->group_epoch, run->created_ms);
    } else if (r == 0 && !belongs(run->config_digest, create)) {
        r = error_set(error, ESTALE,
                      "the run was started with another configuration: use its own config.yaml, or another run.dir");
    }
    run->epoch++;
    if (r == 0)
        r = sql_run(ledger, "UPDATE run SET epoch = ?", "i", run->epoch);
    if (r == 0)
        r = ledger_event(ledger, "start", 0, "epoch=%" PRIu64 "%s%s", run->epoch, create->build[0] ? " build=" : "",
                         create->build);
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
        return error_set(error, EBADMSG, "%s: damaged: %s: " LEDGER_REMEDY, path, ledger->error);
    return error_set(error, -r, "%s: %s", path, ledger->error[0] ? ledger->error : strerror(-r));
}

static int open_database(const char *path, int flags, struct ledger **ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = calloc(1, sizeof *ledger);
    int r;

    if (!ledger)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    ledger->mark_fd = -1;
    if (!(flags & SQLITE_OPEN_CREATE) && access(path, F_OK) < 0)
        return error_set(error, errno, errno == ENOENT ? "%s: %m: there is no run, or it has not started" : "%s: %m", path);
    r = sql_errno(ledger, sqlite3_open_v2(path, &ledger->db, flags | SQLITE_OPEN_NOMUTEX, NULL));
    if (r == 0)
        r = sql_errno(ledger, sqlite3_busy_timeout(ledger->db, 2000));     /* a reader that is about to leave */
    if (r == 0)
        r = ledger_add_functions(ledger);
    if (r == 0)
        r = sql_exec(ledger, "PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF;"    /* for files from anywhere, says SQLite */
                     " PRAGMA recursive_triggers=ON;");     /* INSERT OR REPLACE deletes a row, and its total must know */
    if (r < 0)
        return describe(error, ledger, path, r);
    *ret = TAKE_PTR(ledger);
    return 0;
}

/* A damaged file is left as it was found: closing it must not write its log back into it. */
static int check_and_keep(struct ledger *ledger, int *ret_layout, struct error *error)
{
    int r = sql_errno(ledger, sqlite3_db_config(ledger->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL));

    if (r == 0)
        r = ledger_check(ledger, ret_layout, error);
    if (r == 0)
        r = sql_errno(ledger, sqlite3_db_config(ledger->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL));
    return r;
}

int ledger_open(const char *path, const struct ledger_run *create, struct ledger **ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    enum ledger_place place;
    int layout, r;

    if (error)
        *error = (struct error) {0};
    r = ledger_place_check(path, &place, error);
    if (r == 0)
        r = open_database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &ledger, error);
    if (r < 0)
        return r;
    r = sql_exec(ledger, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL;"
                 " PRAGMA temp_store=MEMORY; PRAGMA cache_size=-512;");   /* KB: rows are written once, hardly read */
    if (r == 0)
        r = check_and_keep(ledger, &layout, error);
    if (r == 0)
        r = sql_exec(ledger, "PRAGMA journal_mode=WAL;");
    if (r == 0)
        r = ledger_migrate(ledger, layout);
    if (r == 0)
        r = ledger_mark_open(ledger);
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
    int layout, r;

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
        r = check_and_keep(ledger, &layout, error);
    if (r == 0 && layout == 0)
        r = error_set(error, ENOTSUP, "it is empty: its run never started");
    if (r < 0)
        return describe(error, ledger, path, r);
    *ret = TAKE_PTR(ledger);
    return 0;
}

int ledger_extend(struct ledger *ledger, const uint8_t config_digest[SHA256_SIZE])
{
    int r;

    if (!memcmp(ledger->run.config_digest, config_digest, SHA256_SIZE))
        return 0;
    r = ledger_begin(ledger);
    if (r == 0)
        r = sql_run(ledger, "UPDATE run SET config = ?", "b", config_digest, (size_t)SHA256_SIZE);
    if (r == 0)
        r = ledger_event(ledger, "extended", 0, "stages were added");
    if (r == 0)
        r = ledger_commit(ledger);
    if (r < 0) {
        ledger_rollback(ledger);
        return r;
    }
    memcpy(ledger->run.config_digest, config_digest, SHA256_SIZE);
    return 0;
}

struct ledger *ledger_close(struct ledger *ledger)
{
    if (!ledger)
        return NULL;
    ledger_rollback(ledger);
    for (int i = 0; i < ledger->n_cache; i++)
        (void)sqlite3_finalize(ledger->cache[i].statement);
    (void)sqlite3_close(ledger->db);
    closep(&ledger->mark_fd);
    free(ledger);
    return NULL;
}

const struct ledger_run *ledger_run(const struct ledger *ledger) { return &ledger->run; }
const char *ledger_error(const struct ledger *ledger) { return ledger->error; }

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
    ledger->group_epoch_saved = ledger->run.group_epoch;
    ledger->last_event_saved = ledger->last_event;
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
    ledger_mark_write(ledger);
    (void)fault_point("ledger.committed");
    return 0;
}

void ledger_rollback(struct ledger *ledger)
{
    if (!ledger->in_transaction)
        return;
    (void)sqlite3_exec(ledger->db, "ROLLBACK", NULL, NULL, NULL);   /* -errno: SQLite had rolled back by itself */
    ledger->in_transaction = false;
    ledger->run.group_epoch = ledger->group_epoch_saved;
    ledger->last_event = ledger->last_event_saved;
}

int ledger_may_write(struct ledger *ledger)
{
    return ledger->in_transaction ? fault_errno("ledger.write") : -EINVAL;
}

int ledger_event(struct ledger *ledger, const char *kind, uint64_t episode, const char *format, ...)
{
    char text[sizeof ((struct ledger_event *)0)->text];
    va_list args;
    int r;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r = sql_run(ledger, "INSERT INTO events(wall_ms, epoch, kind, episode, text) VALUES(?,?,?,?,?)", "iitit",
                clock_wall_ms(), ledger->run.epoch, kind, episode, text);
    if (r == 0)
        ledger->last_event = (uint64_t)sqlite3_last_insert_rowid(ledger->db);
    return r;
}
