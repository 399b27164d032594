/* status_tasks.h - how each task goes, in a run of several: what success over all of them does not say. */
#pragma once

#include "base/json_write.h"
#include "daemon/run_config.h"
#include "run/ledger.h"

enum { STATUS_TASKS_PASSES = 5 };       /* a task has few episodes in one */

/* An object a task into an open array, of the newest rl stage: "success", the mean of its last passes in training in which the task
 * was played, and how many ("passes"); "val", of the last look at val states; "drawn", how often the curriculum takes it. null: not
 * known. Nothing for a run of one task, or before a pass has ended. */
void status_tasks_write(struct ledger *ledger, const struct run_config *config, struct json_writer *w);
