/* server_internal.h - what server.c (requests, membership, life) and server_versions.c (holding versions) share. */
#pragma once

#include <limits.h>

#include "daemon/worker.h"
#include "serve/holder.h"
#include "serve/server.h"
#include "wire/member.h"

enum { SERVE_GAUGES = 8 };

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
    bool draining, leaving;
    bool fast;                          /* numerics, from the first Welcome */
    uint64_t refused;
    Gantry__Gauge gauges[SERVE_GAUGES], *gauge_list[SERVE_GAUGES];
};

/* server_versions.c: one step of the holder, its effects carried out. */
void serve_apply(struct serve *serve, const struct holder_event *event);
void serve_versions(struct serve *serve, const Gantry__Versions *said);     /* what the coordinator wants held */
struct held_model *serve_find_model(struct serve *serve, uint64_t version); /* NULL: not here */
