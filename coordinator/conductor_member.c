/* conductor_member.c - who is there: members come, are heard, and go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/conductor_internal.h"
#include "coordinator/products.h"
#include "run/builds.h"

void conductor_reply(struct conductor *c, const struct conductor_event *event, enum conductor_effect_kind kind)
{
    struct conductor_effect *effect;

    if (!event->request)
        return;
    effect = conductor_emit(c, kind);
    effect->to = event->from;
    effect->request = event->request;
    effect->member = event->member;
}

void conductor_refuse(struct conductor *c, const struct conductor_event *event, enum conductor_refusal why, const char *text)
{
    struct conductor_effect *effect;

    if (!event->request)
        return;
    effect = conductor_emit(c, CONDUCTOR_REFUSE);
    effect->to = event->from;
    effect->request = event->request;
    effect->member = event->member;
    effect->refuse.why = why;
    snprintf(effect->refuse.text, sizeof(effect->refuse.text), "%s", text);
}

/* ---- hello, bye, exit ---------------------------------------------------------------------------- */

static bool still_wanted(struct conductor *c, uint64_t episode)
{
    struct open_iteration *it;
    const struct ledger_episode *row = conductor_row(c, episode, &it);

    return row && row->state == EPISODE_OPEN;
}

static bool is_suspect(struct conductor *c, uint64_t episode)
{
    struct open_iteration *it;
    const struct ledger_episode *row = conductor_row(c, episode, &it);

    return row && row->suspect;
}

static bool announced(const struct conductor_event *event, const struct lease *lease)
{
    for (size_t i = 0; i < event->hello.n_leases; i++)
        if (event->hello.leases[i].episode == lease->episode && event->hello.leases[i].fence == lease->fence)
            return true;
    return false;
}

/* What it plays according to us but not to itself is free; what it plays according to itself it keeps where that is right. */
static void settle_leases(struct conductor *c, const struct conductor_event *event, const struct member *member,
                          struct conductor_effect *welcome)
{
    uint64_t *kept = conductor_take(c, MAX(event->hello.n_leases, (size_t)1) * sizeof(*kept));
    size_t n = 0;

    for (size_t i = c->leases.n; i-- > 0;) {
        uint64_t episode = c->leases.items[i].episode;

        if (c->leases.items[i].member == member->id && !announced(event, &c->leases.items[i]))
            (void)lease_end(&c->leases, episode);
    }
    for (size_t i = 0; kept && i < event->hello.n_leases; i++) {
        const struct held_lease *held = &event->hello.leases[i];

        if (still_wanted(c, held->episode) &&
            lease_adopt(&c->leases, held->episode, held->fence, member->id, held->step, c->now_ms) == 0)
            kept[n++] = held->episode;
    }
    if (n == 1 && is_suspect(c, kept[0]))       /* as it was given, perhaps by our earlier life */
        lease_set_alone(&c->leases, kept[0]);
    welcome->welcome.kept = kept;
    welcome->welcome.n_kept = n;
}

static void on_learner_hello(struct conductor *c, const struct member *member)
{
    if (member->rank != 0 || member->instance == c->learner_instance)
        return;
    c->learner_instance = member->instance;
    c->inventory_seen = false;
    c->group_epoch++;               /* what the group before it says is no longer listened to by its peers */
    conductor_emit(c, CONDUCTOR_PUT_GROUP_EPOCH)->group_epoch = c->group_epoch;
    for (size_t i = 0; i < c->n_open; i++) {
        c->open[i].known_to = 0;
        c->open[i].sent_ms = 0;
    }
}

/* NAME#LIFE -> LIFE and the length of NAME; no #: life 0. */
static unsigned long life_of(const char *name, size_t *ret_n)
{
    *ret_n = strcspn(name, "#");
    return name[*ret_n] ? strtoul(name + *ret_n + 1, NULL, 10) : 0;
}

/* A supervisor has started a worker again under its name: what the life before held is free now, not when its leases run out.
 * false: it is the other way round, a later life than this one is known (a node that came back after its job was requeued). */
static bool end_earlier_lives(struct conductor *c, const struct member *hello)
{
    size_t n, old_n;
    unsigned long life = life_of(hello->name, &n), old_life;
    struct lease lease;

    for (size_t i = 0; hello->role == MEMBER_WORKER && n && i < c->members.n; i++) {
        struct member *old = &c->members.items[i];

        old_life = life_of(old->name, &old_n);
        if (old->role != hello->role || old->instance == hello->instance || old_n != n || strncmp(old->name, hello->name, n) ||
            strcmp(old->user, hello->user))
            continue;
        if (old_life > life)
            return false;
        if (old->state == MEMBER_GONE)
            continue;
        conductor_note(c, 0, "exit", "member %u: %s was started again", old->id, old->name);
        while (lease_take_member(&c->leases, old->id, &lease) == 0)
            conductor_holder_died(c, &lease, true, "its worker was lost while it played this alone: started again");
        conductor_forget_member(c, old);
        membership_remove(&c->members, old);
    }
    return true;
}

void conductor_on_hello(struct conductor *c, const struct conductor_event *event)
{
    struct conductor_effect *welcome;
    struct member hello = event->hello.member, *member;
    char unlike[PRODUCTS_TEXT];
    bool is_new;

    hello.address_id = event->from;
    if (hello.role < MEMBER_WORKER || hello.role > MEMBER_LEARNER) {
        conductor_refuse(c, event, REFUSE_ROLE, "role: worker, actor, PRM server or learner");
        return;
    }
    if (!end_earlier_lives(c, &hello)) {
        conductor_refuse(c, event, REFUSE_ROLE, "a later life of this worker has taken its place");
        return;
    }
    if (membership_hello(&c->members, &hello, c->now_ms, &member, &is_new) < 0) {
        c->out_of_memory = true;
        return;
    }
    conductor_holder_back(c, member->id);
    conductor_recall_member(c, member);
    if (is_new)
        conductor_note(c, 0, "joined", "member %u: %s, host %s, pid %u, build %s", member->id,
                       run_build_roles[member->role - 1], member->host, member->pid, member->build);    /* run_builds_read() */
    if (is_new && products_unlike(&c->members, member, c->setup.config->numerics, unlike, sizeof(unlike)))
        conductor_note(c, 0, "numerics", "%s", unlike);
    welcome = conductor_emit(c, CONDUCTOR_WELCOME);
    welcome->to = event->from;
    welcome->request = event->request;
    welcome->member = member->id;
    welcome->welcome.member = member->id;
    welcome->welcome.epoch = c->setup.epoch;
    if (member->role == MEMBER_WORKER)
        settle_leases(c, event, member, welcome);
    else if (member->role == MEMBER_LEARNER)
        on_learner_hello(c, member);
    else
        conductor_send_versions(c, member);
}

void conductor_on_bye(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    struct lease lease;

    while (lease_take_member(&c->leases, member->id, &lease) == 0)
        ;       /* given back: nothing counts against the episodes */
    conductor_note(c, 0, "left", "member %u", member->id);
    conductor_forget_member(c, member);
    membership_remove(&c->members, member);
    conductor_reply(c, event, CONDUCTOR_ACK);
}

void conductor_on_exit(struct conductor *c, const struct conductor_event *event)
{
    struct member *member = event->member
                                ? membership_find(&c->members, event->member)
                                : membership_find_process(&c->members, event->exit.host ? event->exit.host : "", event->exit.pid);
    const char *text = event->exit.text ? event->exit.text : "worker died";
    struct lease lease;

    if (!member)
        return;
    conductor_note(c, 0, "exit", "member %u: %.300s", member->id, text);
    while (lease_take_member(&c->leases, member->id, &lease) == 0)
        if (!event->exit.shut_out)
            conductor_holder_died(c, &lease, event->exit.crashed, text);
    conductor_forget_member(c, member);
    membership_remove(&c->members, member);
}

/* ---- time ------------------------------------------------------------------------------------------ */

/* Three heartbeats without a word, or 3 s; the look that finds it comes up to LOOK_MS late. */
enum { LOOK_MS = 200 };

void conductor_expire(struct conductor *c)
{
    uint32_t ttl_ms = (uint32_t)MAX(3 * c->config->heartbeat_ms, 3000) - LOOK_MS;
    struct member *member;
    struct lease lease;

    while ((member = membership_take_lost(&c->members, c->now_ms, ttl_ms))) {
        conductor_note(c, 0, "lost", "member %u: nothing heard for %u ms", member->id, ttl_ms);
        lease_hasten(&c->leases, member->id, member->heard_ms + c->leases.ttl_ms);
    }
    while (lease_take_expired(&c->leases, c->now_ms, &lease) == 0) {
        member = membership_find(&c->members, lease.member);
        conductor_note(c, lease.episode, "lease_expired", "member %u, step %u", lease.member, lease.step);
        if (!member || member->state != MEMBER_ALIVE)
            conductor_holder_lost(c, &lease);
        else
            conductor_gave_back(c, member, "its time was up");
    }
}

void conductor_on_heartbeat(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    uint64_t *revoked = conductor_take(c, MAX(event->heartbeat.n_leases, (size_t)1) * sizeof(*revoked));
    struct conductor_effect *reply;
    struct lease lease;
    size_t n = 0;

    if (c->bug != CONDUCTOR_BUG_OLD_ADDRESS)
        member->address_id = event->from;   /* a connection that broke and came back is another one: pushes go there */
    for (size_t i = 0; revoked && i < event->heartbeat.n_leases; i++) {
        const struct held_lease *held = &event->heartbeat.leases[i];

        if (lease_progress(&c->leases, held, c->now_ms) < 0)
            revoked[n++] = held->episode;
    }
    for (bool first = true;
         lease_take_unmentioned(&c->leases, member->id, event->heartbeat.leases, event->heartbeat.n_leases, first, &lease) == 0;)
        first = false;
    if ((member->role == MEMBER_ACTOR || member->role == MEMBER_PRM) && c->bug != CONDUCTOR_BUG_LIST_ONCE)
        conductor_send_versions(c, member);     /* again and again: a late older list may have undone the last */
    if (!event->request)
        return;
    reply = conductor_emit(c, CONDUCTOR_HEARTBEAT_REPLY);
    reply->to = event->from;
    reply->request = event->request;
    reply->member = member->id;
    /* A learner whose inventory has got lost says Hello again, which brings another. */
    reply->heartbeat.known = member->role != MEMBER_LEARNER || member != membership_learner(&c->members) || c->inventory_seen;
    /* Workers first: what they still play needs the servers and the learner, who hear of it when all is in (the edge,
     * CONDUCTOR_DRAINED). */
    reply->heartbeat.drain = member->leaving || (c->draining && member->role == MEMBER_WORKER);
    reply->heartbeat.sent_away = member->leaving;
    reply->heartbeat.revoked = revoked;
    reply->heartbeat.n_revoked = n;
    reply->heartbeat.revision = c->members.revision;
    reply->heartbeat.endpoints_changed = event->heartbeat.revision != c->members.revision;
}
