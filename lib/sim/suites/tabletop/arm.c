#include "sim/suites/tabletop/arm.h"

#include <errno.h>

#define ARM_LEAD 0.015              /* metres */
#define ARM_LEAD_YAW 0.1            /* radians */

static const double low[3] = {-0.2, -0.2, 0.012}, high[3] = {0.2, 0.2, 0.26};

int arm_check(const mjModel *model, struct error *error)
{
    static const char *const joints[ARM_QPOS] = {"x", "y", "z", "yaw", "left", "right"};
    static const char *const actuators[ARM_CTRLS] = {"x", "y", "z", "yaw", "grip"};
    int i, joint;

    for (i = 0; i < ARM_QPOS; i++) {
        joint = mj_name2id(model, mjOBJ_JOINT, joints[i]);
        if (joint < 0 || model->jnt_qposadr[joint] != i)
            return error_set(error, EINVAL, "%s: joint %s is not qpos %d; include arm.xml first", model->names, joints[i], i);
    }
    for (i = 0; i < ARM_CTRLS; i++)
        if (mj_name2id(model, mjOBJ_ACTUATOR, actuators[i]) != i)
            return error_set(error, EINVAL, "%s: actuator %s is not ctrl %d; include arm.xml first",
                             model->names, actuators[i], i);
    return 0;
}

static void send(struct mujoco_slot *slot, const struct arm_target *target)
{
    double *ctrl = slot->data->ctrl;
    int i;

    for (i = 0; i < 3; i++)
        ctrl[i] = target->xyz[i];
    ctrl[ARM_YAW] = target->yaw;
    ctrl[ARM_CTRL_GRIP] = target->grip;
}

void arm_reset(struct mujoco_slot *slot, struct arm_target *target, const double xyz[3])
{
    int i;

    for (i = 0; i < 3; i++)
        slot->data->qpos[i] = target->xyz[i] = xyz[i];
    slot->data->qpos[ARM_LEFT] = slot->data->qpos[ARM_RIGHT] = ARM_OPEN;
    target->yaw = 0;
    target->grip = ARM_OPEN;
    send(slot, target);
}

static double lead(double target, double now, double limit)
{
    return now + CLAMP(target - now, -limit, limit);
}

void arm_command(struct mujoco_slot *slot, struct arm_target *target, const float action[7])
{
    const double *qpos = slot->data->qpos;
    double moved;
    int i;

    for (i = 0; i < 3; i++) {
        moved = lead(target->xyz[i], qpos[i], ARM_LEAD) + ARM_REACH * (double)action[i];
        target->xyz[i] = CLAMP(moved, low[i], high[i]);
    }
    moved = lead(target->yaw, qpos[ARM_YAW], ARM_LEAD_YAW) + ARM_TURN * (double)action[5];
    target->yaw = CLAMP(moved, -1.6, 1.6);
    target->grip = action[6] > 0 ? ARM_OPEN : 0;
    send(slot, target);
}
