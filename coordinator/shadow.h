/* shadow.h - a reward model on trial: finished episodes are scored by it beside the one in use, then a stated bar decides.
 *
 *   shadow_begin -> [shadow_scored(a server's report) and shadow_outcome(how the episode ended), in any order]* -> shadow_ready
 *   -> shadow_judge -> shadow_end
 *
 * An episode counts when both are known of it. The bar: where at least SHADOW_EACH episodes succeeded and as many failed, the new
 * model's AUC of success against failure at the last frame is at most `margin` below the old one's; where outcomes were too much
 * alike to tell, the mean rank correlation of the two models' scores over an episode's frames is at least `rank`.
 * Nothing of it touches what episodes are paid. Kept in plan_memory, so a trial outlives the coordinator.
 *
 * Thread rule: none, pure.  Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

enum { SHADOW_MAX = 200, SHADOW_ROOM = SHADOW_MAX + 56, SHADOW_EACH = 4 };    /* ROOM: with episodes not complete yet */

struct shadow_report {          /* one episode scored by both */
    uint64_t episode, version, shadow;
    uint32_t frames;            /* of that episode */
    float difference;           /* mean |shadow - version| over them */
    float rank;                 /* Spearman's correlation over them; 0: one side does not vary */
    float last, shadow_last;    /* of the last frame, in [0,1] */
};

struct shadow_episode {
    uint64_t episode;
    uint32_t frames;            /* 0: not scored by both yet */
    float difference, rank, last, shadow_last;
    bool ended, success;        /* ended: success is known */
};

struct shadow_verdict {
    uint64_t version, against;  /* 0: there was no trial yet */
    bool passed;
    uint32_t episodes, successes;
    uint64_t frames;
    double difference, rank;    /* means over frames; over episodes */
    double auc, auc_against;    /* NaN: too few successes or failures */
};

struct shadow {
    uint64_t version, against;  /* on trial, in use; version 0: no trial */
    uint32_t wanted;            /* episodes */
    double margin, rank;        /* the bar */
    struct shadow_episode episodes[SHADOW_ROOM];
    uint32_t n;
    struct shadow_verdict last; /* of the last trial that was decided */
};

void shadow_begin(struct shadow *s, uint64_t version, uint64_t against, uint32_t wanted, double margin, double rank);
void shadow_end(struct shadow *s);                          /* `last` stays */
/* A report of another trial or of numbers that no model gives is ignored. */
void shadow_scored(struct shadow *s, const struct shadow_report *report);
void shadow_outcome(struct shadow *s, uint64_t episode, bool success);
uint32_t shadow_complete(const struct shadow *s);           /* episodes that count so far */
static inline bool shadow_ready(const struct shadow *s) { return s->version && shadow_complete(s) >= s->wanted; }
/* -ENOMEM. */
int shadow_judge(const struct shadow *s, struct shadow_verdict *ret);
/* "AUC 0.91 against 0.88 at the last frame (12 of 32 succeeded), rank correlation 0.93, mean difference 0.041 over 1,210
 * frames". */
void shadow_text(const struct shadow_verdict *v, char *ret, size_t size);

/* For plan_memory: `shadow...` lines, and back, one line at a time (key, then the rest). -EBADMSG. */
void shadow_write(const struct shadow *s, struct strbuf *out);
int shadow_parse(const char *key, const char *value, struct shadow *s, struct error *error);
