/* sim_worker.c - an env worker's edge in miniature: slots with real players, a simulator that is a clock and a hash. */
#include <errno.h>
#include <string.h>

#include "tests/sim/sim_check.h"

enum { MAX_STEPS = 5, ANSWER_MS = 800, LEASE_ANSWER_MS = 600 };

static const struct player_limits limits = { .retries = 4, .pause_ms = 50, .pause_max_ms = 800, .version_wait_ms = 8000 };

static void play(struct sim_world *w, uint32_t node, uint32_t slot, const struct player_event *event);

void sim_worker_start(struct sim_world *w, uint32_t node)
{
    struct sim_worker *worker = &w->nodes[node].worker;

    *worker = (struct sim_worker) { 0 };
    for (uint32_t i = 0; i < SIM_SLOTS; i++)
        player_init(&worker->slots[i].player, &limits, (uint64_t)i << 32);
}

/* ---- the simulator: what happens is fixed by the state and who plays --------------------------------------- */

static bool poisoned(const struct sim_world *w, const struct lease_terms *terms, uint64_t how)
{
    return w->options.poison && terms->split == SPLIT_TRAIN && sim_hash(terms->state_seed, 77) % 30 == how;
}

static bool step_succeeds(const struct lease_terms *terms, uint32_t steps_done)
{
    struct ledger_episode row = {
        .state_seed = terms->state_seed,
        .split = terms->split,
        .policy_version = terms->policy_version,
        .temperature = terms->temperature,
    };
    uint32_t length = 2 + (uint32_t)(sim_hash(terms->state_seed, 5) % 3);

    return steps_done == length && sim_outcome_success(&row);
}

/* ---- effects out --------------------------------------------------------------------------------------------- */

static void request(struct sim_world *w, uint32_t node, uint32_t slot, const struct player_effect *effect, enum sim_kind kind,
                    uint32_t to)
{
    struct sim_slot *s = &w->nodes[node].worker.slots[slot];
    struct sim_message m = {
        .kind = kind, .from = node, .to = to, .request = ++w->last_request, .ticket = effect->ticket, .slot = slot,
        .episode = effect->episode, .fence = effect->fence, .version = effect->version, .prm_version = s->terms.prm_version,
    };
    struct sim_event *timeout;

    if (kind == SIM_DELIVER) {
        m.journaled = (struct journaled_episode){
            .episode = effect->episode,
            .success = effect->success,
            .reward = effect->success,
            .timeout = effect->timeout,
            .steps = effect->step,
            .member = w->nodes[node].member,
        };
        sim_digest(effect->episode, effect->version, w->options.seed % 2 ? node : 0, m.journaled.digest);
    }
    sim_send(w, &m, NULL, 0, 0);
    timeout = sim_schedule(w, ANSWER_MS, SIM_EVENT_TIMEOUT, node);
    timeout->slot = slot;
    timeout->ticket = effect->ticket;
}

static void job(struct sim_world *w, uint32_t node, uint32_t slot, const struct player_effect *effect, uint64_t ms)
{
    struct sim_event *event = sim_schedule(w, ms, SIM_EVENT_JOB, node);

    event->slot = slot;
    event->ticket = effect->ticket;
}

static void give_back(struct sim_world *w, uint32_t node, const struct player_effect *effect)
{
    const struct sim_node *n = &w->nodes[node];
    struct sim_message m = {
        .kind = SIM_LEASE_RETURN,
        .from = node,
        .to = SIM_COORDINATOR,
        .request = ++w->last_request,
        .epoch = n->epoch,
        .member = n->member,
        .episode = effect->episode,
        .fence = effect->fence,
        .flag = effect->reason == LEASE_SIMULATOR_ERROR,
    };

    sim_send(w, &m, NULL, 0, 0);
}

static void play(struct sim_world *w, uint32_t node, uint32_t slot, const struct player_event *event)
{
    struct player_effects out;

    player_step(&w->nodes[node].worker.slots[slot].player, event, w->now_ms, &out);
    for (unsigned i = 0; i < out.n; i++) {
        const struct player_effect *effect = &out.items[i];

        switch (effect->kind) {
        case PLAYER_DO_RESET: job(w, node, slot, effect, 5 + sim_below(w, 20)); break;
        case PLAYER_DO_STEP: job(w, node, slot, effect, 1 + sim_below(w, 8)); break;
        case PLAYER_DO_ACT: request(w, node, slot, effect, SIM_ACT, SIM_ACTOR_0 + (uint32_t)sim_below(w, SIM_ACTORS)); break;
        case PLAYER_DO_SCORE: request(w, node, slot, effect, SIM_SCORE, SIM_PRM); break;
        case PLAYER_DO_DELIVER: request(w, node, slot, effect, SIM_DELIVER, SIM_LEARNER); break;
        case PLAYER_DO_RETURN: give_back(w, node, effect); break;
        case PLAYER_DO_CANCEL:
        case PLAYER_DO_FREE: break;
        }
    }
}

/* ---- events in ------------------------------------------------------------------------------------------------- */

void sim_worker_job(struct sim_world *w, uint32_t node, const struct sim_event *e)
{
    struct sim_slot *s = &w->nodes[node].worker.slots[e->slot];
    struct player_event event = {.kind = s->player.phase == PLAYER_RESETTING ? PLAYER_RESET_DONE : PLAYER_STEP_DONE,
                                 .ticket = e->ticket};

    if (sim_crash_point(w, node) || e->ticket != s->player.ticket)
        return;
    if (poisoned(w, &s->terms, 0) && s->player.step == 1) {
        sim_crash(w, node, true);
        return;
    }
    if (poisoned(w, &s->terms, 1) && s->player.step == 1)
        event.sim.result = -EDOM;
    else if (event.kind == PLAYER_STEP_DONE)
        event.sim.success = step_succeeds(&s->terms, s->player.step + 1);
    play(w, node, e->slot, &event);
}

void sim_worker_timeout(struct sim_world *w, uint32_t node, const struct sim_event *e)
{
    const struct player *player = &w->nodes[node].worker.slots[e->slot].player;
    struct player_event event = { .ticket = e->ticket };

    if (player->ticket != e->ticket)
        return;
    if (player->phase == PLAYER_ACTING) {
        event.kind = PLAYER_ACTED;
        event.acted.answer = PLAYER_NO_ANSWER;
    } else if (player->phase == PLAYER_SCORING) {
        event.kind = PLAYER_SCORED;
        event.answered.answer = PLAYER_NO_ANSWER;
    } else {
        event.kind = PLAYER_DELIVERED;
        event.delivered.answer = PLAYER_NO_ANSWER;
    }
    play(w, node, e->slot, &event);
}

static void on_grant(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    struct sim_worker *worker = &w->nodes[node].worker;
    const struct lease_terms *terms = m->list;
    size_t given = 0;

    if (m->request != worker->lease_request)
        return;
    worker->lease_request = 0;
    worker->lease_retry_ms = w->now_ms + m->rows;
    worker->draining = m->drain;
    for (uint32_t slot = 0; slot < SIM_SLOTS && given < m->n; slot++) {
        struct player_event event = { .kind = PLAYER_LEASE };

        if (player_busy(&worker->slots[slot].player))
            continue;
        worker->slots[slot].terms = terms[given];
        worker->slots[slot].terms.task = worker->slots[slot].terms.style = worker->slots[slot].terms.search_score = "";
        event.terms = (struct player_terms) {
            .episode = terms[given].episode, .fence = terms[given].fence, .policy_version = terms[given].policy_version,
            .prm_version = terms[given].prm_version, .max_steps = MAX_STEPS, .expert = terms[given].style[0] != '\0',
        };
        given++;
        play(w, node, slot, &event);
    }
}

static bool listed(const struct sim_message *m, uint64_t episode)
{
    const uint64_t *episodes = m->list;

    for (size_t i = 0; i < m->n; i++)
        if (episodes[i] == episode)
            return true;
    return false;
}

/* Welcome lists what it may go on with, a heartbeat's reply what it may not. */
static void drop_leases(struct sim_world *w, uint32_t node, const struct sim_message *m, bool named)
{
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct player *player = &w->nodes[node].worker.slots[slot].player;

        if (player_busy(player) && listed(m, player->terms.episode) == named)
            play(w, node, slot, &(struct player_event) { .kind = PLAYER_REVOKED, .episode = player->terms.episode });
    }
}

static void answered(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    const struct sim_slot *s = &w->nodes[node].worker.slots[m->slot];
    struct player_event event = { .ticket = m->ticket };

    if (m->kind == SIM_ACT_REPLY) {
        event.kind = PLAYER_ACTED;
        event.acted.answer = (enum player_answer)m->status;
        event.acted.actions = MAX(s->terms.search_execute, 1u);
    } else {
        event.kind = PLAYER_SCORED;
        event.answered.answer = (enum player_answer)m->status;
    }
    play(w, node, m->slot, &event);
}

static void on_delivered(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    struct player_event event = {
        .kind = PLAYER_DELIVERED,
        .delivered = {.answer = (enum player_answer)m->status, .verdict = (enum deliver_verdict)m->kind_of_version},
    };

    if (m->status == PLAYER_OK && (m->kind_of_version == DELIVER_ACCEPTED || m->kind_of_version == DELIVER_DUPLICATE))
        sim_check_acknowledged(w, m->episode, m->digest);
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {     /* the learner's replies know no slots: by episode */
        const struct player *player = &w->nodes[node].worker.slots[slot].player;

        if (player->phase != PLAYER_DELIVERING || player->terms.episode != m->episode)
            continue;
        event.ticket = player->ticket;
        play(w, node, slot, &event);
    }
}

void sim_worker_message(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    struct sim_node *n = &w->nodes[node];

    if (sim_crash_point(w, node))
        return;
    switch (m->kind) {
    case SIM_WELCOME:
        if (m->request != n->hello_request || m->epoch < n->epoch)
            break;
        n->epoch = m->epoch;
        n->member = m->member;
        drop_leases(w, node, m, false);
        break;
    case SIM_HEARTBEAT_REPLY:
        if (m->flag)
            drop_leases(w, node, m, true);
        else
            n->epoch = 0;
        n->worker.draining = m->drain;
        break;
    case SIM_REFUSE:
        if (m->status == REFUSE_STALE)
            n->epoch = 0;
        break;
    case SIM_GRANT: on_grant(w, node, m); break;
    case SIM_ACT_REPLY:
    case SIM_SCORE_REPLY: answered(w, node, m); break;
    case SIM_DELIVER_REPLY: on_delivered(w, node, m); break;
    default: break;
    }
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

/* Of every other episode: also workers of an older build, which never say so, play here. */
static bool waits(const struct player *player)
{
    bool asked = player->phase == PLAYER_ACTING || player->phase == PLAYER_SCORING || player->phase == PLAYER_DELIVERING;

    return asked && player->ticket && player->terms.episode % 2;
}

static size_t list_held(const struct sim_worker *worker, struct held_lease *held)
{
    size_t n = 0;

    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct player *player = &worker->slots[slot].player;

        if (player_busy(player))
            held[n++] = (struct held_lease) { player->terms.episode, player->terms.fence, player_progress(player),
                                             waits(player), player->step };
    }
    return n;
}

static void ask_leases(struct sim_world *w, uint32_t node, size_t held)
{
    struct sim_node *n = &w->nodes[node];
    struct sim_worker *worker = &n->worker;
    struct sim_message m = {
        .kind = SIM_LEASE_REQUEST, .from = node, .to = SIM_COORDINATOR, .epoch = n->epoch, .member = n->member};

    if (worker->lease_request && w->now_ms - worker->lease_request_ms >= LEASE_ANSWER_MS)
        worker->lease_request = 0;
    if (worker->lease_request || w->now_ms < worker->lease_retry_ms || held == SIM_SLOTS)
        return;
    m.request = worker->lease_request = ++w->last_request;
    worker->lease_request_ms = w->now_ms;
    m.rows = (uint32_t)(SIM_SLOTS - held);
    sim_send(w, &m, NULL, 0, 0);
}

void sim_worker_tick(struct sim_world *w, uint32_t node)
{
    struct sim_node *n = &w->nodes[node];
    struct sim_message m = { .kind = SIM_HEARTBEAT, .from = node, .to = SIM_COORDINATOR, .epoch = n->epoch, .member = n->member };
    struct held_lease held[SIM_SLOTS];
    size_t n_held;

    if (sim_crash_point(w, node))
        return;
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        play(w, node, slot, &(struct player_event) { .kind = PLAYER_TICK });
    n_held = list_held(&n->worker, held);
    if (!n->epoch) {
        if (w->now_ms - n->hello_ms >= 500) {
            n->worker.lease_request = 0;
            sim_hello(w, node, held, n_held);
        }
        return;
    }
    if (w->now_ms - n->beat_ms >= 500) {
        n->beat_ms = w->now_ms;
        m.request = ++w->last_request;
        sim_send(w, &m, held, n_held, sizeof(*held));
    }
    ask_leases(w, node, n_held);
}
