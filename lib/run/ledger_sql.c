#include "run/ledger_sql.h"

#include <errno.h>
#include <stdarg.h>

int sql_errno(struct ledger *ledger, int result)
{
    int number = errno;

    if (result == SQLITE_OK || result == SQLITE_ROW || result == SQLITE_DONE)
        return 0;
    snprintf(ledger->error, sizeof ledger->error, "%s", ledger->db ? sqlite3_errmsg(ledger->db) : sqlite3_errstr(result));
    switch (result & 0xff) {
    case SQLITE_IOERR:          /* it tells ENOSPC alone apart, and sqlite3_system_errno nothing: the call that failed left it */
        return number == EDQUOT || number == EFBIG || number == EROFS ? -number : -EIO;
    case SQLITE_BUSY: case SQLITE_LOCKED: return -EBUSY;
    case SQLITE_FULL: return -ENOSPC;
    case SQLITE_NOMEM: return -ENOMEM;
    case SQLITE_CONSTRAINT: return -EEXIST;
    case SQLITE_READONLY: case SQLITE_PERM: return -EROFS;
    case SQLITE_CANTOPEN: return -ENOENT;
    case SQLITE_CORRUPT: case SQLITE_NOTADB: return -EBADMSG;
    case SQLITE_ERROR: return -EBADMSG;         /* our statements are right: it is the file that has no such table or format */
    default: return -EIO;
    }
}

int sql_exec(struct ledger *ledger, const char *text)
{
    return sql_errno(ledger, sqlite3_exec(ledger->db, text, NULL, NULL, NULL));
}

static int prepared(struct ledger *ledger, const char *text, sqlite3_stmt **ret)
{
    sqlite3_stmt *statement;
    int r;

    for (int i = 0; i < ledger->n_cache; i++)
        if (ledger->cache[i].text == text) {
            *ret = ledger->cache[i].statement;
            return 0;
        }
    if (ledger->n_cache == SQL_CACHE)
        return -ENOBUFS;        /* not -ENOSPC: that is waited for */
    r = sql_errno(ledger, sqlite3_prepare_v3(ledger->db, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL));
    if (r < 0)
        return r;
    ledger->cache[ledger->n_cache].text = text;
    ledger->cache[ledger->n_cache++].statement = statement;
    *ret = statement;
    return 0;
}

/* Everything bound here outlives the statement's run, which ends before the caller returns: SQLITE_STATIC. */
static int bind_all(struct ledger *ledger, sqlite3_stmt *statement, const char *types, va_list args)
{
    int r = SQLITE_OK;

    for (int i = 1; *types && r == SQLITE_OK; types++, i++)
        switch (*types) {
        case 'i':
            r = sqlite3_bind_int64(statement, i, (sqlite3_int64)va_arg(args, uint64_t));
            break;
        case 'd':
            r = sqlite3_bind_double(statement, i, va_arg(args, double));
            break;
        case 't':
            r = sqlite3_bind_text(statement, i, va_arg(args, const char *), -1, SQLITE_STATIC);
            break;
        case 'b': {
            const void *bytes = va_arg(args, const void *);

            r = sqlite3_bind_blob64(statement, i, bytes, va_arg(args, size_t), SQLITE_STATIC);
            break;
        }
        default:
            return -EINVAL;
        }
    return sql_errno(ledger, r);
}

void sql_done(sqlite3_stmt *statement)
{
    (void)sqlite3_reset(statement);
    (void)sqlite3_clear_bindings(statement);
}

/* Prepared and bound; the caller's to be done with. */
static int bound(struct ledger *ledger, sqlite3_stmt **ret, const char *text, const char *types, va_list args)
{
    sqlite3_stmt *statement;
    int r = prepared(ledger, text, &statement);

    if (r < 0)
        return r;
    r = bind_all(ledger, statement, types, args);
    if (r < 0) {
        sql_done(statement);
        return r;
    }
    *ret = statement;
    return 0;
}

int sql_query(struct ledger *ledger, sqlite3_stmt **ret, const char *text, const char *types, ...)
{
    va_list args;
    int r;

    va_start(args, types);
    r = bound(ledger, ret, text, types, args);
    va_end(args);
    return r;
}

int sql_next(struct ledger *ledger, sqlite3_stmt *statement)
{
    int result = sqlite3_step(statement);

    return result == SQLITE_ROW ? 1 : sql_errno(ledger, result);
}

int sql_run(struct ledger *ledger, const char *text, const char *types, ...)
{
    sqlite3_stmt *statement;
    va_list args;
    int r;

    va_start(args, types);
    r = bound(ledger, &statement, text, types, args);
    va_end(args);
    if (r < 0)
        return r;
    r = sql_next(ledger, statement);
    sql_done(statement);
    return r < 0 ? r : 0;
}

void sql_text(sqlite3_stmt *statement, int column, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);

    snprintf(out, size, "%s", text ? text : "");
}

void sql_digest(sqlite3_stmt *statement, int column, uint8_t out[SHA256_SIZE])
{
    const void *bytes = sqlite3_column_blob(statement, column);

    memset(out, 0, SHA256_SIZE);
    if (bytes && sqlite3_column_bytes(statement, column) == SHA256_SIZE)
        memcpy(out, bytes, SHA256_SIZE);
}
