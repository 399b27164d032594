#include "train/ppo_batch.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/gae.h"
#include "rl/losses.h"
#include "rl/rewards.h"

#define PROGRESS_SCALE 2        /* the critic sees progress on the scale of time and reward */

int minibatches(int n, int size)
{
    return MAX(1, (n + size / 2) / MAX(size, 1));
}

static int allocate(struct ppo_batch *b)
{
    size_t n = (size_t)MAX(b->n, 1), width = (size_t)b->data->width, ratios = (size_t)b->ratios;

    b->hidden = malloc(n * (size_t)b->data->model->config.hidden * sizeof *b->hidden);
    b->extra = calloc(n * (size_t)MAX(b->n_extra, 1), sizeof *b->extra);
    b->gap = malloc(n * width * sizeof *b->gap);
    b->logp_old = calloc(n * ratios, sizeof *b->logp_old);
    b->importance = calloc(n * ratios, sizeof *b->importance);
    b->actions = calloc(n, sizeof *b->actions);
    b->values = calloc(n, sizeof *b->values);
    b->advantage = calloc(n, sizeof *b->advantage);
    b->returns = calloc(n, sizeof *b->returns);
    b->target = calloc(n, sizeof *b->target);
    b->first = calloc((size_t)b->data->n + 1, sizeof *b->first);
    if (!b->hidden || !b->extra || !b->gap || !b->actions || !b->logp_old || !b->importance || !b->values || !b->advantage ||
        !b->returns ||
        !b->target || !b->first)
        return -ENOMEM;
    return 0;
}

struct ppo_batch *ppo_batch_free(struct ppo_batch *b)
{
    if (!b)
        return NULL;
    free(b->steps);
    free(b->actions);
    free(b->first);
    free(b->hidden);
    free(b->extra);
    free(b->gap);
    free(b->logp_old);
    free(b->importance);
    free(b->values);
    free(b->advantage);
    free(b->returns);
    free(b->target);
    free(b->ref_logp);
    free(b->ref_log_probs);
    free(b);
    return NULL;
}

/* What the picture does not show: how much time is left, and how far the reward model thinks we are. */
static int fill_extra(struct ppo_batch *b, struct error *error)
{
    for (int i = 0; i < b->n; i++) {
        const struct train_episode *episode = &b->data->list[b->steps[i].episode];
        float *extra = b->extra + i * b->n_extra;

        if (b->config->critic_prm && !episode->progress)
            return error_set(error, EINVAL,
                             "episode %" PRIu64 " has no progress scores, and the critic wants them (rl.critic_prm); "
                             "run a prm stage before, or set critic_prm: false", episode->id);
        if (b->config->critic_time)
            *extra++ = (float)b->steps[i].step / (float)episode->max_steps;
        if (b->config->critic_prm)
            *extra = PROGRESS_SCALE * episode->progress[b->steps[i].step];
    }
    return 0;
}

int ppo_batch_new(const struct dataset *data, const struct rl_config *config, const struct objective *objective,
                  struct ppo_batch **ret, struct error *error)
{
    _cleanup_(ppo_batch_freep) struct ppo_batch *b = calloc(1, sizeof *b);

    if (!b)
        return error_set(error, ENOMEM, "rl: out of memory");
    *b = (struct ppo_batch) {.data = data, .config = config, .objective = objective};
    b->critic = config->advantage == ADVANTAGE_GAE && config->value_width > 0;
    b->n_extra = b->critic ? config->critic_time + config->critic_prm : 0;
    for (int i = 0; i < data->n; i++)
        if (data->list[i].demo || fabs(data->list[i].temperature - config->temperature) > 1e-6)
            return error_set(error, EINVAL, "episode %" PRIu64 " was not sampled by the policy at temperature %g",
                             data->list[i].id, config->temperature);
    if (data->model->config.oft.kind == OFT_L1)
        return error_set(error, EINVAL, "rl: the plain L1 head is for SFT and inference; use ids or the Laplace head");
    b->by_token = data->width > data->action_dims;
    b->ratios = b->by_token ? data->width : 1;
    if (dataset_decisions(data, &b->steps, &b->n) < 0 || allocate(b) < 0)
        return error_set(error, ENOMEM, "rl: out of memory for %d episodes", data->n);
    if (!b->n)
        return error_set(error, EINVAL, "rl: the iteration has no steps to train on");
    for (int e = 0; e < data->n; e++)
        b->first[e + 1] = b->first[e] + dataset_decision_count(&data->list[e]);
    for (int i = 0; i < b->n; i++)
        b->actions[i] = dataset_executed(data, b->steps[i]);
    if (b->critic) {
        int r = fill_extra(b, error);

        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(b);
    return 0;
}

/* ---- rewards and advantages ------------------------------------------------------------------------ */

static int episode_rewards(const struct ppo_batch *b, int e, double w_progress, double *ret_reward, struct error *error)
{
    const struct train_episode *episode = &b->data->list[e];
    struct reward_settings settings = {
        .mode = b->config->reward, .w_progress = w_progress, .w_success = b->config->w_success, .gamma = b->config->gamma,
        .limit = episode->max_steps,
    };
    struct episode_end end = {.steps = episode->steps, .success = episode->success};
    int r = rewards_compute(&settings, &end, episode->progress, ret_reward);

    return r < 0 ? error_set(error, EINVAL,
                             "episode %" PRIu64 ": its progress scores do not allow the reward that rl.reward asks for",
                             episode->id) : 0;
}

/* One number per episode, shared by its steps; each episode weighs the same whatever its length. */
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

/* Take the steps of episodes without gradient out; everything kept per step moves along. */
static void compact(struct ppo_batch *b, const double *episode_advantage)
{
    int to = 0, width = b->data->model->config.hidden;

    for (int i = 0; i < b->n; i++) {
        if (episode_advantage[b->steps[i].episode] == 0)
            continue;
        b->steps[to] = b->steps[i];
        b->actions[to] = b->actions[i];
        memmove(b->logp_old + to * b->ratios, b->logp_old + i * b->ratios, (size_t)b->ratios * sizeof *b->logp_old);
        memmove(b->importance + to * b->ratios, b->importance + i * b->ratios, (size_t)b->ratios * sizeof *b->importance);
        b->advantage[to] = b->advantage[i];
        memmove(b->hidden + (size_t)to * (size_t)width, b->hidden + (size_t)i * (size_t)width, (size_t)width * sizeof *b->hidden);
        to++;
    }
    b->n = to;
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
    for (int i = 0; i < b->n; i++) {
        int e = b->steps[i].episode;

        b->advantage[i] = advantage[e] * b->n / ((double)n * dataset_decision_count(&b->data->list[e]));
    }
    ret->filtered = n - kept;
    compact(b, advantage);
    return 0;
}

static void gae_mode(struct ppo_batch *b, struct trainer *trainer, const double *reward, struct ppo_result *ret)
{
    struct running batch = {0};
    double std;

    for (int e = 0; e < b->data->n; e++) {
        int at = b->first[e];

        gae(reward + at, b->critic ? b->values + at : NULL, b->actions + at, b->first[e + 1] - at, 0, b->config->gamma,
            b->critic ? b->config->lambda : 1, b->advantage + at, b->returns + at);
    }
    ret->explained_variance = explained_variance(b->values, b->returns, b->n);
    for (int i = 0; i < b->n; i++)
        running_push(&batch, b->returns[i]);
    running_merge(&trainer->returns, &batch);
    std = running_std(&trainer->returns);
    for (int i = 0; i < b->n; i++)
        b->target[i] = (b->returns[i] - trainer->returns.mean) / std;
    normalise_advantages(b->advantage, b->n);
}

/* Under support `full` nothing forbids a token that is no action. */
static double share_of_others(const struct dataset *data)
{
    const struct openvla_config *c = &data->model->config;
    int64_t others = 0, all = 0;

    for (int e = 0; e < data->n && data->full; e++) {
        const struct train_episode *episode = &data->list[e];

        for (int k = 0; k < episode->steps * data->action_dims; k++, all++)
            others += episode->tokens[k] < c->vocab - OPENVLA_ACTION_BINS || episode->tokens[k] >= c->vocab;
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

int ppo_batch_advantages(struct ppo_batch *b, struct trainer *trainer, struct ppo_result *ret, struct error *error)
{
    int episodes = b->data->n, longest = 1, r;
    _cleanup_free_ double *reward = calloc((size_t)b->n, sizeof *reward), *total = calloc((size_t)episodes, sizeof *total);
    _cleanup_free_ double *step_reward = NULL;

    for (int e = 0; e < episodes; e++)
        longest = MAX(longest, b->data->list[e].steps);
    step_reward = calloc((size_t)longest, sizeof *step_reward);
    if (!reward || !total || !step_reward)
        return error_set(error, ENOMEM, "rl: out of memory");
    ret->w_progress = reward_weight_at(b->config->w_progress, b->config->w_progress_decay, (int64_t)b->objective->iteration);
    for (int e = 0; e < episodes; e++) {
        r = gather_rewards(b, e, step_reward, reward, &total[e], ret, error);
        if (r < 0)
            return r;
        ret->success += b->data->list[e].success / (double)episodes;
        ret->length += b->data->list[e].steps / (double)episodes;
    }
    ret->episodes = episodes;
    ret->steps = b->n;
    ret->other_ids = share_of_others(b->data);
    if (b->config->advantage != ADVANTAGE_GAE)
        return group_mode(b, total, ret) < 0 ? error_set(error, ENOMEM, "rl: out of memory") : 0;
    gae_mode(b, trainer, reward, ret);
    return 0;
}

/* ---- the critic --------------------------------------------------------------------------------------- */

struct critic_call {
    struct ppo_batch *batch;
    const struct openvla *model;
    const int *order; int n;
    struct ppo_sums sums[SHARDS];
};

static int critic_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    struct critic_call *call = arg;
    struct ppo_batch *b = call->batch;
    int n = last - first, width = call->model->config.hidden;
    float *rows = tape_alloc(tape, (size_t)n * (size_t)width * sizeof *rows);
    float *extra = tape_alloc(tape, (size_t)(n * MAX(b->n_extra, 1)) * sizeof *extra);
    double *scratch = tape_alloc(tape, (size_t)n * 3 * sizeof *scratch);
    struct tensor *value;

    if (!rows || !extra || !scratch)
        return tape->error;
    for (int i = 0; i < n; i++) {
        int at = call->order[first + i];

        memcpy(rows + (size_t)i * (size_t)width, b->hidden + (size_t)at * (size_t)width, (size_t)width * sizeof *rows);
        memcpy(extra + i * b->n_extra, b->extra + at * b->n_extra, (size_t)b->n_extra * sizeof *extra);
        scratch[i] = b->target[at];
    }
    value = openvla_value(call->model, tape, tape_input(tape, rows, n, width), b->n_extra ? extra : NULL, false);
    if (!value)
        return tape->error ? tape->error : -ENOMEM;
    for (int i = 0; i < n; i++)
        scratch[n + i] = (double)value->x[i];
    call->sums[shard] = (struct ppo_sums) {0};
    value_loss(scratch + n, scratch, n, call->n, b->config->value_coef, scratch + 2 * n, &call->sums[shard]);
    for (int i = 0; i < n; i++)
        value->g[i] = (float)scratch[2 * n + i];
    tape_backward(tape);
    return 0;
}

int ppo_batch_critic(struct ppo_batch *b, struct trainer *trainer, int epochs, struct ppo_result *ret, struct error *error)
{
    _cleanup_free_ int *order = malloc((size_t)b->n * sizeof *order);
    int count = minibatches(b->n, b->config->minibatch);
    struct update update = {.lr = b->config->value_lr, .clip = b->config->clip};

    if (!order)
        return error_set(error, ENOMEM, "rl: out of memory");
    for (int epoch = 0; epoch < epochs; epoch++) {
        double loss = 0;

        shuffled(order, b->n, b->objective->seed, b->objective->stage << 32 | b->objective->iteration, 1000 + (uint32_t)epoch);
        for (int i = 0; i < count; i++) {
            int first = minibatch_at(b->n, count, i), n = minibatch_at(b->n, count, i + 1) - first, r;
            struct critic_call call = {.batch = b, .model = trainer->model, .order = order + first, .n = n};

            r = trainer_update(trainer, (enum trainer_part[]) {TRAIN_VALUE}, &update, 1, n, critic_shard, &call,
                               &ret->value_gradient_norm);
            if (r >= 0)
                r = shards_share(trainer->shards, call.sums, sizeof *call.sums);
            if (r < 0)
                return error_set(error, -r, "rl: the critic's update failed: %s", error_text(NULL, r));
            for (int s = 0; s < SHARDS; s++)
                loss += call.sums[s].value_loss / count;
            ret->value_updates++;
        }
        ret->value_loss = loss;
    }
    return 0;
}
