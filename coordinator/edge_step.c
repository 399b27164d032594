/* edge_step.c - one step of the conductor: what it changes goes to the ledger, and only then out. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/effect_memory.h"
#include "base/log.h"
#include "coordinator/edge.h"
#include "coordinator/summary.h"
#include "run/manifest.h"

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
        log_warn("rates and memory are not in the summary", "members=%zu", edge->gauges.n);
    if (summary_write(edge->ledger, &edge->config, edge->run_dir, &error) < 0)
        log_error("summary.json was not written; gantry report makes it again", "why=%s", LOG_Q(error.text));
    else
        log_info("summary written", "path=%s/summary.json", edge->run_dir);
}

/* Passes over val states are a series of their own, as on the page: other states, another temperature, no reward model. */
static void follow_curves(struct edge *edge, const struct conductor_effect *e)
{
    char tag[EPISODE_TASK_MAX + 64];

    strbuf_reset(&edge->curve);
    strbuf_reset(&edge->tasks);
    if (!edge->tensorboard)
        return;
    snprintf(tag, sizeof tag, "%s%s/%s", edge->config.stages[e->scalar.stage].name, e->scalar.val ? " val" : "", e->scalar.name);
    (void)tensorboard_scalar(edge->tensorboard, clock_wall_ms(), e->scalar.iteration, tag, (float)e->scalar.value);
    (void)tensorboard_flush(edge->tensorboard);
}

/* What the learner measured while it made the version: losses, KL, gradient norms, ... */
static void follow_metrics(struct edge *edge, const struct ledger_version *version)
{
    json_t *root = version->metrics && edge->tensorboard ? json_loads(version->metrics, JSON_REJECT_DUPLICATES, NULL) : NULL,
           *value;
    const char *name;
    char tag[EPISODE_TASK_MAX + 64];

    json_object_foreach(root, name, value) {
        if (!json_is_number(value))
            continue;
        snprintf(tag, sizeof tag, "%s/train/%.60s", edge->config.stages[version->stage].name, name);
        (void)tensorboard_scalar(edge->tensorboard, clock_wall_ms(), version->iteration, tag, (float)json_number_value(value));
    }
    json_decref(root);
}

static void say_iteration(const struct edge *edge, const struct ledger_iteration *i)
{
    if (i->state == PROGRESS_OPEN)
        log_info("iteration opened", "stage=%u iteration=%u name=%s episodes=%" PRIu64 " policy=%" PRIu64 " prm=%" PRIu64,
                 i->stage, i->iteration, LOG_Q(i->name), i->first_episode ? i->last_episode - i->first_episode + 1 : 0,
                 i->policy_version, i->prm_version);
    else
        log_info(i->state == PROGRESS_DONE ? "iteration done" : "plan sent", "stage=%u iteration=%u name=%s seconds=%.1f",
                 i->stage, i->iteration, LOG_Q(i->name), (double)(int64_t)(clock_wall_ms() - i->start_ms) / 1e3);
    (void)lifecycle_status(edge->lifecycle, "%s: %s", i->name, progress_state_name(i->state));
}

static void drain_now(void *arg) { lifecycle_drain(((struct edge *)arg)->lifecycle, "the run has ended"); }

/* After this step. A timer, which goes with the edge: what is posted runs at the latest in loop_free(), when there is no edge any
 * more, and the members of a run that stops may all have left before the loop comes to it. */
static void drain_later(struct edge *edge)
{
    if (!edge->ending && loop_timer_new(edge->loop, 0, 0, drain_now, edge, &edge->ending) < 0)
        lifecycle_stop(edge->lifecycle, edge->exit_code);
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
        follow_metrics(edge, &e->version);
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
        drain_later(edge);
        break;
    case CONDUCTOR_STOPPED:
        log_error("run stopped", "why=%s", LOG_Q(e->text.text));
        edge->exit_code = EX_CONFIG;    /* to start it again with the same settings would not help */
        edge_leave(edge);            /* a plan that failed never ends: do not wait for it */
        drain_later(edge);
        break;
    case CONDUCTOR_DRAINED:
        log_info("drained", "exit_code=%d", edge->exit_code);
        edge_leave(edge);
        break;
    default: edge_send(edge, e); break;
    }
}

/* No further step: `stepping` stays. */
static void give_up(struct edge *edge, int r)
{
    log_error("the coordinator cannot go on; restarted, it goes on from its last commit", "why=%s", LOG_Q(strerror(-r)));
    lifecycle_stop(edge->lifecycle, 1);
    loop_timer_stop(edge->tick);
    edge->exit_code = 1;
}

/* What waits for room outlives the request that brought it: its text is copied, its answer is left to the next time it is
 * asked. */
static void detach_effects(struct edge *edge)
{
    for (size_t i = 0; i < edge->effects.n; i++) {
        struct conductor_effect *e = &edge->effects.items[i];
        char *copy;

        e->request = 0;
        if (e->kind != CONDUCTOR_ADD_VERSION || !e->version.metrics)
            continue;
        copy = effect_memory_take(&edge->effects.memory, strlen(e->version.metrics) + 1);
        if (copy)
            memcpy(copy, e->version.metrics, strlen(e->version.metrics));
        e->version.metrics = copy;
    }
}

static void wait_for_room(struct edge *edge)
{
    if (!edge->full_since_ms) {
        log_error("no space left: the run is paused and goes on by itself once there is room", "dir=%s", LOG_Q(edge->run_dir));
        (void)lifecycle_status(edge->lifecycle, "paused: no space left in %s", edge->run_dir);
        edge->full_since_ms = clock_mono_ms();
        detach_effects(edge);
    }
    edge->full_retry_ms = clock_mono_ms() + EDGE_FULL_RETRY_MS;
}

/* The conductor has stepped: its changes to the ledger, then everything else. */
static void settle_step(struct edge *edge)
{
    int r = edge_ledger_apply(edge);

    if (error_is_no_space(r)) {
        wait_for_room(edge);
        return;                     /* still stepping: the conductor's memory is ahead of the ledger */
    }
    if (r == 0 && edge->full_since_ms) {
        log_info("there is room again", "paused_s=%.1f", (double)(clock_mono_ms() - edge->full_since_ms) / 1e3);
        edge->full_since_ms = 0;
    }
    for (size_t i = 0; r == 0 && i < edge->effects.n; i++)
        carry_out(edge, &edge->effects.items[i]);
    if (r < 0)
        give_up(edge, r);
    else
        edge->stepping = false;
}

void edge_step_again(struct edge *edge)
{
    if (edge->full_since_ms && clock_mono_ms() >= edge->full_retry_ms)
        settle_step(edge);
}

void edge_step(struct edge *edge, struct conductor_event *event)
{
    int r;

    if (edge->stepping)
        return;             /* a callback of a send, or no space left; whatever it was is said again */
    edge->stepping = true;
    event->wall_ms = clock_wall_ms();
    r = conductor_step(edge->conductor, event, clock_mono_ms(), &edge->effects);
    if (r < 0)
        give_up(edge, r);
    else
        settle_step(edge);
    if (!edge->stepping && (edge->leaving || lifecycle_phase(edge->lifecycle) == LIFECYCLE_DRAINING) && !edge_members_left(edge))
        lifecycle_stop(edge->lifecycle, edge->exit_code);       /* nobody is left to wait for; what trains goes on next time */
}
