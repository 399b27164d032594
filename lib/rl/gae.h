/* gae.h - advantages: generalised advantage estimation (Schulman et al. 2016), group baselines, normalisation.
 *
 * All sums in double and in the order given: callers pass episodes in episode-id order, so arrival order and rank
 * count change nothing. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/method.h"

/* One episode. delta_t = r_t + gamma V_{t+1} - V_t; A_t = delta_t + gamma lambda A_{t+1}; R_t = A_t + V_t.
 * values[steps], NULL: no critic (V = 0). bootstrap: V(o_T) of an episode that was cut off; 0 at a terminal state.
 * actions[steps]: how many actions each decision took (chunks): gamma counts once for each of them; NULL: one. */
void gae(const double *rewards, const double *values, const int *actions, int steps, double bootstrap, double gamma,
         double lambda, double *ret_advantage, double *ret_return);

/* (A - mean) / (std + 1e-8) in place, ddof 1; n < 2: only the mean is taken off. */
void normalise_advantages(double *advantage, int64_t n);

/* One group of n episodes that share task and initial state; reward[i] is the whole episode's reward. -> one number per
 * episode, for all its steps. group (GRPO): (R - mean)/(population std + 1e-6). rloo: R minus the mean of the others.
 * Returns false when the group has no spread: it carries no gradient (all advantages 0).
 * reinforce has a global baseline: pass all episodes of the iteration as one group. mode gae is refused: false, zeros. */
bool group_advantages(enum advantage_mode mode, const double *reward, int n, double *ret_advantage);

/* 1 - Var(returns - values) / Var(returns); 0 when the returns do not vary. */
double explained_variance(const double *values, const double *returns, int64_t n);
