/* edge_metrics.c - /metrics: the run as its coordinator sees it, in Prometheus' words. What members say of themselves is
 * edge_members.c's. */
#include "coordinator/edge.h"

void edge_metrics_register(struct edge *edge)
{
    static const enum member_role roles[] = {MEMBER_WORKER, MEMBER_ACTOR, MEMBER_PRM, MEMBER_LEARNER};
    struct metrics *m = edge->metrics;
    struct edge_metrics *x = &edge->metric;
    char label[48];

    metrics_add_process(m);
    x->epoch = metrics_gauge(m, "gantry_epoch", "", "coordinator epoch: starts of this run");
    x->stage = metrics_gauge(m, "gantry_stage", "", "index of the stage at work");
    x->iteration = metrics_gauge(m, "gantry_iteration", "", "iteration of the stage at work");
    x->policy = metrics_gauge(m, "gantry_version", "kind=\"policy\"", "newest committed version");
    x->prm = metrics_gauge(m, "gantry_version", "kind=\"prm\"", "newest committed version");
    x->rows = metrics_gauge(m, "gantry_iteration_episodes", "state=\"planned\"", "episodes of the open iteration");
    x->open = metrics_gauge(m, "gantry_iteration_episodes", "state=\"open\"", "episodes of the open iteration");
    x->leased = metrics_gauge(m, "gantry_iteration_episodes", "state=\"leased\"", "episodes of the open iteration");
    x->success = metrics_gauge(m, "gantry_iteration_success", "",
                               "share of successes among the open iteration's episodes that are in");
    x->reward = metrics_gauge(m, "gantry_iteration_return", "", "their mean return");
    x->journaled = metrics_gauge(m, "gantry_iteration_episodes", "state=\"journaled\"", "episodes of the open iteration");
    x->failed = metrics_gauge(m, "gantry_iteration_episodes", "state=\"failed\"", "episodes of the open iteration");
    x->updates_per_s = metrics_gauge(m, "gantry_updates_per_second", "", "minibatches a second, over half a minute of training");
    for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
        snprintf(label, sizeof label, "role=\"%s\"", wire_role_name((Gantry__Role)roles[i]));
        x->members[roles[i]] = metrics_gauge(m, "gantry_members", label, "members alive");
    }
    x->episodes = metrics_counter(m, "gantry_episodes_total", "", "episodes journaled since the coordinator started");
    x->env_steps = metrics_counter(m, "gantry_env_steps_total", "", "environment steps journaled since the coordinator started");
    x->commits = metrics_counter(m, "gantry_ledger_commits_total", "", "ledger transactions");
    x->commit_seconds = metrics_gauge(m, "gantry_ledger_commit_seconds", "which=\"last\"", "duration of a ledger commit");
    x->commit_worst_seconds = metrics_gauge(m, "gantry_ledger_commit_seconds", "which=\"worst\"", "duration of a ledger commit");
    x->turn_worst_seconds = metrics_gauge(m, "gantry_loop_turn_worst_seconds", "",
                                          "longest turn of the event loop since the last look");
    x->gemm_fallbacks = metrics_counter(m, "gantry_fallback_total", "op=\"gemm\"",
                                        "calls that a GPU library refused and own kernels did");
    x->attention_fallbacks = metrics_counter(m, "gantry_fallback_total", "op=\"attention\"",
                                           "calls that a GPU library refused and own kernels did");
    x->received = metrics_counter(m, "gantry_messages_total", "what=\"received\"", "messages");
    x->refused = metrics_counter(m, "gantry_messages_total", "what=\"refused\"", "messages");
    edge_members_register(edge);
}

static double over_devices(const struct edge *edge, const char *name)
{
    return gauges_over_role(&edge->gauges, MEMBER_ACTOR, name, false) + gauges_over_role(&edge->gauges, MEMBER_PRM, name, false) +
           gauges_over_role(&edge->gauges, MEMBER_LEARNER, name, false);
}

static void refresh_metrics(struct edge *edge)
{
    const struct membership *members = conductor_members(edge->conductor);
    const struct wire_server_stats *stats = wire_server_stats(edge->ipc);
    const struct wire_server_stats *tcp = edge->tcp ? wire_server_stats(edge->tcp) : NULL;
    struct edge_metrics *x = &edge->metric;
    struct conductor_status status;
    double worst;

    conductor_status(edge->conductor, &status);
    metric_set(x->epoch, (double)ledger_run(edge->ledger)->epoch);
    metric_set(x->stage, status.stage);
    metric_set(x->iteration, status.iteration);
    metric_set(x->policy, (double)status.policy_version);
    metric_set(x->prm, (double)status.prm_version);
    metric_set(x->rows, (double)status.rows);
    metric_set(x->open, (double)status.open);
    metric_set(x->leased, (double)status.leased);
    metric_set(x->journaled, (double)status.journaled);
    metric_set(x->failed, (double)status.failed);
    metric_set(x->updates_per_s, speed_updates(&edge->speed));
    metric_set(x->success, status.ended ? (double)status.success / (double)status.ended : 0);
    metric_set(x->reward, status.ended ? status.reward / (double)status.ended : 0);
    for (int role = MEMBER_WORKER; role <= MEMBER_LEARNER; role++)
        metric_set(x->members[role], (double)membership_count(members, (enum member_role)role));
    metric_set(x->episodes, (double)edge->episodes);
    metric_set(x->env_steps, (double)edge->env_steps);
    metric_set(x->commits, (double)edge->commits);
    metric_set(x->commit_seconds, ledger_commit_ms(edge->ledger, &worst) / 1e3);
    metric_set(x->commit_worst_seconds, worst / 1e3);
    metric_set(x->turn_worst_seconds, (double)loop_lag(edge->loop).worst_ns / 1e9);
    metric_set(x->gemm_fallbacks, over_devices(edge, "gemm_fallback_total"));
    metric_set(x->attention_fallbacks, over_devices(edge, "attention_fallback_total"));
    metric_set(x->received, (double)(stats->received + (tcp ? tcp->received : 0)));
    metric_set(x->refused, (double)(stats->refused + (tcp ? tcp->refused : 0)));
    edge_members_refresh(edge);
}

void edge_metrics_write(struct edge *edge, struct strbuf *out)
{
    refresh_metrics(edge);
    metrics_write(edge->metrics, out);
}
