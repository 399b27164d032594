/* admin.h - line commands over a UNIX socket: what `gantry status` and an operator with socat talk to.
 *
 * One line in (<= ADMIN_MAX_LINE bytes), text out, an empty line ends the answer; then the next command. An answer's
 * first line is "ok" or "error: ..."; lines of the text itself are never empty. Commands come from one table with a
 * help text each; `help` lists them. The socket is 0600 in a 0700 directory: who can open it may command.
 *
 *   $ printf 'help\n' | socat - UNIX:RUN/sock/status.sock
 *
 * Thread rule: the loop's thread; commands run there and must not block. */
#pragma once

#include "base/error.h"
#include "base/strbuf.h"
#include "daemon/loop.h"

enum { ADMIN_MAX_LINE = 4096, ADMIN_MAX_CLIENTS = 32, ADMIN_MAX_REPLY = 16 << 20 };

struct admin_command {
    const char *name;
    const char *usage;          /* arguments for help: "MEMBER", or "" */
    const char *help;           /* one line */
    /* `argument` is what follows the name, trimmed, "" if nothing. Text goes to *out. 0 or -errno with *error. */
    int (*run)(const char *argument, struct strbuf *out, struct error *error, void *arg);
};

struct admin;

/* Listens at `path`; a socket file nobody listens on is replaced, one that answers is -EADDRINUSE. `commands` is borrowed and
 * ends with name NULL; `help` is built in. */
int admin_new(struct loop *loop, const char *path, const struct admin_command *commands, void *arg, struct admin **ret,
              struct error *error);
struct admin *admin_free(struct admin *admin);      /* also unlinks the socket */
DEFINE_FREEP(struct admin, admin_free)

/* The other side, for the CLI: connect, send one command, wait at most timeout_ms for the whole answer (blocking).
 * *ret_text is the text after "ok", caller frees. -ECONNREFUSED/-ENOENT: nobody there; -EREMOTEIO: it said "error: ...",
 * which is in *error; -ETIMEDOUT. */
int admin_call(const char *path, const char *command, int timeout_ms, char **ret_text, struct error *error);
