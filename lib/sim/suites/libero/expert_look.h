/* expert_look.h - what the expert's parts share: the state as it sees it, the phases, and how the hand is moved.
 *
 *   expert.c       which statement of the goal is in hand; which phase acts
 *   expert_take.c  on, in, turnon, turnoff: take from above, carry and put down, or twist
 *   expert_part.c  open, close: a drawer or a door by its handle, or pushed
 *   expert_slide.c on, of what is too flat to be taken: slid over the work surface
 *   expert_aside.c where to put first what a drawer would open over
 *
 * A phase looks at the state, gives one action, and may name the phase of the next step. */
#pragma once

#include "sim/suites/libero/expert.h"
#include "sim/suites/libero/libero.h"

/* clang-format off */
enum phase {
    PLAN,
    OVER, DOWN, CLOSE, LIFT, CARRY, LOWER, OPEN, AWAY, TWIST,                        /* expert_take.c */
    PART_OVER, PART_DOWN, PART_REACH, PART_GRIP, PART_MOVE, PART_RELEASE, PART_BACK, /* expert_part.c */
    SLIDE_OVER, SLIDE_DOWN, SLIDE,                                                   /* expert_slide.c */
    N_PHASES
};
/* clang-format on */

/* The state, and what the expert sees in it. */
struct look {
    struct libero_slot *slot;
    const struct libero_task *task;
    const mjData *data;
    struct expert_memory *m;
    const double *x, *R; /* grip site */
    const struct bddl_statement *goal;
    struct bddl_statement opening; /* what must be opened first: no statement of the file's */
    int thing;                     /* what the statement's first name is, or belongs to */
    int region;                    /* of the first name; -1 */
    struct shapes *shapes;
};

typedef void phase_fn(struct look *l, float action[7]);

void go_to_phase(struct look *l, enum phase phase);
/* The joint that the statement is about: of the region, else the thing's first. -1: none. */
int goal_joint(const struct look *l);

/* Towards a place, turned like R (aim: upright at that angle); gripper 1 closes, -1 opens. */
void aim_turned(const struct look *l, const double target[3], const double R[9], double gripper, float action[7]);
void aim(const struct look *l, const double target[3], double yaw, double gripper, float action[7]);
bool is_turned(const float action[7]);
double away_xy(const struct look *l, const double target[3]);
double away(const struct look *l, const double target[3]);
/* How high the grip must be to pass from here to there with nothing hanging lower than `below` under it, a thing of the scene
 * (-1: none) left out: the one in the hand. */
double travel_height(const struct look *l, const double to[3], double below, double half_width, int without);
/* Over a place, up first, then across: where to aim. True: there, in the plane. */
bool travel(const struct look *l, const double to[3], double height, double ret_target[3]);

/* -ENOMEM. 0: the next phase is set, or still PLAN where nothing can be taken. */
int plan_take(struct look *l);
int plan_part(struct look *l);
int plan_slide(struct look *l);
phase_fn do_over, do_down, do_close, do_lift, do_carry, do_lower, do_open, do_away, do_twist;
phase_fn do_part_over, do_part_down, do_part_reach, do_part_grip, do_part_move, do_part_release, do_part_back;
phase_fn do_slide_over, do_slide_down, do_slide;

/* Where a thing shall be put: the middle of what the statement names, in the plane; or aside. */
void place_of(const struct look *l, double ret[2]);
bool should_slide(const struct look *l);
/* What a joint of the scene moves, and how far it shall go. -ENOENT: no joint. */
int part_towards(const struct look *l, int joint, const struct libero_threshold *limit, struct part *ret);
/* Would the part move over the thing, or against it? A place near by where it would not; false: there is none. */
bool stands_in_the_way(const struct look *l, const struct part *part, int thing);
bool place_aside(const struct look *l, const struct part *part, int thing, double ret[2]);
