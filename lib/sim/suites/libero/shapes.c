#include "sim/suites/libero/shapes.h"

#include <math.h>
#include <string.h>

static int thing_of(const struct libero_task *task, int body)
{
    for (; body > 0; body = task->model->body_parentid[body])
        for (int i = 0; i < task->n_things; i++)
            if (task->things[i].body == body)
                return i;
    return -1;
}

static void shape_of(const mjModel *model, const mjData *data, int geom, struct shape *ret)
{
    const double *aabb = model->geom_aabb + 6 * geom;
    double offset[3];

    if (model->geom_type[geom] == mjGEOM_PLANE) { /* a slab below it */
        const double below[3] = {0, 0, -.5};

        mju_mulMatVec3(offset, data->geom_xmat + 9 * geom, below);
        ret->half[0] = ret->half[1] = 5;
        ret->half[2] = .5;
    } else {
        mju_mulMatVec3(offset, data->geom_xmat + 9 * geom, aabb);
        mju_copy3(ret->half, aabb + 3);
    }
    mju_add3(ret->c, data->geom_xpos + 3 * geom, offset);
    memcpy(ret->R, data->geom_xmat + 9 * geom, sizeof(ret->R));
    ret->r = mju_norm3(ret->half);
}

void shapes_collect(const struct libero_task *task, const mjData *data, struct shapes *ret)
{
    const mjModel *model = task->model;
    const int robot = model->body_rootid[task->hand_body];

    ret->n = 0;
    for (int g = 0; g < model->ngeom && ret->n < SHAPES_MAX; g++) {
        const int body = model->geom_bodyid[g];

        if (!(model->geom_contype[g] | model->geom_conaffinity[g]) || model->body_rootid[body] == robot)
            continue;
        shape_of(model, data, g, &ret->at[ret->n]);
        ret->at[ret->n].body = body;
        ret->at[ret->n].thing = thing_of(task, body);
        ret->at[ret->n].movable = ret->at[ret->n].thing >= 0 && task->things[ret->at[ret->n].thing].movable;
        ret->n++;
    }
}

void shape_bounds(const struct shape *s, double ret_lo[3], double ret_hi[3])
{
    for (int i = 0; i < 3; i++) {
        const double reach =
            fabs(s->R[3 * i]) * s->half[0] + fabs(s->R[3 * i + 1]) * s->half[1] + fabs(s->R[3 * i + 2]) * s->half[2];

        ret_lo[i] = s->c[i] - reach;
        ret_hi[i] = s->c[i] + reach;
    }
}

bool shapes_bounds(const struct shapes *shapes, int thing, double ret_lo[3], double ret_hi[3])
{
    bool any = false;

    for (int k = 0; k < shapes->n; k++) {
        double lo[3], hi[3];

        if (shapes->at[k].thing != thing)
            continue;
        shape_bounds(&shapes->at[k], lo, hi);
        for (int i = 0; i < 3; i++) {
            ret_lo[i] = any ? fmin(ret_lo[i], lo[i]) : lo[i];
            ret_hi[i] = any ? fmax(ret_hi[i], hi[i]) : hi[i];
        }
        any = true;
    }
    return any;
}

double shapes_top(const struct shapes *shapes, const double lo[2], const double hi[2], int without)
{
    double top = 0;

    for (int k = 0; k < shapes->n; k++) {
        double a[3], b[3];

        if (without >= 0 && shapes->at[k].thing == without)
            continue;
        shape_bounds(&shapes->at[k], a, b);
        if (a[0] < hi[0] && b[0] > lo[0] && a[1] < hi[1] && b[1] > lo[1])
            top = fmax(top, b[2]);
    }
    return top;
}

static double column_dot(const double *R, int column, const double v[3])
{
    return R[column] * v[0] + R[3 + column] * v[1] + R[6 + column] * v[2];
}

/* Separating axes: the faces of both, and the cross products of their edges. */
static bool apart_along(const double axis[3], const double between[3], const struct shape *a, const struct shape *b)
{
    double reach = 0;

    for (int i = 0; i < 3; i++)
        reach += a->half[i] * fabs(column_dot(a->R, i, axis)) + b->half[i] * fabs(column_dot(b->R, i, axis));
    return fabs(mju_dot3(axis, between)) > reach;
}

bool shape_overlaps(const struct shape *a, const struct shape *b)
{
    double between[3], axis[3], other[3];

    mju_sub3(between, b->c, a->c);
    if (mju_dot3(between, between) > (a->r + b->r) * (a->r + b->r))
        return false;
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 3; k++)
            axis[k] = a->R[3 * k + i];
        if (apart_along(axis, between, a, b))
            return false;
        for (int k = 0; k < 3; k++)
            other[k] = b->R[3 * k + i];
        if (apart_along(other, between, a, b))
            return false;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double u[3], v[3];

            for (int k = 0; k < 3; k++) {
                u[k] = a->R[3 * k + i];
                v[k] = b->R[3 * k + j];
            }
            mju_cross(axis, u, v);
            if (mju_dot3(axis, axis) > 1e-9 && apart_along(axis, between, a, b))
                return false;
        }
    return true;
}
