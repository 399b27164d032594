/* device_use.h - a daemon's device: opened once at the start, named in the log, and what its libraries refuse is told.
 *
 * Thread rule: the main thread before the loop; device_watch on the loop's thread. */
#pragma once

#include "daemon/lifecycle.h"
#include "nn/device/device.h"

/* Models that are packed from now on compute on `name` (cpu, cuda:N). -EINVAL: there is none of that name here, or no driver for
 * it. The error has the remedy. */
int device_use(const char *name, struct error *error);

struct device_seen {
    struct device_fallbacks fallbacks;
    size_t memory_used, memory; /* bytes: in use by everybody on the device (0: not known yet), and all it has */
};

/* For every heartbeat: the counts so far. A kind of refusal is logged when it is met for the first time. A device that is lost
 * stops the daemon with status 1, after one line: a new process may find it, or says what is wrong with it. */
struct device_seen device_watch(struct lifecycle *lifecycle);
