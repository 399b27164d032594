/* mujoco_slot.h - one constant mjModel per task, one mjData per slot; MuJoCo's errors become -EIO.
 *
 * MuJoCo reports a broken simulation in two ways: mju_error(), which must not return, and warning counters (a state that
 * blew up). mujoco_slot_step and mujoco_slot_run turn both into -EIO: the first by a jump out of MuJoCo (nothing else runs
 * under the jump), after which that mjData is thrown away and replaced, since its stack can no longer be trusted. A slot that
 * broke says -EIO until mujoco_slot_clear. An error outside mj_step (compiling, rendering) ends the process.
 *
 * Thread rule: a slot belongs to one thread at a time; models are shared and constant. */
#pragma once

#include <mujoco/mujoco.h>
#include <stdbool.h>

#include "base/error.h"

struct mujoco_file { const char *name, *text; };        /* one MJCF file in memory */

/* MuJoCo's errors and warnings come to this file, not to MUJOCO_LOG.TXT in the working directory. Before any mj_load*; once is
 * enough, and mujoco_compile does it. Any thread. */
void mujoco_handlers(void);

/* Compile files[0], which may <include> the others by name. */
int mujoco_compile(const struct mujoco_file *files, size_t n, mjModel **ret, struct error *error);

struct mujoco_slot {
    const mjModel *model;       /* borrowed */
    mjData *data;
    bool broken;
};

int mujoco_slot_init(struct mujoco_slot *slot, const mjModel *model);
void mujoco_slot_release(struct mujoco_slot *slot);

/* Back to the model's initial state; the caller then writes qpos, mocap poses and ctrl, and calls mujoco_slot_place. */
void mujoco_slot_clear(struct mujoco_slot *slot);
/* Bring body poses up to date with qpos. Poses are always those of the present state, never one substep old. */
void mujoco_slot_place(struct mujoco_slot *slot);
/* `substeps` times mj_step, then mujoco_slot_place. -EIO: broken. */
int mujoco_slot_step(struct mujoco_slot *slot, int substeps);

/* Run `work`, which may call any MuJoCo function on this slot's data and nothing that holds a lock or memory, under the same
 * guard; poses are then those of its last forward pass. -EIO: broken. */
int mujoco_slot_run(struct mujoco_slot *slot, void (*work)(void *user), void *user);

/* The integrator's state (mjSTATE_INTEGRATION: what mj_step reads, warm start included) as doubles. */
int mujoco_state_doubles(const mjModel *model);
void mujoco_slot_save(const struct mujoco_slot *slot, double *ret_state);
void mujoco_slot_restore(struct mujoco_slot *slot, const double *state);

/* What the renderer draws. */
struct mujoco_view {
    const mjModel *model;
    mjData *data;
    int camera;                 /* id in the model */
    bool benchmark;             /* as robosuite draws: MuJoCo's own lights, reflections, sky and haze; group 0 unseen */
    int n_paint;                /* geoms whose colour belongs to the episode, not to the model */
    struct { int geom; float rgba[4]; } paint[4];
};
