/* ahead.h - what the learner can know before its plan comes: the reference's numbers of episodes that are already durable.
 *
 * While an iteration is played the learner has nothing to train on, and the cores are not all busy. What the reference policy
 * says of a finished episode depends on nothing else (train/reference.h), so it is computed then, with less priority than
 * whoever plays. A plan takes what is known and asks for the rest itself: nobody waits for us, and whether we were quick, slow,
 * or killed changes no bit of the version.
 *
 *   ahead_new -> (a plan: ahead_offer -> [ahead_take]* -> ahead_forget; a durable episode: ahead_add)* -> ahead_free
 *
 * The first plan of a stage, or after a start, makes the reference known; before it nothing is added. With adapters there is no
 * reference apart from the trainer's own model, and on a device the plan asks it: nothing is done ahead.
 *
 * Two threads: one reads episodes from the journal and takes locks like everybody; the other, which only computes (on as many
 * threads as training has), gives way to others. Items it is slow with are given up, not waited for.
 * Memory: PREPARED episodes' frames, and the numbers of an iteration, which training needs anyway.
 * Thread rule: ahead_add on the loop's thread; offer, take, forget on the train thread; new and free while neither runs. */
#pragma once

#include <stdbool.h>

#include "base/method.h"
#include "learner/reference.h"
#include "run/journal.h"

struct ahead;

/* The journal is borrowed. modest: with less priority than the process. */
int ahead_new(struct journal *journal, int threads, bool modest, struct ahead **ret);
/* A modest thread that gets no core for two seconds is left behind with its memory: the process is about to end. */
struct ahead *ahead_free(struct ahead *ahead);
DEFINE_FREEP(struct ahead, ahead_free)

/* An episode of the stage is durable and will be trained on. Best effort. */
void ahead_add(struct ahead *ahead, uint32_t stage, uint64_t episode);

/* From now on episodes of this stage can be asked about. */
void ahead_offer(struct ahead *ahead, uint32_t stage, struct reference *reference, const struct rl_config *config);
/* struct reference_recall's take: the numbers, if they are known by now; the episode is forgotten in any case. */
bool ahead_take(void *ahead, uint64_t episode, size_t floats, float *ret);
/* Episodes up to this one are not asked about any more. */
void ahead_forget(struct ahead *ahead, uint64_t last);
/* Episodes whose numbers a plan has taken, since the start. */
uint64_t ahead_taken(const struct ahead *ahead);
/* For tests: returns when all that was added is known or has failed. */
void ahead_wait(struct ahead *ahead);
