#include "tests/sim/sim_check.h"

#include <string.h>

#include "run/history.h"

struct acknowledged { uint64_t episode; uint8_t digest[SHA256_SIZE]; };

struct sim_check {
    struct acknowledged *acknowledged;
    size_t n_acknowledged;
    struct sim_leases leases;
    uint64_t last_fence;
    struct history_event *events;   /* what the ledger's events table would say, for the shipped checker */
    size_t n_events, capacity_events;
};

struct sim_check *sim_check_new(void)
{
    struct sim_check *check = calloc(1, sizeof(*check));

    if (!check)
        abort();
    return check;
}

struct sim_check *sim_check_free(struct sim_check *check)
{
    if (check) {
        free(check->acknowledged);
        free(check->events);
        free(check->leases.items);
    }
    free(check);
    return NULL;
}

struct sim_leases *sim_check_leases(struct sim_world *w) { return &w->check->leases; }

#define ID(x) ((unsigned long long)(x))

static const struct ledger_episode *row_of(const struct sim_world *w, uint64_t episode)
{
    for (size_t i = w->ledger.n_episodes; i-- > 0;)
        if (w->ledger.episodes[i].episode == episode)
            return &w->ledger.episodes[i];
    return NULL;
}

static const struct ledger_iteration *iteration_of(const struct sim_world *w, uint32_t stage, uint32_t iteration)
{
    for (size_t i = w->ledger.n_iterations; i-- > 0;)
        if (w->ledger.iterations[i].stage == stage && w->ledger.iterations[i].iteration == iteration)
            return &w->ledger.iterations[i];
    return NULL;
}

static const struct sim_record *record_of(const struct sim_world *w, uint64_t episode)
{
    for (size_t i = 0; i < w->journal.n; i++)
        if (w->journal.items[i].it.episode.episode == episode)
            return &w->journal.items[i];
    return NULL;
}

static bool version_in_ledger(const struct sim_world *w, enum version_kind kind, uint64_t number)
{
    for (size_t i = 0; i < w->ledger.n_versions; i++)
        if (w->ledger.versions[i].kind == kind && w->ledger.versions[i].number == number)
            return true;
    return false;
}

/* ---- ledger transactions -------------------------------------------------------------------------------- */

static void check_added(struct sim_world *w, const struct ledger_episode *row)
{
    if (row_of(w, row->episode))
        sim_fail(w, "episode %llu is added to the ledger twice", ID(row->episode));
    if (w->ledger.n_episodes && w->ledger.episodes[w->ledger.n_episodes - 1].episode >= row->episode)
        sim_fail(w, "episode id %llu is not above the last one", ID(row->episode));
}

static void check_journaled(struct sim_world *w, const struct ledger_episode *row)
{
    const struct ledger_episode *before = row_of(w, row->episode);
    const struct sim_record *record = record_of(w, row->episode);

    if (!before || before->state != EPISODE_OPEN)
        sim_fail(w, "episode %llu is called journaled in state %d", ID(row->episode), before ? (int)before->state : -1);
    else if (!w->lost_journal && (!record || memcmp(record->it.episode.digest, row->digest, SHA256_SIZE)))
        sim_fail(w, "episode %llu is called journaled, the journal has %s", ID(row->episode), record ? "another" : "none");
}

static void check_ended(struct sim_world *w, const struct ledger_episode *row)
{
    const struct ledger_episode *before = row_of(w, row->episode);

    if (!before)
        sim_fail(w, "episode %llu ends and never was", ID(row->episode));
    else if (episode_state_is_end(before->state))
        sim_fail(w, "episode %llu ends twice: %d, then %d", ID(row->episode), (int)before->state, (int)row->state);
    else if (row->state != EPISODE_FAILED && before->state != EPISODE_JOURNALED)
        sim_fail(w, "episode %llu ends well without being journaled", ID(row->episode));
}

/* Only a crash while alone and a simulator error count, one each. */
static void check_failure(struct sim_world *w, const struct ledger_episode *row, const struct conductor_event *event)
{
    const struct ledger_episode *before = row_of(w, row->episode);
    bool counts = (event->kind == CONDUCTOR_EXIT && event->exit.crashed) ||
                  (event->kind == CONDUCTOR_LEASE_RETURN && event->lease_return.reason == LEASE_SIMULATOR_ERROR) ||
                  (event->kind == CONDUCTOR_TICK && before && before->suspect);      /* lost while alone */

    if (!before || row->failures > before->failures + (counts ? 1 : 0))
        sim_fail(w, "episode %llu: a failure is counted that was none", ID(row->episode));
    if (row->failures && before && row->failures > before->failures && event->kind == CONDUCTOR_EXIT && !before->suspect)
        sim_fail(w, "episode %llu: a crash in company is counted", ID(row->episode));
}

static void check_closed(struct sim_world *w, const struct ledger_iteration *iteration)
{
    if (iteration->state != PROGRESS_DONE)
        return;
    for (size_t i = 0; i < w->ledger.n_episodes; i++) {
        const struct ledger_episode *row = &w->ledger.episodes[i];

        if (row->stage == iteration->stage && row->iteration == iteration->iteration && !episode_state_is_end(row->state))
            sim_fail(w, "iteration %u/%u is done, its episode %llu is not", iteration->stage, iteration->iteration,
                     ID(row->episode));
    }
}

static void remember(struct sim_check *check, const struct conductor_effect *effect)
{
    static const int kinds[CONDUCTOR_LAST_LEDGER + 1] = {
        [CONDUCTOR_ADD_EPISODE] = HISTORY_ADDED + 1, [CONDUCTOR_EPISODE_JOURNALED] = HISTORY_JOURNALED + 1,
        [CONDUCTOR_EPISODE_REOPENED] = HISTORY_REOPENED + 1, [CONDUCTOR_EPISODE_ENDED] = HISTORY_ENDED + 1,
    };
    struct history_event event;

    if (effect->kind == CONDUCTOR_PUT_ITERATION && effect->iteration.state == PROGRESS_DONE) {
        event = (struct history_event){
            .kind = HISTORY_CLOSED, .stage = effect->iteration.stage, .iteration = effect->iteration.iteration};
    } else if (effect->kind <= CONDUCTOR_LAST_LEDGER && kinds[effect->kind]) {
        event = (struct history_event){
            .kind = (enum history_event_kind)(kinds[effect->kind] - 1),
            .episode = effect->episode.episode,
            .end = effect->episode.state,
            .stage = effect->episode.stage,
            .iteration = effect->episode.iteration,
        };
        memcpy(event.digest, effect->episode.digest, SHA256_SIZE);
    } else {
        return;
    }
    if (check->n_events == check->capacity_events) {
        check->capacity_events = check->capacity_events ? 2 * check->capacity_events : 256;
        check->events = realloc(check->events, check->capacity_events * sizeof(*check->events));
        if (!check->events)
            abort();
    }
    check->events[check->n_events++] = event;
}

void sim_check_commit(struct sim_world *w, const struct conductor_effect *effect, const struct conductor_event *event)
{
    remember(w->check, effect);
    switch (effect->kind) {
    case CONDUCTOR_ADD_EPISODE: check_added(w, &effect->episode); break;
    case CONDUCTOR_EPISODE_JOURNALED: check_journaled(w, &effect->episode); break;
    case CONDUCTOR_EPISODE_ENDED: check_ended(w, &effect->episode); break;
    case CONDUCTOR_EPISODE_FAILURE: check_failure(w, &effect->episode, event); break;
    case CONDUCTOR_EPISODE_REOPENED:
        if (!w->lost_journal)
            sim_fail(w, "episode %llu is reopened, no disk was lost", ID(effect->episode.episode));
        break;
    case CONDUCTOR_PUT_ITERATION: check_closed(w, &effect->iteration); break;
    case CONDUCTOR_ADD_VERSION:
        if (version_in_ledger(w, effect->version.kind, effect->version.number))
            sim_fail(w, "version %llu is added to the ledger twice", ID(effect->version.number));
        break;
    default: break;
    }
}

/* ---- what is said must be in the ledger -------------------------------------------------------------------- */

static void check_grant(struct sim_world *w, const struct conductor_effect *effect)
{
    size_t alone = 0, held = lease_count(conductor_leases(w->conductor), effect->member);

    for (size_t i = 0; i < effect->grant.n_leases; i++) {
        const struct lease_terms *terms = &effect->grant.leases[i];
        const struct ledger_episode *row = row_of(w, terms->episode);

        alone += terms->alone;
        if (!row || row->state != EPISODE_OPEN)
            sim_fail(w, "episode %llu is leased, the ledger does not have it open", ID(terms->episode));
        else if (row->policy_version != terms->policy_version || row->prm_version != terms->prm_version)
            sim_fail(w, "episode %llu is leased with policy %llu PRM %llu, its row says %llu and %llu", ID(terms->episode),
                     ID(terms->policy_version), ID(terms->prm_version), ID(row->policy_version), ID(row->prm_version));
        else if (row->suspect && !terms->alone)
            sim_fail(w, "episode %llu lost a worker and is leased in company", ID(terms->episode));
        if (terms->fence <= w->check->last_fence)
            sim_fail(w, "fence %llx was not above the last one", ID(terms->fence));
        w->check->last_fence = MAX(w->check->last_fence, terms->fence);
    }
    if (alone && held > 1)
        sim_fail(w, "member %u shall play alone and holds %zu leases", effect->member, held);
}

static void check_plan(struct sim_world *w, const struct conductor_plan *plan)
{
    const struct ledger_iteration *iteration = iteration_of(w, plan->stage, plan->iteration);

    if (!iteration || iteration->state != PROGRESS_PLANNED || memcmp(iteration->plan_digest, plan->digest, SHA256_SIZE))
        sim_fail(w, "a plan for %u/%u is sent that the ledger does not have", plan->stage, plan->iteration);
    for (size_t i = 0; i < plan->n_episodes; i++) {
        const struct ledger_episode *row = row_of(w, plan->episodes[i]);

        if (!row || row->state == EPISODE_OPEN || row->state == EPISODE_FAILED)
            sim_fail(w, "the plan for %u/%u has episode %llu, which is not journaled", plan->stage, plan->iteration,
                     ID(plan->episodes[i]));
        if (i && plan->episodes[i] <= plan->episodes[i - 1])
            sim_fail(w, "the plan for %u/%u is not in id order", plan->stage, plan->iteration);
    }
}

static void check_open(struct sim_world *w, const struct conductor_effect *effect)
{
    for (size_t i = 0; i < effect->open.n_episodes; i++)
        if (!row_of(w, effect->open.episodes[i])) {
            sim_fail(w, "episode %llu is announced, the ledger does not have it", ID(effect->open.episodes[i]));
            return;
        }
}

void sim_check_send(struct sim_world *w, const struct conductor_effect *effect)
{
    switch (effect->kind) {
    case CONDUCTOR_GRANT: check_grant(w, effect); break;
    case CONDUCTOR_PLAN: check_plan(w, &effect->plan); break;
    case CONDUCTOR_OPEN_ITERATION: check_open(w, effect); break;
    case CONDUCTOR_VERSIONS:
        for (size_t i = 0; i < effect->versions.n_keep; i++)
            if (!version_in_ledger(w, effect->versions.kind, effect->versions.keep[i]->number))
                sim_fail(w, "version %llu is announced, the ledger does not have it", ID(effect->versions.keep[i]->number));
        break;
    default: break;
    }
}

/* ---- journal, acknowledgements, manifests ---------------------------------------------------------------------- */

void sim_check_acknowledged(struct sim_world *w, uint64_t episode, const uint8_t digest[SHA256_SIZE])
{
    struct sim_check *check = w->check;

    check->acknowledged = realloc(check->acknowledged, (check->n_acknowledged + 1) * sizeof(*check->acknowledged));
    if (!check->acknowledged)
        abort();
    check->acknowledged[check->n_acknowledged].episode = episode;
    memcpy(check->acknowledged[check->n_acknowledged++].digest, digest, SHA256_SIZE);
    sim_check_journal(w);
}

/* Words of a simulated digest: episode, policy version, who played. */
static uint64_t digest_word(const uint8_t digest[SHA256_SIZE], size_t i)
{
    uint64_t word;

    memcpy(&word, digest + 8 * i, sizeof(word));
    return word;
}

static void check_record(struct sim_world *w, const struct sim_record *record)
{
    const struct ledger_episode *row = row_of(w, record->it.episode.episode);

    if (!row)
        sim_fail(w, "episode %llu is in the journal and not in the ledger", ID(record->it.episode.episode));
    else if (record->policy_version != row->policy_version || record->prm_version != row->prm_version ||
             digest_word(record->it.episode.digest, 1) != row->policy_version)
        sim_fail(w, "episode %llu was leased with policy %llu PRM %llu and journaled with %llu and %llu", ID(row->episode),
                 ID(row->policy_version), ID(row->prm_version), ID(record->policy_version), ID(record->prm_version));
}

void sim_check_journal(struct sim_world *w)
{
    const struct sim_check *check = w->check;

    for (size_t i = 0; i < w->journal.n; i++) {
        if (record_of(w, w->journal.items[i].it.episode.episode) != &w->journal.items[i])
            sim_fail(w, "episode %llu is in the journal twice", ID(w->journal.items[i].it.episode.episode));
        check_record(w, &w->journal.items[i]);
    }
    for (size_t i = 0; i < check->n_acknowledged && !w->lost_journal; i++) {
        const struct sim_record *record = record_of(w, check->acknowledged[i].episode);

        if (!record || memcmp(record->it.episode.digest, check->acknowledged[i].digest, SHA256_SIZE))
            sim_fail(w, "episode %llu was acknowledged and is lost", ID(check->acknowledged[i].episode));
    }
}

void sim_check_manifest(struct sim_world *w, const struct sim_version *version)
{
    for (size_t i = 0; i < version->n_consumed; i++) {
        uint64_t episode = version->consumed[i].episode;
        const struct sim_record *record = record_of(w, episode);

        if (!record || memcmp(record->it.episode.digest, version->consumed[i].digest, SHA256_SIZE))
            sim_fail(w, "version %llu consumed episode %llu, which the journal does not have so", ID(version->it.number),
                     ID(episode));
        for (size_t k = 0; k < w->versions.n; k++)
            for (size_t j = 0; &w->versions.items[k] != version && w->versions.items[k].it.kind == version->it.kind &&
                               j < w->versions.items[k].n_consumed;
                 j++)
                if (w->versions.items[k].consumed[j].episode == episode)
                    sim_fail(w, "episode %llu is trained into version %llu and into version %llu", ID(episode),
                             ID(w->versions.items[k].it.number), ID(version->it.number));
    }
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static const struct sim_version *consumer_of(const struct sim_world *w, uint64_t episode, const uint8_t **ret_digest)
{
    for (size_t k = 0; k < w->versions.n; k++)
        for (size_t j = 0; j < w->versions.items[k].n_consumed; j++)
            if (w->versions.items[k].consumed[j].episode == episode) {
                *ret_digest = w->versions.items[k].consumed[j].digest;
                return &w->versions.items[k];
            }
    return NULL;
}

static bool end_fits(const struct ledger_episode *row)
{
    switch (row->purpose) {
    case EPISODE_DEMO:
    case EPISODE_ROLLOUT: return row->state == EPISODE_KEPT || row->state == EPISODE_FAILED;
    case EPISODE_EVAL: return row->state == EPISODE_EVALUATED || row->state == EPISODE_FAILED;
    default:
        return row->state == EPISODE_TRAINED || row->state == EPISODE_FILTERED || row->state == EPISODE_STALE ||
               row->state == EPISODE_FAILED;
    }
}

static void check_row_at_end(struct sim_world *w, const struct ledger_episode *row)
{
    const struct sim_record *record = record_of(w, row->episode);
    const uint8_t *digest = NULL;
    bool consumed = consumer_of(w, row->episode, &digest) != NULL;

    if (w->finished && !end_fits(row))
        sim_fail(w, "the run has finished, episode %llu of purpose %u is in state %d", ID(row->episode), row->purpose,
                 (int)row->state);
    if ((row->state == EPISODE_TRAINED) != consumed && w->finished)
        sim_fail(w, "episode %llu: the ledger says %strained, the manifests %sconsumed", ID(row->episode),
                 row->state == EPISODE_TRAINED ? "" : "not ", consumed ? "" : "not ");
    if (row->state == EPISODE_TRAINED && consumed && memcmp(row->digest, digest, SHA256_SIZE))
        sim_fail(w, "episode %llu: the ledger and the manifest that consumed it name different trajectories", ID(row->episode));
    if (row->state != EPISODE_OPEN && row->state != EPISODE_FAILED && !w->lost_journal &&
        (!record || memcmp(record->it.episode.digest, row->digest, SHA256_SIZE)))
        sim_fail(w, "episode %llu: ledger and journal name different trajectories", ID(row->episode));
}

static void check_versions_at_end(struct sim_world *w)
{
    for (size_t i = 0; i < w->versions.n; i++) {
        const struct sim_version *version = &w->versions.items[i];

        if (w->finished && !version_in_ledger(w, version->it.kind ? KIND_PRM : KIND_POLICY, version->it.number))
            sim_fail(w, "version %llu is on disk and not in the ledger", ID(version->it.number));
        if (version->it.kind == 0 && version->it.number && version->it.parent != version->it.number - 1)
            sim_fail(w, "policy version %llu has parent %llu", ID(version->it.number), ID(version->it.parent));
    }
}

/* The checker that `gantry history` runs over a real run directory must find this one in order, too. */
static void check_with_shipped_checker(struct sim_world *w)
{
    _cleanup_free_ struct history_record *records = calloc(w->journal.n + 1, sizeof(*records));
    _cleanup_free_ struct history_version *versions = calloc(w->versions.n + 1, sizeof(*versions));
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct history history = {
        .events = w->check->events,
        .n_events = w->check->n_events,
        .records = records,
        .n_records = w->journal.n,
        .versions = versions,
        .n_versions = w->versions.n,
        .complete = w->finished,
    };
    struct history_result result;

    if (!records || !versions)
        abort();
    for (size_t i = 0; i < w->journal.n; i++) {
        records[i].episode = w->journal.items[i].it.episode.episode;
        memcpy(records[i].digest, w->journal.items[i].it.episode.digest, SHA256_SIZE);
    }
    for (size_t i = 0; i < w->versions.n; i++)
        versions[i] = (struct history_version){
            .kind = w->versions.items[i].it.kind,
            .number = w->versions.items[i].it.number,
            .parent = w->versions.items[i].it.parent,
            .consumed = w->versions.items[i].consumed,
            .n_consumed = w->versions.items[i].n_consumed,
            .in_ledger =
                version_in_ledger(w, w->versions.items[i].it.kind ? KIND_PRM : KIND_POLICY, w->versions.items[i].it.number),
        };
    if (history_check(&history, &text, &result) < 0)
        abort();
    if (result.violations)
        sim_fail(w, "the shipped checker: %.*s", (int)strcspn(text.text, "\n"), text.text);
}

void sim_check_end(struct sim_world *w)
{
    if (!w->lost_journal)
        check_with_shipped_checker(w);
    sim_check_journal(w);
    for (size_t i = 0; i < w->ledger.n_episodes; i++)
        check_row_at_end(w, &w->ledger.episodes[i]);
    check_versions_at_end(w);
    if (w->stopped && !w->options.poison)
        sim_fail(w, "the run was stopped, though nothing in it can fail");
}

/* What was decided: rows with their terms and ends, versions with what they consumed; not who played, not when. */
uint64_t sim_check_story(const struct sim_world *w)
{
    uint64_t story = w->ledger.n_episodes;

    for (size_t i = 0; i < w->ledger.n_episodes; i++) {
        const struct ledger_episode *row = &w->ledger.episodes[i];

        story = sim_hash(story, row->episode);
        story = sim_hash(story, (uint64_t)row->stage << 32 | row->iteration);
        story = sim_hash(story, row->state_seed << 8 | row->purpose << 4 | row->split);
        story = sim_hash(story, (uint64_t)row->task[0] << 32 | (uint64_t)(row->temperature * 100));
        story = sim_hash(story, row->policy_version << 32 | row->prm_version);
        story = sim_hash(story, row->sample_key ^ row->search_n);
        story = sim_hash(story, (uint64_t)row->state << 1 | row->success);
    }
    for (size_t i = 0; i < w->versions.n; i++) {
        story = sim_hash(story, w->versions.items[i].it.number << 1 | (uint64_t)w->versions.items[i].it.kind);
        for (size_t k = 0; k < w->versions.items[i].n_consumed; k++)
            story = sim_hash(story, w->versions.items[i].consumed[k].episode);
    }
    return story;
}
