#include <math.h>

#include "base/macro.h"
#include "sim/suites/libero/expert_look.h"
#include "sim/suites/libero/hand.h"

#define GAIN 1.6       /* of a step's goal over the distance left */
#define REACH 0.05     /* m that an action of 1 asks for */
#define TURN 0.5       /* rad */
#define CLEARANCE 0.04 /* m above what stands in the way */

void aim_turned(const struct look *l, const double target[3], const double R[9], double gripper, float action[7])
{
    double turned[9], spin[3], quat[4];

    for (int i = 0; i < 3; i++)
        action[i] = (float)CLAMP(GAIN * (target[i] - l->x[i]) / REACH, -1.0, 1.0);
    mju_mulMatMatT(turned, R, l->R, 3, 3, 3);
    mju_mat2Quat(quat, turned);
    mju_quat2Vel(spin, quat, 1);
    for (int i = 0; i < 3; i++)
        action[3 + i] = (float)CLAMP(spin[i] / TURN, -1.0, 1.0);
    action[6] = (float)gripper;
}

void aim(const struct look *l, const double target[3], double yaw, double gripper, float action[7])
{
    double R[9];

    hand_upright(yaw, R);
    aim_turned(l, target, R, gripper, action);
}

bool is_turned(const float action[7]) { return fabsf(action[3]) + fabsf(action[4]) + fabsf(action[5]) < .12f; }

double away_xy(const struct look *l, const double target[3]) { return hypot(target[0] - l->x[0], target[1] - l->x[1]); }

double away(const struct look *l, const double target[3]) { return mju_dist3(l->x, target); }

double travel_height(const struct look *l, const double to[3], double below, double half_width, int without)
{
    double lo[2], hi[2];

    for (int i = 0; i < 2; i++) {
        lo[i] = fmin(l->x[i], to[i]) - half_width;
        hi[i] = fmax(l->x[i], to[i]) + half_width;
    }
    return shapes_top(l->shapes, lo, hi, without) + below + CLEARANCE;
}

bool travel(const struct look *l, const double to[3], double height, double ret_target[3])
{
    const bool low = l->x[2] < height - .03 && away_xy(l, to) > .03;

    ret_target[0] = low ? l->x[0] : to[0];
    ret_target[1] = low ? l->x[1] : to[1];
    ret_target[2] = height;
    return !low && away_xy(l, to) < .008;
}
