/* edge_members.c - metrics of what members say of themselves in heartbeats: sums and peaks by role.
 *
 * Sums go over all members that there ever were since the coordinator started, so that a counter does not shrink when a worker
 * leaves. Times are in seconds: rate(gantry_act_wait_seconds_total) / rate(gantry_steps_played_total) is how long a step waits
 * for its action. */
#include <math.h>
#include <stdio.h>

#include "coordinator/edge.h"

static const struct {
    enum member_role role;
    const char *gauge;          /* as the member's heartbeat calls it (proto/control.proto) */
    double scale;
    const char *name, *help;
} sums[EDGE_MEMBER_SUMS] = {
    {MEMBER_WORKER, "steps_total", 1, "gantry_steps_played_total", "environment steps played, delivered or not"},
    {MEMBER_WORKER, "returned_total", 1, "gantry_leases_returned_total", "episodes given back: simulators and servers that fail"},
    {MEMBER_WORKER, "sim_ms_total", 1e-3, "gantry_sim_seconds_total", "CPU time of simulators"},
    {MEMBER_WORKER, "act_ms_total", 1e-3, "gantry_act_wait_seconds_total", "time that slots waited for actions"},
    {MEMBER_ACTOR, "rows_total", 1, "gantry_actions_total", "actions computed"},
    {MEMBER_ACTOR, "busy_ms_total", 1e-3, "gantry_act_busy_seconds_total", "time that actors computed"},
    {MEMBER_PRM, "rows_total", 1, "gantry_scores_total", "frames scored"},
    {MEMBER_PRM, "busy_ms_total", 1e-3, "gantry_score_busy_seconds_total", "time that PRM servers computed"},
    {MEMBER_LEARNER, "samples_total", 1, "gantry_train_samples_total", "samples trained on"},
    {MEMBER_LEARNER, "train_ms_total", 1e-3, "gantry_train_seconds_total", "time that learners trained"},
};

static const enum member_role roles[] = {MEMBER_WORKER, MEMBER_ACTOR, MEMBER_PRM, MEMBER_LEARNER};

void edge_members_register(struct edge *edge)
{
    struct edge_metrics *x = &edge->metric;
    char label[48];

    for (size_t i = 0; i < EDGE_MEMBER_SUMS; i++)
        x->sums[i] = metrics_counter(edge->metrics, sums[i].name, "", sums[i].help);
    for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
        snprintf(label, sizeof(label), "role=\"%s\"", wire_role_name((Gantry__Role)roles[i]));
        x->memory[roles[i]] = metrics_gauge(edge->metrics, "gantry_memory_peak_bytes", label,
                                            "largest resident memory of one member of that role so far");
    }
    x->device_used = metrics_gauge(edge->metrics, "gantry_device_memory_used_bytes", "",
                                   "memory in use, by whomever, on the device of a member that has the least left");
    x->device_memory = metrics_gauge(edge->metrics, "gantry_device_memory_bytes", "", "all memory of that device");
    x->journal_bytes = metrics_gauge(edge->metrics, "gantry_journal_bytes", "", "size of the learner's journal");
}

/* INFINITY for a member without a device. */
static double device_left(const struct member_gauges *of)
{
    double used = gauges_value(of, "device_memory_used_bytes");

    return used > 0 ? gauges_value(of, "device_memory_bytes") - used : INFINITY;
}

void edge_members_refresh(struct edge *edge)
{
    struct edge_metrics *x = &edge->metric;
    const struct member_gauges *full = NULL;        /* whose device has the least left */
    double journal = 0;

    for (size_t i = 0; i < EDGE_MEMBER_SUMS; i++)
        metric_set(x->sums[i], sums[i].scale * gauges_over_role(&edge->gauges, sums[i].role, sums[i].gauge, false));
    for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
        metric_set(x->memory[roles[i]], gauges_over_role(&edge->gauges, roles[i], "rss_peak_bytes", true));
    for (size_t i = 0; i < edge->gauges.n; i++)         /* rank 0 of those that are here */
        journal = MAX(journal, gauges_value(&edge->gauges.items[i], "journal_bytes"));
    metric_set(x->journal_bytes, journal);
    for (size_t i = 0; i < edge->gauges.n; i++)
        if (device_left(&edge->gauges.items[i]) < device_left(full))
            full = &edge->gauges.items[i];
    metric_set(x->device_used, gauges_value(full, "device_memory_used_bytes"));
    metric_set(x->device_memory, gauges_value(full, "device_memory_bytes"));
}
