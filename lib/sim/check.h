/* check.h - is this simulator the benchmark? Replays reference data and says where it differs; for `gantry sim check`. */
#pragma once

#include "sim/sim.h"

struct sim_check_counts {
    int files, failed;
};

/* Called for every file compared: one line, and whether it agrees. */
typedef void sim_check_report(void *user, const char *line, bool agrees);

/* Reference data of LIBERO in `folder` (models, physics, predicates, images: whatever is there), for one suite or "libero" (all
 * of them). device: as sim_renderer_open's. -ENOENT: neither assets nor any file; other -errno: the line in error. Disagreement
 * is no error: see counts. */
int sim_check_libero(const char *suite, const struct sim_options *options, int device, const char *folder,
                     sim_check_report *report, void *user, struct sim_check_counts *ret, struct error *error);
