#include "learner/edge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/metrics.h"
#include "learner/edge_internal.h"
#include "proto/trajectory.pb-c.h"
#include "run/rundir.h"
#include "nn/cpu/kernels.h"
#include "serve/device_use.h"
#include "wire/address.h"

enum { TICK_MS = 200, BYE_MS = 2000, CREDITS = 256 };

/* ---- workers ------------------------------------------------------------------------------------------ */

static void on_request(struct request *request, void *arg)
{
    struct edge *edge = arg;
    struct intake_event event;
    struct admission terms;
    uint64_t episode;

    if (request->message->envelope.kind == GANTRY__KIND__KIND_REDUCE && edge->collective) {
        collective_request(edge->collective, request);
        return;
    }
    if (request->message->envelope.kind == GANTRY__KIND__KIND_WEIGHTS && edge->rank == 0) {
        if (edge->weights)
            weights_request(edge->weights, request);
        else
            wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "the learner is not welcomed yet");
        return;
    }
    if (request->message->envelope.kind != GANTRY__KIND__KIND_DELIVER) {
        wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "a learner takes deliver and weights, not %s",
                    wire_kind_name(request->message->envelope.kind));
        return;
    }
    if (!edge->intake || edge->draining) {
        wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "the learner is %s", edge->draining ? "leaving" : "not welcomed yet");
        return;
    }
    episode = ((const Gantry__Trajectory *)request->message->body)->episode;
    terms = (struct admission) {edge->config, edge_rl(edge, intake_stage_of(edge->intake, episode)), edge->shape};
    if (delivery_take(&edge->deliveries, request, &terms, &event) < 0) {
        wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "out of memory");
        return;
    }
    edge_step(edge, &event);
}

/* ---- the coordinator ------------------------------------------------------------------------------------- */

static void on_welcome(const Gantry__Welcome *welcome, bool again, void *arg)
{
    struct edge *edge = arg;
    struct error error = {0};
    int r;

    log_info(again ? "welcomed again" : "welcomed", "member=%u run=%016" PRIx64 " epoch=%" PRIu64, welcome->member, welcome->run,
             welcome->epoch);
    if (!edge->opened) {
        r = edge_open(edge, welcome, &error);
        if (r < 0) {
            log_error("cannot open the run directory", "reason=%s", LOG_Q(error_text(&error, r)));
            lifecycle_stop(edge->lifecycle, lifecycle_start_failed(r));
            return;
        }
        edge->opened = true;
        lifecycle_ready(edge->lifecycle);
    }
    if (edge->intake)
        edge_step(edge, &(struct intake_event) {.kind = INTAKE_WELCOME, .epoch = welcome->epoch});
}

static void gauge(struct edge *edge, Gantry__Heartbeat *heartbeat, const char *name, double value)
{
    size_t i = heartbeat->n_gauges;

    if (i == ARRAY_SIZE(edge->gauges))
        return;
    gantry__gauge__init(&edge->gauges[i]);
    edge->gauges[i].name = (char *)name;
    edge->gauges[i].value = value;
    edge->gauge_list[i] = &edge->gauges[i];
    heartbeat->gauges = edge->gauge_list;
    heartbeat->n_gauges = i + 1;
}

/* Nothing else would tell of a rank that hangs, or is away: the others wait, each alive and well. */
static void say_late(struct edge *edge)
{
    uint32_t late = collective_late(edge->collective, clock_mono_ms());
    char ranks[2 * COLLECTIVE_RANKS_MAX + 1] = "";
    size_t n = 0;

    for (unsigned i = 0; i < COLLECTIVE_RANKS_MAX; i++)
        if (late >> i & 1)
            n += (size_t)snprintf(ranks + n, sizeof ranks - n, n ? ",%u" : "%u", i);
    if (late && late != edge->late)
        log_warn("gradients wait for other learner ranks", "ranks=%s seconds=%d", ranks, COLLECTIVE_LATE_MS / 1000);
    edge->late = late;
}

static void fill_heartbeat(Gantry__Heartbeat *heartbeat, void *arg)
{
    struct edge *edge = arg;
    long done, total;

    gauge(edge, heartbeat, "rss_peak_bytes", (double)process_peak_rss_bytes());
    gauge(edge, heartbeat, "cpu_ms_total", (double)clock() * 1000 / CLOCKS_PER_SEC);
    if (device_process()) {
        struct device_seen seen = device_watch(edge->lifecycle);

        gauge(edge, heartbeat, "gemm_fallback_total", (double)seen.fallbacks.gemm);
        gauge(edge, heartbeat, "attention_fallback_total", (double)seen.fallbacks.attention);
        gauge(edge, heartbeat, "device_memory_used_bytes", (double)seen.memory_used);
        gauge(edge, heartbeat, "device_memory_bytes", (double)seen.memory);
    }
    if (!edge->train_thread)
        return;
    gauge(edge, heartbeat, "samples_total", (double)train_thread_samples(edge->train_thread));
    if (train_thread_busy(edge->train_thread, &done, &total) && total > 0) {
        gauge(edge, heartbeat, "train_done", (double)done);
        gauge(edge, heartbeat, "train_total", (double)total);
    }
    if (edge->collective) {
        say_late(edge);
        gauge(edge, heartbeat, "waits_for_ranks", edge->late);
    }
    gauge(edge, heartbeat, "train_ms_total", (double)train_thread_ms(edge->train_thread));
    if (edge->weights)
        gauge(edge, heartbeat, "weights_bytes_total", (double)weights_sent(edge->weights));
    if (edge->journal)
        gauge(edge, heartbeat, "journal_bytes", (double)journal_bytes(edge->journal));
    if (edge->journal_thread)
        gauge(edge, heartbeat, "disk_full", edge->disk_full || journal_thread_full(edge->journal_thread));
}

/* Ranks above 0 must know where rank 0 serves. */
static void on_endpoints(Gantry__Endpoint *const *endpoints, size_t n, void *arg)
{
    struct edge *edge = arg;
    struct error error = {0};

    for (size_t i = 0; i < n && edge->rank > 0 && edge->collective; i++)
        if (endpoints[i]->role == GANTRY__ROLE__ROLE_LEARNER && endpoints[i]->rank == 0 &&
            collective_connect(edge->collective, endpoints[i]->address, endpoints[i]->public_key, &error) < 0)
            log_error("rank 0 cannot be reached", "address=%s reason=%s", endpoints[i]->address, LOG_Q(error.text));
}

static void on_state(bool up, void *arg)
{
    struct edge *edge = arg;

    if (edge->draining)
        return;
    if (up)
        log_info("coordinator answers", "member=%u", member_id(edge->member));
    else if (!member_id(edge->member))
        log_warn("no coordinator answers yet", "address=%s", LOG_Q(wire_client_address(member_client(edge->member))));
    else
        log_warn("coordinator is silent, still taking deliveries", "waiting=%zu", edge->deliveries.n);
}

static void on_drain(const char *reason, void *arg)
{
    struct edge *edge = arg;

    lifecycle_drain(edge->lifecycle, reason);
}

static void on_refused(int result, const char *text, void *arg)
{
    struct edge *edge = arg;

    log_error("refused by the coordinator", "reason=%s", LOG_Q(text && *text ? text : strerror(-result)));
    lifecycle_stop(edge->lifecycle, EX_CONFIG);
}

static void on_tick(void *arg)
{
    struct edge *edge = arg;
    struct intake_status status;
    long done, total;

    if (!edge->intake)
        return;
    edge_step(edge, &(struct intake_event) {.kind = INTAKE_TICK});
    intake_status(edge->intake, &status);
    if (train_thread_busy(edge->train_thread, &done, &total))
        lifecycle_status(edge->lifecycle, "training, minibatch %ld of %ld", done, total);
    else
        lifecycle_status(edge->lifecycle, "%zu of %zu episodes are in", status.journaled, status.open);
}

/* ---- life --------------------------------------------------------------------------------------------------- */

static void on_left(void *arg)
{
    struct edge *edge = arg;

    lifecycle_stop(edge->lifecycle, 0);
}

void edge_drain(struct edge *edge, const char *reason)
{
    if (edge->draining)
        return;
    edge->draining = true;
    if (edge->member)
        member_leave(edge->member, reason, BYE_MS, on_left, edge);
    else
        lifecycle_stop(edge->lifecycle, 0);
}

struct edge *edge_free(struct edge *edge)
{
    if (!edge)
        return NULL;
    edge->draining = true;
    edge->tick = loop_timer_free(edge->tick);
    edge_close(edge);
    edge->server = wire_server_free(edge->server);
    edge->member = member_free(edge->member);
    free(edge);
    return NULL;
}

/* Before anybody hears of us: a second learner would take the first one's place at the coordinator, and only then find its lock
 * held. Where there is no run yet nothing is left behind: edge_open sees to it. */
static int claim(struct edge *edge, struct error *error)
{
    char path[RUN_PATH];
    int r = edge->run_dir[0] && edge->rank == 0 ? rundir_path(edge->run_dir, "config.yaml", path, error) : -ENOENT;

    if (r == -ENOENT || (r >= 0 && access(path, F_OK) < 0))
        return 0;
    return r < 0 ? r : rundir_lock(edge->run_dir, LEARNER_LOCK, &edge->lock, error);
}

static int serve(struct edge *edge, const char *listen, struct error *error)
{
    char address[ADDRESS_MAX], name[32];
    int r = 0;

    snprintf(name, sizeof name, "learner-%u", edge->rank);
    if (listen)
        snprintf(address, sizeof address, "%s", listen);
    else if (edge->run_dir[0])
        r = address_ipc(edge->run_dir, name, address, error);
    else
        return error_set(error, EINVAL, "where to listen? give --run-dir DIR (a socket there) or --listen ADDRESS");
    if (r >= 0)
        r = wire_server_new(edge->wire, &(struct wire_server_options) {.address = address, .credits = CREDITS,
                                                                       .on_request = on_request, .arg = edge},
                            &edge->server, error);
    if (r >= 0)
        snprintf(edge->address, sizeof edge->address, "%s", wire_server_address(edge->server));
    return r;
}

int edge_new(struct loop *loop, struct wire *wire, struct lifecycle *lifecycle, const struct edge_options *options,
             struct edge **ret, struct error *error)
{
    _cleanup_(edge_freep) struct edge *edge = calloc(1, sizeof *edge);
    int r;

    if (!edge)
        return error_set(error, ENOMEM, "out of memory");
    edge->loop = loop;
    edge->wire = wire;
    edge->lifecycle = lifecycle;
    edge->threads = options->threads;
    edge->rank = options->rank;
    edge->lock = -1;
    if (options->run_dir && access(options->run_dir, W_OK) < 0)
        return error_set(error, errno, "--run-dir %s: %s", options->run_dir, strerror(errno));
    snprintf(edge->run_dir, sizeof edge->run_dir, "%s", options->run_dir ? options->run_dir : "");
    r = claim(edge, error);
    if (r < 0)
        return r;
    r = serve(edge, options->listen, error);
    if (r < 0)
        return r;
    r = loop_timer_new(loop, TICK_MS, TICK_MS, on_tick, edge, &edge->tick);
    if (r < 0)
        return error_set(error, -r, "timer: %s", strerror(-r));
    r = member_new(wire, &(struct member_options) {
        .join = options->join, .server_key = options->server_key, .build = options->build, .device = options->device,
        .isa = device_process() ? NULL : cpu_kernels()->isa,
        .address = edge->address, .rank = options->rank,
        .on_welcome = on_welcome, .fill_heartbeat = fill_heartbeat, .on_drain = on_drain, .on_push = edge_push,
        .on_state = on_state, .on_endpoints = on_endpoints,
        .on_refused = on_refused, .arg = edge }, &edge->member, error);
    if (r < 0)
        return r;
    if (!*wire_client_address(member_client(edge->member)))
        log_info("waiting for the coordinator to write its address", "file=%s", LOG_Q(options->join + strlen("file:")));
    *ret = TAKE_PTR(edge);
    return 0;
}
