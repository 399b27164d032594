/* run_later.h - stages that a run was given after it had begun: evaluations asked for by `gantry eval`, and what its file has gained.
 *
 * `gantry eval` adds eval stages behind the run's own, in RUN/evals.yaml: no part of the run's configuration, but stages of its
 * ledger all the same, named later1, later2, ... When the run's file then gains stages behind its last one (a run "goes on
 * further"), the evaluations keep their places, between the old stages and the new: from then on RUN/config.yaml has them, the
 * user's file need not, and RUN/evals.yaml is called RUN/evals-N.yaml, N being how many stages it stood behind.
 * Failure rule: -errno, *error has the line. */
#pragma once

#include "daemon/run_config.h"

/* An evaluation that came by `gantry eval`. */
bool run_later_is(const struct stage_config *stage);

/* Where the evaluations behind the n_stages of a configuration are, or will be: RUN/evals-N.yaml if that is there, else
 * RUN/evals.yaml. -ENAMETOOLONG. */
int run_later_path(const char *run_dir, int n_stages, char *ret, size_t size, struct error *error);

/* These evaluations behind config's stages. -EINVAL: others than evaluations are there. -E2BIG: more than RUN_MAX_STAGES. */
int run_later_append(const char *run_dir, struct run_config *config, struct error *error);

/* config: as the user has it; old: the run's own, RUN/config.yaml. config becomes what the run goes on with: evaluations in the
 * places that the ledger knows, paths as the run spells them (those of new stages from the current directory). *ret_added: how many
 * stages of the user's are new. -ESTALE: config differs in more than stages at its end. */
int run_later_join(const char *run_dir, struct run_config *old, struct run_config *config, int *ret_added,
                   struct error *error);
