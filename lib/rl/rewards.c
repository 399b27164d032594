#include "rl/rewards.h"

#include <errno.h>
#include <math.h>

static bool is_scored(const struct reward_settings *settings)
{
    return settings->mode != REWARD_SPARSE && settings->mode != REWARD_ENV && settings->w_progress != 0;
}

static int check(const struct reward_settings *settings, const struct episode_end *end, const float *progress)
{
    if (end->steps < 1 || (settings->mode == REWARD_RAW && settings->limit < end->steps))
        return -EINVAL;
    if (!is_scored(settings))
        return 0;
    if (!progress)
        return -EINVAL;
    for (int t = 0; t <= end->steps; t++)
        if (!(progress[t] >= 0 && progress[t] <= 1))
            return -EINVAL;
    return 0;
}

/* The potential after o_t: a success is complete whatever the model says of the last picture. */
static double progress_at(const struct episode_end *end, const float *progress, int t)
{
    return end->success && t == end->steps ? 1 : (double)progress[t];
}

static double process_reward(const struct reward_settings *settings, const struct episode_end *end, const float *progress, int t)
{
    bool last = t == end->steps - 1;
    double here = progress_at(end, progress, t), next = progress_at(end, progress, t + 1);

    switch (settings->mode) {
    case REWARD_PROGRESS:
        return next - here;
    case REWARD_DELTA:
        /* the potential of a terminal state is 0, or shaping would move the optimum (Ng et al. 1999) */
        return settings->gamma * (last && !end->bootstrap ? 0 : next) - here;
    case REWARD_RAW: {
        double absorbed = 0;    /* discounted sum of the 1s that the rest of the limit would have paid */
        int rest = settings->limit - end->steps;

        if (last && end->success)
            absorbed = settings->gamma == 1 ? rest : settings->gamma * (1 - pow(settings->gamma, rest)) / (1 - settings->gamma);
        return next + absorbed;
    }
    case REWARD_RAW_LITERAL:
        return (double)progress[t];
    case REWARD_SPARSE:
    case REWARD_ENV:
        break;
    }
    return 0;
}

static double environment_pays(const struct episode_end *end, int t)
{
    return end->env_reward ? (double)end->env_reward[t] : end->success && t == end->steps - 1;
}

int rewards_compute(const struct reward_settings *settings, const struct episode_end *end, const float *progress,
                    double *ret_reward)
{
    int r = check(settings, end, progress);

    if (r < 0)
        return r;
    for (int t = 0; t < end->steps; t++) {
        ret_reward[t] = is_scored(settings) ? settings->w_progress * process_reward(settings, end, progress, t) : 0;
        if (settings->w_env != 0)
            ret_reward[t] += settings->w_env * environment_pays(end, t);
        if (t == end->steps - 1 && end->success)
            ret_reward[t] += settings->w_success;
    }
    return 0;
}

double rewards_chunk(const double *reward, int actions, double gamma)
{
    double sum = 0, discount = 1;

    for (int j = 0; j < actions; j++, discount *= gamma)
        sum += discount * reward[j];
    return sum;
}

double reward_weight_at(double w_progress, int decay, int64_t iteration)
{
    if (decay <= 0)
        return w_progress;
    return iteration >= decay ? 0 : w_progress * (1 - (double)iteration / decay);
}
