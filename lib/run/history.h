/* history.h - the checker: three writers must tell the same story.
 *
 * The coordinator's ledger says what was promised and how it ended; the learner's journal says what arrived; the manifests of
 * committed versions say what was trained on. Pure: arrays in, a list of contradictions out. Rules:
 *   each episode ends once, and what ended never changes;  a trained episode is in exactly one version's consumed list of its
 *   kind, with the digest the ledger has;  nothing is consumed that the ledger does not call trained;  nothing acknowledged
 *   (journaled event) is missing from the journal unless its segment was dropped by retention;  digests agree;  a version's
 *   parent exists and numbers only grow;  a done iteration has no open rows;  an episode was played by the one policy version,
 *   and scored by the one reward model, that its row names, under a lease of a coordinator that was.
 * history_load reads the three from a run directory; tests/sim fills the arrays itself. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "run/ledger.h"

enum history_event_kind { HISTORY_ADDED, HISTORY_JOURNALED, HISTORY_REOPENED, HISTORY_ENDED, HISTORY_CLOSED };

struct history_event {          /* the ledger's, in order */
    enum history_event_kind kind;
    uint64_t episode;
    enum episode_state end;     /* of HISTORY_ENDED */
    uint8_t digest[SHA256_SIZE];    /* of HISTORY_JOURNALED */
    uint32_t stage, iteration;      /* of HISTORY_ADDED; HISTORY_CLOSED: all of its rows must have ended by now */
};

struct history_record { uint64_t episode; uint8_t digest[SHA256_SIZE]; };       /* the journal's */

struct history_played {         /* what the journal's trajectory says of how it was played, and what its row in the ledger asked
                                 * for */
    uint64_t episode;
    uint64_t policy_version, prm_version;           /* of the trajectory; prm_version 0: not scored */
    uint64_t row_policy_version, row_prm_version;
    uint64_t fence_epoch;       /* of the lease it was played under: its coordinator's */
    bool mixed;                 /* its steps were not all acted by policy_version */
};

struct history_version {        /* a committed manifest */
    int kind;                   /* enum version_kind */
    uint64_t number, parent;
    const struct history_record *consumed;
    size_t n_consumed;
    bool in_ledger;             /* the ledger knows it with the same manifest digest */
};

struct history {
    struct history_event *events;
    size_t n_events;
    struct history_record *records;
    size_t n_records;
    struct history_played *played;      /* in any order; may be fewer than records */
    size_t n_played;
    uint64_t epoch;             /* the coordinator's last; 0: not known */
    struct history_version *versions;
    size_t n_versions;
    bool complete;              /* the run ended: nothing may still be open */
    uint64_t *dropped;          /* episodes whose segment retention removed: not missed */
    size_t n_dropped;
    void *owned;                /* what history_load allocated */
};

struct history_result {
    size_t episodes, journaled, trained, kept, evaluated, filtered, stale, failed, violations;
    size_t open, waiting;       /* waiting: those of open that the journal has; what becomes of them their pass decides, at its end */
};

/* Check; one line per contradiction is added to `out` (may be NULL). 0 or -ENOMEM: contradictions are a result, not an error. */
int history_check(const struct history *history, struct strbuf *out, struct history_result *ret);

/* Reads the run's files, and changes none. -EBUSY: a coordinator holds the ledger; -EBADMSG: one of them is damaged. */
int history_load(const char *run_dir, struct history *ret, struct error *error);
void history_release(struct history *history);
/* The ledger's events as JSON lines. */
int history_export(struct ledger *ledger, uint64_t after, struct strbuf *out);
