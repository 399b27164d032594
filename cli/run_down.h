/* run_down.h - a run whose coordinator does not answer: how far it came, and what to do. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* The line into *error, whose errnum stays. `asked`: the socket that did not answer (run_socket.h). Returns whether the run is
 * finished. */
bool run_down_describe(const char *run_dir, const char *asked, struct error *error);
