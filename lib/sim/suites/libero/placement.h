/* placement.h - LIBERO's reset as a random draw: where fixtures stand, where objects lie, how far drawers are open.
 *
 * One stream per environment: seeded once, then one draw per reset; the k-th reset's draw depends on all before it (and, by a
 * quirk of the original, draws every open/close/turnon statement k + 1 times). set_init_state later overwrites all but the
 * fixtures: published evaluation resets with seed 0 and takes row k after the k-th reset. Draws after numpy's, in the order of
 * the original's samplers (libero/envs/bddl_base_domain.py, regions/); fixture poses equal the original's to the last bit or two.
 */
#pragma once

#include "sim/suites/libero/mt19937.h"
#include "sim/suites/libero/task.h"

struct placement_stream {
    struct mt19937 mt;
    int resets;                 /* drawn so far */
};

struct placement {
    double arm_noise[ARM];                              /* 7 standard normals; the benchmark's reset multiplies them by 0 */
    double fixture_pose[LIBERO_MAX_FIXTURES][7];        /* pos, quat (w first) */
    double object_pose[BDDL_MAX][7];                    /* goes into the free joint's qpos as it is */
    struct { int qpos; double value; } joints[BDDL_MAX];
    int n_joints;
};

void placement_seed(struct placement_stream *stream, uint32_t seed);
/* The next reset's draw. scratch: an mjData of the task's model, overwritten. -EAGAIN: an object found no free place in 5000
 * tries (the original raises RandomizationError); -EINVAL: an :init statement that cannot be placed (line in error). */
int placement_draw(struct placement_stream *stream, const struct libero_task *task, mjData *scratch, struct placement *ret,
                   struct error *error);
/* A state as [time, qpos, qvel] (width 1 + nq + nv): the placement, the arm at rest plus noise (rad) times arm_noise. */
void placement_state(const struct libero_task *task, const struct placement *placement, double noise, double *ret_row);
