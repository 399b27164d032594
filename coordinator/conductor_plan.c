/* conductor_plan.c - what learner rank 0 is told: which rows are open, and what to train on. */
#include <errno.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

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
    uint64_t *ids, *failed;
    size_t n_failed = 0;

    if (!learner || !it->n || !(ids = conductor_take(c, it->n * sizeof(*ids))) ||
        !(failed = conductor_take(c, it->n * sizeof(*failed))))
        return;
    for (size_t i = 0; i < it->n; i++) {
        ids[i] = it->rows[i].episode;
        if (it->rows[i].state == EPISODE_FAILED)
            failed[n_failed++] = it->rows[i].episode;
    }
    it->sent_ms = c->now_ms;
    effect = conductor_emit(c, CONDUCTOR_OPEN_ITERATION);
    effect->to = learner->address_id;
    effect->member = learner->id;
    effect->open.stage = it->work.stage;
    effect->open.iteration = it->work.iteration;
    effect->open.name = keep_text(c, it->work.name);
    effect->open.episodes = ids;
    effect->open.n_episodes = it->n;
    effect->open.failed = failed;
    effect->open.n_failed = n_failed;
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

/* The newest stage of that kind before this one. */
static size_t newest_stage(const struct run_config *config, const struct work *work, enum stage_kind kind, uint64_t *ret)
{
    for (uint32_t i = work->stage; i-- > 0;)
        if (config->stages[i].kind == kind) {
            *ret = i;
            return 1;
        }
    return 0;
}

/* sft: the latest teacher only (an earlier one may have another manner), the latest rollouts, or both. prm: all demonstrations
 * and rollouts so far, and in a refresh what the journal still has of this rl stage. */
static size_t kept_stages(const struct run_config *config, const struct work *work, uint64_t *ret)
{
    const struct stage_config *s = &config->stages[work->stage];
    size_t n = 0;

    if (work->objective == WORK_SFT) {
        n = s->sft.from != SFT_ROLLOUTS ? newest_stage(config, work, STAGE_DEMOS, ret) : 0;
        return n + (s->sft.from != SFT_DEMOS ? newest_stage(config, work, STAGE_ROLLOUTS, ret + n) : 0);
    }
    for (uint32_t i = 0; i < work->stage; i++)
        if (config->stages[i].kind == STAGE_DEMOS || config->stages[i].kind == STAGE_ROLLOUTS)
            ret[n++] = i;
    if (s->kind == STAGE_RL)
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
        .keep_from = stage_plan_keep_from(c->config, &c->memory, it->work.stage, it->work.iteration, c->config->journal_keep),
    };
    digest_plan(c->setup.run, &it->plan);
    it->has_plan = true;
    return 0;
}

void conductor_plan_iteration(struct conductor *c, struct open_iteration *it)
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
