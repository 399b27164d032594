/* run_simulation.h - the simulator that a run's configuration asks for, opened for all slots of a worker. */
#pragma once

#include "env_worker/slot.h"

/* Sets simulation, shape, chain, full and ended, and logs what draws the pictures. config: the run's, as Welcome has it; device:
 * of the renderer, as in sim_renderer_open; simulator: suite remote, instead of the run's suite.remote; NULL: as the run says.
 * *error: what is wrong with it, or missing (suite, EGL). */
int run_simulation_open(struct slot_shared *shared, const char *config, int device, const char *simulator, struct error *error);
