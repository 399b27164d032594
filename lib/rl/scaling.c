#include "rl/scaling.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/philox.h"

enum { POINTS_MAX = 32, SIMPLEX_STEPS = 160 };
static const double LEAST = 1e-3;

struct law {
    const int *n;
    int points, states;
    const double *mean; /* (points) success */
    bool power;
};

static double predicted(const struct law *law, double a, double b, int i)
{
    double p = law->power ? 1 - a * pow(law->n[i], -b) : a + b * log2(law->n[i]);

    return CLAMP(p, LEAST, 1 - LEAST);
}

/* Minus the log-likelihood. */
static double cost(const struct law *law, const double at[2])
{
    double sum = 0;

    for (int i = 0; i < law->points; i++) {
        double p = predicted(law, at[0], at[1], i), s = law->mean[i] * law->states;

        sum -= s * log(p) + (law->states - s) * log(1 - p);
    }
    return sum;
}

struct vertex {
    double at[2], cost;
};

static void order(struct vertex v[3])
{
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2 - i; j++)
            if (v[j].cost > v[j + 1].cost) {
                struct vertex w = v[j];

                v[j] = v[j + 1];
                v[j + 1] = w;
            }
}

static struct vertex moved(const struct law *law, const struct vertex v[3], double by)
{
    struct vertex w;

    for (int d = 0; d < 2; d++) {
        double middle = (v[0].at[d] + v[1].at[d]) / 2;

        w.at[d] = middle + by * (v[2].at[d] - middle);
    }
    w.cost = cost(law, w.at);
    return w;
}

/* Nelder and Mead's simplex, in two dimensions. */
static double minimise(const struct law *law, double ret[2])
{
    struct vertex v[3] = {{.at = {law->power ? 1 - law->mean[0] : law->mean[0], law->power ? .2 : .03}}};

    v[0].at[0] = CLAMP(v[0].at[0], .02, .98);
    for (int i = 1; i < 3; i++) {
        v[i] = v[0];
        v[i].at[i - 1] += i == 1 ? .05 : .1;
    }
    for (int i = 0; i < 3; i++)
        v[i].cost = cost(law, v[i].at);
    for (int step = 0; step < SIMPLEX_STEPS; step++) {
        struct vertex w, further;

        order(v);
        w = moved(law, v, -1);
        if (w.cost < v[0].cost) {
            further = moved(law, v, -2);
            v[2] = further.cost < w.cost ? further : w;
        } else if (w.cost < v[1].cost) {
            v[2] = w;
        } else {
            w = moved(law, v, .5);
            if (w.cost < v[2].cost) {
                v[2] = w;
                continue;
            }
            for (int i = 1; i < 3; i++) { /* shrink towards the best */
                for (int d = 0; d < 2; d++)
                    v[i].at[d] = (v[i].at[d] + v[0].at[d]) / 2;
                v[i].cost = cost(law, v[i].at);
            }
        }
    }
    order(v);
    ret[0] = v[0].at[0];
    ret[1] = v[0].at[1];
    return v[0].cost;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct interval middle_95(double *values, int n)
{
    int tail = (int)(.025 * (n - 1));

    qsort(values, (size_t)n, sizeof *values, compare_double);
    return (struct interval){values[tail], values[n - 1 - tail]};
}

/* Mean of every row over resample number `sample` of the states; below 0: over the states as they are. */
static void row_means(const double *rows, int points, int states, uint64_t seed, int sample, double *ret)
{
    struct philox random = philox_at(seed, PHILOX_BOOTSTRAP, (uint64_t)MAX(sample, 0), 0, 0);

    for (int i = 0; i < points; i++)
        ret[i] = 0;
    for (int s = 0; s < states; s++) {
        int pick = sample < 0 ? s : (int)philox_below(&random, (uint32_t)states);

        for (int i = 0; i < points; i++)
            ret[i] += rows[i * states + pick] / states;
    }
}

static int fit_law(const int *n, int points, const double *outcomes, int states, int resamples, uint64_t seed, bool power,
                   struct scaling_fit *ret)
{
    _cleanup_free_ double *a = calloc((size_t)resamples, sizeof *a), *b = calloc((size_t)resamples, sizeof *b);
    double mean[POINTS_MAX], at[2];
    struct law law = {.n = n, .points = points, .states = states, .mean = mean, .power = power};
    struct scaling_fit fit;

    if (!a || !b)
        return -ENOMEM;
    row_means(outcomes, points, states, seed, -1, mean);
    fit.aic = 2 * 2 + 2 * minimise(&law, at);
    fit.a = at[0];
    fit.b = at[1];
    for (int i = 0; i < resamples; i++) {
        row_means(outcomes, points, states, seed, i, mean);
        (void)minimise(&law, at);
        a[i] = at[0];
        b[i] = at[1];
    }
    fit.a_interval = middle_95(a, resamples);
    fit.b_interval = middle_95(b, resamples);
    *ret = fit;
    return 0;
}

int scaling_fit(const int *n, int points, const double *outcomes, int states, int resamples, uint64_t seed,
                struct scaling_fit *ret_log, struct scaling_fit *ret_power)
{
    struct scaling_fit first, second;
    int r;

    if (points < 2 || points > POINTS_MAX || states < 1 || resamples < 1)
        return -EINVAL;
    r = fit_law(n, points, outcomes, states, resamples, seed, false, &first);
    if (r == 0)
        r = fit_law(n, points, outcomes, states, resamples, seed, true, &second);
    if (r < 0)
        return r;
    *ret_log = first;
    *ret_power = second;
    return 0;
}

int scaling_saturated(const int *n, int points, const double *outcomes, int states, int resamples, uint64_t seed, int *ret)
{
    int least = 0;

    for (int i = points - 2; i >= 0; i--) {
        for (int j = i + 1; j < points; j++) {
            struct interval interval;
            int r = paired_bootstrap(outcomes + j * states, outcomes + i * states, states, resamples, .95, seed, &interval);

            if (r < 0)
                return r;
            if (interval.low > 0) {
                *ret = least;
                return 0;
            }
        }
        least = n[i];
    }
    *ret = least;
    return 0;
}

static double log_line(const int *k, int points, const double *mean, double *ret_a, double *ret_b)
{
    double sx = 0, sy = 0, sxx = 0, sxy = 0, syy = 0, x, y, b, cov, vx, vy;

    for (int i = 0; i < points; i++) {
        x = log(k[i]);
        y = log(MAX(mean[i], 1e-12));
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
        syy += y * y;
    }
    cov = sxy - sx * sy / points;
    vx = sxx - sx * sx / points;
    vy = syy - sy * sy / points;
    b = cov / vx;
    *ret_b = b;
    *ret_a = exp((sy - b * sx) / points);
    return vy > 1e-12 * (1 + syy) ? cov * cov / (vx * vy) : 1; /* below: a flat line, and rounding */
}

int scaling_error_law(const int *k, int points, const double *errors, int states, int resamples, uint64_t seed,
                      struct error_law *ret)
{
    _cleanup_free_ double *a = calloc((size_t)MAX(resamples, 1), sizeof *a), *b = calloc((size_t)MAX(resamples, 1), sizeof *b);
    double mean[POINTS_MAX];
    struct error_law law;

    if (points < 2 || points > POINTS_MAX || states < 1 || resamples < 1)
        return -EINVAL;
    if (!a || !b)
        return -ENOMEM;
    row_means(errors, points, states, seed, -1, mean);
    law.r2 = log_line(k, points, mean, &law.a, &law.b);
    for (int i = 0; i < resamples; i++) {
        row_means(errors, points, states, seed, i, mean);
        (void)log_line(k, points, mean, &a[i], &b[i]);
    }
    law.a_interval = middle_95(a, resamples);
    law.b_interval = middle_95(b, resamples);
    *ret = law;
    return 0;
}

double least_of(const double *sorted, int n, int k)
{
    double share = (double)k / n, sum = 0; /* P(the least of k is sorted[0]) */

    for (int i = 0; i + k <= n; i++) {
        sum += share * sorted[i];
        share *= n - i - 1 > 0 ? (double)(n - i - k) / (n - i - 1) : 0;
    }
    return sum;
}
