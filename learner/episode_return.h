/* episode_return.h - what an episode earned, undiscounted: the number people see as `return`.
 *
 * An rl episode's return is the sum of the rewards it is trained on, with the configured weights (w_progress before any decay:
 * one measure for the whole stage). Of any other episode: its environment's own rewards, or 1 for a success where it gives
 * none. */
#pragma once

#include "base/method.h"
#include "proto/trajectory.pb-c.h"

/* rl: of the stage it was played for; NULL: of none. The trajectory has been checked (delivery.c), or comes from the journal. */
double episode_return(const Gantry__Trajectory *trajectory, const struct rl_config *rl);
