/* prm_data.h - which frames a process reward model learns from, and what it should say of them.
 *
 * Episodes are held out by their initial state, as a whole: the same scene is never on both sides, whatever is played later.
 * Draws are balanced over tasks, and over success and failure; demonstrations are never a class's only source.
 * Internal to lib/train. */
#pragma once

#include "train/objective.h"

/* Episodes to draw from, by what they are: [demo][success]; each list is cut by task. */
struct prm_data {
    int *list[2][2]; int n[2][2];       /* indices into the data set, ordered by task */
    int *held; int n_held;              /* episodes no gradient sees */
};
int prm_data_split(const struct dataset *data, const struct prm_config *config, uint64_t seed, struct prm_data *ret);
void prm_data_release(struct prm_data *d);

/* -EINVAL names an episode without what its labels are made of. */
int prm_data_check(const struct dataset *data, const struct prm_config *config, struct error *error);
/* Of all frames of an episode: ret[steps + 1]. */
void prm_data_labels(const struct dataset *data, const struct train_episode *episode, enum label_mode mode, float *ret);

struct prm_sample { struct step_ref at; float label; };
/* The config's batch of update `step`. False: no frame can be found that balances the classes. */
bool prm_data_draw(const struct dataset *data, const struct prm_data *d, const struct prm_config *config,
                   const struct objective *objective, int64_t step, struct prm_sample *ret);

/* -p ln p - (1-p) ln (1-p): what no model can get below against a soft label. */
double label_entropy(double p);
