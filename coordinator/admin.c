/* admin.c - the commands of the coordinator's admin socket, RUN/sock/status.sock. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/drain_mark.h"
#include "coordinator/edge.h"
#include "coordinator/stage_plan.h"
#include "run/history.h"
#include "run/manifest.h"

static int number_of(const char *text, uint64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno || end == text || *end || *text == '-' ? -EINVAL : 0;
}

/* One step for an operator, who is not told that it is done when it cannot be. */
static int take_step(struct edge *edge, struct conductor_event *event, struct error *error)
{
    if (edge->full_since_ms)
        return error_set(error, ENOSPC, "no space left in %s: the run is paused; make room there, then ask again", edge->run_dir);
    if (edge->stepping)
        return error_set(error, ESHUTDOWN, "the coordinator is ending; ask its next life");
    edge_step(edge, event);
    return 0;
}

static int command_status(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    (void)argument;
    return edge_status_json(arg, out) < 0 ? error_set(error, ENOMEM, "out of memory") : 0;
}

/* By its name (--name NAME or NAME#LIFE), which one member alive has at a time. */
static struct member *find_named(struct membership *members, const char *name)
{
    for (size_t i = 0; i < members->n; i++) {
        struct member *m = &members->items[i];
        size_t n = strcspn(m->name, "#");

        if (m->state == MEMBER_ALIVE && n && (!strcmp(m->name, name) || (strlen(name) == n && !memcmp(m->name, name, n))))
            return m;
    }
    return NULL;
}

static struct member *find_member(struct edge *edge, const char *argument, struct error *error)
{
    struct membership *members = (struct membership *)conductor_members(edge->conductor);
    struct member *member = NULL;
    uint64_t number;

    if (number_of(argument, &number) == 0 && number <= UINT32_MAX)
        member = membership_find(members, (uint32_t)number);
    else
        member = find_named(members, argument);
    if (!member || member->state != MEMBER_ALIVE) {
        error_set(error, ENOENT, "'%s' is no member that is here; `gantry status` lists them", argument);
        return NULL;
    }
    return member;
}

/* The learner is the run's own, and somebody must answer: those leave with the run. */
static int drain_member(struct edge *edge, const char *argument, struct strbuf *out, struct error *error)
{
    struct conductor_event event = {.kind = CONDUCTOR_DRAIN_MEMBER};
    const struct member *member = find_member(edge, argument, error);
    int r;

    if (!member)
        return -ENOENT;
    if (member->role == MEMBER_LEARNER)
        return error_set(error, EINVAL, "member %s is a learner rank: the group's size changes only with its restart", argument);
    if (member->role != MEMBER_WORKER && !membership_other(conductor_members(edge->conductor), member))
        return error_set(error, EBUSY, "member %s is the last one that answers: start another first, or drain the run", argument);
    event.member = member->id;
    r = take_step(edge, &event, error);
    if (r == 0)
        strbuf_addf(out, "member %s finishes what it holds and leaves", argument);
    return r;
}

/* drain member N, or the whole run: not where N was forgotten. */
static int command_drain(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct edge *edge = arg;
    int r;

    if (strcspn(argument, " ") == 6 && !strncmp(argument, "member", 6))
        return drain_member(edge, argument + 6 + strspn(argument + 6, " "), out, error);
    r = lifecycle_drain_command(edge->lifecycle, argument, 0, error);
    if (r < 0)
        return r;
    if ((r = drain_mark_set()) < 0)
        log_warn("should the coordinator break off, the unit's next life will not drain", "why=%s", LOG_Q(strerror(-r)));
    strbuf_adds(out, "draining");
    return 0;
}

/* The version a directory holds: its manifest must be of this run and this kind. */
static int version_in(struct edge *edge, const char *dir, uint64_t *ret, struct error *error)
{
    struct manifest manifest;
    int r = manifest_read(dir, &manifest, error);

    if (r < 0)
        return r;
    if (manifest.run != ledger_run(edge->ledger)->id || manifest.kind != KIND_PRM)
        r = error_set(error, EINVAL, "%s: is not a reward model of this run", dir);
    else
        *ret = manifest.number;
    manifest_release(&manifest);
    return r;
}

/* "EPISODES MARGIN RANK" */
static int parse_shadow(const char *words, struct conductor_event *event, struct error *error)
{
    uint32_t episodes;
    double margin, rank;
    int n = 0;

    if (sscanf(words, "%" SCNu32 " %lf %lf%n", &episodes, &margin, &rank, &n) != 3 || words[n] || episodes < 1 ||
        episodes > SHADOW_MAX || !(margin >= 0 && margin <= 1) || !(rank >= -1 && rank <= 1))
        return error_set(error, EINVAL, "'%.40s' are not episodes (1 to %d), a margin (0 to 1) and a rank correlation (-1 to 1)",
                         words, SHADOW_MAX);
    event->prm_swap.shadow = true;
    event->prm_swap.episodes = episodes;
    event->prm_swap.margin = margin;
    event->prm_swap.rank = rank;
    return 0;
}

/* A swap that waits wants an iteration that has not begun: the episodes of one that has are scored by what it began with. They
 * are counted as `gantry status` does: 13 of 120. */
static int parse_at(const struct edge *edge, const char *word, struct conductor_event *event, struct error *error)
{
    struct conductor_status status;
    const struct stage_config *stage;
    char title[80];
    uint64_t n;
    int all;

    conductor_status(edge->conductor, &status);
    stage = status.stage < (uint32_t)edge->config.n_stages ? &edge->config.stages[status.stage] : NULL;
    all = stage ? stage_iterations(stage) : 0;
    if (!all)
        return error_set(error, EINVAL, "%s has no iterations that could be named: leave --at out, then new episodes are scored "
                         "by it", stage ? stage->name : "what is done now");
    if (number_of(word, &n) < 0 || n < 1 || n > (uint64_t)all)
        return error_set(error, EINVAL, "'%s' is no iteration of %s: 1 to %d", word, stage->name, all);
    if (status.work && n < (uint64_t)status.work->round + (status.work->purpose == EPISODE_EVAL ? 1 : 2)) {
        stage_plan_title(&edge->config, status.work, title, sizeof title);
        return error_set(error, EINVAL, "iteration %" PRIu64 " has begun (it is %s now): name a later one, or none: then new "
                         "episodes are scored by it", n, title);
    }
    event->prm_swap.wait = true;
    event->prm_swap.round = (uint32_t)n - 1;
    return 0;
}

/* "swap VERSION|DIR [at ITERATION | shadow EPISODES MARGIN RANK]", "rollback". */
static int parse_swap(struct edge *edge, char *words, struct conductor_event *event, struct error *error)
{
    char *at = strstr(words, " at "), *shadow = strstr(words, " shadow ");
    const struct plan_memory *memory = conductor_memory(edge->conductor);
    int r;

    if (!strcmp(words, "rollback")) {       /* during a trial: the one in use stays */
        event->prm_swap.version = memory->shadow.version ? memory->shadow.against : memory->prm_before;
        return event->prm_swap.version ? 0 : error_set(error, ENOENT, "there is no reward model before the present one");
    }
    if (strncmp(words, "swap ", 5))
        return error_set(error, EINVAL,
                         "usage: prm swap VERSION|DIR [at ITERATION | shadow EPISODES MARGIN RANK] | prm rollback");
    words += 5 + strspn(words + 5, " ");
    if (shadow) {
        *shadow = '\0';
        r = parse_shadow(shadow + 8, event, error);
        if (r < 0)
            return r;
    } else if (at) {
        *at = '\0';
        r = parse_at(edge, at + 4 + strspn(at + 4, " "), event, error);
        if (r < 0)
            return r;
    }
    return number_of(words, &event->prm_swap.version) < 0 ? version_in(edge, words, &event->prm_swap.version, error) : 0;
}

/* New episodes are scored by that version; running ones finish on theirs. */
static int command_prm(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct edge *edge = arg;
    struct conductor_event event = {.kind = CONDUCTOR_PRM_SWAP};
    _cleanup_free_ char *words = strdup(argument);
    uint64_t waited;
    int r = words ? parse_swap(edge, words, &event, error) : -ENOMEM;

    if (r < 0)
        return r;
    if (!versions_find(conductor_versions(edge->conductor), KIND_PRM, event.prm_swap.version))
        return error_set(error, ENOENT, "there is no reward model version %" PRIu64 ": it never was, or its weights have been "
                         "removed", event.prm_swap.version);
    if (event.prm_swap.shadow && !conductor_memory(edge->conductor)->prm_current)
        return error_set(error, EINVAL, "no reward model is in use yet: there is nothing to compare with");
    if (event.prm_swap.shadow && conductor_memory(edge->conductor)->prm_current == event.prm_swap.version)
        return error_set(error, EINVAL, "prm version %" PRIu64 " is in use: name another", event.prm_swap.version);
    waited = event.prm_swap.shadow ? 0 : conductor_memory(edge->conductor)->prm_next;
    r = take_step(edge, &event, error);
    if (r < 0)
        return r;
    if (event.prm_swap.shadow)
        strbuf_addf(out, "prm version %" PRIu64 " is on trial: %" PRIu32 " finished episodes are scored by both, then it is "
                    "decided", event.prm_swap.version, event.prm_swap.episodes);
    else if (event.prm_swap.wait)
        strbuf_addf(out, "from iteration %u of this stage on, new episodes are scored by prm version %" PRIu64,
                    event.prm_swap.round + 1, event.prm_swap.version);
    else
        strbuf_addf(out, "new episodes are scored by prm version %" PRIu64, event.prm_swap.version);
    if (waited && waited != event.prm_swap.version)
        strbuf_addf(out, "; version %" PRIu64 " is not waited for any more", waited);
    return 0;
}

static int cordon(struct edge *edge, const char *argument, bool on, struct strbuf *out, struct error *error)
{
    struct conductor_event event = {.kind = CONDUCTOR_CORDON, .cordon.on = on};
    const struct member *member = find_member(edge, argument, error);
    int r;

    if (!member)
        return -ENOENT;
    if (member->role == MEMBER_LEARNER)
        return error_set(error, EINVAL, "member %s is a learner rank: it cannot be spared", argument);
    event.member = member->id;
    r = take_step(edge, &event, error);
    if (r == 0)
        strbuf_addf(out, "member %s %s", argument, on ? "gets no more work" : "gets work again");
    return r;
}

static int command_cordon(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    return cordon(arg, argument, true, out, error);
}

static int command_uncordon(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    return cordon(arg, argument, false, out, error);
}

/* exited HOST PID STATUS TEXT: from the supervisor that saw it, so that leases end at once. STATUS: crashed | ended. */
static int command_exited(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct conductor_event event = {.kind = CONDUCTOR_EXIT};
    char host[64], status[16], text[128] = "";
    int r;

    if (sscanf(argument, "%63s %" SCNu32 " %15s %127[^\n]", host, &event.exit.pid, status, text) < 3 ||
        (strcmp(status, "crashed") && strcmp(status, "ended")))
        return error_set(error, EINVAL, "usage: exited HOST PID crashed|ended [TEXT]");
    event.exit.host = host;
    event.exit.crashed = !strcmp(status, "crashed");
    event.exit.text = text;
    r = take_step(arg, &event, error);
    if (r == 0)
        strbuf_adds(out, "noted");
    return r;
}

/* Events as JSON lines, from the one after NUMBER. */
static int command_history(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct edge *edge = arg;
    uint64_t after = 0;
    int r;

    if (*argument && number_of(argument, &after) < 0)
        return error_set(error, EINVAL, "'%s' is not an event's number", argument);
    r = history_export(edge->ledger, after, out);
    return r < 0 ? error_set(error, -r, "the ledger's events cannot be read: %s", ledger_error(edge->ledger)) : 0;
}

static int command_metrics(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    (void)argument, (void)error;
    edge_metrics_write(arg, out);
    return 0;
}

const struct admin_command edge_commands[] = {
    {"status", "", "the run, its members and curves as JSON", command_status},
    {"metrics", "", "as Prometheus reads them", command_metrics},
    {"history", "[AFTER]", "the ledger's events as JSON lines", command_history},
    {"drain", "[[within SECONDS] [REASON] | member MEMBER]", "finish what is in hand, open nothing, then end; or one member so",
     command_drain},
    {"prm", "swap VERSION|DIR [at ITERATION | shadow EPISODES MARGIN RANK] | rollback",
     "score new episodes with another reward model of this run", command_prm},
    {"cordon", "MEMBER", "give a worker no more episodes, a server no more requests", command_cordon},
    {"uncordon", "MEMBER", "give it work again", command_uncordon},
    {"exited", "HOST PID crashed|ended [TEXT]", "a supervisor saw a process end", command_exited},
    {NULL, NULL, NULL, NULL},
};
