#include "sim/suites/libero/expert.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/macro.h"
#include "base/philox.h"
#include "sim/suites/libero/grasp.h"
#include "sim/suites/libero/libero.h"
#include "sim/suites/libero/predicates.h"

enum phase { PLAN, OVER, DOWN, CLOSE, LIFT, CARRY, LOWER, OPEN, AWAY, MOVE };

#define GAIN 1.6          /* of a step's goal over the distance left */
#define REACH 0.05        /* m that an action of 1 asks for */
#define TURN 0.5          /* rad */
#define CLEARANCE 0.04    /* m above what stands in the way */
#define HAND_BELOW 0.0095 /* fingers' ends below the grip site */
enum { LOOK_EVERY = 20 }; /* steps between two searches while nothing can be taken */

/* The state, and what the expert sees in it. */
struct look {
    struct libero_slot *slot;
    const struct libero_task *task;
    const mjData *data;
    struct expert_memory *m;
    const double *x, *R; /* grip site */
    const struct bddl_statement *goal;
    int thing;  /* what the statement's first name is, or belongs to */
    int region; /* of the first name; -1 */
    struct shapes *shapes;
};

static void go_to_phase(struct look *l, enum phase phase)
{
    l->m->phase = phase;
    l->m->steps = 0;
}

/* ---- moving ------------------------------------------------------------------------------------------------- */

static void aim(const struct look *l, const double target[3], double yaw, double gripper, float action[7])
{
    double want[9], turned[9], spin[3], quat[4];

    for (int i = 0; i < 3; i++)
        action[i] = (float)CLAMP(GAIN * (target[i] - l->x[i]) / REACH, -1.0, 1.0);
    grasp_rotation(yaw, want);
    mju_mulMatMatT(turned, want, l->R, 3, 3, 3);
    mju_mat2Quat(quat, turned);
    mju_quat2Vel(spin, quat, 1);
    for (int i = 0; i < 3; i++)
        action[3 + i] = (float)CLAMP(spin[i] / TURN, -1.0, 1.0);
    action[6] = (float)gripper;
}

static double away_xy(const struct look *l, const double target[3]) { return hypot(target[0] - l->x[0], target[1] - l->x[1]); }

static double away(const struct look *l, const double target[3]) { return mju_dist3(l->x, target); }

/* How high the grip must be to pass from here to there with nothing hanging lower than `below` under it. */
static double travel_height(const struct look *l, const double to[3], double below, double half_width)
{
    double lo[2], hi[2];

    for (int i = 0; i < 2; i++) {
        lo[i] = fmin(l->x[i], to[i]) - half_width;
        hi[i] = fmax(l->x[i], to[i]) + half_width;
    }
    return shapes_top(l->shapes, lo, hi, l->m->phase >= LIFT ? l->thing : -1) + below + CLEARANCE;
}

/* Over a place: up first, then across; *ret: there. */
static bool travel(const struct look *l, const double to[3], double height, double yaw, double gripper, float action[7])
{
    double target[3] = {to[0], to[1], height};
    const bool low = l->x[2] < height - .03 && away_xy(l, to) > .03;

    if (low) {
        target[0] = l->x[0];
        target[1] = l->x[1];
    }
    aim(l, target, yaw, gripper, action);
    return !low && away_xy(l, to) < .008;
}

static bool is_turned(const float action[7]) { return fabsf(action[3]) + fabsf(action[4]) + fabsf(action[5]) < .12f; }

/* ---- the goal ----------------------------------------------------------------------------------------------- */

static bool find_goal(struct look *l)
{
    const struct bddl_problem *problem = l->task->problem;
    const uint32_t before = l->m->statement;

    if (before < (uint32_t)problem->n_goal && !predicate_holds(l->task, l->data, &problem->goal[before])) {
        l->goal = &problem->goal[before];
    } else if (l->m->phase == PLAN || l->m->phase == AWAY) {
        for (int i = 0; i < problem->n_goal && !l->goal; i++)
            if (!predicate_holds(l->task, l->data, &problem->goal[i])) {
                if ((uint32_t)i != before)
                    l->m->attempts = 0;
                l->m->statement = (uint32_t)i;
                l->goal = &problem->goal[i];
            }
    } else if (before < (uint32_t)problem->n_goal) {
        l->goal = &problem->goal[before]; /* reached while holding it: finish the movement */
    }
    if (!l->goal)
        return false;
    l->region = libero_region(l->task, l->goal->first);
    l->thing = l->region >= 0 ? l->task->regions[l->region].parent : libero_thing(l->task, l->goal->first);
    return l->thing >= 0;
}

static bool is_articulated(const struct bddl_statement *s) { return s->predicate != BDDL_ON && s->predicate != BDDL_IN; }

/* The joint that the statement is about: of the region, else the thing's first. -1: none. */
static int goal_joint(const struct look *l)
{
    const struct libero_thing *thing = &l->task->things[l->thing];
    int qpos = -1;

    if (l->region >= 0 && l->task->regions[l->region].n_joints > 0)
        qpos = l->task->regions[l->region].joints[0];
    else if (l->region < 0 && thing->n_joints > 0)
        qpos = thing->joints[0];
    for (int j = 0; j < l->task->model->njnt; j++)
        if (l->task->model->jnt_qposadr[j] == qpos)
            return j;
    return -1;
}

/* Where a thing shall be put: the middle of what the statement names, in the plane. */
static void place_of(const struct look *l, double ret[2])
{
    const int region = libero_region(l->task, l->goal->second), thing = libero_thing(l->task, l->goal->second);
    const double *at =
        region >= 0 ? l->data->site_xpos + 3 * l->task->regions[region].site : l->data->xpos + 3 * l->task->things[thing].body;

    ret[0] = at[0];
    ret[1] = at[1];
}

/* ---- phases --------------------------------------------------------------------------------------------------- */

static const double *thing_at(const struct look *l) { return l->data->xpos + 3 * l->task->things[l->thing].body; }

/* How far the thing hangs below the grip site, and its lowest point's distance. */
static double hangs_below(const struct look *l)
{
    double lo[3], hi[3];

    return shapes_bounds(l->shapes, l->thing, lo, hi) ? fmax(l->x[2] - lo[2], HAND_BELOW) : HAND_BELOW;
}

static int plan(struct look *l)
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

static void do_over(struct look *l, float action[7])
{
    const double height = fmax(travel_height(l, l->m->grip, HAND_BELOW, .05), l->m->grip[2] + .06);

    if (travel(l, l->m->grip, height, l->m->yaw, -1, action) && is_turned(action))
        go_to_phase(l, DOWN);
    if (mju_dist3(thing_at(l), l->m->thing) > .015 || l->m->steps > 100)
        go_to_phase(l, PLAN);
}

static void do_down(struct look *l, float action[7])
{
    aim(l, l->m->grip, l->m->yaw, -1, action);
    if (away(l, l->m->grip) < .006 || (l->m->steps > 25 && away_xy(l, l->m->grip) < .01) || l->m->steps > 50)
        go_to_phase(l, CLOSE);
}

static void do_close(struct look *l, float action[7])
{
    const double *dq = l->data->qvel + ARM;

    aim(l, l->m->grip, l->m->yaw, 1, action);
    if ((l->m->steps >= 7 && fabs(dq[0]) + fabs(dq[1]) < .01) || l->m->steps > 20) {
        go_to_phase(l, is_articulated(l->goal) ? MOVE : LIFT);
        mju_copy3(l->m->target, l->x);
    }
}

static bool lost(const struct look *l)
{
    const double *dq = l->data->qpos + ARM;

    return dq[0] - dq[1] < .002 || mju_dist3(thing_at(l), l->x) > .25;
}

static void do_lift(struct look *l, float action[7])
{
    double target[3] = {l->m->grip[0], l->m->grip[1], l->m->grip[2] + .08};

    aim(l, target, l->m->yaw, 1, action);
    if (l->x[2] > l->m->grip[2] + .05 || l->m->steps > 30)
        go_to_phase(l, thing_at(l)[2] > l->m->thing[2] + .02 ? CARRY : PLAN);
}

static void do_carry(struct look *l, float action[7])
{
    double place[2], to[3], height;

    place_of(l, place);
    for (int i = 0; i < 2; i++)
        to[i] = place[i] + l->x[i] - thing_at(l)[i];
    height = travel_height(l, to, hangs_below(l), .08);
    if (travel(l, to, height, l->m->yaw, 1, action))
        go_to_phase(l, LOWER);
    if (lost(l) || l->m->steps > 150)
        go_to_phase(l, PLAN);
}

/* Down until its lowest point is a centimetre above what lies there. */
static void do_lower(struct look *l, float action[7])
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

static void do_open(struct look *l, float action[7])
{
    if (l->m->steps == 1)
        mju_copy3(l->m->target, l->x);
    aim(l, l->m->target, l->m->yaw, -1, action);
    if (l->m->steps > 6)
        go_to_phase(l, AWAY);
}

static void do_away(struct look *l, float action[7])
{
    double target[3] = {l->m->target[0], l->m->target[1], l->m->target[2] + .12};

    aim(l, target, l->m->yaw, -1, action);
    if (l->x[2] > l->m->target[2] + .08 || l->m->steps > 25)
        go_to_phase(l, PLAN);
}

/* Along the joint, as far as the predicate wants it: a slide is pulled, a hinge about the vertical is twisted. */
static void do_move(struct look *l, float action[7])
{
    const int joint = goal_joint(l), sign = l->goal->predicate == BDDL_TURNON || l->goal->predicate == BDDL_CLOSE ? 1 : -1;
    double target[3];

    if (joint < 0)
        return;
    mju_copy3(target, l->x);
    if (l->task->model->jnt_type[joint] == mjJNT_SLIDE) {
        mju_addToScl3(target, l->data->xaxis + 3 * joint, sign * .05);
        target[2] = l->m->target[2];
    } else {
        mju_copy3(target, l->m->target);
        l->m->yaw += sign * .06;
    }
    aim(l, target, l->m->yaw, 1, action);
    if (predicate_holds(l->task, l->data, l->goal) || l->m->steps > 60)
        go_to_phase(l, OPEN);
}

static int act(struct look *l, float action[7])
{
    static void (*const phases[])(struct look * l, float action[7]) = {
        [OVER] = do_over,   [DOWN] = do_down, [CLOSE] = do_close, [LIFT] = do_lift, [CARRY] = do_carry,
        [LOWER] = do_lower, [OPEN] = do_open, [AWAY] = do_away,   [MOVE] = do_move,
    };
    int r = l->m->phase == PLAN && l->m->steps % LOOK_EVERY == 0 ? plan(l) : 0;

    if (r < 0)
        return r;
    l->m->steps++;
    if (l->m->phase == PLAN)        /* out of the way */
        aim(l, l->task->rest.x, l->m->yaw, -1, action);
    else
        phases[l->m->phase](l, action);
    return 0;
}

static void run_position(void *user)
{
    struct libero_slot *slot = user;

    mj_fwdPosition(&slot->model, slot->mujoco.data);
}

/* What it looks at must follow from the state's bytes alone: after a step, poses and contacts are those of a substep before. The
 * next step makes its own forward pass, so nothing else notices. */
int libero_expert(struct libero_slot *slot, float ret_action[7])
{
    _cleanup_free_ struct shapes *shapes = malloc(sizeof(*shapes));
    const mjData *data;
    float action[7] = {[6] = -1};
    struct look l;
    int r;

    if (!shapes)
        return -ENOMEM;
    r = mujoco_slot_run(&slot->mujoco, run_position, slot);
    if (r < 0)
        return r;
    data = slot->mujoco.data;
    l = (struct look){
        .slot = slot,
        .task = slot->task,
        .data = data,
        .m = &slot->memory.expert,
        .shapes = shapes,
        .x = data->site_xpos + 3 * slot->task->grip_site,
        .R = data->site_xmat + 9 * slot->task->grip_site,
    };
    if (find_goal(&l)) {
        shapes_collect(l.task, data, shapes);
        r = act(&l, action);
    }
    if (r == 0)
        memcpy(ret_action, action, sizeof(action));
    return r;
}

int libero_demonstrate(struct libero_slot *slot, const char *style, uint64_t seed, int step, float ret_action[7],
                       float ret_label[7])
{
    const bool slow = strcmp(style, "slow") == 0;
    struct philox noise = philox_at(seed, PHILOX_NOISE, (uint64_t)step, 0, 0);
    float label[7], action[7];
    int r;

    if (!slow && strcmp(style, "clean") != 0)
        return -EINVAL;
    r = libero_expert(slot, label);
    if (r < 0)
        return r;
    memcpy(action, label, sizeof(action));
    for (int i = 0; i < 3; i++)
        action[i] = (float)CLAMP((slow ? .5 : 1) * (double)label[i] + (slow ? .05 : .15) * philox_normal(&noise), -1.0, 1.0);
    memcpy(ret_action, action, sizeof(action));
    memcpy(ret_label, slow ? action : label, sizeof(label));
    return 0;
}
