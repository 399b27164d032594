/* intake_deliver.c - which delivery counts, and who is told of it when. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/array.h"
#include "learner/intake_internal.h"

static void reply(struct intake *intake, uint64_t to, uint64_t request, uint64_t episode, enum deliver_verdict verdict,
                  const uint8_t *digest, const char *text)
{
    struct intake_effect *effect = intake_emit(intake, INTAKE_REPLY);

    effect->to = to;
    effect->request = request;
    effect->reply.episode = episode;
    effect->reply.verdict = verdict;
    if (digest)
        memcpy(effect->reply.digest, digest, SHA256_SIZE);
    snprintf(effect->reply.text, sizeof(effect->reply.text), "%s", text);
}

static void busy(struct intake *intake, uint64_t to, uint64_t request)
{
    struct intake_effect *effect = intake_emit(intake, INTAKE_BUSY);

    effect->to = to;
    effect->request = request;
}

static bool is_writing(const struct intake *intake, uint64_t episode)
{
    for (size_t i = 0; i < intake->n_writing; i++)
        if (intake->writing[i].it.episode.episode == episode)
            return true;
    return false;
}

static int add_writing(struct intake *intake, const struct writing *w)
{
    if (array_room(&intake->writing, intake->n_writing, &intake->capacity_writing, sizeof(*intake->writing)) < 0)
        return -ENOMEM;
    intake->writing[intake->n_writing++] = *w;
    return 0;
}

static void admit(struct intake *intake, const struct intake_event *event, const struct open_set *set)
{
    const struct writing w = {
        .it = { .stage = set->stage, .iteration = set->iteration, .episode = event->deliver.episode },
        .token = event->deliver.token, .from = event->from, .request = event->request,
    };
    struct intake_effect *effect;

    if (add_writing(intake, &w) < 0) {
        intake->out_of_memory = true;
        return;
    }
    if (!intake->has_segment || intake->segment_stage != set->stage || intake->segment_iteration != set->iteration) {
        effect = intake_emit(intake, INTAKE_SEGMENT);
        effect->segment.stage = intake->segment_stage = set->stage;
        effect->segment.iteration = intake->segment_iteration = set->iteration;
        intake->has_segment = true;
    }
    effect = intake_emit(intake, INTAKE_APPEND);
    effect->append.episode = w.it.episode.episode;
    effect->append.token = w.token;
    effect->append.stage = set->stage;
    effect->append.iteration = set->iteration;
    if (intake->bug == INTAKE_BUG_ACK_BEFORE_SYNC)
        reply(intake, w.from, w.request, w.it.episode.episode, DELIVER_ACCEPTED, w.it.episode.digest, "");
}

/* Deliver without a place among the open iterations: too early to say, or too late. */
static bool not_announced_yet(const struct intake *intake, uint64_t episode)
{
    return episode > intake->highest;       /* 0 before the first is open */
}

void intake_on_deliver(struct intake *intake, const struct intake_event *event)
{
    const struct journaled_episode *episode = &event->deliver.episode;
    const struct record *record = intake_find_record(intake, episode->episode);
    const struct open_set *set = intake_find_open(intake, episode->episode);
    struct intake_effect *release;
    bool known = set != NULL;

    if (set && set->closed)
        set = NULL;
    if (record && intake->bug == INTAKE_BUG_ADMIT_TWICE)
        record = NULL;
    if (!event->deliver.valid)
        reply(intake, event->from, event->request, episode->episode, DELIVER_REFUSED, NULL,
              event->deliver.text ? event->deliver.text : "malformed");
    else if (record && !memcmp(record->it.episode.digest, episode->digest, SHA256_SIZE))
        reply(intake, event->from, event->request, episode->episode, DELIVER_DUPLICATE, episode->digest, "");
    else if (record)
        reply(intake, event->from, event->request, episode->episode, DELIVER_SUPERSEDED, record->it.episode.digest,
              "another delivery was first");
    else if (is_writing(intake, episode->episode) || (!known && not_announced_yet(intake, episode->episode)))
        busy(intake, event->from, event->request);
    else if (!set)
        reply(intake, event->from, event->request, episode->episode, DELIVER_SUPERSEDED, NULL,
              "its iteration is closed, or it never had such an episode");
    else if (set->policy_version != event->deliver.policy_version && intake->bug != INTAKE_BUG_ANY_VERSION)
        reply(intake, event->from, event->request, episode->episode, DELIVER_SUPERSEDED, NULL,
              "played by another policy version than it was leased with");
    else if (set->purpose && set->purpose != event->deliver.purpose)
        reply(intake, event->from, event->request, episode->episode, DELIVER_REFUSED, NULL,
              "played for another purpose than it was leased for");
    else {
        admit(intake, event, set);
        return;
    }
    release = intake_emit(intake, INTAKE_RELEASE);
    release->append.episode = episode->episode;
    release->append.token = event->deliver.token;
}

void intake_send_journaled(struct intake *intake, uint64_t now_ms)
{
    struct journaled_episode *episodes;
    struct intake_effect *effect;
    struct record *record, *next;
    size_t n = 0;

    if (!intake->n_untold || !(episodes = intake_take(intake, intake->n_untold * sizeof(*episodes))))
        return;
    effect = intake_emit(intake, INTAKE_SEND_JOURNALED);
    HASH_ITER(hh, intake->records, record, next)
        if (!record->told && n < intake->n_untold) {
            episodes[n++] = record->it.episode;
            effect->journaled.stage = record->it.stage;
            effect->journaled.iteration = record->it.iteration;
        }
    effect->journaled.episodes = episodes;
    effect->journaled.n = n;
    effect->journaled.sequence = ++intake->sequence;    /* names all that is untold: its reply covers what came before, too */
    intake->said_ms = now_ms;
}

void intake_on_appended(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    struct open_set *set;
    struct writing w;
    size_t i = 0;

    while (i < intake->n_writing && intake->writing[i].token != event->appended.token)
        i++;
    if (i == intake->n_writing)
        return;
    w = intake->writing[i];
    intake->writing[i] = intake->writing[--intake->n_writing];
    if (event->appended.result < 0) {
        busy(intake, w.from, w.request);    /* not durable, not acknowledged: it will be delivered again */
        return;
    }
    if (intake_add_record(intake, &w.it, false) < 0)
        intake->out_of_memory = true;
    set = intake_find_open(intake, w.it.episode.episode);
    if (set)
        intake_close_complete(intake, set);
    if (intake->bug != INTAKE_BUG_ACK_BEFORE_SYNC)
        reply(intake, w.from, w.request, w.it.episode.episode, DELIVER_ACCEPTED, w.it.episode.digest, "");
    intake_send_journaled(intake, now_ms);
}

void intake_on_journaled_ack(struct intake *intake, uint64_t sequence)
{
    struct record *record, *next;

    HASH_ITER(hh, intake->records, record, next)
        if (!record->told && record->sequence <= sequence) {
            record->told = true;
            intake->n_untold--;
        }
}
