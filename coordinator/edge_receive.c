/* edge_receive.c - messages to events. Everything is answered within the callback that brought it (edge_send.c). */
#include "base/clock.h"
#include "base/log.h"
#include "base/plain.h"
#include "coordinator/edge.h"
#include "proto/prm.pb-c.h"

/* What others say of themselves is shown in terminals. */
static const char *plain(char *text)
{
    make_plain(text, '?');
    return text;
}

static void copy_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text ? text : "");
    (void)plain(out);
}

static void copy_digest(uint8_t out[SHA256_SIZE], const ProtobufCBinaryData *bytes)
{
    memset(out, 0, SHA256_SIZE);
    if (bytes->len == SHA256_SIZE)
        memcpy(out, bytes->data, SHA256_SIZE);
}

/* -> caller frees; NULL: out of memory. */
static struct held_lease *held_leases(Gantry__HeldLease *const *leases, size_t n)
{
    struct held_lease *held = calloc(n + 1, sizeof *held);

    for (size_t i = 0; held && i < n; i++)
        held[i] = (struct held_lease) {.episode = leases[i]->episode, .fence = leases[i]->fence, .step = leases[i]->step,
                                       .waits = leases[i]->waits, .played = leases[i]->played};
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

static enum version_kind version_kind(int said) { return said == GANTRY__VERSION_KIND__VERSION_PRM ? KIND_PRM : KIND_POLICY; }

static void take_hello(const Gantry__Hello *hello, const char *user, uint64_t from, struct conductor_event *event)
{
    struct member *m = &event->hello.member;

    copy_text(m->user, sizeof m->user, user);

    event->kind = CONDUCTOR_HELLO;
    m->role = (enum member_role)hello->role;
    m->instance = hello->instance;
    m->address_id = from;
    m->slots = hello->slots;
    m->rank = hello->rank;
    m->pid = hello->pid;
    copy_text(m->host, sizeof m->host, hello->host);
    copy_text(m->name, sizeof m->name, hello->name);
    copy_text(m->device, sizeof m->device, hello->device);
    copy_text(m->isa, sizeof m->isa, hello->isa);
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
    *v = (struct ledger_version){
        .kind = version_kind(said->kind),
        .number = said->version,
        .parent = said->parent,
        .stage = (uint32_t)said->stage,
        .iteration = (uint32_t)said->iteration,
        .gate_passed = said->gate_passed,
        .metrics = said->metrics,
        .committed_ms = event->wall_ms,
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

static void take_gauges(struct edge *edge, const Gantry__Heartbeat *said)
{
    struct member_gauges *place = said->n_gauges ? gauges_place(&edge->gauges, conductor_members(edge->conductor),
                                                                said->member) : NULL;
    double others;

    for (size_t i = 0; place && i < said->n_gauges; i++)
        gauges_put(place, said->gauges[i]->name, said->gauges[i]->value);
    if (place && pace_note(&edge->gauges, place, clock_mono_ms(), &others)) {
        const struct member *m = membership_find((struct membership *)conductor_members(edge->conductor), said->member);

        if (place->pace.slow)
            log_warn("a worker is slow", "member=%u name=%s host=%s ms_per_step=%.1f others=%.1f", m->id, LOG_Q(m->name), m->host,
                     place->pace.ms_per_step, others);
        else
            log_info("a worker is slow no more", "member=%u name=%s host=%s ms_per_step=%.1f", m->id, LOG_Q(m->name), m->host,
                     place->pace.ms_per_step);
    }
}

static void take_heartbeat(const Gantry__Heartbeat *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_HEARTBEAT;
    event->member = said->member;
    event->heartbeat.leases = held_leases(said->leases, said->n_leases);
    event->heartbeat.n_leases = said->n_leases;
    event->heartbeat.revision = said->endpoints_revision;
}

static void take_lease_request(const Gantry__LeaseRequest *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_LEASE_REQUEST;
    event->member = said->member;
    event->lease_request.slots = said->slots;
}

static void take_lease_return(const Gantry__LeaseReturn *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_LEASE_RETURN;
    event->member = said->member;
    event->lease_return.episode = said->episode;
    event->lease_return.fence = said->fence;
    event->lease_return.reason = (enum lease_return)said->reason;
    event->lease_return.text = plain(said->text);
}

static void take_bye(const Gantry__Bye *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_BYE;
    event->member = said->member;
}

static void take_journaled(const Gantry__Journaled *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_JOURNALED;
    event->journaled.stage = (uint32_t)said->stage;
    event->journaled.iteration = (uint32_t)said->iteration;
    event->journaled.episodes = journaled_episodes(said->episodes, said->n_episodes);
    event->journaled.n_episodes = said->n_episodes;
}

static void take_plan_failed(const Gantry__PlanFailed *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_PLAN_FAILED;
    copy_digest(event->plan_failed.plan_digest, &said->plan_digest);
    event->plan_failed.final = said->final;
    event->plan_failed.text = plain(said->text);
}

static void take_version_state(const Gantry__VersionState *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_VERSION_STATE;
    event->member = said->member;
    event->version_state.kind = version_kind(said->kind);
    event->version_state.version = said->version;
    event->version_state.ready = said->ready;
    event->version_state.text = plain(said->text);
}

static void take_shadow_scored(const Gantry__ShadowScored *said, struct conductor_event *event)
{
    event->kind = CONDUCTOR_SHADOW_SCORED;
    event->member = said->member;
    event->shadow_scored = (struct shadow_report) {
        .episode = said->episode, .version = said->version, .shadow = said->shadow, .frames = said->frames,
        .difference = said->difference, .rank = said->rank, .last = said->last, .shadow_last = said->shadow_last,
    };
}

/* False: not of a kind that a member sends. What is allocated is freed by release_event. */
static bool take_message(const struct message *message, const char *user, struct conductor_event *event)
{
    const void *said = message->body;

    switch (message->envelope.kind) {
    case WIRE_KIND(HELLO): take_hello(said, user, event->from, event); return true;
    case WIRE_KIND(HEARTBEAT): take_heartbeat(said, event); return true;
    case WIRE_KIND(LEASE_REQUEST): take_lease_request(said, event); return true;
    case WIRE_KIND(LEASE_RETURN): take_lease_return(said, event); return true;
    case WIRE_KIND(BYE): take_bye(said, event); return true;
    case WIRE_KIND(JOURNALED): take_journaled(said, event); return true;
    case WIRE_KIND(INVENTORY): take_inventory(said, event); return true;
    case WIRE_KIND(COMMITTED): take_committed(said, event); return true;
    case WIRE_KIND(PLAN_FAILED): take_plan_failed(said, event); return true;
    case WIRE_KIND(VERSION_STATE): take_version_state(said, event); return true;
    case WIRE_KIND(SHADOW_SCORED): take_shadow_scored(said, event); return true;
    default: return false;
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

/* A message names its member: over tcp that must be one who joined with the same key. */
static bool speaks_for(const struct edge *edge, const struct request *request, const struct conductor_event *event)
{
    const struct member *member = event->kind == CONDUCTOR_HELLO
                                      ? NULL
                                      : membership_find((struct membership *)conductor_members(edge->conductor), event->member);

    return !member || !strcmp(member->user, request->user);
}

/* Also the request whose step finds the disk full is asked again by its sender, who finds what it was about done then. */
static void step_or_busy(struct edge *edge, struct request *request, struct conductor_event *event)
{
    if (!edge->full_since_ms)
        edge_step(edge, event);
    if (edge->full_since_ms)
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "no space left in %s: the run is paused", edge->run_dir);
}

void edge_on_request(struct request *request, void *arg)
{
    const struct edge_origin *origin = arg;
    struct edge *edge = origin->edge;
    struct conductor_event event = {
        .from = request->peer | (origin->tcp ? EDGE_TCP_PEER : 0),
        .request = (uint64_t)(uintptr_t)request,
        .wall_ms = clock_wall_ms(),
        .epoch = request->message->envelope.epoch,
    };

    event.member = member_at(edge, event.from);
    if (!take_message(request->message, request->user, &event)) {
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "a coordinator takes no %s message",
                          wire_kind_name(request->message->envelope.kind));
        return;
    }
    if (request_is_one_way(request))
        event.request = 0;
    if (event.kind == CONDUCTOR_HEARTBEAT && speaks_for(edge, request, &event))     /* also while there is no room */
        take_gauges(edge, (const Gantry__Heartbeat *)request->message->body);
    if (event.kind == CONDUCTOR_HELLO && *request->user)
        edge->keys_digest = 0;      /* compare again: by the next tick its key may be out, and the list as it was before it was in */
    if (event.kind == CONDUCTOR_HELLO && request->role && request->role != (Gantry__Role)event.hello.member.role)
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_DENIED, "the key is let in as %s, not as %s",
                          wire_role_name(request->role), wire_role_name((Gantry__Role)event.hello.member.role));
    else if (!speaks_for(edge, request, &event))
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_STALE_EPOCH, "member %u joined with another key: say Hello",
                          event.member);
    else if (!whole(&event))
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_INTERNAL, "out of memory");
    else
        step_or_busy(edge, request, &event);
    release_event(&event);
}
