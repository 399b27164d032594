/* ledger_sql.h - what the ledger's files share: the handle, and one way to run a statement. Private to lib/run.
 *
 *   sql_run(ledger, "INSERT ... VALUES (?,?)", "it", (uint64_t)7, "text")
 *                                                      types: i uint64_t, d double, t text, b pointer and size_t
 *   sql_query(ledger, &statement, "SELECT ...", "i", ...) -> [sql_next == 1]* -> sql_done
 *
 * Statements are prepared once and kept by the address of their text (string literals). */
#pragma once

#include <sqlite3.h>

#include "run/ledger.h"

enum { SQL_CACHE = 64 };

struct ledger {
    sqlite3 *db;
    struct ledger_run run;
    bool in_transaction, readonly;
    uint64_t next_episode, next_episode_saved;      /* saved: what a rollback returns to */
    uint64_t group_epoch_saved;
    double commit_ms, commit_worst_ms;
    struct { const char *text; sqlite3_stmt *statement; } cache[SQL_CACHE];
    int n_cache;
    char error[256];
};

int sql_run(struct ledger *ledger, const char *text, const char *types, ...);
int sql_query(struct ledger *ledger, sqlite3_stmt **ret, const char *text, const char *types, ...);
int sql_next(struct ledger *ledger, sqlite3_stmt *statement);       /* 1: a row, 0: no more, -errno */
void sql_done(sqlite3_stmt *statement);
int sql_exec(struct ledger *ledger, const char *text);              /* several statements, no results */
int sql_errno(struct ledger *ledger, int result);                   /* SQLite's code as -errno, text kept */
void sql_text(sqlite3_stmt *statement, int column, char *out, size_t size);
void sql_digest(sqlite3_stmt *statement, int column, uint8_t out[SHA256_SIZE]);     /* zeros when absent */

int ledger_migrate(struct ledger *ledger, struct error *error);
/* In a transaction and no fault armed here: 0. */
int ledger_may_write(struct ledger *ledger);
int ledger_event(struct ledger *ledger, const char *kind, uint64_t episode, const char *format, ...) _printf_(4, 5);
