#include "env_worker/edge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/metrics.h"
#include "env_worker/run_simulation.h"

enum {
    TICK_MS = 50,               /* how late a repetition may be */
    ASK_DEADLINE_MS = 5000, ASK_PAUSE_MS = 200, ASK_PAUSE_MIN_MS = 10,
    CREDITS = WIRE_CREDITS,
};

struct edge {
    struct slot_shared shared;
    struct lifecycle *lifecycle;
    struct env_edge_options options;
    struct slot slots[EDGE_SLOTS_MAX];
    struct loop_timer *tick, *ask_again, *give_back;
    bool asking;                /* a LeaseRequest is open */
    bool draining, leaving;
    bool giving_up;             /* deliveries, too: the next time that give_back comes */

    Gantry__Lease *alone;       /* owned: wants the worker to itself, and waits until the others are done; NULL: none does */
    bool playing_alone;

    /* what heartbeats point to */
    Gantry__HeldLease held[EDGE_SLOTS_MAX + 1], *held_list[EDGE_SLOTS_MAX + 1];
    Gantry__Gauge gauges[9], *gauge_list[9];
    uint64_t announced[EDGE_SLOTS_MAX + 1];     /* episodes of the last Hello */
    size_t n_announced;
};

static void ask_for_leases(struct edge *edge);

static unsigned count_busy(const struct edge *edge)
{
    unsigned i, n = 0;

    for (i = 0; i < edge->options.slots; i++)
        n += slot_busy(&edge->slots[i]);
    return n;
}

/* ---- leases -------------------------------------------------------------------------------------------- */

static struct slot *free_slot(struct edge *edge)
{
    unsigned i;

    for (i = 0; i < edge->options.slots; i++)
        if (!slot_busy(&edge->slots[i]))
            return &edge->slots[i];
    return NULL;
}

static void return_lease(struct edge *edge, uint64_t episode, uint64_t fence, const char *text)
{
    edge->shared.totals.returned++;
    request_return(member_client(edge->shared.member), member_id(edge->shared.member), episode, fence, LEASE_GIVEN_BACK, text);
}

/* All of it, words too: it outlives the message that it came with. NULL: out of memory. */
static Gantry__Lease *copy_lease(const Gantry__Lease *lease)
{
    size_t n = gantry__lease__get_packed_size(lease);
    _cleanup_free_ uint8_t *bytes = malloc(n + 1);

    return bytes ? gantry__lease__unpack(NULL, gantry__lease__pack(lease, bytes), bytes) : NULL;
}

static void forget_alone(struct edge *edge)
{
    if (edge->alone)
        gantry__lease__free_unpacked(edge->alone, NULL);
    edge->alone = NULL;
}

static void take_lease(struct edge *edge, const Gantry__Lease *lease)
{
    struct slot *slot = free_slot(edge);

    if (edge->draining || !slot || (lease->alone && edge->alone))
        return_lease(edge, lease->episode, lease->fence, edge->draining ? "draining" : "no free slot");
    else if (!lease->alone)
        slot_lease(slot, lease);
    else if (!(edge->alone = copy_lease(lease)))
        return_lease(edge, lease->episode, lease->fence, "out of memory");
}

static void play_alone_if_empty(struct edge *edge)
{
    if (!edge->alone || count_busy(edge) > 0)
        return;
    edge->playing_alone = true;
    slot_lease(&edge->slots[0], edge->alone);
    edge->playing_alone = slot_busy(&edge->slots[0]);
    forget_alone(edge);
    if (!edge->playing_alone)       /* refused: no slot will fall free of it */
        loop_timer_again(edge->ask_again, 0, 0);
}

static void on_grant(int result, const struct message *reply, void *arg)
{
    struct edge *edge = arg;
    const Gantry__LeaseGrant *grant;
    uint32_t pause = ASK_PAUSE_MS;
    size_t i;

    edge->asking = false;
    if (result == 0) {
        grant = (const Gantry__LeaseGrant *)reply->body;
        for (i = 0; i < grant->n_leases; i++)
            take_lease(edge, grant->leases[i]);
        if (grant->n_leases > 0)
            loop_timer_again(edge->tick, TICK_MS, TICK_MS);
        play_alone_if_empty(edge);
        if (grant->drain)
            env_edge_drain(edge, "the coordinator drains");
        if (grant->n_leases > 0) {
            ask_for_leases(edge);
            return;
        }
        pause = grant->retry_ms ? MAX(grant->retry_ms, (uint32_t)ASK_PAUSE_MIN_MS) : ASK_PAUSE_MS;
    }
    if (edge->ask_again)
        loop_timer_again(edge->ask_again, pause, 0);
}

static void ask_for_leases(struct edge *edge)
{
    Gantry__LeaseRequest body = GANTRY__LEASE_REQUEST__INIT;
    unsigned idle = edge->options.slots - count_busy(edge);

    if (edge->asking || edge->draining || edge->alone || edge->playing_alone || idle == 0 || !edge->shared.simulation ||
        !member_joined(edge->shared.member))
        return;
    body.member = member_id(edge->shared.member);
    body.slots = idle;
    if (wire_call(member_client(edge->shared.member), &(struct wire_call) {
            .kind = GANTRY__KIND__KIND_LEASE_REQUEST, .body = &body.base, .deadline_ms = ASK_DEADLINE_MS,
            .on_reply = on_grant, .arg = edge,
        }, NULL) < 0)
        loop_timer_again(edge->ask_again, ASK_PAUSE_MS, 0);
    else
        edge->asking = true;
}

static void on_ask_again(void *arg) { ask_for_leases(arg); }

/* ---- leaving ------------------------------------------------------------------------------------------- */

static void on_left(void *arg)
{
    struct edge *edge = arg;

    lifecycle_stop(edge->lifecycle, member_sent_away(edge->shared.member) ? LIFECYCLE_SENT_AWAY : 0);
}

static void leave_if_empty(struct edge *edge)
{
    unsigned busy = count_busy(edge);

    if (!edge->draining || edge->leaving)
        return;
    lifecycle_status(edge->lifecycle, "draining: %u episodes in hand", busy);
    if (busy > 0)
        return;
    edge->leaving = true;
    member_leave(edge->shared.member, "drained", EDGE_BYE_MS, on_left, edge);
}

/* Time is up: what is being played goes back; what is being delivered has a little more. */
static void on_give_back(void *arg)
{
    struct edge *edge = arg;
    unsigned i;

    for (i = 0; i < edge->options.slots; i++)
        if (edge->giving_up || edge->slots[i].player.phase != PLAYER_DELIVERING)
            slot_give_up(&edge->slots[i], edge->giving_up ? "drain: no learner has taken it" : "drain");
    if (!edge->giving_up)
        loop_timer_again(edge->give_back, edge->options.give_up_ms - edge->options.give_back_ms, 0);
    edge->giving_up = true;
    leave_if_empty(edge);
}

void env_edge_drain(struct edge *edge, const char *reason)
{
    if (edge->draining)
        return;
    edge->draining = true;
    if (edge->alone)
        return_lease(edge, edge->alone->episode, edge->alone->fence, "drain");
    forget_alone(edge);
    loop_timer_again(edge->give_back, edge->options.give_back_ms, 0);
    loop_timer_again(edge->tick, TICK_MS, TICK_MS);
    lifecycle_drain(edge->lifecycle, reason);
    leave_if_empty(edge);
}

static void on_slot_free(struct slot *slot, void *arg)
{
    struct edge *edge = arg;

    if (slot == &edge->slots[0])
        edge->playing_alone = false;
    /* not from inside the player's step: the slot's effects may not be through yet */
    loop_timer_again(edge->ask_again, 0, 0);
}

static void on_tick(void *arg)
{
    struct edge *edge = arg;
    unsigned i;

    for (i = 0; i < edge->options.slots; i++)
        slot_tick(&edge->slots[i]);
    play_alone_if_empty(edge);
    leave_if_empty(edge);
    if (count_busy(edge) == 0 && !edge->draining)
        loop_timer_stop(edge->tick);    /* the next lease starts it again */
}

/* ---- membership ------------------------------------------------------------------------------------------ */

static size_t list_held(struct edge *edge)
{
    size_t n = 0;
    unsigned i;

    for (i = 0; i < edge->options.slots; i++) {
        const struct player *player = &edge->slots[i].player;

        if (!player_busy(player))
            continue;
        gantry__held_lease__init(&edge->held[n]);
        edge->held[n].episode = player->terms.episode;
        edge->held[n].fence = player->terms.fence;
        edge->held[n].waits = slot_waits(&edge->slots[i]);
        edge->held[n].played = player->step;
        edge->held[n++].step = player_progress(player);
    }
    if (edge->alone) {
        gantry__held_lease__init(&edge->held[n]);
        edge->held[n].episode = edge->alone->episode;
        edge->held[n++].fence = edge->alone->fence;
    }
    for (i = 0; i < n; i++)
        edge->held_list[i] = &edge->held[i];
    return n;
}

static void fill_hello(Gantry__Hello *hello, void *arg)
{
    struct edge *edge = arg;
    size_t i;

    hello->n_leases = edge->n_announced = list_held(edge);
    hello->leases = edge->held_list;
    for (i = 0; i < edge->n_announced; i++)
        edge->announced[i] = edge->held[i].episode;
}

static void fill_heartbeat(Gantry__Heartbeat *heartbeat, void *arg)
{
    struct edge *edge = arg;
    const struct slot_totals *totals = &edge->shared.totals;
    const struct { const char *name; double value; } now[] = {
        { "steps_total", (double)totals->steps }, { "candidate_steps_total", (double)totals->candidate_steps },
        { "episodes_total", (double)totals->episodes }, { "returned_total", (double)totals->returned },
        { "sim_ms_total", (double)totals->sim_us / 1000 }, { "sim_wall_ms_total", (double)totals->sim_wall_us / 1000 },
        { "act_ms_total", (double)totals->act_wait_us / 1000 },
        { "rss_peak_bytes", (double)process_peak_rss_bytes() }, { "cpu_ms_total", (double)clock() * 1000 / CLOCKS_PER_SEC },
    };
    size_t i;

    heartbeat->n_leases = list_held(edge);
    heartbeat->leases = edge->held_list;
    for (i = 0; i < ARRAY_SIZE(now); i++) {
        gantry__gauge__init(&edge->gauges[i]);
        edge->gauges[i].name = (char *)now[i].name;
        edge->gauges[i].value = now[i].value;
        edge->gauge_list[i] = &edge->gauges[i];
    }
    heartbeat->n_gauges = ARRAY_SIZE(now);
    heartbeat->gauges = edge->gauge_list;
}

static void end_lease(struct edge *edge, uint64_t episode)
{
    unsigned i;

    for (i = 0; i < edge->options.slots; i++)
        slot_revoke(&edge->slots[i], episode);
    if (edge->alone && edge->alone->episode == episode) {
        forget_alone(edge);
        loop_timer_again(edge->ask_again, 0, 0);
    }
}

static bool plays(struct edge *edge, uint64_t episode)
{
    for (unsigned i = 0; i < edge->options.slots; i++)
        if (slot_busy(&edge->slots[i]) && edge->slots[i].player.terms.episode == episode &&
            edge->slots[i].player.phase != PLAYER_DELIVERING)
            return true;
    return edge->alone && edge->alone->episode == episode;
}

/* Ordinary for what is delivered: it is journaled, and so its lease over, before our heartbeat with it has arrived. */
static void on_revoked(const uint64_t *episodes, size_t n, void *arg)
{
    for (size_t i = 0; i < n; i++) {
        if (plays(arg, episodes[i]))
            log_info("lease revoked", "episode=%" PRIu64, episodes[i]);
        else
            log_debug("lease revoked after its delivery", "episode=%" PRIu64, episodes[i]);
        end_lease(arg, episodes[i]);
    }
}

/* Of the leases we announced, those the coordinator does not keep have ended. */
static void drop_lost_leases(struct edge *edge, const Gantry__Welcome *welcome)
{
    size_t i, k;

    for (i = 0; i < edge->n_announced; i++) {
        for (k = 0; k < welcome->n_kept_leases && welcome->kept_leases[k] != edge->announced[i]; k++)
            ;
        if (k == welcome->n_kept_leases)
            on_revoked(&edge->announced[i], 1, edge);
    }
    edge->n_announced = 0;
}

static void on_welcome(const Gantry__Welcome *welcome, bool again, void *arg)
{
    struct edge *edge = arg;
    struct error error = {0};
    int r;

    log_info(again ? "welcomed again" : "welcomed", "member=%u run=%016" PRIx64 " epoch=%" PRIu64, welcome->member,
             welcome->run, welcome->epoch);
    edge->shared.seed = welcome->seed;
    edge->shared.servers.offset = welcome->member;
    if (again)
        drop_lost_leases(edge, welcome);
    if (!edge->shared.simulation) {
        r = run_simulation_open(&edge->shared, welcome->config, edge->options.device, edge->options.simulator, &error);
        if (r < 0) {
            log_error("cannot simulate", "reason=%s", LOG_Q(error_text(&error, r)));
            lifecycle_stop(edge->lifecycle, EX_CONFIG);
            return;
        }
        lifecycle_ready(edge->lifecycle);
    }
    loop_timer_again(edge->ask_again, 0, 0);
}

static void on_endpoints(Gantry__Endpoint *const *endpoints, size_t n, void *arg)
{
    struct edge *edge = arg;
    struct error error = {0};
    unsigned refused = servers_update(&edge->shared.servers, endpoints, n, &error);

    if (refused)
        log_warn("servers left out", "n=%u reason=%s", refused, LOG_Q(error.text));
}

static void on_state(bool up, void *arg)
{
    struct edge *edge = arg;

    if (up)
        log_info("coordinator answers", "member=%u", member_id(edge->shared.member));
    else if (!member_id(edge->shared.member))
        log_warn("no coordinator answers yet", "address=%s", LOG_Q(wire_client_address(member_client(edge->shared.member))));
    else
        log_warn("coordinator is silent, playing on", "busy=%u", count_busy(edge));
}

static void on_push(const struct message *message, void *arg)
{
    if (message->envelope.kind == WIRE_KIND(WORK))
        ask_for_leases(arg);
}

static void on_drain(const char *reason, void *arg) { env_edge_drain(arg, reason); }

static void on_refused(int result, const char *text, void *arg)
{
    struct edge *edge = arg;

    log_error("refused by the coordinator", "reason=%s", LOG_Q(text && *text ? text : strerror(-result)));
    lifecycle_stop(edge->lifecycle, EX_CONFIG);
}

/* ---- life ------------------------------------------------------------------------------------------------- */

const struct slot *env_edge_slot(const struct edge *edge, unsigned index)
{
    return edge->shared.simulation && index < edge->options.slots ? &edge->slots[index] : NULL;
}

struct edge *env_edge_free(struct edge *edge)
{
    if (!edge)
        return NULL;
    edge->draining = true;
    edge->tick = loop_timer_free(edge->tick);
    for (unsigned i = 0; i < edge->options.slots; i++)
        slot_release(&edge->slots[i]);
    edge->shared.simulation = simulation_free(edge->shared.simulation);     /* its last jobs come back to slots that are there */
    forget_alone(edge);
    servers_release(&edge->shared.servers);
    edge->shared.member = member_free(edge->shared.member);
    edge->ask_again = loop_timer_free(edge->ask_again);
    edge->give_back = loop_timer_free(edge->give_back);
    free(edge);
    return NULL;
}

int env_edge_new(struct loop *loop, struct wire *wire, struct lifecycle *lifecycle, const struct env_edge_options *options,
                 struct edge **ret, struct error *error)
{
    _cleanup_(env_edge_freep) struct edge *edge = calloc(1, sizeof(*edge));
    struct member_options member = {
        .join = options->join, .server_key = options->server_key, .name = options->name, .build = options->build,
        .slots = options->slots, .device = "cpu",
        .on_welcome = on_welcome, .fill_hello = fill_hello, .fill_heartbeat = fill_heartbeat, .on_endpoints = on_endpoints,
        .on_revoked = on_revoked, .on_drain = on_drain, .on_push = on_push, .on_state = on_state, .on_refused = on_refused,
        .arg = edge,
    };
    unsigned i;
    int r;

    if (!edge)
        return error_set(error, ENOMEM, "out of memory");
    if (options->slots < 1 || options->slots > EDGE_SLOTS_MAX)
        return error_set(error, EINVAL, "--slots %u: 1 to %d", options->slots, EDGE_SLOTS_MAX);
    edge->options = *options;
    edge->options.give_back_ms = options->give_back_ms ? options->give_back_ms : EDGE_GIVE_BACK_MS;
    edge->options.give_up_ms = MAX(options->give_up_ms ? options->give_up_ms : EDGE_GIVE_UP_MS, edge->options.give_back_ms);
    edge->lifecycle = lifecycle;
    edge->shared = (struct slot_shared) {
        .loop = loop, .wire = wire, .slots = options->slots, .on_free = on_slot_free, .arg = edge,
        .servers = { .wire = wire, .credits = CREDITS },
    };
    for (i = 0; i < options->slots; i++)
        slot_init(&edge->slots[i], &edge->shared, i);

    r = loop_timer_new(loop, TICK_MS, TICK_MS, on_tick, edge, &edge->tick);
    if (r == 0)
        r = loop_timer_new(loop, UINT32_MAX, 0, on_ask_again, edge, &edge->ask_again);
    if (r == 0)
        r = loop_timer_new(loop, UINT32_MAX, 0, on_give_back, edge, &edge->give_back);
    if (r < 0)
        return error_set(error, -r, "timers: %s", strerror(-r));
    loop_timer_stop(edge->ask_again);
    loop_timer_stop(edge->give_back);
    r = member_new(wire, &member, &edge->shared.member, error);
    if (r < 0)
        return r;
    if (!*wire_client_address(member_client(edge->shared.member)))
        log_info("waiting for the coordinator to write its address", "file=%s", LOG_Q(options->join + strlen("file:")));
    *ret = TAKE_PTR(edge);
    return 0;
}
