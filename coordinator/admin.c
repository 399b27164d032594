/* admin.c - the commands of the coordinator's admin socket, RUN/sock/status.sock. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "coordinator/edge.h"
#include "run/history.h"
#include "run/manifest.h"

static int number_of(const char *text, uint64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno || end == text || *end || *text == '-' ? -EINVAL : 0;
}

static int command_status(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    (void)argument;
    return edge_status_json(arg, out) < 0 ? error_set(error, ENOMEM, "out of memory") : 0;
}

static int command_drain(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct edge *edge = arg;

    (void)error;
    lifecycle_drain(edge->lifecycle, *argument ? argument : "asked by an operator");
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

/* New episodes are scored by that version; running ones finish on theirs. */
static int command_prm(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct edge *edge = arg;
    struct conductor_event event = {.kind = CONDUCTOR_PRM_SWAP};
    const struct ledger_version *version;
    int r = 0;

    if (strncmp(argument, "swap ", 5))
        return error_set(error, EINVAL, "usage: prm swap VERSION | prm swap DIR");
    argument += 5 + strspn(argument + 5, " ");
    if (number_of(argument, &event.prm_swap.version) < 0)
        r = version_in(edge, argument, &event.prm_swap.version, error);
    if (r < 0)
        return r;
    version = versions_find(conductor_versions(edge->conductor), KIND_PRM, event.prm_swap.version);
    if (!version)
        return error_set(error, ENOENT, "the run has no reward model version %" PRIu64, event.prm_swap.version);
    edge_step(edge, &event);
    strbuf_addf(out, "new episodes are scored by prm version %" PRIu64, version->number);
    return 0;
}

static int cordon(struct edge *edge, const char *argument, bool on, struct strbuf *out, struct error *error)
{
    struct conductor_event event = {.kind = CONDUCTOR_CORDON, .cordon.on = on};
    uint64_t member;

    if (number_of(argument, &member) < 0 ||
        !membership_find((struct membership *)conductor_members(edge->conductor), (uint32_t)member))
        return error_set(error, ENOENT, "'%s' is no member; `status` lists them", argument);
    event.member = (uint32_t)member;
    edge_step(edge, &event);
    strbuf_addf(out, "member %" PRIu64 " %s", member, on ? "gets no more episodes" : "gets episodes again");
    return 0;
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

    if (sscanf(argument, "%63s %" SCNu32 " %15s %127[^\n]", host, &event.exit.pid, status, text) < 3
        || (strcmp(status, "crashed") && strcmp(status, "ended")))
        return error_set(error, EINVAL, "usage: exited HOST PID crashed|ended [TEXT]");
    event.exit.host = host;
    event.exit.crashed = !strcmp(status, "crashed");
    event.exit.text = text;
    edge_step(arg, &event);
    strbuf_adds(out, "noted");
    return 0;
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
    {"drain", "[REASON]", "finish what is leased, open nothing, then end", command_drain},
    {"prm", "swap VERSION|DIR", "score new episodes with another reward model of this run", command_prm},
    {"cordon", "MEMBER", "give a worker no more episodes", command_cordon},
    {"uncordon", "MEMBER", "give it episodes again", command_uncordon},
    {"exited", "HOST PID crashed|ended [TEXT]", "a supervisor saw a process end", command_exited},
    {NULL, NULL, NULL, NULL},
};
