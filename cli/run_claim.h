/* run_claim.h - a run directory, ours: before anything is started, everything is looked at that would end it half started. */
#pragma once

#include "base/error.h"
#include "cli/life.h"
#include "daemon/run_config.h"
#include "run/rundir.h"

/* Make config->dir if it is not there, hold it, and see that what it has fits this configuration and this gantry. *ret_lock_fd
 * keeps it held; ret_run_dir: its absolute path; *ret_resumes: it has a run already. Failure: -errno, *error names place and
 * remedy (-EBUSY: another `gantry up` or a coordinator has it; -ESTALE: of another configuration; -ENOTSUP: of a newer gantry, or
 * on a file system that will not do). config's paths become the run's: absolute in a new one, as its config.yaml has them in one
 * that goes on. A lock of a process that is just about to end is waited for. */
int run_claim(struct run_config *config, struct life *life, char ret_run_dir[RUN_PATH], int *ret_lock_fd, bool *ret_resumes,
              struct error *error);
