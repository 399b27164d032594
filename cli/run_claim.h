/* run_claim.h - a run directory, ours: before anything is started, everything is looked at that would end it half started. */
#pragma once

#include "base/error.h"
#include "cli/life.h"
#include "daemon/run_config.h"
#include "run/rundir.h"

/* Make config->dir if it is not there, hold it, and see that what it has fits this configuration and this gantry. *ret_lock_fd
 * keeps it held; ret_run_dir: its absolute path; *ret_added: how many stages are new to the run that is there, -1 where none is.
 * config becomes the run's: its paths absolute in a new one, as its config.yaml has them in one that goes on; evaluations after
 * the run stand where they were played, if stages come behind them (daemon/run_later.h). A lock of a process that is just about to
 * end is waited for.
 * Failure: -errno, *error names place and remedy. -EBUSY: another `gantry up` or a coordinator has it; -ESTALE: of another
 * configuration; -ENOTSUP: of a newer gantry, or on a file system that will not do. */
int run_claim(struct run_config *config, struct life *life, char ret_run_dir[RUN_PATH], int *ret_lock_fd, int *ret_added,
              struct error *error);
