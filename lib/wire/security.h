/* security.h - who may speak: CURVE keys, and the list of those let in.
 *
 * Every TCP socket uses CURVE. A key belongs to one role on one host. Key files hold one Z85 line: NAME.key (secret, 0600) beside
 * NAME.pub. The list `allowed` has a line `ROLE Z85 NAME` for each key let in; # starts a comment. It is looked at again before
 * every message (one stat), so a line taken out shuts its owner out with the next message, also on connections that stand.
 * A server that cannot read the run directory is told the list by the coordinator instead (security_set_list, member.c): with
 * its Welcome, and with the next heartbeat after it changed.
 *
 * ipc sockets are not encrypted: their directory (0700, address.h) is the lock.
 * The ZAP handler is a socket in the loop: no thread. Thread rule: the loop's thread only. */
#pragma once

#include <stdbool.h>

#include "wire/wire.h"

enum {
    SECURITY_KEY_SIZE = 41,             /* Z85 of 32 bytes, with the NUL */
    SECURITY_ALLOWED_MAX = 4 << 20,     /* bytes of the list */
};

bool security_is_key(const char *text);

/* A new pair. -ENOTSUP: libzmq was built without CURVE. */
int security_keypair(char ret_public[SECURITY_KEY_SIZE], char ret_secret[SECURITY_KEY_SIZE]);

/* Makes DIR/NAME.key and DIR/NAME.pub, both or neither. -EEXIST: there is one already. */
int security_key_create(const char *dir, const char *name, char ret_public[SECURITY_KEY_SIZE], struct error *error);
int security_key_read(const char *path, char ret_key[SECURITY_KEY_SIZE], struct error *error);
/* A secret one. -EPERM: the file is open to others than its owner and group. */
int security_secret_read(const char *path, char ret_key[SECURITY_KEY_SIZE], struct error *error);

/* Let a key in under a role / shut it out (by key or name). The file is replaced atomically. -ENOENT: was not in. */
int security_allow(const char *allowed_path, Gantry__Role role, const char *public_key, const char *name, struct error *error);
int security_revoke(const char *allowed_path, const char *key_or_name, struct error *error);

/* All lines of the list, in its order. *ret: caller frees. */
struct security_entry {
    Gantry__Role role;
    char key[SECURITY_KEY_SIZE], name[64];
};
int security_list(const char *allowed_path, struct security_entry **ret, size_t *ret_n, struct error *error);

int security_parse(char *text, struct security_entry **ret, size_t *ret_n);     /* what security_list reads; writes into text */

/* Give `wire` its key and the list; from then on it can bind and connect over tcp. allowed_path NULL: a pure client, binds
 * nothing. "": binds, and lets nobody in before security_set_list. */
int security_start(struct wire *wire, const char *secret_key_path, const char *allowed_path, struct error *error);
struct security *security_free(struct security *security);      /* wire_free does it */

const char *security_public_key(const struct security *security);

/* ---- the list, from one process to another ---- */

/* Changes whenever what the list says changes; never 0. 0: `security` is no server's, or NULL. Reads the file again if need
 * be. */
uint64_t security_list_digest(struct security *security);
/* The keys let in now, borrowed until the next call that takes `security`; by key. */
const struct security_entry *security_current(struct security *security, size_t *ret_n);
/* Was started with "", and so wants to be told the list. */
bool security_wants_list(const struct security *security);
int security_set_list(struct security *security, const struct security_entry *list, size_t n, uint64_t digest);

/* Which role may this user (Z85 from the connection) speak as, now? -EACCES: none (revoked, never let in). */
int security_role_of(struct security *security, const char *user, Gantry__Role *ret_role);

/* For server.c and client.c: set the CURVE options. */
int security_secure_server(struct security *security, void *socket);
int security_secure_client(struct security *security, void *socket, const char *server_key);
