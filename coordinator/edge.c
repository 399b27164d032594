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
#include "coordinator/summary.h"
#include "run/manifest.h"
#include "version.h"
#include "wire/address.h"
#include "wire/security.h"

/* ---- making ---------------------------------------------------------------------------------------- */

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
    if (r == 0 && run_dir &&
        (size_t)snprintf(edge->config.dir, sizeof edge->config.dir, "%s", run_dir) >= sizeof edge->config.dir)
        r = error_set(error, ENAMETOOLONG, "--run-dir %s: path too long", run_dir);
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

/* RUN/evals.yaml: eval stages that `gantry eval` asked for after the run's own. They are no part of the configuration the run
 * was started with: its digest, config.yaml and summary.json leave them out. */
static int append_later_stages(struct edge *edge, struct error *error)
{
    _cleanup_free_ struct run_config *later = malloc(sizeof *later);
    int first = edge->config.n_stages, r;
    char path[RUN_PATH];

    edge->n_config_stages = first;
    if (!later)
        return error_set(error, ENOMEM, "out of memory");
    r = rundir_path(edge->run_dir, "evals.yaml", path, error);
    if (r < 0 || access(path, F_OK) < 0)
        return r;
    r = run_config_load(path, later, error);
    for (int i = 0; i < later->n_stages && r == 0; i++) {
        if (later->stages[i].kind != STAGE_EVAL)
            return error_set(error, EINVAL, "%s: stages[%d] is no eval stage; only those may be added to a run", path, i);
        if (edge->config.n_stages == RUN_MAX_STAGES)
            return error_set(error, ENOSPC, "%s: more than %d stages; evaluate a copy of the run directory", path,
                             RUN_MAX_STAGES);
        edge->config.stages[edge->config.n_stages] = later->stages[i];
        snprintf(edge->config.stages[edge->config.n_stages].name, sizeof later->stages[i].name, "later%d", i + 1);
        edge->config.n_stages++;
    }
    return r < 0 ? r : write_settings(edge, first, error);
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

int edge_new(const char *config_path, const char *run_dir, struct edge **ret, struct error *error)
{
    _cleanup_(edge_freep) struct edge *edge = calloc(1, sizeof *edge);
    char path[RUN_PATH];
    int r;

    if (!edge)
        return error_set(error, ENOMEM, "out of memory");
    edge->lock_fd = -1;
    edge->started_ms = clock_mono_ms();
    edge->from_ipc = (struct edge_origin) {.edge = edge};
    edge->from_tcp = (struct edge_origin) {.edge = edge, .tcp = true};
    r = load_config(edge, config_path, run_dir, error);
    if (r == 0)
        r = claim_run_dir(edge, error);
    if (r == 0)
        r = write_texts(edge, error);
    if (r == 0)
        r = edge_ledger_open(edge, error);
    if (r == 0)
        r = save_config(edge, error);
    if (r == 0)
        r = append_later_stages(edge, error);
    if (r == 0)
        r = edge_ledger_restore(edge, error);
    if (r < 0)
        return r;
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
    edge->admin = admin_free(edge->admin);
    edge->http = http_free(edge->http);
    edge->tcp = wire_server_free(edge->tcp);
    edge->ipc = wire_server_free(edge->ipc);
    edge->wire = wire_free(edge->wire);
    edge->lifecycle = lifecycle_free(edge->lifecycle);
    edge->metrics = metrics_free(edge->metrics);
    edge->tensorboard = tensorboard_close(edge->tensorboard);
    edge->conductor = conductor_free(edge->conductor);
    conductor_effects_release(&edge->effects);
    edge->ledger = ledger_close(edge->ledger);
    for (int i = 0; i < edge->config.n_stages; i++)
        free((char *)edge->stage_settings[i]);
    free(edge->config_text);
    free(edge->gauges);
    closep(&edge->lock_fd);
    free(edge);
    return NULL;
}

/* ---- sockets --------------------------------------------------------------------------------------- */

static void on_tick(void *arg)
{
    struct conductor_event event = {.kind = CONDUCTOR_TICK};

    edge_step(arg, &event);
}

static void on_drain(const char *reason, void *arg) { edge_drain(arg, reason); }

/* A key of its own for the tcp socket, made on first use; who is let in stands in RUN/keys/allowed. */
static int start_security(struct edge *edge, struct error *error)
{
    char keys[RUN_PATH], secret[RUN_PATH], allowed[RUN_PATH], public[SECURITY_KEY_SIZE];
    int r = rundir_path(edge->run_dir, "keys", keys, error);

    if (r == 0)
        r = rundir_path(edge->run_dir, "keys/coordinator.key", secret, error);
    if (r == 0)
        r = rundir_path(edge->run_dir, "keys/allowed", allowed, error);
    if (r == 0 && (r = mkdir_p(keys, 0700)) < 0)
        r = error_set(error, -r, "%s: cannot be made: %s", keys, strerror(-r));
    if (r == 0 && access(secret, F_OK) < 0)
        r = security_key_create(keys, "coordinator", public, error);
    return r < 0 ? r : security_start(edge->wire, secret, allowed, error);
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
        r = start_security(edge, error);
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
    return r;
}

int edge_start(struct edge *edge, struct loop *loop, struct error *error)
{
    const struct lifecycle_options options = {
        .start_ms = 60 * 1000, .drain_ms = EDGE_DRAIN_MS, .on_drain = on_drain, .arg = edge};
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
    if (r < 0)
        return r;
    log_info("coordinator up", "run=%016" PRIx64 " epoch=%" PRIu64 " dir=%s address=%s http=%s build=%s",
             ledger_run(edge->ledger)->id, ledger_run(edge->ledger)->epoch, LOG_Q(edge->run_dir),
             wire_server_address(edge->tcp ? edge->tcp : edge->ipc), edge->config.http[0] ? edge->config.http : "off",
             GANTRY_BUILD);
    lifecycle_ready(edge->lifecycle);
    return 0;
}

/* ---- leaving ---------------------------------------------------------------------------------------- */

static size_t members_left(const struct edge *edge)
{
    const struct membership *m = conductor_members(edge->conductor);

    return membership_count(m, MEMBER_WORKER) + membership_count(m, MEMBER_ACTOR) + membership_count(m, MEMBER_PRM)
        + membership_count(m, MEMBER_LEARNER);
}

static void on_leave_deadline(void *arg)
{
    struct edge *edge = arg;

    if (members_left(edge))
        log_info("members still here at the end", "members=%zu", members_left(edge));
    lifecycle_stop(edge->lifecycle, edge->exit_code);
}

/* Nothing is leased and nothing trains: everybody is told to leave, and so do we, after them if they are quick. */
static void leave(struct edge *edge)
{
    edge->leaving = true;
    if (!edge->leave && loop_timer_new(edge->loop, EDGE_LEAVE_MS, 0, on_leave_deadline, edge, &edge->leave) < 0)
        lifecycle_stop(edge->lifecycle, edge->exit_code);
}

void edge_drain(struct edge *edge, const char *reason)
{
    struct conductor_event event = {.kind = CONDUCTOR_DRAIN};

    (void)reason;           /* lifecycle has logged it */
    edge_step(edge, &event);
}

static void drain_later(void *arg) { lifecycle_drain(((struct edge *)arg)->lifecycle, "the run has ended"); }

/* ---- steps ------------------------------------------------------------------------------------------ */

/* Rates and memory are known only while the members are here: kept in the ledger, for `gantry report`. */
static int keep_runtime(struct edge *edge)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    int r;

    edge_runtime(edge, &text);
    r = text.length ? ledger_begin(edge->ledger) : -ENODATA;
    if (r == 0)
        r = ledger_put_blob(edge->ledger, "runtime", text.text, text.length);
    if (r == 0)
        r = ledger_commit(edge->ledger);
    if (r < 0)
        ledger_rollback(edge->ledger);
    return r;
}

static void write_summary(struct edge *edge)
{
    struct error error = {0};

    if (edge->config.n_stages > edge->n_config_stages)       /* the run's own summary was written when its own stages ended */
        return;
    if (keep_runtime(edge) < 0)
        log_warn("rates and memory are not in the summary", "members=%zu", edge->n_gauges);
    if (summary_write(edge->ledger, &edge->config, edge->run_dir, &error) < 0)
        log_error("summary.json was not written; gantry report makes it again", "why=%s", LOG_Q(error.text));
    else
        log_info("summary written", "path=%s/summary.json", edge->run_dir);
}

static void follow_curves(struct edge *edge, const struct conductor_effect *e)
{
    char tag[96];

    if (!edge->tensorboard)
        return;
    snprintf(tag, sizeof tag, "%s/%s", edge->config.stages[e->scalar.stage].name, e->scalar.name);
    (void)tensorboard_scalar(edge->tensorboard, clock_wall_ms(), e->scalar.iteration, tag, (float)e->scalar.value);
    (void)tensorboard_flush(edge->tensorboard);
}

static void say_iteration(const struct edge *edge, const struct ledger_iteration *i)
{
    if (i->state == PROGRESS_OPEN)
        log_info("iteration opened", "stage=%u iteration=%u name=%s episodes=%" PRIu64 " policy=%" PRIu64 " prm=%" PRIu64,
                 i->stage, i->iteration, LOG_Q(i->name), i->first_episode ? i->last_episode - i->first_episode + 1 : 0,
                 i->policy_version, i->prm_version);
    else
        log_info(i->state == PROGRESS_DONE ? "iteration done" : "plan sent", "stage=%u iteration=%u name=%s seconds=%.1f",
                 i->stage, i->iteration, LOG_Q(i->name), (double)(clock_wall_ms() - i->start_ms) / 1e3);
    (void)lifecycle_status(edge->lifecycle, "%s: %s", i->name, progress_state_name(i->state));
}

/* What an effect means to the edge itself; all kinds pass here, after the commit. */
static void carry_out(struct edge *edge, const struct conductor_effect *e)
{
    switch (e->kind) {
    case CONDUCTOR_PUT_ITERATION: say_iteration(edge, &e->iteration); break;
    case CONDUCTOR_ADD_EVENT:
        log_info("event", "kind=%s episode=%" PRIu64 " text=%s", e->text.kind, e->text.episode, LOG_Q(e->text.text));
        break;
    case CONDUCTOR_ADD_SCALAR: follow_curves(edge, e); break;
    case CONDUCTOR_ADD_VERSION:
        log_info("version committed", "kind=%s version=%" PRIu64 " parent=%" PRIu64 " dir=%s gate=%d text=%s",
                 e->version.kind == KIND_PRM ? "prm" : "policy", e->version.number, e->version.parent, LOG_Q(e->version.dir),
                 e->version.gate_passed, LOG_Q(e->version.gate_text));
        break;
    case CONDUCTOR_EPISODE_JOURNALED:
        edge->episodes++;
        edge->env_steps += e->episode.steps;
        break;
    case CONDUCTOR_PUT_STAGE:
        if (edge->config.stages[e->stage.stage].kind == STAGE_EVAL && e->stage.state == PROGRESS_DONE)
            write_summary(edge);
        break;
    case CONDUCTOR_RETAIN:
        if (version_retain(edge->run_dir, e->retain.kind, e->retain.keep, e->retain.n_keep) < 0)
            log_warn("old versions could not be removed", "kind=%d", (int)e->retain.kind);
        break;
    case CONDUCTOR_FINISHED:
        edge->ended_ms = clock_mono_ms();
        write_summary(edge);
        log_info("run finished", "seconds=%.1f", (double)(edge->ended_ms - edge->started_ms) / 1e3);
        (void)loop_post(edge->loop, drain_later, edge);
        break;
    case CONDUCTOR_STOPPED:
        log_error("run stopped", "why=%s", LOG_Q(e->text.text));
        edge->exit_code = EX_CONFIG;    /* to start it again with the same settings would not help */
        leave(edge);            /* a plan that failed never ends: do not wait for it */
        (void)loop_post(edge->loop, drain_later, edge);
        break;
    case CONDUCTOR_DRAINED:
        log_info("drained", "exit_code=%d", edge->exit_code);
        leave(edge);
        break;
    default: edge_send(edge, e); break;
    }
}

void edge_step(struct edge *edge, struct conductor_event *event)
{
    int r;

    if (edge->stepping)
        return;             /* a callback of a send; whatever it was is said again */
    edge->stepping = true;
    event->wall_ms = clock_wall_ms();
    r = conductor_step(edge->conductor, event, clock_mono_ms(), &edge->effects);
    if (r == 0)
        r = edge_ledger_apply(edge);
    for (size_t i = 0; r == 0 && i < edge->effects.n; i++)
        carry_out(edge, &edge->effects.items[i]);
    edge->stepping = false;
    if (r < 0) {
        log_error("the coordinator cannot go on; restarted, it goes on from its last commit", "why=%s", LOG_Q(strerror(-r)));
        lifecycle_stop(edge->lifecycle, 1);
        loop_timer_stop(edge->tick);
        edge->exit_code = 1;
        edge->stepping = true;      /* the conductor's memory is ahead of the ledger: no further step */
    } else if ((edge->leaving || lifecycle_phase(edge->lifecycle) == LIFECYCLE_DRAINING) && !members_left(edge)) {
        lifecycle_stop(edge->lifecycle, edge->exit_code);       /* nobody is left to wait for; what trains goes on next time */
    }
}
