/* slot.h - one slot at work: the player's effects become simulator jobs and requests, their ends become its events.
 *
 *   slot_init -> { slot_lease -> ... -> on_free }* -> slot_release;   slot_tick from a timer, slot_revoke from heartbeats
 *
 * All decisions are the player's (player.h); here is only plumbing. Thread rule: the loop's thread. */
#pragma once

#include "env_worker/player.h"
#include "env_worker/requests.h"
#include "env_worker/servers.h"
#include "env_worker/simulation.h"
#include "wire/member.h"

struct lookahead;
struct slot;

struct slot_totals {            /* monotone, for heartbeats and metrics */
    uint64_t steps, candidate_steps;        /* control steps executed / played in look-ahead */
    uint64_t episodes, returned;
    uint64_t sim_us, sim_wall_us, act_wait_us;
};

/* What all slots of a worker share; the edge owns it. */
struct slot_shared {
    struct loop *loop;
    struct wire *wire;
    struct member *member;
    struct servers servers;
    struct simulation *simulation;
    struct slot_totals totals;
    uint64_t seed;              /* the run's */
    struct frames_shape shape;  /* of an observation */
    char chain[64];             /* how pictures are made */
    bool full;                  /* tokens are sampled from the whole vocabulary */
    bool ended;                 /* and one more, behind the action's */
    unsigned slots;
    void (*on_free)(struct slot *slot, void *arg);
    void *arg;
};

struct slot {
    struct slot_shared *shared;
    unsigned index;
    struct player player;
    struct episode episode;
    struct pending_call call;
    uint64_t call_ticket, call_since_ns;
    struct move *moves;         /* (n_moves) of the last answer: 1, a chunk, or what look-ahead chose */
    uint32_t n_moves, move_room;
    uint32_t *at;               /* (n_at) frames being scored */
    uint32_t n_at, at_room;
    float *scores;              /* (at_room) */
    struct lookahead *search;
    struct frames *search_frames;
};

void slot_init(struct slot *slot, struct slot_shared *shared, unsigned index);
void slot_release(struct slot *slot);

/* Play this. Failure: the lease was given back, with the reason. */
void slot_lease(struct slot *slot, const Gantry__Lease *lease);
void slot_revoke(struct slot *slot, uint64_t episode);      /* no harm if the slot plays another */
void slot_give_up(struct slot *slot, const char *reason);   /* its lease goes back */
void slot_tick(struct slot *slot);
/* Nothing of its own is at work: a server that is up has been asked and has not answered yet. */
bool slot_waits(const struct slot *slot);
static inline bool slot_busy(const struct slot *slot) { return player_busy(&slot->player); }
