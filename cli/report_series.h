/* report_series.h - report.html: every series of the ledger as a plot of its own, rl's and each other stage's apart; those that
 * never changed in one line. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

int report_series_write(const struct report_data *data, struct strbuf *out);    /* -ENOMEM */

/* One series over all rl stages, as they are drawn: x by report_train_iteration. x, y: (n_scalars). Returns how many points. */
int report_series_points(const struct report_data *data, const char *series, double *x, double *y);
