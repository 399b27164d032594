/* ppo_batch.h - one iteration's episodes made ready for PPO: steps in episode-id order with all that the losses look at.
 *
 *   ppo_batch_new -> ppo_batch_observe (what the policy and the critic say now) -> ppo_batch_advantages
 *   -> ppo_batch_reference -> objective_ppo's minibatches (the first: ppo_batch_compare) -> ppo_batch_gap -> ppo_batch_free
 *
 * ppo_batch.c, ppo_observe.c, ppo_advantage.c, ppo_critic.c, ppo_reference.c. Internal to lib/train. */
#pragma once

#include "rl/losses.h"
#include "train/objective.h"
#include "train/passes.h"

struct ppo_batch {
    const struct dataset *data;
    const struct rl_config *config;
    const struct objective *objective;
    struct step_ref *steps; int n;      /* decisions: what PPO calls a step; a chunk is one */
    int *actions;               /* (n) actions executed on each */
    int *first;                 /* [episodes+1] where an episode's steps begin */
    float *hidden;              /* (n, hidden) of the policy before the update: the critic's features; only with a critic */
    float *extra; int n_extra;  /* (n, n_extra) time and progress beside them */
    bool by_token;              /* one ratio per token (chunks) instead of one per action */
    int ratios;                 /* R: data->width with by_token, else 1 */
    double *logp_old;           /* (n, R); of who played it, or of the learner when that was an older version */
    double *importance;         /* (n, R) staleness weights; 1 for fresh steps */
    double *values;             /* (n) in reward units */
    double *advantage, *returns;    /* (n) */
    double *target;             /* (n) returns in the value head's units */
    double *value_old;          /* (n) values before the update, in the same units */
    bool *cut;                  /* [episodes] out of time, and that is no end (timeout: bootstrap) */
    double *bootstrap;          /* [episodes] V(o_T) of those, else 0; in reward units */
    float *ref_logp;            /* (n, K) of the tokens that were drawn: the estimates k1, k2, k3; K = data->width */
    double kl_taken;            /* k1_reward: mean per action of what was taken off the rewards, before the coefficient */
    float *ref_log_probs;       /* (n, K, policy_ref_width) exact */
    float *gap; int n_gap;      /* [n*K] |learner - actor| of the log-probs compared */
    bool critic;
};

int ppo_batch_new(const struct dataset *data, const struct rl_config *config, const struct objective *objective,
                  struct ppo_batch **ret, struct error *error);
struct ppo_batch *ppo_batch_free(struct ppo_batch *batch);
DEFINE_FREEP(struct ppo_batch, ppo_batch_free)

/* What a picture does not show the critic, n_extra numbers: how much time is left, how far the reward model thinks we are. */
void ppo_batch_extra(const struct ppo_batch *batch, struct step_ref at, float *ret_extra);
/* Log-probs and hidden states of the policy before the update, and the critic's values. Steps that it played itself bring theirs
 * from the actor; the policy is asked about the others: played by an older version, or without hidden states for the critic.
 * compare: ask about a minibatch of the former too, since no update follows that would (ppo_batch_compare). */
int ppo_batch_observe(struct ppo_batch *batch, struct trainer *trainer, bool compare, struct error *error);
/* The learner's log-probs (n, K) of steps which[n] before the first update, against what the actor recorded of them. Each step
 * once at most. */
void ppo_batch_compare(struct ppo_batch *batch, const int *which, int n, const float *logp);
void ppo_batch_gap(const struct ppo_batch *batch, struct ppo_result *ret);
/* Rewards, advantages, returns, and the running normaliser moved on. Episodes without gradient are taken out of steps.
 * kl: k1_reward wants the reference before, and gives its log-probs up. */
int ppo_batch_advantages(struct ppo_batch *batch, struct trainer *trainer, struct ppo_result *ret, struct error *error);
int ppo_batch_reference(struct ppo_batch *batch, struct trainer *trainer, const struct openvla *reference, struct error *error);
/* The value head on `hidden`, (n, hidden) of the decisions order[n]: its loss, a mean over `count`, is added to *sums, and its
 * gradient to the tape, from where tape_backward carries it on: into the trunk with value_detach: false. */
int ppo_value_loss(const struct ppo_batch *batch, const struct openvla *model, struct tape *tape, struct tensor *hidden,
                   const int *order, int n, int count, struct ppo_sums *sums);
/* Train the value head on the kept features. */
int ppo_batch_critic(struct ppo_batch *batch, struct trainer *trainer, int epochs, struct ppo_result *ret, struct error *error);

/* Cuts n steps into minibatches of nearly equal size: number of them, and where the i-th begins. */
int minibatches(int n, int size);
static inline int minibatch_at(int n, int count, int i) { return (int)((int64_t)n * i / count); }

/* Returns are normalised by their running standard deviation, and the head's values with them. */
static inline struct value_settings value_settings_of(const struct rl_config *config)
{
    return (struct value_settings) {.coef = config->value_coef, .clip = config->value_clip, .huber = config->value_huber};
}
