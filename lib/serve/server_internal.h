/* server_internal.h - what server.c (requests, membership, life) and server_versions.c (holding versions) share. */
#pragma once

#include <limits.h>

#include "daemon/worker.h"
#include "serve/fetch.h"
#include "serve/holder.h"
#include "serve/server.h"
#include "wire/member.h"

enum { SERVE_GAUGES = 13, SERVE_SHADOWS = 4 };

struct held_model { uint64_t version; void *model; };

struct serve {
    struct loop *loop;
    struct wire *wire;
    struct lifecycle *lifecycle;
    const struct serve_kind *kind;
    struct member *member;
    struct wire_server *server;
    struct batcher *batcher;
    struct worker *loader;              /* one thread: one load at a time */
    struct loop_timer *tick;
    struct holder holder;
    struct held_model models[HOLDER_MAX];
    void *state;
    char run_dir[PATH_MAX];
    char *cache_root;                   /* --cache */
    struct fetch *fetch;                /* versions that cannot be seen here; NULL before the first Welcome, or if there is no
                                         * place for them */
    bool sees_run;                      /* the run's directory is seen from here */
    uint64_t missing; unsigned misses;  /* the version that was looked for in vain last, and how often */
    bool draining, leaving;
    uint64_t hung_ms;                   /* a batch that takes longer hangs; 0: none ever does */
    bool hangs;
    struct serve_terms terms;
    uint64_t refused;
    uint64_t shadow;                    /* the version on trial; 0: none */
    struct serve_job *shadows[SERVE_SHADOWS];   /* answered, and to be scored by it */
    unsigned n_shadows, shadow_since;   /* answers since the last one began */
    bool shadow_out;                    /* one is being scored */
    Gantry__Gauge gauges[SERVE_GAUGES], *gauge_list[SERVE_GAUGES];
};

/* server_versions.c: one step of the holder, its effects carried out. */
void serve_apply(struct serve *serve, const struct holder_event *event);
void serve_versions(struct serve *serve, const Gantry__Versions *said);     /* what the coordinator wants held */
/* The first Welcome: is the run's directory seen from here? If not, or later not the version: a place to bring versions to.
 * -errno with a line: neither of them. */
int serve_look_for_run(struct serve *serve, const Gantry__Welcome *welcome, struct error *error);
void serve_learners(struct serve *serve, Gantry__Endpoint *const *endpoints, size_t n);
void serve_versions_tick(struct serve *serve);
struct held_model *serve_find_model(struct serve *serve, uint64_t version); /* NULL: not here */

/* server_shadow.c: a version on trial. */
bool serve_shadow_wants(const struct serve *serve, const struct serve_job *job);    /* its answer can be compared, and there is a
                                                                                     * place */
void serve_shadow_take(struct serve *serve, struct serve_job *job);     /* takes it; its request has been answered and is kept */
void serve_shadow_turn(struct serve *serve);                            /* begins what can begin */
void serve_shadow_done(struct serve *serve, struct serve_job *job);     /* takes it */
void serve_shadow_clear(struct serve *serve);                           /* we are leaving */
