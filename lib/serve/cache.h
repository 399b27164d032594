/* cache.h - where versions brought over from the learner lie on this host, laid out as in a run directory.
 *
 *   ROOT/RUN-ROLE/policies/v000012/          whole: committed by one rename, as the learner does
 *   ROOT/RUN-ROLE/policies/.pull-v000012/    being brought; what is there is a beginning, gone on from after a restart
 *   ROOT/RUN-ROLE/lock                       shared by the processes that use it
 *
 * Members of one host, run and role share a cache: who holds a .pull directory's lock brings the version, the others wait for it.
 * Nothing here is made durable: a version is checked against its announced digest each time that it is loaded, and what is
 * damaged is thrown away and brought again. Caches of other runs that nobody has used for a week are removed.
 *
 * Thread rule: one thread at a time.  Failure rule: -errno, *error names the place and the remedy. */
#pragma once

#include <limits.h>

#include "run/manifest.h"

struct cache {
    char dir[VERSION_PATH - 64];        /* ROOT/RUN-ROLE; "": not open */
    int lock;
};

/* ROOT: `given`, or $CACHE_DIRECTORY (systemd), $XDG_CACHE_HOME/gantry, ~/.cache/gantry, /var/tmp/gantry-UID. */
int cache_open(struct cache *cache, const char *given, uint64_t run, const char *role, struct error *error);
void cache_close(struct cache *cache);

/* The version's directory here. 1: it is there and its manifest has that digest; 0: it is not (one with another digest is
 * removed). */
int cache_find(const struct cache *cache, int kind, uint64_t number, const uint8_t digest[SHA256_SIZE], char ret[VERSION_PATH]);

/* Take the directory in which to bring a version; what lies there of another digest is removed. -EAGAIN: another process brings
 * it. */
int cache_begin(const struct cache *cache, int kind, uint64_t number, const uint8_t digest[SHA256_SIZE],
                char ret_dir[VERSION_PATH], int *ret_lock, struct error *error);
/* All files are whole: it is a version from here on, unless another process was first (0, too). */
int cache_commit(const struct cache *cache, int kind, uint64_t number, const char *dir, struct error *error);
void cache_remove(const struct cache *cache, int kind, uint64_t number);

/* -ENOSPC: `bytes` do not fit into what is free there. */
int cache_has_room(const struct cache *cache, uint64_t bytes, struct error *error);

/* Remove versions of `kind` that are not in keep[] nor the base of one that is, and what was being brought of others. */
void cache_retain(const struct cache *cache, int kind, const uint64_t *keep, size_t n_keep);

/* DIR (a version here) is an adapter on another version: 1 and which; 0: it is not. -ENOTSUP: its base lies outside the run. */
int cache_base_of(const char *dir, int kind, int *ret_kind, uint64_t *ret_number, uint8_t ret_digest[SHA256_SIZE],
                  struct error *error);
