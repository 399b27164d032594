/* report_health.h - the report's sections on how learning went and what it took: returns, divergence, entropy and the critic over
 * the iterations, steps per second, policies beside one another, the versions that were made. What a run has not is left out. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

/* Policies on test states with their intervals; look-ahead if it was played. */
void report_policies_write(const struct report_data *data, struct strbuf *out);
/* Into a row of plots. -ENOMEM. */
int report_health_write(const struct report_data *data, struct strbuf *out);
void report_versions_write(const struct report_data *data, struct strbuf *out);
