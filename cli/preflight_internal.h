/* preflight_internal.h - what the parts of the preflight ask of one another: preflight.c adds up, preflight_model.c looks into
 * checkpoints, preflight_addresses.c listens. */
#pragma once

#include "cli/preflight.h"

/* What models take in each kind of daemon, and once for all of them; bytes. A server holds two versions while one is swapped for
 * the next. */
struct model_needs {
    double actor, prm, learner, shared;
    double saved;               /* in each version, adapters; 0: all weights */
    int action_dims;            /* of the policy */
    int state;                  /* numbers of the robot's state that it takes; 0: none */
    int chunk;                  /* actions that it answers at once */
    char fit[256];              /* what the run settles for its checkpoint */
    int devices;                /* 0, or why the GPUs will not do; the error has the line */
};

/* Is a checkpoint there, and are its values numbers? *ret_bytes: of its weights. */
int preflight_weights(const char *dir, double *ret_bytes, struct error *error);
/* From the headers of policy_dir and of prm.init: a broken one is refused here, by name, and so is one that fits neither the suite
 * nor the stages. copied: policy_dir is the run's own. */
int preflight_models(const struct run_config *config, const char *policy_dir, bool copied, struct model_needs *ret,
                     struct error *error);
/* Could the daemons and the page listen, now, where the configuration says? -EADDRINUSE. */
int preflight_listen(const struct run_config *config, struct error *error);
