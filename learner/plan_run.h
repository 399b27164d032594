/* plan_run.h - carry out one Plan: load what it names, train, commit the version. Blocking; the train thread's work.
 *
 * The parent comes from its directory, or from memory when the last plan made it: both are the same to the bit, so a learner
 * killed at any moment and started again ends at the same version. What a Plan cannot have (a missing or damaged episode, an
 * objective that does not fit the model) is refused with one line, and nothing is committed.
 *
 * With policy.train: lora a policy's version is an adapter on the policy that its stage started from, which is also the
 * reference: the trainer's model without its adapters. The last version of an sft stage is merged into full weights, so that an
 * rl stage begins with adapters that say nothing; an rl stage that follows another goes on with its adapters, and the reference
 * is then a second model. A reward model on the policy's trunk is trained whole; of one with a backbone of its own (prm.init: a
 * Qwen-VL directory) the head learns, with prm.train: lora adapters, too.
 *
 * Thread rule: one thread. The journal may be appended to by another meanwhile. */
#pragma once

#include <stdatomic.h>

#include "daemon/run_config.h"
#include "learner/ahead.h"
#include "learner/collective.h"
#include "learner/intake.h"
#include "nn/models/openvla_lora.h"
#include "proto/control.pb-c.h"
#include "run/journal.h"
#include "train/trainer.h"

struct plan_runner {
    char run_dir[256];
    uint64_t run, seed;
    struct journal *journal;            /* borrowed; NULL on rank > 0: opened for reading plan by plan, rank 0 writes it */
    struct collective *collective;      /* borrowed; NULL: one rank */
    struct ahead *ahead;                /* borrowed; NULL: everything is asked when its plan comes */
    int threads;
    struct group group;                 /* the learner's ranks */
    bool bf16;                          /* policy.weights: bf16 */
    bool fast;                          /* numerics: fast, and this CPU has it */
    struct lora_spec lora;              /* policy.train: lora; r 0: all weights are trained */
    char lora_targets[256];             /* what lora.targets points to */
    struct lora_spec prm_lora;          /* prm.train: lora, for a Qwen-VL backbone; r 0: its head learns alone */
    const struct run_config *config;    /* borrowed; whose demos stages are data sets (from); NULL: none */
    int prm_history;                    /* prm.history: recent frames in its prompts beside the first */
    struct prm_config prm;              /* of the run's last prm stage, for refreshes; steps 0: there is none */
    atomic_bool stop;                   /* give up at the next minibatch: -ECANCELED */
    atomic_long done, total;            /* minibatches of the plan in progress, for status */
    atomic_long samples;                /* frames that went through an update, in all */

    /* what the last plans left in memory */
    struct trainer *trainer[2]; uint64_t version[2];    /* by kind: 0 policy, 1 prm */
    struct reference *reference;
};

/* `-EEXIST` from the rename is no failure: the winner is returned. Rank > 0 trains along and commits nothing; *ret is then what
 * rank 0 has committed, without digest. */
int plan_run(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error);
void plan_runner_release(struct plan_runner *runner);
