/* status.c - what the coordinator shows: one JSON object (admin socket, /status.json, the page), the page's paths, probes. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "base/clock.h"
#include "base/episode.h"
#include "base/json_write.h"
#include "base/log.h"
#include "coordinator/edge.h"
#include "coordinator/status_tasks.h"
#include "version.h"

static const char *role_name(enum member_role role) { return wire_role_name((Gantry__Role)role); }

/* ---- status.json ------------------------------------------------------------------------------------ */

/* Whose disk is full: nothing is played on or trained until there is room. false: nobody's. */
bool edge_is_full(const struct edge *edge, char *where, size_t size)
{
    const struct membership *members = conductor_members(edge->conductor);

    if (edge->full_since_ms) {
        snprintf(where, size, "space in %s", edge->run_dir);
        return true;
    }
    for (size_t i = 0; i < members->n; i++) {
        const struct member_gauges *gauges = gauges_find(&edge->gauges, members->items[i].id);

        if (members->items[i].state != MEMBER_ALIVE || gauges_value(gauges, "disk_full") <= 0)
            continue;
        snprintf(where, size, "space in %s on %s", edge->run_dir, members->items[i].host);
        return true;
    }
    return false;
}

static void add_rank(const struct membership *members, unsigned rank, struct strbuf *out)
{
    strbuf_addf(out, "%slearner rank %u", out->length ? ", " : "", rank);
    for (size_t i = 0; i < members->n; i++) {
        const struct member *m = &members->items[i];

        if (m->role == MEMBER_LEARNER && m->rank == rank && m->state != MEMBER_GONE)
            strbuf_addf(out, " (member %u)", m->id);
    }
}

/* Episodes are to be played, for a while nobody has worked, and no worker is there that could. */
static bool lacks_worker(const struct edge *edge, const struct conductor_status *status)
{
    const struct membership *members = conductor_members(edge->conductor);
    bool wanted = status->rows > status->journaled + status->failed && !status->training && !status->draining && !status->stopped;

    for (size_t i = 0; i < members->n; i++)
        if (members->items[i].role == MEMBER_WORKER && members->items[i].state == MEMBER_ALIVE && !members->items[i].cordoned)
            wanted = false;
    return wanted && clock_mono_ms() - edge->speed.worked_ms > SPEED_IDLE_MS;
}

/* Learner ranks that the others have waited for for a while; or an env worker. */
static void write_late(const struct edge *edge, const struct conductor_status *status, struct json_writer *w)
{
    const struct membership *members = conductor_members(edge->conductor);
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    unsigned late = 0;

    for (size_t i = 0; i < members->n; i++) {
        double bits = gauges_value(gauges_find(&edge->gauges, members->items[i].id), "waits_for_ranks");

        if (members->items[i].state == MEMBER_ALIVE && bits > 0 && bits < 256)
            late |= (unsigned)bits;
    }
    if (late > 1)
        late &= ~1u;            /* who waits for rank 0 waits for those that it waits for */
    for (unsigned rank = 0; late >> rank; rank++)
        if (late >> rank & 1)
            add_rank(members, rank, &text);
    if (!late && lacks_worker(edge, status))
        strbuf_adds(&text, "an env worker");
    json_text(w, "late", text.text ? text.text : "");
}

static void write_work(const struct edge *edge, const struct conductor_status *status, struct json_writer *w)
{
    char where[RUN_PATH + 80] = "";
    bool full = edge_is_full(edge, where, sizeof where);
    const struct stage_config *stages = edge->config.stages;
    const struct stage_config *stage = status->stage < (uint32_t)edge->config.n_stages ? &stages[status->stage] : NULL;
    char title[80] = "";

    if (status->work)
        stage_plan_title(&edge->config, status->work, title, sizeof title);
    json_text(w, "state", status->stopped    ? "stopped"
                          : status->finished ? "finished"
                          : status->draining ? "draining"
                          : full             ? "paused"
                          : status->training ? "training"
                          : status->waiting  ? "waiting"
                                             : "playing");
    json_text(w, "waiting_for", full ? where : status->waiting_for);
    json_text(w, "trouble", full ? "" : status->trouble);
    write_late(edge, status, w);
    json_text(w, "stage", stage ? stage->name : "");
    json_unsigned(w, "stage_number", status->stage);
    json_unsigned(w, "stages", (uint64_t)edge->config.n_stages);
    json_unsigned(w, "iteration", status->iteration);
    json_signed(w, "iterations", stage ? stage_iterations(stage) : 0);
    json_text(w, "name", status->name);
    json_text(w, "title", title);
    json_number(w, "env_steps_per_s", speed_steps(&edge->speed));
    json_number(w, "updates_per_s", speed_updates(&edge->speed));
    json_number(w, "left_s", speed_left_s(&edge->speed));
    json_text(w, "left_in", status->draining ? "drain" : stage && stage->kind == STAGE_EVAL ? "pass" : "stage");
    json_open(w, "episodes", '{');
    json_unsigned(w, "planned", status->rows);
    json_unsigned(w, "open", status->open);
    json_unsigned(w, "leased", status->leased);
    json_unsigned(w, "journaled", status->journaled);
    json_unsigned(w, "failed", status->failed);
    json_close(w, '}');
    json_number(w, "success", status->ended ? (double)status->success / (double)status->ended : 0);
    json_number(w, "return", status->ended ? status->reward / (double)status->ended : NAN);
    json_unsigned(w, "policy_version", status->policy_version);
    json_unsigned(w, "prm_version", status->prm_version);
    json_text(w, "prm_doubt", status->prm_doubt);
}

/* A reward model on trial, and how the last one ended. */
static void write_shadow(const struct edge *edge, struct json_writer *w)
{
    const struct shadow *s = &conductor_memory(edge->conductor)->shadow;
    char text[240];

    if (s->version) {
        json_open(w, "prm_shadow", '{');
        json_unsigned(w, "version", s->version);
        json_unsigned(w, "against", s->against);
        json_unsigned(w, "episodes", shadow_complete(s));
        json_unsigned(w, "wanted", s->wanted);
        json_close(w, '}');
    }
    if (!s->last.version)
        return;
    shadow_text(&s->last, text, sizeof text);
    json_open(w, "prm_shadow_last", '{');
    json_unsigned(w, "version", s->last.version);
    json_unsigned(w, "against", s->last.against);
    json_text(w, "verdict", s->last.passed ? "takes over" : "does not take over");
    json_unsigned(w, "episodes", s->last.episodes);
    json_unsigned(w, "successes", s->last.successes);
    json_unsigned(w, "frames", s->last.frames);
    json_number(w, "rank_correlation", s->last.rank);
    json_number(w, "mean_difference", s->last.difference);
    json_number(w, "auc", s->last.auc);
    json_number(w, "auc_against", s->last.auc_against);
    json_text(w, "text", text);
    json_close(w, '}');
}

/* A reward model that takes over when an iteration opens: `gantry prm swap --at`. */
static void write_next(const struct edge *edge, struct json_writer *w)
{
    const struct plan_memory *memory = conductor_memory(edge->conductor);

    if (!memory->prm_next)
        return;
    json_open(w, "prm_next", '{');
    json_unsigned(w, "version", memory->prm_next);
    json_unsigned(w, "stage_number", memory->prm_next_stage);
    json_unsigned(w, "at", (uint64_t)memory->prm_next_round + 1);
    json_close(w, '}');
}

static const char *state_text(const struct member *m)
{
    static const char *const states[] = {[MEMBER_ALIVE] = "alive", [MEMBER_LOST] = "lost", [MEMBER_GONE] = "gone"};

    if (m->state != MEMBER_ALIVE)
        return states[m->state];
    return m->leaving ? "draining" : m->cordoned ? "cordoned" : m->failed >= MEMBER_ILL ? "ill" : "alive";
}

static void write_member(const struct edge *edge, const struct member *m, uint64_t now_ms, struct json_writer *w)
{
    const struct member_gauges *gauges = gauges_find(&edge->gauges, m->id);

    json_open(w, NULL, '{');
    json_unsigned(w, "member", m->id);
    json_text(w, "role", role_name(m->role));
    json_text(w, "state", state_text(m));
    json_text(w, "name", m->name);
    json_text(w, "host", m->host);
    json_unsigned(w, "pid", m->pid);
    json_text(w, "device", m->device);
    json_text(w, "isa", m->isa);
    json_unsigned(w, "slots", m->slots);
    json_unsigned(w, "leases", lease_count(conductor_leases(edge->conductor), m->id));
    json_unsigned(w, "heard_ms_ago", now_ms > m->heard_ms ? now_ms - m->heard_ms : 0);
    json_unsigned(w, "delivered", m->delivered);
    json_open(w, "versions", '[');
    for (uint32_t v = 0; v < m->n_versions; v++)
        if (m->versions[v].ready)
            json_unsigned(w, NULL, m->versions[v].version);
    json_close(w, ']');
    if (gauges && gauges->pace.ms_per_step > 0) {
        json_number(w, "ms_per_step", gauges->pace.ms_per_step);
        json_bool(w, "slow", gauges->pace.slow);
    }
    json_open(w, "gauges", '{');
    for (unsigned g = 0; gauges && g < gauges->n; g++)
        json_number(w, gauges->items[g].name, gauges->items[g].value);
    json_close(w, '}');
    json_close(w, '}');
}

static void write_members(const struct edge *edge, struct json_writer *w)
{
    const struct membership *members = conductor_members(edge->conductor);
    uint64_t now_ms = clock_mono_ms();

    json_open(w, "members", '[');
    for (size_t i = 0; i < members->n; i++)
        if (members->items[i].state != MEMBER_GONE)
            write_member(edge, &members->items[i], now_ms, w);
    json_close(w, ']');
}

/* A row's time is written when a pass ends: of the stage that is worked on, what came since is told, too. */
static void write_stages(struct edge *edge, const struct conductor_status *status, struct json_writer *w)
{
    _cleanup_free_ struct ledger_stage *stages = NULL;
    size_t n = 0;

    if (ledger_stages(edge->ledger, &stages, &n) < 0)
        n = 0;
    json_open(w, "history", '[');
    for (size_t i = 0; i < n; i++) {
        json_open(w, NULL, '{');
        json_text(w, "stage", stages[i].name);
        json_text(w, "state", progress_state_name(stages[i].state));
        json_number(w, "wall_s", stages[i].wall_s + (stages[i].state == PROGRESS_OPEN ? status->stage_s : 0));
        json_unsigned(w, "policy_in", stages[i].policy_in);
        json_unsigned(w, "policy_out", stages[i].policy_out);
        json_close(w, '}');
    }
    json_close(w, ']');
}

/* "rl", or "rl val" for the passes over validation states in between. Both lists are in (stage, iteration) order. */
static void series_name(const struct edge *edge, const struct ledger_scalar *point, const struct ledger_iteration *iterations,
                        size_t n, size_t *at, char *out, size_t size)
{
    const struct stage_config *stage = &edge->config.stages[MIN(point->stage, (uint32_t)edge->config.n_stages - 1)];

    while (*at < n && (iterations[*at].stage < point->stage ||
                       (iterations[*at].stage == point->stage && iterations[*at].iteration < point->iteration)))
        ++*at;
    snprintf(out, size, "%s%s", stage->name,
             stage->kind == STAGE_RL && *at < n && iterations[*at].purpose == EPISODE_EVAL ? " val" : "");
}

/* Success of every iteration that has ended: the curve of the page. */
static void make_curve(struct edge *edge, struct json_writer *w)
{
    _cleanup_free_ struct ledger_iteration *iterations = NULL;
    _cleanup_free_ struct ledger_scalar *points = NULL;
    size_t n = 0, n_iterations = 0, at = 0;
    char name[48];

    if (ledger_scalars(edge->ledger, "success", &points, &n) < 0 ||
        ledger_iterations(edge->ledger, &iterations, &n_iterations) < 0)
        n = 0;
    json_open(w, NULL, '[');
    for (size_t i = 0; i < n; i++) {
        series_name(edge, &points[i], iterations, n_iterations, &at, name, sizeof name);
        json_open(w, NULL, '[');
        json_text(w, NULL, name);
        json_unsigned(w, NULL, points[i].iteration);
        json_number(w, NULL, points[i].value);
        json_close(w, ']');
    }
    json_close(w, ']');
}

static void make_tasks(struct edge *edge, struct json_writer *w)
{
    json_open(w, NULL, '[');
    status_tasks_write(edge->ledger, &edge->config, w);
    json_close(w, ']');
}

/* Asked for each second, by several at once; it changes when an iteration ends. */
static void write_kept(struct edge *edge, const char *key, void (*make)(struct edge *, struct json_writer *), struct strbuf *kept,
                       struct json_writer *w)
{
    struct json_writer anew = {.out = kept};

    if (!kept->length)
        make(edge, &anew);
    if (kept->failed)
        strbuf_release(kept);
    json_raw(w, key, kept->length ? kept->text : "[]");
}

int edge_status_json(struct edge *edge, struct strbuf *out)
{
    struct json_writer w = {.out = out};
    struct conductor_status status;
    char id[24];
    double worst;

    edge_look(edge);        /* what is said of rates belongs to the state that is said */
    conductor_status(edge->conductor, &status);
    json_open(&w, NULL, '{');
    json_text(&w, "run", edge->config.name);
    snprintf(id, sizeof id, "%016" PRIx64, ledger_run(edge->ledger)->id);
    json_text(&w, "run_id", id);
    json_text(&w, "dir", edge->run_dir);
    json_text(&w, "build", GANTRY_BUILD);
    json_unsigned(&w, "epoch", ledger_run(edge->ledger)->epoch);
    json_unsigned(&w, "seed", ledger_run(edge->ledger)->seed);
    json_number(&w, "up_s", (double)(clock_mono_ms() - edge->started_ms) / 1e3);
    write_work(edge, &status, &w);
    write_next(edge, &w);
    write_shadow(edge, &w);
    json_unsigned(&w, "episodes_since_start", edge->episodes);
    json_unsigned(&w, "env_steps_since_start", edge->env_steps);
    json_number(&w, "commit_ms", ledger_commit_ms(edge->ledger, &worst));
    json_number(&w, "commit_worst_ms", worst);
    write_members(edge, &w);
    write_stages(edge, &status, &w);
    write_kept(edge, "success_curve", make_curve, &edge->curve, &w);
    write_kept(edge, "tasks", make_tasks, &edge->tasks, &w);
    json_close(&w, '}');
    return out->failed ? -ENOMEM : 0;
}

/* ---- for the summary --------------------------------------------------------------------------------- */

static double over_role(const struct edge *edge, enum member_role role, const char *name, bool peak)
{
    return gauges_over_role(&edge->gauges, role, name, peak);
}

void edge_runtime(const struct edge *edge, struct strbuf *out)
{
    static const enum member_role roles[] = {MEMBER_WORKER, MEMBER_ACTOR, MEMBER_PRM, MEMBER_LEARNER};
    double up_s = (double)((edge->ended_ms ? edge->ended_ms : clock_mono_ms()) - edge->started_ms) / 1e3;
    double train_s = over_role(edge, MEMBER_LEARNER, "train_ms_total", false) / 1e3;
    struct json_writer w = {.out = out};

    if (up_s <= 0)
        return;
    json_number(&w, "actions_per_s", over_role(edge, MEMBER_ACTOR, "rows_total", false) / up_s);
    if (train_s > 0)
        json_number(&w, "train_samples_per_s", over_role(edge, MEMBER_LEARNER, "samples_total", false) / train_s);
    json_open(&w, "peak_memory_mb", '{');
    json_number(&w, "coordinator", (double)process_peak_rss_bytes() / 1e6);
    for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
        json_number(&w, role_name(roles[i]), over_role(edge, roles[i], "rss_peak_bytes", true) / 1e6);
    json_close(&w, '}');
    json_open(&w, "cpu_s", '{');
    for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
        json_number(&w, role_name(roles[i]), over_role(edge, roles[i], "cpu_ms_total", false) / 1e3);
    json_close(&w, '}');
}

/* ---- HTTP ---------------------------------------------------------------------------------------------- */

static void get_page(struct http_reply *reply, void *arg)
{
    (void)arg;
    reply->type = "text/html; charset=utf-8";
    strbuf_adds(&reply->body, edge_page);
}

static void get_status(struct http_reply *reply, void *arg)
{
    reply->type = "application/json";
    if (edge_status_json(arg, &reply->body) < 0)
        reply->status = 503;
}

static void get_metrics(struct http_reply *reply, void *arg)
{
    struct edge *edge = arg;

    reply->type = "text/plain; version=0.0.4; charset=utf-8";
    edge_metrics_write(edge, &reply->body);
}

static void get_livez(struct http_reply *reply, void *arg)
{
    if (!probes_live(&((struct edge *)arg)->probes, reply->trusted, &reply->body))
        reply->status = 503;
}

static void get_readyz(struct http_reply *reply, void *arg)
{
    if (!probes_ready(&((struct edge *)arg)->probes, reply->trusted, &reply->body))
        reply->status = 503;
}

const struct http_route edge_routes[] = {
    {"/", get_page, false},       {"/status.json", get_status, false}, {"/metrics", get_metrics, false},
    {"/livez", get_livez, true}, {"/readyz", get_readyz, true},       {NULL, NULL, false},
};

/* ---- probes --------------------------------------------------------------------------------------------- */

static enum probe_state probe_ledger(struct strbuf *detail, void *arg)
{
    struct edge *edge = arg;
    double worst;

    (void)ledger_commit_ms(edge->ledger, &worst);
    strbuf_addf(detail, "%" PRIu64 " commits, worst %.1f ms", edge->commits, worst);
    return PROBE_READY;
}

static enum probe_state probe_run(struct strbuf *detail, void *arg)
{
    struct edge *edge = arg;
    struct conductor_status status;

    conductor_status(edge->conductor, &status);
    if (status.stopped || edge->exit_code) {
        strbuf_adds(detail, "stopped");
        return PROBE_DOWN;
    }
    if (status.waiting) {
        strbuf_addf(detail, "waiting for %s", status.waiting_for);
        return PROBE_BUSY;
    }
    return PROBE_READY;
}

int edge_probes(struct edge *edge)
{
    int r = probe_add(&edge->probes, "ledger", probe_ledger, edge);

    return r < 0 ? r : probe_add(&edge->probes, "run", probe_run, edge);
}
