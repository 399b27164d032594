/* losses.h - PPO's losses on arrays: each adds up its loss and writes the gradient with respect to its inputs.
 *
 * A minibatch is split over shards; each calls these on its own steps with `count` = steps of the whole minibatch, so
 * the loss is the mean whatever the split, and partial sums are added with ppo_sums_add in shard order. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/method.h"

struct ppo_clip {
    double low, high;           /* ratio is held in [1-low, 1+high] */
    double dual;                /* for A < 0 the objective is at least dual * A (Ye et al. 2020); 0: off */
};

/* What one shard saw; sums, so that shards can be added. */
struct ppo_sums {
    /* loss terms are already divided by count; entropy is a plain sum over tokens */
    double policy_loss, value_loss, kl_loss, entropy_loss, entropy;
    double ratio, ratio_max;    /* sum and maximum of exp(log-ratio) */
    double approx_kl;           /* sum of (r - 1) - log r: Schulman's k3 of old against new, per action */
    double ref_kl;              /* sum over actions of the KL to the reference */
    double importance;          /* sum of the staleness weights */
    int64_t clipped, steps, tokens;     /* steps: ratios, of actions or of tokens */
    int64_t decisions;          /* counted by the caller */
};
void ppo_sums_add(struct ppo_sums *total, const struct ppo_sums *part);

/* Clipped policy loss of n steps on the action's log-prob (sum over its tokens), log-ratio clamped to +-20.
 * importance[n]: detached weight of stale data, NULL: 1. ret_dlogp[n] = d loss / d logp. */
void ppo_policy_loss(const struct ppo_clip *clip, const double *logp, const double *logp_old, const double *advantage,
                     const double *importance, int n, int64_t count, double *ret_dlogp, struct ppo_sums *sums);

/* w = min(exp(logp_old - logp_mu), 2): how much a step of an older policy mu counts. */
double staleness_weight(double logp_old, double logp_mu);

struct value_settings {
    double coef;
    double clip;                /* value_old +- clip bounds the value that is compared, and the worse of both counts; 0: off */
    double huber;               /* beyond this error the loss is linear; 0: square everywhere */
};
/* coef * mean of e^2/2 (or Huber's) with e = v - R; value_old[n] may be NULL without clip. ret_dvalue[n]. */
void value_loss(const struct value_settings *settings, const double *value, const double *value_old, const double *target, int n,
                int64_t count, double *ret_dvalue, struct ppo_sums *sums);

/* Schulman's estimates of KL(policy || reference) from the tokens that were drawn, with d = logp_ref - logp clamped to +-20:
 *   KL_K1  -d             (its gradient is zero in expectation on-policy)
 *   KL_K2  d^2/2
 *   KL_K3  e^d - d - 1
 * coef * sum over tokens / count. dlogp[n] is added to (+=). Other modes: nothing. */
void kl_loss(enum kl_mode mode, const float *logp, const float *logp_ref, int n, int64_t count, double coef, double *dlogp,
             struct ppo_sums *sums);

/* Stops a pass when the policy has moved too far: mean approximate KL per action over the last 8 minibatches. */
enum { KL_BRAKE_WINDOW = 8 };
struct kl_brake { double window[KL_BRAKE_WINDOW]; int64_t pushed; };
/* True: stop here. target 0: never. */
bool kl_brake_push(struct kl_brake *brake, double approx_kl, double target);
