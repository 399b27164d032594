/* admission.h - may a delivered episode be journaled? Only if what it is played for can be done with it.
 *
 * Whatever a worker, or an actor or PRM server behind it, has said wrong is found here and played again elsewhere. What the journal
 * has is there for good: one episode in it that cannot be trained on, and its iteration could not end, however often the run is
 * begun again. So all that an episode may be refused for when it is trained on (train/sample.h, rl/rewards.h) is asked here, too.
 *
 * Thread rule: none. */
#pragma once

#include "daemon/run_config.h"
#include "nn/models/openvla.h"
#include "proto/trajectory.pb-c.h"

struct admission {
    const struct run_config *run;       /* whose pictures it must have; NULL: any */
    const struct rl_config *rl;         /* of the stage that it is played for; NULL: of none */
    const struct openvla *policy;       /* of the shape and with the tokenizer of what it is to train, without values
                                         * (openvla_open); NULL: none */
};

/* n_frames: bytes of its pictures. -EINVAL: the worker's or its simulator's fault; -EBADMSG: that of an actor or PRM server, whose
 * answers are in it. *error says which. */
int admission_check(const struct admission *terms, const Gantry__Trajectory *t, size_t n_frames, struct error *error);
