/* conductor_work.c - iterations: opened when they can be, planned when their rows are in, closed when a version stands. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

/* ---- rows ---------------------------------------------------------------------------------------- */

static int compare_id(const void *key, const void *row)
{
    uint64_t a = *(const uint64_t *)key, b = ((const struct ledger_episode *)row)->episode;

    return a < b ? -1 : a > b;
}

struct ledger_episode *conductor_row(struct conductor *c, uint64_t episode, struct open_iteration **ret_iteration)
{
    for (size_t k = 0; k < c->n_open; k++) {
        struct open_iteration *it = &c->open[k];
        struct ledger_episode *row = it->n ? bsearch(&episode, it->rows, it->n, sizeof(*row), compare_id) : NULL;

        if (row) {
            *ret_iteration = it;
            return row;
        }
    }
    return NULL;
}

static int reserve(struct open_iteration *it, size_t capacity)
{
    struct ledger_episode *rows = realloc(it->rows, capacity * sizeof(*rows));
    uint64_t *by;

    if (!rows)
        return -ENOMEM;
    it->rows = rows;
    by = realloc(it->journaled_by, capacity * sizeof(*by));
    if (!by)
        return -ENOMEM;
    it->journaled_by = by;
    it->capacity = capacity;
    return 0;
}

int open_iteration_add(struct open_iteration *it, const struct ledger_episode *row)
{
    int r = it->n == it->capacity ? reserve(it, MAX(2 * it->capacity, (size_t)16)) : 0;

    if (r < 0)
        return r;
    it->rows[it->n] = *row;
    it->journaled_by[it->n++] = 0;
    return 0;
}

void open_iteration_release(struct open_iteration *it)
{
    free(it->rows);
    free(it->journaled_by);
    free(it->ids);
    free(it->kept_stages);
    *it = (struct open_iteration) { 0 };
}

size_t open_iteration_unplayed(const struct open_iteration *it)
{
    size_t n = 0;

    for (size_t i = 0; i < it->n; i++)
        n += it->rows[i].state == EPISODE_OPEN;
    return n;
}

void conductor_end_row(struct conductor *c, struct ledger_episode *row, enum episode_state end, const char *reason)
{
    row->state = end;
    snprintf(row->reason, sizeof(row->reason), "%s", reason);
    conductor_emit(c, CONDUCTOR_EPISODE_ENDED)->episode = *row;
}

static void stop_for_failures(struct conductor *c, const struct open_iteration *it, size_t failed)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;

    strbuf_addf(&text, "%s: %zu of %zu episodes failed:", it->work.name, failed, it->opened_with);
    for (size_t i = 0; i < it->n && text.length < 300; i++)
        if (it->rows[i].state == EPISODE_FAILED)
            strbuf_addf(&text, " %llu %s/%llu (%.40s);", (unsigned long long)it->rows[i].episode, it->rows[i].task,
                        (unsigned long long)it->rows[i].state_seed, it->rows[i].reason);
    conductor_stop(c, text.text);
}

void conductor_fail_row(struct conductor *c, struct open_iteration *it, struct ledger_episode *row, const char *reason)
{
    struct ledger_episode replacement;
    size_t failed = 0;

    conductor_end_row(c, row, EPISODE_FAILED, reason);
    stage_plan_replace(&c->memory, row, &replacement);
    c->memory_moved = true;
    if (open_iteration_add(it, &replacement) < 0) {
        c->out_of_memory = true;
        return;
    }
    conductor_emit(c, CONDUCTOR_ADD_EPISODE)->episode = replacement;
    it->known_to = 0;               /* the learner must hear of the new row before it is leased */
    it->sent_ms = 0;
    for (size_t i = 0; i < it->n; i++)
        failed += it->rows[i].state == EPISODE_FAILED;
    if (failed >= FAILED_MIN && failed * 10 > it->opened_with)
        stop_for_failures(c, it, failed);
}

/* ---- messages to the learner ----------------------------------------------------------------------- */

/* Ids of the rows that count (not failed), in order. */
static int collect_ids(struct open_iteration *it, size_t *ret_n)
{
    uint64_t *ids = realloc(it->ids, MAX(it->n, (size_t)1) * sizeof(*ids));
    size_t n = 0;

    if (!ids)
        return -ENOMEM;
    it->ids = ids;
    for (size_t i = 0; i < it->n; i++)
        if (it->rows[i].state != EPISODE_FAILED)
            ids[n++] = it->rows[i].episode;
    *ret_n = n;
    return 0;
}

static const char *keep_text(struct conductor *c, const char *text)
{
    char *copy = conductor_take(c, strlen(text) + 1);

    if (copy)
        memcpy(copy, text, strlen(text));
    return copy ? copy : "";
}

/* All rows, those that failed as well: the list only ever grows, so the longer of two is the later. */
void conductor_send_open(struct conductor *c, struct open_iteration *it)
{
    const struct member *learner = membership_learner(&c->members);
    struct conductor_effect *effect;
    uint64_t *ids;

    if (!learner || !it->n || !(ids = conductor_take(c, it->n * sizeof(*ids))))
        return;
    for (size_t i = 0; i < it->n; i++)
        ids[i] = it->rows[i].episode;
    it->sent_ms = c->now_ms;
    effect = conductor_emit(c, CONDUCTOR_OPEN_ITERATION);
    effect->to = learner->address_id;
    effect->member = learner->id;
    effect->open.stage = it->work.stage;
    effect->open.iteration = it->work.iteration;
    effect->open.name = keep_text(c, it->work.name);
    effect->open.episodes = ids;
    effect->open.n_episodes = it->n;
    effect->open.policy_version = it->work.expert ? 0 : it->row.policy_version;
    effect->open.prm_version = it->row.prm_version;
    effect->open.purpose = it->work.purpose;
    effect->open.keep = it->work.keep;
}

void conductor_send_plan(struct conductor *c, struct open_iteration *it)
{
    it->sent_ms = c->now_ms;
    for (size_t i = 0; i < c->members.n; i++) {
        const struct member *member = &c->members.items[i];
        struct conductor_effect *effect;

        if (member->role != MEMBER_LEARNER || member->state != MEMBER_ALIVE)
            continue;
        effect = conductor_emit(c, CONDUCTOR_PLAN);
        effect->to = member->address_id;
        effect->member = member->id;
        effect->plan = it->plan;
        effect->plan.group_epoch = c->group_epoch;
    }
}

/* ---- the plan -------------------------------------------------------------------------------------- */

static void hash_u64(struct sha256 *s, uint64_t value)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    sha256_add(s, bytes, sizeof(bytes));
}

static void hash_text(struct sha256 *s, const char *text)
{
    hash_u64(s, strlen(text));
    sha256_add(s, text, strlen(text));
}

/* SHA-256 over every field in order, integers as 64 bits little-endian, texts and lists behind their lengths. */
static void digest_plan(uint64_t run, struct conductor_plan *plan)
{
    struct sha256 s;

    sha256_init(&s);
    hash_u64(&s, run);
    hash_u64(&s, plan->stage);
    hash_u64(&s, plan->iteration);
    hash_u64(&s, plan->round);
    hash_u64(&s, plan->objective);
    hash_u64(&s, plan->kind);
    hash_u64(&s, plan->parent);
    hash_u64(&s, plan->version);
    hash_text(&s, plan->parent_dir);
    hash_u64(&s, plan->n_episodes);
    for (size_t i = 0; i < plan->n_episodes; i++)
        hash_u64(&s, plan->episodes[i]);
    hash_u64(&s, plan->n_stages);
    for (size_t i = 0; i < plan->n_stages; i++)
        hash_u64(&s, plan->stages[i]);
    hash_text(&s, plan->settings);
    sha256_end(&s, plan->digest);
}

/* sft: the demonstrations so far; prm: also the rollouts, and in a refresh what the journal still has of this rl stage. */
static size_t kept_stages(const struct run_config *config, const struct work *work, uint64_t *ret)
{
    size_t n = 0;

    for (uint32_t i = 0; i < work->stage; i++)
        if (config->stages[i].kind == STAGE_DEMOS || (work->objective == WORK_PRM && config->stages[i].kind == STAGE_ROLLOUTS))
            ret[n++] = i;
    if (work->objective == WORK_PRM && config->stages[work->stage].kind == STAGE_RL)
        ret[n++] = work->stage;
    return n;
}

int conductor_make_plan(struct conductor *c, struct open_iteration *it)
{
    enum version_kind kind = it->work.objective == WORK_PRM ? KIND_PRM : KIND_POLICY;
    const struct ledger_version *policy = versions_newest(&c->versions, KIND_POLICY);
    const struct ledger_version *parent = kind == KIND_PRM ? versions_newest_passed(&c->versions, KIND_PRM) : policy;
    const struct ledger_version *newest = versions_newest(&c->versions, kind);
    bool from_policy = kind == KIND_PRM && !parent && !strcmp(c->config->prm_init, "policy");
    size_t n;

    if (!policy || collect_ids(it, &n) < 0)
        return -ENOMEM;
    if (!it->kept_stages && !(it->kept_stages = calloc(RUN_MAX_STAGES, sizeof(*it->kept_stages))))
        return -ENOMEM;
    if (c->bug == CONDUCTOR_BUG_LOSE_EPISODE && n > 1)
        n--;
    it->plan = (struct conductor_plan) {
        .stage = it->work.stage, .iteration = it->work.iteration, .round = it->work.round,
        .objective = it->work.objective, .kind = kind,
        .parent = parent ? parent->number : 0,
        .version = (newest ? newest->number : 0) + 1,
        .parent_dir = from_policy ? policy->dir : parent ? parent->dir : c->config->prm_init,
        .episodes = it->ids, .n_episodes = n,
        .stages = it->kept_stages,
        .n_stages = it->work.objective == WORK_PPO ? 0 : kept_stages(c->config, &it->work, it->kept_stages),
        .settings = c->setup.stage_settings[it->work.stage],
    };
    digest_plan(c->setup.run, &it->plan);
    it->has_plan = true;
    return 0;
}

static void plan_iteration(struct conductor *c, struct open_iteration *it)
{
    if (conductor_make_plan(c, it) < 0) {
        c->out_of_memory = true;
        return;
    }
    it->row.state = PROGRESS_PLANNED;
    memcpy(it->row.plan_digest, it->plan.digest, SHA256_SIZE);
    conductor_emit(c, CONDUCTOR_PUT_ITERATION)->iteration = it->row;
    conductor_send_plan(c, it);
}

/* ---- closing --------------------------------------------------------------------------------------- */

static void add_scalar(struct conductor *c, const struct work *work, const char *name, double value)
{
    struct conductor_effect *effect = conductor_emit(c, CONDUCTOR_ADD_SCALAR);

    effect->scalar.stage = work->stage;
    effect->scalar.iteration = work->iteration;
    snprintf(effect->scalar.name, sizeof(effect->scalar.name), "%s", name);
    effect->scalar.value = value;
}

/* Means over the rows that ended well and that `task` or `tag` selects (NULL: all); false: none. */
static bool mean_over(const struct open_iteration *it, const char *task, const char *tag, double *ret_success, double *ret_reward,
                      double *ret_steps)
{
    double success = 0, reward = 0, steps = 0;
    size_t n = 0;

    for (size_t i = 0; i < it->n; i++) {
        const struct ledger_episode *row = &it->rows[i];

        if (row->state == EPISODE_FAILED || (task && strcmp(task, row->task)) || (tag && strcmp(tag, row->tag)))
            continue;
        n++;
        success += row->success;
        reward += (double)row->reward;
        steps += row->steps;
    }
    if (!n)
        return false;
    *ret_success = success / (double)n;
    *ret_reward = reward / (double)n;
    *ret_steps = steps / (double)n;
    return true;
}

static bool first_with_tag(const struct open_iteration *it, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (!strcmp(it->rows[j].tag, it->rows[i].tag))
            return false;
    return it->rows[i].tag[0] != '\0';
}

/* "success", "return", "steps", "success/<task>", and per tag of an evaluation "success/<tag>". */
static void add_scalars(struct conductor *c, const struct open_iteration *it)
{
    double success, reward, steps;
    char name[64];

    if (!mean_over(it, NULL, NULL, &success, &reward, &steps))
        return;
    add_scalar(c, &it->work, "success", success);
    add_scalar(c, &it->work, "return", reward);
    add_scalar(c, &it->work, "steps", steps);
    for (int i = 0; i < c->config->n_tasks; i++)
        if (mean_over(it, c->config->tasks[i], NULL, &success, &reward, &steps)) {
            snprintf(name, sizeof(name), "success/%s", c->config->tasks[i]);
            add_scalar(c, &it->work, name, success);
        }
    for (size_t i = 0; it->work.purpose == EPISODE_EVAL && i < it->n; i++)
        if (first_with_tag(it, i) && mean_over(it, NULL, it->rows[i].tag, &success, &reward, &steps)) {
            snprintf(name, sizeof(name), "success/%s", it->rows[i].tag);
            add_scalar(c, &it->work, name, success);
        }
}

/* Versions whose weights stay: the newest two (the edge adds them), version 0, stage ends, best, sft, what is named or open. */
static void retain(struct conductor *c, enum version_kind kind)
{
    uint64_t *keep = conductor_take(c, (size_t)(8 + c->config->n_stages + 2 * OPEN_MAX + RUN_MAX_POLICIES * c->config->n_stages) * sizeof(*keep));
    struct conductor_effect *effect;
    size_t n = 0;

    if (!keep)
        return;
    keep[n++] = 0;
    if (kind == KIND_PRM)
        keep[n++] = c->memory.prm_current;
    for (int i = 0; kind == KIND_POLICY && i < c->config->n_stages; i++) {
        const struct stage_config *s = &c->config->stages[i];

        if (c->stages[i].state == PROGRESS_DONE)
            keep[n++] = c->stages[i].policy_out;
        for (int p = 0; s->kind == STAGE_EVAL && p < s->eval.n_policies; p++)
            if (s->eval.policies[p][0] >= '0' && s->eval.policies[p][0] <= '9')
                keep[n++] = strtoull(s->eval.policies[p], NULL, 10);
    }
    if (kind == KIND_POLICY) {
        keep[n++] = c->memory.sft_version;
        keep[n++] = c->memory.have_best ? c->memory.best_version : 0;
    }
    for (size_t i = 0; i < c->n_open; i++)
        keep[n++] = kind == KIND_POLICY ? c->open[i].row.policy_version : c->open[i].row.prm_version;
    effect = conductor_emit(c, CONDUCTOR_RETAIN);
    effect->retain.kind = kind;
    effect->retain.keep = keep;
    effect->retain.n_keep = n;
}

static void put_stage(struct conductor *c, struct ledger_stage *stage)
{
    stage->wall_s += (double)(c->now_ms - c->stage_since_ms) / 1000;
    c->stage_since_ms = c->now_ms;
    conductor_emit(c, CONDUCTOR_PUT_STAGE)->stage = *stage;
}

/* Its rows have all ended: learn from them, say so, forget it. */
void conductor_close(struct conductor *c, struct open_iteration *it)
{
    enum work_objective objective = it->work.objective;

    stage_plan_learn(c->config, &it->work, it->rows, it->n, &c->memory);
    c->memory_moved = true;
    it->row.state = PROGRESS_DONE;
    it->row.end_ms = c->wall_ms;
    conductor_emit(c, CONDUCTOR_PUT_ITERATION)->iteration = it->row;
    add_scalars(c, it);
    put_stage(c, &c->stages[it->work.stage]);
    open_iteration_release(it);
    c->n_open--;
    memmove(it, it + 1, (size_t)(c->open + c->n_open - it) * sizeof(*it));
    c->open[c->n_open] = (struct open_iteration) { 0 };
    if (objective != WORK_NONE)
        retain(c, objective == WORK_PRM ? KIND_PRM : KIND_POLICY);
}

static void close_played(struct conductor *c, struct open_iteration *it)
{
    enum episode_state end = it->work.purpose == EPISODE_EVAL ? EPISODE_EVALUATED : EPISODE_KEPT;

    for (size_t i = 0; i < it->n; i++)
        if (it->rows[i].state == EPISODE_JOURNALED)
            conductor_end_row(c, &it->rows[i], end, "");
    conductor_close(c, it);
}

/* ---- opening --------------------------------------------------------------------------------------- */

static uint64_t newest_policy(const struct conductor *c)
{
    const struct ledger_version *newest = versions_newest(&c->versions, KIND_POLICY);

    return newest ? newest->number : 0;
}

/* Which versions `work` plays with; *ret_prm 0: unscored. */
static void work_versions(const struct conductor *c, const struct work *work, uint64_t *ret_policy, uint64_t *ret_prm)
{
    *ret_policy = stage_plan_policy(c->config, work, &c->memory, newest_policy(c));
    *ret_prm = work->purpose == EPISODE_TRAIN || work->look_ahead ? c->memory.prm_current : 0;
}

static bool can_open(struct conductor *c, const struct work *work)
{
    uint64_t policy, prm;

    work_versions(c, work, &policy, &prm);
    c->waiting_for[0] = '\0';
    if (!membership_learner(&c->members) || !c->inventory_seen)
        snprintf(c->waiting_for, sizeof(c->waiting_for), "learner");
    else if (!versions_newest(&c->versions, KIND_POLICY))
        snprintf(c->waiting_for, sizeof(c->waiting_for), "policy version 0");
    else if (work->purpose && !work->expert && !membership_ready(&c->members, KIND_POLICY, policy))
        snprintf(c->waiting_for, sizeof(c->waiting_for), "an actor with policy version %llu", (unsigned long long)policy);
    else if (work->purpose && prm && !membership_ready(&c->members, KIND_PRM, prm))
        snprintf(c->waiting_for, sizeof(c->waiting_for), "a PRM server with version %llu", (unsigned long long)prm);
    return !c->waiting_for[0];
}

static void begin_stage(struct conductor *c, uint32_t index)
{
    struct ledger_stage *stage = &c->stages[index];

    if (stage->state != PROGRESS_PENDING)
        return;
    if (stage_plan_begin(c->config, index, c->setup.task_levels, &c->memory) < 0)
        conductor_stop(c, "curriculum: no tasks, or more than it can hold");
    *stage = (struct ledger_stage) {
        .stage = index, .state = PROGRESS_OPEN, .start_ms = c->wall_ms, .policy_in = newest_policy(c),
    };
    snprintf(stage->name, sizeof(stage->name), "%s", c->config->stages[index].name);
    snprintf(stage->kind, sizeof(stage->kind), "%s", stage_kind_name(c->config->stages[index].kind));
    c->stage_since_ms = c->now_ms;
    put_stage(c, stage);
}

static void end_stage(struct conductor *c, uint32_t index)
{
    struct ledger_stage *stage = &c->stages[index];

    begin_stage(c, index);      /* one without any work still began */
    stage->state = PROGRESS_DONE;
    stage->end_ms = c->wall_ms;
    stage->policy_out = newest_policy(c);
    if (c->config->stages[index].kind == STAGE_SFT)
        c->memory.sft_version = stage->policy_out;
    put_stage(c, stage);
}

static int fill_rows(struct conductor *c, struct open_iteration *it)
{
    size_t n = stage_plan_rows(c->config, &it->work, &c->memory);
    int r;

    if (!n)
        return 0;
    r = reserve(it, n);
    if (r < 0)
        return r;
    r = stage_plan_fill(c->config, &it->work, it->row.policy_version, it->row.prm_version, &c->memory, it->rows, n);
    if (r < 0)
        return r;
    memset(it->journaled_by, 0, n * sizeof(*it->journaled_by));
    it->n = it->opened_with = n;
    it->row.first_episode = it->rows[0].episode;
    it->row.last_episode = it->rows[n - 1].episode;
    return 0;
}

static void open_work(struct conductor *c, const struct work *work)
{
    struct open_iteration *it = &c->open[c->n_open];

    begin_stage(c, work->stage);
    *it = (struct open_iteration) {
        .work = *work,
        .row = { .stage = work->stage, .iteration = work->iteration, .purpose = work->purpose, .state = PROGRESS_OPEN, .start_ms = c->wall_ms },
    };
    snprintf(it->row.name, sizeof(it->row.name), "%s", work->name);
    work_versions(c, work, &it->row.policy_version, &it->row.prm_version);
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
        if (stage_plan_work(c->config, c->memory.stage, c->memory.iteration, ret) == 0)
            return true;
        if (c->n_open)
            return false;
        if (c->memory.stage < (uint32_t)c->config->n_stages)
            end_stage(c, c->memory.stage);
        c->memory.stage++;
        c->memory.iteration = 0;
        c->memory.finished = c->memory.stage >= (uint32_t)c->config->n_stages;
        c->memory_moved = true;
    }
    return false;
}

static bool may_overlap(const struct conductor *c)
{
    return c->n_open == 0 || (c->n_open < OPEN_MAX && c->open[0].work.overlaps && open_iteration_unplayed(&c->open[0]) == 0);
}

/* ---- versions that servers shall hold ---------------------------------------------------------------- */

static size_t add_wanted(uint64_t *list, size_t n, uint64_t version)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == version)
            return n;
    if (n == MEMBER_VERSIONS)
        return n;
    list[n] = version;
    return n + 1;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Most needed first: what is being played with, what comes next, the newest. In the message they are in ascending order. */
static size_t list_wanted(const struct conductor *c, enum version_kind kind, uint64_t ret[MEMBER_VERSIONS])
{
    uint64_t policy, prm;
    struct work work;
    size_t n = 0;

    for (size_t i = 0; i < c->n_open; i++)
        if (c->open[i].n && (kind == KIND_POLICY ? !c->open[i].work.expert : c->open[i].row.prm_version != 0))
            n = add_wanted(ret, n, kind == KIND_POLICY ? c->open[i].row.policy_version : c->open[i].row.prm_version);
    if (!c->memory.finished && stage_plan_work(c->config, c->memory.stage, c->memory.iteration, &work) == 0 && work.purpose) {
        work_versions(c, &work, &policy, &prm);
        if (kind == KIND_POLICY && !work.expert)
            n = add_wanted(ret, n, policy);
        else if (kind == KIND_PRM && prm)
            n = add_wanted(ret, n, prm);
    }
    if (kind == KIND_POLICY && versions_newest(&c->versions, kind))
        n = add_wanted(ret, n, newest_policy(c));
    if (kind == KIND_PRM && c->memory.prm_current)
        n = add_wanted(ret, n, c->memory.prm_current);
    qsort(ret, n, sizeof(*ret), compare_u64);
    return n;
}

static bool is_server_of(const struct member *member, enum version_kind kind)
{
    return member->state == MEMBER_ALIVE && member->role == (kind == KIND_POLICY ? MEMBER_ACTOR : MEMBER_PRM);
}

void conductor_send_versions(struct conductor *c, const struct member *member)
{
    enum version_kind kind = member->role == MEMBER_ACTOR ? KIND_POLICY : KIND_PRM;
    const struct ledger_version **keep = conductor_take(c, MEMBER_VERSIONS * sizeof(*keep));
    struct conductor_effect *effect;
    size_t n = 0;

    for (size_t i = 0; keep && i < c->n_wanted[kind]; i++) {
        const struct ledger_version *known = versions_find(&c->versions, kind, c->wanted[kind][i]);
        struct ledger_version *copy = known ? conductor_take(c, sizeof(*copy)) : NULL;

        if (!copy)
            continue;       /* a version number that the configuration names and nobody made: can_open goes on waiting */
        *copy = *known;
        keep[n++] = copy;
    }
    if (!n)
        return;
    effect = conductor_emit(c, CONDUCTOR_VERSIONS);
    effect->to = member->address_id;
    effect->member = member->id;
    effect->versions.kind = kind;
    effect->versions.keep = keep;
    effect->versions.n_keep = n;
}

static bool has_answered(const struct member *member, enum version_kind kind, uint64_t version)
{
    for (uint32_t i = 0; i < member->n_versions; i++)
        if (member->versions[i].kind == kind && member->versions[i].version == version)
            return true;
    return false;
}

void conductor_want_versions(struct conductor *c)
{
    for (enum version_kind kind = KIND_POLICY; kind <= KIND_PRM; kind++) {
        uint64_t wanted[MEMBER_VERSIONS];
        size_t n = list_wanted(c, kind, wanted);
        bool moved = n != c->n_wanted[kind] || memcmp(wanted, c->wanted[kind], n * sizeof(*wanted));
        bool due = c->now_ms - c->wanted_sent_ms[kind] >= RESEND_MS;

        if (moved) {
            memcpy(c->wanted[kind], wanted, n * sizeof(*wanted));
            c->n_wanted[kind] = n;
            membership_keep(&c->members, kind, wanted, n);
        }
        if (!moved && !due)
            continue;
        c->wanted_sent_ms[kind] = c->now_ms;
        for (size_t i = 0; i < c->members.n; i++) {
            const struct member *member = &c->members.items[i];
            bool lacks = moved;

            for (size_t k = 0; k < n && !lacks; k++)
                lacks = !has_answered(member, kind, wanted[k]);
            if (is_server_of(member, kind) && lacks)
                conductor_send_versions(c, member);
        }
    }
}

/* ---- after every event --------------------------------------------------------------------------------- */

/* One thing that can happen now; false: nothing. */
static bool advance_once(struct conductor *c)
{
    struct open_iteration *first = &c->open[0];
    struct work work;

    if (c->n_open && first->row.state == PROGRESS_OPEN && open_iteration_unplayed(first) == 0) {
        if (first->work.objective == WORK_NONE)
            close_played(c, first);
        else
            plan_iteration(c, first);
        return true;
    }
    if (c->draining || c->stopped || !may_overlap(c) || !next_work(c, &work) || !can_open(c, &work))
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
    resend(c);
    conductor_want_versions(c);
}
