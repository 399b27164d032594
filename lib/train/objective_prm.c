/* The process reward model: soft-label binary cross-entropy on progress labels, balanced draws, and its training. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "rl/labels.h"
#include "train/objective.h"
#include "train/passes.h"
#include "train/reward_items.h"

/* This share of the draws shows an episode's end: there the verdict is, and look-ahead and the gate ask for it. */
#define LAST_SHARE .25

/* Episodes to draw from, by what they are: [demo][success]; each list is cut by task. */
struct prm_data {
    int *list[2][2]; int n[2][2];       /* indices into the data set, ordered by task */
    int *held; int n_held;              /* episodes no gradient sees */
};

static void prm_data_release(struct prm_data *d)
{
    for (int i = 0; i < 4; i++)
        free(d->list[i / 2][i % 2]);
    free(d->held);
}

/* An initial state is held out as a whole: the same scene must not be on both sides. */
static bool held_out(const struct train_episode *episode, double share, uint64_t seed)
{
    struct philox random = philox_at(seed, PHILOX_SHUFFLE, episode->state_seed, (uint32_t)episode->task, 2);

    return !episode->demo && philox_uniform53(&random) < share;
}

static int split(const struct dataset *data, const struct prm_config *config, uint64_t seed, struct prm_data *ret)
{
    for (int i = 0; i < 4; i++) {
        ret->list[i / 2][i % 2] = malloc((size_t)MAX(data->n, 1) * sizeof(int));
        if (!ret->list[i / 2][i % 2])
            return -ENOMEM;
    }
    ret->held = malloc((size_t)MAX(data->n, 1) * sizeof(int));
    if (!ret->held)
        return -ENOMEM;
    for (int task = 0; task < data->n_tasks; task++)
        for (int i = 0; i < data->n; i++) {
            const struct train_episode *episode = &data->list[i];

            if (episode->task != task)
                continue;
            if (held_out(episode, config->holdout, seed))
                ret->held[ret->n_held++] = i;
            else
                ret->list[episode->demo][episode->success][ret->n[episode->demo][episode->success]++] = i;
        }
    return 0;
}

struct prm_sample { struct step_ref at; float label; };

static int range_of_task(const struct dataset *data, const int *list, int n, int task, int *ret_first)
{
    int first = 0, last;

    while (first < n && data->list[list[first]].task < task)
        first++;
    for (last = first; last < n && data->list[list[last]].task == task; last++)
        ;
    *ret_first = first;
    return last - first;
}

/* One frame: a task, then success or failure with equal chance, then a rollout or (at most demo_fraction) a demonstration. */
static bool draw_sample(const struct dataset *data, const struct prm_data *d, double demo_fraction, struct philox *random,
                        struct prm_sample *ret)
{
    float label[4096];
    int task = (int)philox_below(random, (uint32_t)data->n_tasks), success = philox_u32(random) & 1;
    int demo = philox_uniform53(random) < demo_fraction, first[2], count[2], pick;
    const struct train_episode *episode;

    for (int i = 0; i < 2; i++)
        count[i] = range_of_task(data, d->list[i][success], d->n[i][success], task, &first[i]);
    if (demo && !count[1])
        demo = 0;
    if (!count[0])              /* demonstrations are never a class's only source: draw again */
        return false;
    pick = first[demo] + (int)philox_below(random, (uint32_t)count[demo]);
    episode = &data->list[d->list[demo][success][pick]];
    if (episode->steps + 1 > (int)ARRAY_SIZE(label))
        return false;
    prm_labels(episode->steps + 1, episode->success, label);
    ret->at.episode = d->list[demo][success][pick];
    ret->at.step = (int)philox_below(random, (uint32_t)episode->steps + 1);
    if (philox_uniform53(random) < LAST_SHARE)
        ret->at.step = episode->steps;
    ret->label = label[ret->at.step];
    return true;
}

static bool draw_batch(const struct dataset *data, const struct prm_data *d, double demo_fraction,
                       const struct objective *objective, int64_t step, int batch, struct prm_sample *ret)
{
    struct philox random = philox_at(objective->seed, PHILOX_SHUFFLE, objective->stage << 32 | (uint64_t)step, 3,
                                     (uint32_t)objective->iteration);
    int n = 0;

    for (int tries = 0; n < batch && tries < 100 * batch; tries++)
        n += draw_sample(data, d, demo_fraction, &random, &ret[n]);
    return n == batch;
}

struct prm_call {
    const struct openvla *model;        /* NULL: data->reward */
    const struct dataset *data;
    const struct prm_sample *samples;
    const struct qwen_item *items;      /* [n] of data->reward's minibatch */
    int n;
    double loss[SHARDS];
};

static double entropy_of(double p)
{
    return p <= 0 || p >= 1 ? 0 : -p * log(p) - (1 - p) * log(1 - p);
}

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
    struct tensor *logit;
    double loss = 0;
    int r;

    if (call->items)
        r = reward_items_logits(call->data->reward, tape, call->items + first, n, &logit);
    else
        r = trunk_logits(call, tape, first, n, &logit);
    if (r < 0)
        return r;
    for (int i = 0; i < n; i++) {
        double x = (double)logit->x[i], y = (double)call->samples[first + i].label;

        /* BCE with logits, stable for both signs: max(x,0) - x y + log(1 + e^-|x|) */
        loss += MAX(x, 0) - x * y + log1p(exp(-fabs(x))) - entropy_of(y);
        logit->g[i] = (float)((1 / (1 + exp(-x)) - y) / call->n);
    }
    call->loss[shard] = loss / call->n;
    tape_backward(tape);
    return 0;
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
        r = trainer_update(trainer, parts + frozen, (struct update[]) {*update, *update}, 2 - frozen, batch, prm_shard, &call, norm);
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
        return error_set(error, ENOMEM, "prm: out of memory");
    for (int64_t step = 0; step < config->steps; step++) {
        struct update update = {
            .lr = lr_cosine(config->lr, .1, step, MIN(50, config->steps / 4), config->steps),
            .weight_decay = config->weight_decay, .clip = config->clip, .beta2 = .999,
        };
        double loss;
        int r;

        if (!draw_batch(data, d, config->demo_fraction, objective, step, config->batch, samples))
            return error_set(error, EINVAL, "prm: no minibatch could be drawn from %d successes and %d failures", d->n[0][1],
                             d->n[0][0]);
        r = update_once(trainer, data, samples, config->batch, &update, &loss);
        if (r < 0)
            return error_set(error, -r, "prm: update %" PRId64 " failed: %s", step, error_text(NULL, r));
        result->first_loss = step ? result->first_loss : loss;
        result->last_loss = step ? result->last_loss + (loss - result->last_loss) / (double)MIN(step + 1, 20) : loss;
        result->updates = step + 1;
        if (!train_tell(objective->watch, "prm", step + 1, config->steps, result->last_loss))
            return error_set(error, ECANCELED, "prm: stopped at update %" PRId64, step);
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
             "%s: success against failure on %d held-out episodes: AUC %.2f half-way (wanted %.2f, blind %.2f), "
             "%.2f at the end (wanted %.2f, blind %.2f)",
             result->gate_passed ? "passed" : config->force ? "promoted by force" : "refused", p->episodes,
             p->auc_mid, config->gate_mid, b->auc_mid, p->auc_last, config->gate_last, b->auc_last);
    result->gate_passed = result->gate_passed || config->force;
}

/* What a clock alone would say at the end: score = steps played. */
static int judge_clock(const struct dataset *data, const struct prm_data *d, double *ret)
{
    _cleanup_free_ double *score = malloc((size_t)MAX(d->n_held, 1) * sizeof *score);
    _cleanup_free_ bool *positive = malloc((size_t)MAX(d->n_held, 1) * sizeof *positive);

    if (!score || !positive)
        return -ENOMEM;
    for (int i = 0; i < d->n_held; i++) {
        const struct train_episode *episode = &data->list[d->held[i]];

        score[i] = (double)episode->steps / episode->max_steps;
        positive[i] = episode->success;
    }
    return auc(score, positive, d->n_held, ret);
}

int objective_prm(struct trainer *trainer, const struct dataset *data, const struct prm_config *config,
                  const struct objective *objective, struct prm_result *ret, struct error *error)
{
    _cleanup_(prm_data_release) struct prm_data d = {0};
    _cleanup_free_ uint8_t *blank = malloc(data->frame_size);
    struct prm_result result = {.first_loss = NAN};
    int r;

    if (!blank || split(data, config, objective->seed, &d) < 0)
        return error_set(error, ENOMEM, "prm: out of memory");
    if (!data->n || config->batch < 1)
        return error_set(error, EINVAL, "prm: there are no episodes to learn from; run a rollouts stage first");
    if (!trainer->parts[TRAIN_REWARD].n)
        return error_set(error, EINVAL, "prm: the model has no reward head");
    if (!d.n[0][0] || !d.n[0][1])
        return error_set(error, EINVAL,
                         "prm: rollouts of the policy must both succeed and fail (%d successes, %d failures outside the "
                         "held-out ones); play more, or start from a policy of middling skill", d.n[0][1], d.n[0][0]);
    memset(blank, 127, data->frame_size);
    r = train(trainer, data, &d, config, objective, &result, error);
    if (r < 0)
        return r;
    r = prm_judge(trainer->model, trainer->shards, data, d.held, d.n_held, NULL, &result.prm);
    if (r >= 0)
        r = prm_judge(trainer->model, trainer->shards, data, d.held, d.n_held, blank, &result.blind);
    if (r >= 0)
        r = judge_clock(data, &d, &result.clock_auc_last);
    if (r < 0)
        return error_set(error, -r, "prm: the held-out episodes could not be judged: %s", error_text(NULL, r));
    result.skipped = trainer->skipped;
    gate(config, &result);
    *ret = result;
    return 0;
}
