#include "learner/episode_return.h"

#include <stdlib.h>

#include "base/macro.h"
#include "rl/rewards.h"

static double environment_return(const Gantry__Trajectory *t)
{
    double sum = 0;

    for (size_t i = 0; i < t->n_env_reward; i++)
        sum += (double)t->env_reward[i];
    return t->n_env_reward ? sum : t->success;
}

double episode_return(const Gantry__Trajectory *t, const struct rl_config *rl)
{
    _cleanup_free_ double *reward = rl ? calloc((size_t)t->steps + 1, sizeof *reward) : NULL;
    double sum = 0;

    if (!reward || rewards_compute(&(struct reward_settings) {.mode = rl->reward, .w_progress = rl->w_progress,
                                                              .gamma = rl->gamma, .w_success = rl->w_success, .w_env = rl->w_env,
                                                              .limit = (int)t->max_steps},
                                   &(struct episode_end) {.steps = (int)t->steps, .success = t->success,
                                                          .env_reward = t->n_env_reward == t->steps ? t->env_reward : NULL},
                                   t->n_progress ? t->progress : NULL, reward) < 0)
        return environment_return(t);
    for (uint32_t i = 0; i < t->steps; i++)
        sum += reward[i];
    return sum;
}
