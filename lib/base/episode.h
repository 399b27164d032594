/* episode.h - the words every role uses for an episode; numbers are the wire's (proto/control.proto, trajectory.proto). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"

enum { EPISODE_TASK_MAX = 112 };          /* bytes of a task's name, its end included; LIBERO's longest has 106 letters */

enum episode_purpose { EPISODE_DEMO = 1, EPISODE_ROLLOUT = 2, EPISODE_TRAIN = 3, EPISODE_EVAL = 4 };
enum episode_split { SPLIT_TRAIN = 0, SPLIT_VAL = 1, SPLIT_TEST = 2 };
enum lease_return {            /* why a lease came back; the numbers of proto LeaseReturn.Reason */
    LEASE_GIVEN_BACK = 0,       /* nobody's fault: a drain, a cut, no server that holds the version */
    LEASE_SIMULATOR_ERROR = 1,  /* the episode's: counts against it */
    LEASE_SERVER_ERROR = 2,     /* an actor's or reward model's: it refused the request, or its answer cannot be used */
};
enum deliver_verdict { DELIVER_ACCEPTED = 0, DELIVER_DUPLICATE = 1, DELIVER_SUPERSEDED = 2, DELIVER_REFUSED = 3 };

/* What a worker says it still plays. waits: it does nothing but wait for a server's answer. */
struct held_lease { uint64_t episode, fence; uint32_t step; bool waits; uint32_t played; };

/* What the learner says of a durable trajectory. */
struct journaled_episode {
    uint64_t episode;
    uint8_t digest[SHA256_SIZE];
    bool success, timeout;
    uint32_t steps, member;
    float reward, progress_end;
};

/* Which observations of an episode were drawn, and at which steps the policy was asked (none: at every one). NULL: they ascend
 * from 0 to steps and nobody was asked about one that is not there; else a line. n_observed 0: every one was drawn. */
const char *episode_check_observed(const uint32_t *observed, size_t n_observed, const uint32_t *turns, size_t n_turns,
                                   size_t steps);

/* How to play one episode: everything a worker needs, nothing about why. Strings are borrowed. */
struct lease_terms {
    uint64_t episode, fence;
    enum episode_purpose purpose;
    enum episode_split split;
    const char *task;
    uint64_t state_seed, sample_key;
    uint32_t max_steps;         /* 0: the task's own limit */
    uint64_t policy_version, prm_version;   /* prm 0: not scored */
    float temperature;          /* 0: greedy */
    const char *style;          /* not "": the demonstrator plays, in this style; no policy is asked */
    uint32_t search_n, search_horizon, search_execute, score_every;     /* search_n 0, 1: no look-ahead */
    float search_temperature;
    const char *search_score;   /* last | mean */
    const char *search_method, *search_judge, *search_proposals;        /* names of base/search.h; NULL: the first of each */
    bool refine_always;
    const char *perturb;        /* what the world does to the episode; NULL, "": nothing */
    bool alone;                 /* its worker plays nothing beside it */
    bool want_hidden;           /* the trajectory has the policy's hidden states: a critic reads them */
    bool draw_turns;            /* o_t is drawn where the policy is asked, and the last; false: every one */
};
