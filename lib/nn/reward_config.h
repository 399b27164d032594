/* reward_config.h - reward_config.json of a reward model's directory: what its prompts show, as its head was trained with it.
 *
 * The file is gantry's own, {"history": k}: an episode's first frame, the k frames before the present one, the present one.
 * Failure rule: -errno with one line; outputs untouched. */
#pragma once

#include "base/error.h"

/* 0 .. most; `usual` when the directory has no such file. -EINVAL: out of range. */
int reward_config_read(const char *dir, int usual, int most, int *ret_history, struct error *error);
int reward_config_write(const char *dir, int history, struct error *error);

/* Which frame of an episode is the i-th picture of the prompt about frame `step`, i = 0 .. history + 1. Before there are so many
 * the first one stands in, so that every prompt has the same number of pictures. */
static inline int reward_frame(int history, int step, int i)
{
    int frame = step - (history + 1 - i);

    return i == 0 || frame < 0 ? 0 : frame;
}
