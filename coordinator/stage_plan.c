#include "coordinator/stage_plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { EVAL_TEMPERATURES = 3 };     /* of test: the best on val, greedy, 1 */

static const char *objective_suffix(enum work_objective objective)
{
    return objective == WORK_PRM ? " prm" : "";
}

/* ---- which work has which number ----------------------------------------------------------------- */

static bool is_extra(const struct plan_memory *memory, uint32_t round)
{
    for (uint32_t i = 0; memory && i < memory->n_extra; i++)
        if (memory->extra[i] == round)
            return true;
    return false;
}

/* Walk the passes in their order; the `iteration`-th is the answer. */
static int rl_work(const struct rl_config *rl, const struct plan_memory *memory, uint32_t iteration, struct work *work)
{
    uint32_t at = 0, rounds = (uint32_t)MAX(rl->iterations, 0);

    for (uint32_t k = 0; k <= rounds; k++) {
        bool val = rl->eval_every > 0 && (k % (uint32_t)rl->eval_every == 0 || k == rounds);
        bool due = rl->prm_refresh > 0 && (k + 1) % (uint32_t)rl->prm_refresh == 0;
        bool refresh = k + 1 < rounds && (due || is_extra(memory, k));
        bool val_next = rl->eval_every > 0 && ((k + 1) % (uint32_t)rl->eval_every == 0 || k + 1 == rounds);

        work->round = k;
        if (val && at++ == iteration) {
            work->purpose = EPISODE_EVAL;
            work->split = SPLIT_VAL;
            return 0;
        }
        if (k < rounds && at++ == iteration) {
            work->purpose = EPISODE_TRAIN;
            work->objective = WORK_PPO;
            work->overlaps = rl->max_staleness > 0 && k + 1 < rounds && !val_next && !refresh;
            return 0;
        }
        if (refresh && at++ == iteration) {
            work->objective = WORK_PRM;
            return 0;
        }
    }
    return -ENOENT;
}

static bool is_demonstrator(const struct eval_config *eval, int policy)
{
    return !strcmp(eval->policies[policy], "demonstrator");
}

/* Imitation before its last stage: looked at on val, never on test. */
static bool is_earlier(const struct eval_config *eval, int policy)
{
    return !strcmp(eval->policies[policy], "sft-earlier");
}

static bool wants_search(const struct eval_config *eval, int policy)
{
    return eval_searches(eval) && !is_demonstrator(eval, policy) && !is_earlier(eval, policy) && strcmp(eval->policies[policy], "best");
}

static int eval_work(const struct eval_config *eval, uint32_t iteration, struct work *work)
{
    uint32_t at = 0;

    work->purpose = EPISODE_EVAL;
    for (int pass = 0; pass < 3; pass++)
        for (int p = 0; p < eval->n_policies; p++) {
            bool played = pass == 0 ? !is_demonstrator(eval, p) && eval->n_at == 0
                          : pass == 1 ? !is_earlier(eval, p) : wants_search(eval, p);

            if (!played || at++ != iteration)
                continue;
            work->policy = p;
            work->tries = pass == 0;
            work->split = pass == 0 || eval->on_val ? SPLIT_VAL : SPLIT_TEST;
            work->expert = is_demonstrator(eval, p);
            work->look_ahead = pass == 2;
            return 0;
        }
    return -ENOENT;
}

static void name_work(const struct stage_config *stage, struct work *work)
{
    static const char *const splits[] = { "train", "val", "test" };
    const char *policy = work->policy >= 0 ? stage->eval.policies[work->policy] : "";

    if (stage->kind == STAGE_RL)
        snprintf(work->name, sizeof(work->name), "%.20s/%u%s%s", stage->name, work->round + (work->purpose != EPISODE_EVAL),
                 work->purpose == EPISODE_EVAL ? " val" : "",
                 objective_suffix(work->objective == WORK_PPO ? WORK_NONE : work->objective));
    else if (stage->kind == STAGE_EVAL)
        snprintf(work->name, sizeof(work->name), "%.10s %s %.14s", stage->name, work->look_ahead ? "search" : splits[work->split],
                 policy);
    else if (stage->kind == STAGE_SFT && sft_pieces(&stage->sft) > 1)
        snprintf(work->name, sizeof(work->name), "%.20s/%u", stage->name, work->round + 1);
    else
        snprintf(work->name, sizeof(work->name), "%s", stage->name);
}

void stage_plan_title(const struct run_config *config, const struct work *work, char *ret, size_t size)
{
    const struct stage_config *s = &config->stages[work->stage];
    int pieces = stage_iterations(s);

    if (!pieces)
        snprintf(ret, size, "%s", work->name);
    else if (work->purpose == EPISODE_EVAL)
        snprintf(ret, size, "%s val after %u of %d", s->name, work->round, pieces);
    else
        snprintf(ret, size, "%s %u of %d%s", s->name, work->round + 1, pieces,
                 s->kind == STAGE_RL && work->objective == WORK_PRM ? ", reward model" : "");
}

/* A dropped evaluation has the passes that were opened before. */
static bool nothing_more(const struct stage_config *s, const struct plan_memory *memory, uint32_t stage, uint32_t iteration)
{
    return s->eval.dropped && memory && memory->stage == stage && iteration >= memory->iteration;
}

int stage_plan_work(const struct run_config *config, const struct plan_memory *memory, uint32_t stage, uint32_t iteration,
                    struct work *ret)
{
    struct work work = { .stage = stage, .iteration = iteration, .policy = -1 };
    const struct stage_config *s;
    int r = 0;

    if (stage >= (uint32_t)config->n_stages)
        return -ENOENT;
    s = &config->stages[stage];
    switch (s->kind) {
    case STAGE_DEMOS:
        if (s->demos.from[0])       /* they are there already: the learner reads them */
            return -ENOENT;
        work.purpose = EPISODE_DEMO;
        work.keep = work.expert = true;
        break;
    case STAGE_ROLLOUTS:
        work.purpose = EPISODE_ROLLOUT;
        work.keep = true;
        work.scored = s->rollouts.score;
        break;
    case STAGE_SFT:
        work.objective = WORK_SFT;
        work.round = iteration;
        break;
    case STAGE_PRM: work.objective = WORK_PRM; break;
    case STAGE_RL: r = rl_work(&s->rl, memory && memory->stage == stage ? memory : NULL, iteration, &work); break;
    case STAGE_EVAL: r = nothing_more(s, memory, stage, iteration) ? -ENOENT : eval_work(&s->eval, iteration, &work); break;
    }
    if (r == 0 && s->kind != STAGE_RL && s->kind != STAGE_EVAL &&
        iteration >= (s->kind == STAGE_SFT ? (uint32_t)sft_pieces(&s->sft) : 1))
        r = -ENOENT;
    if (r < 0)
        return r;
    name_work(s, &work);
    *ret = work;
    return 0;
}

uint32_t stage_plan_keep_from(const struct run_config *config, const struct plan_memory *memory, uint32_t stage,
                              uint32_t iteration, int keep)
{
    struct work work;

    for (uint32_t i = iteration; i > 0; i--)
        if (stage_plan_work(config, memory, stage, i, &work) == 0 && work.purpose == EPISODE_TRAIN && --keep == 0)
            return i;
    return 0;
}

/* ---- rows ---------------------------------------------------------------------------------------- */

/* The distinct temperatures of a policy's test pass: best on val, greedy and 1 beside it; or the one that was settled before. */
static int test_temperatures(const struct eval_config *eval, const struct plan_memory *memory, int policy,
                             double ret[EVAL_TEMPERATURES])
{
    double wanted[EVAL_TEMPERATURES] = { memory->temperature[policy] >= 0 ? memory->temperature[policy] : 1, 0, 1 };
    int n = 0;

    if (eval->n_at > 0) {
        ret[0] = eval->at[policy];
        return 1;
    }
    for (int i = 0; i < (eval->beside ? EVAL_TEMPERATURES : 1); i++) {
        bool seen = false;

        for (int j = 0; j < n; j++)
            seen |= ret[j] == wanted[i];
        if (!seen)
            ret[n++] = wanted[i];
    }
    return n;
}

static size_t count(int n)
{
    return n > 0 ? (size_t)n : 0;
}

/* One way to play the states of a look-ahead pass. */
struct variant { int n; const char *control; };     /* control NULL: the stage's own judge */

/* In order: every n; greedy; every other control with every n > 1. Returns how many; of them the first `room` are written. */
static size_t search_variants(const struct eval_config *eval, struct variant *ret, size_t room)
{
    size_t n = 0;

    for (int i = 0; i < eval->n_n; i++, n++)
        if (n < room)
            ret[n] = (struct variant) {.n = MAX(eval->n[i], 1)};
    for (int k = 0; k < eval->n_search_controls; k++)
        for (int i = 0; i < eval->n_n; i++) {
            bool greedy = !strcmp(eval->search_controls[k], "greedy");

            if (greedy ? i > 0 : eval->n[i] < 2)
                continue;
            if (n < room)
                ret[n] = (struct variant) {.n = greedy ? 1 : eval->n[i], .control = eval->search_controls[k]};
            n++;
        }
    return n;
}

enum search_judge stage_plan_judge(const struct eval_config *eval, const struct ledger_episode *row)
{
    const char *word = strrchr(row->tag, ' ');
    int judge = word ? search_name(search_judge_names, word + 1) : -ENOENT;

    return judge < 0 ? eval->search_judge : (enum search_judge)judge;
}

static size_t eval_rows(const struct eval_config *eval, const struct work *work, const struct plan_memory *memory)
{
    double temperatures[EVAL_TEMPERATURES];

    if (work->tries)
        return count(eval->n_temperatures) * count(eval->val_episodes);
    if (work->look_ahead)
        return search_variants(eval, NULL, 0) * count(eval->search_episodes);
    if (work->expert)
        return count(eval->episodes);
    return count(test_temperatures(eval, memory, work->policy, temperatures)) * count(eval->episodes);
}

size_t stage_plan_rows(const struct run_config *config, const struct work *work, const struct plan_memory *memory)
{
    const struct stage_config *s = &config->stages[work->stage];

    if (!work->purpose)
        return 0;
    switch (s->kind) {
    case STAGE_DEMOS: return count(s->demos.episodes);
    case STAGE_ROLLOUTS: return count(s->rollouts.episodes);
    case STAGE_RL: return count(work->purpose == EPISODE_EVAL ? s->rl.eval_episodes : s->rl.episodes);
    case STAGE_EVAL: return eval_rows(&s->eval, work, memory);
    default: return 0;
    }
}

/* Task and state of row i of an evaluation pass, with the sampling key that every pass shares. */
static void set_eval_state(const struct run_config *config, size_t i, uint64_t first_state, struct ledger_episode *row)
{
    size_t task = i % (size_t)config->n_tasks;

    snprintf(row->task, sizeof(row->task), "%s", config->tasks[task]);
    row->state_seed = first_state + i / (size_t)config->n_tasks;
    row->sample_key = (uint64_t)1 << 63 | (uint64_t)row->split << 56 | (uint64_t)task << 48 | (row->state_seed & 0xffffffffffff);
}

static void fill_eval_row(const struct run_config *config, const struct work *work, const struct plan_memory *memory, size_t i,
                          struct ledger_episode *row)
{
    const struct eval_config *eval = &config->stages[work->stage].eval;
    const char *policy = eval->policies[work->policy];
    double temperatures[EVAL_TEMPERATURES];
    size_t per_pass, pass;

    per_pass = count(work->tries ? eval->val_episodes : work->look_ahead ? eval->search_episodes : eval->episodes);
    pass = i / per_pass;
    set_eval_state(config, i % per_pass, work->tries ? 0 : (uint64_t)eval->first_state, row);
    if (!work->tries && eval->max_steps)
        row->max_steps = (uint32_t)count(eval->max_steps);
    if (work->expert) {
        snprintf(row->tag, sizeof(row->tag), "test %s", policy);
    } else if (work->look_ahead) {
        struct variant variants[RUN_MAX_N * (1 + RUN_MAX_CONTROLS)];

        (void)search_variants(eval, variants, ARRAY_SIZE(variants));
        row->search_n = (uint32_t)variants[pass].n;
        row->temperature = (float)eval->search_temperature;     /* the same for all n: they are compared */
        row->prm_version = memory->prm_current;
        if (!variants[pass].control) {
            snprintf(row->tag, sizeof(row->tag), "search %s n=%u", policy, row->search_n);
        } else if (!strcmp(variants[pass].control, "greedy")) {
            row->temperature = 0;
            snprintf(row->tag, sizeof(row->tag), "search %s greedy", policy);
        } else {
            snprintf(row->tag, sizeof(row->tag), "search %s n=%u %s", policy, row->search_n, variants[pass].control);
        }
    } else {
        if (work->tries) {
            row->temperature = (float)eval->temperatures[pass];
        } else {
            (void)test_temperatures(eval, memory, work->policy, temperatures);
            row->temperature = (float)temperatures[pass];
        }
        snprintf(row->tag, sizeof(row->tag), "%s %s t=%.3g", work->tries ? "val" : "test", policy,
                 (double)row->temperature);
    }
}

static void fill_rl_row(const struct run_config *config, const struct work *work, struct plan_memory *memory, size_t i,
                        struct ledger_episode *row)
{
    const struct rl_config *rl = &config->stages[work->stage].rl;
    size_t group = rl->advantage == ADVANTAGE_GAE || rl->group < 1 ? 1 : (size_t)rl->group;
    int task;

    row->temperature = (float)rl->temperature;
    if (work->purpose == EPISODE_EVAL) {
        set_eval_state(config, i, 0, row);
        if (rl->eval_temperature > 0)
            row->temperature = (float)rl->eval_temperature;
        snprintf(row->tag, sizeof(row->tag), "val");
        return;
    }
    task = curriculum_draw(&memory->curriculum, config->seed, (uint64_t)work->stage << 32 | work->round, (uint32_t)(i / group));
    snprintf(row->task, sizeof(row->task), "%s", config->tasks[task]);
    if (i % group == 0)
        memory->next_state++;
    row->state_seed = memory->next_state - 1;       /* a group's rows start from one state */
}

int stage_plan_fill(const struct run_config *config, const struct work *work, uint64_t policy_version, uint64_t prm_version,
                    struct plan_memory *memory, struct ledger_episode *rows, size_t n)
{
    const struct stage_config *s = &config->stages[work->stage];
    size_t wanted = stage_plan_rows(config, work, memory);

    if (work->split == SPLIT_TEST && work->purpose != EPISODE_EVAL)
        return -EPERM;          /* whoever plans it: what is learnt from was never tested on */
    if (n < wanted)
        return -ENOSPC;
    for (size_t i = 0; i < wanted; i++) {
        struct ledger_episode *row = &rows[i];

        *row = (struct ledger_episode) {
            .episode = memory->next_episode++,
            .stage = work->stage,
            .iteration = work->iteration,
            .purpose = work->purpose,
            .split = work->split,
            .policy_version = work->expert ? 0 : policy_version,
            .prm_version = work->purpose == EPISODE_TRAIN || work->scored ? prm_version : 0,
            .search_n = 1,
            .max_steps = (uint32_t)count(config->max_steps),
        };
        row->sample_key = row->episode;
        if (s->kind == STAGE_RL) {
            fill_rl_row(config, work, memory, i, row);
        } else if (s->kind == STAGE_EVAL) {
            fill_eval_row(config, work, memory, i, row);
        } else {
            snprintf(row->task, sizeof(row->task), "%s", config->tasks[i % (size_t)config->n_tasks]);
            row->state_seed = memory->next_state++;
            row->temperature = s->kind == STAGE_ROLLOUTS ? (float)s->rollouts.temperature : 0;
            if (s->kind == STAGE_DEMOS)
                row->max_steps = (uint32_t)count(s->demos.max_steps);
        }
    }
    return 0;
}

uint64_t stage_plan_policy(const struct run_config *config, const struct work *work, const struct plan_memory *memory,
                           uint64_t newest)
{
    const char *name;

    if (work->policy < 0)
        return newest;
    name = config->stages[work->stage].eval.policies[work->policy];
    if (!strcmp(name, "sft"))
        return memory->sft_version;
    if (!strcmp(name, "sft-earlier"))
        return memory->sft_earlier;
    if (!strcmp(name, "best"))
        return memory->have_best ? memory->best_version : newest;
    if (name[0] >= '0' && name[0] <= '9')
        return strtoull(name, NULL, 10);
    return newest;      /* last; the demonstrator needs none */
}
