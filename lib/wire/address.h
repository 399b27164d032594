/* address.h - where sockets live: ipc paths that fit, and endpoint files in the run directory.
 *
 * A UNIX socket's path must fit sun_path: 107 bytes. Sockets of a run lie in RUN/sock/ (0700); when that path is too long, in a
 * directory of the same rights under /tmp whose name is made from the run directory's path, with a link RUN/sock to it, and
 * one in it, `run`, to the run directory. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum {
    ADDRESS_MAX = 256, ADDRESS_IPC_PATH_MAX = 107,
    ADDRESS_RUN_DIR_MAX = ADDRESS_IPC_PATH_MAX - 5 - 40,        /* less "/sock" and names like "/prm-server-12.ipc" */
};

bool address_is_ipc(const char *address);

/* ipc://PATH or tcp://HOST:PORT and fits? -EINVAL, -ENAMETOOLONG with a line that says what to do. */
int address_check(const char *address, struct error *error);

/* What others connect to when a socket is bound to `bound`: itself, but for a wildcard (tcp://0.0.0.0:5600, tcp://[::]:5600), in
 * whose place this host's name is put. May be in place. */
void address_advertised(const char *bound, char ret_address[ADDRESS_MAX]);

/* libzmq binds to numbers and interfaces only: puts the number of a host's name in its place. Others are left as they are. */
void address_resolve(const char *address, char ret_address[ADDRESS_MAX]);

/* Make sure the run's socket directory is there, ours, and closed to others; writes its (short) path. -EPERM: someone else's.
 * Where it is one under /tmp, those of this user's whose run directory is gone and in which nobody answers are removed. */
int address_socket_dir(const char *run_dir, char ret_dir[ADDRESS_MAX], struct error *error);

/* Where it is, nothing is made; it may be another user's. -ENOENT: there is none, or what the run has is of another path;
 * -EACCES. */
int address_socket_dir_find(const char *run_dir, char ret_dir[ADDRESS_MAX]);

/* The last of the run's processes here has ended: a directory under /tmp in which nobody answers now goes, and the link to it. */
void address_socket_dir_leave(const char *run_dir);

/* "ipc://DIR/NAME.ipc" in that directory, e.g. name = "coordinator", "actor-3". */
int address_ipc(const char *run_dir, const char *name, char ret_address[ADDRESS_MAX], struct error *error);

/* RUN/endpoints/NAME: one line "ADDRESS KEY" (KEY is - without CURVE), written atomically by the server, read by `--join RUN`. */
int address_publish(const char *run_dir, const char *name, const char *address, const char *key, struct error *error);
int address_read(const char *path, char ret_address[ADDRESS_MAX], char ret_key[41], struct error *error);
int address_lookup(const char *run_dir, const char *name, char ret_address[ADDRESS_MAX], char ret_key[41], struct error *error);
