/* intake_internal.h - intake's state, for intake*.c alone.
 *
 *   intake.c          set-up, restore, the step, open iterations
 *   intake_deliver.c  deliveries: verdicts, appends, what the coordinator is told of them
 *   intake_plan.c     inventory, plans, commits */
#pragma once

#include <uthash.h>

#include "base/effect_memory.h"
#include "learner/intake.h"

enum { RESEND_MS = 1000 };

struct record {                     /* durable */
    struct intake_record it;
    uint64_t sequence;              /* of the first Journaled message that named it */
    bool told;                      /* the coordinator has acknowledged such a message */
    UT_hash_handle hh;
};

struct writing {                    /* handed to the journal, not durable yet */
    struct intake_record it;
    uint64_t token, from, request;
};

struct open_set {                   /* an iteration whose episodes are admitted */
    uint32_t stage, iteration;
    uint64_t *episodes;             /* ascending */
    size_t n;
    uint64_t *failed;               /* of them, ascending */
    size_t n_failed;
    uint64_t policy_version;
    uint32_t purpose;
    bool trained_on;                /* a plan follows */
    bool closed;                    /* complete or planned, its segment sealed: what is not there now (failed) counts no more */
};

struct intake {
    struct record *records;
    struct writing *writing;
    size_t n_writing, capacity_writing;
    struct open_set open[INTAKE_OPEN_MAX];      /* oldest first */
    size_t n_open;
    uint64_t highest;               /* largest episode id heard of since the start */
    bool has_segment;
    uint32_t segment_stage, segment_iteration;  /* where the journal appends */
    struct intake_version *versions;
    size_t n_versions;
    bool training, committed_untold;
    struct intake_plan plan;        /* in progress (or the last); its episodes are owned */
    struct intake_version committed;            /* committed_untold: said until acknowledged */
    uint64_t epoch;                 /* coordinator's */
    uint64_t sequence;              /* of the last Journaled message */
    size_t n_untold;
    uint64_t said_ms;               /* Journaled or Committed last sent */
    enum intake_bug bug;

    /* of the step that runs */
    struct intake_effects *out;
    bool out_of_memory;
};

/* intake.c */
struct intake_effect *intake_emit(struct intake *intake, enum intake_effect_kind kind);     /* never NULL */
void *intake_take(struct intake *intake, size_t bytes);     /* for what effects point at; NULL: out of memory, noted */
struct record *intake_find_record(const struct intake *intake, uint64_t episode);
int intake_add_record(struct intake *intake, const struct intake_record *it, bool told);
int intake_add_version(struct intake *intake, const struct intake_version *version);
struct open_set *intake_find_open(const struct intake *intake, uint64_t episode);
void intake_close(struct intake *intake, struct open_set *set);        /* no more is admitted: its segment is sealed; once */
void intake_close_complete(struct intake *intake, struct open_set *set);       /* if every episode is in, or given up */

/* intake_deliver.c */
void intake_on_deliver(struct intake *intake, const struct intake_event *event);
void intake_on_appended(struct intake *intake, const struct intake_event *event, uint64_t now_ms);
void intake_on_journaled_ack(struct intake *intake, uint64_t sequence);
void intake_send_journaled(struct intake *intake, uint64_t now_ms);

/* intake_plan.c */
void intake_send_inventory(struct intake *intake, const struct open_set *about);    /* NULL: the newest open one */
void intake_on_plan(struct intake *intake, const struct intake_event *event, uint64_t now_ms);
void intake_on_trained(struct intake *intake, const struct intake_event *event, uint64_t now_ms);
void intake_on_welcome(struct intake *intake, const struct intake_event *event, uint64_t now_ms);
void intake_on_tick(struct intake *intake, uint64_t now_ms);
