/* plan_learn.c - what later passes remember of ended ones (stage_plan.h): curriculum, best policy, temperatures, when to stop. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/stage_plan.h"

static int task_index(const struct run_config *config, const char *task)
{
    for (int i = 0; i < config->n_tasks; i++)
        if (!strcmp(config->tasks[i], task))
            return i;
    return -1;
}

int stage_plan_begin(const struct run_config *config, uint32_t stage, const int *task_levels, struct plan_memory *memory)
{
    const struct stage_config *s = &config->stages[stage];
    int r;

    for (int i = 0; s->kind == STAGE_EVAL && s->eval.n_at == 0 && i < RUN_MAX_POLICIES; i++)
        memory->temperature[i] = -1;
    if (s->kind != STAGE_RL)
        return 0;
    memory->stop = PLAN_GOES_ON;
    memory->stage_best = -1;
    memory->since_best = memory->watched = memory->alarms = memory->n_extra = 0;
    r = curriculum_init(&memory->curriculum, s->rl.curriculum, s->rl.n_levels ? s->rl.levels : task_levels, config->n_tasks);
    if (r == 0)
        memory->curriculum_ready = true;
    return r;
}

static bool counts(const struct ledger_episode *row)
{
    return row->state != EPISODE_FAILED;
}

static void learn_train(const struct run_config *config, const struct ledger_episode *rows, size_t n, struct plan_memory *memory)
{
    int attempts[CURRICULUM_MAX_TASKS] = { 0 }, successes[CURRICULUM_MAX_TASKS] = { 0 };

    for (size_t i = 0; i < n; i++) {
        int task = task_index(config, rows[i].task);

        if (task < 0 || task >= CURRICULUM_MAX_TASKS || !counts(&rows[i]))
            continue;
        attempts[task]++;
        successes[task] += rows[i].success;
    }
    (void)curriculum_record(&memory->curriculum, attempts, successes);
}

/* The next work to come is at least this one: a refresh after its train iteration takes no number that is taken. */
static void add_refresh(const struct run_config *config, struct plan_memory *memory)
{
    struct work work;

    if (memory->iteration > 0 && memory->n_extra < PLAN_EXTRA &&
        stage_plan_work(config, memory, memory->stage, memory->iteration - 1, &work) == 0)
        memory->extra[memory->n_extra++] = work.round;
}

static double mean_of(const double *x, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += x[i] / n;
    return sum;
}

/* The reward model pays at least a tenth more than in the five iterations before, and success has fallen by ten points: the
 * policy has found what the model likes. Watching begins anew, so that one such turn is one alarm. */
static void watch_reward(const struct run_config *config, const struct work *work, const struct ledger_episode *rows, size_t n,
                         struct plan_memory *memory)
{
    enum { HALF = PLAN_WATCH / 2 };
    const struct rl_config *rl = &config->stages[work->stage].rl;
    double paid = 0, won = 0, before;
    size_t played = 0;

    for (size_t i = 0; i < n; i++)
        if (counts(&rows[i])) {
            paid += (double)rows[i].reward - (rows[i].success ? rl->w_success : 0);
            won += rows[i].success;
            played++;
        }
    if (!played || rl->reward == REWARD_SPARSE || rl->reward == REWARD_ENV || rl->w_env != 0)
        return;                 /* what was paid is not the reward model's word, or not its alone */
    if (memory->watched == PLAN_WATCH) {
        memmove(memory->paid, memory->paid + 1, (PLAN_WATCH - 1) * sizeof(*memory->paid));
        memmove(memory->won, memory->won + 1, (PLAN_WATCH - 1) * sizeof(*memory->won));
        memory->watched--;
    }
    memory->paid[memory->watched] = paid / (double)played;
    memory->won[memory->watched++] = won / (double)played;
    if (memory->watched < PLAN_WATCH)
        return;
    before = mean_of(memory->paid, HALF);
    if (mean_of(memory->paid + HALF, HALF) - before < .1 * fabs(before) ||
        mean_of(memory->won + HALF, HALF) > mean_of(memory->won, HALF) - .1)
        return;
    memory->alarms++;
    memory->watched = 0;
    if (rl->on_hack == HACK_REFRESH)
        add_refresh(config, memory);
}

static void watch_val(const struct rl_config *rl, double success, struct plan_memory *memory)
{
    if (success > memory->stage_best) {
        memory->stage_best = success;
        memory->since_best = 0;
    } else {
        memory->since_best++;
    }
    if (rl->stop_success > 0 && success >= rl->stop_success)
        memory->stop = PLAN_SUCCESS;
    else if (rl->stop_collapse > 0 && success <= memory->stage_best - rl->stop_collapse)
        memory->stop = PLAN_COLLAPSE;
    else if (rl->stop_patience > 0 && memory->since_best >= (uint32_t)rl->stop_patience)
        memory->stop = PLAN_PATIENCE;
}

void plan_stop_text(const struct rl_config *rl, const struct plan_memory *memory, char *ret, size_t size)
{
    if (memory->stop == PLAN_SUCCESS)
        snprintf(ret, size, "success on val states reached %g (stop_success)", rl->stop_success);
    else if (memory->stop == PLAN_COLLAPSE)
        snprintf(ret, size, "success on val states fell by %g below its best, %.3g (stop_collapse)", rl->stop_collapse,
                 memory->stage_best);
    else
        snprintf(ret, size, "%u evaluations on val states brought no more than %.3g (stop_patience)", memory->since_best,
                 memory->stage_best);
}

/* Success averaged over the rows that were played at `temperature` (below 0: any). */
static double success_at(const struct ledger_episode *rows, size_t n, double temperature)
{
    size_t played = 0, succeeded = 0;

    for (size_t i = 0; i < n; i++)
        if (counts(&rows[i]) && (temperature < 0 || rows[i].temperature == (float)temperature)) {
            played++;
            succeeded += rows[i].success;
        }
    return played ? (double)succeeded / (double)played : 0;
}

void stage_plan_learn(const struct run_config *config, const struct work *work, const struct ledger_episode *rows, size_t n,
                      struct plan_memory *memory)
{
    const struct stage_config *s = &config->stages[work->stage];

    if (!n)
        return;
    if (work->purpose == EPISODE_TRAIN) {
        learn_train(config, rows, n, memory);
        watch_reward(config, work, rows, n, memory);
    } else if (s->kind == STAGE_RL) {
        double success = success_at(rows, n, -1);

        if (!memory->have_best || success > memory->best_success) {
            memory->have_best = true;
            memory->best_success = success;
            memory->best_version = rows[0].policy_version;
        }
        watch_val(&s->rl, success, memory);
    } else if (s->kind == STAGE_EVAL && work->tries) {
        double best = -1;

        for (int i = 0; i < s->eval.n_temperatures; i++) {
            double success = success_at(rows, n, s->eval.temperatures[i]);

            if (success > best) {       /* of equals the first in the list */
                best = success;
                memory->temperature[work->policy] = s->eval.temperatures[i];
            }
        }
    }
}
