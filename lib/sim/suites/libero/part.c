#include "sim/suites/libero/part.h"

#include <math.h>

void part_init(const mjModel *model, const mjData *data, int joint, double to, struct part *ret)
{
    const int body = model->jnt_bodyid[joint];

    *ret = (struct part){
        .joint = joint,
        .body = body,
        .slides = model->jnt_type[joint] == mjJNT_SLIDE,
        .q = data->qpos[model->jnt_qposadr[joint]],
        .to = to,
        .x = data->xpos + 3 * body,
        .R = data->xmat + 9 * body,
    };
    mju_copy3(ret->axis, data->xaxis + 3 * joint);
    mju_copy3(ret->anchor, data->xanchor + 3 * joint);
}

double part_sign(const struct part *part) { return part->to > part->q ? 1 : -1; }

void part_velocity(const struct part *part, const double point[3], double ret[3])
{
    double arm[3];

    if (part->slides) {
        mju_copy3(ret, part->axis);
    } else {
        mju_sub3(arm, point, part->anchor);
        mju_cross(ret, part->axis, arm);
    }
    mju_scl3(ret, ret, part_sign(part));
}

void part_carry(const struct part *part, double dq, double x[3], double R[9])
{
    double quat[4], turn[9], arm[3], before[9];

    if (part->slides) {
        mju_addToScl3(x, part->axis, dq);
        return;
    }
    mju_axisAngle2Quat(quat, part->axis, dq);
    mju_quat2Mat(turn, quat);
    mju_sub3(arm, x, part->anchor);
    mju_mulMatVec3(x, turn, arm);
    mju_addTo3(x, part->anchor);
    mju_copy(before, R, 9);
    mju_mulMatMat(R, turn, before, 3, 3, 3);
}
