/* report_curriculum.h - the schedule in report.html: each task's share of the draws, the success estimate behind it, the
 * level. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

/* Nothing is written for a run with one task, or without an rl stage. -ENOMEM. */
int report_curriculum_write(const struct report_data *data, struct strbuf *out);
