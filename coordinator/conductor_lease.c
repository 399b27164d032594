/* conductor_lease.c - who plays what: rows are leased to workers, come back, or are free again because their worker is lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

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

void conductor_holder_died(struct conductor *c, const struct lease *lease, bool counts, const char *why)
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
void conductor_holder_lost(struct conductor *c, const struct lease *lease)
{
    struct open_iteration *it;
    struct ledger_episode *row = conductor_row(c, lease->episode, &it);

    if (row && row->state == EPISODE_OPEN && lease->alone)
        it->lost_by[row - it->rows] = lease->member;
    conductor_holder_died(c, lease, true, "its worker was lost while it played this alone");
}

void conductor_holder_back(struct conductor *c, uint32_t member)
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

/* ---- leases ---------------------------------------------------------------------------------------- */

static bool is_free_to_play(const struct member *member)
{
    return member->role == MEMBER_WORKER && member->state == MEMBER_ALIVE && member->slots && !member->cordoned &&
           !member->leaving;
}

/* Others come first, as it asks soonest. Whatever it plays fails in its simulator: it would fail the run while another is well.
 * Or a lease came back from it, given back or run out, since no server answers it: it would hold on to the last episodes of a pass
 * again and again while another waits for work. */
static bool comes_second(const struct conductor *c, const struct member *member)
{
    bool ill = member->failed >= MEMBER_ILL;

    for (size_t i = 0; (ill || member->gave_back) && i < c->members.n; i++) {
        const struct member *other = &c->members.items[i];

        if (is_free_to_play(other) && other->failed < MEMBER_ILL &&
            (ill || (!other->gave_back && other->wanted_more_ms && c->now_ms - other->wanted_more_ms < WANTED_MS)))
            return true;
    }
    return false;
}

static bool grants_now(const struct conductor *c, const struct member *member)
{
    return !c->draining && !c->stopped && is_free_to_play(member) && !comes_second(c, member) && c->now_ms >= c->grants_from_ms;
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

/* Pictures that nobody would look at. Look-ahead does, and a reward model that is shown the past: all of it, step by step. */
static bool draws_turns(const struct conductor *c, const struct ledger_episode *row)
{
    return c->config->draw == DRAW_TURNS && row->search_n <= 1 && !c->config->prm_history;
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
        .alone = lease->alone, .draw_turns = draws_turns(c, row),
        .want_hidden = row->purpose == EPISODE_TRAIN && rl_has_critic(&s->rl),
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

        if (member->reserved && is_free_to_play(member) && !comes_second(c, member))
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

    member->wanted_more_ms = 0;
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
    if (n < slots && held + n < 2 * (size_t)member->slots)
        member->wanted_more_ms = c->now_ms;
    return n;
}

/* It plays nothing, and still is on our books with something: alone with an episode, it gets no other until that is off them. */
static bool was_delivered(const struct conductor *c, const struct member *member, uint32_t idle)
{
    return idle >= member->slots && lease_count(&c->leases, member->id) > 0;
}

void conductor_on_lease_request(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    size_t slots = MIN(MIN(event->lease_request.slots, member->slots), (uint32_t)GRANT_MAX), n = 0;
    struct lease_terms *terms = conductor_take(c, MAX(slots, (size_t)1) * sizeof(*terms));
    struct conductor_effect *reply;

    if (!event->request || !terms)
        return;
    if (slots && grants_now(c, member))
        n = grant_rows(c, member, slots, terms);
    reply = conductor_emit(c, CONDUCTOR_GRANT);
    reply->to = event->from;
    reply->request = event->request;
    reply->member = member->id;
    reply->grant.leases = terms;
    reply->grant.n_leases = n;
    reply->grant.retry_ms = n == slots ? 0 : !n && was_delivered(c, member, event->lease_request.slots) ? RETRY_SOON_MS : RETRY_MS;
    reply->grant.drain = c->draining;
}

void conductor_send_work(struct conductor *c)
{
    for (size_t i = 0; i < c->members.n; i++) {
        const struct member *member = &c->members.items[i];
        struct conductor_effect *effect;

        if (!grants_now(c, member))
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

static void count_simulator_error(struct conductor *c, struct member *member, uint64_t episode, const char *text)
{
    if (member->failed_last == episode && member->failed)
        return;
    member->failed_last = episode;
    if (++member->failed == MEMBER_ILL)
        conductor_note(c, 0, "ill", "member %u: its simulator failed in %d episodes in a row (%.200s): it gets none while another "
                       "worker is well", member->id, MEMBER_ILL, text);
}

void conductor_gave_back(struct conductor *c, struct member *member, const char *why)
{
    if (member->gave_back || member->leaving || c->draining)
        return;
    member->gave_back = true;
    conductor_note(c, 0, "gave_back", "member %u: an episode came back (%.200s): others that want work come first until it "
                   "delivers one", member->id, why);
}

void conductor_on_lease_return(struct conductor *c, const struct conductor_event *event, struct member *member)
{
    const struct lease *held = lease_find(&c->leases, event->lease_return.episode);
    const char *text = event->lease_return.text ? event->lease_return.text : "simulator error";
    struct open_iteration *it;
    struct ledger_episode *row;

    if (held && held->fence == event->lease_return.fence && held->member == member->id) {
        (void)lease_end(&c->leases, event->lease_return.episode);
        row = conductor_row(c, event->lease_return.episode, &it);
        if (event->lease_return.reason == LEASE_SIMULATOR_ERROR)
            count_simulator_error(c, member, event->lease_return.episode, text);
        if (row && row->state == EPISODE_OPEN && event->lease_return.reason == LEASE_SIMULATOR_ERROR)
            count_failure(c, it, row, text);
        else if (event->lease_return.reason == LEASE_SERVER_ERROR)
            count_server_error(c, event->lease_return.episode, event->lease_return.text);
        else if (event->lease_return.reason == LEASE_GIVEN_BACK)
            conductor_gave_back(c, member, event->lease_return.text ? event->lease_return.text : "");
    }
    conductor_reply(c, event, CONDUCTOR_ACK);
}
