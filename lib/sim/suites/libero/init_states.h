/* init_states.h - LIBERO's .pruned_init files: a torch zip around one pickled numpy array, (rows, width) of doubles.
 *
 * A row is [time, qpos, qvel]: width = 1 + nq + nv. The pickle is read by base/pickle.h with a whitelist of the four names that
 * numpy needs; nothing is run. */
#pragma once

#include "base/error.h"

struct init_states {
    int rows, width;
    double *values;             /* (rows, width) */
};

/* width: what the model needs; a file of another is refused. */
int init_states_read(const char *path, int width, struct init_states *ret, struct error *error);
void init_states_release(struct init_states *states);
