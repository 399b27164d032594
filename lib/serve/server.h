/* server.h - a stateless model server as a member of the run: what actor and PRM server have in common.
 *
 *   request -> version held? (holder) -> batch (batcher) -> compute thread -> reply
 *   Versions from the coordinator -> loader thread reads and probes a directory beside what is served -> ready | refused
 *
 * The daemon adds three functions: how to read a model, whether a request makes sense, and how to compute a batch.
 *
 *   serve_new -> loop_run ... serve_drain -> (in flight done, Bye) -> lifecycle_stop(0) -> serve_free
 *
 * Thread rule: the loop's thread, but for load, unload (loader thread) and compute (compute threads). */
#pragma once

#include "daemon/args.h"
#include "daemon/lifecycle.h"
#include "proto/prm.pb-c.h"
#include "serve/batcher.h"

/* What a version is loaded for; from the first Welcome on. */
struct serve_terms {
    bool fast;                          /* in the products of numerics: fast (serve/numerics.h) */
    unsigned lanes;                     /* threads that compute at once */
    int image;                          /* side of the run's pictures */
};

struct serve_kind {
    Gantry__Role role;
    Gantry__VersionKind version_kind;
    Gantry__Kind request_kind;          /* ACT, SCORE */
    const char *name;                   /* "actor": of the default socket */
    unsigned max_rows;                  /* in one batch */
    /* Read a version's directory whose manifest has this digest, get it ready to compute, try it out. */
    int (*load)(const char *dir, const uint8_t digest[32], const struct serve_terms *terms, void **ret_model,
                struct error *error);
    void (*unload)(void *model);
    /* Rows the request takes, or -EINVAL with a line that says what is wrong with it. */
    int (*check)(const struct message *message, void *model, struct error *error);
    /* Fill in reply or status of each job; all are of one model. `state` is the daemon's own, for `lanes` lanes. */
    void (*compute)(void *state, unsigned lane, struct serve_job **jobs, unsigned n);
    /* How well the answers of two versions agree. second NULL: 0 if the request is one to compare versions by. NULL: no version
     * is ever on trial. -errno: not comparable. */
    int (*compare)(const struct message *message, const ProtobufCMessage *first, const ProtobufCMessage *second,
                   Gantry__ShadowScored *ret);
    void *(*state_new)(unsigned lanes);
    void (*state_free)(void *state);
    void (*on_seed)(void *state, uint64_t seed);        /* the run's seed, from Welcome; may be NULL */
};

struct serve;

/* wire has its keys already (member_keys_load: server_key). */
int serve_new(struct loop *loop, struct wire *wire, struct lifecycle *lifecycle, const struct serve_kind *kind,
              const struct args *args, const char *server_key, struct serve **ret, struct error *error);
void serve_drain(struct serve *serve);
struct serve *serve_free(struct serve *serve);
DEFINE_FREEP(struct serve, serve_free)

/* All of a server daemon's main but its kind. Returns the exit status. */
int serve_main(const struct serve_kind *kind, const struct args *args);
