/* arm.h - the gantry arm: how an action moves it, and where it is.
 *
 * An action moves a target, a position servo follows. The target keeps at most ARM_LEAD of distance from the hand
 * before the action is added, so a blocked arm does not wind up. arm.xml is included first in every scene, which fixes
 * the indices below; arm_check proves it when a task is opened. */
#pragma once

#include "sim/mujoco_slot.h"

enum { ARM_X, ARM_Y, ARM_Z, ARM_YAW, ARM_LEFT, ARM_RIGHT, ARM_QPOS };    /* qpos */
enum { ARM_CTRL_GRIP = 4, ARM_CTRLS };                                   /* ctrl: x y z yaw grip */
enum { ARM_SUBSTEPS = 25 };                                              /* of .004 s: 10 Hz */

#define ARM_REACH 0.04              /* metres an action component of 1 moves the target */
#define ARM_TURN 0.3                /* radians, likewise */
#define ARM_OPEN 0.05               /* finger joint, metres */

/* What the controller remembers; part of the saved state. */
struct arm_target {
    double xyz[3], yaw;             /* metres, radians */
    double grip;                    /* finger joint wanted: 0 or ARM_OPEN */
};

int arm_check(const mjModel *model, struct error *error);

/* Put the hand at xyz, open, at rest. Call between mujoco_slot_clear and mujoco_slot_place. */
void arm_reset(struct mujoco_slot *slot, struct arm_target *target, const double xyz[3]);
/* Move the target by an action (dx dy dz droll dpitch dyaw gripper; roll and pitch are ignored) and set the servos. */
void arm_command(struct mujoco_slot *slot, struct arm_target *target, const float action[7]);

static inline const double *arm_hand(const struct mujoco_slot *slot)    /* xyz; tips are 5 mm lower */
{
    return slot->data->qpos;
}
static inline double arm_opening(const struct mujoco_slot *slot)        /* finger joint, 0..ARM_OPEN */
{
    return slot->data->qpos[ARM_LEFT];
}
