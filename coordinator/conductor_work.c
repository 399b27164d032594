/* conductor_work.c - passes and stages in their order: opened when they can be, and what can happen after every event. */
#include <stdio.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

/* ---- opening --------------------------------------------------------------------------------------- */

uint64_t conductor_newest_policy(const struct conductor *c)
{
    const struct ledger_version *newest = versions_newest(&c->versions, KIND_POLICY);

    return newest ? newest->number : 0;
}

/* Which versions `work` plays with; *ret_prm 0: unscored. */
void conductor_work_versions(const struct conductor *c, const struct work *work, uint64_t *ret_policy, uint64_t *ret_prm)
{
    bool scored = work->purpose == EPISODE_TRAIN || work->scored || work->look_ahead;

    *ret_policy = stage_plan_policy(c->config, work, &c->memory, conductor_newest_policy(c));
    *ret_prm = scored ? c->memory.prm_current : 0;
}

static void stop_for_version(struct conductor *c, const struct work *work, uint64_t policy)
{
    char text[160];

    snprintf(text, sizeof(text), "%s: policy version %llu was never committed in this run: name another in its policies",
             work->name, (unsigned long long)policy);
    conductor_stop(c, text);
}

static const char *server_with(enum version_kind kind)
{
    return kind == KIND_POLICY ? "an actor with policy version" : "a PRM server with version";
}

/* Every server refuses it; true: and still did after so long that loading it again and again would not help. One that is at it
 * again says nothing meanwhile, however long that takes. */
static bool is_refused_for_good(struct conductor *c, enum version_kind kind, uint64_t version)
{
    snprintf(c->waiting_for, sizeof(c->waiting_for), "%s %llu (refused: %s)", server_with(kind), (unsigned long long)version,
             c->refusal[kind]);
    if (!c->refused_since_ms)
        c->refused_since_ms = c->now_ms;
    return membership_refused(&c->members, kind, version, c->refused_since_ms + REFUSED_MS);
}

static void stop_for_refusal(struct conductor *c, const struct work *work, enum version_kind kind, uint64_t version)
{
    char text[400];

    snprintf(text, sizeof(text), "%s: no server loads %s version %llu: %s", work->name, kind == KIND_POLICY ? "policy" : "PRM",
             (unsigned long long)version, c->refusal[kind]);
    conductor_stop(c, text);
}

/* No server has it ready. */
static void wait_for_server(struct conductor *c, const struct work *work, enum version_kind kind, uint64_t version)
{
    if (!membership_refused(&c->members, kind, version, 0)) {
        c->refused_since_ms = 0;
        snprintf(c->waiting_for, sizeof(c->waiting_for), "%s %llu", server_with(kind), (unsigned long long)version);
    } else if (is_refused_for_good(c, kind, version)) {
        if (kind == KIND_PRM && conductor_prm_rolls_back(c, version, c->refusal[kind]))
            c->refused_since_ms = 0;
        else
            stop_for_refusal(c, work, kind, version);
    }
}

/* An open pass that no server can play any more, its version's files being gone or damaged since: its episodes would be leased
 * and given back for ever. */
static void watch_open(struct conductor *c)
{
    bool refused = false;

    for (size_t i = 0; i < c->n_open && !c->stopped; i++) {
        const struct open_iteration *it = &c->open[i];
        bool policy = !it->work.expert && membership_refused(&c->members, KIND_POLICY, it->row.policy_version, 0);
        bool prm = it->row.prm_version && membership_refused(&c->members, KIND_PRM, it->row.prm_version, 0);
        enum version_kind kind = policy ? KIND_POLICY : KIND_PRM;
        uint64_t version = policy ? it->row.policy_version : it->row.prm_version;

        if ((!policy && !prm) || it->row.state != PROGRESS_OPEN || !open_iteration_unplayed(it))
            continue;
        refused = true;
        if (is_refused_for_good(c, kind, version))
            stop_for_refusal(c, &it->work, kind, version);
    }
    if (c->open_refused && !refused) {
        c->waiting_for[0] = '\0';
        c->refused_since_ms = 0;
    }
    c->open_refused = refused;
}

/* Its episodes are paid by the reward model, or the critic is shown what it says. */
static bool learns_from_scores(const struct rl_config *rl)
{
    return rl_is_scored(rl) || (rl_has_critic(rl) && rl->critic_prm);
}

const struct ledger_version *conductor_doubtful_prm(const struct conductor *c, uint32_t stage)
{
    const struct stage_config *config = &c->config->stages[stage];
    const struct ledger_version *prm = versions_find(&c->versions, KIND_PRM, c->memory.prm_current);

    if (stage >= (uint32_t)c->config->n_stages || config->kind != STAGE_RL || !learns_from_scores(&config->rl))
        return NULL;
    return prm && ledger_version_failed_gate(prm) ? prm : NULL;
}

/* Without a reward model this pass would be paid, shown to the critic, or chosen by nothing. */
static bool needs_scores(const struct conductor *c, const struct work *work)
{
    const struct stage_config *stage = &c->config->stages[work->stage];

    if (stage->kind == STAGE_RL)
        return work->purpose == EPISODE_TRAIN && learns_from_scores(&stage->rl);
    return work->scored || (work->look_ahead && stage->eval.search_judge == JUDGE_PRM);
}

/* There were prm stages before, or the configuration would have been refused: none has passed its gate. */
static void wait_for_scores(struct conductor *c, const struct work *work)
{
    const struct ledger_version *refused = versions_newest(&c->versions, KIND_PRM);
    unsigned long long number = refused ? refused->number : 0;
    char text[400];

    if (!c->refused_since_ms)
        c->refused_since_ms = c->now_ms;
    snprintf(c->waiting_for, sizeof(c->waiting_for), "a reward model: version %llu did not pass its gate (`gantry prm swap RUN "
             "%llu` takes it all the same)", number, number);
    if (c->now_ms - c->refused_since_ms < UNSCORED_MS)
        return;
    snprintf(text, sizeof(text), "%s: it is scored, and no reward model has passed its gate (version %llu %.150s): play more "
             "rollouts before the prm stage of another run, or take it as it is: `gantry up` and, within a minute, `gantry prm swap "
             "RUN %llu`", work->name, number, refused ? refused->gate_text : "was never trained", number);
    conductor_stop(c, text);
}

static bool can_open(struct conductor *c, const struct work *work)
{
    uint64_t policy, prm;

    conductor_work_versions(c, work, &policy, &prm);
    c->waiting_for[0] = '\0';
    if (!membership_learner(&c->members) || !c->inventory_seen)
        snprintf(c->waiting_for, sizeof(c->waiting_for), "learner");
    else if (!versions_newest(&c->versions, KIND_POLICY))
        snprintf(c->waiting_for, sizeof(c->waiting_for), "policy version 0");
    else if (work->purpose && !work->expert && !versions_find(&c->versions, KIND_POLICY, policy))
        stop_for_version(c, work, policy);
    else if (work->purpose && !work->expert && !membership_ready(&c->members, KIND_POLICY, policy))
        wait_for_server(c, work, KIND_POLICY, policy);
    else if (!prm && needs_scores(c, work))
        wait_for_scores(c, work);
    else if (work->purpose && prm && !membership_ready(&c->members, KIND_PRM, prm))
        wait_for_server(c, work, KIND_PRM, prm);
    else
        c->refused_since_ms = 0;
    return !c->waiting_for[0] && !c->stopped;
}

static void begin_stage(struct conductor *c, uint32_t index)
{
    struct ledger_stage *stage = &c->stages[index];
    const struct ledger_version *doubtful;

    if (stage->state != PROGRESS_PENDING)
        return;
    if (stage_plan_begin(c->config, index, c->setup.task_levels, &c->memory) < 0)
        conductor_stop(c, "curriculum: no tasks, or more than it can hold");
    *stage = (struct ledger_stage) {
        .stage = index, .state = PROGRESS_OPEN, .start_ms = c->wall_ms, .policy_in = conductor_newest_policy(c),
    };
    snprintf(stage->name, sizeof(stage->name), "%s", c->config->stages[index].name);
    snprintf(stage->kind, sizeof(stage->kind), "%s", stage_kind_name(c->config->stages[index].kind));
    c->stage_since_ms = c->now_ms;
    doubtful = conductor_doubtful_prm(c, index);
    if (doubtful)
        conductor_note(c, 0, "gate", "%s: scored by reward model version %llu, which did not pass its gate: %s", stage->name,
                       (unsigned long long)doubtful->number, doubtful->gate_text);
    conductor_put_stage(c, stage);
}

static void end_stage(struct conductor *c, uint32_t index)
{
    struct ledger_stage *stage = &c->stages[index];

    begin_stage(c, index);      /* one without any work still began */
    stage->state = PROGRESS_DONE;
    stage->end_ms = c->wall_ms;
    stage->policy_out = conductor_newest_policy(c);
    if (c->config->stages[index].kind == STAGE_SFT && c->config->stages[index].sft.from == SFT_DEMOS) {
        c->memory.sft_earlier = c->memory.sft_version;
        c->memory.sft_version = stage->policy_out;
    }
    conductor_put_stage(c, stage);
}

static int fill_rows(struct conductor *c, struct open_iteration *it)
{
    size_t n = stage_plan_rows(c->config, &it->work, &c->memory);
    int r;

    if (!n)
        return 0;
    r = open_iteration_reserve(it, n);
    if (r < 0)
        return r;
    r = stage_plan_fill(c->config, &it->work, it->row.policy_version, it->row.prm_version, &c->memory, it->rows, n);
    if (r < 0)
        return r;
    memset(it->journaled_by, 0, n * sizeof(*it->journaled_by));
    memset(it->lost_by, 0, n * sizeof(*it->lost_by));
    it->n = it->opened_with = n;
    it->row.first_episode = it->rows[0].episode;
    it->row.last_episode = it->rows[n - 1].episode;
    return 0;
}

static void open_work(struct conductor *c, const struct work *work)
{
    struct open_iteration *it = &c->open[c->n_open];

    begin_stage(c, work->stage);
    *it = (struct open_iteration){
        .work = *work,
        .row = {.stage = work->stage,
                .iteration = work->iteration,
                .purpose = work->purpose,
                .state = PROGRESS_OPEN,
                .start_ms = c->wall_ms},
    };
    snprintf(it->row.name, sizeof(it->row.name), "%s", work->name);
    conductor_work_versions(c, work, &it->row.policy_version, &it->row.prm_version);
    if (fill_rows(c, it) < 0) {
        c->out_of_memory = true;
        return;
    }
    c->n_open++;
    c->memory.stage = work->stage;
    c->memory.iteration = work->iteration + 1;
    c->memory_moved = true;
    conductor_emit(c, CONDUCTOR_PUT_ITERATION)->iteration = it->row;
    for (size_t i = 0; i < it->n; i++)
        conductor_emit(c, CONDUCTOR_ADD_EPISODE)->episode = it->rows[i];
    conductor_send_open(c, it);
}

/* The next work in the order of the stages. Stages that are over are ended only when nothing is open. */
static bool next_work(struct conductor *c, struct work *ret)
{
    while (!c->memory.finished) {
        if (c->memory.stop == PLAN_GOES_ON &&
            stage_plan_work(c->config, &c->memory, c->memory.stage, c->memory.iteration, ret) == 0)
            return true;
        if (c->n_open)
            return false;
        if (c->memory.stage < (uint32_t)c->config->n_stages)
            end_stage(c, c->memory.stage);
        c->memory.stage++;
        c->memory.iteration = 0;
        c->memory.stop = PLAN_GOES_ON;
        c->memory.n_extra = 0;
        c->memory.finished = c->memory.stage >= (uint32_t)c->config->n_stages;
        c->memory_moved = true;
    }
    return false;
}

static bool may_overlap(const struct conductor *c)
{
    return c->n_open == 0 || (c->n_open < OPEN_MAX && c->open[0].work.overlaps && open_iteration_unplayed(&c->open[0]) == 0);
}

/* Groups that taught nothing have others drawn in their place; false: the iteration has what it needs, or has tried enough. */
static bool refill(struct conductor *c, struct open_iteration *it)
{
    size_t capacity = (size_t)MAX(c->config->stages[it->work.stage].rl.episodes, 1), n;
    struct ledger_episode *rows;

    if (it->work.objective != WORK_PPO || !(rows = conductor_take(c, capacity * sizeof(*rows))))
        return false;
    n = stage_plan_refill(c->config, &it->work, it->rows, it->n, &c->memory, rows, capacity);
    for (size_t i = 0; i < n; i++) {
        if (open_iteration_add(it, &rows[i]) < 0)
            c->out_of_memory = true;
        conductor_emit(c, CONDUCTOR_ADD_EPISODE)->episode = rows[i];
    }
    if (!n)
        return false;
    conductor_note(c, 0, "refill", "%s: %zu episodes more, %s, for groups whose returns were all alike", it->work.name, n,
                   rows[0].tag);
    c->memory_moved = true;
    it->opened_with += n;
    it->known_to = 0;               /* the learner must hear of the new rows before they are leased */
    it->sent_ms = 0;
    return true;
}

/* ---- after every event --------------------------------------------------------------------------------- */

/* Once the learner has said what it has: an episode that is durable there is known here. */
static bool is_dropped(const struct conductor *c, const struct open_iteration *it)
{
    const struct stage_config *stage = &c->config->stages[it->work.stage];

    return stage->kind == STAGE_EVAL && stage->eval.dropped && membership_learner(&c->members) && c->inventory_seen;
}

/* One thing that can happen now; false: nothing. */
static bool advance_once(struct conductor *c)
{
    struct open_iteration *first = &c->open[0];
    struct work work;

    if (c->n_open && is_dropped(c, first)) {
        conductor_close_dropped(c, first);
        return true;
    }
    if (c->n_open && first->row.state == PROGRESS_OPEN && open_iteration_unplayed(first) == 0) {
        if (first->work.objective == WORK_NONE)
            conductor_close_played(c, first);
        else if (!refill(c, first))
            conductor_plan_iteration(c, first);
        return true;
    }
    if (c->draining || c->stopped || !may_overlap(c) || !next_work(c, &work))
        return false;
    conductor_prm_due(c, &work);
    if (!can_open(c, &work))
        return false;
    open_work(c, &work);
    return true;
}

static void resend(struct conductor *c)
{
    for (size_t i = 0; i < c->n_open; i++) {
        struct open_iteration *it = &c->open[i];

        if (it->sent_ms && c->now_ms - it->sent_ms < RESEND_MS)
            continue;
        if (it->known_to != c->learner_instance || !it->known_to)
            conductor_send_open(c, it);
        if (it->row.state == PROGRESS_PLANNED)
            conductor_send_plan(c, it);
    }
}

void conductor_advance(struct conductor *c)
{
    while (!c->out_of_memory && advance_once(c))
        ;
    watch_open(c);
    conductor_shadow_advance(c);
    resend(c);
    conductor_want_versions(c);
}
