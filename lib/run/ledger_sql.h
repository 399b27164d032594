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

enum { SQL_CACHE = 64, LEDGER_PATH = 4096 };

struct ledger {
    sqlite3 *db;
    struct ledger_run run;
    bool in_transaction, readonly;
    uint64_t group_epoch_saved;                     /* what a rollback returns to */
    uint64_t last_event, last_event_saved;
    int mark_fd;                                    /* -1: no mark is written */
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

/* ledger_schema.c: the layouts. */
enum { LEDGER_LAYOUT = 2 };             /* the newest, PRAGMA user_version */
int ledger_layout(struct ledger *ledger, int *ret);
int ledger_check_schema(struct ledger *ledger, int layout, struct error *error);    /* -ENOTSUP: newer. -EBADMSG: another's
                                                                                     * tables */
int ledger_migrate(struct ledger *ledger, int layout);                  /* from `layout` to the newest */
int ledger_empty_totals(struct ledger *ledger);         /* of a new run, whose id their sums take */

/* ledger_check.c: is every byte that will be read one that was written? */
#define LEDGER_REMEDY "restore it from a copy, or start a new run from one of its policies/"
int ledger_add_functions(struct ledger *ledger);        /* row_sum(), which the tables use */
/* The whole file, and the run's row into ledger->run when there is one. *ret_layout: 0 for a new file. -EBADMSG: damaged. */
int ledger_check(struct ledger *ledger, int *ret_layout, struct error *error);

/* ledger_mark.c: has it come as far as it had? */
/* -EBADMSG: commits are missing. Also reads last_event. */
int ledger_mark_check(struct ledger *ledger, int layout, struct error *error);
int ledger_mark_open(struct ledger *ledger);                            /* to write it */
void ledger_mark_write(struct ledger *ledger);                          /* after a commit */

int ledger_read_run(struct ledger *ledger, struct ledger_run *ret);     /* -ENOENT: no row yet */
/* In a transaction and no fault armed here: 0. */
int ledger_may_write(struct ledger *ledger);
int ledger_event(struct ledger *ledger, const char *kind, uint64_t episode, const char *format, ...) _printf_(4, 5);
