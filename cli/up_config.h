/* up_config.h - whose configuration `gantry up WHAT` means: that of a file, or of the run whose directory was named. */
#pragma once

#include <limits.h>

#include "base/error.h"
#include "daemon/run_config.h"

/* The file. -ENOENT: a directory in which no run is. */
int up_config_find(const char *given, char ret[PATH_MAX], struct error *error);

/* run_config_load, and then: */
int up_config_load(const char *path, struct run_config *ret, struct error *error);
/* suite.tasks: [all] becomes the names of the suite's tasks; what then does not fit is refused. path: for messages. -EINVAL: there
 * is no such suite. */
int up_config_name_tasks(const char *path, struct run_config *config, struct error *error);

/* A run's own config.yaml means the run that it lies in, wherever that was moved or copied to, and whatever was lost of it. */
void up_config_own_dir(const char *path, struct run_config *config);
