#include <errno.h>
#include <math.h>

#include "base/macro.h"
#include "sim/suites/libero/expert_look.h"
#include "sim/suites/libero/predicates.h"

#define TURN_ROOM 0.08 /* m further from the part, while the hand is being turned */
#define AHEAD 0.05     /* m along the motion that the hand aims for */

static bool is_pull(const struct look *l) { return l->goal->predicate == BDDL_OPEN; }

int part_towards(const struct look *l, int joint, const struct libero_threshold *limit, struct part *ret)
{
    const mjModel *model = l->task->model;
    double beyond;

    if (joint < 0)
        return -ENOENT;
    beyond = model->jnt_type[joint] == mjJNT_SLIDE ? .004 : .02;
    part_init(model, l->data, joint,
              CLAMP(limit->at + limit->sign * beyond, model->jnt_range[2 * joint], model->jnt_range[2 * joint + 1]), ret);
    return 0;
}

/* -ENOENT: nothing that the statement is about moves. */
static int part_of(const struct look *l, struct part *ret)
{
    const struct libero_category *category = l->task->things[l->thing].category;

    return part_towards(l, goal_joint(l), is_pull(l) ? &category->open : &category->close, ret);
}

int plan_part(struct look *l)
{
    struct part part;
    int r;

    if (part_of(l, &part) < 0)
        return 0;
    r = is_pull(l) ? hold_to_pull(l->shapes, &part, (int)l->m->attempts++, &l->m->hold)
                   : hold_to_push(l->shapes, &part, (int)l->m->attempts++, &l->m->hold);
    if (r == 0)
        go_to_phase(l, PART_OVER);
    return 0; /* nothing is free: wait, look again */
}

/* The part, and where the hand holds it now. */
static void hold_now(const struct look *l, struct part *ret_part, double ret_x[3], double ret_R[9])
{
    (void)part_of(l, ret_part); /* plan_part has seen it */
    hold_pose(&l->m->hold, ret_part, ret_x, ret_R);
}

void do_part_over(struct look *l, float action[7])
{
    struct part part;
    double x[3], R[9], before[3], away_from[3], target[3], height, room;
    bool there;

    hold_now(l, &part, x, R);
    hold_before(&l->m->hold, &part, before);
    mju_sub3(away_from, before, x);
    height = fmax(travel_height(l, before, hand_hangs(R), .05, -1), before[2] + .02);
    there = travel(l, before, height, target);
    aim_turned(l, target, R, is_pull(l) ? -1 : 1, action);
    room = TURN_ROOM * fmin(fabs((double)action[3]) + fabs((double)action[4]) + fabs((double)action[5]), 1);
    mju_addToScl(target, away_from, room / mju_norm3(away_from), 2);
    aim_turned(l, target, R, is_pull(l) ? -1 : 1, action);
    if (l->x[2] < height - .1)
        action[3] = action[4] = action[5] = 0;
    else if (there && is_turned(action))
        go_to_phase(l, PART_DOWN);
    if (l->m->steps > 100)
        go_to_phase(l, PLAN);
}

void do_part_down(struct look *l, float action[7])
{
    struct part part;
    double x[3], R[9], before[3];

    hold_now(l, &part, x, R);
    hold_before(&l->m->hold, &part, before);
    aim_turned(l, before, R, is_pull(l) ? -1 : 1, action);
    if (away(l, before) < .008 && is_turned(action))
        go_to_phase(l, is_pull(l) ? PART_REACH : PART_MOVE);
    else if (l->m->steps > 50)
        go_to_phase(l, PART_BACK);
}

void do_part_reach(struct look *l, float action[7])
{
    struct part part;
    double x[3], R[9];

    hold_now(l, &part, x, R);
    aim_turned(l, x, R, -1, action);
    if (away(l, x) < .005 || l->m->steps > 25)
        go_to_phase(l, PART_GRIP);
}

void do_part_grip(struct look *l, float action[7])
{
    const double *dq = l->data->qvel + ARM;
    struct part part;
    double x[3], R[9];

    hold_now(l, &part, x, R);
    aim_turned(l, x, R, 1, action);
    if ((l->m->steps >= 7 && fabs(dq[0]) + fabs(dq[1]) < .01) || l->m->steps > 20)
        go_to_phase(l, PART_MOVE);
}

void do_part_move(struct look *l, float action[7])
{
    struct part part;
    double x[3], R[9], go[3];

    hold_now(l, &part, x, R);
    part_velocity(&part, x, go);
    part_carry(&part, part_sign(&part) * AHEAD / fmax(mju_norm3(go), .05), x, R);
    aim_turned(l, x, R, 1, action);
    if (predicate_holds(l->task, l->data, l->goal) || l->m->steps > 80)
        go_to_phase(l, is_pull(l) ? PART_RELEASE : PART_BACK);
}

void do_part_release(struct look *l, float action[7])
{
    if (l->m->steps == 1)
        mju_copy3(l->m->target, l->x);
    aim_turned(l, l->m->target, l->R, -1, action);
    if (l->m->steps > 6)
        go_to_phase(l, PART_BACK);
}

void do_part_back(struct look *l, float action[7])
{
    struct part part;
    double x[3], R[9];

    hold_now(l, &part, x, R);
    if (l->m->steps == 1) {
        mju_mulMatVec3(l->m->target, part.R, l->m->hold.from);
        mju_addTo3(l->m->target, l->x);
    }
    aim_turned(l, l->m->target, R, is_pull(l) ? -1 : 1, action);
    if (away(l, l->m->target) < .015 || l->m->steps > 15) {
        mju_copy3(l->m->target, l->x);
        l->m->yaw = hand_yaw(R);
        go_to_phase(l, AWAY);
    }
}
