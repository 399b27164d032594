/* What may happen to a lease in one step of the coordinator. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_check.h"

void sim_check_leases_before(struct sim_world *w)
{
    const struct lease_table *table = conductor_leases(w->conductor);
    struct sim_leases *leases = sim_check_leases(w);

    if (table->n > leases->capacity) {
        leases->capacity = 2 * table->n;
        leases->items = realloc(leases->items, leases->capacity * sizeof(*leases->items));
        if (!leases->items)
            abort();
    }
    leases->n = table->n;
    if (table->n)
        memcpy(leases->items, table->items, table->n * sizeof(*leases->items));
}

static bool renewed_rightly(const struct conductor_event *event, const struct lease *before, const struct lease *after)
{
    for (size_t i = 0; event->kind == CONDUCTOR_HEARTBEAT && i < event->heartbeat.n_leases; i++) {
        const struct held_lease *held = &event->heartbeat.leases[i];

        if (held->episode == before->episode && held->fence == before->fence && held->step == after->step &&
            (held->step > before->step || held->waits))
            return true;
    }
    return false;
}

static bool is_heard(struct sim_world *w, uint32_t member)
{
    const struct membership *members = conductor_members(w->conductor);

    for (size_t i = 0; i < members->n; i++)
        if (members->items[i].id == member)
            return members->items[i].state == MEMBER_ALIVE;
    return false;
}

void sim_check_leases_after(struct sim_world *w, const struct conductor_event *event)
{
    const struct sim_leases *leases = sim_check_leases(w);

    for (size_t i = 0; i < leases->n; i++) {
        const struct lease *before = &leases->items[i];
        const struct lease *after = lease_find(conductor_leases(w->conductor), before->episode);

        if (!after || after->fence != before->fence || after->expires_ms == before->expires_ms ||
            renewed_rightly(event, before, after))
            continue;
        if (after->expires_ms > before->expires_ms)
            sim_fail(w, "the lease of episode %llu is renewed by a message of another fence, or without a step and a wait",
                     (unsigned long long)before->episode);
        else if (is_heard(w, after->member))
            sim_fail(w, "the lease of episode %llu is shortened, and its member is not missed",
                     (unsigned long long)before->episode);
    }
}
