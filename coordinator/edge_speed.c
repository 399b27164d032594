/* edge_speed.c - what speed.h is shown of the run, each tick. */
#include <string.h>

#include "base/clock.h"
#include "coordinator/edge.h"

/* Which kind of pass this is and what comes behind it: asked when another one begins, a long stage has many to count. */
static void place(const struct edge *edge, const struct conductor_status *status, struct speed_look *look)
{
    const struct plan_memory *memory = conductor_memory(edge->conductor);
    const struct speed_look *last = &edge->speed.last;
    struct work work;

    look->stage = status->stage;
    look->iteration = status->iteration;
    look->kind = PASS_TRAIN;
    if (edge->speed.seen && last->stage == status->stage && last->iteration == status->iteration) {
        look->kind = last->kind;
        look->iterates = last->iterates;
        memcpy(look->after, last->after, sizeof look->after);
    } else if (stage_plan_work(&edge->config, memory, status->stage, status->iteration, &work) == 0) {
        look->kind = stage_plan_kind(&edge->config, &work);
        look->iterates = stage_plan_left(&edge->config, memory, &work, look->after);
    }
}

/* As the learner said with its last heartbeat. */
static void updates(const struct edge *edge, struct speed_look *look)
{
    const struct membership *members = conductor_members(edge->conductor);

    for (size_t i = 0; i < members->n; i++) {
        const struct member_gauges *gauges = gauges_find(&edge->gauges, members->items[i].id);

        if (members->items[i].state != MEMBER_ALIVE || gauges_value(gauges, "train_total") <= look->updates_planned)
            continue;
        look->updates = gauges_value(gauges, "train_done");
        look->updates_planned = gauges_value(gauges, "train_total");
    }
}

void edge_look(struct edge *edge)
{
    const struct lease_table *leases = conductor_leases(edge->conductor);
    struct speed_look look = {.now_ms = clock_mono_ms(), .steps = (double)edge->env_steps, .episodes = (double)edge->episodes};
    struct conductor_status status;

    conductor_status(edge->conductor, &status);
    place(edge, &status, &look);
    look.stopped = status.stopped || status.finished || edge_is_full(edge, NULL, 0);
    look.draining = status.draining;
    look.playing = status.leased > 0;
    look.running = (double)status.leased;
    look.training = status.training;
    look.missing = (double)(status.rows - MIN(status.journaled + status.failed, status.rows));
    for (size_t i = 0; i < leases->n; i++)
        look.steps_running += leases->items[i].played;
    updates(edge, &look);
    speed_look(&edge->speed, &look);
}
