/* conductor_member.c - the conductor's dealings with members: who is there, who plays what. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/conductor_internal.h"
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

/* ---- an episode's worker has died, or it says it cannot ----------------------------------------------- */

static void set_suspect(struct conductor *c, struct ledger_episode *row, const char *why)
{
    struct conductor_effect *effect;

    row->suspect = true;
    snprintf(row->reason, sizeof(row->reason), "%s", why);
    effect = conductor_emit(c, CONDUCTOR_EPISODE_FAILURE);
    effect->episode = *row;
}

/* One failure that counts. */
static void count_failure(struct conductor *c, struct open_iteration *it, struct ledger_episode *row, const char *why)
{
    row->failures++;
    set_suspect(c, row, why);
    if (row->failures >= FAILURES_MAX)
        conductor_fail_row(c, it, row, why);
}

/* The holder of `lease` is dead (or lost). `counts`: it crashed by itself. */
static void holder_died(struct conductor *c, const struct lease *lease, bool counts, const char *why)
{
    struct open_iteration *it;
    struct ledger_episode *row = conductor_row(c, lease->episode, &it);

    if (!row || row->state != EPISODE_OPEN)
        return;
    if (counts && lease->alone)
        count_failure(c, it, row, why);
    else if (!row->suspect)
        set_suspect(c, row, why);
}

/* Its holder is not heard of and nobody saw it end. While it played this alone, that counts: without a supervisor it is all that
 * is ever known of a crash. If the holder comes back it was cut off, and the count is taken back. */
static void holder_lost(struct conductor *c, const struct lease *lease)
{
    struct open_iteration *it;
    struct ledger_episode *row = conductor_row(c, lease->episode, &it);

    if (row && row->state == EPISODE_OPEN && lease->alone)
        it->lost_by[row - it->rows] = lease->member;
    holder_died(c, lease, true, "its worker was lost while it played this alone");
}

static void holder_back(struct conductor *c, uint32_t member)
{
    for (size_t k = 0; k < c->n_open; k++) {
        struct open_iteration *it = &c->open[k];

        for (size_t i = 0; i < it->n; i++) {
            if (it->lost_by[i] != member)
                continue;
            it->lost_by[i] = 0;
            if (it->rows[i].state != EPISODE_OPEN || !it->rows[i].failures)
                continue;
            it->rows[i].failures--;
            set_suspect(c, &it->rows[i], "worker lost, and back");
        }
    }
}

/* ---- hello, bye, exit ---------------------------------------------------------------------------- */

static bool still_wanted(struct conductor *c, uint64_t episode)
{
    struct open_iteration *it;
    const struct ledger_episode *row = conductor_row(c, episode, &it);

    return row && row->state == EPISODE_OPEN;
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
            (void)lease_end(&c->leases, episode, NULL);
    }
    for (size_t i = 0; kept && i < event->hello.n_leases; i++) {
        const struct held_lease *held = &event->hello.leases[i];

        if (still_wanted(c, held->episode) &&
            lease_adopt(&c->leases, held->episode, held->fence, member->id, held->step, c->now_ms) == 0)
            kept[n++] = held->episode;
    }
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
            holder_died(c, &lease, true, "its worker was lost while it played this alone: started again");
        conductor_forget_member(c, old);
        membership_remove(&c->members, old);
    }
    return true;
}

void conductor_on_hello(struct conductor *c, const struct conductor_event *event)
{
    struct conductor_effect *welcome;
    struct member hello = event->hello.member, *member;
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
    holder_back(c, member->id);
    conductor_recall_member(c, member);
    if (is_new)
        conductor_note(c, 0, "joined", "member %u: %s, host %s, pid %u, build %s", member->id,
                       run_build_roles[member->role - 1], member->host, member->pid, member->build);    /* run_builds_read() */
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
        holder_died(c, &lease, event->exit.crashed, text);
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
            holder_lost(c, &lease);
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

        if (lease_progress(&c->leases, held->episode, held->fence, held->step, c->now_ms) < 0)
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

/* ---- leases ---------------------------------------------------------------------------------------- */

static bool grants_now(const struct conductor *c, const struct member *member)
{
    return !c->draining && !c->stopped && !member->cordoned && !member->leaving && c->now_ms >= c->grants_from_ms;
}

/* The next free row, in id order: what is free never depends on who asks. */
static struct ledger_episode *next_free(struct conductor *c, bool suspect, struct open_iteration **ret_iteration)
{
    for (size_t k = 0; k < c->n_open; k++) {
        struct open_iteration *it = &c->open[k];

        for (size_t i = 0; it->known_to == c->learner_instance && it->known_to && i < it->n; i++)
            if (it->rows[i].state == EPISODE_OPEN && it->rows[i].suspect == suspect &&
                !lease_find(&c->leases, it->rows[i].episode)) {
                *ret_iteration = it;
                return &it->rows[i];
            }
    }
    return NULL;
}

static void fill_terms(const struct conductor *c, const struct open_iteration *it, const struct ledger_episode *row,
                       const struct lease *lease, struct lease_terms *terms)
{
    const struct stage_config *s = &c->config->stages[it->work.stage];

    *terms = (struct lease_terms) {
        .episode = row->episode, .fence = lease->fence, .purpose = row->purpose, .split = row->split, .task = row->task,
        .state_seed = row->state_seed, .sample_key = row->sample_key, .max_steps = row->max_steps,
        .policy_version = row->policy_version, .prm_version = row->prm_version, .temperature = row->temperature,
        .style = "", .search_n = row->search_n, .search_score = "last", .score_every = (uint32_t)MAX(c->config->prm_every, 1),
        .alone = lease->alone,
    };
    if (it->work.expert) {      /* evaluated demonstrators are those that were imitated */
        terms->style = "clean";
        for (int i = 0; i <= (int)it->work.stage; i++)
            if (c->config->stages[i].kind == STAGE_DEMOS)
                terms->style = c->config->stages[i].demos.style;
    }
    if (s->kind == STAGE_EVAL && row->search_n > 1) {
        terms->search_horizon = (uint32_t)MAX(s->eval.search_horizon, 1);
        terms->search_execute = (uint32_t)MAX(s->eval.search_execute, 1);
        terms->search_temperature = row->temperature;
        terms->search_score = s->eval.search_score;
        terms->search_method = search_method_names[s->eval.search_method];
        terms->search_judge = search_judge_names[stage_plan_judge(&s->eval, row)];
        terms->search_proposals = search_proposal_names[s->eval.search_proposals];
        terms->refine_always = s->eval.refine_always;
    }
    if (s->kind == STAGE_EVAL && row->split == SPLIT_TEST)
        terms->perturb = s->eval.perturb;
    if (c->bug == CONDUCTOR_BUG_NEWEST_VERSION && row->purpose == EPISODE_TRAIN)
        terms->policy_version = versions_newest(&c->versions, KIND_POLICY)->number;
}

/* Who is not given anything any more does not come for the episode that it was emptied for. */
static bool someone_reserved(const struct conductor *c)
{
    for (size_t i = 0; i < c->members.n; i++) {
        const struct member *member = &c->members.items[i];

        if (member->reserved && member->state == MEMBER_ALIVE && !member->cordoned && !member->leaving)
            return true;
    }
    return false;
}

/* Suspected episodes are played alone: by a worker that holds nothing; one worker is emptied for that if none is. */
static bool wants_alone(struct conductor *c, struct member *member, size_t held, struct ledger_episode **ret_row,
                        struct open_iteration **ret_iteration)
{
    struct ledger_episode *row = next_free(c, true, ret_iteration);

    *ret_row = NULL;
    if (!row) {
        member->reserved = false;
        return false;
    }
    if (held == 0) {
        member->reserved = false;
        *ret_row = row;
        return true;
    }
    if (!member->reserved && !someone_reserved(c))
        member->reserved = true;
    return member->reserved;
}

static bool plays_alone(const struct conductor *c, uint32_t member)
{
    for (size_t i = 0; i < c->leases.n; i++)
        if (c->leases.items[i].member == member && c->leases.items[i].alone)
            return true;
    return false;
}

static size_t grant_rows(struct conductor *c, struct member *member, size_t slots, struct lease_terms *terms)
{
    size_t held = lease_count(&c->leases, member->id), n = 0;
    struct open_iteration *it;
    struct ledger_episode *row;
    struct lease lease;

    if (plays_alone(c, member->id))
        return 0;
    if (wants_alone(c, member, held, &row, &it)) {
        if (!row || lease_grant(&c->leases, row->episode, member->id, true, c->now_ms, &lease) < 0)
            return 0;
        fill_terms(c, it, row, &lease, &terms[0]);
        return 1;
    }
    /* Up to twice its slots: what it has just finished is still on our books until the learner has told us. */
    while (n < slots && held + n < 2 * (size_t)member->slots && (row = next_free(c, false, &it))) {
        if (lease_grant(&c->leases, row->episode, member->id, false, c->now_ms, &lease) < 0)
            break;
        fill_terms(c, it, row, &lease, &terms[n++]);
    }
    return n;
}

void conductor_on_lease_request(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    size_t slots = MIN(MIN(event->lease_request.slots, member->slots), (uint32_t)GRANT_MAX), n = 0;
    struct lease_terms *terms = conductor_take(c, MAX(slots, (size_t)1) * sizeof(*terms));
    struct conductor_effect *reply;

    if (!event->request || !terms)
        return;
    if (grants_now(c, member))
        n = grant_rows(c, member, slots, terms);
    reply = conductor_emit(c, CONDUCTOR_GRANT);
    reply->to = event->from;
    reply->request = event->request;
    reply->member = member->id;
    reply->grant.leases = terms;
    reply->grant.n_leases = n;
    reply->grant.retry_ms = n < slots ? RETRY_MS : 0;
    reply->grant.drain = c->draining;
}

void conductor_send_work(struct conductor *c)
{
    for (size_t i = 0; i < c->members.n; i++) {
        const struct member *member = &c->members.items[i];
        struct conductor_effect *effect;

        if (member->role != MEMBER_WORKER || member->state != MEMBER_ALIVE || !grants_now(c, member))
            continue;
        effect = conductor_emit(c, CONDUCTOR_SEND_WORK);
        effect->to = member->address_id;
        effect->member = member->id;
    }
}

/* Not the episode's fault: it is played again. When nothing gets played any more the run cannot go on with these servers. */
static void count_server_error(struct conductor *c, uint64_t episode, const char *text)
{
    char why[300];

    conductor_note(c, episode, "server_error", "%.300s", text ? text : "");
    if (++c->server_errors < SERVER_ERRORS_MAX)
        return;
    snprintf(why, sizeof(why), "no episode can be played, %u in a row came back: %.200s", c->server_errors, text ? text : "");
    conductor_stop(c, why);
}

void conductor_on_lease_return(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    const struct lease *held = lease_find(&c->leases, event->lease_return.episode);
    struct open_iteration *it;
    struct ledger_episode *row;

    if (held && held->fence == event->lease_return.fence && held->member == member->id) {
        (void)lease_end(&c->leases, event->lease_return.episode, NULL);
        row = conductor_row(c, event->lease_return.episode, &it);
        if (row && row->state == EPISODE_OPEN && event->lease_return.reason == LEASE_SIMULATOR_ERROR)
            count_failure(c, it, row, event->lease_return.text ? event->lease_return.text : "simulator error");
        else if (event->lease_return.reason == LEASE_SERVER_ERROR)
            count_server_error(c, event->lease_return.episode, event->lease_return.text);
    }
    conductor_reply(c, event, CONDUCTOR_ACK);
}
