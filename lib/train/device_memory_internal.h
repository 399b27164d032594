/* device_memory_internal.h - what the plans of policies and of reward models have in common. */
#pragma once

#include "nn/tape.h"
#include "train/device_memory.h"

/* A tape on a device that has no memory, in its dry run. For tape_release also where it failed. */
int plan_tape(struct tape *tape, bool training, bool half);
int64_t plan_tape_bytes(const struct tape *tape);       /* what the pass on it will ask tape_allocate for */
/* What cuDNN works in when it is given the largest piece of n sequences; group: heads of q per head of k and v. */
int64_t plan_attention(int64_t n, int64_t heads, int64_t group, int64_t dim, int64_t rows, bool backward);
