/* compare_curves.c - every curve of a comparison: a line for each run, or, where there are seeds, for each arm, the mean of its
 * runs between the least and the most of them. */
#include <errno.h>
#include <math.h>

#include "cli/compare.h"
#include "cli/plot.h"
#include "cli/report_names.h"
#include "cli/report_series.h"
#include "proto/control.pb-c.h"

enum { MANY = 256, SMOOTHED = 10 };

struct curve {
    double *x, *y; /* owned */
    int n;
};

static void curve_release(struct curve *curve)
{
    free(curve->x);
    free(curve->y);
}

static int curve_new(size_t most, struct curve *ret)
{
    *ret = (struct curve){calloc(most + 1, sizeof(double)), calloc(most + 1, sizeof(double)), 0};
    return ret->x && ret->y ? 0 : -ENOMEM;
}

/* What a plot is of: reads a run's curve into *ret, released by the caller also on failure. */
typedef int (*read_fn)(const struct compared *run, const void *of, struct curve *ret);

/* ---- success by what it cost ------------------------------------------------------------------------------------------- */

enum cost { ITERATIONS, EPISODES, WALL };

/* What training had cost by the end of each train iteration: x (n). Iterations of rl alone: what lay between them is no cost. */
static void costs(const struct report_data *d, enum cost cost, double *x)
{
    double sum = 0;
    int n = 0;

    for (size_t i = 0; i < d->n_iterations; i++) {
        const struct ledger_iteration *it = &d->iterations[i];

        if (it->purpose != GANTRY__PURPOSE__PURPOSE_TRAIN)
            continue;
        if (cost == EPISODES)
            for (size_t k = 0; k < d->n_episodes; k++)
                sum += d->episodes[k].stage == it->stage && d->episodes[k].iteration == it->iteration &&
                       d->episodes[k].purpose == GANTRY__PURPOSE__PURPOSE_TRAIN;
        else
            sum += cost == ITERATIONS ? 1 : it->end_ms > it->start_ms ? (double)(it->end_ms - it->start_ms) / 60000 : 0;
        x[n++] = sum;
    }
}

static int read_success(const struct compared *run, const void *of, struct curve *ret)
{
    _cleanup_free_ struct report_point *points = NULL;
    _cleanup_free_ double *raw = NULL;
    int n, r = report_train_points(&run->data, NULL, &points, &n);

    if (r < 0 || (r = curve_new((size_t)n, ret)) < 0)
        return r;
    raw = calloc((size_t)n + 1, sizeof *raw);
    if (!raw)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        raw[i] = points[i].success;
    costs(&run->data, *(const enum cost *)of, ret->x);
    report_smooth(raw, n, SMOOTHED, ret->y);
    ret->n = n;
    return 0;
}

static int read_series(const struct compared *run, const void *of, struct curve *ret)
{
    int r = curve_new(run->data.n_scalars, ret);

    if (r < 0)
        return r;
    r = report_series_points(&run->data, of, ret->x, ret->y);
    ret->n = MAX(r, 0);
    return MIN(r, 0);
}

/* ---- a plot -------------------------------------------------------------------------------------------------------------- */

static bool varies(const struct curve *curve)
{
    for (int i = 1; i < curve->n; i++)
        if (curve->y[i] != curve->y[0])
            return true;
    return false;
}

/* As far as all of the curves go; an arm's runs that have not begun take no part. */
static int add_mean(struct plot *plot, const char *name, const struct curve *curves, int n_curves)
{
    _cleanup_(curve_release) struct curve mean = {0}, edges = {0}; /* edges.x: the least; .y: the most */
    int n = INT_MAX, runs = 0, r;

    for (int i = 0; i < n_curves; i++)
        if (curves[i].n > 1) {
            n = MIN(n, curves[i].n);
            runs++;
        }
    if (!runs)
        return 0;
    if ((r = curve_new((size_t)n, &mean)) < 0 || (r = curve_new((size_t)n, &edges)) < 0)
        return r;
    for (int k = 0; k < n; k++) {
        edges.x[k] = INFINITY;
        edges.y[k] = -INFINITY;
        for (int i = 0; i < n_curves; i++)
            if (curves[i].n > 1) {
                mean.x[k] += curves[i].x[k] / runs;
                mean.y[k] += curves[i].y[k] / runs;
                edges.x[k] = fmin(edges.x[k], curves[i].y[k]);
                edges.y[k] = fmax(edges.y[k], curves[i].y[k]);
            }
    }
    r = plot_line(plot, name, mean.x, mean.y, n, PLOT_THICK);
    return r < 0 || runs == 1 ? r : plot_spread(plot, mean.x, edges.x, edges.y, n);
}

static int add_arm(const struct comparison *c, int which, read_fn read, const void *of, struct plot *plot, bool *any)
{
    const struct comparison_arm *arm = &c->arms[which];
    struct curve curves[COMPARE_MAX] = {0};
    char name[COMPARED_NAME];
    int r = 0;

    for (int i = 0; i < arm->n && r == 0; i++) {
        r = read(&c->runs[arm->runs[i]], of, &curves[i]);
        *any |= varies(&curves[i]);
    }
    if (comparison_has_seeds(c))
        comparison_arm_name(c, which, name);
    else
        compared_name(c, arm->runs[0], name);
    if (r == 0)
        r = add_mean(plot, name, curves, arm->n);
    for (int i = 0; i < arm->n; i++)
        curve_release(&curves[i]);
    return r;
}

/* flat: drawn also where it never changes in any run. */
static int write_plot(const struct comparison *c, read_fn read, const void *of, bool flat, struct plot *plot, struct strbuf *out)
{
    bool any = flat;
    int r = 0;

    for (int i = 0; i < c->n_arms && r == 0; i++)
        r = add_arm(c, i, read, of, plot, &any);
    if (r == 0 && any && plot->count)
        plot_write(plot, out);
    plot_release(plot);
    return r;
}

static int write_success(const struct comparison *c, enum cost cost, const char *label, struct strbuf *out)
{
    struct plot plot = {.title = "Training success, mean of 10 iterations", .x_label = label, .y_min = 0, .y_max = 1};

    return write_plot(c, read_success, &cost, true, &plot, out);
}

static int write_series(const struct comparison *c, const char *series, struct strbuf *out)
{
    char title[160];
    struct plot plot = {.title = title, .x_label = "iteration", .hint = series};

    report_series_title(series, title, sizeof title);
    return write_plot(c, read_series, series, false, &plot, out);
}

/* Names that rl stages have, each once; borrowed. */
static int list_series(const struct comparison *c, const char *ret[MANY])
{
    int n = 0;

    for (int i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->runs[i].data.n_scalars && n < MANY; k++) {
            const char *name = c->runs[i].data.scalars[k].name;
            int at = 0;

            while (at < n && strcmp(ret[at], name) != 0)
                at++;
            if (at == n)
                ret[n++] = name;
        }
    return n;
}

int comparison_curves(const struct comparison *c, struct strbuf *out)
{
    static const char *const first[] = {"success/val", "return", "reference_kl", "entropy"};
    const char *series[MANY];
    int n = list_series(c, series), r;

    strbuf_adds(out, "<h2>Learning</h2><div class='plots'>");
    r = write_success(c, ITERATIONS, "iteration", out);
    if (r == 0)
        r = write_success(c, EPISODES, "episodes of rl", out);
    if (r == 0)
        r = write_success(c, WALL, "minutes of rl", out);
    for (size_t i = 0; i < ARRAY_SIZE(first) && r == 0; i++)
        r = write_series(c, first[i], out);
    strbuf_adds(out, "</div><details><summary>All series</summary><div class='plots'>");
    for (int i = 0; i < n && r == 0; i++)
        r = write_series(c, series[i], out);
    strbuf_adds(out, "</div></details>");
    return r;
}
