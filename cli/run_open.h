/* run_open.h - a run directory's records, opened for reading; the run may be going on.
 *
 * Failure rule: -errno with a line that names the file. */
#pragma once

#include "base/error.h"
#include "daemon/run_config.h"
#include "run/journal.h"
#include "run/ledger.h"

int run_open_ledger(const char *run_dir, struct ledger **ret, struct error *error);
/* run: the ledger's ledger_run()->id. */
int run_open_journal(const char *run_dir, uint64_t run, struct journal **ret, struct error *error);
/* The policy version that a run calls last (the newest; also of one that is up), sft (the end of its last imitation) or best (by success
 * on val states). -ENOENT: it has none, or no such name. -EBUSY: it is up. */
int run_named_policy(const char *run_dir, const char *name, uint64_t *ret, struct error *error);
