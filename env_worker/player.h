/* player.h - one slot's life: leased, reset, act, step, ..., score, deliver, free.
 *
 * The worker without its simulator and its sockets. One struct per slot, plain memory, no allocation. Each step answers an
 * event with the next thing to do; at most one job or request is outstanding per slot, and what comes back carries the
 * `ticket` it was asked with, so an answer to something given up is ignored.
 *
 *   policy plays:       LEASE -> RESET -> [ACT -> STEP...]* -> (SCORE) -> DELIVER -> FREE
 *   demonstrator plays: LEASE -> RESET -> [STEP]* -> (SCORE) -> DELIVER -> FREE
 *
 * RESET includes rendering o_0, STEP includes rendering o_{t+1}. An answer may bring several actions (a chunk): they are executed
 * one after the other without asking again; what is left of them when the episode ends is dropped. With look-ahead ACT means
 * "search": the edge's own sub-machine answers as if it were one Act that brought several actions.
 *
 * Retries: WRONG_VERSION and LOADING cost nothing but are waited for at most version_wait_ms; anything else (no answer,
 * BUSY, INTERNAL, SHUTTING_DOWN) takes one of `retries`, with doubling pauses; when they are used up the lease is given back.
 * An answer that cannot be used is asked for again, of another server if there is one, PLAYER_BAD_ANSWERS times; then the lease
 * goes back as a server's error, as it does at once when a request is refused.
 * A delivery is repeated until it has a verdict: without a coordinator workers go on playing and delivering.
 * Revoked: play stops at once and the slot is free; what is already being delivered is delivered (the first one counts).
 * Drain: what is being played is finished and delivered; the edge asks for no more leases. Given up: the process cannot wait any
 * longer; whatever the slot does stops and the lease goes back.
 *
 * Thread rule: the worker's loop thread only.  Failure rule: a step cannot fail. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/episode.h"

enum player_phase { PLAYER_IDLE, PLAYER_RESETTING, PLAYER_ACTING, PLAYER_STEPPING, PLAYER_SCORING, PLAYER_DELIVERING };

enum player_answer {            /* how a request to a server ended */
    PLAYER_OK,
    PLAYER_NO_ANSWER,           /* timed out, connection lost, no server known, BUSY, INTERNAL, SHUTTING_DOWN */
    PLAYER_NOT_YET,             /* WRONG_VERSION, LOADING */
    PLAYER_BAD_REQUEST,         /* asking again would be refused again */
    PLAYER_BAD_ANSWER,          /* an answer that cannot be used: not finite, of another size or version */
    PLAYER_BROKEN,              /* look-ahead: the simulation itself failed */
};

struct player_terms {           /* of struct lease_terms: what decides the way */
    uint64_t episode, fence;
    uint64_t policy_version, prm_version;
    uint32_t max_steps;         /* resolved by the edge: > 0 */
    bool expert;
};

struct player_limits {
    uint32_t retries;           /* requests without an answer, per request */
    uint32_t pause_ms, pause_max_ms;    /* between repetitions: pause_ms, doubled up to pause_max_ms */
    uint32_t version_wait_ms;
};
extern const struct player_limits player_limits_default;    /* 6, 100, 5000, 60000 */

enum player_event_kind {
    PLAYER_LEASE,               /* .terms; only when idle */
    PLAYER_RESET_DONE,          /* .sim: result, text */
    PLAYER_ACTED,               /* .acted: answer, actions (>= 1; > 1: a chunk, or look-ahead) */
    PLAYER_STEP_DONE,           /* .sim: result, success */
    PLAYER_SCORED,              /* .answered */
    PLAYER_DELIVERED,           /* .delivered: answer, verdict */
    PLAYER_REVOKED,             /* heartbeat reply: its lease has ended; .episode */
    PLAYER_GIVE_UP,             /* .reason */
    PLAYER_TICK,                /* repeats what is due */
};

struct player_event {
    enum player_event_kind kind;
    uint64_t ticket;            /* of the effect this answers */
    union {
        struct player_terms terms;
        struct { int result; bool success; const char *text; } sim;     /* result < 0: simulator error */
        struct { enum player_answer answer; uint32_t actions; const char *text; } acted;
        struct { enum player_answer answer; const char *text; } answered;
        struct { enum player_answer answer; enum deliver_verdict verdict; const char *text; } delivered;
                                    /* PLAYER_BAD_ANSWER: refused for what a server has answered */
        uint64_t episode;
        const char *reason;
    };
};

enum player_effect_kind {
    PLAYER_DO_RESET,            /* sim job */
    PLAYER_DO_ACT,              /* request with version .version for step .step (sample counter = step) */
    PLAYER_DO_STEP,             /* sim job: action number .action of the last answer; expert: ask the demonstrator, then step */
    PLAYER_DO_SCORE,            /* request with version .version: whole episode */
    PLAYER_DO_DELIVER,          /* request */
    PLAYER_DO_RETURN,           /* LeaseReturn: .reason, .text */
    PLAYER_DO_CANCEL,           /* forget the outstanding request or job of ticket .ticket */
    PLAYER_DO_FREE,             /* the slot is free: .played tells whether its episode was accepted */
};

struct player_effect {
    enum player_effect_kind kind;
    uint64_t ticket;            /* comes back in the answer */
    uint64_t episode, fence;
    uint64_t version;
    uint32_t step;              /* t: actions executed so far */
    uint32_t action;            /* index into the last answer's actions */
    bool success, timeout;      /* DO_SCORE, DO_DELIVER: how it ended */
    enum lease_return reason;
    bool played;
    char text[120];
};

enum { PLAYER_EFFECTS = 4, PLAYER_BAD_ANSWERS = 2 };
struct player_effects { struct player_effect items[PLAYER_EFFECTS]; unsigned n; };

struct player {
    const struct player_limits *limits;
    enum player_phase phase;
    struct player_terms terms;
    uint32_t step;              /* actions executed: the lease's step counter is steps + what comes after (player_progress) */
    uint32_t actions, action;   /* of the last answer: how many, which is next */
    bool success, timeout;
    uint64_t ticket;            /* the outstanding one; 0: none (a repetition is due at retry_at_ms) */
    uint64_t last_ticket;
    uint32_t failures;          /* of the present request */
    uint64_t retry_at_ms;
    uint64_t not_yet_since_ms;  /* 0: not waiting for a version */
    uint32_t beats;             /* what player_progress returns */
};

/* `first_ticket` keeps slots apart when the edge uses one table of requests: tickets are first_ticket + 1, 2, ... */
void player_init(struct player *player, const struct player_limits *limits, uint64_t first_ticket);
void player_step(struct player *player, const struct player_event *event, uint64_t now_ms, struct player_effects *out);

/* The step counter for heartbeats: moves with everything that is finished (reset, act, step, score), so it renews the lease. */
static inline uint32_t player_progress(const struct player *player) { return player->beats; }
/* The work of one ACT is long (a search of many candidates): its parts count, too, or the lease would end under it. */
static inline void player_beat(struct player *player) { player->beats++; }
static inline bool player_busy(const struct player *player) { return player->phase != PLAYER_IDLE; }
