/* scaling.h - laws of test-time compute: how success grows with the number of candidates, how an error shrinks.
 *
 * Deterministic: bootstrap draws come from Philox under a seed. Failure rule: -errno, outputs untouched. */
#pragma once

#include "rl/stats.h"

struct scaling_fit {
    double a, b;                            /* log: success = a + b log2 N. power: failure = a N^-b. */
    struct interval a_interval, b_interval; /* 95 %, bootstrap over the states */
    double aic;                             /* of the binomial likelihood, two parameters: lower is better */
};

/* outcomes: (points, states), 1 success, 0 not; row i was played with n[i] candidates, all rows on the same states. Both laws are
 * fitted by maximum likelihood (success kept in [.001, .999]). -EINVAL: fewer than two points or no state. */
int scaling_fit(const int *n, int points, const double *outcomes, int states, int resamples, uint64_t seed,
                struct scaling_fit *ret_log, struct scaling_fit *ret_power);

/* The least n[i] that no larger one is better than (the 95 % paired interval of the difference is not above 0); n ascending.
 * 0: the largest is still better than every other, or there is one point only. */
int scaling_saturated(const int *n, int points, const double *outcomes, int states, int resamples, uint64_t seed, int *ret);

/* log e = log a + b log k by least squares over the points, e the mean over the states of errors (points, states). */
struct error_law {
    double a, b;
    struct interval a_interval, b_interval;
    double r2;
};
/* -EINVAL: fewer than two points, or no state. */
int scaling_error_law(const int *k, int points, const double *errors, int states, int resamples, uint64_t seed,
                      struct error_law *ret);

/* E[least of k] of n draws, k <= n, without bias: the draws sorted ascending, each the least of k with its probability. */
double least_of(const double *sorted, int n, int k);
