#include "sim/suites/libero/grasp.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/macro.h"

enum { ANGLES = 12, POINTS_MAX = 60000, SLAB_MAX = 4096 };
static const double point_step = .005, grid_step = .008, slab_half = .007;
static const double depths[] = {.001, .006, .012, .018, .026, .036, .05}; /* pads' centre below the top of what is between */

struct points {
    double (*at)[3];
    int n;
};

/* ---- points on the thing's surface ----------------------------------------------------------------------- */

static void scatter(const struct shape *s, struct points *points)
{
    int count[3];

    for (int i = 0; i < 3; i++)
        count[i] = MAX(1, (int)ceil(2 * s->half[i] / point_step));
    for (int i = 0; i <= count[0]; i++)
        for (int j = 0; j <= count[1]; j++)
            for (int k = 0; k <= count[2]; k++) {
                const bool surface = i == 0 || i == count[0] || j == 0 || j == count[1] || k == 0 || k == count[2];
                const double local[3] = {s->half[0] * (2. * i / count[0] - 1), s->half[1] * (2. * j / count[1] - 1),
                                         s->half[2] * (2. * k / count[2] - 1)};

                if (!surface || points->n == POINTS_MAX)
                    continue;
                mju_mulMatVec3(points->at[points->n], s->R, local);
                mju_addTo3(points->at[points->n++], s->c);
            }
}

/* ---- is the way down free? ---------------------------------------------------------------------------------- */

static bool is_free(const struct shapes *shapes, const struct grasp *g)
{
    const double rise[] = {0, .05, .1, .15};
    double R[9], x[3] = {g->x[0], g->x[1]};

    hand_upright(g->yaw, R);
    for (size_t i = 0; i < ARRAY_SIZE(rise); i++) {
        x[2] = g->x[2] + rise[i];
        if (!hand_is_free(shapes, x, R, HAND_OPEN))
            return false;
    }
    return true;
}

/* ---- candidates ------------------------------------------------------------------------------------------------ */

struct search {
    const struct shapes *shapes;
    const double *mass; /* centre of mass */
    double hand_yaw, top;
    int attempt;
    double best_cost;
    struct grasp best;
};

static double cost_of(const struct search *s, const struct grasp *g, double depth)
{
    const double dx = g->x[0] - s->mass[0], dy = g->x[1] - s->mass[1];
    const double across = fabs(dx * cos(g->yaw) + dy * sin(g->yaw)), along = fabs(-dx * sin(g->yaw) + dy * cos(g->yaw));
    double cost = 2 * across + .4 * along + .5 * g->width + .01 * fabs(g->yaw - s->hand_yaw) - .5 * fmin(depth, .025) +
                  .02 * hypot(g->x[0] + .6, g->x[1]);

    if (s->attempt > 0) /* other places: a different, but fixed, order for every attempt */
        cost += .03 * (1 + sin(1000 * (g->x[0] + 2 * g->x[1] + 3 * g->yaw) * s->attempt));
    return cost;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void consider(struct search *s, double from, double to, double across, double z, double yaw, double depth)
{
    const double along = (from + to) / 2;
    struct grasp g = {.yaw = yaw, .width = to - from};
    double cost;

    if (g.width > HAND_WIDEST)
        return;
    g.x[0] = -along * sin(yaw) + across * cos(yaw);
    g.x[1] = along * cos(yaw) + across * sin(yaw);
    g.x[2] = z;
    cost = cost_of(s, &g, depth);
    if (cost < s->best_cost && is_free(s->shapes, &g)) {
        s->best_cost = cost;
        s->best = g;
    }
}

/* What is in the slab between the pads, along the closing axis: as a whole, and every piece that stands alone. */
static void consider_slab(struct search *s, double *along, int n, double across, double z, double yaw, double depth)
{
    int begin = 0, pieces = 0;

    if (n < 2)
        return;
    qsort(along, (size_t)n, sizeof(*along), by_value);
    for (int i = 1; i <= n; i++)
        if (i == n || along[i] - along[i - 1] > .02) {
            consider(s, along[begin], along[i - 1], across, z, yaw, depth);
            begin = i;
            pieces++;
        }
    if (pieces > 1)
        consider(s, along[0], along[n - 1], across, z, yaw, depth);
}

static void search_angle(struct search *s, const struct points *points, double yaw, double *along)
{
    const double c = cos(yaw), t = sin(yaw);
    double lo = 1e9, hi = -1e9;

    for (int i = 0; i < points->n; i++) {
        const double across = points->at[i][0] * c + points->at[i][1] * t;

        lo = fmin(lo, across);
        hi = fmax(hi, across);
    }
    for (size_t d = 0; d < ARRAY_SIZE(depths); d++)
        for (double at = lo; at <= hi; at += grid_step) {
            const double z = s->top - depths[d];
            int n = 0;

            for (int i = 0; i < points->n && n < SLAB_MAX; i++) {
                const double *p = points->at[i];

                if (fabs(p[2] - z) < slab_half && fabs(p[0] * c + p[1] * t - at) < slab_half)
                    along[n++] = -p[0] * t + p[1] * c;
            }
            consider_slab(s, along, n, at, z, yaw, depths[d]);
        }
}

int grasp_search(const struct libero_task *task, const mjData *data, const struct shapes *shapes, int thing, int body,
                 int attempt, struct grasp *ret)
{
    const double *R = data->site_xmat + 9 * task->grip_site;
    _cleanup_free_ double *along = malloc(sizeof(*along) * SLAB_MAX);
    struct points points = {.at = malloc(sizeof(*points.at) * POINTS_MAX)};
    struct search s = {.shapes = shapes,
                       .mass = data->xipos + 3 * (body < 0 ? task->things[thing].body : body),
                       .attempt = attempt,
                       .hand_yaw = atan2(-R[0], R[3]),
                       .best_cost = 1e9};

    if (!points.at || !along) {
        free(points.at);
        return -ENOMEM;
    }
    for (int k = 0; k < shapes->n; k++)
        if (shapes->at[k].thing == thing && (body < 0 || shapes->at[k].body == body))
            scatter(&shapes->at[k], &points);
    for (int i = 0; i < points.n; i++)
        s.top = fmax(s.top, points.at[i][2]);
    for (int a = -ANGLES / 2; a < ANGLES / 2; a++)
        search_angle(&s, &points, a * 3.14159265358979323846 / ANGLES, along);
    free(points.at);
    if (s.best_cost >= 1e9)
        return -ENOENT;
    *ret = s.best;
    return 0;
}
