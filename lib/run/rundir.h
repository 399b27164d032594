/* rundir.h - the run directory: where its files are, and who holds it.
 *
 *   RUN/config.yaml  ledger.sqlite  endpoint  coordinator.lock  sock/  journal/  policies/  prms/  tb/  summary.json  report.html
 *
 * The lock is flock(2) on coordinator.lock, which names its holder ("pid host started"); the kernel lets go when the holder
 * dies, however it dies. The endpoint file says where the coordinator listens (line 1) and its public key (line 2, may be
 * empty); members read it again whenever they reconnect.
 * Failure rule: -errno, *error names the path and the remedy. */
#pragma once

#include "base/error.h"

enum { RUN_PATH = 512 };

/* "RUN/name" into ret; -ENAMETOOLONG. */
int rundir_path(const char *run_dir, const char *name, char ret[RUN_PATH], struct error *error);
/* Make the directory and its folders (sock/ 0700). Existing ones are fine. */
int rundir_prepare(const char *run_dir, struct error *error);

/* Take the lock `name` ("coordinator.lock"). *ret_fd keeps it; close it to let go. -EBUSY: *error names the holder. */
int rundir_lock(const char *run_dir, const char *name, int *ret_fd, struct error *error);

struct rundir_endpoint { char address[256]; char public_key[64]; };
int rundir_write_endpoint(const char *run_dir, const struct rundir_endpoint *endpoint, struct error *error);
int rundir_read_endpoint(const char *run_dir, struct rundir_endpoint *ret, struct error *error);
/* "ipc://RUN/sock/NAME.ipc", absolute; -ENAMETOOLONG when it would not fit a UNIX socket (107 bytes). */
int rundir_socket(const char *run_dir, const char *name, char ret[RUN_PATH], struct error *error);
