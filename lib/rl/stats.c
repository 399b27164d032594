#include "rl/stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/philox.h"

struct interval wilson(int64_t successes, int64_t n, double z)
{
    double p, centre, half, scale;

    if (n <= 0)
        return (struct interval) {0, 1};
    p = (double)successes / (double)n;
    scale = 1 + z * z / (double)n;
    centre = (p + z * z / (2 * (double)n)) / scale;
    half = z / scale * sqrt(p * (1 - p) / (double)n + z * z / (4 * (double)n * (double)n));
    return (struct interval) {MAX(0, centre - half), MIN(1, centre + half)};
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int paired_bootstrap(const double *a, const double *b, int n, int resamples, double level, uint64_t seed, struct interval *ret)
{
    _cleanup_free_ double *means = calloc((size_t)MAX(resamples, 1), sizeof *means);
    double tail = (1 - level) / 2;

    if (n <= 0 || resamples < 1)
        return -EINVAL;
    if (!means)
        return -ENOMEM;
    for (int i = 0; i < resamples; i++) {
        struct philox random = philox_at(seed, PHILOX_BOOTSTRAP, (uint64_t)i, 0, 0);

        for (int j = 0; j < n; j++) {
            uint32_t pick = philox_below(&random, (uint32_t)n);

            means[i] += (a[pick] - b[pick]) / n;
        }
    }
    qsort(means, (size_t)resamples, sizeof *means, compare_double);
    *ret = (struct interval) {means[(int)(tail * (resamples - 1))], means[resamples - 1 - (int)(tail * (resamples - 1))]};
    return 0;
}

int hierarchical_bootstrap(const double *a, const double *b, int seeds, int states, int resamples, double level, uint64_t seed,
                           struct interval *ret)
{
    _cleanup_free_ double *means = calloc((size_t)MAX(resamples, 1), sizeof *means);
    double tail = (1 - level) / 2;

    if (seeds < 2 || states < 1 || resamples < 1)
        return -EINVAL;
    if (!means)
        return -ENOMEM;
    for (int i = 0; i < resamples; i++) {
        struct philox random = philox_at(seed, PHILOX_BOOTSTRAP, (uint64_t)i, 1, 0);

        for (int s = 0; s < seeds; s++) {
            size_t row = (size_t)philox_below(&random, (uint32_t)seeds) * (size_t)states;

            for (int j = 0; j < states; j++) {
                size_t pick = row + philox_below(&random, (uint32_t)states);

                means[i] += (a[pick] - b[pick]) / ((double)seeds * states);
            }
        }
    }
    qsort(means, (size_t)resamples, sizeof *means, compare_double);
    *ret = (struct interval) {means[(int)(tail * (resamples - 1))], means[resamples - 1 - (int)(tail * (resamples - 1))]};
    return 0;
}

double mcnemar_exact(int64_t b, int64_t c)
{
    int64_t n = b + c, least = MIN(b, c);
    double sum = 0;

    for (int64_t k = 0; k <= least; k++)
        sum += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) - (double)n * M_LN2);
    return MIN(1, 2 * sum);
}

/* Every pair differs by as much: to draw from them anew finds nothing else. What n of n leave possible, at 95 %, is a share p of
 * pairs that differ otherwise, by 1 (or by 2, the other way round) at the most; outcomes are from 0 to 1. */
static struct interval all_alike(double difference, int n)
{
    double p = 1 - pow(.025, 1.0 / n), room = (1 + fabs(difference)) * p;

    return (struct interval) {MAX(-1, difference - room), MIN(1, difference + room)};
}

int paired_compare(const double *after, const double *before, int n, uint64_t seed, struct paired *ret)
{
    _cleanup_free_ double *a = calloc((size_t)MAX(n, 0) + 1, sizeof *a), *b = calloc((size_t)MAX(n, 0) + 1, sizeof *b);
    struct paired d = {0};
    struct interval interval;
    bool alike = true;
    int r;

    if (!a || !b)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        if (isnan(after[i]) || isnan(before[i]))
            continue;
        d.gained += after[i] > before[i];
        d.lost += after[i] < before[i];
        d.mean += after[i] - before[i];
        a[d.pairs] = after[i];
        b[d.pairs++] = before[i];
        alike = alike && after[i] - before[i] == a[0] - b[0];
    }
    if (!d.pairs)
        return -ENODATA;
    d.mean /= d.pairs;
    r = paired_bootstrap(a, b, d.pairs, BOOTSTRAP_RESAMPLES, .95, seed, &interval);
    if (r < 0)
        return r;
    if (alike)
        interval = all_alike(d.mean, d.pairs);
    d.low = interval.low;
    d.high = interval.high;
    d.p = mcnemar_exact(d.gained, d.lost);
    *ret = d;
    return 0;
}

struct ranked { double x; int index; };

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *p = a, *q = b;

    return p->x != q->x ? compare_double(&p->x, &q->x) : (p->index > q->index) - (p->index < q->index);
}

/* Ranks from 1; equal values share the mean of theirs. */
static int mean_ranks(const double *x, int n, double *ret_rank)
{
    _cleanup_free_ struct ranked *order = malloc((size_t)n * sizeof *order);

    if (!order)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        if (isnan(x[i]))            /* it has no rank, and equals nothing, not even itself */
            return -EDOM;
        order[i] = (struct ranked) {x[i], i};
    }
    qsort(order, (size_t)n, sizeof *order, compare_ranked);
    for (int i = 0, j; i < n; i = j) {
        for (j = i; j < n && order[j].x == order[i].x; j++)
            ;
        for (int k = i; k < j; k++)
            ret_rank[order[k].index] = (i + 1 + j) / 2.0;
    }
    return 0;
}

int rank_correlation(const double *x, const double *y, int n, double *ret)
{
    _cleanup_free_ double *ranks = malloc((size_t)MAX(n, 1) * 2 * sizeof *ranks);
    double xy = 0, xx = 0, yy = 0, mean = (n + 1) / 2.0;
    int r = ranks ? 0 : -ENOMEM;

    if (r == 0 && n > 0)
        r = mean_ranks(x, n, ranks);
    if (r == 0 && n > 0)
        r = mean_ranks(y, n, ranks + n);
    if (r < 0)
        return r;
    for (int i = 0; i < n; i++) {
        xy += (ranks[i] - mean) * (ranks[n + i] - mean);
        xx += (ranks[i] - mean) * (ranks[i] - mean);
        yy += (ranks[n + i] - mean) * (ranks[n + i] - mean);
    }
    *ret = xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
    return 0;
}

int auc(const double *score, const bool *positive, int n, double *ret)
{
    _cleanup_free_ double *rank = malloc((size_t)MAX(n, 1) * sizeof *rank);
    double sum = 0, positives = 0;
    int r = !rank ? -ENOMEM : n > 0 ? mean_ranks(score, n, rank) : 0;

    if (r < 0)
        return r;
    for (int i = 0; i < n; i++)
        if (positive[i]) {
            sum += rank[i];
            positives++;
        }
    *ret = positives > 0 && positives < n ? (sum - positives * (positives + 1) / 2) / (positives * (n - positives)) : NAN;
    return 0;
}

void running_push(struct running *r, double x)
{
    double off = x - r->mean;

    r->count++;
    r->mean += off / r->count;
    r->m2 += off * (x - r->mean);
}

void running_merge(struct running *r, const struct running *other)
{
    double count = r->count + other->count, off = other->mean - r->mean;

    if (count == 0)
        return;
    r->mean += off * other->count / count;
    r->m2 += other->m2 + off * off * r->count * other->count / count;
    r->count = count;
}

double running_std(const struct running *r)
{
    return r->count > 0 && r->m2 > 0 ? sqrt(r->m2 / r->count) : 1;
}
