/* predicates.h - LIBERO's predicates on the state of one slot. Source: object_states/base_object_states.py.
 *
 * Positions and contacts are those of data's last forward pass, joint angles those of qpos now: after a control step they are
 * one substep apart, as in the original. */
#pragma once

#include "sim/suites/libero/task.h"

/* Is it one of the statements that the task can judge? -EINVAL and a line if a name has no joints, no site, no on/off. */
int predicate_check(const struct libero_task *task, const struct bddl_statement *statement, struct error *error);
/* Of a statement that predicate_check has passed. */
bool predicate_holds(const struct libero_task *task, const mjData *data, const struct bddl_statement *statement);
/* All of the goal's statements. */
bool predicate_goal(const struct libero_task *task, const mjData *data);
/* Is the stove's knob turned on? False where there is no stove. */
bool predicate_burner(const struct libero_task *task, const mjData *data);
