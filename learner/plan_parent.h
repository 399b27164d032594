/* plan_parent.h - where a Plan's training begins: the parent version as a trainer, and the reference beside it.
 *
 * The parent comes from its directory, or from the runner's memory when the last plan made it; it gets the heads that the
 * objective needs, and adapters where policy.train or prm.train asks for them. A new stage begins with a fresh optimiser.
 * Thread rule: the train thread.  Failure rule: -errno, one line that names the directory. */
#pragma once

#include "learner/plan_run.h"

struct parent_wish {            /* heads that the objective needs */
    int value_width, value_inputs;      /* 0: none */
    int reward_width;
    int batch;                  /* samples of a minibatch: what a device must have memory for */
    bool reference;             /* and for the policy that the stage began with, where it is another model */
};

/* Take the trainer out of the runner (put back once committed: a failed plan leaves it half-trained), or load the parent. */
int parent_take(struct plan_runner *runner, const Gantry__Plan *plan, const struct parent_wish *wish, struct trainer **ret,
                struct error *error);
/* The stage's reference is what the trainer's adapters sit on: no second model is needed. */
bool parent_is_on_reference(const struct plan_runner *runner, const struct trainer *trainer);
/* runner->reference = policy version `version`, packed for inference. */
int parent_load_reference(struct plan_runner *runner, uint64_t version, struct error *error);
