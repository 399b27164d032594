/* run_socket.h - asking a running run something: from a run directory to its coordinator's admin socket. */
#pragma once

#include "base/error.h"

enum { RUN_SOCKET_PATH = 288 };

/* The directory to talk about: `given`, or (NULL) the one under runs/ whose coordinator answers; several: the newest. */
int run_socket_find(const char *given, char ret_dir[RUN_SOCKET_PATH], struct error *error);
/* One command to RUN's coordinator; see admin_call. What only asks is waited for less long than what is to be done.
 * -ENOENT/-ECONNREFUSED: *error says how far the run came and what to do (run_down.h). */
int run_socket_call(const char *run_dir, const char *command, char **ret_text, struct error *error);
/* The same to another of its sockets: "up.sock" is `gantry up`'s. */
int run_socket_call_at(const char *run_dir, const char *socket, const char *command, char **ret_text, struct error *error);
