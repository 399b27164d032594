/* sim_coordinator.c - the coordinator's edge in miniature: messages to events, effects to ledger and messages. */
#include <string.h>

#include "tests/sim/sim_check.h"

static const char *const settings[] = { "demos", "sft", "rollouts", "prm", "rl", "eval" };

/* ---- the ledger: a transaction is all or nothing ------------------------------------------------------- */

static void *grow(void *items, size_t n, size_t size)
{
    if (n & (n - 1))                    /* room for powers of two: only then more is needed */
        return items;
    items = realloc(items, MAX(2 * n, (size_t)1) * size);
    if (!items)
        abort();
    return items;
}

static struct ledger_episode *ledger_row(struct sim_ledger *ledger, uint64_t episode)
{
    for (size_t i = ledger->n_episodes; i-- > 0;)
        if (ledger->episodes[i].episode == episode)
            return &ledger->episodes[i];
    return NULL;
}

static void put_stage(struct sim_ledger *ledger, const struct ledger_stage *stage)
{
    for (size_t i = 0; i < ledger->n_stages; i++)
        if (ledger->stages[i].stage == stage->stage) {
            ledger->stages[i] = *stage;
            return;
        }
    ledger->stages = grow(ledger->stages, ledger->n_stages, sizeof(*stage));
    ledger->stages[ledger->n_stages++] = *stage;
}

static void put_iteration(struct sim_ledger *ledger, const struct ledger_iteration *iteration)
{
    for (size_t i = 0; i < ledger->n_iterations; i++)
        if (ledger->iterations[i].stage == iteration->stage && ledger->iterations[i].iteration == iteration->iteration) {
            ledger->iterations[i] = *iteration;
            return;
        }
    ledger->iterations = grow(ledger->iterations, ledger->n_iterations, sizeof(*iteration));
    ledger->iterations[ledger->n_iterations++] = *iteration;
}

static void put_blob(struct sim_ledger *ledger, const void *bytes, size_t n)
{
    free(ledger->memory);
    ledger->memory = malloc(n + 1);
    if (!ledger->memory)
        abort();
    memcpy(ledger->memory, bytes, n);
    ledger->memory_size = n;
}

static void apply(struct sim_world *w, const struct conductor_effect *effect)
{
    struct sim_ledger *ledger = &w->ledger;
    struct ledger_episode *row;

    switch (effect->kind) {
    case CONDUCTOR_PUT_STAGE: put_stage(ledger, &effect->stage); break;
    case CONDUCTOR_PUT_ITERATION: put_iteration(ledger, &effect->iteration); break;
    case CONDUCTOR_ADD_EPISODE:
        ledger->episodes = grow(ledger->episodes, ledger->n_episodes, sizeof(*ledger->episodes));
        ledger->episodes[ledger->n_episodes++] = effect->episode;
        break;
    case CONDUCTOR_EPISODE_JOURNALED:
    case CONDUCTOR_EPISODE_ENDED:
    case CONDUCTOR_EPISODE_FAILURE:
    case CONDUCTOR_EPISODE_REOPENED:
        row = ledger_row(ledger, effect->episode.episode);
        if (row)
            *row = effect->episode;
        break;
    case CONDUCTOR_ADD_VERSION:
        ledger->versions = grow(ledger->versions, ledger->n_versions, sizeof(*ledger->versions));
        ledger->versions[ledger->n_versions] = effect->version;
        ledger->versions[ledger->n_versions++].metrics = NULL;
        break;
    case CONDUCTOR_PUT_BLOB: put_blob(ledger, effect->blob.bytes, effect->blob.n); break;
    case CONDUCTOR_PUT_GROUP_EPOCH: ledger->group_epoch = effect->group_epoch; break;
    case CONDUCTOR_ADD_EVENT:
        sim_trace(w, "  note: %s %llu %s", effect->text.kind, (unsigned long long)effect->text.episode, effect->text.text);
        break;
    default: break;
    }
}

void sim_ledger_release(struct sim_ledger *ledger)
{
    free(ledger->stages);
    free(ledger->iterations);
    free(ledger->episodes);
    free(ledger->versions);
    free(ledger->memory);
    *ledger = (struct sim_ledger) { 0 };
}

/* ---- effects out ------------------------------------------------------------------------------------------ */

/* Connection, process, node: as a ROUTER knows peers, each connection is another one. */
static uint64_t address_of(const struct sim_message *m)
{
    return (uint64_t)m->connection << 40 | (uint64_t)m->from_life << 16 | (m->from + 1);
}

static void send_grant(struct sim_world *w, struct sim_message *m, const struct conductor_effect *effect)
{
    m->kind = SIM_GRANT;
    m->rows = effect->grant.retry_ms;
    m->drain = effect->grant.drain;
    sim_send(w, m, effect->grant.leases, effect->grant.n_leases, sizeof(struct lease_terms));
}

static void send_plan(struct sim_world *w, struct sim_message *m, const struct conductor_plan *plan)
{
    m->kind = SIM_PLAN;
    m->plan = (struct intake_plan){
        .stage = plan->stage,
        .iteration = plan->iteration,
        .kind = (int)plan->kind,
        .parent = plan->parent,
        .version = plan->version,
        .group_epoch = plan->group_epoch,
    };
    memcpy(m->plan.digest, plan->digest, SHA256_SIZE);
    sim_send(w, m, plan->episodes, plan->n_episodes, sizeof(uint64_t));
}

static void send_versions(struct sim_world *w, struct sim_message *m, const struct conductor_effect *effect)
{
    struct holder_listed listed[MEMBER_VERSIONS];

    for (size_t i = 0; i < effect->versions.n_keep; i++) {
        listed[i] = (struct holder_listed) { .version = effect->versions.keep[i]->number, .dir = "" };
        memcpy(listed[i].digest, effect->versions.keep[i]->digest, SHA256_SIZE);
    }
    m->kind = SIM_VERSIONS;
    sim_send(w, m, listed, effect->versions.n_keep, sizeof(*listed));
}

static void send_open(struct sim_world *w, struct sim_message *m, const struct conductor_effect *effect)
{
    uint64_t *list = calloc(effect->open.n_episodes + 1, sizeof(*list));

    if (!list)
        abort();
    m->kind = SIM_OPEN;
    m->stage = effect->open.stage;
    m->iteration = effect->open.iteration;
    m->version = effect->open.policy_version;
    m->prm_version = effect->open.prm_version;
    m->flag = effect->open.purpose == EPISODE_TRAIN;
    for (size_t i = 0; i < effect->open.n_episodes; i++) {
        list[i] = effect->open.episodes[i];
        for (size_t k = 0; k < effect->open.n_failed; k++)
            if (effect->open.failed[k] == effect->open.episodes[i])
                list[i] |= SIM_FAILED;
    }
    sim_send(w, m, list, effect->open.n_episodes, sizeof(uint64_t));
    free(list);
}

static void say(struct sim_world *w, const struct conductor_effect *effect)
{
    struct sim_message m = {
        .from = SIM_COORDINATOR, .to = (uint32_t)(effect->to & 0xffff) - 1, .to_life = (uint32_t)(effect->to >> 16 & 0xffffff),
        .request = effect->request, .member = effect->member, .epoch = w->ledger.epoch,
    };

    if (effect->to == UINT64_MAX || !effect->to)
        return;                         /* the admin's */
    if (effect->to >> 40 != w->connection[m.to]) {
        sim_trace(w, "  lost: said to %u over a connection that is no more", m.to);
        return;
    }
    switch (effect->kind) {
    case CONDUCTOR_WELCOME:
        m.kind = SIM_WELCOME;
        sim_send(w, &m, effect->welcome.kept, effect->welcome.n_kept, sizeof(uint64_t));
        break;
    case CONDUCTOR_HEARTBEAT_REPLY:
        m.kind = SIM_HEARTBEAT_REPLY;
        m.flag = effect->heartbeat.known;
        m.drain = effect->heartbeat.drain;
        sim_send(w, &m, effect->heartbeat.revoked, effect->heartbeat.n_revoked, sizeof(uint64_t));
        break;
    case CONDUCTOR_GRANT: send_grant(w, &m, effect); break;
    case CONDUCTOR_ACK:
        m.kind = SIM_ACK;
        sim_send(w, &m, NULL, 0, 0);
        break;
    case CONDUCTOR_REFUSE:
        m.kind = SIM_REFUSE;
        m.status = (int)effect->refuse.why;
        sim_send(w, &m, NULL, 0, 0);
        break;
    case CONDUCTOR_OPEN_ITERATION: send_open(w, &m, effect); break;
    case CONDUCTOR_PLAN: send_plan(w, &m, &effect->plan); break;
    case CONDUCTOR_VERSIONS: send_versions(w, &m, effect); break;
    default: break;
    }
}

/* Commit, then send. A crash point before, between and after each: what is committed stays, what is not is gone. */
static bool commit(struct sim_world *w, const struct conductor_event *event)
{
    struct conductor_effects *out = &w->effects;

    for (size_t i = 0; i < out->n && out->items[i].kind <= CONDUCTOR_LAST_LEDGER; i++) {
        if (w->options.bug == SIM_BUG_COMMIT_IN_PARTS && i > 0 && sim_crash_point(w, SIM_COORDINATOR))
            return false;
        sim_check_commit(w, &out->items[i], event);
        apply(w, &out->items[i]);
    }
    return !w->failure[0];
}

static bool send_all(struct sim_world *w)
{
    struct conductor_effects *out = &w->effects;

    for (size_t i = 0; i < out->n; i++) {
        if (out->items[i].kind <= CONDUCTOR_LAST_LEDGER)
            continue;
        sim_check_send(w, &out->items[i]);
        if (out->items[i].kind == CONDUCTOR_FINISHED)
            w->finished = true;
        else if (out->items[i].kind == CONDUCTOR_STOPPED)
            w->stopped = true;
        else if (out->items[i].kind == CONDUCTOR_DRAINED)
            w->drained = true;
        else
            say(w, &out->items[i]);
        if (sim_crash_point(w, SIM_COORDINATOR))
            return false;
    }
    return true;
}

static void step(struct sim_world *w, const struct conductor_event *event)
{
    struct conductor_effects *out = &w->effects;

    sim_check_leases_before(w);
    if (conductor_step(w->conductor, event, w->now_ms, out) < 0)
        abort();
    sim_check_leases_after(w, event);
    if (w->options.bug == SIM_BUG_SEND_BEFORE_COMMIT) {
        if (send_all(w))
            (void)commit(w, event);
        return;
    }
    if (sim_crash_point(w, SIM_COORDINATOR) || !commit(w, event) || sim_crash_point(w, SIM_COORDINATOR))
        return;
    if (!send_all(w) || !w->drained)
        return;
    w->drained = false;
    sim_crash(w, SIM_COORDINATOR, false);       /* it ends by itself; somebody starts it again */
}

/* ---- start and stop ----------------------------------------------------------------------------------------- */

void sim_coordinator_start(struct sim_world *w)
{
    struct sim_ledger *ledger = &w->ledger;
    struct conductor_setup setup = {
        .config = &w->config, .stage_settings = settings, .run = 1, .epoch = ++ledger->epoch, .group_epoch = ledger->group_epoch,
    };
    struct conductor_restored restored = {
        .stages = ledger->stages,
        .n_stages = ledger->n_stages,
        .iterations = ledger->iterations,
        .n_iterations = ledger->n_iterations,
        .episodes = ledger->episodes,
        .n_episodes = ledger->n_episodes,
        .versions = ledger->versions,
        .n_versions = ledger->n_versions,
        .memory = ledger->memory,
        .memory_size = ledger->memory_size,
    };
    struct error error = { 0 };

    if (conductor_new(&setup, &w->conductor) < 0)
        abort();
    conductor_set_bug(w->conductor, w->options.conductor_bug);
    if (conductor_restore(w->conductor, &restored, w->now_ms, &error) < 0)
        sim_fail(w, "restore: %s", error.text);
}

void sim_coordinator_stop(struct sim_world *w)
{
    w->conductor = conductor_free(w->conductor);
}

/* ---- events in ------------------------------------------------------------------------------------------------ */

static void fill_hello(const struct sim_message *m, struct conductor_event *event)
{
    struct member *member = &event->hello.member;

    member->role = sim_is_worker(m->from)   ? MEMBER_WORKER
                   : m->from == SIM_LEARNER ? MEMBER_LEARNER
                   : m->from == SIM_PRM     ? MEMBER_PRM
                                            : MEMBER_ACTOR;
    member->instance = sim_hash(m->from, m->from_life);
    member->slots = sim_is_worker(m->from) ? SIM_SLOTS : 0;
    member->pid = m->from_life << 8 | m->from;
    snprintf(member->host, sizeof(member->host), "host");
    if (!sim_is_worker(m->from))
        snprintf(member->address, sizeof(member->address), "ipc:///run/%u", m->from);
    event->hello.leases = m->list;
    event->hello.n_leases = m->n;
}

static void fill_inventory(const struct sim_message *m, struct conductor_event *event)
{
    event->inventory.stage = m->stage;
    event->inventory.iteration = m->iteration;
    event->inventory.rows = m->rows;
    event->inventory.episodes = m->list;
    event->inventory.n_episodes = m->n;
    event->inventory.policy_version = m->version;
    event->inventory.prm_version = m->prm_version;
    memcpy(event->inventory.policy_digest, m->digest, SHA256_SIZE);
    memcpy(event->inventory.plan_digest, m->digest2, SHA256_SIZE);
}

static void take_committed(struct sim_world *w, const struct sim_message *m, struct conductor_event *event)
{
    const struct sim_outcome *outcomes = m->list;
    uint64_t *trained = calloc(m->n + 1, sizeof(*trained)), *filtered = calloc(m->n + 1, sizeof(*filtered));

    if (!trained || !filtered)
        abort();
    event->kind = CONDUCTOR_COMMITTED;
    event->committed.version = (struct ledger_version) {
        .kind = m->committed.kind, .number = m->committed.number, .parent = m->committed.parent, .gate_passed = m->flag,
    };
    memcpy(event->committed.version.digest, m->committed.digest, SHA256_SIZE);
    memcpy(event->committed.plan_digest, m->committed.plan_digest, SHA256_SIZE);
    for (size_t i = 0; i < m->n; i++)
        if (outcomes[i].end == EPISODE_TRAINED)
            trained[event->committed.n_trained++] = outcomes[i].episode;
        else
            filtered[event->committed.n_filtered++] = outcomes[i].episode;
    event->committed.trained = trained;
    event->committed.filtered = filtered;
    step(w, event);
    free(trained);
    free(filtered);
}

void sim_coordinator_message(struct sim_world *w, const struct sim_message *m)
{
    struct conductor_event event = {
        .from = address_of(m), .request = m->request, .wall_ms = 0, .epoch = m->epoch, .member = m->member,
    };

    if (sim_crash_point(w, SIM_COORDINATOR))
        return;
    switch (m->kind) {
    case SIM_HELLO:
        event.kind = CONDUCTOR_HELLO;
        fill_hello(m, &event);
        break;
    case SIM_HEARTBEAT:
        event.kind = CONDUCTOR_HEARTBEAT;
        event.heartbeat.leases = m->list;
        event.heartbeat.n_leases = m->n;
        break;
    case SIM_LEASE_REQUEST:
        event.kind = CONDUCTOR_LEASE_REQUEST;
        event.lease_request.slots = m->rows;
        break;
    case SIM_LEASE_RETURN:
        event.kind = CONDUCTOR_LEASE_RETURN;
        event.lease_return.episode = m->episode;
        event.lease_return.fence = m->fence;
        event.lease_return.reason = m->flag ? LEASE_SIMULATOR_ERROR : LEASE_GIVEN_BACK;
        break;
    case SIM_JOURNALED:
        event.kind = CONDUCTOR_JOURNALED;
        event.journaled.episodes = m->list;
        event.journaled.n_episodes = m->n;
        break;
    case SIM_INVENTORY:
        event.kind = CONDUCTOR_INVENTORY;
        fill_inventory(m, &event);
        break;
    case SIM_COMMITTED:
        take_committed(w, m, &event);
        return;
    case SIM_VERSION_STATE:
        event.kind = CONDUCTOR_VERSION_STATE;
        event.version_state.kind = m->kind_of_version ? KIND_PRM : KIND_POLICY;
        event.version_state.version = m->version;
        event.version_state.ready = m->flag;
        break;
    default:
        return;
    }
    step(w, &event);
}

void sim_coordinator_tick(struct sim_world *w)
{
    if (!sim_crash_point(w, SIM_COORDINATOR))
        step(w, &(struct conductor_event) { .kind = CONDUCTOR_TICK });
}

void sim_coordinator_exit_notice(struct sim_world *w, uint32_t node, uint32_t life, bool by_itself)
{
    if (w->conductor)
        step(
            w,
            &(struct conductor_event){
                .kind = CONDUCTOR_EXIT,
                .exit = {.host = "host", .pid = life << 8 | node, .crashed = by_itself, .text = by_itself ? "crashed" : "killed"},
            });
}

void sim_coordinator_admin(struct sim_world *w, const struct conductor_event *event)
{
    step(w, event);
}
