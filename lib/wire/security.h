/* security.h - who may speak: CURVE keys, and the list of those let in.
 *
 * Every TCP socket uses CURVE. A key belongs to one role on one host. Key files hold one Z85 line: NAME.key (secret, 0600) beside
 * NAME.pub. The list `allowed` has a line `ROLE Z85 NAME` for each key let in; # starts a comment. It is looked at again before
 * every message (one stat), so a line taken out shuts its owner out with the next message, also on connections that stand.
 *
 * ipc sockets are not encrypted: their directory (0700, address.h) is the lock.
 * The ZAP handler is a socket in the loop: no thread. Thread rule: the loop's thread only. */
#pragma once

#include "wire/wire.h"

enum { SECURITY_KEY_SIZE = 41 };        /* Z85 of 32 bytes, with the NUL */

/* A new pair. -ENOTSUP: libzmq was built without CURVE. */
int security_keypair(char ret_public[SECURITY_KEY_SIZE], char ret_secret[SECURITY_KEY_SIZE]);

/* Makes DIR/NAME.key and DIR/NAME.pub. -EEXIST: there is one already. */
int security_key_create(const char *dir, const char *name, char ret_public[SECURITY_KEY_SIZE], struct error *error);
int security_key_read(const char *path, char ret_key[SECURITY_KEY_SIZE], struct error *error);

/* Let a key in under a role / shut it out (by key or name). The file is replaced atomically. -ENOENT: was not in. */
int security_allow(const char *allowed_path, Gantry__Role role, const char *public_key, const char *name, struct error *error);
int security_revoke(const char *allowed_path, const char *key_or_name, struct error *error);

/* Give `wire` its key and the list; from then on it can bind and connect over tcp. allowed_path NULL: a pure client, binds
 * nothing. */
int security_start(struct wire *wire, const char *secret_key_path, const char *allowed_path, struct error *error);
struct security *security_free(struct security *security);      /* wire_free does it */

const char *security_public_key(const struct security *security);

/* Which role may this user (Z85 from the connection) speak as, now? -EACCES: none (revoked, never let in). */
int security_role_of(struct security *security, const char *user, Gantry__Role *ret_role);

/* For server.c and client.c: set the CURVE options. */
int security_secure_server(struct security *security, void *socket);
int security_secure_client(struct security *security, void *socket, const char *server_key);
