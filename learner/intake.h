/* intake.h - the one admission point: which trajectory of an episode is the one that counts.
 *
 * Learner rank 0 without its sockets, its journal and its training. The coordinator opens iterations (sets of episodes with
 * a policy version); workers deliver. The first delivery of an episode of an open iteration, played by the leased policy
 * version, that becomes durable is the one, whatever its fence. Its worker hears ACCEPTED only after the journal has synced.
 *
 *   intake_new -> intake_restore(journal index, manifests) -> [intake_step(event, now) -> effects]* -> intake_free
 *
 * What the edge does with the effects, in their order:
 *   SEGMENT, APPEND, SEAL         go to the journal's thread in this order; every APPEND comes back as INTAKE_APPENDED after a
 *                                 sync that covers it (many appends may share one), or with -errno. SEAL comes with the plan, or,
 *                                 where none follows, when all episodes of an iteration are in (or given up)
 *   TRAIN                         goes to the train thread; comes back as INTAKE_TRAINED once the version is committed (renamed)
 *                                 or has failed
 *   REPLY, BUSY, SEND_*           go to the sockets
 * Verdicts: ACCEPTED; DUPLICATE = the very bytes that are journaled already (a repeated delivery); SUPERSEDED = another one was
 * first, the episode is of no open iteration (what was journaled for one that is over is not looked up again), or it was played
 * by another version: the worker drops it; REFUSED = malformed. BUSY = ask again soon: the same episode is being written just
 * now, or its iteration has not been announced yet.
 *
 * A crash between any two effects: what was appended and synced is in the journal index, a version that was renamed has its
 * manifest; restore is given both, the coordinator says open and plan again, nothing is trained twice because a plan whose
 * digest has a manifest is answered from it.
 *
 * Thread rule: the learner's loop thread only.  Failure rule: -ENOMEM from a step: end the process. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/episode.h"
#include "base/macro.h"

enum {
    INTAKE_OPEN_MAX = 2,            /* iterations open at once: the newest two; older ones are closed, their records forgotten */
    INTAKE_VERSIONS_KEPT = 8,       /* of each kind: the newest */
};

struct intake_record {              /* a durable trajectory of the journal */
    uint32_t stage, iteration;
    struct journaled_episode episode;
};

struct intake_version {             /* a committed manifest */
    int kind;                       /* 0 policy, 1 prm */
    uint64_t number, parent;
    uint8_t digest[SHA256_SIZE], plan_digest[SHA256_SIZE];
    uint32_t stage, iteration;
};

struct intake_plan {                /* of the coordinator's Plan what decides; the edge keeps all of it. Arrays are borrowed */
    uint32_t stage, iteration;
    int kind;
    uint64_t parent, version;
    const uint64_t *episodes; size_t n_episodes;
    uint8_t digest[SHA256_SIZE];
    uint64_t group_epoch;
};

enum intake_event_kind {
    INTAKE_WELCOME,         /* the coordinator knows us (again): .epoch */
    INTAKE_OPEN,            /* OpenIteration; may come any number of times, with more episodes (replacements) */
    INTAKE_PLAN,            /* Plan; comes again until it hears Committed */
    INTAKE_DELIVER,         /* a worker's trajectory, already parsed and hashed */
    INTAKE_APPENDED,        /* the journal's thread: durable, or failed */
    INTAKE_TRAINED,         /* the train thread: committed, or failed */
    INTAKE_JOURNALED_ACK,   /* the coordinator's replies */
    INTAKE_COMMITTED_ACK,
    INTAKE_TICK,            /* every 100-250 ms */
};

struct intake_event {
    enum intake_event_kind kind;
    uint64_t epoch;                 /* coordinator epoch: WELCOME sets it, OPEN and PLAN of an older one are ignored */
    uint64_t from, request;         /* DELIVER: who to answer, echoed */
    union {
        struct {
            uint32_t stage, iteration;
            const uint64_t *episodes; size_t n_episodes;
            const uint64_t *failed; size_t n_failed;        /* of them: the coordinator has given them up */
            uint64_t policy_version, prm_version;
            bool keep;
            uint32_t purpose;       /* that its episodes are played for, as the edge numbers it; 0: not said */
            bool trained_on;        /* a plan will follow, until then more episodes may be added: sealed with the plan */
        } open;
        struct intake_plan plan;
        struct {
            uint64_t token;         /* the edge's handle of the payload; comes back in APPEND or RELEASE, exactly one of them */
            uint64_t policy_version;
            uint32_t purpose;
            struct journaled_episode episode; /* digest: SHA-256 of trajectory bytes, then raw frames, as the journal takes it */
            bool valid;             /* false: .text says what is wrong with it */
            const char *text;
        } deliver;
        struct { uint64_t episode, token; int result; } appended;   /* 0 or -errno */
        struct { int result; struct intake_version version; const char *text; } trained;
                                    /* 0: this version is on disk (ours, or the winner of a rename race); -errno: failed */
        struct { uint64_t sequence; } journaled_ack;
        struct { int kind; uint64_t number; } committed_ack;
    };
};

enum intake_effect_kind {
    INTAKE_SEGMENT,        /* .segment: the journal appends there from now on */
    INTAKE_APPEND,         /* .append: write the payload of token, then INTAKE_APPENDED */
    INTAKE_SEAL,           /* .segment */
    INTAKE_RELEASE,        /* .append: the payload of token is not wanted (any more) */
    INTAKE_REPLY,          /* .reply: DeliverReply to .to, .request */
    INTAKE_BUSY,           /* .to, .request: STATUS_BUSY */
    INTAKE_SEND_JOURNALED, /* .journaled: to the coordinator; its reply comes back as JOURNALED_ACK with .sequence */
    INTAKE_SEND_INVENTORY, /* .inventory */
    INTAKE_TRAIN,          /* .plan: load the episodes, train, commit */
    INTAKE_SEND_COMMITTED, /* .committed: the edge adds what the version's directory says (trained, filtered, metrics, ...) */
};

struct intake_effect {
    enum intake_effect_kind kind;
    uint64_t to, request;
    union {
        struct { uint32_t stage, iteration; } segment;
        struct { uint64_t episode, token; uint32_t stage, iteration; } append;
        struct { uint64_t episode; enum deliver_verdict verdict; uint8_t digest[SHA256_SIZE]; char text[120]; } reply;
        struct { uint32_t stage, iteration; const struct journaled_episode *episodes; size_t n; uint64_t sequence; } journaled;
        struct {
            uint32_t stage, iteration;              /* the one just opened, else the newest; UINT32_MAX: none */
            uint32_t rows;                          /* how many episodes it has, as far as told */
            const struct journaled_episode *episodes; size_t n;     /* of all open iterations */
            uint64_t policy_version, prm_version;
            uint8_t policy_digest[SHA256_SIZE], prm_digest[SHA256_SIZE];
            uint8_t plan_digest[SHA256_SIZE];       /* in progress; zeros: none */
        } inventory;
        struct intake_plan plan;
        struct intake_version committed;
    };
};

struct intake_effects {
    struct intake_effect *items;
    size_t n, capacity;
    struct effect_memory *memory;   /* what the items point at; until the next step */
};
void intake_effects_release(struct intake_effects *effects);

struct intake;

/* -ENOMEM. */
int intake_new(struct intake **ret);
struct intake *intake_free(struct intake *intake);
DEFINE_FREEP(struct intake, intake_free)

/* Once, before the first step: every durable record of the journal and every committed manifest. Copied. Of a record only what
 * the journal's index has must be there; where steps are 0, how the episode ended is not known yet, and whoever sends it on finds
 * out. -ENOMEM. */
int intake_restore(struct intake *intake, const struct intake_record *records, size_t n_records,
                   const struct intake_version *versions, size_t n_versions);
/* How an episode that was restored without it ended. */
void intake_learn_outcome(struct intake *intake, const struct journaled_episode *episode);

int intake_step(struct intake *intake, const struct intake_event *event, uint64_t now_ms, struct intake_effects *out);

/* Which open iteration's stage an episode belongs to; UINT32_MAX: of none. */
uint32_t intake_stage_of(const struct intake *intake, uint64_t episode);
/* The same, of an iteration that a plan will follow. */
uint32_t intake_trained_stage_of(const struct intake *intake, uint64_t episode);

/* For status: episodes of the open iterations, journaled of them, being written, training now; records and versions in memory. */
struct intake_status { uint32_t stage, iteration; size_t open, journaled, writing, records, versions; bool training; };
void intake_status(const struct intake *intake, struct intake_status *ret);

/* Seeded bugs: only tests/sim sets these. */
enum intake_bug {
    INTAKE_BUG_NONE,
    INTAKE_BUG_ACK_BEFORE_SYNC,
    INTAKE_BUG_ADMIT_TWICE,
    INTAKE_BUG_TRAIN_AGAIN,
    INTAKE_BUG_ANY_VERSION,
    INTAKE_BUG_NO_INVENTORY,
    INTAKE_BUG_OLD_PLAN,        /* a plan is carried out whatever its epoch */
};
void intake_set_bug(struct intake *intake, enum intake_bug bug);
