/* beside.h - what came with this program: models, example files, job scripts. Found from an installation and from a source tree,
 * whatever the working directory is. */
#pragma once

#include "base/error.h"

/* NAME ("models/tiny", "slurm", "bin") in PREFIX/share/gantry or PREFIX of PREFIX/bin/gantry, or in deploy/ or the top of the
 * source tree. -ENOENT: in none of them. */
int beside_find(const char *name, char *ret, size_t size, struct error *error);

/* models/NAME that is not below the working directory, but came with this program: its path takes the name's place. */
void beside_find_model(char *path, size_t size);
