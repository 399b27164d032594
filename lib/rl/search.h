/* search.h - test-time optimisation as pure functions: which candidate is played, what a Gaussian proposes, where to refine.
 *
 * Selection sees scores only. A success that a candidate met in its copy of the world is known to the judge `oracle` alone, which
 * is a ceiling and never a method. Draws are keyed by (seed, sample key, step): the same search chooses the same again. */
#pragma once

#include <stdbool.h>

#include "base/search.h"

struct search_candidates {
    uint32_t n, h;
    const float *scores; /* (n, h) after each step; without `mean` only [h-1] of each row is read */
    const bool *alive;   /* (n): its simulation did not break, it has scores */
    const uint32_t *met; /* (n): the step after which it had met the task's predicate, 0: never. `oracle`'s alone; may be NULL */
    bool mean;           /* a candidate is worth the mean of its scores, else the last */
    enum search_judge judge;
    uint64_t seed, key; /* of the run, of the episode */
    uint32_t step;      /* of the episode at which is searched */
};

/* The candidate to play; -1: none is alive. Ties: higher last score, then lower index.
 * random: any, all alike. shuffled: the scores are dealt out anew among the candidates. oracle: who meets the predicate first; if
 * nobody does, as prm. */
int search_choose(const struct search_candidates *candidates);
/* What candidate c is worth by its own scores, whatever the judge. */
double search_worth(const struct search_candidates *candidates, uint32_t c);

/* Actions (n, dims) around `from` (k, dims) samples of the policy (k >= 1): a Gaussian with their mean and standard deviation for
 * all but the last dimension, clipped to [low, high] of what was seen plus one standard deviation; the last one (the gripper) is
 * what most samples say. RoboMonkey, arXiv 2506.17811, section 4. */
void search_gaussian(const float *from, uint32_t k, uint32_t dims, uint64_t seed, uint64_t key, uint32_t step, float *ret,
                     uint32_t n);

/* The step (0..h-1) whose score is lowest, the first of equals: what comes from it on is tried again. */
uint32_t search_lowest(const float *scores, uint32_t h);
