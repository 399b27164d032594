/* report_sources.h - in report.html: the data sets from outside that a run's policies and reward models learnt from. Their
 * episodes are in no list of the ledger's; what a version was made of stands in its training.json. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

/* Nothing is written for a run that played all its demonstrations. */
void report_sources_write(const char *run_dir, const struct report_data *data, struct strbuf *out);
