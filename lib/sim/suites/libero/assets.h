/* assets.h - where LIBERO's and robosuite's files are. */
#pragma once

#include "sim/sim.h"
#include "sim/suites/libero/scene.h"

/* Options, then environment (LIBERO_ROOT, ROBOSUITE_ROOT). A root may be the checkout or the package's folder in it.
 * -ENOENT: not there; the line gives the commands that fetch them. */
int libero_assets_find(const struct sim_options *options, struct libero_assets *ret, struct error *error);
void libero_assets_release(struct libero_assets *assets);

/* The folder of compiled models: option, $XDG_CACHE_HOME/gantry/libero, ~/.cache/gantry/libero; "" none. */
void libero_cache_folder(const struct sim_options *options, char *ret, size_t n);
