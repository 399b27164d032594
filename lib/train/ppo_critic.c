/* ppo_critic.c - the value head on what the policy said: its loss, and its training apart from the trunk (value_detach,
 * warm-up). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "train/ppo_batch.h"

struct critic_call {
    struct ppo_batch *batch;
    const struct openvla *model;
    const int *order; int n;
    struct ppo_sums sums[SHARDS];
};

int ppo_value_loss(const struct ppo_batch *b, const struct openvla *model, struct tape *tape, struct tensor *hidden,
                   const int *order, int n, int count, struct ppo_sums *sums)
{
    float *extra = tape_alloc(tape, (size_t)(n * MAX(b->n_extra, 1)) * sizeof *extra);
    double *target = tape_alloc(tape, (size_t)n * sizeof *target), *old = tape_alloc(tape, (size_t)n * sizeof *old),
           *now = tape_alloc(tape, (size_t)n * sizeof *now), *slope = tape_alloc(tape, (size_t)n * sizeof *slope);
    struct value_settings settings = value_settings_of(b->config);
    float *gradient = tape_alloc(tape, (size_t)n * sizeof *gradient);
    struct tensor *value;
    const float *values;

    if (!gradient || !extra || !target || !old || !now || !slope)
        return tape->error;
    for (int i = 0; i < n; i++) {
        memcpy(extra + i * b->n_extra, b->extra + order[i] * b->n_extra, (size_t)b->n_extra * sizeof *extra);
        target[i] = b->target[order[i]];
        old[i] = b->value_old[order[i]];
    }
    value = openvla_value(model, tape, hidden, b->n_extra ? extra : NULL, false);
    if (!value)
        return tape->error ? tape->error : -ENOMEM;
    values = tape_values(tape, value);
    if (!values)
        return tape->error;
    for (int i = 0; i < n; i++)
        now[i] = (double)values[i];
    value_loss(&settings, now, old, target, n, count, slope, sums);
    for (int i = 0; i < n; i++)
        gradient[i] = (float)slope[i];
    return tape_set_gradient(tape, value, gradient);
}

static int critic_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    struct critic_call *call = arg;
    const struct ppo_batch *b = call->batch;
    int n = last - first, r;
    size_t width = (size_t)call->model->config.hidden;
    float *rows = tape_alloc(tape, (size_t)n * width * sizeof *rows);

    if (!rows)
        return tape->error;
    for (int i = 0; i < n; i++)
        memcpy(rows + (size_t)i * width, b->hidden + (size_t)call->order[first + i] * width, width * sizeof *rows);
    call->sums[shard] = (struct ppo_sums) {0};
    r = ppo_value_loss(b, call->model, tape, tape_input(tape, rows, n, (int64_t)width), call->order + first, n, call->n,
                       &call->sums[shard]);
    if (r < 0)
        return r;
    tape_backward(tape);
    return tape->error;
}

int ppo_batch_critic(struct ppo_batch *b, struct trainer *trainer, int epochs, struct ppo_result *ret, struct error *error)
{
    _cleanup_free_ int *order = malloc((size_t)b->n * sizeof *order);
    int count = minibatches(b->n, b->config->minibatch);
    struct update update = {.lr = b->config->value_lr, .clip = b->config->clip};

    if (!order)
        return error_set(error, ENOMEM, "out of memory");
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
                return error_set(error, -r, "the critic's update failed: %s", error_text(NULL, r));
            for (int s = 0; s < SHARDS; s++)
                loss += call.sums[s].value_loss / count;
            ret->value_updates++;
        }
        ret->value_loss = loss;
    }
    return 0;
}
