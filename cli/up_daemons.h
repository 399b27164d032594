/* up_daemons.h - the children of `gantry up`: as many of each role as the configuration says, or as `gantry scale` said last.
 * Thread rule: the loop's thread. */
#pragma once

#include "cli/daemons.h"
#include "cli/supervisor.h"
#include "daemon/admin.h"
#include "daemon/lifecycle.h"

enum {
    UP_MOST = 1024,             /* of one role: cluster.env_workers' limit */
    UP_DRAIN_SLACK_MS = 60000,  /* from the coordinator's deadline of a drain to ours: the members leave */
};

struct up_daemons {             /* borrowed */
    const struct run_config *config;
    const char *run_dir, *join;
    struct supervisor *supervisor;
    struct lifecycle *lifecycle;
};

int up_daemons_start(struct up_daemons *daemons, struct error *error);

/* RUN/sock/up.sock: takes `scale ROLE N`, `drain` and `leaves PID`. */
int up_daemons_listen(struct up_daemons *daemons, struct loop *loop, struct admin **ret, struct error *error);
