/* controller.h - robosuite 1.4's operational-space pose controller (OSC_POSE) and its gripper, for the Panda arm.
 *
 * Per control step (20 Hz, 25 substeps of 2 ms):  controller_goal once, controller_run every substep. Both want what the last
 * forward pass computed; controller_cache copies it. After a reset the first control step still uses the copy made with the arm
 * at its rest posture (robosuite's "new_update" is false then): task code keeps that copy as `rest`.
 * Everything is plain bytes: saved states hold it. Source: robosuite/controllers/osc.py, base_controller.py. */
#pragma once

#include <mujoco/mujoco.h>
#include <stdbool.h>
#include <stdint.h>

enum { ARM = 7 };

struct controller {
    /* what was copied from the last forward pass */
    double x[3], R[9];          /* grip site: position, rotation (row-major) */
    double v[3], w[3];          /* its velocity: of all joints */
    double q[ARM], dq[ARM];
    double Jp[3 * ARM], Jr[3 * ARM], M[ARM * ARM];
    /* where to */
    double goal_x[3], goal_R[9];
    double posture[ARM];        /* null space pulls here: the rest posture */
    double gripper[2];          /* integrated command, -1..1 */
    uint32_t stale;             /* the copy must be renewed before the next use (robosuite: new_update) */
    uint32_t zero;
};

extern const double controller_rest_posture[ARM];

/* Copy positions, velocities, Jacobians and mass matrix from data. site: grip_site. */
void controller_cache(struct controller *c, const mjModel *model, mjData *data, int site);
/* After controller_cache at rest: goal and posture are where the arm is, gripper at zero. */
void controller_reset(struct controller *c);

/* New goal from action[0..5] in [-1,1]: moved from the copied pose; three rotations of exactly 0 keep the old goal rotation. */
void controller_goal(struct controller *c, const double action[6]);
/* Torques and finger targets of one substep into ctrl[0..8], clipped to the actuators' ranges. qfrc_bias: live. */
void controller_run(struct controller *c, const mjModel *model, const double *qfrc_bias, double gripper_action, double *ctrl);

/* Axis-angle to matrix with robosuite's float32 rounding (exposed for its test). */
void controller_rotation(const double axis_angle[3], double ret_R[9]);
