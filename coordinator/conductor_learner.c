/* conductor_learner.c - what learner rank 0 says: what is durable, what it has, what it has committed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

/* ---- durable episodes ------------------------------------------------------------------------------ */

static void set_journaled(struct conductor *c, struct open_iteration *it, struct ledger_episode *row,
                          const struct journaled_episode *episode)
{
    struct member *member = membership_find(&c->members, episode->member);

    c->server_errors = 0;
    row->state = EPISODE_JOURNALED;
    row->success = episode->success;
    row->timeout = episode->timeout;
    row->steps = episode->steps;
    row->member = episode->member;
    row->reward = episode->reward;
    row->progress_end = episode->progress_end;
    memcpy(row->digest, episode->digest, SHA256_SIZE);
    it->journaled_by[row - it->rows] = c->learner_instance;
    conductor_emit(c, CONDUCTOR_EPISODE_JOURNALED)->episode = *row;
    conductor_shadow_outcome(c, row);
    (void)lease_end(&c->leases, row->episode);
    if (member) {
        member->delivered++;
        member->failed = 0;
        member->gave_back = false;
    }
}

static void take_journaled(struct conductor *c, const struct journaled_episode *episodes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct open_iteration *it;
        struct ledger_episode *row = conductor_row(c, episodes[i].episode, &it);

        if (row && row->state == EPISODE_OPEN)
            set_journaled(c, it, row, &episodes[i]);
        else if (row && row->state == EPISODE_JOURNALED && !memcmp(row->digest, episodes[i].digest, SHA256_SIZE))
            it->journaled_by[row - it->rows] = c->learner_instance;
        else if (row && row->state == EPISODE_JOURNALED)
            conductor_note(c, row->episode, "digest", "the learner now names another trajectory than it did before");
    }
}

void conductor_on_journaled(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    (void)member;
    take_journaled(c, event->journaled.episodes, event->journaled.n_episodes);
    conductor_reply(c, event, CONDUCTOR_ACK);
}

/* ---- inventory --------------------------------------------------------------------------------------- */

/* Version 0 is the checkpoint the run starts from: the learner has put it there. */
static void take_version_0(struct conductor *c, const struct conductor_event *event)
{
    struct ledger_version version = {
        .kind = KIND_POLICY, .gate_passed = true, .dir = "policies/v000000", .committed_ms = c->wall_ms};

    memcpy(version.digest, event->inventory.policy_digest, SHA256_SIZE);
    if (versions_add(&c->versions, &version, NULL) < 0) {
        c->out_of_memory = true;
        return;
    }
    conductor_emit(c, CONDUCTOR_ADD_VERSION)->version = version;
}

/* Versions on disk that neither the ledger knows nor a plan of ours explains are of another run. */
static void check_versions(struct conductor *c, const struct conductor_event *event)
{
    const struct ledger_version *newest = versions_newest(&c->versions, KIND_POLICY);
    bool planned = false;
    char text[200];

    if (!newest && event->inventory.policy_version == 0) {
        take_version_0(c, event);
        return;
    }
    for (size_t i = 0; i < c->n_open; i++)
        planned |= c->open[i].row.state == PROGRESS_PLANNED;
    if (planned || (newest && event->inventory.policy_version <= newest->number))
        return;
    snprintf(text, sizeof(text),
             "policies/ holds version %llu, the ledger knows none above %llu: is the run directory put together from two runs?",
             (unsigned long long)event->inventory.policy_version, newest ? (unsigned long long)newest->number : 0ULL);
    conductor_stop(c, text);
}

static bool listed(const struct conductor_event *event, uint64_t episode)
{
    for (size_t i = 0; i < event->inventory.n_episodes; i++)
        if (event->inventory.episodes[i].episode == episode)
            return true;
    return false;
}

/* A learner process that has never had what an earlier one called durable: its disk was lost. Those episodes are free again. */
static void reopen_missing(struct conductor *c, const struct conductor_event *event, struct open_iteration *it)
{
    uint64_t on_disk = it->plan.kind == KIND_PRM ? event->inventory.prm_version : event->inventory.policy_version;
    bool reopened = false;

    if (it->row.state == PROGRESS_PLANNED && on_disk >= it->plan.version)
        return;                         /* trained and committed before the loss: Committed is on its way */
    for (size_t i = 0; i < it->n; i++) {
        struct ledger_episode *row = &it->rows[i];

        if (row->state != EPISODE_JOURNALED || it->journaled_by[i] == c->learner_instance || listed(event, row->episode))
            continue;
        ledger_episode_forget(row);
        snprintf(row->reason, sizeof(row->reason), "not in the learner's journal any more");
        conductor_emit(c, CONDUCTOR_EPISODE_REOPENED)->episode = *row;
        reopened = true;
    }
    if (!reopened || it->row.state != PROGRESS_PLANNED)
        return;
    it->row.state = PROGRESS_OPEN;      /* planned again when they are back: the same rows give the same digest */
    it->has_plan = false;
    conductor_emit(c, CONDUCTOR_PUT_ITERATION)->iteration = it->row;
}

void conductor_on_inventory(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    check_versions(c, event);
    c->inventory_seen = true;
    take_journaled(c, event->inventory.episodes, event->inventory.n_episodes);
    for (size_t k = 0; k < c->n_open; k++) {
        struct open_iteration *it = &c->open[k];

        if (it->work.stage == event->inventory.stage && it->work.iteration == event->inventory.iteration &&
            it->n && event->inventory.rows == it->n) {
            if (it->known_to != member->instance)
                conductor_send_work(c);     /* from now on its rows are leased */
            it->known_to = member->instance;
            reopen_missing(c, event, it);
        }
        if (it->row.state == PROGRESS_PLANNED && memcmp(event->inventory.plan_digest, it->plan.digest, SHA256_SIZE))
            it->sent_ms = 0;            /* it does not know the plan: say it now */
    }
    conductor_reply(c, event, CONDUCTOR_ACK);
}

/* ---- committed --------------------------------------------------------------------------------------- */

/* Every row of the plan is named exactly once by the three lists. */
static bool names_all(struct conductor *c, const struct conductor_event *event, const struct open_iteration *it)
{
    const uint64_t *lists[] = { event->committed.trained, event->committed.filtered, event->committed.stale };
    size_t sizes[] = { event->committed.n_trained, event->committed.n_filtered, event->committed.n_stale };
    bool *named = conductor_take(c, MAX(it->n, (size_t)1) * sizeof(*named));
    size_t n = 0;

    for (size_t l = 0; named && l < ARRAY_SIZE(lists); l++)
        for (size_t i = 0; i < sizes[l]; i++, n++) {
            struct open_iteration *found;
            const struct ledger_episode *row = conductor_row(c, lists[l][i], &found);

            if (!row || found != it || row->state != EPISODE_JOURNALED || named[row - it->rows])
                return false;
            named[row - it->rows] = true;
        }
    return named && n == it->plan.n_episodes;
}

static void end_listed(struct conductor *c, const uint64_t *list, size_t n, enum episode_state end)
{
    for (size_t i = 0; i < n; i++) {
        struct open_iteration *it;
        struct ledger_episode *row = conductor_row(c, list[i], &it);

        if (row)
            conductor_end_row(c, row, end, end == EPISODE_STALE ? "played by too old a policy" : "");
    }
}

static struct open_iteration *planned_with(struct conductor *c, const struct conductor_event *event)
{
    for (size_t k = 0; k < c->n_open; k++) {
        struct open_iteration *it = &c->open[k];

        if (it->row.state == PROGRESS_PLANNED && !memcmp(it->plan.digest, event->committed.plan_digest, SHA256_SIZE) &&
            it->plan.kind == event->committed.version.kind && it->plan.version == event->committed.version.number)
            return it;
    }
    return NULL;
}

/* Heard before (our reply was lost), or of no plan of ours. */
static void answer_unplanned(struct conductor *c, const struct conductor_event *event)
{
    const struct ledger_version *v = &event->committed.version;
    const struct ledger_version *known = versions_find(&c->versions, v->kind, v->number);

    if (!known || memcmp(known->digest, v->digest, SHA256_SIZE)) {
        conductor_refuse(c, event, REFUSE_REQUEST, "committed: no plan of this digest and number is open");
        return;
    }
    if (c->bug == CONDUCTOR_BUG_END_TWICE)
        for (size_t i = 0; i < event->committed.n_trained; i++) {
            struct conductor_effect *effect = conductor_emit(c, CONDUCTOR_EPISODE_ENDED);

            effect->episode.episode = event->committed.trained[i];
            effect->episode.state = EPISODE_FILTERED;
        }
    conductor_reply(c, event, CONDUCTOR_ACK);
}

static void take_version(struct conductor *c, const struct conductor_event *event, const struct open_iteration *it)
{
    struct ledger_version version = event->committed.version;

    version.stage = it->work.stage;
    version.iteration = it->work.iteration;
    version.committed_ms = c->wall_ms;
    if (versions_add(&c->versions, &version, NULL) < 0)
        c->out_of_memory = true;
    conductor_emit(c, CONDUCTOR_ADD_VERSION)->version = version;
    if (version.kind == KIND_PRM && version.gate_passed)
        conductor_use_prm(c, version.number);
    else if (version.kind == KIND_PRM)
        conductor_note(c, 0, "gate", "PRM version %llu did not pass, version %llu goes on: %.160s",
                       (unsigned long long)version.number, (unsigned long long)c->memory.prm_current, version.gate_text);
}

void conductor_on_committed(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    struct open_iteration *it = planned_with(c, event);

    (void)member;
    if (!it) {
        answer_unplanned(c, event);
        return;
    }
    if (!names_all(c, event, it)) {
        conductor_refuse(c, event, REFUSE_REQUEST,
                         "committed: trained, filtered and stale do not name each episode of the plan once");
        conductor_stop(c, "the learner's Committed does not account for each episode of its plan");
        return;
    }
    take_version(c, event, it);
    c->trouble[0] = '\0';
    end_listed(c, event->committed.trained, event->committed.n_trained, EPISODE_TRAINED);
    end_listed(c, event->committed.filtered, event->committed.n_filtered, EPISODE_FILTERED);
    end_listed(c, event->committed.stale, event->committed.n_stale, EPISODE_STALE);
    conductor_close(c, it);
    conductor_reply(c, event, CONDUCTOR_ACK);
}

/* ---- failed ------------------------------------------------------------------------------------------- */

void conductor_on_plan_failed(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    char text[512];

    (void)member;
    for (size_t i = 0; i < c->n_open; i++) {
        struct open_iteration *it = &c->open[i];

        if (it->row.state != PROGRESS_PLANNED || memcmp(it->plan.digest, event->plan_failed.plan_digest, SHA256_SIZE))
            continue;           /* of a plan that is no longer */
        snprintf(text, sizeof text, "%s: %s", it->work.name, event->plan_failed.text);     /* the learner knows no names */
        if (event->plan_failed.final)
            conductor_stop(c, text);
        else
            conductor_note(c, 0, "plan_failed", "%s", text);
        it->left = c->draining;
        snprintf(c->trouble, sizeof(c->trouble), "%s", event->plan_failed.text);
    }
    conductor_reply(c, event, CONDUCTOR_ACK);
}
