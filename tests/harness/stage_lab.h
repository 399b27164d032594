/* stage_lab.h - a run's configuration to which a test adds the stages that it is about. */
#pragma once

#include "daemon/run_config.h"

/* For cmocka_unit_test_setup: *state is a struct run_config with seed 7, the tasks "reach" and "open", and no stages. */
int stage_lab_set_up(void **state);
/* One more stage, all zeros but for kind and name. */
struct stage_config *stage_lab_add(struct run_config *config, enum stage_kind kind, const char *name);
