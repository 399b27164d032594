/* report_prm.h - the reward model in report.html: what it was worth on held-out episodes, beside a blind one and a clock, and its
 * scores along a success and a failure under their frames. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

/* Nothing is written for a run without a reward model. */
void report_prm_write(const char *run_dir, const struct report_data *data, struct strbuf *out);
