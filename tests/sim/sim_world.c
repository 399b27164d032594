#include "tests/sim/sim_world.h"

#include <stdarg.h>
#include <string.h>

#include "tests/sim/sim_check.h"

enum {
    TICK_MS = 200,
    QUIET_LIMIT_MS = 900000,        /* after the faults a run that has not ended by then does not move any more */
    FAULT_EVERY_MS = 1500,          /* mean time between planned faults (cuts, kills) */
};

/* ---- chance ---------------------------------------------------------------------------------------- */

uint64_t sim_hash(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t sim_random(struct sim_world *w)
{
    return sim_hash(w->options.seed, ++w->rng);
}

uint64_t sim_below(struct sim_world *w, uint64_t n)
{
    return sim_random(w) % n;
}

static bool faults_now(const struct sim_world *w)
{
    return w->options.faults && w->now_ms < w->faults_until_ms;
}

bool sim_chance(struct sim_world *w, uint64_t of_thousand)
{
    return faults_now(w) && sim_below(w, 1000) < of_thousand;
}

void sim_digest(uint64_t a, uint64_t b, uint64_t c, uint8_t ret[SHA256_SIZE])
{
    uint64_t words[4] = { a, b, c, sim_hash(sim_hash(a, b), c) };

    memcpy(ret, words, sizeof(words));      /* readable by the checker: episode, version, who played */
}

bool sim_outcome_success(const struct ledger_episode *row)
{
    return sim_hash(row->state_seed * 8 + row->split, row->policy_version * 1000 + (uint64_t)(row->temperature * 100)) % 100 < 55;
}

/* ---- telling ----------------------------------------------------------------------------------------- */

void sim_fail(struct sim_world *w, const char *format, ...)
{
    va_list args;

    if (w->failure[0])
        return;
    va_start(args, format);
    vsnprintf(w->failure, sizeof(w->failure), format, args);
    va_end(args);
    sim_trace(w, "FAILURE: %s", w->failure);
}

void sim_trace(struct sim_world *w, const char *format, ...)
{
    va_list args;

    if (!w->options.trace)
        return;
    fprintf(w->options.trace, "%8llu.%llu ", (unsigned long long)w->now_ms, (unsigned long long)w->events);
    va_start(args, format);
    vfprintf(w->options.trace, format, args);
    va_end(args);
    fputc('\n', w->options.trace);
}

/* ---- the queue: a binary heap by (time, number) --------------------------------------------------------- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

struct sim_event *sim_schedule(struct sim_world *w, uint64_t in_ms, enum sim_event_kind kind, uint32_t node)
{
    struct sim_event event = {
        .at_ms = w->now_ms + in_ms, .number = ++w->number, .kind = kind, .node = node, .life = w->nodes[node].life,
    };
    size_t i;

    if (w->n_heap == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity ? 2 * w->heap_capacity : 256;
        w->heap = realloc(w->heap, w->heap_capacity * sizeof(*w->heap));
        if (!w->heap)
            abort();
    }
    for (i = w->n_heap++; i > 0 && earlier(&event, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = event;
    return &w->heap[i];
}

static struct sim_event pop(struct sim_world *w)
{
    struct sim_event first = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && earlier(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!earlier(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    if (w->n_heap)
        w->heap[i] = last;
    return first;
}

/* ---- the network ----------------------------------------------------------------------------------------- */

static const char *const kind_names[SIM_KINDS] = {
    "hello",        "welcome",     "heartbeat", "heartbeat-reply", "lease-request", "grant",
    "lease-return", "journaled",   "inventory", "committed",       "version-state", "ack",
    "refuse",       "open",        "plan",      "versions",        "act",           "act-reply",
    "score",        "score-reply", "deliver",   "deliver-reply",
    "weights",      "weights-reply",
};

static struct sim_message *message_copy(const struct sim_message *message, const void *list, size_t n, size_t item)
{
    struct sim_message *copy = malloc(sizeof(*copy));

    if (!copy)
        abort();
    *copy = *message;
    copy->n = n;
    copy->item = item;
    copy->list = malloc(MAX(n * item, (size_t)1));
    if (!copy->list)
        abort();
    if (n)
        memcpy(copy->list, list, n * item);
    return copy;
}

static void message_free(struct sim_message *message)
{
    if (message)
        free(message->list);
    free(message);
}

static void post(struct sim_world *w, const struct sim_message *message, const void *list, size_t n, size_t item)
{
    uint64_t delay = sim_below(w, 3);
    struct sim_message *copy;

    if (sim_chance(w, w->delay_rate))
        delay += sim_below(w, sim_chance(w, 100) ? 8000 : 600);
    if ((message->kind == SIM_PLAN || message->kind == SIM_VERSIONS) && sim_chance(w, w->late_rate))
        delay += sim_below(w, 4000);        /* in the buffers of a coordinator that is no more, or overtaken by the next list */
    copy = message_copy(message, list, n, item);
    sim_schedule(w, delay, SIM_EVENT_MESSAGE, message->to)->message = copy;
}

void sim_send(struct sim_world *w, const struct sim_message *message, const void *list, size_t n, size_t item)
{
    struct sim_message m = *message;

    m.from_life = w->nodes[m.from].life;
    m.connection = w->connection[m.from];
    if (w->cut_until_ms[m.from][m.to] > w->now_ms || sim_chance(w, w->drop_rate)) {
        sim_trace(w, "  lost: %s %u -> %u", kind_names[m.kind], m.from, m.to);
        return;
    }
    post(w, &m, list, n, item);
    if (sim_chance(w, w->double_rate))
        post(w, &m, list, n, item);
}

void sim_hello(struct sim_world *w, uint32_t node, const struct held_lease *held, size_t n)
{
    struct sim_message m = { .kind = SIM_HELLO, .from = node, .to = SIM_COORDINATOR, .request = ++w->last_request };

    w->nodes[node].hello_ms = w->now_ms;
    w->nodes[node].hello_request = m.request;
    sim_send(w, &m, held, n, sizeof(*held));
}

/* ---- life and death ----------------------------------------------------------------------------------------- */

static void start(struct sim_world *w, uint32_t node)
{
    struct sim_node *n = &w->nodes[node];

    if (n->alive)
        return;
    n->alive = true;
    n->life++;
    n->epoch = 0;
    n->member = 0;
    n->instance = sim_hash(node, n->life);
    n->hello_ms = n->beat_ms = 0;
    sim_trace(w, "node %u starts, life %u", node, n->life);
    sim_schedule(w, sim_below(w, TICK_MS), SIM_EVENT_TICK, node);
    if (node == SIM_COORDINATOR)
        sim_coordinator_start(w);
    else if (node == SIM_LEARNER)
        sim_learner_start(w);
    else if (sim_is_worker(node))
        sim_worker_start(w, node);
    else
        sim_server_start(w, node);
}

void sim_crash(struct sim_world *w, uint32_t node, bool by_itself)
{
    struct sim_node *n = &w->nodes[node];
    struct sim_event *notice;

    if (!n->alive)
        return;
    sim_trace(w, "node %u dies%s", node, by_itself ? " by itself" : "");
    n->alive = false;
    if (node == SIM_COORDINATOR)
        sim_coordinator_stop(w);
    else if (node == SIM_LEARNER)
        sim_learner_stop(w);
    if (node != SIM_COORDINATOR &&
        (by_itself || !sim_chance(w, 300))) { /* a worker elsewhere has no supervisor that could tell */
        notice = sim_schedule(w, 1 + sim_below(w, 30), SIM_EVENT_EXIT_NOTICE, node);
        notice->flag = by_itself;
    }
    sim_schedule(w, 50 + sim_below(w, sim_chance(w, 100) ? 20000 : 1500), SIM_EVENT_START, node);
}

bool sim_crash_point(struct sim_world *w, uint32_t node)
{
    if (!faults_now(w) || sim_below(w, 1000000) >= w->crash_rate)
        return false;
    sim_crash(w, node, false);
    return true;
}

/* The cut outlasts the silence limit: what the coordinator says to that address is said to nobody, until it hears of another. */
static void break_connection(struct sim_world *w, uint32_t node, uint64_t until)
{
    uint64_t *there = &w->cut_until_ms[node][SIM_COORDINATOR], *back = &w->cut_until_ms[SIM_COORDINATOR][node];

    if (node == SIM_COORDINATOR || MAX(*there, *back) < until || sim_below(w, 2))
        return;
    w->connection[node]++;
    if (sim_below(w, 4) == 0)
        *there = *back = until + sim_below(w, 10000);       /* handshakes that take longer than their limit */
}

static void random_cut(struct sim_world *w)
{
    uint32_t a = (uint32_t)sim_below(w, SIM_NODES), b = (uint32_t)sim_below(w, SIM_NODES);
    uint64_t until = w->now_ms + 100 + sim_below(w, sim_below(w, 4) ? 2000 : 15000);
    uint64_t how = sim_below(w, 4);

    sim_trace(w, "cut %u %u how %u for %u ms", a, b, (unsigned)how, (unsigned)(until - w->now_ms));
    for (uint32_t k = 0; k < SIM_NODES; k++) {
        if (how == 0)
            w->cut_until_ms[a][k] = w->cut_until_ms[k][a] = until;      /* a is alone */
        else if (how == 1)
            w->cut_until_ms[a][k] = until;                              /* a is not heard */
    }
    if (how == 2)
        w->cut_until_ms[a][b] = w->cut_until_ms[b][a] = until;
    else if (how == 3)
        w->cut_until_ms[a][b] = until;
    for (uint32_t k = 0; k < SIM_NODES; k++)
        break_connection(w, k, until);
}

static void random_admin(struct sim_world *w)
{
    struct conductor_event event = { .kind = CONDUCTOR_PRM_SWAP, .from = UINT64_MAX, .request = 1 };

    if (!w->conductor)
        return;
    event.prm_swap.version = 1 + sim_below(w, 2);
    event.prm_swap.wait = sim_below(w, 2);
    event.prm_swap.round = (uint32_t)sim_below(w, 6);
    if (sim_below(w, 6) == 0)
        event.kind = CONDUCTOR_DRAIN;
    else if (sim_below(w, 3) == 0) {
        event.kind = CONDUCTOR_CORDON;
        event.member = 1 + (uint32_t)sim_below(w, 8);
        event.cordon.on = sim_below(w, 2);
    }
    sim_coordinator_admin(w, &event);
}

static void next_fault(struct sim_world *w)
{
    if (!faults_now(w))
        return;
    if (sim_below(w, 2))
        random_cut(w);
    else
        sim_crash(w, (uint32_t)sim_below(w, SIM_NODES), false);
    if (w->options.admin && sim_below(w, 2))
        random_admin(w);
    sim_schedule(w, sim_below(w, 2 * FAULT_EVERY_MS), SIM_EVENT_FAULT, 0);
}

/* ---- what happens ------------------------------------------------------------------------------------------- */

static void deliver(struct sim_world *w, struct sim_message *m)
{
    struct sim_node *n = &w->nodes[m->to];

    if (!n->alive || (m->to_life && m->to_life != n->life))
        return;
    sim_trace(w, "%s %u -> %u request %llu", kind_names[m->kind], m->from, m->to, (unsigned long long)m->request);
    if (m->to == SIM_COORDINATOR)
        sim_coordinator_message(w, m);
    else if (m->to == SIM_LEARNER)
        sim_learner_message(w, m);
    else if (sim_is_worker(m->to))
        sim_worker_message(w, m->to, m);
    else
        sim_server_message(w, m->to, m);
}

static void tick(struct sim_world *w, uint32_t node)
{
    sim_schedule(w, TICK_MS, SIM_EVENT_TICK, node);
    if (node == SIM_COORDINATOR)
        sim_coordinator_tick(w);
    else if (node == SIM_LEARNER)
        sim_learner_tick(w);
    else if (sim_is_worker(node))
        sim_worker_tick(w, node);
    else
        sim_server_tick(w, node);
}

static void happen(struct sim_world *w, struct sim_event *e)
{
    bool its_life = w->nodes[e->node].alive && w->nodes[e->node].life == e->life;

    switch (e->kind) {
    case SIM_EVENT_MESSAGE: deliver(w, e->message); return;
    case SIM_EVENT_START: start(w, e->node); return;
    case SIM_EVENT_FAULT: next_fault(w); return;
    case SIM_EVENT_EXIT_NOTICE: sim_coordinator_exit_notice(w, e->node, e->life, e->flag); return;
    default: break;
    }
    if (!its_life)
        return;
    switch (e->kind) {
    case SIM_EVENT_TICK: tick(w, e->node); break;
    case SIM_EVENT_JOB: sim_worker_job(w, e->node, e); break;
    case SIM_EVENT_TIMEOUT: sim_worker_timeout(w, e->node, e); break;
    case SIM_EVENT_SYNC: sim_learner_synced(w); break;
    case SIM_EVENT_TRAINED: sim_learner_trained(w); break;
    case SIM_EVENT_LOADED: sim_server_loaded(w, e->node, e->version); break;
    case SIM_EVENT_PULL: sim_pull_event(w, e->node, e); break;
    default: break;
    }
}

/* ---- a world -------------------------------------------------------------------------------------------------------- */

/* How bad a history is differs from one to the next: from hardly anything to all at once. */
static void choose_faults(struct sim_world *w)
{
    static const uint32_t crash_rates[] = { 0, 200, 1000, 4000 }, rates[] = { 0, 5, 30, 120 };

    w->faults_until_ms = 3000 + sim_below(w, 25000);
    w->crash_rate = crash_rates[sim_below(w, 4)];
    w->drop_rate = rates[sim_below(w, 4)];
    w->double_rate = rates[sim_below(w, 4)];
    w->late_rate = 4 * rates[sim_below(w, 4)];
    w->delay_rate = rates[sim_below(w, 4)];
}

struct sim_world *sim_world_new(const struct sim_options *options)
{
    struct sim_world *w = calloc(1, sizeof(*w));

    if (!w)
        abort();
    w->options = *options;
    w->check = sim_check_new();
    sim_small_run(&w->config, options->max_staleness, options->grouped);
    if (options->faults) {
        choose_faults(w);
        sim_schedule(w, sim_below(w, FAULT_EVERY_MS), SIM_EVENT_FAULT, 0);
    }
    for (uint32_t node = 0; node < SIM_NODES; node++)
        sim_schedule(w, sim_below(w, 50), SIM_EVENT_START, node);
    return w;
}

static void disk_versions_release(struct sim_versions *versions)
{
    for (size_t i = 0; i < versions->n; i++) {
        free(versions->items[i].outcomes);
        free(versions->items[i].consumed);
    }
    free(versions->items);
}

struct sim_world *sim_world_free(struct sim_world *w)
{
    if (!w)
        return NULL;
    if (w->nodes[SIM_LEARNER].alive)
        sim_learner_stop(w);
    w->conductor = conductor_free(w->conductor);
    conductor_effects_release(&w->effects);
    for (size_t i = 0; i < w->n_heap; i++)
        message_free(w->heap[i].message);
    free(w->heap);
    sim_ledger_release(&w->ledger);
    free(w->journal.items);
    disk_versions_release(&w->versions);
    sim_check_free(w->check);
    free(w);
    return NULL;
}

void sim_world_run(struct sim_world *w)
{
    uint64_t limit_ms = w->faults_until_ms + QUIET_LIMIT_MS;

    while (!w->failure[0] && !w->finished && !w->stopped) {
        struct sim_event e = pop(w);        /* never empty: ticks go on */

        w->now_ms = e.at_ms;
        w->events++;
        if (w->now_ms > limit_ms) {
            struct conductor_status status = { .waiting_for = "", .name = "" };

            if (w->conductor)
                conductor_status(w->conductor, &status);
            sim_fail(w, "no progress: stage %u iteration %u %s: %llu of %llu rows open, %llu leased, training %d, waiting for %s",
                     status.stage, status.iteration, status.name, (unsigned long long)status.open,
                     (unsigned long long)status.rows, (unsigned long long)status.leased, status.training, status.waiting_for);
        }
        happen(w, &e);
        message_free(e.message);
    }
    if (!w->failure[0])
        sim_check_end(w);
}
