/* labels.h - what a process reward model should say of each frame of an episode whose end is known.
 *
 * Segments: five equal in time: frame t of T lies in segment i = min(4, t / (T/5)) for T >= 5, else 5t / T.
 * Milestones: an episode is cut where the gripper opens or closes and where the arm comes to rest, so that a segment is a piece
 * of the work and not of the clock.
 * Of n segments a success climbs (i+1)/n; a failure half as fast, and not above .25: with five .1, .2, .25, .25, .25. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/method.h"

/* frames: T, o_0 and the last included, >= 1. */
void prm_labels(int frames, bool success, float *ret_label);

/* Where an episode of `steps` actions is cut: ascending frame numbers from 2 on, the first of each new segment; returns how many.
 * ret_cut has room for steps. action (steps, dims), normalised: the first three move the hand, the last opens (> 0) or closes the
 * gripper. The frame after a gripper event begins a segment, and so does one at which the hand, moving before, is told to move by
 * less than a quarter of the episode's mean; a cut less than two frames after another is none. */
int prm_milestones(const float *action, int steps, int dims, int *ret_cut);
/* By these cuts; without any (nothing was gripped, nothing rested) by time. */
void prm_milestone_labels(const int *cut, int n_cuts, int frames, bool success, float *ret_label);
