/* statistics.h - dataset_statistics.json as OpenVLA computes it: mean, std, min, max and the 1 % and 99 % quantiles of every
 * number of action and state over all steps, with the mask that leaves the gripper alone.
 *
 *   statistics_add(&s, action, state)*  ->  statistics_write(&s, "libero_spatial", &out)  ->  statistics_release
 *
 * Quantiles are numpy's (linear between the two nearest), std is over n. Thread rule: none. -ENOMEM. */
#pragma once

#include <stdbool.h>

#include "base/strbuf.h"

struct statistics {
    int dims, state;          /* numbers of an action and of a state */
    bool gripper;             /* the last number of an action is a gripper: masked */
    double *actions, *states; /* (steps, dims), (steps, state) */
    size_t steps, room;
    int episodes;
};
/* One step: action[dims], state[state] (NULL when there is none). The caller has set dims, state and gripper. */
int statistics_add(struct statistics *s, const double *action, const double *state);
/* As a JSON object with one member, `name`. */
int statistics_write(const struct statistics *s, const char *name, struct strbuf *out);
void statistics_release(struct statistics *s);
