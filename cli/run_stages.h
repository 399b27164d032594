/* run_stages.h - how far a run has come, from its ledger; the run is not up. */
#pragma once

#include "daemon/run_config.h"
#include "run/ledger.h"

struct run_stages {
    int done, of;               /* stages of its configuration */
    char next[32];              /* the one that it is in, or that comes; "": all are done, or the ledger does not know it yet */
    int later, later_open;      /* evaluations behind them (`gantry eval` adds them), and those that have not ended */
    char stopped[400];          /* why the coordinator's last life stopped it by itself (nobody drained or killed it); "": it did not */
};

/* -errno with a line. -EBUSY: it is up. */
int run_stages_read(const char *run_dir, const struct run_config *config, struct run_stages *ret, struct error *error);
/* The same of a ledger that is open. */
int run_stages_of(struct ledger *ledger, const struct run_config *config, struct run_stages *ret);
bool run_stages_all(const struct run_stages *stages);       /* the configuration's; whatever was evaluated later */

/* run_stages.stopped alone. */
int run_stopped(struct ledger *ledger, char *ret, size_t size);
