/* edge_members.c - messages to events, effects to messages. Everything is answered within the callback that brought it. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/edge.h"

#define TCP_PEER (1ull << 63)       /* of an event's `from`: the connection is one of the tcp server's */

/* ---- in ------------------------------------------------------------------------------------------- */

static void copy_text(char *out, size_t size, const char *text) { snprintf(out, size, "%s", text ? text : ""); }

static void copy_digest(uint8_t out[SHA256_SIZE], const ProtobufCBinaryData *bytes)
{
    memset(out, 0, SHA256_SIZE);
    if (bytes->len == SHA256_SIZE)
        memcpy(out, bytes->data, SHA256_SIZE);
}

/* NULL with *ret_n 0 when there are none; -> caller frees. */
static struct held_lease *held_leases(Gantry__HeldLease *const *leases, size_t n)
{
    struct held_lease *held = calloc(n + 1, sizeof *held);

    for (size_t i = 0; held && i < n; i++)
        held[i] = (struct held_lease) {.episode = leases[i]->episode, .fence = leases[i]->fence, .step = leases[i]->step};
    return held;
}

static struct journaled_episode *journaled_episodes(Gantry__JournaledEpisode *const *episodes, size_t n)
{
    struct journaled_episode *out = calloc(n + 1, sizeof *out);

    for (size_t i = 0; out && i < n; i++) {
        const Gantry__JournaledEpisode *e = episodes[i];

        out[i] = (struct journaled_episode) {
            .episode = e->episode, .success = e->success, .timeout = e->timeout, .steps = e->steps, .member = e->member,
            .reward = e->reward, .progress_end = e->progress_end,
        };
        copy_digest(out[i].digest, &e->digest);
    }
    return out;
}

static void take_hello(const Gantry__Hello *hello, uint64_t from, struct conductor_event *event)
{
    struct member *m = &event->hello.member;

    event->kind = CONDUCTOR_HELLO;
    m->role = (enum member_role)hello->role;
    m->instance = hello->instance;
    m->address_id = from;
    m->slots = hello->slots;
    m->rank = hello->rank;
    m->pid = hello->pid;
    copy_text(m->host, sizeof m->host, hello->host);
    copy_text(m->device, sizeof m->device, hello->device);
    copy_text(m->build, sizeof m->build, hello->build);
    copy_text(m->address, sizeof m->address, hello->address);
    copy_text(m->public_key, sizeof m->public_key, hello->public_key);
    event->hello.leases = held_leases(hello->leases, hello->n_leases);
    event->hello.n_leases = hello->n_leases;
}

static void take_committed(const Gantry__Committed *said, struct conductor_event *event)
{
    struct ledger_version *v = &event->committed.version;

    event->kind = CONDUCTOR_COMMITTED;
    *v = (struct ledger_version) {
        .kind = said->kind == GANTRY__VERSION_KIND__VERSION_PRM ? KIND_PRM : KIND_POLICY, .number = said->version, .parent = said->parent,
        .stage = (uint32_t)said->stage, .iteration = (uint32_t)said->iteration, .gate_passed = said->gate_passed,
        .metrics = said->metrics, .committed_ms = event->wall_ms,
    };
    copy_digest(v->digest, &said->manifest_digest);
    copy_text(v->dir, sizeof v->dir, said->dir);
    copy_text(v->gate_text, sizeof v->gate_text, said->gate_text);
    copy_digest(event->committed.plan_digest, &said->plan_digest);
    event->committed.trained = said->trained;
    event->committed.n_trained = said->n_trained;
    event->committed.filtered = said->filtered;
    event->committed.n_filtered = said->n_filtered;
    event->committed.stale = said->stale;
    event->committed.n_stale = said->n_stale;
}

static void take_inventory(const Gantry__Inventory *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_INVENTORY;
    event->inventory.stage = (uint32_t)MIN(said->stage, (uint64_t)LEDGER_ALL);
    event->inventory.iteration = (uint32_t)MIN(said->iteration, (uint64_t)LEDGER_ALL);
    event->inventory.rows = said->rows;
    event->inventory.episodes = journaled_episodes(said->episodes, said->n_episodes);
    event->inventory.n_episodes = said->n_episodes;
    event->inventory.policy_version = said->policy_version;
    event->inventory.prm_version = said->prm_version;
    copy_digest(event->inventory.policy_digest, &said->policy_digest);
    copy_digest(event->inventory.prm_digest, &said->prm_digest);
    copy_digest(event->inventory.plan_digest, &said->plan_digest);
}

static struct member_gauges *gauges_of(struct edge *edge, uint32_t member)
{
    const struct member *known = membership_find((struct membership *)conductor_members(edge->conductor), member);
    struct member_gauges *more;

    for (size_t i = 0; i < edge->n_gauges; i++)
        if (edge->gauges[i].member == member)
            return &edge->gauges[i];
    if (!known)
        return NULL;
    more = realloc(edge->gauges, (edge->n_gauges + 1) * sizeof *more);
    if (!more)
        return NULL;
    edge->gauges = more;
    edge->gauges[edge->n_gauges] = (struct member_gauges) {.member = member, .role = known->role};
    return &edge->gauges[edge->n_gauges++];
}

static void take_gauges(struct edge *edge, const Gantry__Heartbeat *said)
{
    struct member_gauges *gauges = said->n_gauges ? gauges_of(edge, said->member) : NULL;

    if (!gauges)
        return;
    gauges->n = 0;
    for (size_t i = 0; i < said->n_gauges && gauges->n < EDGE_GAUGES; i++) {
        copy_text(gauges->items[gauges->n].name, sizeof gauges->items[0].name, said->gauges[i]->name);
        gauges->items[gauges->n++].value = said->gauges[i]->value;
    }
}

/* The member whose message it is; 0: not of a kind that a member sends. What is allocated is freed by release_event. */
static bool take_message(struct edge *edge, const struct message *message, struct conductor_event *event)
{
    switch (message->envelope.kind) {
    case WIRE_KIND(HELLO):
        take_hello((const Gantry__Hello *)message->body, event->from, event);
        return true;
    case WIRE_KIND(HEARTBEAT): {
        const Gantry__Heartbeat *said = (const Gantry__Heartbeat *)message->body;

        event->kind = CONDUCTOR_HEARTBEAT;
        event->member = said->member;
        event->heartbeat.leases = held_leases(said->leases, said->n_leases);
        event->heartbeat.n_leases = said->n_leases;
        event->heartbeat.revision = said->endpoints_revision;
        take_gauges(edge, said);
        return true;
    }
    case WIRE_KIND(LEASE_REQUEST): {
        const Gantry__LeaseRequest *said = (const Gantry__LeaseRequest *)message->body;

        event->kind = CONDUCTOR_LEASE_REQUEST;
        event->member = said->member;
        event->lease_request.slots = said->slots;
        return true;
    }
    case WIRE_KIND(LEASE_RETURN): {
        const Gantry__LeaseReturn *said = (const Gantry__LeaseReturn *)message->body;

        event->kind = CONDUCTOR_LEASE_RETURN;
        event->member = said->member;
        event->lease_return.episode = said->episode;
        event->lease_return.fence = said->fence;
        event->lease_return.simulator_error = said->reason == GANTRY__LEASE_RETURN__REASON__SIMULATOR_ERROR;
        event->lease_return.text = said->text;
        return true;
    }
    case WIRE_KIND(BYE):
        event->kind = CONDUCTOR_BYE;
        event->member = ((const Gantry__Bye *)message->body)->member;
        return true;
    case WIRE_KIND(JOURNALED): {
        const Gantry__Journaled *said = (const Gantry__Journaled *)message->body;

        event->kind = CONDUCTOR_JOURNALED;
        event->journaled.stage = (uint32_t)said->stage;
        event->journaled.iteration = (uint32_t)said->iteration;
        event->journaled.episodes = journaled_episodes(said->episodes, said->n_episodes);
        event->journaled.n_episodes = said->n_episodes;
        return true;
    }
    case WIRE_KIND(INVENTORY):
        take_inventory((const Gantry__Inventory *)message->body, event);
        return true;
    case WIRE_KIND(COMMITTED):
        take_committed((const Gantry__Committed *)message->body, event);
        return true;
    case WIRE_KIND(VERSION_STATE): {
        const Gantry__VersionState *said = (const Gantry__VersionState *)message->body;

        event->kind = CONDUCTOR_VERSION_STATE;
        event->member = said->member;
        event->version_state.kind = said->kind == GANTRY__VERSION_KIND__VERSION_PRM ? KIND_PRM : KIND_POLICY;
        event->version_state.version = said->version;
        event->version_state.ready = said->ready;
        event->version_state.text = said->text;
        return true;
    }
    default:
        return false;
    }
}

/* -> false: out of memory for its list. */
static bool whole(const struct conductor_event *event)
{
    switch (event->kind) {
    case CONDUCTOR_HELLO: return event->hello.leases;
    case CONDUCTOR_HEARTBEAT: return event->heartbeat.leases;
    case CONDUCTOR_JOURNALED: return event->journaled.episodes;
    case CONDUCTOR_INVENTORY: return event->inventory.episodes;
    default: return true;
    }
}

static void release_event(struct conductor_event *event)
{
    switch (event->kind) {
    case CONDUCTOR_HELLO: free((void *)event->hello.leases); break;
    case CONDUCTOR_HEARTBEAT: free((void *)event->heartbeat.leases); break;
    case CONDUCTOR_JOURNALED: free((void *)event->journaled.episodes); break;
    case CONDUCTOR_INVENTORY: free((void *)event->inventory.episodes); break;
    default: break;
    }
}

/* The learner's messages carry no member number: it is whoever said Hello over this connection. */
static uint32_t member_at(const struct edge *edge, uint64_t from)
{
    const struct membership *members = conductor_members(edge->conductor);

    for (size_t i = members->n; i-- > 0; )
        if (members->items[i].address_id == from && members->items[i].state == MEMBER_ALIVE)
            return members->items[i].id;
    return 0;
}

void edge_on_request(struct request *request, void *arg)
{
    const struct edge_origin *origin = arg;
    struct edge *edge = origin->edge;
    struct conductor_event event = {
        .from = request->peer | (origin->tcp ? TCP_PEER : 0), .request = (uint64_t)(uintptr_t)request, .wall_ms = clock_wall_ms(),
        .epoch = request->message->envelope.epoch,
    };

    event.member = member_at(edge, event.from);
    if (!take_message(edge, request->message, &event)) {
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "a coordinator takes no %s message",
                          wire_kind_name(request->message->envelope.kind));
        return;
    }
    if (request_is_one_way(request))
        event.request = 0;
    if (event.kind == CONDUCTOR_HELLO && request->role && request->role != (Gantry__Role)event.hello.member.role)
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_DENIED, "the key is let in as %s, not as %s", wire_role_name(request->role),
                          wire_role_name((Gantry__Role)event.hello.member.role));
    else if (!whole(&event))
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_INTERNAL, "out of memory");
    else
        edge_step(edge, &event);
    release_event(&event);
}

/* ---- out ------------------------------------------------------------------------------------------ */

static struct wire_server *server_of(const struct edge *edge, uint64_t to) { return to & TCP_PEER ? edge->tcp : edge->ipc; }

static void push(struct edge *edge, const struct conductor_effect *e, Gantry__Kind kind, const ProtobufCMessage *body)
{
    struct wire_server *server = server_of(edge, e->to);
    int r = server ? wire_push(server, e->to & ~TCP_PEER, kind, 0, body) : -EHOSTUNREACH;

    if (r < 0)      /* no matter: whatever counts is said again */
        log_debug("a push was not taken", "member=%u kind=%s why=%s", e->member, wire_kind_name(kind), LOG_Q(strerror(-r)));
}

static void reply(const struct conductor_effect *e, const ProtobufCMessage *body)
{
    if (e->request)
        (void)wire_reply((struct request *)(uintptr_t)e->request, body, NULL, 0);
}

/* What others should know of the servers: actors, PRM servers, learner ranks. Borrows from the membership. */
struct endpoints {
    Gantry__Endpoint *items, **pointers;
    size_t n;
    uint64_t *versions;             /* (n, MEMBER_VERSIONS) */
};

static void endpoints_release(struct endpoints *e)
{
    free(e->items);
    free(e->pointers);
    free(e->versions);
}

static void list_endpoints(const struct edge *edge, struct endpoints *e)
{
    const struct membership *members = conductor_members(edge->conductor);

    *e = (struct endpoints) {
        .items = calloc(members->n + 1, sizeof *e->items), .pointers = calloc(members->n + 1, sizeof(void *)),
        .versions = calloc((members->n + 1) * MEMBER_VERSIONS, sizeof *e->versions),
    };
    if (!e->items || !e->pointers || !e->versions)
        return;                     /* none now; the next heartbeat brings them */
    for (size_t i = 0; i < members->n; i++) {
        struct member *m = &members->items[i];
        Gantry__Endpoint *out = &e->items[e->n];

        if (m->state != MEMBER_ALIVE || !m->address[0])
            continue;
        gantry__endpoint__init(out);
        out->role = (Gantry__Role)m->role;
        out->member = m->id;
        out->address = m->address;
        out->public_key = m->public_key;
        out->rank = m->rank;
        out->versions = e->versions + e->n * MEMBER_VERSIONS;
        for (uint32_t v = 0; v < m->n_versions; v++)
            if (m->versions[v].ready)
                out->versions[out->n_versions++] = m->versions[v].version;
        e->pointers[e->n++] = out;
    }
}

static void send_welcome(struct edge *edge, const struct conductor_effect *e)
{
    _cleanup_(endpoints_release) struct endpoints endpoints;
    Gantry__Welcome welcome = GANTRY__WELCOME__INIT;

    list_endpoints(edge, &endpoints);
    welcome.member = e->welcome.member;
    welcome.epoch = e->welcome.epoch;
    welcome.run = ledger_run(edge->ledger)->id;
    welcome.seed = ledger_run(edge->ledger)->seed;
    welcome.heartbeat_ms = (uint32_t)edge->config.heartbeat_ms;
    welcome.config = edge->config_text;
    welcome.run_dir = edge->run_dir;
    welcome.endpoints = endpoints.pointers;
    welcome.n_endpoints = endpoints.n;
    welcome.kept_leases = (uint64_t *)e->welcome.kept;
    welcome.n_kept_leases = e->welcome.n_kept;
    reply(e, &welcome.base);
}

static void send_heartbeat_reply(struct edge *edge, const struct conductor_effect *e)
{
    _cleanup_(endpoints_release) struct endpoints endpoints = {0};
    Gantry__HeartbeatReply said = GANTRY__HEARTBEAT_REPLY__INIT;

    said.known = e->heartbeat.known;
    said.drain = e->heartbeat.drain || edge->leaving;
    said.endpoints_revision = e->heartbeat.revision;
    said.revoked = (uint64_t *)e->heartbeat.revoked;
    said.n_revoked = e->heartbeat.n_revoked;
    if (e->heartbeat.endpoints_changed) {
        list_endpoints(edge, &endpoints);
        said.endpoints = endpoints.pointers;
        said.n_endpoints = endpoints.n;
    }
    reply(e, &said.base);
}

static void fill_lease(const struct lease_terms *t, Gantry__Lease *out)
{
    gantry__lease__init(out);
    out->episode = t->episode;
    out->fence = t->fence;
    out->purpose = (Gantry__Purpose)t->purpose;
    out->task = (char *)t->task;
    out->split = (Gantry__Split)t->split;
    out->state_seed = t->state_seed;
    out->max_steps = t->max_steps;
    out->policy_version = t->policy_version;
    out->prm_version = t->prm_version;
    out->temperature = t->temperature;
    out->style = (char *)t->style;
    out->search_n = t->search_n;
    out->search_horizon = t->search_horizon;
    out->search_execute = t->search_execute;
    out->search_temperature = t->search_temperature;
    out->search_score = (char *)t->search_score;
    out->alone = t->alone;
    out->score_every = t->score_every;
    out->sample_key = t->sample_key;
}

static void send_grant(struct edge *edge, const struct conductor_effect *e)
{
    size_t n = e->grant.n_leases;
    _cleanup_free_ Gantry__Lease *leases = calloc(n + 1, sizeof *leases);
    _cleanup_free_ Gantry__Lease **pointers = calloc(n + 1, sizeof *pointers);
    Gantry__LeaseGrant grant = GANTRY__LEASE_GRANT__INIT;

    if (!leases || !pointers)
        return;                     /* unanswered: refused as INTERNAL; the leases expire or go unmentioned */
    for (size_t i = 0; i < n; i++) {
        fill_lease(&e->grant.leases[i], &leases[i]);
        pointers[i] = &leases[i];
    }
    grant.leases = pointers;
    grant.n_leases = n;
    grant.retry_ms = e->grant.retry_ms;
    grant.drain = e->grant.drain || edge->leaving;
    reply(e, &grant.base);
}

static void send_refusal(const struct conductor_effect *e)
{
    static const Gantry__Status statuses[] = {
        [REFUSE_STALE] = GANTRY__STATUS__STATUS_STALE_EPOCH, [REFUSE_ROLE] = GANTRY__STATUS__STATUS_DENIED,
        [REFUSE_REQUEST] = GANTRY__STATUS__STATUS_BAD_REQUEST,
    };

    if (e->request)
        (void)wire_refuse((struct request *)(uintptr_t)e->request, statuses[e->refuse.why], "%s", e->refuse.text);
}

static void send_open(struct edge *edge, const struct conductor_effect *e)
{
    Gantry__OpenIteration open = GANTRY__OPEN_ITERATION__INIT;

    open.stage = e->open.stage;
    open.iteration = e->open.iteration;
    open.name = (char *)e->open.name;
    open.episodes = (uint64_t *)e->open.episodes;
    open.n_episodes = e->open.n_episodes;
    open.policy_version = e->open.policy_version;
    open.prm_version = e->open.prm_version;
    open.keep = e->open.keep;
    open.purpose = (Gantry__Purpose)e->open.purpose;
    push(edge, e, WIRE_KIND(OPEN_ITERATION), &open.base);
}

static void send_plan(struct edge *edge, const struct conductor_effect *e)
{
    static const char *const objectives[] = {[WORK_NONE] = "", [WORK_SFT] = "sft", [WORK_PRM] = "prm", [WORK_PPO] = "ppo"};
    const struct conductor_plan *p = &e->plan;
    Gantry__Plan plan = GANTRY__PLAN__INIT;

    plan.stage = p->stage;
    plan.iteration = p->iteration;
    plan.round = p->round;
    plan.objective = (char *)objectives[p->objective];
    plan.kind = p->kind == KIND_PRM ? GANTRY__VERSION_KIND__VERSION_PRM : GANTRY__VERSION_KIND__VERSION_POLICY;
    plan.parent = p->parent;
    plan.version = p->version;
    plan.parent_dir = (char *)p->parent_dir;
    plan.episodes = (uint64_t *)p->episodes;
    plan.n_episodes = p->n_episodes;
    plan.stages = (uint64_t *)p->stages;
    plan.n_stages = p->n_stages;
    plan.settings = (char *)p->settings;
    plan.digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)p->digest};
    plan.group_epoch = p->group_epoch;
    push(edge, e, WIRE_KIND(PLAN), &plan.base);
}

static void send_versions(struct edge *edge, const struct conductor_effect *e)
{
    size_t n = e->versions.n_keep;
    _cleanup_free_ Gantry__Versions__One *ones = calloc(n + 1, sizeof *ones);
    _cleanup_free_ Gantry__Versions__One **pointers = calloc(n + 1, sizeof *pointers);
    Gantry__Versions versions = GANTRY__VERSIONS__INIT;

    if (!ones || !pointers)
        return;
    for (size_t i = 0; i < n; i++) {
        const struct ledger_version *v = e->versions.keep[i];

        gantry__versions__one__init(&ones[i]);
        ones[i].version = v->number;
        ones[i].dir = (char *)v->dir;
        ones[i].manifest_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)v->digest};
        pointers[i] = &ones[i];
    }
    versions.kind = e->versions.kind == KIND_PRM ? GANTRY__VERSION_KIND__VERSION_PRM : GANTRY__VERSION_KIND__VERSION_POLICY;
    versions.keep = pointers;
    versions.n_keep = n;
    push(edge, e, WIRE_KIND(VERSIONS), &versions.base);
}

void edge_send(struct edge *edge, const struct conductor_effect *e)
{
    Gantry__Drain drain = GANTRY__DRAIN__INIT;

    switch (e->kind) {
    case CONDUCTOR_WELCOME: send_welcome(edge, e); break;
    case CONDUCTOR_HEARTBEAT_REPLY: send_heartbeat_reply(edge, e); break;
    case CONDUCTOR_GRANT: send_grant(edge, e); break;
    case CONDUCTOR_ACK: reply(e, NULL); break;
    case CONDUCTOR_REFUSE: send_refusal(e); break;
    case CONDUCTOR_OPEN_ITERATION: send_open(edge, e); break;
    case CONDUCTOR_PLAN: send_plan(edge, e); break;
    case CONDUCTOR_VERSIONS: send_versions(edge, e); break;
    case CONDUCTOR_SEND_DRAIN:
        drain.reason = (char *)e->text.text;
        push(edge, e, WIRE_KIND(DRAIN), &drain.base);
        break;
    default: break;
    }
}
