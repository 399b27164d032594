/* plan_data.h - the episodes a Plan trains on, from the journal into a data set. */
#pragma once

#include "learner/plan_run.h"
#include "run/manifest.h"
#include "train/objective.h"

struct plan_data {
    struct dataset *set;                /* sorted */
    struct manifest_episode *used; size_t n_used;   /* with their digests, in id order: what the manifest lists as consumed */
    uint64_t *trained; size_t n_trained;            /* of plan->episodes: in the set */
    uint64_t *stale; size_t n_stale;                /* of plan->episodes: played by too old a policy */
    struct strbuf sources;                          /* JSON objects, with commas between: the data sets that were read */
    struct sft_chosen chosen;                       /* sft: of the policy's own episodes */
};
void plan_data_release(struct plan_data *data);

/* rl: the plan's rows. max_staleness: versions a row may be behind the parent.
 * sft: demonstrations of the stages that the plan lists, and of their rollouts those that its settings choose. prm:
 * demonstrations and rollouts of all of them, and its rows.
 * A demos stage whose episodes come from a data set (from) is read there; its episodes are in no manifest's list, the data set is
 * named in training.json instead. Episodes of validation and test are never taken. -ENOENT names the first row that is not in the
 * journal; -EINVAL: rollouts without the score that the choice goes by, or none that is chosen. */
int plan_data_load(struct plan_runner *runner, const Gantry__Plan *plan, const struct trainer *trainer,
                   const struct stage_config *settings, struct plan_data *ret, struct error *error);
/* One episode from the journal into a data set. */
int plan_data_add(struct journal *journal, uint64_t episode, struct dataset *set, struct error *error);
