/* conductor_shadow.c - a reward model on trial (coordinator/shadow.h): begun by an operator, fed by servers and the learner,
 * decided here. */
#include <inttypes.h>
#include <stdio.h>

#include "coordinator/conductor_internal.h"

void conductor_shadow_begin(struct conductor *c, const struct conductor_event *event)
{
    uint64_t version = event->prm_swap.version;
    struct shadow *s = &c->memory.shadow;

    if (!c->memory.prm_current) {
        conductor_refuse(c, event, REFUSE_REQUEST, "no reward model is in use yet: there is nothing to compare with");
        return;
    }
    if (version == c->memory.prm_current) {
        conductor_refuse(c, event, REFUSE_REQUEST, "that reward model is in use: name another");
        return;
    }
    conductor_shadow_over(c, "another trial begins");
    shadow_begin(s, version, c->memory.prm_current, event->prm_swap.episodes, event->prm_swap.margin, event->prm_swap.rank);
    c->memory_moved = true;
    c->shadow_refused_since_ms = 0;
    conductor_note(c, 0, "prm_shadow",
                   "PRM version %" PRIu64 " on trial beside version %" PRIu64 ": %u episodes; takes over when its AUC is at most "
                   "%g below the other's, or, with too few outcomes of both kinds, at a rank correlation of %g",
                   version, s->against, s->wanted, s->margin, s->rank);
    conductor_reply(c, event, CONDUCTOR_ACK);
}

void conductor_shadow_over(struct conductor *c, const char *why)
{
    struct shadow *s = &c->memory.shadow;

    if (!s->version)
        return;
    conductor_note(c, 0, "prm_shadow", "the trial of PRM version %" PRIu64 " is given up after %u of %u episodes: %s",
                   s->version, shadow_complete(s), s->wanted, why);
    shadow_end(s);
    c->memory_moved = true;
}

void conductor_on_shadow_scored(struct conductor *c, const struct conductor_event *event)
{
    struct open_iteration *it;
    const struct shadow_report *report = &event->shadow_scored;
    const struct ledger_episode *row = conductor_row(c, report->episode, &it);
    uint32_t before = shadow_complete(&c->memory.shadow);

    if (!row || row->prm_version == report->version)    /* no row: its pass is closed, and its outcome here */
        shadow_scored(&c->memory.shadow, report);
    c->memory_moved |= shadow_complete(&c->memory.shadow) != before;
    conductor_reply(c, event, CONDUCTOR_ACK);
}

void conductor_shadow_outcome(struct conductor *c, const struct ledger_episode *row)
{
    struct shadow *s = &c->memory.shadow;

    if (s->version && row->prm_version == s->against)
        shadow_outcome(s, row->episode, row->success);
}

static bool is_refused(struct conductor *c)
{
    if (!membership_refused(&c->members, KIND_PRM, c->memory.shadow.version, 0)) {
        c->shadow_refused_since_ms = 0;
        return false;
    }
    if (!c->shadow_refused_since_ms)
        c->shadow_refused_since_ms = c->now_ms;
    return membership_refused(&c->members, KIND_PRM, c->memory.shadow.version, c->shadow_refused_since_ms + REFUSED_MS);
}

void conductor_shadow_advance(struct conductor *c)
{
    struct shadow *s = &c->memory.shadow;
    struct shadow_verdict v;
    char text[400];

    if (!s->version)
        return;
    if (is_refused(c)) {
        snprintf(text, sizeof(text), "no server loads it: %s", c->refusal[KIND_PRM]);
        conductor_shadow_over(c, text);
        return;
    }
    if (!shadow_ready(s))
        return;
    if (shadow_judge(s, &v) < 0) {
        c->out_of_memory = true;
        return;
    }
    shadow_text(&v, text, sizeof(text));
    conductor_note(c, 0, "prm_shadow", "PRM version %" PRIu64 " %s after its trial: %s", v.version,
                   v.passed ? "scores new episodes" : "does not take over", text);
    shadow_end(s);
    s->last = v;
    c->memory_moved = true;
    if (v.passed)
        conductor_use_prm(c, v.version);
}
