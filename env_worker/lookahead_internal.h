/* lookahead_internal.h - a search and its candidates, as lookahead.c (beginning, rounds, end) and lookahead_candidate.c (one
 * candidate's way from request to request) share them. */
#pragma once

#include "env_worker/lookahead.h"
#include "rl/search.h"

enum todo { TODO_NOTHING, TODO_ACT, TODO_VALUE, TODO_SCORE };

struct candidate {
    struct lookahead *search;
    uint32_t index;
    enum todo todo; /* what it waits to ask; NOTHING while a job runs and at the end */
    bool asking;    /* a call is open */
    uint32_t steps; /* played of the horizon */
    void *state;    /* bytes of its present state */
    struct pending_call call;
};

struct lookahead {
    struct slot *slot;
    lookahead_done *done;
    bool cancelled;         /* only jobs in hand keep it alive */
    unsigned jobs;          /* in the sim thread */
    unsigned calls, window; /* open calls, and how many may be */

    enum search_method method;
    enum search_judge judge;
    bool gaussian, mean, always;
    uint32_t n, h, m;
    uint32_t stride; /* frames of one candidate's row */
    float temperature;
    uint32_t round, best; /* refine: the candidate at work, the best so far */
    bool proposed;        /* gaussian: the policy's samples have become proposals */

    void *state; /* the slot's, as it was */
    size_t state_size;
    struct candidate *candidates; /* (n) */
    struct move *moves;           /* (n, h) */
    float *scores;                /* (n, h); `last`: only [h-1] of each row */
    bool *alive;                  /* (n) it may be chosen: its simulation has not broken */
    uint32_t *met;                /* (n) the step after which its copy met the predicate; for the oracle alone */
    uint8_t *trail;               /* refine: (n, h, state_size) the states its steps began from */
};

/* Send what waits, as far as the window allows. True: nothing waits or is under way. False may mean that the search has
 * failed and is gone. */
bool lookahead_ask_next(struct lookahead *search);
/* Nothing waits any more: the next round, or the end. */
void lookahead_advance(struct lookahead *search);
void lookahead_fail(struct lookahead *search, enum player_answer answer, const char *text);
/* A job came back: false when the search is over for its owner, and perhaps gone. */
bool lookahead_job_back(struct lookahead *search);

/* The candidate's frame after k >= 1 steps in the search's block; its row begins with a copy of o_0, as Score wants it. */
static inline uint32_t candidate_frame(const struct candidate *c, uint32_t k) { return c->index * c->search->stride + k; }
/* Does the judge read what the reward model says? */
static inline bool lookahead_scores(const struct lookahead *s)
{
    return s->judge == JUDGE_PRM || s->judge == JUDGE_SHUFFLED || s->judge == JUDGE_ORACLE;
}
