/* episode_input.h - a Trajectory as lib/train reads it, which knows no protobuf. */
#pragma once

#include "proto/trajectory.pb-c.h"
#include "train/sample.h"

/* Borrows from the trajectory; frames are whoever's they were. */
struct episode_input episode_input_of(const Gantry__Trajectory *t, uint8_t *frames, size_t n_frames);
