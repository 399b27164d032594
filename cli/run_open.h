/* run_open.h - a run directory's records, opened for reading; the run may be going on.
 *
 * Failure rule: -errno with a line that names the file. */
#pragma once

#include "base/error.h"
#include "run/journal.h"
#include "run/ledger.h"

int run_open_ledger(const char *run_dir, struct ledger **ret, struct error *error);
/* run: the ledger's ledger_run()->id. */
int run_open_journal(const char *run_dir, uint64_t run, struct journal **ret, struct error *error);
