/* fetch.h - versions brought over from the learner into this host's cache: the edge around pull.h.
 *
 *   fetch_new -> fetch_cache (once the run is known), fetch_learner (whenever its address changes)
 *             -> fetch_start -> ... done(dir) -> fetch_start ... -> fetch_free
 *
 * One version at a time. Its manifest comes first: its SHA-256 is the one that the coordinator announced, and it has those of all
 * other files. An adapter's base comes with it. Requests and answers are the loop's; the disk is the worker's (the server's
 * loader thread).
 *
 * Thread rule: the loop's thread. fetch_free after the worker has ended. */
#pragma once

#include "daemon/loop.h"
#include "daemon/worker.h"
#include "serve/cache.h"
#include "wire/client.h"

struct fetch;

/* dir: where the version lies. -EAGAIN: no fault of the version, start again later; -ECANCELED: fetch_cancel. *text is one
 * line. */
typedef void fetch_done_fn(int result, uint64_t version, const char *dir, const char *text, void *arg);

/* worker: borrowed, one thread. Nothing is brought before fetch_cache and fetch_learner. -ENOMEM. */
int fetch_new(struct loop *loop, struct wire *wire, struct worker *worker, Gantry__VersionKind kind, fetch_done_fn *done,
              void *arg, struct fetch **ret);
struct fetch *fetch_free(struct fetch *fetch);
DEFINE_FREEP(struct fetch, fetch_free)

/* Where versions of this run are kept: see cache_open. Once. */
int fetch_cache(struct fetch *fetch, const char *given, uint64_t run, const char *role, struct error *error);
/* Connects, or moves to another address. Errors as of wire_client_new. */
int fetch_learner(struct fetch *fetch, const char *address, const char *server_key, struct error *error);

/* Bring a version. keep[]: those that stay in the cache beside it. -EBUSY: one is being brought. */
int fetch_start(struct fetch *fetch, uint64_t version, const uint8_t digest[SHA256_SIZE], const uint64_t *keep, size_t n_keep);
void fetch_cancel(struct fetch *fetch);             /* done comes when the disk has come to rest; no harm if there is nothing */
bool fetch_busy(const struct fetch *fetch, uint64_t *ret_version);
void fetch_tick(struct fetch *fetch);               /* every 50 to 500 ms */
/* A version that was brought does not load: what is not as its digests say goes, the version or the base that it is on, and is to
 * be brought again. False: all is as it should be, it is the version's own fault. The worker's thread. */
bool fetch_damaged(struct fetch *fetch, uint64_t version, const uint8_t digest[SHA256_SIZE]);

uint64_t fetch_bytes_total(const struct fetch *fetch);      /* received since the start */
/* "bringing version 12: 120 of 222 MB, 95 MB/s, 1 s left"; false: nothing is being brought. */
bool fetch_text(const struct fetch *fetch, char *ret, size_t size);
