/* lookahead.h - compute spent before acting: try N futures in copies of the simulator, let a judge look at them, play the best.
 *
 *   lookahead_start -> ... -> done(result)      or lookahead_cancel
 *
 * search_n: from the slot's state N candidates play H closed-loop steps each, in copies of the state; candidate c asks the actor
 * with sampling counter sample = c. The reward model scores their frames (`last`: the end frame; `mean`: all H), and the first m
 * moves of the best are the answer. sample_n: N actions for the present picture, judged without a copy; by `gaussian` most of
 * them are drawn around a few of the policy's. refine: one rollout to the episode's limit in a copy, three times mended from its
 * lowest-scored step; all of it is the answer.
 *
 * Selection sees scores only (rl/search.h): a success inside a candidate neither stops nor marks it, but for the judge `oracle`.
 * A candidate whose simulation breaks is out; when all are, the simulator is to blame. The slot's own state is saved before and
 * after and must be equal bytes.
 *
 * Thread rule: the loop's thread. */
#pragma once

#include "env_worker/slot.h"

struct lookahead_result {
    enum player_answer answer;  /* OK: moves are there. BAD_REQUEST: it would fail again (the simulator broke, a bad answer) */
    const struct move *moves;   /* (n_moves), valid during the call */
    uint32_t n_moves;
    uint32_t state_digest;      /* CRC-32C of the state, the same before and after */
    const char *text;
};
typedef void lookahead_done(struct slot *slot, const struct lookahead_result *result);

/* For step slot->episode.steps. -ENOMEM, -EINVAL: the lease's terms make no sense (text). */
int lookahead_start(struct slot *slot, lookahead_done *done, struct lookahead **ret, char *text, size_t size);
bool lookahead_waits(const struct lookahead *search);       /* as slot_waits */
void lookahead_cancel(struct lookahead *search);    /* done is not called; NULL ok */
