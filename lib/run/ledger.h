/* ledger.h - the coordinator's memory on disk: every episode that was promised and how it ended.
 *
 * One SQLite file, RUN/ledger.sqlite (WAL, EXCLUSIVE, synchronous FULL; user_version numbers its layout). What happened is
 * written twice in the same transaction: as the new state of its row, and as a line of the append-only `events` table, which
 * the history checker reads. Nothing the coordinator says to anybody is said before its transaction has committed.
 *
 * What is opened is what was committed, to the last row, or it is refused (-EBADMSG): pages, tables, the sum of each row and the
 * totals of each table are checked, and a mark beside the file (ledger.sqlite-mark) tells when commits are missing at its end. So
 * another program may read the file, but cannot change it unnoticed.
 *
 *   ledger_open -> ledger_stages, ... -> [ledger_begin -> changes... -> ledger_commit | ledger_rollback]* -> ledger_close
 *
 * A change outside a transaction is -EINVAL. A failed change leaves the transaction open: roll it back. Opened again after a
 * crash it has exactly what the last commit left.
 * Thread rule: one thread (the coordinator's loop). Failure rule: -errno, outputs untouched; ledger_open fills *error.
 * Fault points: ledger.begin, ledger.write (each change), ledger.commit (before), ledger.committed (after). */
#pragma once

#include <stdbool.h>

#include "base/episode.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/strbuf.h"

struct ledger;

enum episode_state {            /* stored as text: never rename */
    EPISODE_OPEN,               /* promised; leased or not, nothing durable yet */
    EPISODE_JOURNALED,          /* durable at the learner, its end not yet decided */
    EPISODE_TRAINED, EPISODE_KEPT, EPISODE_EVALUATED, EPISODE_FILTERED, EPISODE_STALE, EPISODE_FAILED,
};
enum progress_state { PROGRESS_PENDING, PROGRESS_OPEN, PROGRESS_PLANNED, PROGRESS_DONE };   /* stages and iterations */
enum version_kind { KIND_POLICY, KIND_PRM };        /* the numbers of proto VersionKind */

struct ledger_run {
    uint64_t id, seed;
    uint8_t config_digest[SHA256_SIZE];     /* of the resolved config.yaml */
    uint64_t epoch;                         /* coordinator epoch; ledger_open raised it */
    uint64_t group_epoch;                   /* learner group */
    uint64_t created_ms;                    /* wall clock */
    char build[48];                         /* of the program that opens it, for the event "start"; "": it does not say */
    const uint8_t (*begins_with)[SHA256_SIZE];      /* who opens it: digests of configurations that his goes on from, ... */
    size_t n_begins_with;                           /* ... to any of which the run may belong still */
};

struct ledger_stage {
    uint32_t stage;             /* index in the YAML's list */
    char name[32], kind[16];
    enum progress_state state;
    uint64_t start_ms, end_ms;  /* wall clock; 0: not yet */
    double wall_s;              /* seconds it was worked on, restarts left out */
    uint64_t policy_in, policy_out;         /* versions at its start and end */
};

struct ledger_iteration {
    uint32_t stage, iteration;
    char name[32];              /* for people: "rl/12" from 1, "rl/12 val" after it, "eval test last" */
    uint32_t purpose;           /* proto Purpose */
    uint64_t policy_version, prm_version;
    enum progress_state state;
    uint64_t first_episode, last_episode;   /* ids of its rows; replacements come later. 0, 0: none (sft) */
    uint64_t start_ms, end_ms;
    uint8_t plan_digest[SHA256_SIZE];       /* zeros: no plan sent */
};

struct ledger_episode {
    uint64_t episode;           /* key; from 1, never used again */
    uint32_t stage, iteration;
    uint32_t purpose, split;    /* proto Purpose, Split */
    char task[EPISODE_TASK_MAX];
    uint64_t state_seed;
    uint64_t policy_version, prm_version;
    float temperature;
    uint32_t search_n, max_steps;
    uint64_t sample_key;
    char tag[48];               /* what an evaluation row belongs to: "val last t=0.6", "test sft n=4"; else "" */
    uint64_t replaces;          /* 0, or the failed episode it stands in for */
    enum episode_state state;
    uint32_t failures;          /* crashes while alone + simulator errors */
    bool suspect;               /* its worker died: next time it is played alone */
    bool success, timeout;
    uint32_t steps, member;
    float reward, progress_end;
    uint8_t digest[SHA256_SIZE];            /* of the trajectory, once journaled */
    char reason[96];            /* failed(reason) */
};

struct ledger_version {
    enum version_kind kind;
    uint64_t number, parent;
    uint32_t stage, iteration;
    uint8_t digest[SHA256_SIZE];            /* of its manifest.json */
    char dir[128];              /* relative to the run directory: policies/v000012 */
    bool gate_passed;
    char gate_text[160];
    char *metrics;              /* JSON object of numbers, or NULL */
    uint64_t committed_ms;
};

/* A reward model whose gate said no: prm.force let it through, or an operator may. */
bool ledger_version_failed_gate(const struct ledger_version *version);

/* Open or create RUN/ledger.sqlite, check and migrate it, take the exclusive lock and raise the coordinator epoch (one commit).
 * `create` names a new run; it is ignored when the file has one. -EBUSY: held by another process. -ENOTSUP: written by a
 * newer gantry, or on a file system that a ledger cannot trust (ledger_place.h). -EBADMSG: damaged. -ESTALE: the file
 * has another config digest, and none of begins_with: the run was started with a different configuration. */
int ledger_open(const char *path, const struct ledger_run *create, struct ledger **ret, struct error *error);
/* Read only, epoch untouched, checked as above; for reports and the checker. -EBUSY: a coordinator holds the file. */
int ledger_open_readonly(const char *path, struct ledger **ret, struct error *error);
/* The run goes on with more stages behind those it had: from now on it belongs to the configuration with this digest (one commit;
 * none if it does already). */
int ledger_extend(struct ledger *ledger, const uint8_t config_digest[SHA256_SIZE]);
struct ledger *ledger_close(struct ledger *ledger);
DEFINE_FREEP(struct ledger, ledger_close)
const struct ledger_run *ledger_run(const struct ledger *ledger);
const char *ledger_error(const struct ledger *ledger);      /* the last failure, for a log line */

int ledger_begin(struct ledger *ledger);
int ledger_commit(struct ledger *ledger);
void ledger_rollback(struct ledger *ledger);                /* no transaction: nothing */
double ledger_commit_ms(const struct ledger *ledger, double *ret_worst);    /* last commit and the worst so far */

/* Changes, inside a transaction. Each writes its event. */
int ledger_put_stage(struct ledger *ledger, const struct ledger_stage *stage);
int ledger_put_iteration(struct ledger *ledger, const struct ledger_iteration *iteration);
int ledger_add_episode(struct ledger *ledger, const struct ledger_episode *episode);        /* -EEXIST: the id is taken */
/* Its trajectory is durable: state, digest and outcome fields. Only from OPEN (again with the same digest: nothing, 0;
 * with another digest -EEXIST). */
int ledger_episode_journaled(struct ledger *ledger, const struct ledger_episode *episode);
/* How it ended. Once only: -EALREADY when it ended before (the same end again: 0). */
int ledger_episode_ended(struct ledger *ledger, uint64_t episode, enum episode_state end, const char *reason);
int ledger_episode_failure(struct ledger *ledger, uint64_t episode, uint32_t failures, bool suspect, const char *why);
/* JOURNALED -> OPEN: its trajectory was lost with a disk, and with it all that the row said of how it was played. */
int ledger_episode_reopened(struct ledger *ledger, uint64_t episode, const char *why);
/* -EEXIST with another digest; the same: 0 */
int ledger_add_version(struct ledger *ledger, const struct ledger_version *version);
int ledger_put_blob(struct ledger *ledger, const char *name, const void *bytes, size_t n);  /* "curriculum", ... */
int ledger_put_group_epoch(struct ledger *ledger, uint64_t group_epoch);
int ledger_add_scalar(struct ledger *ledger, uint32_t stage, uint32_t iteration, const char *name, double value);
/* Anything else worth keeping. */
int ledger_add_event(struct ledger *ledger, const char *kind, uint64_t episode, const char *text);

/* Reading back. Arrays are the caller's to free; rows in key order. */
int ledger_stages(struct ledger *ledger, struct ledger_stage **ret, size_t *ret_n);
int ledger_iterations(struct ledger *ledger, struct ledger_iteration **ret, size_t *ret_n);
#define LEDGER_ALL UINT32_MAX
int ledger_episodes(struct ledger *ledger, uint32_t stage, uint32_t iteration, struct ledger_episode **ret, size_t *ret_n);
int ledger_versions(struct ledger *ledger, struct ledger_version **ret, size_t *ret_n);
void ledger_versions_free(struct ledger_version *versions, size_t n);
int ledger_get_blob(struct ledger *ledger, const char *name, void **ret, size_t *ret_n);    /* -ENOENT; caller frees */

struct ledger_scalar { uint32_t stage, iteration; char name[EPISODE_TASK_MAX + 16]; double value; uint64_t wall_ms; };
int ledger_scalars(struct ledger *ledger, const char *name, struct ledger_scalar **ret, size_t *ret_n);     /* name NULL: all */

struct ledger_event { uint64_t sequence, wall_ms, epoch, episode; char kind[24]; char text[400]; };
int ledger_events(struct ledger *ledger, uint64_t after, size_t limit, struct ledger_event **ret, size_t *ret_n);
/* All of them, in order, a few thousand in memory at once; a negative answer of fn ends it and comes back. */
int ledger_each_event(struct ledger *ledger, uint64_t after, int (*fn)(const struct ledger_event *event, void *arg), void *arg);

const char *episode_state_name(enum episode_state state);
int episode_state_parse(const char *text, enum episode_state *ret);
const char *progress_state_name(enum progress_state state);
static inline bool episode_state_is_end(enum episode_state state) { return state >= EPISODE_TRAINED; }
/* The row as if it had not been played yet; what is known of its failures stays. */
void ledger_episode_forget(struct ledger_episode *episode);
