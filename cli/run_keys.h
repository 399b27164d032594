/* run_keys.h - the keys of a run, RUN/keys/: the coordinator's pair, members' pairs, and the list of those let in. */
#pragma once

#include "base/error.h"
#include "wire/security.h"

enum { RUN_KEYS_PATH = 4096 };

/* RUN/keys (0700) with the coordinator's pair; both are made if they are not there. 1: made now. */
int run_keys_init(const char *run_dir, char ret_public[SECURITY_KEY_SIZE], struct error *error);

/* Let NAME in as `role`. public_key NULL: a pair is made, RUN/keys/NAME.{key,pub}; -EEXIST if there is one. */
int run_keys_add(const char *run_dir, Gantry__Role role, const char *name, const char *public_key,
                 char ret_public[SECURITY_KEY_SIZE], struct error *error);

/* The pair of a member on the coordinator's host, HOST-ROLE.key: made and let in the first time. A key that was revoked stays
 * so. */
int run_keys_local(const char *run_dir, Gantry__Role role, char ret_path[RUN_KEYS_PATH], struct error *error);

/* The same for every role of a member. */
int run_keys_local_all(const char *run_dir, struct error *error);

/* By name or key. The pair's files go, too. */
int run_keys_revoke(const char *run_dir, const char *key_or_name, struct error *error);

int run_keys_list(const char *run_dir, struct security_entry **ret, size_t *ret_n, struct error *error);
