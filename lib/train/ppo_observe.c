/* ppo_observe.c - what the policy said of the steps before the update, and the numerical contract: actor and learner agree.
 *
 * A step played by the version that is now trained on needs no pass of its own: log-probabilities and the hidden state that the
 * critic reads were computed by the actor from the same weights, to the same bit, and came with the trajectory. That this is so
 * is measured where it costs nothing: the first minibatch of the update runs the policy before any weight has moved. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/losses.h"
#include "train/ppo_batch.h"

enum { VALUE_CHUNK = 256 };

static const struct train_episode *episode_of(const struct ppo_batch *b, int i)
{
    return &b->data->list[b->steps[i].episode];
}

static bool is_fresh(const struct ppo_batch *b, int i)
{
    return episode_of(b, i)->policy_version == b->objective->version;
}

static bool is_known(const struct ppo_batch *b, int i)
{
    return is_fresh(b, i) && (!b->critic || episode_of(b, i)->hidden);
}

static double action_logp(const float *logp, int dims)
{
    double sum = 0;

    for (int k = 0; k < dims; k++)
        sum += (double)logp[k];
    return sum;
}

static const float *acted_logp(const struct ppo_batch *b, int i)
{
    return episode_of(b, i)->logp + b->steps[i].step * b->data->token_dims;
}

/* Log-probs per token as the ratios see them: summed over the action, or one by one. */
static void put_logp(struct ppo_batch *b, int i, const float *logp)
{
    double *to = b->logp_old + i * b->ratios;
    int tokens = b->actions[i] * b->data->token_dims;

    if (!b->by_token)
        *to = action_logp(logp, tokens);
    for (int k = 0; k < tokens && b->by_token; k++)
        to[k] = (double)logp[k];
}

/* As the actor said it. */
static void take_recorded(struct ppo_batch *b, int i)
{
    size_t width = (size_t)b->data->model->config.hidden;

    put_logp(b, i, acted_logp(b, i));
    for (int k = 0; k < b->ratios; k++)
        b->importance[i * b->ratios + k] = 1;
    if (b->critic && episode_of(b, i)->hidden)
        memcpy(b->hidden + (size_t)i * width, episode_of(b, i)->hidden + (size_t)(i - b->first[b->steps[i].episode]) * width,
               width * sizeof *b->hidden);
}

/* As the learner says it. The log-probs of a fresh step stay those that were recorded. */
static void take_asked(struct ppo_batch *b, int i, const float *logp, const float *hidden)
{
    size_t width = (size_t)b->data->model->config.hidden;
    const float *acted = acted_logp(b, i);
    int tokens = b->actions[i] * b->data->token_dims;

    memcpy(b->hidden + (size_t)i * width, hidden, width * sizeof *hidden);
    if (is_fresh(b, i))
        return;
    put_logp(b, i, logp);
    if (!b->by_token)
        b->importance[i] = staleness_weight(b->logp_old[i], action_logp(acted, tokens));
    for (int k = 0; k < tokens && b->by_token; k++)
        b->importance[i * b->ratios + k] = staleness_weight((double)logp[k], (double)acted[k]);
}

/* One pass of the policy over the steps which[n]. */
static int ask_policy(struct ppo_batch *b, struct trainer *trainer, const int *which, int n)
{
    size_t dims = (size_t)b->data->width, width = (size_t)b->data->model->config.hidden, room = (size_t)MAX(n, 1);
    _cleanup_free_ struct step_ref *steps = malloc(room * sizeof *steps);
    _cleanup_free_ float *logp = malloc(room * dims * sizeof *logp), *hidden = malloc(room * width * sizeof *hidden);
    struct policy_pass out = {.hidden = hidden, .logp = logp};
    int r;

    if (!steps || !logp || !hidden)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        steps[i] = b->steps[which[i]];
    r = pass_policy(trainer->model, trainer->shards, b->data, steps, n, b->config->temperature, &out);
    if (r < 0)
        return r;
    for (int i = 0; i < n; i++)
        take_asked(b, which[i], logp + (size_t)i * dims, hidden + (size_t)i * width);
    ppo_batch_compare(b, which, n, logp);
    return 0;
}

static int observe_policy(struct ppo_batch *b, struct trainer *trainer, bool compare)
{
    _cleanup_free_ int *which = malloc((size_t)b->n * sizeof *which);
    int n = 0, extra = compare ? b->config->minibatch : 0;

    if (!which)
        return -ENOMEM;
    for (int i = 0; i < b->n; i++) {
        if (is_fresh(b, i))
            take_recorded(b, i);
        if (!is_known(b, i) || extra-- > 0)
            which[n++] = i;
    }
    return n ? ask_policy(b, trainer, which, n) : 0;
}

/* ---- the critic's values ------------------------------------------------------------------------------- */

struct value_call {             /* values of n hidden states, in reward units */
    const struct ppo_batch *batch;
    struct trainer *trainer;
    const float *hidden, *extra;
    double *values;
};

static int value_chunk(struct tape *tape, _unused_ int shard, int first, int last, void *arg)
{
    struct value_call *call = arg;
    const struct openvla *model = call->trainer->model;
    int width = model->config.hidden, n_extra = call->batch->n_extra;
    struct tensor *rows = tape_input(tape, call->hidden + (size_t)first * (size_t)width, last - first, width);
    struct tensor *value = openvla_value(model, tape, rows, n_extra ? call->extra + first * n_extra : NULL, false);
    double mean = call->trainer->returns.mean, std = running_std(&call->trainer->returns);
    const float *values;

    if (!value)
        return tape->error ? tape->error : -ENOMEM;
    values = tape_values(tape, value);
    if (!values)
        return tape->error;
    for (int i = first; i < last; i++)
        call->values[i] = (double)values[i - first] * std + mean;
    return 0;
}

/* V(o_T) of the episodes that were cut off: the last picture, at which nobody acted, is shown to the policy for its value. */
static int observe_ends(struct ppo_batch *b, struct trainer *trainer)
{
    size_t room = (size_t)MAX(b->data->n, 1), width = (size_t)b->data->model->config.hidden;
    _cleanup_free_ struct step_ref *ends = malloc(room * sizeof *ends);
    _cleanup_free_ float *hidden = malloc(room * width * sizeof *hidden);
    _cleanup_free_ float *extra = calloc(room * (size_t)(b->n_extra + 1), sizeof *extra);
    _cleanup_free_ double *values = calloc(room, sizeof *values);
    struct policy_pass out = {.hidden = hidden};
    struct value_call call = {b, trainer, hidden, extra, values};
    int n = 0, r;

    if (!ends || !hidden || !extra || !values)
        return -ENOMEM;
    for (int e = 0; e < b->data->n; e++)
        if (b->cut[e]) {
            ends[n] = (struct step_ref) {e, b->data->list[e].steps};
            ppo_batch_extra(b, ends[n], extra + n * b->n_extra);
            n++;
        }
    if (!n)
        return 0;
    r = pass_policy(trainer->model, trainer->shards, b->data, ends, n, b->config->temperature, &out);
    if (r >= 0)
        r = shards_infer(trainer->shards, n, VALUE_CHUNK, value_chunk, &call);
    for (int i = 0; i < n && r >= 0; i++)
        b->bootstrap[ends[i].episode] = values[i];
    return r;
}

int ppo_batch_observe(struct ppo_batch *b, struct trainer *trainer, bool compare, struct error *error)
{
    struct value_call call = {b, trainer, b->hidden, b->extra, b->values};
    int r = observe_policy(b, trainer, compare);

    if (r >= 0 && b->critic)
        r = shards_infer(trainer->shards, b->n, VALUE_CHUNK, value_chunk, &call);
    if (r >= 0 && b->critic)
        r = observe_ends(b, trainer);
    return r < 0 ? error_set(error, -r, "the policy's pass over %d steps failed: %s", b->n, error_text(NULL, r)) : 0;
}

/* ---- actor and learner ----------------------------------------------------------------------------------- */

void ppo_batch_compare(struct ppo_batch *b, const int *which, int n, const float *logp)
{
    int width = b->data->width;

    for (int i = 0; i < n; i++) {
        const float *acted = acted_logp(b, which[i]);
        int tokens = b->actions[which[i]] * b->data->token_dims;

        for (int k = 0; k < tokens && is_fresh(b, which[i]); k++)
            b->gap[b->n_gap++] = fabsf(acted[k] - logp[i * width + k]);
    }
}

static int compare_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

void ppo_batch_gap(const struct ppo_batch *b, struct ppo_result *ret)
{
    double sum = 0;

    ret->logp_gap_tokens = b->n_gap;
    if (!b->n_gap)
        return;
    qsort(b->gap, (size_t)b->n_gap, sizeof *b->gap, compare_float);
    for (int i = 0; i < b->n_gap; i++)
        sum += (double)b->gap[i];
    ret->logp_gap_mean = sum / b->n_gap;
    ret->logp_gap_p99 = (double)b->gap[(int)(.99 * (b->n_gap - 1))];
    ret->logp_gap_max = (double)b->gap[b->n_gap - 1];
}
