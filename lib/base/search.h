/* search.h - the words of test-time optimisation, as leases and configurations carry them. docs/method.md says what each does. */
#pragma once

#include <stdint.h>

enum search_method {
    SEARCH_N,      /* N sequences of H steps in copies of the simulator's state; the best one's first m are executed */
    SAMPLE_N,      /* N actions for the present picture, no copies: a real robot can do that too */
    SEARCH_REFINE, /* one whole rollout in a copy, mended from its lowest-scored step, a few times */
};

enum search_judge {
    JUDGE_PRM,
    JUDGE_VALUE,
    JUDGE_CONFIDENCE,
    JUDGE_RANDOM,
    JUDGE_SHUFFLED,
    JUDGE_ORACLE, /* controls: a coin, scores dealt to the wrong candidates, the predicate itself */
};

enum search_proposals { PROPOSE_POLICY, PROPOSE_GAUSSIAN };

/* All end with NULL and follow the enumerations. */
extern const char *const search_method_names[], *const search_judge_names[], *const search_proposal_names[];

enum {
    SEARCH_N_MAX = 128,
    SEARCH_H_MAX = 64, /* of search_n; refine looks to the episode's limit */
    REFINE_ROUNDS = 3,
    GAUSSIAN_FROM = 5, /* samples of the policy that a Gaussian is fitted to, at most */
};
#define REFINE_FIRST_T 0.3f /* temperature of the rollout that is refined, ... */
#define REFINE_T 0.5f       /* ... and of what is tried instead of its end */

/* Position of `name` in names ("" and NULL: 0); -ENOENT. */
int search_name(const char *const *names, const char *name);
