/* golden_prm.h - is this set one of reward models, and its check (golden_check hands it over). */
#pragma once

#include <stdio.h>

#include "base/error.h"

/* As golden_check, one line for each tensor: shape, largest absolute and relative error, tolerance, PASS or FAIL. */
int golden_check_prm(const char *dir, const char *dtype, FILE *out, struct error *error);
