/* conductor.h - the coordinator without its sockets and its ledger file: what to do next, as events in and effects out.
 *
 *   conductor_new -> conductor_restore(what the ledger holds) -> [conductor_step(event, now) -> effects]* -> conductor_free
 *
 * It executes the run's stages in order. An iteration is opened (all its rows in one transaction), its rows are leased to
 * workers, played, reported durable by learner rank 0, then the learner is told to train on them and the version it commits
 * is recorded and announced to the servers; the next iteration opens when a server has it ready.
 *
 * Persist before send. Effects are a list in order: ledger changes first (kinds up to CONDUCTOR_LAST_LEDGER), then messages and
 * the rest. The edge writes all ledger changes of a step in one transaction, commits, and only then sends. When the commit
 * fails the edge must end the process: the conductor's memory is ahead of the ledger, a restart puts that right.
 * Messages may be lost: whatever matters is said again on the next tick, heartbeat, or reconnect, and every event may come twice.
 *
 * What survives a restart is what conductor_restore is given; members and leases are memory only. Time is monotonic
 * milliseconds of this process. Pointers in effects are borrowed until the next step.
 *
 * Thread rule: the coordinator's loop thread only.
 * Failure rule: -ENOMEM from a step means the process must end, as for a failed commit. An event that makes no sense (an
 * unknown member, a stale message) is answered by an effect, never by an error. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/episode.h"
#include "coordinator/lease.h"
#include "coordinator/membership.h"
#include "coordinator/stage_plan.h"
#include "coordinator/versions.h"

struct conductor;

/* ---- setting up -------------------------------------------------------------------------------- */

struct conductor_setup {
    const struct run_config *config;        /* borrowed for the conductor's life */
    const char *const *stage_settings;      /* [n_stages] `key: value` lines of each stage, for Plan.settings; borrowed */
    const int *task_levels;                 /* [n_tasks] for the `levels` curriculum; NULL: all 0 */
    uint64_t run, epoch, group_epoch;       /* of the ledger; epoch already raised */
};

struct conductor_restored {                 /* the ledger's rows; copied */
    const struct ledger_stage *stages;      size_t n_stages;
    const struct ledger_iteration *iterations;  size_t n_iterations;    /* those not DONE are enough */
    const struct ledger_episode *episodes;  size_t n_episodes;          /* rows of the iterations not DONE */
    const struct ledger_version *versions;  size_t n_versions;
    const char *memory;                     size_t memory_size;         /* blob "memory"; NULL, 0: a new run */
};

/* -ENOMEM. */
int conductor_new(const struct conductor_setup *setup, struct conductor **ret);
struct conductor *conductor_free(struct conductor *c);
DEFINE_FREEP(struct conductor, conductor_free)

/* Once, before the first step; also for a new run (all empty). -EBADMSG: the ledger contradicts itself or the configuration. */
int conductor_restore(struct conductor *c, const struct conductor_restored *restored, uint64_t now_ms, struct error *error);

/* ---- events ------------------------------------------------------------------------------------ */

enum conductor_event_kind {
    CONDUCTOR_HELLO,            /* a process introduces itself */
    CONDUCTOR_HEARTBEAT,
    CONDUCTOR_BYE,
    CONDUCTOR_EXIT,             /* the supervisor saw a child end: (host, pid) or member */
    CONDUCTOR_LEASE_REQUEST,
    CONDUCTOR_LEASE_RETURN,
    CONDUCTOR_JOURNALED,        /* learner rank 0 only, as the next four; from others it is refused */
    CONDUCTOR_INVENTORY,
    CONDUCTOR_COMMITTED,
    CONDUCTOR_PLAN_FAILED,      /* final: the run stops with its text; else a line in the ledger */
    CONDUCTOR_VERSION_STATE,    /* an actor or PRM server */
    CONDUCTOR_TICK,             /* every 100-250 ms */
    CONDUCTOR_DRAIN,            /* admin, SIGTERM: finish what is leased, open nothing, then CONDUCTOR_DRAINED */
    CONDUCTOR_CORDON,           /* admin: member gets no more leases (on = true) or again (false); its process stays so over
                                 * restarts */
    CONDUCTOR_DRAIN_MEMBER,     /* admin: member finishes what it holds and leaves */
    CONDUCTOR_PRM_SWAP,         /* admin: new episodes are scored by PRM `version`, or it goes on trial (shadow) */
    CONDUCTOR_SHADOW_SCORED,    /* a PRM server: an episode scored by two versions */
};

struct conductor_event {
    enum conductor_event_kind kind;
    uint64_t from;              /* opaque: who to answer (the edge's peer); echoed in effect.to */
    uint64_t request;           /* opaque: the request's id; echoed in effect.request. 0: wants no answer */
    uint64_t wall_ms;           /* wall clock, for start and end times of rows only */
    uint64_t epoch;             /* of its envelope; all but Hello and the admin's are refused when it is not this one */
    uint32_t member;            /* as the sender calls itself; 0 before Hello */
    union {
        struct {
            struct member member;                   /* role, instance, slots, rank, pid, host, device, isa, build, address, key */
            const struct held_lease *leases;        /* worker: what it still plays */
            size_t n_leases;
        } hello;
        struct {
            const struct held_lease *leases;
            size_t n_leases;
            uint64_t revision;                      /* of the endpoints, that it knows */
        } heartbeat;
        struct { const char *host; uint32_t pid; bool crashed, shut_out; const char *text; } exit;
                                                    /* crashed: by itself (signal other than KILL/TERM, or exit code not 0);
                                                     * shut_out: by its operator, whatever it played has no part in it */
        struct { uint32_t slots; } lease_request;
        struct { uint64_t episode, fence; enum lease_return reason; const char *text; } lease_return;
        struct { uint32_t stage, iteration; const struct journaled_episode *episodes; size_t n_episodes; } journaled;
        struct {
            uint32_t stage, iteration; /* an open iteration it knows: the one just opened, else the newest; LEDGER_ALL: none */
            uint32_t rows;                          /* how many episodes it knows that one to have */
            const struct journaled_episode *episodes;   /* all it has journaled of its open iterations */
            size_t n_episodes;
            uint64_t policy_version, prm_version;   /* newest committed on disk */
            uint8_t policy_digest[SHA256_SIZE], prm_digest[SHA256_SIZE];
            uint8_t plan_digest[SHA256_SIZE];       /* in progress; zeros: none */
        } inventory;
        struct {
            struct ledger_version version; /* kind, number, parent, digest, dir, stage, iteration, gate, metrics (borrowed) */
            uint8_t plan_digest[SHA256_SIZE];
            const uint64_t *trained, *filtered, *stale;
            size_t n_trained, n_filtered, n_stale;
        } committed;
        struct { uint8_t plan_digest[SHA256_SIZE]; bool final; const char *text; } plan_failed;
        struct { enum version_kind kind; uint64_t version; bool ready; const char *text; } version_state;
        struct {
            uint64_t version;
            bool wait; uint32_t round;                  /* wait: until that round of the present stage opens */
            bool shadow; uint32_t episodes; double margin, rank;    /* on trial first; the bar of shadow.h */
        } prm_swap;
        struct shadow_report shadow_scored;
        struct { bool on; } cordon;
    };
};

/* ---- effects ----------------------------------------------------------------------------------- */

enum conductor_effect_kind {
    /* the ledger: one transaction per step */
    CONDUCTOR_PUT_STAGE,         /* .stage */
    CONDUCTOR_PUT_ITERATION,     /* .iteration */
    CONDUCTOR_ADD_EPISODE,       /* .episode */
    CONDUCTOR_EPISODE_JOURNALED, /* .episode */
    CONDUCTOR_EPISODE_ENDED,     /* .episode: state, reason */
    CONDUCTOR_EPISODE_FAILURE,   /* .episode: failures, suspect, reason */
    CONDUCTOR_EPISODE_REOPENED,  /* .episode, reason: the inventory lacks what was called journaled */
    CONDUCTOR_ADD_VERSION,       /* .version */
    CONDUCTOR_PUT_BLOB,          /* .blob: "memory" */
    CONDUCTOR_PUT_GROUP_EPOCH,   /* .group_epoch */
    CONDUCTOR_ADD_SCALAR,        /* .scalar; also for TensorBoard */
    CONDUCTOR_ADD_EVENT,         /* .text: a line for history and the log */
    CONDUCTOR_LAST_LEDGER = CONDUCTOR_ADD_EVENT,

    /* replies: to .to, answering .request */
    CONDUCTOR_WELCOME,         /* .welcome */
    CONDUCTOR_HEARTBEAT_REPLY, /* .heartbeat */
    CONDUCTOR_GRANT,           /* .grant */
    CONDUCTOR_ACK,             /* the empty reply of whatever was asked */
    CONDUCTOR_REFUSE,          /* .refuse */

    /* on its own account: to member .member at .to */
    CONDUCTOR_OPEN_ITERATION, /* .open: learner rank 0 */
    CONDUCTOR_PLAN,           /* .plan: every learner rank */
    CONDUCTOR_VERSIONS,       /* .versions: an actor or PRM server */
    CONDUCTOR_SEND_DRAIN,     /* .text */
    CONDUCTOR_SEND_WORK,      /* a worker: there are rows to lease, it need not wait until it asks again */

    /* for the edge itself */
    CONDUCTOR_RETAIN,   /* .retain: version_retain() with this list: weights of all other versions may be removed from disk */
    CONDUCTOR_DRAINED,  /* nothing is leased and nothing trains: the process may end, exit code 0 */
    CONDUCTOR_FINISHED, /* the last stage has ended */
    CONDUCTOR_STOPPED,  /* .text: too much has failed; say it and end with an exit code other than 0 */
};

enum conductor_refusal { REFUSE_STALE, REFUSE_ROLE, REFUSE_REQUEST };  /* STALE_EPOCH (say Hello again), DENIED, BAD_REQUEST */

struct conductor_plan {
    uint32_t stage, iteration, round;
    enum work_objective objective;
    enum version_kind kind;
    uint64_t parent, version;   /* version: one above the newest of its kind; prm: parent 0 = none yet */
    const char *parent_dir;     /* relative to the run directory; prm with parent 0: the policy (or prm.init) it starts from */
    const uint64_t *episodes;   size_t n_episodes;      /* id order */
    const uint64_t *stages;     size_t n_stages;        /* sft, prm: also all episodes of these */
    const char *settings;       /* of the stage */
    uint8_t digest[SHA256_SIZE];
    uint64_t group_epoch;       /* not in the digest, nor is this: */
    uint32_t keep_from;         /* trajectories of the stage's earlier iterations may go */
};

struct conductor_effect {
    enum conductor_effect_kind kind;
    uint64_t to, request;
    uint32_t member;
    union {
        struct ledger_stage stage;
        struct ledger_iteration iteration;
        struct ledger_episode episode;
        struct ledger_version version;
        struct { const char *name; const void *bytes; size_t n; } blob;
        uint64_t group_epoch;
        struct {
            uint32_t stage, iteration;
            char name[EPISODE_TASK_MAX + 16];
            double value;
            bool val;           /* of an rl stage's pass over val states */
        } scalar;
        struct { uint64_t episode; char kind[24]; char text[400]; } text;
        struct {
            uint32_t member;
            uint64_t epoch;
            const uint64_t *kept; size_t n_kept;            /* episodes it may go on playing; all others: drop */
        } welcome;
        struct {
            bool known, drain, sent_away;
            const uint64_t *revoked; size_t n_revoked;
            bool endpoints_changed; uint64_t revision;      /* the edge lists conductor_members() */
        } heartbeat;
        struct { const struct lease_terms *leases; size_t n_leases; uint32_t retry_ms; bool drain; } grant;
        struct { enum conductor_refusal why; char text[200]; } refuse;
        struct {
            uint32_t stage, iteration;
            const char *name;
            const uint64_t *episodes; size_t n_episodes;
            const uint64_t *failed; size_t n_failed;        /* of them */
            uint64_t policy_version, prm_version;
            enum episode_purpose purpose;
            bool keep;
        } open;
        struct conductor_plan plan;
        struct {
            enum version_kind kind;
            const struct ledger_version *const *keep; size_t n_keep;
            uint64_t shadow;                            /* prm: the one on trial; 0: none */
        } versions;
        struct { enum version_kind kind; const uint64_t *keep; size_t n_keep; } retain;
    };
};

struct conductor_effects {
    struct conductor_effect *items;
    size_t n, capacity;
    struct effect_memory *memory;       /* what the items point at */
};

void conductor_effects_release(struct conductor_effects *effects);

/* The step. *out is emptied first. 0 or -ENOMEM (see the failure rule). */
int conductor_step(struct conductor *c, const struct conductor_event *event, uint64_t now_ms, struct conductor_effects *out);

/* ---- looking in (status page, metrics, edges, tests) ------------------------------------------ */

struct conductor_status {
    uint32_t stage, iteration;
    const struct work *work;            /* what is open, borrowed; NULL between iterations */
    const char *name;                   /* its name, or "" */
    uint64_t rows, open, leased, journaled, failed;
    bool training;                      /* a plan is with the learner */
    bool waiting;                       /* for `waiting_for` */
    const char *waiting_for;            /* "learner", "an actor with policy version 12 (refused: why)", ...; "" */
    const char *trouble;                /* why the last try at what is trained failed; "": it has not */
    uint64_t policy_version, prm_version;   /* newest policy, current PRM */
    const char *prm_doubt;              /* what its gate said of a PRM that did not pass it and pays this stage; "" */
    uint64_t success, ended;            /* journaled rows of the open iteration: successes, count */
    double reward;                      /* sum of their returns */
    double stage_s;                     /* the stage is worked on for so long beyond its row's wall_s */
    bool draining, finished, stopped;
};

void conductor_status(const struct conductor *c, struct conductor_status *ret);
const struct membership *conductor_members(const struct conductor *c);
const struct lease_table *conductor_leases(const struct conductor *c);
const struct plan_memory *conductor_memory(const struct conductor *c);
const struct versions *conductor_versions(const struct conductor *c);
/* Which versions of this kind servers shall hold now. Returns how many. */
size_t conductor_wanted(const struct conductor *c, enum version_kind kind, uint64_t ret[MEMBER_VERSIONS]);

/* ---- seeded bugs: only tests/sim sets these ---------------------------------------------------- */

enum conductor_bug {
    CONDUCTOR_BUG_NONE,
    CONDUCTOR_BUG_STALE_RENEW,      /* a heartbeat renews whatever its fence */
    CONDUCTOR_BUG_NEWEST_VERSION,   /* a lease names the newest policy, not its row's */
    CONDUCTOR_BUG_LOSE_EPISODE,     /* the plan leaves out its last episode, the iteration closes nevertheless */
    CONDUCTOR_BUG_END_TWICE,        /* a repeated Committed ends its episodes again */
    CONDUCTOR_BUG_LIST_ONCE,        /* a server is told its versions when they change, and not again with each heartbeat */
    CONDUCTOR_BUG_PLAN_TWICE,       /* a plan that was open at a restart is numbered anew */
    CONDUCTOR_BUG_OLD_ADDRESS,      /* a heartbeat over another connection does not say that the first is gone */
};
void conductor_set_bug(struct conductor *c, enum conductor_bug bug);
