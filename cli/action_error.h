/* action_error.h - `gantry eval --action-error`: how near the best of k sampled actions comes to the demonstrator's.
 *
 * On frames of the run's recorded demonstrations an oracle takes, of k actions, the one with the least error against what the
 * demonstrator was meant to learn (root mean square over the action's normalised dimensions): from k samples of the policy, and
 * from k draws of a Gaussian around five of them (rl/search.h). log e = log a + b log k (RoboMonkey, arXiv 2506.17811).
 * No daemon is started: the policy is read from the run directory. Failure rule: -errno, *error. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct action_error_ask {
    const char (*policies)[24]; /* sft, best, last (as the run's summary has them) or version numbers */
    int n_policies;
    const int *k; /* ascending; none: 1, 2, 4, ... 128 */
    int n_k;
    int frames;
    double temperature;
    bool json;
    const char *out; /* a file for the JSON too, or NULL */
};
int action_error_run(const char *run_dir, const struct action_error_ask *ask, struct error *error);
