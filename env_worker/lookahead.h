/* lookahead.h - best of N: try N futures in copies of the simulator, let the reward model judge them, play the best.
 *
 *   lookahead_start -> ... -> done(result)      or lookahead_cancel
 *
 * From the slot's state N candidates play H closed-loop steps each, in copies of the state: candidate c asks the actor with
 * sampling counter sample = c. Then the reward model scores their frames (`last`: the end frame; `mean`: all H), and the
 * first m moves of the best are the answer. Ties: higher last score, then lower index. Selection sees scores only: a
 * success inside a candidate neither stops nor marks it. A candidate whose simulation breaks is out; when all are,
 * the simulator is to blame. The slot's own state is saved before and after and must be equal bytes.
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

/* For step slot->episode.steps. -ENOMEM, -EINVAL: the lease's numbers make no sense (text). */
int lookahead_start(struct slot *slot, lookahead_done *done, struct lookahead **ret, char *text, size_t size);
void lookahead_cancel(struct lookahead *search);    /* done is not called; NULL ok */

/* The candidate to play. scores: (n, h); alive[c]: it has scores. -1: none is alive. */
int lookahead_choose(const float *scores, const bool *alive, uint32_t n, uint32_t h, bool mean);
