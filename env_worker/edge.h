/* edge.h - the worker as a member of the run: leases in, episodes out.
 *
 *   env_edge_new -> (Welcome opens the simulator) -> leases are asked for as slots fall free ... -> env_edge_drain ->
 *   env_edge_free
 *
 * The coordinator is only needed for leases: while it is away the slots play on and deliver. Before the process leaves,
 * episodes in hand are finished; what is still played after give_back_ms, and what no learner has taken by give_up_ms, is given
 * back: others play it again. Thread rule: the loop's thread. */
#pragma once

#include "daemon/lifecycle.h"
#include "env_worker/slot.h"

enum { EDGE_SLOTS_MAX = 64, EDGE_GIVE_BACK_MS = 15000, EDGE_GIVE_UP_MS = 25000, EDGE_BYE_MS = 2000 };

struct env_edge_options {
    const char *join, *server_key, *name, *build;      /* borrowed for env_edge_new only */
    int device;                 /* of the renderer: as in sim_renderer_open */
    const char *simulator;      /* suite remote: instead of the run's suite.remote; NULL: as the run says */
    unsigned slots;
    uint32_t give_back_ms, give_up_ms;  /* of a drain; 0: EDGE_GIVE_BACK_MS, EDGE_GIVE_UP_MS */
};

struct edge;

/* Calls lifecycle_ready when the simulator is up; lifecycle_stop(EX_CONFIG), after a log line, when it cannot be:
 * to start it again would not help. */
int env_edge_new(struct loop *loop, struct wire *wire, struct lifecycle *lifecycle, const struct env_edge_options *options,
                 struct edge **ret, struct error *error);
/* Take no more leases, finish or give back what is in hand, say Bye, then lifecycle_stop(0). */
void env_edge_drain(struct edge *edge, const char *reason);
/* One of the worker's slots, to look at. NULL: there is none of that number, or the simulator is not up yet. */
const struct slot *env_edge_slot(const struct edge *edge, unsigned index);
struct edge *env_edge_free(struct edge *edge);
DEFINE_FREEP(struct edge, env_edge_free)
