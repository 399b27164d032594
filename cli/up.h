/* up.h - run all daemons of a run on this host until it is finished: what up, demo and eval share. */
#pragma once

#include <stdbool.h>

#include "daemon/run_config.h"

/* Blocks; prints progress on stdout and what went wrong on stderr. force: start although memory or disk seem too small.
 * Returns the exit status: CLI_OK also after a drain (summary.json and the ledger tell whether the run is finished). */
int up_run(const struct run_config *config, bool force);
/* The same with its progress on stderr: stdout is left to a result. */
int up_run_quietly(const struct run_config *config);
/* RUN/report.html, if all stages have ended, and a line that says where it is. Returns the exit status. */
int up_report(const struct run_config *config);
/* What is printed from here on goes to stderr, until stdout_back(what this returned). -1: it could not be. */
int stdout_aside(void);
int stdout_back(int out);
