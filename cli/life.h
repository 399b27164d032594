/* life.h - which life of a job the run belongs to: (SLURM_JOB_ID, SLURM_RESTART_COUNT), kept in RUN/life.
 *
 * Slurm gives a job up with its node and starts it elsewhere, while the old processes may go on where nobody sees them. The later
 * life writes itself into RUN/life; the earlier one, looking there, ends. Without SLURM_JOB_ID there is one life and no file. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct life { unsigned long job, restart; };    /* job 0: none */

/* Ours becomes the run's. -ESTALE: a later one has it. */
int life_claim(const char *run_dir, struct life *ret, struct error *error);
/* No later life has taken the run over. What cannot be read changes nothing. */
bool life_holds(const char *run_dir, const struct life *life);
/* Whether a job has the run and has not said that it ended (RUN/ended): Slurm may have queued it again. */
bool life_may_come_back(const char *run_dir, struct life *ret);
