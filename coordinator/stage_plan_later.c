/* stage_plan_later.c - rows that join an iteration that is open: groups drawn anew where all returns were alike (dynamic sampling),
 * and others for those that failed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/stage_plan.h"

/* Groups (rows of one task and state) whose returns differ. */
static size_t groups_with_spread(const struct ledger_episode *rows, size_t n)
{
    size_t groups = 0;

    for (size_t i = 0; i < n; i++) {
        bool spread = false;

        for (size_t k = 0; k < n && !spread; k++) {
            bool mine = rows[k].state != EPISODE_FAILED && rows[k].state_seed == rows[i].state_seed &&
                        !strcmp(rows[k].task, rows[i].task);

            if (mine && k < i && rows[i].state != EPISODE_FAILED)
                break;              /* counted with its first row */
            spread = mine && rows[i].state != EPISODE_FAILED && fabsf(rows[k].reward - rows[i].reward) > 1e-6f;
        }
        groups += spread;
    }
    return groups;
}

static int rounds_of_refill(const struct ledger_episode *rows, size_t n)
{
    int rounds = 0, round;

    for (size_t i = 0; i < n; i++)
        if (sscanf(rows[i].tag, "refill %d", &round) == 1)
            rounds = MAX(rounds, round);
    return rounds;
}

size_t stage_plan_refill(const struct run_config *config, const struct work *work, const struct ledger_episode *rows, size_t n,
                         struct plan_memory *memory, struct ledger_episode *ret_rows, size_t capacity)
{
    const struct rl_config *rl = &config->stages[work->stage].rl;
    size_t group, wanted, have, drawn = 0;
    int round;

    if (work->objective != WORK_PPO || (rl->advantage != ADVANTAGE_GROUP && rl->advantage != ADVANTAGE_RLOO) || !n)
        return 0;
    group = (size_t)MAX(rl->group, 1);
    wanted = (size_t)rl->episodes / group;
    have = groups_with_spread(rows, n);
    round = rounds_of_refill(rows, n) + 1;
    if (round > rl->dynamic_sampling || have >= wanted || (wanted - have) * group > capacity)
        return 0;
    for (size_t i = 0; i < n; i++)
        drawn += rows[i].replaces == 0;
    for (size_t i = 0; i < (wanted - have) * group; i++) {
        int task = curriculum_draw(&memory->curriculum, config->seed, (uint64_t)work->stage << 32 | work->round,
                                   (uint32_t)((drawn + i) / group));

        if (i % group == 0)
            memory->next_state++;
        ret_rows[i] = (struct ledger_episode) {
            .episode = memory->next_episode++, .stage = work->stage, .iteration = work->iteration, .purpose = work->purpose,
            .split = work->split, .policy_version = rows[0].policy_version, .prm_version = rows[0].prm_version, .search_n = 1,
            .max_steps = rows[0].max_steps, .temperature = (float)rl->temperature, .state_seed = memory->next_state - 1,
        };
        ret_rows[i].sample_key = ret_rows[i].episode;
        snprintf(ret_rows[i].task, sizeof(ret_rows[i].task), "%s", config->tasks[task]);
        snprintf(ret_rows[i].tag, sizeof(ret_rows[i].tag), "refill %d", round);
    }
    return (wanted - have) * group;
}

/* Rows of the failed one's pass: same task and terms. */
static bool is_played(const struct ledger_episode *rows, size_t n, const struct ledger_episode *failed, uint64_t state,
                      uint64_t states)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].state_seed % states == state && !strcmp(rows[i].task, failed->task) && !strcmp(rows[i].tag, failed->tag))
            return true;
    return false;
}

/* A benchmark has only so many test states: the first that this pass does not play, or the failed one again. */
static uint64_t test_state_instead(const struct ledger_episode *rows, size_t n, const struct ledger_episode *failed,
                                   uint64_t states)
{
    for (uint64_t state = 0; state < states; state++)
        if (!is_played(rows, n, failed, state, states))
            return state;
    return failed->state_seed;
}

void stage_plan_replace(const struct run_config *config, struct plan_memory *memory, const struct ledger_episode *rows, size_t n,
                        const struct ledger_episode *failed, struct ledger_episode *ret)
{
    enum { BEYOND_EVAL = 1000000 };     /* evaluation states count from 0 over the same split: stay clear of them */
    const uint64_t test_states = (uint64_t)run_config_test_states(config);
    struct ledger_episode row = *failed;

    row.episode = memory->next_episode++;
    row.replaces = failed->episode;
    row.sample_key = row.episode;
    if (failed->split == SPLIT_TRAIN)
        row.state_seed = memory->next_state++;
    else if (failed->split == SPLIT_TEST && test_states)
        row.state_seed = test_state_instead(rows, n, failed, test_states);
    else
        row.state_seed = BEYOND_EVAL + row.episode;
    if (row.state_seed == failed->state_seed)
        row.sample_key = failed->sample_key;
    ledger_episode_forget(&row);
    row.failures = 0;
    row.suspect = false;
    row.reason[0] = '\0';
    *ret = row;
}
