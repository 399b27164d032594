/* edge_send.c - effects to messages: replies to whom asked, pushes to who must know. */
#include <errno.h>

#include "base/log.h"
#include "coordinator/edge.h"

static struct wire_server *server_of(const struct edge *edge, uint64_t to) { return to & EDGE_TCP_PEER ? edge->tcp : edge->ipc; }

static void push(struct edge *edge, const struct conductor_effect *e, Gantry__Kind kind, const ProtobufCMessage *body)
{
    struct wire_server *server = server_of(edge, e->to);
    int r = server ? wire_push(server, e->to & ~EDGE_TCP_PEER, kind, 0, body) : -EHOSTUNREACH;

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
        out->cordoned = m->cordoned || m->leaving;
        out->versions = e->versions + e->n * MEMBER_VERSIONS;
        for (uint32_t v = 0; v < m->n_versions; v++)
            if (m->versions[v].ready)
                out->versions[out->n_versions++] = m->versions[v].version;
        e->pointers[e->n++] = out;
    }
}

static const void *asked(const struct conductor_effect *e) { return ((struct request *)(uintptr_t)e->request)->message->body; }

static void send_welcome(struct edge *edge, const struct conductor_effect *e)
{
    _cleanup_(endpoints_release) struct endpoints endpoints = {0};
    _cleanup_(edge_allowed_release) struct edge_allowed allowed = {0};
    Gantry__Welcome welcome = GANTRY__WELCOME__INIT;

    if (!e->request)
        return;
    if (((const Gantry__Hello *)asked(e))->wants_allowed)
        welcome.allowed = edge_list_allowed(edge, 0, &allowed);

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
    _cleanup_(edge_allowed_release) struct edge_allowed allowed = {0};
    Gantry__HeartbeatReply said = GANTRY__HEARTBEAT_REPLY__INIT;
    uint64_t known = e->request ? ((const Gantry__Heartbeat *)asked(e))->allowed_digest : 0;

    if (known)
        said.allowed = edge_list_allowed(edge, known, &allowed);

    said.known = e->heartbeat.known;
    said.drain = e->heartbeat.drain || edge->leaving;
    said.sent_away = e->heartbeat.sent_away;
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
    out->search_method = (char *)(t->search_method ? t->search_method : "");
    out->search_judge = (char *)(t->search_judge ? t->search_judge : "");
    out->search_proposals = (char *)(t->search_proposals ? t->search_proposals : "");
    out->refine_always = t->refine_always;
    out->perturb = (char *)(t->perturb ? t->perturb : "");
    out->alone = t->alone;
    out->score_every = t->score_every;
    out->want_hidden = t->want_hidden;
    out->draw_turns = t->draw_turns;
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
    open.failed = (uint64_t *)e->open.failed;
    open.n_failed = e->open.n_failed;
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
    plan.keep_from = p->keep_from;
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
    versions.shadow = e->versions.shadow;
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
    case CONDUCTOR_SEND_WORK: push(edge, e, WIRE_KIND(WORK), NULL); break;
    default: break;
    }
}
