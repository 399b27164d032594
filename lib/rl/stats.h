/* stats.h - the statistics that reports rest on. Deterministic: bootstrap draws come from Philox under a seed. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum { BOOTSTRAP_RESAMPLES = 10000 };    /* what reports use */

struct interval { double low, high; };

/* Wilson score interval for `successes` of `n` at normal quantile z (1.959964 for 95 %). n = 0: [0, 1]. */
struct interval wilson(int64_t successes, int64_t n, double z);

/* Percentile bootstrap interval (e.g. level .95) of mean(a - b) over n pairs. -EINVAL: no pair or no resample. -ENOMEM. */
int paired_bootstrap(const double *a, const double *b, int n, int resamples, double level, uint64_t seed, struct interval *ret);

/* The same of mean(a - b) over runs of several seeds, (seeds, states): seeds are drawn, then states within each. One seed:
 * -EINVAL (its interval would leave out what seeds do). -ENOMEM. */
int hierarchical_bootstrap(const double *a, const double *b, int seeds, int states, int resamples, double level, uint64_t seed,
                           struct interval *ret);

/* Two outcome vectors (0 to 1) of the same states. mean: of after - before, with its 95 % bootstrap interval; where all pairs
 * differ by as much, a bootstrap sees no spread, and the interval is what so many equal pairs leave possible. gained, lost: states
 * with after above, and below, before. p: McNemar's exact test, for outcomes of 0 and 1. */
struct paired {
    int pairs;
    double mean, low, high, p;
    int64_t gained, lost;
};
/* after, before: (n), NaN where a state was not played: no pair. -ENODATA: there is none. -ENOMEM. */
int paired_compare(const double *after, const double *before, int n, uint64_t seed, struct paired *ret);

/* McNemar's exact two-sided test on paired outcomes: b = first only, c = second only. */
double mcnemar_exact(int64_t b, int64_t c);

/* Spearman's rank correlation (ties: mean ranks); 0 when either side does not vary. -EDOM: one is NaN. -ENOMEM. */
int rank_correlation(const double *x, const double *y, int n, double *ret);

/* Area under the ROC curve: P(score of a positive > score of a negative) + half the ties. NaN when a class is empty.
 * -EDOM: a score is NaN. -ENOMEM. */
int auc(const double *score, const bool *positive, int n, double *ret);

/* Running mean and variance of a stream (Welford), and of two streams as one (Chan et al.). All zero at first. */
struct running { double count, mean, m2; };
void running_push(struct running *r, double x);
void running_merge(struct running *r, const struct running *other);     /* r: of both streams from here on */
double running_std(const struct running *r);        /* population; 1 before anything varied */
