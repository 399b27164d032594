#include "serve/server.h"

#include <errno.h>
#include <inttypes.h>
#include <sysexits.h>
#include <time.h>

#include "daemon/metrics.h"
#include "nn/cpu/kernels.h"
#include "serve/device_use.h"
#include "serve/numerics.h"
#include "serve/server_internal.h"
#include "version.h"
#include "wire/address.h"
#include "wire/member_keys.h"

enum { TICK_MS = 200, RETRY_MS = 2000, BYE_MS = 2000, DRAIN_MS = 30000 };
enum { HUNG = 10 };     /* times timing.hung_ms: as long as env workers wait at the most (PATIENCE_MOST_MS) where nobody says otherwise */

/* ---- requests -------------------------------------------------------------------------------------------- */

static void leave_if_idle(struct serve *s);

static void answer(struct serve *s, struct serve_job *job)
{
    s->shadow_since++;
    if (serve_shadow_wants(s, job)) {
        (void)wire_reply_and_keep(job->request, job->reply, NULL, 0);
        serve_shadow_take(s, job);
        return;
    }
    if (job->reply)
        (void)wire_reply(job->request, job->reply, NULL, 0);
    else
        (void)wire_refuse(job->request, job->status, "%s", job->text);
    if (job->reply)
        protobuf_c_message_free_unpacked(job->reply, NULL);
    free(job);
}

static void on_job_done(void *arg, struct serve_job *job)
{
    struct serve *s = arg;

    if (holder_put(&s->holder, job->version))
        serve_apply(s, &(struct holder_event) {.kind = HOLDER_TICK});
    if (job->shadow_of)
        serve_shadow_done(s, job);
    else
        answer(s, job);
    serve_shadow_turn(s);
    leave_if_idle(s);
}

static void refuse_version(struct request *request, enum holder_answer answer)
{
    uint64_t version = request->message->envelope.version;

    if (answer == HOLDER_LOADING)
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_LOADING, "version %" PRIu64 " is being loaded", version);
    else
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_WRONG_VERSION, "version %" PRIu64 " is not held here", version);
}

static void on_request(struct request *request, void *arg)
{
    struct serve *s = arg;
    const struct message *message = request->message;
    enum holder_answer answer;
    struct held_model *held;
    struct serve_job *job;
    struct error error = {0};
    int rows;

    if (message->envelope.kind != s->kind->request_kind) {
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "a %s does not answer this kind of request",
                          s->kind->name);
        return;
    }
    if (s->draining) {
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_SHUTTING_DOWN, "the server is leaving; ask another");
        return;
    }
    answer = holder_peek(&s->holder, message->envelope.version);
    held = answer == HOLDER_SERVE ? serve_find_model(s, message->envelope.version) : NULL;
    if (!held) {
        refuse_version(request, answer);
        return;
    }
    rows = s->kind->check(message, held->model, &error);
    if (rows < 0) {
        s->refused++;
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "%s", error_text(&error, rows));
        return;
    }
    job = calloc(1, sizeof *job);
    if (!job || holder_take(&s->holder, held->version) != HOLDER_SERVE) {
        free(job);
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "no memory for the request now");
        return;
    }
    *job = (struct serve_job) {.request = request_take(request), .version = held->version, .model = held->model,
                               .rows = (unsigned)rows, .status = GANTRY__STATUS__STATUS_INTERNAL};
    if (message->envelope.remaining_ms)
        job->deadline_ms = request->received_ms + message->envelope.remaining_ms;
    batcher_add(s->batcher, job);
}

/* ---- membership ------------------------------------------------------------------------------------------ */

static int take_terms(struct serve *s, const char *config, struct error *error)
{
    _cleanup_free_ struct run_config *run = malloc(sizeof *run);
    int r;

    if (!run)
        return error_set(error, ENOMEM, "out of memory");
    r = run_config_parse(config, strlen(config), "Welcome.config", run, error);
    if (r < 0)
        return r;
    s->terms.fast = numerics_fast(run);
    s->terms.image = run->image;
    s->hung_ms = HUNG * (uint64_t)run->hung_ms;
    return 0;
}

static void on_welcome(const Gantry__Welcome *welcome, bool again, void *arg)
{
    struct serve *s = arg;
    struct error error = {0};
    int r = 0;

    log_info(again ? "welcomed again" : "welcomed", "member=%u run=%016" PRIx64 " epoch=%" PRIu64, welcome->member, welcome->run,
             welcome->epoch);
    if (!s->run_dir[0])
        snprintf(s->run_dir, sizeof s->run_dir, "%s", welcome->run_dir);
    if (!again)
        r = serve_look_for_run(s, welcome, &error);
    if (s->kind->on_seed)
        s->kind->on_seed(s->state, welcome->seed);
    if (!again && r == 0)
        r = take_terms(s, welcome->config, &error);
    if (r < 0) {
        log_error("cannot serve this run", "reason=%s", LOG_Q(error_text(&error, r)));
        lifecycle_stop(s->lifecycle, EX_CONFIG);
        return;
    }
    if (!again)
        lifecycle_ready(s->lifecycle);
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_WELCOME});
}

static void fill_heartbeat(Gantry__Heartbeat *heartbeat, void *arg)
{
    struct serve *s = arg;
    struct batcher_totals totals = batcher_totals(s->batcher);
    struct device_seen seen = device_watch(s->lifecycle);
    const struct { const char *name; double value; } now[] = {
        {"requests_total", (double)totals.jobs}, {"rows_total", (double)totals.rows}, {"batches_total", (double)totals.batches},
        {"busy_ms_total", (double)totals.busy_ns / 1e6}, {"in_flight", (double)batcher_in_flight(s->batcher)},
        {"refused_total", (double)s->refused},
        {"rss_peak_bytes", (double)process_peak_rss_bytes()}, {"cpu_ms_total", (double)clock() * 1000 / CLOCKS_PER_SEC},
        {"brought_bytes_total", (double)(s->fetch ? fetch_bytes_total(s->fetch) : 0)},
        {"gemm_fallback_total", (double)seen.fallbacks.gemm}, {"attention_fallback_total", (double)seen.fallbacks.attention},
        {"device_memory_used_bytes", (double)seen.memory_used}, {"device_memory_bytes", (double)seen.memory},
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(now) - (device_process() ? 0 : 4); i++) {
        gantry__gauge__init(&s->gauges[i]);
        s->gauges[i].name = (char *)now[i].name;
        s->gauges[i].value = now[i].value;
        s->gauge_list[i] = &s->gauges[i];
    }
    heartbeat->n_gauges = i;
    heartbeat->gauges = s->gauge_list;
}

static void on_push(const struct message *message, void *arg)
{
    if (message->envelope.kind == GANTRY__KIND__KIND_VERSIONS)
        serve_versions(arg, (const Gantry__Versions *)message->body);
}

static void on_endpoints(Gantry__Endpoint *const *endpoints, size_t n, void *arg)
{
    serve_learners(arg, endpoints, n);
}

static void on_member_drain(const char *reason, void *arg)
{
    struct serve *s = arg;

    lifecycle_drain(s->lifecycle, reason);
}

static void on_state(bool up, void *arg)
{
    struct serve *s = arg;

    if (up)
        log_info("coordinator answers", "member=%u", member_id(s->member));
    else if (!member_id(s->member))
        log_warn("no coordinator answers yet", "address=%s", LOG_Q(wire_client_address(member_client(s->member))));
    else
        log_warn("coordinator is silent, serving on", "in_flight=%u", batcher_in_flight(s->batcher));
}

static void on_refused(int result, const char *text, void *arg)
{
    struct serve *s = arg;

    log_error("refused by the coordinator", "reason=%s", LOG_Q(text && *text ? text : strerror(-result)));
    lifecycle_stop(s->lifecycle, EX_CONFIG);
}

static void on_left(void *arg)
{
    struct serve *s = arg;

    lifecycle_stop(s->lifecycle, member_sent_away(s->member) ? LIFECYCLE_SENT_AWAY : 0);
}

static void leave_if_idle(struct serve *s)
{
    if (!s->draining || s->leaving || batcher_in_flight(s->batcher) > 0)
        return;
    s->leaving = true;
    member_leave(s->member, "drained", BYE_MS, on_left, s);
}

void serve_drain(struct serve *s)
{
    s->draining = true;
    leave_if_idle(s);
}

/* Nobody waits for an answer that long: the device, or a library, hangs, and the thread cannot be called back. */
static void look_for_hang(struct serve *s)
{
    uint64_t ms = batcher_oldest_ms(s->batcher);
    bool hangs = s->hung_ms && ms > s->hung_ms;

    if (hangs && !s->hangs)
        log_error("a batch is computed for longer than anybody waits for it: who watches this process may end it",
                  "seconds=%" PRIu64 " in_flight=%u", ms / 1000, batcher_in_flight(s->batcher));
    s->hangs = hangs;
}

static bool is_well(void *arg)
{
    const struct serve *s = *(struct serve **)arg;

    return !s || !s->hangs;
}

static void on_tick(void *arg)
{
    struct serve *s = arg;

    look_for_hang(s);
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_TICK});
    serve_versions_tick(s);
    serve_shadow_turn(s);
    leave_if_idle(s);
}

/* ---- life ------------------------------------------------------------------------------------------------ */

struct serve *serve_free(struct serve *s)
{
    struct worker *loader;

    if (!s)
        return NULL;
    s->tick = loop_timer_free(s->tick);
    s->member = member_free(s->member); /* no beat, no list of versions from here on */
    s->batcher = batcher_free(s->batcher);
    serve_shadow_clear(s);
    loader = TAKE_PTR(s->loader);
    if (s->fetch)
        fetch_cancel(s->fetch);
    worker_free(loader);
    loop_turn(s->loop, false);          /* batches and a load that had just ended */
    s->fetch = fetch_free(s->fetch);
    s->server = wire_server_free(s->server);
    for (int i = 0; i < HOLDER_MAX; i++)
        if (s->models[i].model)
            s->kind->unload(s->models[i].model);
    if (s->state)
        s->kind->state_free(s->state);
    free(s->cache_root);
    free(s);
    return NULL;
}

static int open_socket(struct serve *s, const struct args *args, struct error *error)
{
    char address[ADDRESS_MAX], name[64];
    int r = 0;

    if (args->listen) {
        snprintf(address, sizeof address, "%s", args->listen);
    } else {
        if (!s->run_dir[0])
            return error_set(error, EINVAL, "give --run-dir (the socket goes there) or --listen ADDRESS");
        snprintf(name, sizeof name, "%s-%d", args->name ? args->name : s->kind->name, (int)getpid());
        r = address_ipc(s->run_dir, name, address, error);
    }
    if (r == 0)
        r = wire_server_new(s->wire, &(struct wire_server_options) {.address = address, .on_request = on_request, .arg = s},
                            &s->server, error);
    return r;
}

int serve_new(struct loop *loop, struct wire *wire, struct lifecycle *lifecycle, const struct serve_kind *kind,
              const struct args *args, const char *server_key, struct serve **ret, struct error *error)
{
    _cleanup_(serve_freep) struct serve *s = calloc(1, sizeof *s);
    unsigned threads = args->threads ? args->threads : 1;
    int r;

    if (!s)
        return error_set(error, ENOMEM, "out of memory");
    *s = (struct serve) {.loop = loop, .wire = wire, .lifecycle = lifecycle, .kind = kind, .terms.lanes = threads};
    snprintf(s->run_dir, sizeof s->run_dir, "%s", args->run_dir ? args->run_dir : "");
    s->cache_root = args->cache ? strdup(args->cache) : NULL;
    r = device_use(args->device ? args->device : "cpu", error);
    if (r < 0)
        return r;
    if (device_process() && device_find_faster(device_process()) < 0)
        return error_set(error, ENOMEM, "out of memory");
    holder_init(&s->holder, RETRY_MS);
    s->state = kind->state_new(threads);
    if (!s->state)
        return error_set(error, ENOMEM, "out of memory");
    r = batcher_new(loop, &(struct batcher_options) {.threads = threads, .max_rows = kind->max_rows, .compute = kind->compute,
                                                     .state = s->state, .done = on_job_done, .arg = s}, &s->batcher);
    if (r == 0)
        r = worker_new("loader", 1, 2 * HOLDER_MAX, &s->loader);
    if (r == 0)
        r = loop_timer_new(loop, TICK_MS, TICK_MS, on_tick, s, &s->tick);
    if (r < 0)
        return error_set(error, -r, "threads: %s", strerror(-r));
    r = open_socket(s, args, error);
    if (r < 0)
        return r;
    r = member_new(wire, &(struct member_options) {
        .join = args->join ? args->join : args->run_dir, .server_key = server_key, .build = GANTRY_BUILD,
        .device = args->device ? args->device : "cpu", .isa = device_process() ? NULL : cpu_kernels()->isa,
        .address = wire_server_address(s->server),
        .on_welcome = on_welcome, .fill_heartbeat = fill_heartbeat, .on_endpoints = on_endpoints, .on_drain = on_member_drain,
        .on_push = on_push, .on_state = on_state, .on_refused = on_refused, .arg = s}, &s->member, error);
    if (r < 0)
        return r;
    log_info("up", "build=%s pid=%d threads=%u address=%s", GANTRY_BUILD, (int)getpid(), threads,
             LOG_Q(wire_server_address(s->server)));
    if (!*wire_client_address(member_client(s->member)))
        log_info("waiting for the coordinator to write its address", "file=%s", LOG_Q(args->join + strlen("file:")));
    *ret = TAKE_PTR(s);
    return 0;
}

static void drain_from_lifecycle(const char *reason _unused_, void *arg)
{
    struct serve **serve = arg;

    if (*serve)
        serve_drain(*serve);
}

/* What is computed for nobody: who had asked for it asks elsewhere, or again. */
static void on_overdue(void *arg)
{
    struct serve *s = *(struct serve **)arg;

    log_warn("a batch takes longer than there is time to leave", "in_flight=%u", batcher_in_flight(s->batcher));
    on_left(s);
}

int serve_main(const struct serve_kind *kind, const struct args *args)
{
    _cleanup_(loop_freep) struct loop *loop = NULL;
    _cleanup_(lifecycle_freep) struct lifecycle *lifecycle = NULL;
    _cleanup_(wire_freep) struct wire *wire = NULL;
    _cleanup_(serve_freep) struct serve *serve = NULL;
    struct error error = {0};
    char server_key[41];
    int r;

    if (!args->join && !args->run_dir) {
        log_error("nothing to join", "remedy=%s", LOG_Q("give --join ENDPOINT or --run-dir DIR"));
        return EX_USAGE;
    }
    r = loop_new(&loop);
    if (r == 0)
        r = lifecycle_new(loop, &(struct lifecycle_options) {.drain_ms = DRAIN_MS, .on_drain = drain_from_lifecycle,
                                                             .on_overdue = on_overdue, .is_well = is_well, .arg = &serve},
                          &lifecycle);
    if (r == 0)
        r = wire_new(loop_uv(loop), kind->role, &wire);
    if (r == 0)
        r = member_keys_load(wire, &(struct member_keys_options) {.key = args->key, .join = args->join, .listen = args->listen,
                                                                  .run_dir = args->run_dir}, server_key, &error);
    if (r == 0)
        r = serve_new(loop, wire, lifecycle, kind, args, server_key, &serve, &error);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(error_text(&error, r)));
        return lifecycle_start_failed(r);
    }
    lifecycle_status(lifecycle, "waiting for the coordinator");
    loop_run(loop);
    return lifecycle_exit_code(lifecycle);
}
