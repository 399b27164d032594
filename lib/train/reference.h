/* reference.h - what the reference policy says of recorded decisions: the numbers that the KL to it is made of.
 *
 * They follow from the reference and the episode alone, not from who else is in the iteration. So they may be computed at any
 * time, an episode at a time, and are the same to the bit: the learner asks while other episodes are still being played.
 * Thread rule: none of its own; the shards are the caller's.  Failure rule: -errno. */
#pragma once

#include "base/method.h"
#include "train/sample.h"
#include "train/shards.h"

/* Numbers kept of each decision: width * policy_ref_width for an exact KL, width for its estimates; 0: no KL. */
size_t reference_floats(const struct dataset *data, enum kl_mode kl);

/* ret[n * reference_floats]. The reference must be packed; plain: its adapters are left out. */
int reference_pass(const struct openvla *reference, bool plain, struct shards *shards, const struct dataset *data,
                   const struct step_ref *steps, int n, enum kl_mode kl, double temperature, float *ret);

/* Who may have asked before. take: the numbers of all decisions of an episode, in order; false: not known (any more). */
struct reference_recall {
    bool (*take)(void *arg, uint64_t episode, size_t floats, float *ret);
    void *arg;
};
