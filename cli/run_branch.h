/* run_branch.h - a run directory that goes on from where another one ended, with stages of its own behind.
 *
 * What never changes once it is there (sealed journal segments, versions) is shared by hard links, or copied across file systems;
 * the ledger is copied. Both runs then live on by themselves; the run id is the same.
 * The branch appears whole, by a rename. Failure rule: -errno, *error has the line. */
#pragma once

#include "daemon/run_config.h"

/* All stages of its configuration have ended, whatever was evaluated later. -EBUSY: it is up. */
int run_ended(const struct run_config *config, bool *ret, struct error *error);
/* from: the directory of an ended run that was not evaluated later (-EEXIST: those stages would be in the branch's way). to: a
 * configuration with the same sections and beginning of stages; to->dir must not be there. */
int run_branch(const struct run_config *from, const struct run_config *to, struct error *error);
