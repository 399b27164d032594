#include "train/ppo_batch.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    b->value_old = calloc(n, sizeof *b->value_old);
    b->cut = calloc((size_t)MAX(b->data->n, 1), sizeof *b->cut);
    b->bootstrap = calloc((size_t)MAX(b->data->n, 1), sizeof *b->bootstrap);
    b->first = calloc((size_t)b->data->n + 1, sizeof *b->first);
    if (!b->hidden || !b->extra || !b->gap || !b->actions || !b->logp_old || !b->importance || !b->values || !b->advantage ||
        !b->returns || !b->target || !b->value_old || !b->cut || !b->bootstrap || !b->first)
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
    free(b->value_old);
    free(b->cut);
    free(b->bootstrap);
    free(b->ref_logp);
    free(b->ref_log_probs);
    free(b);
    return NULL;
}

void ppo_batch_extra(const struct ppo_batch *b, struct step_ref at, float *ret_extra)
{
    const struct train_episode *episode = &b->data->list[at.episode];

    if (b->config->critic_time)
        *ret_extra++ = (float)at.step / (float)episode->max_steps;
    if (b->config->critic_prm)
        *ret_extra = PROGRESS_SCALE * episode->progress[at.step];
}

static int fill_extra(struct ppo_batch *b, struct error *error)
{
    for (int i = 0; i < b->n; i++) {
        const struct train_episode *episode = &b->data->list[b->steps[i].episode];

        if (b->config->critic_prm && !episode->progress)
            return error_set(error, EINVAL,
                             "episode %" PRIu64 " has no progress scores, and the critic wants them (rl.critic_prm); "
                             "run a prm stage before, or set critic_prm: false", episode->id);
        ppo_batch_extra(b, b->steps[i], b->extra + i * b->n_extra);
    }
    return 0;
}

int ppo_batch_new(const struct dataset *data, const struct rl_config *config, const struct objective *objective,
                  struct ppo_batch **ret, struct error *error)
{
    _cleanup_(ppo_batch_freep) struct ppo_batch *b = calloc(1, sizeof *b);

    if (!b)
        return error_set(error, ENOMEM, "out of memory");
    *b = (struct ppo_batch) {.data = data, .config = config, .objective = objective};
    b->critic = rl_has_critic(config);
    b->n_extra = rl_critic_inputs(config);
    for (int i = 0; i < data->n; i++)
        if (data->list[i].demo || fabs(data->list[i].temperature - config->temperature) > 1e-6)
            return error_set(error, EINVAL, "episode %" PRIu64 " was not sampled by the policy at temperature %g",
                             data->list[i].id, config->temperature);
    if (data->model->config.oft.kind == OFT_L1)
        return error_set(error, EINVAL, "a head of kind l1 has no probabilities; `gantry model oft --kind laplace` adds them");
    b->by_token = config->ratio == RATIO_TOKEN || data->width > data->token_dims;
    b->ratios = b->by_token ? data->width : 1;
    if (dataset_decisions(data, &b->steps, &b->n) < 0 || allocate(b) < 0)
        return error_set(error, ENOMEM, "out of memory for %d episodes", data->n);
    if (!b->n)
        return error_set(error, EINVAL, "the iteration has no steps to train on");
    for (int e = 0; e < data->n; e++) {
        const struct train_episode *episode = &data->list[e];

        b->first[e + 1] = b->first[e] + dataset_decision_count(episode);
        b->cut[e] = b->critic && config->timeout == TIMEOUT_BOOTSTRAP && !episode->success &&
            episode->steps >= episode->max_steps;
    }
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
