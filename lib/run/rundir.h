/* rundir.h - the run directory: where its files are, and who holds it.
 *
 *   RUN/config.yaml  ledger.sqlite  coordinator.lock  sock/  endpoints/  journal/  policies/  prms/  tb/
 *       summary.json  report.html                                                  docs/storage.md describes them
 *
 * The lock is flock(2) on coordinator.lock, which names its holder ("pid host started"); the kernel lets go when the holder
 * dies, however it dies. Sockets and endpoint files are lib/wire's (wire/address.h).
 * Failure rule: -errno, *error names the path and the remedy. */
#pragma once

#include "base/error.h"

enum { RUN_PATH = 512 };

/* "RUN/name" into ret; -ENAMETOOLONG. */
int rundir_path(const char *run_dir, const char *name, char ret[RUN_PATH], struct error *error);
/* Make the directory and its folders (sock/ and endpoints/ aside). Existing ones are fine. -ENOTSUP: on a file system that a
 * ledger cannot trust (run/ledger_place.h). */
int rundir_prepare(const char *run_dir, struct error *error);

/* Take the lock `name` ("coordinator.lock"). *ret_fd keeps it; close it to let go. -EBUSY: *error names the holder. */
int rundir_lock(const char *run_dir, const char *name, int *ret_fd, struct error *error);
