/* sim_actions.h - who acts in `gantry sim play` and `bench`. */
#pragma once

#include "sim/sim.h"

enum sim_actor_kind { SIM_ACTOR_EXPERT, SIM_ACTOR_STYLE, SIM_ACTOR_RANDOM, SIM_ACTOR_NO_OP, SIM_ACTOR_FILE };

struct sim_actor {
    enum sim_actor_kind kind;
    const char *name; /* as given; borrowed */
    float *actions;   /* FILE: (n, dims), owned */
    int n, dims;
};

/* policy: expert, clean, slow, random, no-op, or a file of actions of `dims` numbers. -EINVAL, -ENOENT...: the line in error. */
int sim_actor_init(struct sim_actor *actor, const char *policy, int dims, struct error *error);
void sim_actor_release(struct sim_actor *actor);
/* The action for step `step` of the episode that began in `state`. -ENODATA: the file has no more; -ENOTSUP: the suite has no
 * expert for this task. */
int sim_actor_act(const struct sim_actor *actor, struct sim_slot *slot, uint64_t state, int step, float *ret);
