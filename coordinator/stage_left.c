/* stage_left.c - how many passes of a stage are still to come: counted, because a stage may have a hundred thousand. */
#include <string.h>

#include "coordinator/stage_plan.h"

/* Train passes of the stage that train the value head alone: its first ones. */
static uint32_t warmups(const struct rl_config *rl)
{
    return rl_has_critic(rl) ? (uint32_t)CLAMP(rl->critic_warmup, 0, MAX(rl->iterations, 0)) : 0;
}

enum pass_kind stage_plan_kind(const struct run_config *config, const struct work *work)
{
    const struct stage_config *s = &config->stages[work->stage];

    if (work->purpose == EPISODE_EVAL)
        return PASS_VAL;
    if (work->objective == WORK_PRM)
        return PASS_PRM;
    return s->kind == STAGE_RL && work->round < warmups(&s->rl) ? PASS_WARMUP : PASS_TRAIN;
}

/* Rounds k from..to - 1 after which an update of the reward model comes: every `every`-th, and the extra ones. */
static uint32_t refreshes(uint32_t every, const struct plan_memory *memory, uint32_t from, uint32_t to)
{
    uint32_t n = every && from < to ? to / every - from / every : 0;

    for (uint32_t i = 0; memory && i < memory->n_extra; i++)
        n += memory->extra[i] >= from && memory->extra[i] < to && (!every || (memory->extra[i] + 1) % every != 0);
    return n;
}

/* As rl_work() walks it: in round k [val] train [reward model], and a last val. */
static void rl_left(const struct rl_config *rl, const struct plan_memory *memory, const struct work *work, enum pass_kind kind,
                    uint32_t ret[PASS_KINDS])
{
    uint32_t rounds = (uint32_t)MAX(rl->iterations, 0), k = work->round, every = (uint32_t)MAX(rl->eval_every, 0);
    uint32_t next = kind == PASS_VAL ? k : k + 1, warm = warmups(rl);

    ret[PASS_WARMUP] = next < warm ? warm - next : 0;
    ret[PASS_TRAIN] = rounds - next - ret[PASS_WARMUP];
    if (every && k < rounds)
        ret[PASS_VAL] = (rounds - 1) / every - k / every + 1;
    if (rounds > 0)
        ret[PASS_PRM] = refreshes((uint32_t)MAX(rl->prm_refresh, 0), memory, kind == PASS_PRM ? k + 1 : k, rounds - 1);
}

bool stage_plan_left(const struct run_config *config, const struct plan_memory *memory, const struct work *work,
                     uint32_t ret[PASS_KINDS])
{
    const struct stage_config *s = &config->stages[work->stage];

    memset(ret, 0, PASS_KINDS * sizeof *ret);
    if (s->kind != STAGE_RL)
        return false;
    memory = memory && memory->stage == work->stage ? memory : NULL;
    if (!memory || memory->stop == PLAN_GOES_ON)        /* else it ends with this one */
        rl_left(&s->rl, memory, work, stage_plan_kind(config, work), ret);
    return true;
}
