/* summary.h - summary.json: what a run achieved, computed from its ledger alone (so `gantry report` can make it again).
 *
 * Success figures are of test states, each policy at the temperature that was best on val, each task weighing the same. The
 * difference is paired: both policies start from the same states with the same sampling keys; its 95 % interval is a
 * percentile bootstrap over the pairs. What was not measured in this run is null or absent, never guessed.
 * Thread rule: whoever holds the ledger. Failure rule: -errno, *error. */
#pragma once

#include "base/error.h"
#include "daemon/run_config.h"
#include "run/ledger.h"

/* The JSON text. The ledger's blob "runtime" (rates and memory as members told them: `"key":value,...`), if a coordinator left
 * one, is taken over as it is. */
int summary_make(struct ledger *ledger, const struct run_config *config, struct strbuf *out, struct error *error);
/* RUN/summary.json, atomically. */
int summary_write(struct ledger *ledger, const struct run_config *config, const char *run_dir, struct error *error);
