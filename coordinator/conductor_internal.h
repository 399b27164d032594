/* conductor_internal.h - the conductor's state, for conductor*.c alone.
 *
 *   conductor.c          set-up, the step, what happens after every event (advance)
 *   conductor_restore.c  from ledger rows to state
 *   conductor_member.c   hello, heartbeat, bye, exit, leases
 *   conductor_learner.c  journaled, inventory, committed
 *   conductor_work.c     passes and stages in order: open; what can happen after every event
 *   conductor_rows.c     the rows of open iterations: found, ended, failed and replaced
 *   conductor_plan.c     what the learner is told: open rows, the plan and its digest
 *   conductor_operator.c cordons, drains, swaps of reward models
 *   conductor_shadow.c   a reward model on trial
 *   conductor_close.c    a pass is over: figures, retention
 *   conductor_versions.c which versions servers shall hold */
#pragma once

#include "base/effect_memory.h"
#include "coordinator/conductor.h"

enum {
    OPEN_MAX = 2,                   /* iterations not closed at once: one, or two with max_staleness 1 */
    RESEND_MS = 1000,               /* one-way messages that have shown no result */
    RETRY_MS = 1000,                /* a worker that got no lease and heard of no work asks again */
    RETRY_SOON_MS = 100,            /* one whose last episode was delivered, and the learner's word is on its way */
    WANTED_MS = 3 * RETRY_MS,       /* one that has not asked again for so long does not want any now */
    REFUSED_MS = 10000,             /* all servers refuse a version that a pass waits for: time for a slow file system, then the
                                     * run stops */
    UNSCORED_MS = 60000,            /* a pass that is scored waits for a reward model that passed its gate: time for an operator
                                     * to name one all the same, then the run stops */
    DEAF_MS = 2000,                 /* between two steps: this process stood still (a full disk, SIGSTOP), not its members */
    GRANT_MAX = 256,                /* leases in one answer, however many slots a worker claims: they must fit a message */
    FAILURES_MAX = 3,
    SERVER_ERRORS_MAX = 10,         /* in a row, no episode played in between: no server is of any use */
    FAILED_MIN = 4,                 /* failed rows that stop a run, if they are also more than a tenth */
};

struct open_iteration {
    struct work work;
    struct ledger_iteration row;    /* OPEN or PLANNED */
    struct ledger_episode *rows;    /* id order */
    uint64_t *journaled_by;         /* [n] learner instance that said so; 0: before this process */
    uint32_t *lost_by;              /* [n] member whose death while it played this alone is counted; 0: none */
    size_t n, capacity, opened_with;
    uint64_t known_to;              /* learner instance that knows these rows; 0: none */
    uint64_t sent_ms;               /* OpenIteration or Plan last sent; 0: not yet */
    bool has_plan;
    bool left;                      /* its plan failed while the run drains: begun anew by the next life, not waited for */
    struct conductor_plan plan;     /* its arrays are ids[], stages[] */
    uint64_t *ids, *kept_stages;
};

struct conductor {
    struct conductor_setup setup;
    const struct run_config *config;
    struct plan_memory memory;
    bool memory_moved;              /* write it with this step */
    struct ledger_stage *stages;    /* [n_stages] */
    uint64_t stage_since_ms;        /* monotonic: the present stage is worked on since, for wall_s */
    struct open_iteration open[OPEN_MAX];   /* oldest first */
    size_t n_open;
    struct membership members;
    struct lease_table leases;
    struct versions versions;
    uint64_t group_epoch;
    uint32_t server_errors;         /* leases that came back as a server's error since the last durable episode */
    uint64_t learner_instance;      /* of rank 0, the last that said Hello */
    bool inventory_seen;            /* from that instance */
    uint64_t grants_from_ms;        /* after a restart workers first say what they still play */
    uint64_t wanted[2][MEMBER_VERSIONS];    /* versions servers shall hold, newest last */
    size_t n_wanted[2];
    uint64_t wanted_sent_ms[2];
    uint64_t shadow_said[2];        /* with them */
    bool draining, drained_said, finished_said, stopped, stopped_said;
    char stop_text[400];
    char waiting_for[480];
    char refusal[2][360];           /* by kind of version: what the last server said that would not load one */
    uint64_t shadow_refused_since_ms;       /* the same of a reward model on trial */
    uint64_t refused_since_ms;      /* every server refuses what is waited for; 0: no */
    bool open_refused;              /* or what an open pass is played with */
    char trouble[200];              /* why the last try at the open plan failed; empty: it has not */
    enum conductor_bug bug;

    /* of the step that runs */
    uint64_t now_ms, wall_ms;
    struct conductor_effects *out;
    struct conductor_effects later; /* messages, put behind the ledger's changes at the end */
    bool out_of_memory;
};

/* Append an effect; never NULL (a scratch one when memory is out: the step then fails as a whole). */
struct conductor_effect *conductor_emit(struct conductor *c, enum conductor_effect_kind kind);
void *conductor_take(struct conductor *c, size_t bytes);        /* for what effects point at; NULL: out of memory, noted */
void conductor_note(struct conductor *c, uint64_t episode, const char *kind, const char *format, ...) _printf_(4, 5);
void conductor_stop(struct conductor *c, const char *text);

/* conductor_member.c */
void conductor_on_hello(struct conductor *c, const struct conductor_event *event);
void conductor_on_heartbeat(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_on_bye(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_on_exit(struct conductor *c, const struct conductor_event *event);
void conductor_expire(struct conductor *c);
void conductor_reply(struct conductor *c, const struct conductor_event *event, enum conductor_effect_kind kind);
void conductor_refuse(struct conductor *c, const struct conductor_event *event, enum conductor_refusal why, const char *text);

/* conductor_lease.c */
void conductor_on_lease_request(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_on_lease_return(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_send_work(struct conductor *c);
/* The holder of `lease` is dead, `counts`: it crashed by itself; or is not heard of; a member is heard again. */
void conductor_holder_died(struct conductor *c, const struct lease *lease, bool counts, const char *why);
/* A lease of a member that is there has come back unplayed: others come first (member.gave_back). Said once. */
void conductor_gave_back(struct conductor *c, struct member *member, const char *why);
void conductor_holder_lost(struct conductor *c, const struct lease *lease);
void conductor_holder_back(struct conductor *c, uint32_t member);

/* conductor_learner.c */
void conductor_on_journaled(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_on_inventory(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_on_committed(struct conductor *c, const struct conductor_event *event, struct member *member);
void conductor_on_plan_failed(struct conductor *c, const struct conductor_event *event, struct member *member);

/* conductor_rows.c */
struct ledger_episode *conductor_row(struct conductor *c, uint64_t episode, struct open_iteration **ret_iteration);
int open_iteration_reserve(struct open_iteration *it, size_t capacity);
int open_iteration_add(struct open_iteration *it, const struct ledger_episode *row);
void open_iteration_release(struct open_iteration *it);
size_t open_iteration_unplayed(const struct open_iteration *it);        /* rows still OPEN */
void conductor_end_row(struct conductor *c, struct ledger_episode *row, enum episode_state end, const char *reason);
void conductor_fail_row(struct conductor *c, struct open_iteration *it, struct ledger_episode *row, const char *reason);

/* conductor_plan.c */
int conductor_make_plan(struct conductor *c, struct open_iteration *it);
void conductor_plan_iteration(struct conductor *c, struct open_iteration *it);     /* to the ledger, then to the learner */
void conductor_send_open(struct conductor *c, struct open_iteration *it);
void conductor_send_plan(struct conductor *c, struct open_iteration *it);

/* conductor_close.c */
void conductor_put_stage(struct conductor *c, struct ledger_stage *stage);
void conductor_close(struct conductor *c, struct open_iteration *it);
void conductor_close_played(struct conductor *c, struct open_iteration *it);        /* nothing is trained from it */
void conductor_close_dropped(struct conductor *c, struct open_iteration *it);       /* nobody wants it any more */

/* conductor_versions.c */
void conductor_want_versions(struct conductor *c);      /* what servers shall hold; said again when due */
void conductor_send_versions(struct conductor *c, const struct member *member);

/* conductor_work.c */
uint64_t conductor_newest_policy(const struct conductor *c);
void conductor_work_versions(const struct conductor *c, const struct work *work, uint64_t *ret_policy, uint64_t *ret_prm);
void conductor_advance(struct conductor *c);            /* whatever can happen now, does */

/* conductor_operator.c */
void conductor_on_cordon(struct conductor *c, const struct conductor_event *event);
void conductor_on_drain_member(struct conductor *c, const struct conductor_event *event);
void conductor_on_drain(struct conductor *c, const struct conductor_event *event);
void conductor_on_prm_swap(struct conductor *c, const struct conductor_event *event);
void conductor_recall_member(struct conductor *c, struct member *member);           /* it has just said Hello */
void conductor_forget_member(struct conductor *c, const struct member *member);     /* it is gone for good */
void conductor_use_prm(struct conductor *c, uint64_t version);
void conductor_prm_due(struct conductor *c, const struct work *work);               /* which opens: a swap may wait for it */
/* All servers refuse the version that was swapped to: true, and the one before it is to serve again. */
/* The reward model in use if its gate said no and rl stage `stage` learns from what it says; else NULL. */
const struct ledger_version *conductor_doubtful_prm(const struct conductor *c, uint32_t stage);
bool conductor_prm_rolls_back(struct conductor *c, uint64_t refused, const char *why);

/* conductor_shadow.c */
void conductor_shadow_begin(struct conductor *c, const struct conductor_event *event);
void conductor_shadow_over(struct conductor *c, const char *why);                   /* undecided */
void conductor_on_shadow_scored(struct conductor *c, const struct conductor_event *event);
void conductor_shadow_outcome(struct conductor *c, const struct ledger_episode *row);       /* it has just been journaled */
void conductor_shadow_advance(struct conductor *c);
