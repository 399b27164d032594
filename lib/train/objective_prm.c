/* The process reward model: soft-label binary cross-entropy on progress labels, balanced draws, and its training. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/objective.h"
#include "train/passes.h"
#include "train/prm_data.h"
#include "train/reward_items.h"

struct prm_call {
    const struct openvla *model;        /* NULL: data->reward */
    const struct dataset *data;
    const struct prm_sample *samples;
    const struct qwen_item *items;      /* [n] of data->reward's minibatch */
    int n;
    double loss[SHARDS];
};

/* Of the trunk that the policy gave. */
static int trunk_logits(const struct prm_call *call, struct tape *tape, int first, int n, struct tensor **ret_logit)
{
    struct openvla_item *items = tape_alloc(tape, (size_t)n * sizeof *items);
    struct openvla_pass pass;
    int r;

    if (!items)
        return tape->error;
    for (int i = 0; i < n; i++)
        items[i] = dataset_reward_item(call->data, call->samples[first + i].at, NULL);
    r = openvla_forward_tail(call->model, tape, items, n, &pass);
    if (r < 0)
        return r;
    *ret_logit = openvla_reward(call->model, tape, gather_action_rows(tape, &pass, n, 1));
    return *ret_logit ? 0 : tape->error ? tape->error : -ENOMEM;
}

static int prm_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    struct prm_call *call = arg;
    int n = last - first;
    float *gradient = tape_alloc(tape, (size_t)n * sizeof *gradient);
    const float *values;
    struct tensor *logit;
    double loss = 0;
    int r;

    if (!gradient)
        return tape->error;
    if (call->items)
        r = reward_items_logits(call->data->reward, tape, call->items + first, n, &logit);
    else
        r = trunk_logits(call, tape, first, n, &logit);
    if (r < 0)
        return r;
    values = tape_values(tape, logit);
    if (!values)
        return tape->error;
    for (int i = 0; i < n; i++) {
        double x = (double)values[i], y = (double)call->samples[first + i].label;

        /* BCE with logits, stable for both signs: max(x,0) - x y + log(1 + e^-|x|) */
        loss += MAX(x, 0) - x * y + log1p(exp(-fabs(x))) - label_entropy(y);
        gradient[i] = (float)((1 / (1 + exp(-x)) - y) / call->n);
    }
    call->loss[shard] = loss / call->n;
    r = tape_set_gradient(tape, logit, gradient);
    if (r < 0)
        return r;
    tape_backward(tape);
    return tape->error;
}

/* One update on a minibatch; a backbone that is frozen has no trunk to move. *ret_loss: the minibatch's. */
static int update_once(struct trainer *trainer, const struct dataset *data, const struct prm_sample *samples, int batch,
                       const struct update *update, double *ret_loss)
{
    static const enum trainer_part parts[] = {TRAIN_TRUNK, TRAIN_REWARD};
    bool frozen = !trainer->parts[TRAIN_TRUNK].n;
    struct prm_call call = {.model = trainer->model, .data = data, .samples = samples, .n = batch};
    _cleanup_(reward_items_release) struct reward_items items = {0};
    _cleanup_free_ struct step_ref *at = calloc((size_t)batch, sizeof *at);
    double norm[2], loss = 0;
    int r = at ? 0 : -ENOMEM;

    for (int i = 0; i < batch && r >= 0; i++)
        at[i] = samples[i].at;
    if (data->reward && r >= 0)
        r = reward_items_make(data, at, batch, NULL, &items);
    call.items = items.items;
    if (r >= 0)
        r = trainer_update(trainer, parts + frozen, (struct update[]) {*update, *update}, 2 - frozen, batch, prm_shard, &call,
                           norm);
    if (r >= 0)
        r = shards_share(trainer->shards, call.loss, sizeof *call.loss);
    for (int i = 0; i < SHARDS && r >= 0; i++)
        loss += call.loss[i];
    if (r >= 0)
        *ret_loss = loss;
    return r;
}

static int train(struct trainer *trainer, const struct dataset *data, const struct prm_data *d, const struct prm_config *config,
                 const struct objective *objective, struct prm_result *result, struct error *error)
{
    _cleanup_free_ struct prm_sample *samples = malloc((size_t)config->batch * sizeof *samples);

    if (!samples)
        return error_set(error, ENOMEM, "out of memory");
    if (!train_tell(objective->watch, "prm", 0, config->steps, NAN))
        return error_set(error, ECANCELED, "stopped before its first update");
    for (int64_t step = 0; step < config->steps; step++) {
        struct update update = {
            .lr = lr_cosine(config->lr, .1, step, MIN(50, config->steps / 4), config->steps),
            .weight_decay = config->weight_decay, .clip = config->clip, .beta2 = .999,
        };
        double loss;
        int r;

        if (!prm_data_draw(data, d, config, objective, step, samples))
            return error_set(error, EINVAL, "no minibatch could be drawn from %d successes and %d failures", d->n[0][1],
                             d->n[0][0]);
        r = update_once(trainer, data, samples, config->batch, &update, &loss);
        if (r < 0)
            return error_set(error, -r, "update %" PRId64 " failed: %s", step, error_text(NULL, r));
        result->first_loss = step ? result->first_loss : loss;
        result->last_loss = step ? result->last_loss + (loss - result->last_loss) / (double)MIN(step + 1, 20) : loss;
        result->updates = step + 1;
        if (!train_tell(objective->watch, "prm", step + 1, config->steps, result->last_loss))
            return error_set(error, ECANCELED, "stopped at update %" PRId64, step);
    }
    return 0;
}

static void gate(const struct prm_config *config, struct prm_result *result)
{
    const struct prm_judgement *p = &result->prm, *b = &result->blind;
    bool mid = p->auc_mid >= config->gate_mid && p->auc_mid >= b->auc_mid + config->gate_margin;
    bool last = p->auc_last >= config->gate_last && p->auc_last >= b->auc_last + config->gate_margin;

    result->gate_passed = mid && last;
    snprintf(result->gate_text, sizeof result->gate_text,
             "%s: success against failure on %d held-out episodes, %d of them successes: AUC %.2f half-way (wanted %.2f, "
             "blind %.2f), %.2f at the end (wanted %.2f, blind %.2f)",
             result->gate_passed ? "passed" : config->force ? PRM_FORCED : "refused", p->episodes, p->successes,
             p->auc_mid, config->gate_mid, b->auc_mid, p->auc_last, config->gate_last, b->auc_last);
    result->gate_passed = result->gate_passed || config->force;
}

int objective_prm(struct trainer *trainer, const struct dataset *data, const struct prm_config *config,
                  const struct objective *objective, struct prm_result *ret, struct error *error)
{
    _cleanup_(prm_data_release) struct prm_data d = {0};
    _cleanup_free_ uint8_t *blank = malloc(data->frame_size);
    struct prm_result result = {.first_loss = NAN};
    int r;

    if (!blank || prm_data_split(data, config, objective->seed, &d) < 0)
        return error_set(error, ENOMEM, "out of memory");
    if (!data->n || config->batch < 1)
        return error_set(error, EINVAL, "there are no episodes to learn from; run a rollouts stage first");
    if (!trainer->parts[TRAIN_REWARD].n)
        return error_set(error, EINVAL, "the model has no reward head");
    if (!d.n[0][0] || !d.n[0][1])
        return error_set(error, EINVAL,
                         "rollouts of the policy must both succeed and fail (%d successes, %d failures outside the "
                         "held-out ones); in another run.dir, play more or longer, or train sft for a policy of middling skill",
                         d.n[0][1], d.n[0][0]);
    r = prm_data_check(data, config, error);
    if (r < 0)
        return r;
    memset(blank, 127, data->frame_size);
    r = train(trainer, data, &d, config, objective, &result, error);
    if (r < 0)
        return r;
    r = prm_judge(trainer->model, trainer->shards, data, config->labels, d.held, d.n_held, NULL, &result.prm);
    if (r >= 0)
        r = prm_judge(trainer->model, trainer->shards, data, config->labels, d.held, d.n_held, blank, &result.blind);
    if (r >= 0)
        r = prm_judge_clock(data, config->labels, d.held, d.n_held, &result.clock);
    if (r < 0)
        return error_set(error, -r, "the held-out episodes could not be judged: %s", error_text(NULL, r));
    result.skipped = trainer->skipped;
    gate(config, &result);
    *ret = result;
    return 0;
}
