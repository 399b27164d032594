/* sim_learner.c - learner rank 0's edge in miniature: a journal that is synced now and then, a trainer that takes its time. */
#include <errno.h>
#include <string.h>

#include "tests/sim/sim_check.h"

static struct sim_learner *learner_of(struct sim_world *w)
{
    return &w->nodes[SIM_LEARNER].learner;
}

static void step(struct sim_world *w, const struct intake_event *event);

/* ---- start and stop ------------------------------------------------------------------------------------- */

static void make_version_0(struct sim_world *w)
{
    if (w->versions.n)
        return;
    w->versions.items = calloc(1, sizeof(*w->versions.items));
    if (!w->versions.items)
        abort();
    sim_digest(0, 0, 99, w->versions.items[0].it.digest);
    w->versions.n = 1;
}

void sim_learner_start(struct sim_world *w)
{
    struct sim_learner *l = learner_of(w);
    struct intake_record *records = calloc(w->journal.n + 1, sizeof(*records));
    struct intake_version *versions;

    make_version_0(w);
    versions = calloc(w->versions.n, sizeof(*versions));
    if (!records || !versions)
        abort();
    for (size_t i = 0; i < w->journal.n; i++) {
        if (w->options.bug != SIM_BUG_OPEN_UNSYNCED)
            w->journal.items[i].synced = true;  /* opening a journal syncs what it keeps */
        records[i] = w->journal.items[i].it;
    }
    for (size_t i = 0; i < w->versions.n; i++)
        versions[i] = w->versions.items[i].it;
    *l = (struct sim_learner) { 0 };
    if (intake_new(&l->intake) < 0 || intake_restore(l->intake, records, w->journal.n, versions, w->versions.n) < 0)
        abort();
    intake_set_bug(l->intake, w->options.intake_bug);
    free(records);
    free(versions);
}

/* Of what was written and not synced the disk keeps some first part; the rest is a torn tail. */
static void lose_unsynced(struct sim_world *w)
{
    size_t synced = 0, keep;

    while (synced < w->journal.n && w->journal.items[synced].synced)
        synced++;
    keep = w->options.faults ? sim_below(w, w->journal.n - synced + 1) : w->journal.n - synced;
    w->journal.n = synced + keep;
    if (!w->options.disk_loss || !sim_chance(w, 400))
        return;
    w->journal.n = sim_below(w, w->journal.n + 1);
    w->lost_journal = true;
    sim_trace(w, "the journal's disk is lost, %zu records come back", w->journal.n);
}

void sim_learner_stop(struct sim_world *w)
{
    struct sim_learner *l = learner_of(w);

    l->intake = intake_free(l->intake);
    intake_effects_release(&l->effects);
    free(l->payloads);
    free(l->unsynced);
    free(l->sealed);
    free((void *)l->plan.episodes);
    *l = (struct sim_learner) { 0 };
    lose_unsynced(w);
    sim_check_journal(w);
}

/* ---- the journal ------------------------------------------------------------------------------------------ */

static void push(struct sim_pending **list, size_t *n, const struct sim_pending *item)
{
    *list = realloc(*list, (*n + 1) * sizeof(**list));
    if (!*list)
        abort();
    (*list)[(*n)++] = *item;
}

static bool take_payload(struct sim_learner *l, uint64_t token, struct sim_pending *ret)
{
    for (size_t i = 0; i < l->n_payloads; i++)
        if (l->payloads[i].token == token) {
            *ret = l->payloads[i];
            l->payloads[i] = l->payloads[--l->n_payloads];
            return true;
        }
    return false;
}

static void seal(struct sim_learner *l, const struct intake_effect *effect)
{
    l->sealed = realloc(l->sealed, (l->n_sealed + 1) * sizeof(*l->sealed));
    if (!l->sealed)
        abort();
    l->sealed[l->n_sealed++] = (uint64_t)effect->segment.stage << 32 | effect->segment.iteration;
}

static void check_not_sealed(struct sim_world *w, uint32_t stage, uint32_t iteration)
{
    const struct sim_learner *l = learner_of(w);

    for (size_t i = 0; i < l->n_sealed; i++)
        if (l->sealed[i] == ((uint64_t)stage << 32 | iteration))
            sim_fail(w, "the sealed segment of %u/%u is appended to", stage, iteration);
}

static void append(struct sim_world *w, const struct intake_effect *effect)
{
    struct sim_learner *l = learner_of(w);
    struct sim_journal *journal = &w->journal;
    struct sim_pending payload;

    if (!take_payload(l, effect->append.token, &payload)) {
        sim_fail(w, "append of token %llu, which nobody holds", (unsigned long long)effect->append.token);
        return;
    }
    check_not_sealed(w, effect->append.stage, effect->append.iteration);
    if (journal->n == journal->capacity) {
        journal->capacity = journal->capacity ? 2 * journal->capacity : 64;
        journal->items = realloc(journal->items, journal->capacity * sizeof(*journal->items));
        if (!journal->items)
            abort();
    }
    journal->items[journal->n++] = (struct sim_record) {
        .it = { .stage = effect->append.stage, .iteration = effect->append.iteration, .episode = payload.journaled },
        .policy_version = payload.policy_version, .prm_version = payload.prm_version,
    };
    push(&l->unsynced, &l->n_unsynced, &payload);
    if (!l->syncing) {
        l->syncing = true;
        sim_schedule(w, 1 + sim_below(w, 20), SIM_EVENT_SYNC, SIM_LEARNER);
    }
}

void sim_learner_synced(struct sim_world *w)
{
    struct sim_learner *l = learner_of(w);
    struct sim_pending *covered = l->unsynced;
    size_t n = l->n_unsynced;
    uint32_t life = w->nodes[SIM_LEARNER].life;
    bool failed = sim_chance(w, 10);

    if (sim_crash_point(w, SIM_LEARNER))
        return;
    l->unsynced = NULL;
    l->n_unsynced = 0;
    l->syncing = false;
    if (failed)
        w->journal.n -= n;              /* nothing since the last good sync is in it any more */
    else if (w->options.bug != SIM_BUG_NO_FSYNC)
        for (size_t i = 0; i < w->journal.n; i++)
            w->journal.items[i].synced = true;
    for (size_t i = 0; i < n && w->nodes[SIM_LEARNER].alive && w->nodes[SIM_LEARNER].life == life; i++)
        step(w, &(struct intake_event){
                    .kind = INTAKE_APPENDED,
                    .appended = {.episode = covered[i].episode, .token = covered[i].token, .result = failed ? -EIO : 0},
                });
    free(covered);
}

/* ---- training ----------------------------------------------------------------------------------------------- */

static void start_training(struct sim_world *w, const struct intake_plan *plan)
{
    struct sim_learner *l = learner_of(w);
    uint64_t *episodes = calloc(plan->n_episodes + 1, sizeof(*episodes));

    if (!episodes)
        abort();
    if (plan->n_episodes)
        memcpy(episodes, plan->episodes, plan->n_episodes * sizeof(*episodes));
    free((void *)l->plan.episodes);
    l->plan = *plan;
    l->plan.episodes = episodes;
    sim_schedule(w, 50 + sim_below(w, 400), SIM_EVENT_TRAINED, SIM_LEARNER);
}

static const struct sim_record *record_of(const struct sim_world *w, uint64_t episode)
{
    for (size_t i = 0; i < w->journal.n; i++)
        if (w->journal.items[i].it.episode.episode == episode)
            return &w->journal.items[i];
    return NULL;
}

static struct sim_version *version_on_disk(struct sim_world *w, int kind, uint64_t number)
{
    for (size_t i = 0; i < w->versions.n; i++)
        if (w->versions.items[i].it.kind == kind && w->versions.items[i].it.number == number)
            return &w->versions.items[i];
    return NULL;
}

/* Build the directory and rename it into place; who comes second loads what is there. */
static const struct sim_version *commit_version(struct sim_world *w, const struct intake_plan *plan)
{
    struct sim_version *there = version_on_disk(w, plan->kind, plan->version);
    struct sim_version version = {
        .it = {.kind = plan->kind,
               .number = plan->version,
               .parent = plan->parent,
               .stage = plan->stage,
               .iteration = plan->iteration},
        .gate_passed = plan->kind == 0 || plan->version % 2 == 1, /* every other reward model is a bad one */
    };

    if (there)
        return there;
    memcpy(version.it.plan_digest, plan->digest, SHA256_SIZE);
    sim_digest((uint64_t)plan->kind, plan->version, plan->digest[0], version.it.digest);
    version.outcomes = calloc(plan->n_episodes + 1, sizeof(*version.outcomes));
    version.consumed = calloc(plan->n_episodes + 1, sizeof(*version.consumed));
    if (!version.outcomes || !version.consumed)
        abort();
    for (size_t i = 0; i < plan->n_episodes; i++) {
        const struct sim_record *record = record_of(w, plan->episodes[i]);
        bool filtered = plan->episodes[i] % 7 == 3;

        version.outcomes[version.n_outcomes++] =
            (struct sim_outcome){plan->episodes[i], filtered ? EPISODE_FILTERED : EPISODE_TRAINED};
        if (filtered)
            continue;
        version.consumed[version.n_consumed].episode = plan->episodes[i];
        if (record)
            memcpy(version.consumed[version.n_consumed].digest, record->it.episode.digest, SHA256_SIZE);
        version.n_consumed++;
    }
    w->versions.items = realloc(w->versions.items, (w->versions.n + 1) * sizeof(*w->versions.items));
    if (!w->versions.items)
        abort();
    there = &w->versions.items[w->versions.n++];
    *there = version;
    sim_check_manifest(w, there);
    return there;
}

void sim_learner_trained(struct sim_world *w)
{
    struct sim_learner *l = learner_of(w);
    const struct sim_version *version;

    if (sim_crash_point(w, SIM_LEARNER))
        return;
    if (sim_chance(w, 30)) {
        step(w, &(struct intake_event) { .kind = INTAKE_TRAINED, .trained = { .result = -ENOSPC, .text = "no space" } });
        return;
    }
    version = commit_version(w, &l->plan);
    if (w->failure[0] || sim_crash_point(w, SIM_LEARNER))       /* renamed, nobody told */
        return;
    step(w, &(struct intake_event) { .kind = INTAKE_TRAINED, .trained = { .version = version->it } });
}

/* ---- effects out ---------------------------------------------------------------------------------------------- */

static void send_inventory(struct sim_world *w, const struct intake_effect *effect)
{
    const struct sim_node *n = &w->nodes[SIM_LEARNER];
    struct sim_message m = {
        .kind = SIM_INVENTORY,
        .from = SIM_LEARNER,
        .to = SIM_COORDINATOR,
        .request = ++w->last_request,
        .epoch = n->epoch,
        .member = n->member,
        .stage = effect->inventory.stage,
        .iteration = effect->inventory.iteration,
        .rows = effect->inventory.rows,
        .version = effect->inventory.policy_version,
        .prm_version = effect->inventory.prm_version,
    };

    memcpy(m.digest, effect->inventory.policy_digest, SHA256_SIZE);
    memcpy(m.digest2, effect->inventory.plan_digest, SHA256_SIZE);
    sim_send(w, &m, effect->inventory.episodes, effect->inventory.n, sizeof(struct journaled_episode));
}

static void send_journaled(struct sim_world *w, const struct intake_effect *effect)
{
    struct sim_node *n = &w->nodes[SIM_LEARNER];
    struct sim_message m = {
        .kind = SIM_JOURNALED,
        .from = SIM_LEARNER,
        .to = SIM_COORDINATOR,
        .request = ++w->last_request,
        .epoch = n->epoch,
        .member = n->member,
    };

    n->journaled_request = m.request;
    n->journaled_sequence = effect->journaled.sequence;
    sim_send(w, &m, effect->journaled.episodes, effect->journaled.n, sizeof(struct journaled_episode));
}

static void send_committed(struct sim_world *w, const struct intake_effect *effect)
{
    struct sim_node *n = &w->nodes[SIM_LEARNER];
    const struct sim_version *version = version_on_disk(w, effect->committed.kind, effect->committed.number);
    struct sim_message m = {
        .kind = SIM_COMMITTED,
        .from = SIM_LEARNER,
        .to = SIM_COORDINATOR,
        .request = ++w->last_request,
        .epoch = n->epoch,
        .member = n->member,
        .committed = effect->committed,
        .flag = version && version->gate_passed,
    };

    n->committed_request = m.request;
    n->committed_kind = effect->committed.kind;
    n->committed_number = effect->committed.number;
    sim_send(w, &m, version ? version->outcomes : NULL, version ? version->n_outcomes : 0, sizeof(struct sim_outcome));
}

static void send_reply(struct sim_world *w, const struct intake_effect *effect)
{
    struct sim_message m = {
        .kind = SIM_DELIVER_REPLY,
        .from = SIM_LEARNER,
        .to = (uint32_t)(effect->to & 0xffff),
        .to_life = (uint32_t)(effect->to >> 16),
        .request = effect->request,
        .episode = effect->reply.episode,
        .status = effect->kind == INTAKE_BUSY ? PLAYER_NO_ANSWER : PLAYER_OK,
        .kind_of_version = (int)effect->reply.verdict,
    };

    if (effect->kind == INTAKE_REPLY)
        memcpy(m.digest, effect->reply.digest, SHA256_SIZE);
    sim_send(w, &m, NULL, 0, 0);
}

static void step(struct sim_world *w, const struct intake_event *event)
{
    struct sim_learner *l = learner_of(w);
    struct sim_pending dropped;

    if (intake_step(l->intake, event, w->now_ms, &l->effects) < 0)
        abort();
    for (size_t i = 0; i < l->effects.n; i++) {
        const struct intake_effect *effect = &l->effects.items[i];

        switch (effect->kind) {
        case INTAKE_APPEND: append(w, effect); break;
        case INTAKE_RELEASE: (void)take_payload(l, effect->append.token, &dropped); break;
        case INTAKE_REPLY:
        case INTAKE_BUSY: send_reply(w, effect); break;
        case INTAKE_SEND_JOURNALED: send_journaled(w, effect); break;
        case INTAKE_SEND_INVENTORY: send_inventory(w, effect); break;
        case INTAKE_SEND_COMMITTED: send_committed(w, effect); break;
        case INTAKE_TRAIN:
            if (event->epoch < w->nodes[SIM_LEARNER].epoch)
                sim_fail(w, "a plan of epoch %llu is carried out under epoch %llu", (unsigned long long)event->epoch,
                         (unsigned long long)w->nodes[SIM_LEARNER].epoch);
            start_training(w, &effect->plan);
            break;
        case INTAKE_SEAL: seal(l, effect); break;
        case INTAKE_SEGMENT: break;
        }
        if (sim_crash_point(w, SIM_LEARNER))
            return;
    }
}

/* ---- events in --------------------------------------------------------------------------------------------------- */

static void on_open(struct sim_world *w, const struct sim_message *m)
{
    uint64_t *episodes = calloc(m->n + 1, sizeof(*episodes)), *failed = calloc(m->n + 1, sizeof(*failed));
    size_t n_failed = 0;

    if (!episodes || !failed)
        abort();
    for (size_t i = 0; i < m->n; i++) {
        episodes[i] = ((const uint64_t *)m->list)[i] & ~SIM_FAILED;
        if (((const uint64_t *)m->list)[i] & SIM_FAILED)
            failed[n_failed++] = episodes[i];
    }
    step(w, &(struct intake_event){
                .kind = INTAKE_OPEN,
                .epoch = m->epoch,
                .open = {.stage = m->stage,
                         .iteration = m->iteration,
                         .episodes = episodes,
                         .n_episodes = m->n,
                         .failed = failed,
                         .n_failed = n_failed,
                         .policy_version = m->version,
                         .prm_version = m->prm_version,
                         .trained_on = m->flag},
            });
    free(episodes);
    free(failed);
}

static void on_deliver(struct sim_world *w, const struct sim_message *m)
{
    struct sim_learner *l = learner_of(w);
    struct sim_pending payload = {
        .token = ++l->last_token,
        .episode = m->episode,
        .journaled = m->journaled,
        .policy_version = m->version,
        .prm_version = m->prm_version,
    };

    push(&l->payloads, &l->n_payloads, &payload);
    step(w, &(struct intake_event) {
        .kind = INTAKE_DELIVER, .from = (uint64_t)m->from_life << 16 | m->from, .request = m->request,
        .deliver = { .token = payload.token, .policy_version = m->version, .episode = m->journaled, .valid = true },
    });
}

static void on_plan(struct sim_world *w, const struct sim_message *m)
{
    struct intake_event event = { .kind = INTAKE_PLAN, .epoch = m->epoch, .plan = m->plan };

    event.plan.episodes = m->list;
    event.plan.n_episodes = m->n;
    step(w, &event);
}

static void on_ack(struct sim_world *w, const struct sim_message *m)
{
    struct sim_node *n = &w->nodes[SIM_LEARNER];

    if (m->request == n->journaled_request)
        step(w, &(struct intake_event) { .kind = INTAKE_JOURNALED_ACK, .journaled_ack = { .sequence = n->journaled_sequence } });
    else if (m->request == n->committed_request)
        step(w, &(struct intake_event){.kind = INTAKE_COMMITTED_ACK, .committed_ack = {n->committed_kind, n->committed_number}});
}

void sim_learner_message(struct sim_world *w, const struct sim_message *m)
{
    struct sim_node *n = &w->nodes[SIM_LEARNER];

    if (sim_crash_point(w, SIM_LEARNER))
        return;
    switch (m->kind) {
    case SIM_WELCOME:
        if (m->epoch < n->epoch)
            break;
        n->epoch = m->epoch;
        n->member = m->member;
        step(w, &(struct intake_event) { .kind = INTAKE_WELCOME, .epoch = m->epoch });
        break;
    case SIM_HEARTBEAT_REPLY:
        if (!m->flag)
            n->epoch = 0;
        break;
    case SIM_REFUSE:
        if (m->status == REFUSE_STALE)
            n->epoch = 0;
        break;
    case SIM_OPEN: on_open(w, m); break;
    case SIM_PLAN: on_plan(w, m); break;
    case SIM_DELIVER: on_deliver(w, m); break;
    case SIM_ACK: on_ack(w, m); break;
    case SIM_WEIGHTS: sim_pull_answer(w, m); break;
    default: break;
    }
}

void sim_learner_tick(struct sim_world *w)
{
    struct sim_node *n = &w->nodes[SIM_LEARNER];
    struct sim_message m = {
        .kind = SIM_HEARTBEAT, .from = SIM_LEARNER, .to = SIM_COORDINATOR, .epoch = n->epoch, .member = n->member};

    if (sim_crash_point(w, SIM_LEARNER))
        return;
    if (!n->epoch && w->now_ms - n->hello_ms >= 500) {
        sim_hello(w, SIM_LEARNER, NULL, 0);
    } else if (n->epoch && w->now_ms - n->beat_ms >= 500) {
        n->beat_ms = w->now_ms;
        m.request = ++w->last_request;
        sim_send(w, &m, NULL, 0, 0);
    }
    step(w, &(struct intake_event) { .kind = INTAKE_TICK });
}
