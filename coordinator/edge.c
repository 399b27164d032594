/* edge.c - the coordinator's life: made from configuration and ledger, driven by the loop, one event at a time. */
#include "coordinator/edge.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/drain_mark.h"
#include "coordinator/summary.h"
#include "daemon/run_later.h"
#include "run/manifest.h"
#include "version.h"
#include "wire/address.h"
#include "wire/security.h"

/* ---- making ---------------------------------------------------------------------------------------- */

static void say_warning(const char *line, void *arg)
{
    (void)arg;
    log_warn("the configuration is allowed, and likely a mistake", "text=%s", LOG_Q(line));
}

static int load_config(struct edge *edge, const char *config_path, const char *run_dir, struct error *error)
{
    char path[RUN_PATH];
    int r = 0;

    if (!config_path) {
        r = rundir_path(run_dir ? run_dir : ".", "config.yaml", path, error);
        config_path = path;
    }
    if (r == 0)
        r = run_config_load(config_path, &edge->config, error);
    if (r == 0 && run_config_all_tasks(&edge->config))
        r = error_set(error, EINVAL, "%s: suite.tasks: [all] is for `gantry up`; `gantry config show` prints this file with their names",
                      config_path);
    if (r == 0 && run_dir &&
        (size_t)snprintf(edge->config.dir, sizeof edge->config.dir, "%s", run_dir) >= sizeof edge->config.dir)
        r = error_set(error, ENAMETOOLONG, "--run-dir %s: path too long", run_dir);
    if (r == 0)
        run_config_warnings(&edge->config, say_warning, NULL);
    return r;
}

/* The run directory, ours alone. */
static int claim_run_dir(struct edge *edge, struct error *error)
{
    _cleanup_free_ char *absolute = NULL;
    int r = rundir_prepare(edge->config.dir, error);

    if (r < 0)
        return r;
    absolute = realpath(edge->config.dir, NULL);
    if (!absolute || (size_t)snprintf(edge->run_dir, sizeof edge->run_dir, "%s", absolute) >= sizeof edge->run_dir)
        return error_set(error, absolute ? ENAMETOOLONG : errno, "run.dir %s: cannot be resolved", edge->config.dir);
    return rundir_lock(edge->run_dir, "coordinator.lock", &edge->lock_fd, error);
}

/* As the run goes on, by its own config.yaml; in a new run paths become absolute. One that cannot be read is the ledger's to
 * judge. */
static int settle_config(struct edge *edge, struct error *error)
{
    _cleanup_free_ struct run_config *own = malloc(sizeof *own);
    char path[RUN_PATH], here[PATH_MAX];
    int added, r = rundir_path(edge->run_dir, "config.yaml", path, error);

    if (r < 0)
        return r;
    if (!own)
        return error_set(error, ENOMEM, "out of memory");
    if (access(path, F_OK) == 0)
        return run_config_load(path, own, NULL) == 0 ? run_later_join(edge->run_dir, own, &edge->config, &added, error) : 0;
    if ((r = rundir_path(edge->run_dir, "ledger.sqlite", path, error)) < 0 || access(path, F_OK) == 0)
        return r;
    if (!getcwd(here, sizeof here))
        return error_set(error, errno, "current directory: %s", strerror(errno));
    return run_config_anchor(&edge->config, here, error);
}

static int write_settings(struct edge *edge, int first, struct error *error)
{
    for (int i = first; i < edge->config.n_stages; i++) {
        _cleanup_(strbuf_release) struct strbuf settings = STRBUF_INIT;

        if (stage_config_write(&edge->config.stages[i], &settings) < 0 || !(edge->stage_settings[i] = strbuf_detach(&settings)))
            return error_set(error, ENOMEM, "out of memory");
    }
    return 0;
}

static int write_texts(struct edge *edge, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;

    if (run_config_write(&edge->config, &text) < 0 || !(edge->config_text = strbuf_detach(&text)))
        return error_set(error, ENOMEM, "out of memory");
    return write_settings(edge, 0, error);
}

/* Who lost the coordinator tries to connect each second at the latest (lib/wire/socket.c), then says Hello. */
enum { REJOIN_MS = 3000 };

/* Eval stages that `gantry eval` asked for after the run's own. They are no part of the configuration the run was started with:
 * its digest, config.yaml and summary.json leave them out. */
static int append_later_stages(struct edge *edge, struct error *error)
{
    int r;

    edge->n_config_stages = edge->config.n_stages;
    r = run_later_append(edge->run_dir, &edge->config, error);
    return r < 0 ? r : write_settings(edge, edge->n_config_stages, error);
}

/* Only once the ledger has accepted the configuration: a refused start changes nothing. */
static int save_config(struct edge *edge, struct error *error)
{
    char path[RUN_PATH];
    int r = rundir_path(edge->run_dir, "config.yaml", path, error);

    if (r == 0 && (r = atomic_file_write(path, edge->config_text, strlen(edge->config_text))) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r));
    return r;
}

/* A run that has begun waits for room, as it does while it is up (edge_step.c); one that has not is not begun. */
static int no_room(const struct edge *edge, struct error *error)
{
    struct error why = *error;
    char first[RUN_PATH];
    bool begun = edge->run_dir[0] && rundir_path(edge->run_dir, "policies/v000000/manifest.json", first, NULL) == 0 &&
        access(first, F_OK) == 0;

    return error_set(error, begun ? EAGAIN : ENOSPC, "no space left in %s: make room there%s (%.300s)",
                     edge->run_dir[0] ? edge->run_dir : edge->config.dir,
                     begun ? "" : ", or put run.dir elsewhere", error_text(&why, -ENOSPC));
}

int edge_new(const char *config_path, const char *run_dir, struct edge **ret, struct error *error)
{
    _cleanup_(edge_freep) struct edge *edge = calloc(1, sizeof *edge);
    char path[RUN_PATH];
    int r;

    if (!edge)
        return error_set(error, ENOMEM, "out of memory");
    edge->lock_fd = -1;
    strbuf_init(&edge->curve);
    strbuf_init(&edge->tasks);
    edge->started_ms = clock_mono_ms();
    edge->from_ipc = (struct edge_origin) {.edge = edge};
    edge->from_tcp = (struct edge_origin) {.edge = edge, .tcp = true};
    r = load_config(edge, config_path, run_dir, error);
    if (r == 0)
        r = claim_run_dir(edge, error);
    if (r == 0)
        r = settle_config(edge, error);
    if (r == 0)
        r = write_texts(edge, error);
    if (r == 0)
        r = edge_ledger_open(edge, error);
    if (r == 0)
        r = save_config(edge, error);
    if (r == 0)
        r = edge_ledger_extend(edge, error);
    if (r == 0)
        r = append_later_stages(edge, error);
    if (r == 0)
        r = edge_ledger_restore(edge, error);
    if (r < 0)
        return error_is_no_space(r) ? no_room(edge, error) : r;
    if (rundir_path(edge->run_dir, "tb", path, NULL) == 0 && tensorboard_open(path, &edge->tensorboard) < 0)
        log_warn("no TensorBoard file; the curves are in the ledger all the same", "dir=%s", LOG_Q(path));
    *ret = TAKE_PTR(edge);
    return 0;
}

struct edge *edge_free(struct edge *edge)
{
    if (!edge)
        return NULL;
    edge->tick = loop_timer_free(edge->tick);
    edge->leave = loop_timer_free(edge->leave);
    edge->ending = loop_timer_free(edge->ending);
    edge->drain_again = loop_timer_free(edge->drain_again);
    edge->admin = admin_free(edge->admin);
    edge->http = http_free(edge->http);
    edge->tcp = wire_server_free(edge->tcp);
    edge->ipc = wire_server_free(edge->ipc);
    edge->wire = wire_free(edge->wire);
    if (edge->lifecycle)                /* the others end before us */
        address_socket_dir_leave(edge->run_dir);
    edge->lifecycle = lifecycle_free(edge->lifecycle);
    edge->metrics = metrics_free(edge->metrics);
    edge->tensorboard = tensorboard_close(edge->tensorboard);
    edge->conductor = conductor_free(edge->conductor);
    conductor_effects_release(&edge->effects);
    edge->ledger = ledger_close(edge->ledger);
    for (int i = 0; i < edge->config.n_stages; i++)
        free((char *)edge->stage_settings[i]);
    free(edge->config_text);
    gauges_release(&edge->gauges);
    strbuf_release(&edge->curve);
    strbuf_release(&edge->tasks);
    closep(&edge->lock_fd);
    free(edge);
    return NULL;
}

/* ---- sockets --------------------------------------------------------------------------------------- */

static void on_tick(void *arg)
{
    struct conductor_event event = {.kind = CONDUCTOR_TICK};
    struct edge *edge = arg;

    edge_step_again(edge);
    edge_step(edge, &event);
    edge_keys_tick(edge);
    edge_look(edge);
}

static void on_drain(const char *reason, void *arg) { edge_drain(arg, reason); }

/* It is a person's, and so as patient as the first was. Whoever is not back by then is told nothing and stays. */
static void drain_again(void *arg)
{
    (void)lifecycle_drain_command(((struct edge *)arg)->lifecycle, "asked of this unit's life before", 0, NULL);
}

/* Episodes are played anew and the update is made anew by the run's next life: nothing is lost but the time. */
static void on_overdue(void *arg)
{
    struct conductor_status status;
    struct edge *edge = arg;

    conductor_status(edge->conductor, &status);
    log_warn("the drain's time is over, what is in hand is left for the next start", "episodes=%" PRIu64 " training=%s",
             status.leased, status.training ? LOG_Q(status.name) : "nothing");
    edge_leave(edge);
}

static int start_servers(struct edge *edge, struct error *error)
{
    struct wire_server_options options = {.on_request = edge_on_request, .arg = &edge->from_ipc};
    const struct ledger_run *run = ledger_run(edge->ledger);
    char address[ADDRESS_MAX];
    int r = wire_new(loop_uv(edge->loop), GANTRY__ROLE__ROLE_COORDINATOR, &edge->wire);

    if (r < 0)
        return error_set(error, -r, "ZeroMQ: %s", strerror(-r));
    wire_set_run(edge->wire, run->id, run->epoch);
    r = address_ipc(edge->run_dir, "coordinator", address, error);
    options.address = address;
    if (r == 0)
        r = wire_server_new(edge->wire, &options, &edge->ipc, error);
    if (r == 0 && edge->config.listen[0]) {
        options.address = edge->config.listen;
        options.arg = &edge->from_tcp;
        r = edge_keys_start(edge, error);
        if (r == 0)
            r = wire_server_new(edge->wire, &options, &edge->tcp, error);
        if (r == 0)
            r = address_publish(edge->run_dir, "coordinator", wire_server_address(edge->tcp),
                                security_public_key(edge->wire->security), error);
    } else if (r == 0) {
        r = address_publish(edge->run_dir, "coordinator", address, "-", error);
    }
    return r;
}

static int start_pages(struct edge *edge, struct error *error)
{
    char dir[ADDRESS_MAX], path[ADDRESS_MAX + 16];
    int r = address_socket_dir(edge->run_dir, dir, error);

    if (r < 0)
        return r;
    edge->metrics = metrics_new();
    if (!edge->metrics || edge_probes(edge) < 0)
        return error_set(error, ENOMEM, "out of memory");
    edge_metrics_register(edge);
    snprintf(path, sizeof path, "%s/status.sock", dir);
    r = admin_new(edge->loop, path, edge_commands, edge, &edge->admin, error);
    if (r == 0 && edge->config.http[0])
        r = http_new(edge->loop, edge->config.http, edge_routes, edge, &edge->http, error);
    if (r == 0 && edge->http && edge->config.token_file[0])
        r = http_set_token_file(edge->http, edge->config.token_file, error);
    return r;
}

/* With the port that it got, where 0 was asked for. */
static const char *page_address(const struct edge *edge, char ret[sizeof edge->config.http + 8])
{
    const char *colon = strrchr(edge->config.http, ':');

    if (!edge->http || !colon)
        return "off";
    snprintf(ret, sizeof edge->config.http + 8, "%.*s:%u", (int)(colon - edge->config.http), edge->config.http,
             http_port(edge->http));
    return ret;
}

int edge_start(struct edge *edge, struct loop *loop, struct error *error)
{
    const struct lifecycle_options options = {
        .start_ms = 60 * 1000, .drain_ms = EDGE_DRAIN_MS, .patient = true, .on_drain = on_drain, .on_overdue = on_overdue,
        .arg = edge};
    char page[sizeof edge->config.http + 8];
    int r;

    edge->loop = loop;
    r = lifecycle_new(loop, &options, &edge->lifecycle);
    if (r < 0)
        return error_set(error, -r, "signals: %s", strerror(-r));
    r = start_servers(edge, error);
    if (r == 0)
        r = start_pages(edge, error);
    if (r == 0 && (r = loop_timer_new(loop, 0, EDGE_TICK_MS, on_tick, edge, &edge->tick)) < 0)
        r = error_set(error, -r, "timer: %s", strerror(-r));
    if (r == 0 && drain_mark_is_set() &&        /* first hear who is here and what they still play, or it would be over at once */
        (r = loop_timer_new(loop, MAX(2 * (uint64_t)edge->config.heartbeat_ms, REJOIN_MS), 0, drain_again, edge,
                            &edge->drain_again)) < 0)
        r = error_set(error, -r, "timer: %s", strerror(-r));
    if (r < 0)
        return r;
    log_info("coordinator up", "run=%016" PRIx64 " epoch=%" PRIu64 " dir=%s address=%s http=%s build=%s",
             ledger_run(edge->ledger)->id, ledger_run(edge->ledger)->epoch, LOG_Q(edge->run_dir),
             wire_server_address(edge->tcp ? edge->tcp : edge->ipc), page_address(edge, page), GANTRY_BUILD);
    lifecycle_ready(edge->lifecycle);
    return 0;
}

/* ---- leaving ---------------------------------------------------------------------------------------- */

size_t edge_members_left(const struct edge *edge)
{
    const struct membership *m = conductor_members(edge->conductor);

    return membership_count(m, MEMBER_WORKER) + membership_count(m, MEMBER_ACTOR) + membership_count(m, MEMBER_PRM) +
           membership_count(m, MEMBER_LEARNER);
}

static void on_leave_deadline(void *arg)
{
    struct edge *edge = arg;

    if (edge_members_left(edge))
        log_info("members still here at the end", "members=%zu", edge_members_left(edge));
    lifecycle_stop(edge->lifecycle, edge->exit_code);
}

/* Nothing is leased and nothing trains. */
void edge_leave(struct edge *edge)
{
    edge->leaving = true;
    if (!edge->leave && loop_timer_new(edge->loop, EDGE_LEAVE_MS, 0, on_leave_deadline, edge, &edge->leave) < 0)
        lifecycle_stop(edge->lifecycle, edge->exit_code);
}

void edge_drain(struct edge *edge, const char *reason)
{
    struct conductor_event event = {.kind = CONDUCTOR_DRAIN};

    (void)reason;           /* lifecycle has logged it */
    if (edge->full_since_ms)
        lifecycle_stop(edge->lifecycle, edge->exit_code);       /* nothing can be finished; the ledger has its last commit */
    else
        edge_step(edge, &event);
}
