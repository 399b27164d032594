/* ledger_copy.h - a ledger to read, also where this user may write nothing: another user's run, a backup, a read-only mount.
 *
 * SQLite writes beside a file that it reads. Where it may not, the ledger is read from a copy in $TMPDIR (/tmp), which is off the
 * disk again before this returns. A log (ledger.sqlite-wal) lies beside it while somebody has it open, and after a crash; with
 * one the file alone is not all of it, and it is refused. */
#pragma once

#include "run/ledger.h"

/* As ledger_open_readonly. -EACCES: it was not closed, and the directory cannot be written to. */
int ledger_open_to_read(const char *path, struct ledger **ret, struct error *error);
