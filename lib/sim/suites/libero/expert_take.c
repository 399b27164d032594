#include <errno.h>
#include <math.h>

#include "base/macro.h"
#include "sim/suites/libero/expert_look.h"
#include "sim/suites/libero/grasp.h"
#include "sim/suites/libero/predicates.h"

static bool is_articulated(const struct bddl_statement *s) { return s->predicate != BDDL_ON && s->predicate != BDDL_IN; }

void place_of(const struct look *l, double ret[2])
{
    const int region = libero_region(l->task, l->goal->second), thing = libero_thing(l->task, l->goal->second);
    const double *at =
        region >= 0 ? l->data->site_xpos + 3 * l->task->regions[region].site : l->data->xpos + 3 * l->task->things[thing].body;

    if (l->m->first == ASIDE_FIRST)
        at = l->m->aside;
    ret[0] = at[0];
    ret[1] = at[1];
}

static const double *thing_at(const struct look *l) { return l->data->xpos + 3 * l->task->things[l->thing].body; }

/* How far the thing hangs below the grip site, and its lowest point's distance. */
static double hangs_below(const struct look *l)
{
    double lo[3], hi[3];

    return shapes_bounds(l->shapes, l->thing, lo, hi) ? fmax(l->x[2] - lo[2], HAND_TIP) : HAND_TIP;
}

int plan_take(struct look *l)
{
    struct grasp g;
    const int joint = is_articulated(l->goal) ? goal_joint(l) : -1;
    int r = grasp_search(l->task, l->data, l->shapes, l->thing, joint < 0 ? -1 : l->task->model->jnt_bodyid[joint],
                         (int)l->m->attempts++, &g);

    if (r == -ENOMEM)
        return r;
    if (r < 0) /* nothing is free: wait, look again */
        return 0;
    mju_copy3(l->m->grip, g.x);
    mju_copy3(l->m->thing, thing_at(l));
    l->m->yaw = g.yaw;
    go_to_phase(l, OVER);
    return 0;
}

void do_over(struct look *l, float action[7])
{
    const double height = fmax(travel_height(l, l->m->grip, HAND_TIP, .05, -1), l->m->grip[2] + .06);
    double target[3];
    const bool there = travel(l, l->m->grip, height, target);

    aim(l, target, l->m->yaw, -1, action);
    if (there && is_turned(action))
        go_to_phase(l, DOWN);
    if (mju_dist3(thing_at(l), l->m->thing) > .015 || l->m->steps > 100)
        go_to_phase(l, PLAN);
}

void do_down(struct look *l, float action[7])
{
    aim(l, l->m->grip, l->m->yaw, -1, action);
    if (away(l, l->m->grip) < .006 || (l->m->steps > 25 && away_xy(l, l->m->grip) < .01) || l->m->steps > 50)
        go_to_phase(l, CLOSE);
}

void do_close(struct look *l, float action[7])
{
    const double *dq = l->data->qvel + ARM;

    aim(l, l->m->grip, l->m->yaw, 1, action);
    if ((l->m->steps >= 7 && fabs(dq[0]) + fabs(dq[1]) < .01) || l->m->steps > 20) {
        go_to_phase(l, is_articulated(l->goal) ? TWIST : LIFT);
        mju_copy3(l->m->target, l->x);
    }
}

static bool lost(const struct look *l)
{
    const double *dq = l->data->qpos + ARM;

    return dq[0] - dq[1] < .002 || mju_dist3(thing_at(l), l->x) > .25;
}

void do_lift(struct look *l, float action[7])
{
    double target[3] = {l->m->grip[0], l->m->grip[1], l->m->grip[2] + .08};

    aim(l, target, l->m->yaw, 1, action);
    if (l->x[2] > l->m->grip[2] + .05 || l->m->steps > 30)
        go_to_phase(l, thing_at(l)[2] > l->m->thing[2] + .02 ? CARRY : PLAN);
}

void do_carry(struct look *l, float action[7])
{
    double place[2], to[3] = {0}, target[3];
    bool there;

    place_of(l, place);
    for (int i = 0; i < 2; i++)
        to[i] = place[i] + l->x[i] - thing_at(l)[i];
    there = travel(l, to, travel_height(l, to, hangs_below(l), .08, l->thing), target);
    aim(l, target, l->m->yaw, 1, action);
    if (there)
        go_to_phase(l, LOWER);
    if (lost(l) || l->m->steps > 150)
        go_to_phase(l, PLAN);
}

/* Down until its lowest point is a centimetre above what lies there. */
void do_lower(struct look *l, float action[7])
{
    double place[2], lo[3], hi[3], target[3], top;

    place_of(l, place);
    if (!shapes_bounds(l->shapes, l->thing, lo, hi))
        return;
    for (int i = 0; i < 2; i++) {
        const double half = .3 * (hi[i] - lo[i]);

        target[i] = place[i] + l->x[i] - thing_at(l)[i];
        lo[i] = place[i] - half;
        hi[i] = place[i] + half;
    }
    top = shapes_top(l->shapes, lo, hi, l->thing);
    target[2] = top + .008 + l->x[2] - lo[2];
    aim(l, target, l->m->yaw, 1, action);
    action[2] = (float)fmax((double)action[2], -.6);
    if (fabs(target[2] - l->x[2]) < .006 || l->m->steps > 40)
        go_to_phase(l, OPEN);
    if (lost(l))
        go_to_phase(l, PLAN);
}

void do_open(struct look *l, float action[7])
{
    if (l->m->steps == 1)
        mju_copy3(l->m->target, l->x);
    aim(l, l->m->target, l->m->yaw, -1, action);
    if (l->m->steps > 6)
        go_to_phase(l, AWAY);
}

void do_away(struct look *l, float action[7])
{
    double target[3] = {l->m->target[0], l->m->target[1], l->m->target[2] + .12};

    aim(l, target, l->m->yaw, -1, action);
    if (l->x[2] > l->m->target[2] + .08 || l->m->steps > 25)
        go_to_phase(l, PLAN);
}

/* About the vertical, until the predicate has what it wants. */
void do_twist(struct look *l, float action[7])
{
    l->m->yaw += l->goal->predicate == BDDL_TURNON ? .06 : -.06;
    aim(l, l->m->target, l->m->yaw, 1, action);
    if (predicate_holds(l->task, l->data, l->goal) || l->m->steps > 60)
        go_to_phase(l, OPEN);
}
