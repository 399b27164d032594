/* The rules, over plain arrays. history_load.c fills them from a run directory. */
#include "run/history.h"

#include <errno.h>
#include <inttypes.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* What the three writers say of one episode. */
struct story {
    uint64_t episode;
    uint32_t stage, iteration;
    bool journaled, ended, in_journal, dropped, closed;
    enum episode_state end;
    uint8_t digest[SHA256_SIZE];        /* as the ledger heard it */
    uint8_t stored[SHA256_SIZE];        /* as the journal has it */
    uint64_t consumed_by;               /* policy version + 1; 0: none */
    UT_hash_handle hh;
};

struct checker {
    struct story *stories;
    struct strbuf *out;
    struct history_result result;
    bool failed;                        /* out of memory */
};

static void violation(struct checker *c, const char *format, ...) _printf_(2, 3);
static void violation(struct checker *c, const char *format, ...)
{
    va_list args;

    c->result.violations++;
    if (!c->out)
        return;
    va_start(args, format);
    strbuf_vaddf(c->out, format, args);
    va_end(args);
    strbuf_addc(c->out, '\n');
}

static struct story *find(struct checker *c, uint64_t episode)
{
    struct story *story;

    HASH_FIND(hh, c->stories, &episode, sizeof episode, story);
    return story;
}

static struct story *add(struct checker *c, const struct history_event *event)
{
    struct story *story = calloc(1, sizeof *story);

    if (!story) {
        c->failed = true;
        return NULL;
    }
    story->episode = event->episode;
    story->stage = event->stage;
    story->iteration = event->iteration;
    HASH_ADD(hh, c->stories, episode, sizeof story->episode, story);
    if (!story->hh.tbl) {
        free(story);
        c->failed = true;
        return NULL;
    }
    return story;
}

static void hear_journaled(struct checker *c, struct story *story, const struct history_event *event)
{
    if (story->journaled && memcmp(story->digest, event->digest, SHA256_SIZE))
        violation(c, "episode %" PRIu64 ": journaled twice with different digests", story->episode);
    if (story->ended)
        violation(c, "episode %" PRIu64 ": journaled after it had ended %s", story->episode, episode_state_name(story->end));
    story->journaled = true;
    memcpy(story->digest, event->digest, SHA256_SIZE);
}

static void hear_ended(struct checker *c, struct story *story, enum episode_state end)
{
    if (story->ended)
        violation(c, "episode %" PRIu64 ": ended twice, %s and then %s", story->episode, episode_state_name(story->end),
                  episode_state_name(end));
    else if (!episode_state_is_end(end))
        violation(c, "episode %" PRIu64 ": ended as %s, which is no end", story->episode, episode_state_name(end));
    else if (!story->journaled && end != EPISODE_FAILED)
        violation(c, "episode %" PRIu64 ": ended %s, but nothing was journaled", story->episode, episode_state_name(end));
    story->ended = true;
    story->end = end;
}

static void close_iteration(struct checker *c, uint32_t stage, uint32_t iteration)
{
    struct story *story;

    for (story = c->stories; story; story = story->hh.next)
        if (story->stage == stage && story->iteration == iteration && !story->ended && !story->closed) {
            violation(c, "episode %" PRIu64 ": stage %u iteration %u was closed without its end", story->episode, stage,
                      iteration);
            story->closed = true;       /* said once */
        }
}

static void hear(struct checker *c, const struct history_event *event)
{
    struct story *story;

    story = find(c, event->episode);
    if (event->kind == HISTORY_ADDED) {
        if (story)
            violation(c, "episode %" PRIu64 ": added twice", event->episode);
        else
            (void)add(c, event);
        return;
    }
    if (!story) {
        violation(c, "episode %" PRIu64 ": happens in the ledger but was never added", event->episode);
        return;
    }
    if (event->kind == HISTORY_JOURNALED) {
        hear_journaled(c, story, event);
    } else if (event->kind == HISTORY_REOPENED) {
        if (story->ended)
            violation(c, "episode %" PRIu64 ": reopened after it had ended", story->episode);
        story->journaled = false;
    } else {
        hear_ended(c, story, event->end);
    }
}

static void hear_journal(struct checker *c, const struct history *h)
{
    for (size_t i = 0; i < h->n_records; i++) {
        struct story *story = find(c, h->records[i].episode);

        if (!story) {
            violation(c, "episode %" PRIu64 ": in the journal, but the ledger never promised it", h->records[i].episode);
            continue;
        }
        if (story->in_journal)
            violation(c, "episode %" PRIu64 ": twice in the journal", story->episode);
        story->in_journal = true;
        memcpy(story->stored, h->records[i].digest, SHA256_SIZE);
        if (story->journaled && memcmp(story->digest, story->stored, SHA256_SIZE))
            violation(c, "episode %" PRIu64 ": the journal's digest is not the one the ledger was told", story->episode);
    }
    for (size_t i = 0; i < h->n_dropped; i++) {
        struct story *story = find(c, h->dropped[i]);

        if (story)
            story->dropped = true;
    }
}

/* One version per episode, and the leased one. */
static void hear_played(struct checker *c, const struct history *h)
{
    for (size_t i = 0; i < h->n_played; i++) {
        const struct history_played *p = &h->played[i];

        if (p->mixed)
            violation(c, "episode %" PRIu64 ": more than one policy version acted in it", p->episode);
        if (p->policy_version != p->row_policy_version)
            violation(c, "episode %" PRIu64 ": played by policy version %" PRIu64 ", its row says %" PRIu64, p->episode,
                      p->policy_version, p->row_policy_version);
        if (p->prm_version && p->prm_version != p->row_prm_version)
            violation(c, "episode %" PRIu64 ": scored by PRM version %" PRIu64 ", its row says %" PRIu64, p->episode,
                      p->prm_version, p->row_prm_version);
        if (h->epoch && p->fence_epoch > h->epoch)
            violation(c, "episode %" PRIu64 ": played under a lease of epoch %" PRIu64 ", the coordinator has had %" PRIu64,
                      p->episode, p->fence_epoch, h->epoch);
    }
}

static void hear_consumed(struct checker *c, const struct history_version *v, const struct history_record *record)
{
    struct story *story = find(c, record->episode);
    const char *kind = v->kind == KIND_PRM ? "prm" : "policy";

    if (!story) {
        violation(c, "%s version %" PRIu64 ": trained on episode %" PRIu64 ", which the ledger does not know", kind, v->number,
                  record->episode);
        return;
    }
    if (!story->journaled)
        violation(c, "%s version %" PRIu64 ": trained on episode %" PRIu64 ", which was never journaled", kind, v->number,
                  story->episode);
    else if (memcmp(story->digest, record->digest, SHA256_SIZE))
        violation(c, "%s version %" PRIu64 ": trained on other bytes of episode %" PRIu64 " than were journaled", kind, v->number,
                  story->episode);
    /* Kept data sets serve every imitation and reward-model stage; only policy gradients use an episode up. */
    if (v->kind != KIND_POLICY || (story->ended && story->end == EPISODE_KEPT))
        return;
    if (story->consumed_by)
        violation(c, "episode %" PRIu64 ": trained twice, in policy versions %" PRIu64 " and %" PRIu64, story->episode,
                  story->consumed_by - 1, v->number);
    story->consumed_by = v->number + 1;
    if (story->ended && story->end != EPISODE_TRAINED)
        violation(c, "episode %" PRIu64 ": policy version %" PRIu64 " was trained on it, the ledger says %s", story->episode,
                  v->number, episode_state_name(story->end));
    if (!story->ended && v->in_ledger)
        violation(c, "episode %" PRIu64 ": policy version %" PRIu64 " was trained on it, the ledger has it open", story->episode,
                  v->number);
}

static bool parent_exists(const struct history *h, const struct history_version *v)
{
    if (v->parent == 0 || v->parent == v->number)
        return true;
    for (size_t i = 0; i < h->n_versions; i++)
        if (h->versions[i].kind == v->kind && h->versions[i].number == v->parent)
            return true;
    return false;
}

static void hear_versions(struct checker *c, const struct history *h)
{
    for (size_t i = 0; i < h->n_versions; i++) {
        const struct history_version *v = &h->versions[i];
        const char *kind = v->kind == KIND_PRM ? "prm" : "policy";

        for (size_t j = 0; j < i; j++)
            if (h->versions[j].kind == v->kind && h->versions[j].number == v->number)
                violation(c, "%s version %" PRIu64 ": committed twice", kind, v->number);
        if (v->parent > v->number)
            violation(c, "%s version %" PRIu64 ": its parent %" PRIu64 " is younger", kind, v->number, v->parent);
        if (!parent_exists(h, v))
            violation(c, "%s version %" PRIu64 ": its parent %" PRIu64 " does not exist", kind, v->number, v->parent);
        if (h->complete && !v->in_ledger)
            violation(c, "%s version %" PRIu64 ": committed on disk, but not in the ledger (or with another manifest)", kind,
                      v->number);
        for (size_t k = 0; k < v->n_consumed; k++)
            hear_consumed(c, v, &v->consumed[k]);
    }
}

static void judge(struct checker *c, const struct history *h, const struct story *s)
{
    struct history_result *r = &c->result;

    r->episodes++;
    r->journaled += s->journaled;
    if (s->journaled && !s->in_journal && !s->dropped)
        violation(c, "episode %" PRIu64 ": acknowledged as journaled, but not in the journal", s->episode);
    if (!s->ended) {
        r->open++;
        r->waiting += s->in_journal;
        if (h->complete)
            violation(c, "episode %" PRIu64 ": the run ended without its end", s->episode);
        return;
    }
    r->trained += s->end == EPISODE_TRAINED;
    r->kept += s->end == EPISODE_KEPT;
    r->evaluated += s->end == EPISODE_EVALUATED;
    r->filtered += s->end == EPISODE_FILTERED;
    r->stale += s->end == EPISODE_STALE;
    r->failed += s->end == EPISODE_FAILED;
    if (s->end == EPISODE_TRAINED && !s->consumed_by)
        violation(c, "episode %" PRIu64 ": the ledger says trained, no version lists it as consumed", s->episode);
}

int history_check(const struct history *history, struct strbuf *out, struct history_result *ret)
{
    struct checker c = {.out = out};
    struct story *story, *next;

    for (size_t i = 0; i < history->n_events && !c.failed; i++)
        if (history->events[i].kind != HISTORY_CLOSED)
            hear(&c, &history->events[i]);
    for (size_t i = 0; i < history->n_events; i++)      /* after the others: one transaction may hold both in any order */
        if (history->events[i].kind == HISTORY_CLOSED)
            close_iteration(&c, history->events[i].stage, history->events[i].iteration);
    hear_journal(&c, history);
    hear_played(&c, history);
    hear_versions(&c, history);
    for (story = c.stories; story; story = story->hh.next)
        judge(&c, history, story);
    HASH_ITER(hh, c.stories, story, next) {
        HASH_DEL(c.stories, story);
        free(story);
    }
    if (c.failed || (out && out->failed))
        return -ENOMEM;
    *ret = c.result;
    return 0;
}
