/* ppo_advantage.c - what the steps of an iteration earned, and how much better that was than expected. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "rl/gae.h"
#include "rl/rewards.h"
#include "train/ppo_batch.h"

static int episode_rewards(const struct ppo_batch *b, int e, double w_progress, double *ret_reward, struct error *error)
{
    const struct train_episode *episode = &b->data->list[e];
    struct reward_settings settings = {
        .mode = b->config->reward, .w_progress = w_progress, .w_success = b->config->w_success, .w_env = b->config->w_env,
        .gamma = b->config->gamma, .limit = episode->max_steps,
    };
    struct episode_end end = {
        .steps = episode->steps, .success = episode->success, .env_reward = episode->env_reward, .bootstrap = b->cut[e],
    };
    int r = rewards_compute(&settings, &end, episode->progress, ret_reward);

    return r < 0 ? error_set(error, EINVAL,
                             "episode %" PRIu64 ": its progress scores do not allow the reward that rl.reward asks for",
                             episode->id) : 0;
}

/* One number per episode, shared by its steps. */
static int group_of(const struct ppo_batch *b, const double *total, double *ret_advantage)
{
    int n = b->data->n;
    _cleanup_free_ double *reward = malloc((size_t)n * sizeof *reward), *advantage = malloc((size_t)n * sizeof *advantage);
    _cleanup_free_ int *member = malloc((size_t)n * sizeof *member);
    _cleanup_free_ bool *seen = calloc((size_t)n, sizeof *seen);
    bool global = b->config->advantage == ADVANTAGE_REINFORCE;

    if (!reward || !advantage || !member || !seen)
        return -ENOMEM;
    for (int e = 0; e < n; e++) {
        int size = 0;

        for (int other = e; other < n && !seen[e]; other++)
            if (global || (b->data->list[other].task == b->data->list[e].task &&
                           b->data->list[other].state_seed == b->data->list[e].state_seed)) {
                member[size] = other;
                reward[size++] = total[other];
                seen[other] = other != e || seen[other];
            }
        if (!size)
            continue;
        seen[e] = true;
        group_advantages(b->config->advantage, reward, size, advantage);
        for (int i = 0; i < size; i++)
            ret_advantage[member[i]] = advantage[i];
    }
    return 0;
}

/* Take the steps of episodes without gradient out; what is kept per step moves along (nothing of a critic: there is none). */
static void compact(struct ppo_batch *b, const double *episode_advantage)
{
    int to = 0;

    for (int i = 0; i < b->n; i++) {
        if (episode_advantage[b->steps[i].episode] == 0)
            continue;
        b->steps[to] = b->steps[i];
        b->actions[to] = b->actions[i];
        memmove(b->logp_old + to * b->ratios, b->logp_old + i * b->ratios, (size_t)b->ratios * sizeof *b->logp_old);
        memmove(b->importance + to * b->ratios, b->importance + i * b->ratios, (size_t)b->ratios * sizeof *b->importance);
        b->advantage[to] = b->advantage[i];
        to++;
    }
    b->n = to;
}

/* The mean over steps becomes a mean over the `episodes` they are of: the losses are linear in the advantage's size. */
static void weigh_episodes(struct ppo_batch *b, int episodes)
{
    for (int i = 0; i < b->n; i++)
        b->advantage[i] *= b->n / ((double)episodes * dataset_decision_count(&b->data->list[b->steps[i].episode]));
}

static int group_mode(struct ppo_batch *b, const double *total, struct ppo_result *ret)
{
    int n = b->data->n, kept = 0;
    _cleanup_free_ double *advantage = calloc((size_t)n, sizeof *advantage);

    if (!advantage)
        return -ENOMEM;
    if (group_of(b, total, advantage) < 0)
        return -ENOMEM;
    for (int e = 0; e < n; e++) {
        kept += advantage[e] != 0;
        if (b->objective->ret_filtered)
            b->objective->ret_filtered[e] = advantage[e] == 0;
    }
    for (int i = 0; i < b->n; i++)
        b->advantage[i] = advantage[b->steps[i].episode];
    ret->filtered = n - kept;
    compact(b, advantage);
    if (rl_mean_per_episode(b->config))
        weigh_episodes(b, kept);
    return 0;
}

static void gae_mode(struct ppo_batch *b, struct trainer *trainer, const double *reward, struct ppo_result *ret)
{
    struct running batch = {0};
    double std;

    for (int e = 0; e < b->data->n; e++) {
        int at = b->first[e];

        gae(reward + at, b->critic ? b->values + at : NULL, b->actions + at, b->first[e + 1] - at, b->bootstrap[e],
            b->config->gamma, b->config->lambda, b->advantage + at, b->returns + at);
    }
    ret->explained_variance = explained_variance(b->values, b->returns, b->n);
    for (int i = 0; i < b->n; i++)
        running_push(&batch, b->returns[i]);
    running_merge(&trainer->returns, &batch);
    std = running_std(&trainer->returns);
    for (int i = 0; i < b->n; i++) {
        b->target[i] = (b->returns[i] - trainer->returns.mean) / std;
        b->value_old[i] = (b->values[i] - trainer->returns.mean) / std;
    }
    normalise_advantages(b->advantage, b->n);
    if (rl_mean_per_episode(b->config))
        weigh_episodes(b, b->data->n);
}

/* Under support `full` nothing forbids a token that is no action, or no end where one is due. */
static double share_of_others(const struct dataset *data)
{
    const struct openvla_config *c = &data->model->config;
    int64_t others = 0, all = 0;

    for (int e = 0; e < data->n && data->full; e++) {
        const struct train_episode *episode = &data->list[e];

        for (int k = 0; k < episode->steps * data->token_dims; k++, all++)
            others += k % data->token_dims == data->action_dims
                          ? episode->tokens[k] != c->eos_id
                          : episode->tokens[k] < c->vocab - OPENVLA_ACTION_BINS || episode->tokens[k] >= c->vocab;
    }
    return all ? (double)others / (double)all : 0;
}

/* The rewards of an episode's steps, gathered by decision. */
static int gather_rewards(const struct ppo_batch *b, int e, double *step_reward, double *ret_reward, double *ret_total,
                          struct ppo_result *ret, struct error *error)
{
    const struct train_episode *episode = &b->data->list[e];
    int r = episode_rewards(b, e, ret->w_progress, step_reward, error);

    if (r < 0)
        return r;
    for (int t = 0; t < episode->steps; t++) {
        *ret_total += step_reward[t];
        ret->reward += step_reward[t] / b->data->n;
    }
    for (int i = b->first[e]; i < b->first[e + 1]; i++)
        ret_reward[i] = rewards_chunk(step_reward + b->steps[i].step, b->actions[i], b->config->gamma);
    return 0;
}

/* kl: k1_reward. Each decision pays for how much likelier its tokens were than under the reference. */
static void take_kl(struct ppo_batch *b, double *reward, double *total)
{
    int actions = 0;

    for (int i = 0; i < b->n; i++) {
        const struct train_episode *episode = &b->data->list[b->steps[i].episode];
        const float *acted = episode->logp + b->steps[i].step * b->data->token_dims;
        double kl = 0;

        for (int k = 0; k < b->actions[i] * b->data->token_dims; k++)
            kl += (double)acted[k] - (double)b->ref_logp[i * b->data->width + k];
        reward[i] -= b->config->kl_coef * kl;
        total[b->steps[i].episode] -= b->config->kl_coef * kl;
        b->kl_taken += kl;
        actions += b->actions[i];
    }
    b->kl_taken /= MAX(actions, 1);
    free(b->ref_logp);
    b->ref_logp = NULL;
}

int ppo_batch_advantages(struct ppo_batch *b, struct trainer *trainer, struct ppo_result *ret, struct error *error)
{
    int episodes = b->data->n, longest = 1, r;
    _cleanup_free_ double *reward = calloc((size_t)b->n, sizeof *reward), *total = calloc((size_t)episodes, sizeof *total);
    _cleanup_free_ double *step_reward = NULL;

    for (int e = 0; e < episodes; e++)
        longest = MAX(longest, b->data->list[e].steps);
    step_reward = calloc((size_t)longest, sizeof *step_reward);
    if (!reward || !total || !step_reward)
        return error_set(error, ENOMEM, "out of memory");
    ret->w_progress = reward_weight_at(b->config->w_progress, b->config->w_progress_decay, (int64_t)b->objective->iteration);
    for (int e = 0; e < episodes; e++) {
        r = gather_rewards(b, e, step_reward, reward, &total[e], ret, error);
        if (r < 0)
            return r;
        ret->success += b->data->list[e].success / (double)episodes;
        ret->length += b->data->list[e].steps / (double)episodes;
    }
    if (b->config->kl == KL_K1_REWARD)
        take_kl(b, reward, total);
    ret->episodes = episodes;
    ret->steps = b->n;
    ret->other_ids = share_of_others(b->data);
    if (b->config->advantage != ADVANTAGE_GAE)
        return group_mode(b, total, ret) < 0 ? error_set(error, ENOMEM, "out of memory") : 0;
    gae_mode(b, trainer, reward, ret);
    return 0;
}
