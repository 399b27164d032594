/* conductor_close.c - a pass is over: its rows end, its figures are kept, its iteration is done. */
#include <stdio.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

static void add_scalar(struct conductor *c, const struct work *work, const char *name, double value)
{
    struct conductor_effect *effect = conductor_emit(c, CONDUCTOR_ADD_SCALAR);

    effect->scalar.stage = work->stage;
    effect->scalar.iteration = work->iteration;
    snprintf(effect->scalar.name, sizeof(effect->scalar.name), "%s", name);
    effect->scalar.value = value;
    effect->scalar.val = work->purpose == EPISODE_EVAL && c->config->stages[work->stage].kind == STAGE_RL;
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
    char name[EPISODE_TASK_MAX + 16];

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

/* "curriculum/<task>": how often a draw takes it; "estimate/<task>": the success rate that follows from; "curriculum/level". */
static void add_curriculum(struct conductor *c, const struct work *work)
{
    const struct curriculum *curriculum = &c->memory.curriculum;
    double p[CURRICULUM_MAX_TASKS];
    char name[64];

    if (work->purpose != EPISODE_TRAIN || !c->memory.curriculum_ready || curriculum->tasks != c->config->n_tasks)
        return;
    curriculum_weights(curriculum, p);
    for (int i = 0; i < curriculum->tasks; i++) {
        snprintf(name, sizeof(name), "curriculum/%s", c->config->tasks[i]);
        add_scalar(c, work, name, curriculum->mode == CURRICULUM_FIXED ? 1.0 / curriculum->tasks : p[i]);
        snprintf(name, sizeof(name), "estimate/%s", c->config->tasks[i]);
        add_scalar(c, work, name, curriculum_success(curriculum, i));
    }
    if (curriculum->mode == CURRICULUM_LEVELS)
        add_scalar(c, work, "curriculum/level", curriculum->level);
}

/* What the memory has learnt that people should hear of, and that stops a run. */
static void tell_news(struct conductor *c, const struct open_iteration *it, enum plan_stop stop, uint32_t alarms)
{
    static const char *const doing[] = {
        [HACK_WARN] = "the run goes on", [HACK_PAUSE] = "the run stops; `gantry up` goes on",
        [HACK_REFRESH] = "the reward model is refreshed",
    };
    const struct rl_config *rl = &c->config->stages[it->work.stage].rl;
    char text[240];

    if (c->memory.stop != stop) {
        plan_stop_text(rl, &c->memory, text, sizeof(text));
        conductor_note(c, 0, "stage_stop", "%s: %s", it->work.name, text);
    }
    if (c->memory.alarms == alarms)
        return;
    snprintf(text, sizeof(text), "%s: over 5 iterations the reward model paid 10 %% more while success fell by 10 points: the "
             "policy pleases the model, not the task; %s (on_hack)", it->work.name, doing[rl->on_hack]);
    conductor_note(c, 0, "hacking", "%s", text);
    if (rl->on_hack == HACK_PAUSE)
        conductor_stop(c, text);
}

/* Versions whose weights stay: the newest two (the edge adds them), version 0, stage ends, best, sft, what is named or open, and
 * what the next reward model is trained on. The others are forgotten. */
static void retain(struct conductor *c, enum version_kind kind)
{
    const struct ledger_version *passed = versions_newest_passed(&c->versions, kind);
    size_t most = (size_t)(12 + OPEN_MAX + c->config->n_stages * (1 + RUN_MAX_POLICIES)), n = 0;
    uint64_t *keep = conductor_take(c, most * sizeof(*keep));
    struct conductor_effect *effect;

    if (!keep)
        return;
    keep[n++] = 0;
    if (kind == KIND_PRM) {
        keep[n++] = c->memory.prm_current;
        keep[n++] = c->memory.prm_before;
        keep[n++] = c->memory.prm_next;
        keep[n++] = c->memory.shadow.version;
        keep[n++] = passed ? passed->number : 0;
    }
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
        keep[n++] = c->memory.sft_earlier;
        keep[n++] = c->memory.have_best ? c->memory.best_version : 0;
    }
    for (size_t i = 0; i < c->n_open; i++)
        keep[n++] = kind == KIND_POLICY ? c->open[i].row.policy_version : c->open[i].row.prm_version;
    versions_forget(&c->versions, kind, keep, n);
    effect = conductor_emit(c, CONDUCTOR_RETAIN);
    effect->retain.kind = kind;
    effect->retain.keep = keep;
    effect->retain.n_keep = n;
}

void conductor_put_stage(struct conductor *c, struct ledger_stage *stage)
{
    stage->wall_s += (double)(c->now_ms - c->stage_since_ms) / 1000;
    c->stage_since_ms = c->now_ms;
    conductor_emit(c, CONDUCTOR_PUT_STAGE)->stage = *stage;
}

/* Its rows have all ended: learn from them, say so, forget it. */
void conductor_close(struct conductor *c, struct open_iteration *it)
{
    enum work_objective objective = it->work.objective;
    enum plan_stop stop = c->memory.stop;
    uint32_t alarms = c->memory.alarms;

    add_curriculum(c, &it->work);       /* what these rows were drawn with, if no other iteration came between */
    stage_plan_learn(c->config, &it->work, it->rows, it->n, &c->memory);
    if (c->config->stages[it->work.stage].kind == STAGE_RL)
        tell_news(c, it, stop, alarms);
    c->memory_moved = true;
    it->row.state = PROGRESS_DONE;
    it->row.end_ms = c->wall_ms;
    conductor_emit(c, CONDUCTOR_PUT_ITERATION)->iteration = it->row;
    add_scalars(c, it);
    conductor_put_stage(c, &c->stages[it->work.stage]);
    open_iteration_release(it);
    c->n_open--;
    memmove(it, it + 1, (size_t)(c->open + c->n_open - it) * sizeof(*it));
    c->open[c->n_open] = (struct open_iteration) { 0 };
    if (objective != WORK_NONE)
        retain(c, objective == WORK_PRM ? KIND_PRM : KIND_POLICY);
}

void conductor_close_played(struct conductor *c, struct open_iteration *it)
{
    enum episode_state end = it->work.purpose == EPISODE_EVAL ? EPISODE_EVALUATED : EPISODE_KEPT;

    for (size_t i = 0; i < it->n; i++)
        if (it->rows[i].state == EPISODE_JOURNALED)
            conductor_end_row(c, &it->rows[i], end, "");
    conductor_close(c, it);
}

/* What was played of it counts for nothing either: episodes that succeed end sooner than those that fail. */
void conductor_close_dropped(struct conductor *c, struct open_iteration *it)
{
    size_t unplayed = open_iteration_unplayed(it);

    conductor_note(c, 0, "dropped", "%s: %zu of %zu episodes are not played", it->work.name, unplayed, it->n);
    for (size_t i = 0; i < it->n; i++)
        if (!episode_state_is_end(it->rows[i].state))
            conductor_end_row(c, &it->rows[i], EPISODE_FAILED, "its evaluation was dropped");
    conductor_close(c, it);
}
