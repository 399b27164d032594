/* labels.h - what a process reward model should say of each frame of an episode whose end is known.
 *
 * Five equal segments in time: frame t of T lies in segment i = min(4, t / (T/5)) for T >= 5, else 5t / T.
 * A success climbs (i+1)/5; a failure (i+1)/10 for the first two segments and .25 after. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* frames: T, o_0 and the last included, >= 1. */
void prm_labels(int frames, bool success, float *ret_label);
