/* sim_world.h - a whole cluster in one process: a simulated clock, network and disk around the real role machines.
 *
 *   sim_world_new(options) -> sim_world_run -> world->failure -> sim_world_free
 *
 * One seed is one history, replayed event by event: everything random comes from world->rng, everything that happens is an
 * event of one queue ordered by (time, number). The nodes are the edges in miniature: they carry messages, disk and jobs
 * between conductor, intake, players and holders, and nothing of what those decide is copied here.
 *
 * Faults happen before options.faults_until_ms: any process dies at any event (also between ledger commit and send, between
 * append and fsync, between rename and telling) and comes back; links are cut both ways, one way, or flap, and connections break
 * with them or outlive them, to come back at once or after handshakes that time out; messages are dropped, doubled, delayed past
 * one another and past the end of their connection; an fsync fails; what was not synced survives a crash in part. After that the
 * run must finish.
 *
 * The checker (sim_check.h) is asked at every commit, send, acknowledgement and crash, and at the end. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "coordinator/conductor.h"
#include "env_worker/player.h"
#include "learner/intake.h"
#include "run/history.h"
#include "serve/holder.h"
#include "serve/pull.h"

enum { SIM_WORKERS = 3, SIM_ACTORS = 2, SIM_SLOTS = 3, SIM_NODES = 3 + SIM_WORKERS + SIM_ACTORS };
enum { SIM_COORDINATOR = 0, SIM_LEARNER = 1, SIM_PRM = 2, SIM_WORKER_0 = 3, SIM_ACTOR_0 = SIM_WORKER_0 + SIM_WORKERS };

/* Bugs of an edge rather than of a role. */
enum sim_bug {
    SIM_BUG_NONE, SIM_BUG_SEND_BEFORE_COMMIT, SIM_BUG_NO_FSYNC, SIM_BUG_COMMIT_IN_PARTS, SIM_BUG_NO_DIGEST,
    SIM_BUG_OPEN_UNSYNCED,          /* what a process wrote that died before its sync counts as durable for the next one */
};

struct sim_options {
    uint64_t seed;
    bool faults;                    /* false: nothing goes wrong */
    bool poison;                    /* some initial states crash their worker, others are simulator errors */
    bool disk_loss;                 /* the learner's journal loses even what was synced: a replay, never a double training */
    bool admin;                     /* PRM swaps, cordons and drains at random */
    int max_staleness;
    bool grouped;                   /* rl by groups, refilled when their returns are all alike */
    enum conductor_bug conductor_bug;
    enum intake_bug intake_bug;
    enum sim_bug bug;
    FILE *trace;                    /* NULL: quiet */
};

/* ---- messages -------------------------------------------------------------------------------------- */

enum sim_kind {
    SIM_HELLO,
    SIM_WELCOME,
    SIM_HEARTBEAT,
    SIM_HEARTBEAT_REPLY,
    SIM_LEASE_REQUEST,
    SIM_GRANT,
    SIM_LEASE_RETURN,
    SIM_JOURNALED,
    SIM_INVENTORY,
    SIM_COMMITTED,
    SIM_VERSION_STATE,
    SIM_ACK,
    SIM_REFUSE,
    SIM_OPEN,
    SIM_PLAN,
    SIM_VERSIONS,
    SIM_ACT,
    SIM_ACT_REPLY,
    SIM_SCORE,
    SIM_SCORE_REPLY,
    SIM_DELIVER,
    SIM_DELIVER_REPLY,
    SIM_WEIGHTS,
    SIM_WEIGHTS_REPLY,
    SIM_KINDS
};

struct sim_outcome { uint64_t episode; enum episode_state end; };

#define SIM_FAILED (1ull << 63)     /* in the list of SIM_OPEN: the episode has been given up */

struct sim_message {
    enum sim_kind kind;
    uint32_t from, to;              /* nodes */
    uint32_t from_life, to_life;    /* which process of the node; to_life 0: whichever is there */
    uint32_t connection;            /* to the coordinator: over which one */
    uint64_t request, epoch;
    uint32_t member;
    uint64_t ticket;                /* worker's requests: slot and ticket */
    uint32_t slot;
    uint32_t step;                  /* steps of a delivered episode */
    uint64_t episode, fence, version, prm_version;
    uint32_t stage, iteration, rows;
    int kind_of_version;
    int status;                     /* enum player_answer, enum holder_answer, enum deliver_verdict, refusal */
    bool flag, drain;               /* known, ready, success, gate ... */
    struct journaled_episode journaled;
    struct intake_version committed;
    struct intake_plan plan;        /* its episodes are `list` */
    uint8_t digest[SHA256_SIZE], digest2[SHA256_SIZE];
    void *list;                     /* owned: held_lease, ids, lease_terms, journaled_episode, sim_outcome, holder_listed */
    size_t n, item;                 /* items, bytes of one */
};

/* ---- disk -------------------------------------------------------------------------------------------- */

struct sim_ledger {                 /* what SQLite has committed */
    struct ledger_stage *stages; size_t n_stages;
    struct ledger_iteration *iterations; size_t n_iterations;
    struct ledger_episode *episodes; size_t n_episodes;
    struct ledger_version *versions; size_t n_versions;
    char *memory; size_t memory_size;
    uint64_t epoch, group_epoch;
};

struct sim_record { struct intake_record it; bool synced; uint64_t policy_version, prm_version; };
struct sim_journal { struct sim_record *items; size_t n, capacity; };

struct sim_version {                /* a committed directory */
    struct intake_version it;
    bool gate_passed;
    struct sim_outcome *outcomes; size_t n_outcomes;        /* what Committed will say */
    struct history_record *consumed; size_t n_consumed;
};
struct sim_versions { struct sim_version *items; size_t n; };

/* ---- nodes ------------------------------------------------------------------------------------------- */

struct sim_slot { struct player player; struct lease_terms terms; uint64_t timeout_ticket; };

struct sim_worker {
    struct sim_slot slots[SIM_SLOTS];
    uint64_t lease_request;         /* outstanding request id, 0: none */
    uint64_t lease_request_ms, lease_retry_ms;
    bool draining;
};

struct sim_pending {
    uint64_t token, episode;
    struct journaled_episode journaled;
    uint32_t stage, iteration;
    uint64_t policy_version, prm_version;
};

struct sim_learner {
    struct intake *intake;
    struct intake_effects effects;
    struct sim_pending *payloads; size_t n_payloads;        /* delivered, waiting to be appended */
    struct sim_pending *unsynced; size_t n_unsynced;        /* appended, waiting for fsync */
    bool syncing;
    uint64_t *sealed; size_t n_sealed;      /* stage << 32 | iteration, by this process */
    struct intake_plan plan;        /* being trained; episodes owned */
    uint64_t last_token;
};

enum { SIM_PULL_FILES = 2 };

struct sim_server {
    struct holder holder;
    struct pull pull;               /* sim_pull.c: of the actor that does not see the run's directory */
    bool pulling, last_chunk;
    uint64_t pull_number, pull_version;     /* which pull, so that what comes late is known */
};

struct sim_brought {                /* its disk */
    uint64_t version, have[SIM_PULL_FILES];
    uint8_t digest[SHA256_SIZE];
    bool damaged[SIM_PULL_FILES];
};

struct sim_node {
    bool alive;
    uint32_t life;                  /* counts processes */
    uint32_t member;
    uint64_t epoch;                 /* of the coordinator, once welcomed; 0: not */
    uint64_t hello_ms, beat_ms;     /* last sent */
    uint64_t instance;
    uint64_t journaled_request, journaled_sequence;     /* learner: what an ack answers */
    uint64_t committed_request, committed_number;
    int committed_kind;
    uint64_t hello_request;
    union {
        struct sim_worker worker;
        struct sim_learner learner;
        struct sim_server server;
    };
};

/* ---- the world --------------------------------------------------------------------------------------- */

enum sim_event_kind {
    SIM_EVENT_MESSAGE, SIM_EVENT_TICK, SIM_EVENT_START, SIM_EVENT_JOB, SIM_EVENT_TIMEOUT, SIM_EVENT_SYNC, SIM_EVENT_TRAINED,
    SIM_EVENT_LOADED, SIM_EVENT_FAULT, SIM_EVENT_EXIT_NOTICE, SIM_EVENT_PULL,
};

struct sim_event {
    uint64_t at_ms, number;
    enum sim_event_kind kind;
    uint32_t node, life, slot;
    uint64_t ticket, version;
    bool flag;
    struct sim_message *message;    /* owned */
};

struct sim_world {
    struct sim_options options;
    struct run_config config;
    uint64_t rng, now_ms, number, last_request;
    uint64_t faults_until_ms;
    struct sim_event *heap; size_t n_heap, heap_capacity;
    struct sim_node nodes[SIM_NODES];
    uint64_t cut_until_ms[SIM_NODES][SIM_NODES];    /* [from][to] */
    uint32_t connection[SIM_NODES]; /* to the coordinator: which one it is now. What is sent over an earlier one is lost */
    uint32_t crash_rate;            /* of a million, per event, while faults last */
    uint32_t drop_rate, double_rate, delay_rate;    /* of a thousand, per message */
    uint32_t late_rate;             /* the same of plans and lists of versions: seconds late */
    struct conductor *conductor;
    struct conductor_effects effects;
    struct sim_ledger ledger;
    struct sim_journal journal;
    struct sim_versions versions;
    struct sim_brought brought[SIM_NODES];
    struct sim_check *check;
    bool finished, stopped, drained;
    bool lost_journal;              /* options.disk_loss has struck */
    char failure[512];              /* what the checker found first; "": nothing */
    uint64_t events;
};

/* What is played (sim_run.c): every kind of stage once, small; grouped: rl by groups, with others drawn for those without
 * spread. */
void sim_small_run(struct run_config *config, int max_staleness, bool grouped);
struct sim_world *sim_world_new(const struct sim_options *options);
struct sim_world *sim_world_free(struct sim_world *w);
/* Play until the run has finished, the checker objects, or nothing moves any more. */
void sim_world_run(struct sim_world *w);

/* ---- for the nodes (sim_coordinator.c, sim_learner.c, sim_worker.c, sim_server.c) ------------------- */

uint64_t sim_random(struct sim_world *w);
uint64_t sim_below(struct sim_world *w, uint64_t n);
bool sim_chance(struct sim_world *w, uint64_t of_thousand);     /* false once the faults are over */
uint64_t sim_hash(uint64_t a, uint64_t b);                      /* the same in every history */
void sim_fail(struct sim_world *w, const char *format, ...) _printf_(2, 3);
void sim_trace(struct sim_world *w, const char *format, ...) _printf_(2, 3);

struct sim_event *sim_schedule(struct sim_world *w, uint64_t in_ms, enum sim_event_kind kind, uint32_t node);
/* Copies list; `message` itself is taken by value. */
void sim_send(struct sim_world *w, const struct sim_message *message, const void *list, size_t n, size_t item);
void sim_crash(struct sim_world *w, uint32_t node, bool by_itself);
/* True: the process died here, the caller must return at once. */
bool sim_crash_point(struct sim_world *w, uint32_t node);

void sim_hello(struct sim_world *w, uint32_t node, const struct held_lease *held, size_t n);

void sim_coordinator_start(struct sim_world *w);
void sim_coordinator_stop(struct sim_world *w);
void sim_coordinator_message(struct sim_world *w, const struct sim_message *m);
void sim_coordinator_tick(struct sim_world *w);
void sim_coordinator_exit_notice(struct sim_world *w, uint32_t node, uint32_t life, bool by_itself);
void sim_coordinator_admin(struct sim_world *w, const struct conductor_event *event);
void sim_ledger_release(struct sim_ledger *ledger);

void sim_learner_start(struct sim_world *w);
void sim_learner_stop(struct sim_world *w);
void sim_learner_message(struct sim_world *w, const struct sim_message *m);
void sim_learner_tick(struct sim_world *w);
void sim_learner_synced(struct sim_world *w);
void sim_learner_trained(struct sim_world *w);

void sim_worker_start(struct sim_world *w, uint32_t node);
void sim_worker_message(struct sim_world *w, uint32_t node, const struct sim_message *m);
void sim_worker_tick(struct sim_world *w, uint32_t node);
void sim_worker_job(struct sim_world *w, uint32_t node, const struct sim_event *e);
void sim_worker_timeout(struct sim_world *w, uint32_t node, const struct sim_event *e);

void sim_server_start(struct sim_world *w, uint32_t node);
void sim_server_message(struct sim_world *w, uint32_t node, const struct sim_message *m);
void sim_server_tick(struct sim_world *w, uint32_t node);
void sim_server_loaded(struct sim_world *w, uint32_t node, uint64_t version);
void sim_server_brought(struct sim_world *w, uint32_t node, uint64_t version, int result);

bool sim_is_remote(uint32_t node);
void sim_pull_begin(struct sim_world *w, uint32_t node, const struct holder_effect *load);
void sim_pull_event(struct sim_world *w, uint32_t node, const struct sim_event *e);
void sim_pull_reply(struct sim_world *w, uint32_t node, const struct sim_message *m);
void sim_pull_tick(struct sim_world *w, uint32_t node);
void sim_pull_answer(struct sim_world *w, const struct sim_message *m);

static inline bool sim_is_worker(uint32_t node) { return node >= SIM_WORKER_0 && node < SIM_ACTOR_0; }
static inline bool sim_is_server(uint32_t node) { return node == SIM_PRM || node >= SIM_ACTOR_0; }

/* What an episode does is fixed by its state and policy, whoever plays it: so a run with faults must end as one without. */
bool sim_outcome_success(const struct ledger_episode *row);
void sim_digest(uint64_t a, uint64_t b, uint64_t c, uint8_t ret[SHA256_SIZE]);
