#include "sim/suites/libero/hold.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/macro.h"

#define PULL_FROM 0.075                        /* m back, before the handle is reached */
static const double push_from[] = {.04, .015}; /* the same, before the fingers touch the face */
static const double point_step = .012, edge = .006;
static const double slants[] = {0, .17, .35, .52, .7, .87, 1.05}; /* rad from upright, fingers' ends ahead */
static const double turns_aside[] = {0, .35, -.35, .7, -.7};      /* rad about the closing axis */
enum { ANGLES = 24 };                                             /* about a handle's length */

struct search {
    const struct shapes *shapes;
    const struct part *part;
    enum hand_fingers fingers;
    int attempt;
    double best_cost;
    struct hold best;
};

static void axis_of(const double *R, int column, double ret[3])
{
    for (int i = 0; i < 3; i++)
        ret[i] = R[3 * i + column];
}

static void set_axes(const double closing[3], const double across[3], const double along[3], double ret_R[9])
{
    for (int i = 0; i < 3; i++) {
        ret_R[3 * i] = closing[i];
        ret_R[3 * i + 1] = across[i];
        ret_R[3 * i + 2] = along[i];
    }
}

/* Free where it begins, coming down to there, and where the part shall be. */
static bool is_free(const struct search *s, const double x[3], const double R[9], const double from[3])
{
    const double rise[] = {0, .06, .12, .2};
    double at[3], end[3], end_R[9];

    for (size_t i = 0; i < ARRAY_SIZE(rise); i++) {
        mju_add3(at, x, from);
        at[2] += rise[i];
        if (!hand_is_free(s->shapes, at, R, s->fingers))
            return false;
    }
    mju_copy3(end, x);
    mju_copy(end_R, R, 9);
    part_carry(s->part, s->part->to - s->part->q, end, end_R);
    return hand_is_free_but(s->part->body, s->shapes, end, end_R, s->fingers);
}

static void consider(struct search *s, const double x[3], const double R[9], const double from[3], double cost)
{
    double offset[3];

    if (s->attempt > 0) /* other places: a different, but fixed, order for every attempt */
        cost += .05 * (1 + sin(1000 * (x[0] + 2 * x[1] + 3 * x[2] + hand_turned(R)) * s->attempt));
    if (cost >= s->best_cost || !is_free(s, x, R, from))
        return;
    s->best_cost = cost;
    mju_sub3(offset, x, s->part->x);
    mju_mulMatTVec3(s->best.x, s->part->R, offset);
    mju_mulMatTVec3(s->best.from, s->part->R, from);
    mju_mulMatTMat(s->best.R, s->part->R, R, 3, 3, 3);
}

static int found(const struct search *s, struct hold *ret)
{
    if (s->best_cost >= 1e9)
        return -ENOENT;
    *ret = s->best;
    return 0;
}

/* ---- push ----------------------------------------------------------------------------------------------------- */

/* With the fingers' ends at a point of a face, which goes that way; lever: m for a rad of the joint. */
static void consider_push(struct search *s, const double point[3], const double go[3], double lever)
{
    const double level = hypot(go[0], go[1]);
    const double ahead[3] = {go[0] / level, go[1] / level, 0};

    for (size_t i = 0; i < ARRAY_SIZE(slants); i++) {
        const double c = cos(slants[i]), t = sin(slants[i]);
        const double along[3] = {t * ahead[0], t * ahead[1], -c};
        double across[3] = {c * ahead[0], c * ahead[1], t}, closing[3], R[9], x[3], back[3];

        mju_copy3(x, point); /* the fingers' front edge touches */
        mju_addToScl3(x, across, -HAND_THIN);
        mju_addToScl3(x, along, -HAND_TIP);
        mju_cross(closing, across, along);
        set_axes(closing, across, along, R);
        if (hand_turned(R) > M_PI_2 + .1) { /* the same hand, half a turn about its fingers */
            mju_scl3(across, across, -1);
            mju_scl3(closing, closing, -1);
            set_axes(closing, across, along, R);
        }
        for (size_t k = 0; k < ARRAY_SIZE(push_from); k++) {
            mju_scl3(back, ahead, -push_from[k]);
            consider(s, x, R, back, .1 * slants[i] - (s->part->slides ? 0 : lever) + .05 * (double)k);
        }
    }
}

static void consider_face(struct search *s, const struct shape *shape, int axis, double side)
{
    const int u = (axis + 1) % 3, v = (axis + 2) % 3;
    double outward[3], eu[3], ev[3];

    axis_of(shape->R, axis, outward);
    axis_of(shape->R, u, eu);
    axis_of(shape->R, v, ev);
    for (double a = edge - shape->half[u]; a <= shape->half[u] - edge; a += point_step)
        for (double b = edge - shape->half[v]; b <= shape->half[v] - edge; b += point_step) {
            double point[3], go[3], lever;

            mju_copy3(point, shape->c);
            mju_addToScl3(point, outward, side * shape->half[axis]);
            mju_addToScl3(point, eu, a);
            mju_addToScl3(point, ev, b);
            part_velocity(s->part, point, go);
            lever = mju_norm3(go);
            if (-side * mju_dot3(outward, go) > .8 * lever && hypot(go[0], go[1]) > .8 * lever)
                consider_push(s, point, go, lever);
        }
}

int hold_to_push(const struct shapes *shapes, const struct part *part, int attempt, struct hold *ret)
{
    struct search s = {.shapes = shapes, .part = part, .fingers = HAND_CLOSED, .attempt = attempt, .best_cost = 1e9};

    for (int k = 0; k < shapes->n; k++)
        for (int axis = 0; axis < 3 && shapes->at[k].body == part->body; axis++) {
            consider_face(&s, &shapes->at[k], axis, 1);
            consider_face(&s, &shapes->at[k], axis, -1);
        }
    return found(&s, ret);
}

/* ---- pull ----------------------------------------------------------------------------------------------------- */

static double width_of(const struct shape *shape, const double closing[3])
{
    double width = 0, axis[3];

    for (int i = 0; i < 3; i++) {
        axis_of(shape->R, i, axis);
        width += 2 * shape->half[i] * fabs(mju_dot3(axis, closing));
    }
    return width;
}

/* All along the bar, with its middle between the pads or a little further out; askew: rad from square to it, about the closing
 * axis. */
static void consider_side(struct search *s, const struct shape *bar, const double u[3], double half, const double closing[3],
                          const double square[3], double askew)
{
    double along[3], across[3], aside[3], R[9], from[3];

    mju_cross(aside, square, closing);
    mju_scl3(along, square, cos(askew));
    mju_addToScl3(along, aside, sin(askew));
    mju_cross(across, along, closing);
    set_axes(closing, across, along, R);
    mju_scl3(from, along, -PULL_FROM);
    for (int i = 0; i < 10; i++) {
        const double at = (i % 5 - 2) * half / 2, back = i < 5 ? 0 : .006;
        double x[3];

        mju_copy3(x, bar->c);
        mju_addToScl3(x, u, at);
        mju_addToScl3(x, along, -back);
        if (hand_is_free(s->shapes, x, R, HAND_OPEN))
            consider(s, x, R, from, .1 * hand_turned(R) + .1 * fabs(askew) + fabs(at) + 10 * back);
    }
}

static void consider_bar(struct search *s, const struct shape *shape)
{
    const double *half = shape->half;
    const int longest = half[0] >= half[1] && half[0] >= half[2] ? 0 : half[1] >= half[2] ? 1 : 2;
    double u[3], e1[3], e2[3];

    if (half[longest] < .02 || fmax(half[(longest + 1) % 3], half[(longest + 2) % 3]) > .03)
        return;
    axis_of(shape->R, longest, u);
    axis_of(shape->R, (longest + 1) % 3, e1);
    axis_of(shape->R, (longest + 2) % 3, e2);
    for (int a = 0; a < 2 * ANGLES; a++) {
        const double angle = (a % ANGLES) * 2 * M_PI / ANGLES, turn = a < ANGLES ? 1 : -1;
        double square[3], across[3], closing[3];

        mju_scl3(square, e1, cos(angle));
        mju_addToScl3(square, e2, sin(angle));
        mju_scl3(across, u, turn);
        mju_cross(closing, across, square);
        if (width_of(shape, closing) <= HAND_WIDEST)
            for (size_t i = 0; i < ARRAY_SIZE(turns_aside); i++)
                consider_side(s, shape, u, half[longest] - HAND_THIN, closing, square, turns_aside[i]);
    }
}

int hold_to_pull(const struct shapes *shapes, const struct part *part, int attempt, struct hold *ret)
{
    struct search s = {.shapes = shapes, .part = part, .fingers = HAND_OPEN, .attempt = attempt, .best_cost = 1e9};

    for (int k = 0; k < shapes->n; k++)
        if (shapes->at[k].body == part->body)
            consider_bar(&s, &shapes->at[k]);
    return found(&s, ret);
}

/* ---- use ------------------------------------------------------------------------------------------------------- */

void hold_pose(const struct hold *hold, const struct part *part, double ret_x[3], double ret_R[9])
{
    mju_mulMatVec3(ret_x, part->R, hold->x);
    mju_addTo3(ret_x, part->x);
    mju_mulMatMat(ret_R, part->R, hold->R, 3, 3, 3);
}

void hold_before(const struct hold *hold, const struct part *part, double ret_x[3])
{
    double from[3], R[9];

    hold_pose(hold, part, ret_x, R);
    mju_mulMatVec3(from, part->R, hold->from);
    mju_addTo3(ret_x, from);
}
