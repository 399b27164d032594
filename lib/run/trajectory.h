/* trajectory.h - one episode out of the journal, unpacked: what every reader of a run's episodes starts with. */
#pragma once

#include "proto/trajectory.pb-c.h"
#include "run/journal.h"

/* Loads and unpacks one episode; the caller frees *ret_trajectory (_cleanup_(trajectory_freep) does) and *ret_frames: uint8,
 * (trajectory_observed, images, height, width, 3), their size in bytes in *ret_n. ret_frames NULL: only the trajectory, ret_n is
 * not used. -ENOENT: not in the journal. -EBADMSG: damaged, or no trajectory; *error names the place. */
int trajectory_load(struct journal *journal, uint64_t episode, Gantry__Trajectory **ret_trajectory, uint8_t **ret_frames,
                    size_t *ret_n, struct error *error);

/* How many observations have pictures (frames): all steps + 1, or those that were drawn. */
static inline size_t trajectory_observed(const Gantry__Trajectory *t)
{
    return t->n_observed ? t->n_observed : (size_t)t->steps + 1;
}

void trajectory_freep(Gantry__Trajectory **trajectory);
