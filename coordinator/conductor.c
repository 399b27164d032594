#include "coordinator/conductor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/array.h"
#include "coordinator/conductor_internal.h"

int conductor_new(const struct conductor_setup *setup, struct conductor **ret)
{
    struct conductor *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->setup = *setup;
    c->config = setup->config;
    c->group_epoch = setup->group_epoch;
    c->stages = calloc((size_t)MAX(c->config->n_stages, 1), sizeof(*c->stages));
    if (!c->stages) {
        free(c);
        return -ENOMEM;
    }
    plan_memory_init(&c->memory);
    lease_table_init(&c->leases, setup->epoch, (uint32_t)c->config->lease_ttl_ms, (uint32_t)c->config->first_step_ms);
    *ret = c;
    return 0;
}

struct conductor *conductor_free(struct conductor *c)
{
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n_open; i++)
        open_iteration_release(&c->open[i]);
    membership_release(&c->members);
    lease_table_release(&c->leases);
    versions_release(&c->versions);
    free(c->later.items);
    free(c->stages);
    free(c);
    return NULL;
}

void conductor_set_bug(struct conductor *c, enum conductor_bug bug)
{
    c->bug = bug;
    c->leases.renew_stale = bug == CONDUCTOR_BUG_STALE_RENEW;
}

/* ---- effects ----------------------------------------------------------------------------------- */

void conductor_effects_release(struct conductor_effects *effects)
{
    free(effects->items);
    effects->memory = effect_memory_free(effects->memory);
    *effects = (struct conductor_effects) { 0 };
}

static struct conductor_effect *append(struct conductor *c, struct conductor_effects *list)
{
    static struct conductor_effect scratch;

    if (array_room(&list->items, list->n, &list->capacity, sizeof(*list->items)) < 0) {
        c->out_of_memory = true;
        return &scratch;
    }
    return &list->items[list->n++];
}

struct conductor_effect *conductor_emit(struct conductor *c, enum conductor_effect_kind kind)
{
    struct conductor_effect *effect = append(c, kind <= CONDUCTOR_LAST_LEDGER ? c->out : &c->later);

    *effect = (struct conductor_effect) { .kind = kind };
    return effect;
}

void *conductor_take(struct conductor *c, size_t bytes)
{
    void *taken = effect_memory_take(&c->out->memory, bytes);

    c->out_of_memory |= !taken;
    return taken;
}

void conductor_note(struct conductor *c, uint64_t episode, const char *kind, const char *format, ...)
{
    struct conductor_effect *effect = conductor_emit(c, CONDUCTOR_ADD_EVENT);
    va_list args;

    effect->text.episode = episode;
    snprintf(effect->text.kind, sizeof(effect->text.kind), "%s", kind);
    va_start(args, format);
    vsnprintf(effect->text.text, sizeof(effect->text.text), format, args);
    va_end(args);
}

void conductor_stop(struct conductor *c, const char *text)
{
    if (c->stopped)
        return;
    c->stopped = true;
    snprintf(c->stop_text, sizeof(c->stop_text), "%s", text);
    conductor_note(c, 0, "stopped", "%s", text);
}

/* ---- the step ---------------------------------------------------------------------------------- */

static bool from_outside(enum conductor_event_kind kind)
{
    return kind != CONDUCTOR_TICK && kind != CONDUCTOR_DRAIN && kind != CONDUCTOR_DRAIN_MEMBER && kind != CONDUCTOR_CORDON &&
           kind != CONDUCTOR_PRM_SWAP && kind != CONDUCTOR_EXIT && kind != CONDUCTOR_HELLO;
}

static bool only_learner(enum conductor_event_kind kind)
{
    return kind == CONDUCTOR_JOURNALED || kind == CONDUCTOR_INVENTORY || kind == CONDUCTOR_COMMITTED;
}

static bool only_worker(enum conductor_event_kind kind)
{
    return kind == CONDUCTOR_LEASE_REQUEST || kind == CONDUCTOR_LEASE_RETURN;
}

/* The sender, if it may say this; otherwise it is told to say Hello again, or refused, and NULL. */
static struct member *sender(struct conductor *c, const struct conductor_event *event)
{
    struct member *member = membership_find(&c->members, event->member);
    bool fits;

    if (!member || member->state != MEMBER_ALIVE || event->epoch != c->setup.epoch) {
        if (event->kind == CONDUCTOR_HEARTBEAT)
            conductor_reply(c, event, CONDUCTOR_HEARTBEAT_REPLY);       /* known: false */
        else
            conductor_refuse(c, event, REFUSE_STALE, "not a member of this coordinator epoch: say Hello again");
        return NULL;
    }
    if (only_learner(event->kind))
        fits = member == membership_learner(&c->members);
    else if (event->kind == CONDUCTOR_PLAN_FAILED)      /* of any rank: what fails on one fails the plan */
        fits = member->role == MEMBER_LEARNER;
    else if (only_worker(event->kind))
        fits = member->role == MEMBER_WORKER;
    else if (event->kind == CONDUCTOR_VERSION_STATE)
        fits = member->role == MEMBER_ACTOR || member->role == MEMBER_PRM;
    else if (event->kind == CONDUCTOR_SHADOW_SCORED)
        fits = member->role == MEMBER_PRM;
    else
        fits = true;
    if (!fits) {
        conductor_refuse(c, event, REFUSE_ROLE, "this message is not for a member of this role");
        return NULL;
    }
    member->heard_ms = c->now_ms;
    return member;
}

static void on_version_state(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    bool known = false;

    for (uint32_t i = 0; i < member->n_versions; i++)
        known |= member->versions[i].kind == event->version_state.kind &&
                 member->versions[i].version == event->version_state.version &&
                 member->versions[i].ready == event->version_state.ready;
    if (!event->version_state.ready)
        snprintf(c->refusal[event->version_state.kind], sizeof(c->refusal[0]), "%s",
                 event->version_state.text ? event->version_state.text : "");
    membership_version(&c->members, member, event->version_state.kind, event->version_state.version, event->version_state.ready,
                       c->now_ms);
    if (!known && !event->version_state.ready)
        conductor_note(c, 0, "refused", "member %u refused %s version %llu: %s", member->id,
                       event->version_state.kind == KIND_PRM ? "PRM" : "policy", (unsigned long long)event->version_state.version,
                       event->version_state.text ? event->version_state.text : "");
    conductor_reply(c, event, CONDUCTOR_ACK);
}

static void dispatch(struct conductor *c, const struct conductor_event *event)
{
    struct member *member = NULL;

    if (from_outside(event->kind)) {
        member = sender(c, event);
        if (!member)
            return;
    }
    switch (event->kind) {
    case CONDUCTOR_HELLO: conductor_on_hello(c, event); break;
    case CONDUCTOR_HEARTBEAT: conductor_on_heartbeat(c, event, member); break;
    case CONDUCTOR_BYE: conductor_on_bye(c, event, member); break;
    case CONDUCTOR_EXIT: conductor_on_exit(c, event); break;
    case CONDUCTOR_LEASE_REQUEST: conductor_on_lease_request(c, event, member); break;
    case CONDUCTOR_LEASE_RETURN: conductor_on_lease_return(c, event, member); break;
    case CONDUCTOR_JOURNALED: conductor_on_journaled(c, event, member); break;
    case CONDUCTOR_INVENTORY: conductor_on_inventory(c, event, member); break;
    case CONDUCTOR_COMMITTED: conductor_on_committed(c, event, member); break;
    case CONDUCTOR_PLAN_FAILED: conductor_on_plan_failed(c, event, member); break;
    case CONDUCTOR_VERSION_STATE: on_version_state(c, event, member); break;
    case CONDUCTOR_TICK: conductor_expire(c); break;
    case CONDUCTOR_DRAIN: conductor_on_drain(c, event); break;
    case CONDUCTOR_CORDON: conductor_on_cordon(c, event); break;
    case CONDUCTOR_DRAIN_MEMBER: conductor_on_drain_member(c, event); break;
    case CONDUCTOR_PRM_SWAP: conductor_on_prm_swap(c, event); break;
    case CONDUCTOR_SHADOW_SCORED: conductor_on_shadow_scored(c, event); break;
    }
}

static bool training(const struct conductor *c)
{
    for (size_t i = 0; i < c->n_open; i++)
        if (c->open[i].row.state == PROGRESS_PLANNED && !c->open[i].left)
            return true;
    return false;
}

/* Said once each, when they have become true. */
static void say_ends(struct conductor *c)
{
    if (c->stopped && !c->stopped_said) {
        struct conductor_effect *effect = conductor_emit(c, CONDUCTOR_STOPPED);

        snprintf(effect->text.text, sizeof(effect->text.text), "%s", c->stop_text);
        c->stopped_said = true;
    }
    if (c->memory.finished && !c->finished_said) {
        (void)conductor_emit(c, CONDUCTOR_FINISHED);
        c->finished_said = true;
    }
    if (c->draining && !c->drained_said && !c->leases.n && !training(c)) {
        (void)conductor_emit(c, CONDUCTOR_DRAINED);
        c->drained_said = true;
    }
}

static void write_memory(struct conductor *c)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct conductor_effect *effect;
    char *bytes;

    if (!c->memory_moved)
        return;
    c->memory_moved = false;
    if (plan_memory_write(&c->memory, &text) < 0 || !(bytes = conductor_take(c, text.length + 1))) {
        c->out_of_memory = true;
        return;
    }
    memcpy(bytes, text.text, text.length);
    effect = conductor_emit(c, CONDUCTOR_PUT_BLOB);
    effect->blob.name = "memory";
    effect->blob.bytes = bytes;
    effect->blob.n = text.length;
}

int conductor_step(struct conductor *c, const struct conductor_event *event, uint64_t now_ms, struct conductor_effects *out)
{
    out->n = 0;
    effect_memory_reset(out->memory);
    c->out = out;
    c->later.n = 0;
    if (c->now_ms && now_ms - c->now_ms >= DEAF_MS) {       /* what was said meanwhile is heard only now */
        lease_excuse(&c->leases, now_ms - c->now_ms);
        membership_excuse(&c->members, now_ms - c->now_ms);
    }
    c->now_ms = now_ms;
    c->wall_ms = event->wall_ms;

    dispatch(c, event);
    conductor_advance(c);
    say_ends(c);
    write_memory(c);
    for (size_t i = 0; i < c->later.n; i++)
        *append(c, out) = c->later.items[i];
    c->out = NULL;
    return c->out_of_memory ? -ENOMEM : 0;
}

/* ---- looking in -------------------------------------------------------------------------------- */

void conductor_status(const struct conductor *c, struct conductor_status *ret)
{
    const struct ledger_version *newest = versions_newest(&c->versions, KIND_POLICY), *doubtful;
    struct conductor_status status = {
        .stage = c->memory.stage, .iteration = c->memory.iteration, .name = "",
        .leased = c->leases.n, .training = training(c),
        .waiting = c->waiting_for[0], .waiting_for = c->waiting_for, .trouble = c->trouble,
        .policy_version = newest ? newest->number : 0, .prm_version = c->memory.prm_current,
        .stage_s = (double)(c->now_ms - c->stage_since_ms) / 1000,
        .draining = c->draining, .finished = c->memory.finished, .stopped = c->stopped,
    };

    if (c->n_open) {
        const struct open_iteration *it = &c->open[c->n_open - 1];

        status.stage = it->work.stage;
        status.iteration = it->work.iteration;
        status.work = &it->work;
        status.name = it->work.name;
        status.rows = it->n;
        for (size_t i = 0; i < it->n; i++) {
            status.open += it->rows[i].state == EPISODE_OPEN;
            status.journaled += it->rows[i].state == EPISODE_JOURNALED;
            status.failed += it->rows[i].state == EPISODE_FAILED;
            status.ended += it->rows[i].state == EPISODE_JOURNALED;
            status.success += it->rows[i].state == EPISODE_JOURNALED && it->rows[i].success;
            status.reward += it->rows[i].state == EPISODE_JOURNALED ? (double)it->rows[i].reward : 0;
        }
    }
    doubtful = conductor_doubtful_prm(c, status.stage);
    status.prm_doubt = doubtful ? doubtful->gate_text : "";
    *ret = status;
}

const struct membership *conductor_members(const struct conductor *c) { return &c->members; }
const struct lease_table *conductor_leases(const struct conductor *c) { return &c->leases; }
const struct plan_memory *conductor_memory(const struct conductor *c) { return &c->memory; }
const struct versions *conductor_versions(const struct conductor *c) { return &c->versions; }
