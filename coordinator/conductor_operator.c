/* conductor_operator.c - what operators ask for: members cordoned and drained, the run drained, reward models swapped. What
 * outlives this process (members cordoned and drained, a swap that waits for its iteration) is in the plan's memory. */
#include <string.h>

#include "coordinator/conductor_internal.h"

/* ---- members --------------------------------------------------------------------------------------- */

static bool is_noted(const struct plan_members *list, uint64_t instance)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (list->instance[i] == instance)
            return true;
    return false;
}

/* on: as the newest; or not any more. */
static void note(struct conductor *c, struct plan_members *list, uint64_t instance, bool on)
{
    uint32_t n = 0;

    if (!on && !is_noted(list, instance))
        return;
    for (uint32_t i = 0; i < list->n; i++)
        if (list->instance[i] != instance)
            list->instance[n++] = list->instance[i];
    if (on && n == PLAN_MEMBERS)
        memmove(list->instance, list->instance + 1, --n * sizeof(*list->instance));
    if (on)
        list->instance[n++] = instance;
    list->n = n;
    c->memory_moved = true;
}

void conductor_recall_member(struct conductor *c, struct member *member)
{
    member->cordoned |= is_noted(&c->memory.cordoned, member->instance);
    member->leaving |= is_noted(&c->memory.leaving, member->instance);
}

void conductor_forget_member(struct conductor *c, const struct member *member)
{
    note(c, &c->memory.cordoned, member->instance, false);
    note(c, &c->memory.leaving, member->instance, false);
}

void conductor_on_cordon(struct conductor *c, const struct conductor_event *event)
{
    struct member *member = membership_find(&c->members, event->member);

    if (!member) {
        conductor_refuse(c, event, REFUSE_REQUEST, "no such member");
        return;
    }
    member->cordoned = event->cordon.on;
    note(c, &c->memory.cordoned, member->instance, member->cordoned);
    c->members.revision += member->role == MEMBER_ACTOR || member->role == MEMBER_PRM;
    conductor_note(c, 0, "cordon", "member %u %s", member->id, event->cordon.on ? "gets no more leases" : "gets leases again");
    conductor_reply(c, event, CONDUCTOR_ACK);
}

/* It hears of it with its next heartbeat. What cannot be spared stays. */
void conductor_on_drain_member(struct conductor *c, const struct conductor_event *event)
{
    struct member *member = membership_find(&c->members, event->member);

    if (!member || member->state != MEMBER_ALIVE) {
        conductor_refuse(c, event, REFUSE_REQUEST, "no such member");
        return;
    }
    member->leaving = true;
    note(c, &c->memory.leaving, member->instance, true);
    c->members.revision += member->role == MEMBER_ACTOR || member->role == MEMBER_PRM;
    conductor_note(c, 0, "drain", "member %u finishes what it holds and leaves", member->id);
    conductor_reply(c, event, CONDUCTOR_ACK);
}

void conductor_on_drain(struct conductor *c, const struct conductor_event *event)
{
    if (!c->draining)
        conductor_note(c, 0, "drain", "no more leases; what is played is finished");
    c->draining = true;
    conductor_reply(c, event, CONDUCTOR_ACK);
}

/* ---- reward models ------------------------------------------------------------------------------------ */

/* The swap that waits is given up, unless it is for that version. */
static void wait_no_more(struct conductor *c, uint64_t version, const char *why)
{
    if (c->memory.prm_next && c->memory.prm_next != version)
        conductor_note(c, 0, "prm_swap", "PRM version %llu is not waited for any more: %s", (unsigned long long)c->memory.prm_next,
                       why);
}

void conductor_use_prm(struct conductor *c, uint64_t version)
{
    conductor_shadow_over(c, "the reward model in use was named anew");
    wait_no_more(c, version, "the reward model in use was named anew");
    if (version != c->memory.prm_current)
        c->memory.prm_before = c->memory.prm_current;
    c->memory.prm_current = version;
    c->memory.prm_next = 0;
    c->memory_moved = true;
}

void conductor_on_prm_swap(struct conductor *c, const struct conductor_event *event)
{
    uint64_t version = event->prm_swap.version;

    if (!versions_find(&c->versions, KIND_PRM, version)) {
        conductor_refuse(c, event, REFUSE_REQUEST, "no such PRM version: it never was, or its weights have been removed");
        return;
    }
    if (event->prm_swap.shadow) {
        conductor_shadow_begin(c, event);
        return;
    }
    if (event->prm_swap.wait) {
        wait_no_more(c, version, "another is to take over");
        c->memory.prm_next = version;
        c->memory.prm_next_stage = c->memory.stage;
        c->memory.prm_next_round = event->prm_swap.round;
        c->memory_moved = true;
        conductor_note(c, 0, "prm_swap", "from iteration %u of %s on, episodes are scored by PRM version %llu",
                       event->prm_swap.round + 1, c->config->stages[c->memory.stage].name, (unsigned long long)version);
    } else {
        conductor_use_prm(c, version);
        conductor_note(c, 0, "prm_swap", "new episodes are scored by PRM version %llu", (unsigned long long)version);
    }
    conductor_reply(c, event, CONDUCTOR_ACK);
}

void conductor_prm_due(struct conductor *c, const struct work *work)
{
    const struct plan_memory *m = &c->memory;
    uint64_t version = m->prm_next;

    if (!version || work->stage < m->prm_next_stage ||
        (work->stage == m->prm_next_stage && work->round < m->prm_next_round))
        return;
    conductor_use_prm(c, version);
    conductor_note(c, 0, "prm_swap", "%s: new episodes are scored by PRM version %llu", work->name, (unsigned long long)version);
}

bool conductor_prm_rolls_back(struct conductor *c, uint64_t refused, const char *why)
{
    uint64_t before = c->memory.prm_before;

    if (refused != c->memory.prm_current || !before || before == refused)
        return false;
    conductor_shadow_over(c, "the reward model in use was given up");
    c->memory.prm_current = before;
    c->memory.prm_before = 0;           /* once: there is nothing to go back to below it */
    c->memory_moved = true;
    conductor_note(c, 0, "prm_swap", "no server loads PRM version %llu, version %llu goes on: %s",
                   (unsigned long long)refused, (unsigned long long)before, why);
    return true;
}
