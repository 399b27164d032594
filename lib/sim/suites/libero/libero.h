/* libero.h - one slot of a LIBERO task: reset to a state, take control steps, look at the result.
 *
 *   libero_slot_init -> libero_set_state(row, fixture poses) -> { libero_step(action) }* -> libero_slot_release
 *
 * A control step is 25 substeps of 2 ms. Observations are taken in substep 24: poses (and pictures) show the state before it,
 * joint angles the state after it; reward and the burner's flag belong to substep 25 (LIBERO's observables run on a timer that a
 * reset leaves one tick ahead). Two orders of a substep:
 *   reference   forward, forward, step: what robosuite does, equal to it to the last contact
 *   onepass     step1, controller, step2: faster by 1.5 to 1.8; differs by the solver's warm start
 *
 * A slot has its own copy of what an episode may change in the model: fixtures' poses and the burner's colour. Everything an
 * episode remembers outside MuJoCo is in struct libero_memory, plain bytes. One thread at a time. */
#pragma once

#include "sim/suites/libero/expert.h"
#include "sim/suites/libero/task.h"

enum libero_order { LIBERO_REFERENCE, LIBERO_ONEPASS };
enum { LIBERO_SUBSTEPS = 25, LIBERO_OBSERVED_SUBSTEP = 24, LIBERO_PROPRIO = 8 };

struct libero_observation {     /* of the last control step, or of the reset */
    double eef_pos[3], eef_quat[4];     /* m; x y z w */
    double joint_pos[ARM], joint_vel[ARM];
    double gripper_qpos[2], gripper_qvel[2];
};

struct libero_memory {
    struct controller controller;
    struct libero_observation observation;
    double fixture_pose[LIBERO_MAX_FIXTURES][7];        /* pos, quat of every fixture, in things' order */
    uint32_t burner, burner_drawn;      /* knob on: now, and when the observation was taken */
    uint32_t latched;                   /* the goal has held at the end of some step */
    uint32_t order;                     /* enum libero_order */
    struct expert_memory expert;
};

struct libero_slot {
    struct sim_slot base;
    const struct libero_task *task;     /* borrowed */
    mjModel model;                      /* a copy of the task's struct with own body_pos, body_quat, site_rgba */
    struct mujoco_slot mujoco;          /* on `model` */
    struct libero_memory memory;
    double *drawn_qpos;                 /* (nq): the state that pictures show */
    mjData *drawn;                      /* its kinematics, made when a picture is asked for */
    bool fresh;                         /* onepass: step1 of the coming substep is still to do */
};

int libero_slot_init(struct libero_slot *slot, const struct libero_task *task, enum libero_order order);
void libero_slot_release(struct libero_slot *slot);

/* LIBERO's reset + set_init_state: row is [time, qpos, qvel]; fixture_pose: one (pos, quat) per fixture in things' order.
 * -EIO: MuJoCo raised an error. */
int libero_set_state(struct libero_slot *slot, const double *row, const double (*fixture_pose)[7]);
/* One control step; action as LIBERO's (clipped to [-1,1] inside). -EIO: the simulation broke. */
int libero_step(struct libero_slot *slot, const double action[7]);
/* Reward of the last step: does the goal hold now? */
bool libero_success(const struct libero_slot *slot);

/* Full state as bytes: memory, order of substeps, the drawn state, MuJoCo's integrator state. Equal bytes have equal futures.
 * -EINVAL: not such bytes. */
size_t libero_state_size(const struct libero_task *task);
void libero_save(const struct libero_slot *slot, void *ret_state);
int libero_restore(struct libero_slot *slot, const void *state);

/* The policy's 8 numbers: eef position, its axis-angle, gripper qpos. */
void libero_proprio(const struct libero_slot *slot, double ret[LIBERO_PROPRIO]);
/* What the camera (0 agentview, 1 wrist) sees. */
void libero_view(struct libero_slot *slot, int camera, struct mujoco_view *ret);
