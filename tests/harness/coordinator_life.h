/* coordinator_life.h - a coordinator in the test's own process, with a run of every kind of stage (fake_members.h plays it).
 *
 *   life_setup (of a cmocka test) -> life_live, or edge_new and edge_start by hand -> life_teardown */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/edge.h"
#include "tests/harness/scratch.h"

extern char life_dir[SCRATCH_PATH], life_run_dir[96], life_config[96];     /* of all; the run's; the configuration's file */
extern struct error life_error;     /* of what failed last */
extern struct edge *life_edge;      /* while life_live runs it; else NULL */

int life_setup(void **state);
int life_teardown(void **state);
/* One life of the coordinator: until it has finished (0) or ended otherwise. */
int life_live(struct loop *loop);
/* A command of an operator, as the admin socket runs it. */
int life_command(struct edge *edge, const char *name, const char *argument);
