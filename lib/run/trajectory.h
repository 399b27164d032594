/* trajectory.h - one episode out of the journal, unpacked: what every reader of a run's episodes starts with. */
#pragma once

#include "proto/trajectory.pb-c.h"
#include "run/journal.h"

/* Loads and unpacks one episode; the caller frees *ret_trajectory (_cleanup_(trajectory_freep) does) and *ret_frames: uint8,
 * (steps + 1, images, height, width, 3), their size in bytes in *ret_n. ret_frames NULL: only the trajectory, ret_n is not used.
 * -ENOENT: not in the journal. -EBADMSG: damaged, or no trajectory; *error names the place. */
int trajectory_load(struct journal *journal, uint64_t episode, Gantry__Trajectory **ret_trajectory, uint8_t **ret_frames,
                    size_t *ret_n, struct error *error);

void trajectory_freep(Gantry__Trajectory **trajectory);
