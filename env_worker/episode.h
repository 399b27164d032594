/* episode.h - what a slot remembers of the episode it plays: the lease, the frames, what was done and said.
 *
 *   episode_begin -> episode_record* -> (episode_score_at -> episode_set_progress) -> episode_trajectory
 *
 * Arrays grow with the lease's max_steps and are kept for the slot's next episode. Thread rule: the loop's thread. */
#pragma once

#include "base/episode.h"
#include "env_worker/frames.h"
#include "proto/policy.pb-c.h"
#include "proto/trajectory.pb-c.h"

enum { EPISODE_TOKENS_MAX = 256 };      /* per step */

struct episode {
    Gantry__Lease lease;        /* numbers only; the strings below stand in for its own */
    char task[EPISODE_TASK_MAX], style[16], search_score[16], search_method[16], search_judge[16], search_proposals[16],
        perturb[16];
    char instruction[128];
    struct frames *frames;      /* of o_0 .. o_steps those that were drawn */
    uint32_t *observed;         /* (n_observed) which those are; 0 and, at the end, steps among them */
    uint32_t n_observed;

    uint32_t steps;             /* actions executed */
    uint32_t tokens_per_step;   /* K; 0: demonstration */
    uint32_t *tokens;           /* (T, K) */
    float *logp;                /* (T, K) */
    float *value;               /* (T) */
    float *action, *label;      /* (T, 7) */
    float *reward;              /* (T) the environment's own; whole when rewards == steps */
    uint32_t rewards;
    float *progress;            /* (T+1) */
    float *hidden;              /* (hidden_turns, hidden_width) of the actor; whole when hidden_turns == n_turns */
    uint32_t hidden_turns, hidden_width;
    uint64_t *step_version;     /* (T) */
    uint32_t *turns;            /* (n_turns) steps at which the policy was asked */
    uint32_t n_turns;
    bool scored;
    uint64_t sim_us, act_us, score_us;
    uint32_t state_digest;      /* look-ahead: CRC of the saved states, one after the other */
    uint32_t policy_steps;      /* actions asked of the policy, look-ahead included */
    uint32_t searches;          /* decisions by look-ahead that were scored, ... */
    double search_chosen, search_all;   /* ... sums over them: worth of the chosen one, mean worth of all */
    uint32_t perturbed_at;      /* 1 + the step before which the world did it; 0: not yet */

    uint32_t action_dims;       /* of this simulator's actions: 1 .. SIM_ACTION_MAX */
    uint32_t capacity;          /* steps the arrays have room for */
    uint32_t token_room;        /* tokens (and logps) they have room for */
    size_t hidden_room;         /* floats of hidden */
};

/* One executed step. tokens == NULL: a demonstration; label is used only then. */
struct episode_step {
    const uint32_t *tokens;     /* (K) */
    const float *logp;          /* (K) */
    uint32_t n_tokens;
    float value;
    const float *action, *label;        /* (action_dims) */
    float reward;               /* NaN: the environment says none */
    uint64_t version;
    bool begins_turn;           /* the policy was asked for this one; false: it is the next of a chunk */
};

/* Start an episode of at most max_steps. -ENOMEM; -ENAMETOOLONG: a name in the lease does not fit. */
int episode_begin(struct episode *episode, const Gantry__Lease *lease, uint32_t max_steps, const struct frames_shape *shape,
                  uint32_t action_dims);
/* Keep the hidden state of the answer that the next turn plays, if it has one; a repeated answer replaces the one before.
 * -ENOMEM. */
int episode_note_hidden(struct episode *episode, const Gantry__ActReply *act);
/* o_t was drawn as the next frame. */
void episode_observed(struct episode *episode, uint32_t t);
/* -EBADMSG: another number of tokens than the steps before; -ENOMEM. */
int episode_record(struct episode *episode, const struct episode_step *step);
void episode_release(struct episode *episode);

/* Which frames the reward model is shown: the first, the last, and between them those that are score_every steps or more from the
 * one before. Returns how many; ret_at has room for n_observed. */
uint32_t episode_score_at(const struct episode *episode, uint32_t *ret_at);
/* The actions executed after each frame but the last, (n_observed - 1, action_dims); the caller frees. NULL: out of memory. */
float *episode_observed_actions(const struct episode *episode);
/* Scores of those frames, each in [0,1]; between them progress is linear. */
void episode_set_progress(struct episode *episode, const uint32_t *at, const float *scores, uint32_t n);

/* Fill a message that borrows everything from the episode. */
void episode_trajectory(const struct episode *episode, bool success, bool timeout, Gantry__Trajectory *ret);
