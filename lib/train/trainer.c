#include "train/trainer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "train/trainer_device.h"

static enum trainer_part part_of(const struct param *param)
{
    if (!strncmp(param->name, "value_head.", 11))
        return TRAIN_VALUE;
    if (!strncmp(param->name, "reward_head.", 12))
        return TRAIN_REWARD;
    return TRAIN_TRUNK;
}

static int find_part(const struct params *params, enum trainer_part which, struct part *part)
{
    struct adamw_range *ranges = calloc((size_t)MAX(params->count, 1), sizeof *ranges);
    int n = 0, r;

    if (!ranges)
        return -ENOMEM;
    for (int i = 0; i < params->count; i++) {
        const struct param *p = params->list[i];

        if (part_of(p) == which && !p->frozen)
            ranges[n++] = (struct adamw_range) {.begin = p->offset, .end = p->offset + p->numel, .lr_scale = 1};
    }
    part->ranges = ranges;
    part->n = n;
    if (!n)
        return 0;
    part->begin = ranges[0].begin;
    part->end = ranges[n - 1].end;      /* registration order is arena order */
    r = adamw_init(&part->adamw, part->end - part->begin);
    return r;
}

static int new_trainer(struct params *params, int threads, const struct group *group, struct trainer **ret)
{
    _cleanup_(trainer_freep) struct trainer *t = calloc(1, sizeof *t);
    int64_t numel = 0;
    int r;

    if (!t)
        return -ENOMEM;
    t->params = params;
    params_use_process_device(params);
    if (!params->device)
        t->grad = calloc((size_t)params->numel, sizeof *t->grad);
    if (!t->grad && !params->device)
        return -ENOMEM;
    r = shards_new(params->numel, threads, group, &t->shards);
    for (int i = 0; i < TRAIN_PARTS && r >= 0; i++)
        r = find_part(params, (enum trainer_part)i, &t->parts[i]);
    if (r >= 0) {
        shards_compute_with(t->shards, params);
        r = params_pack(params, true);
    }
    if (r >= 0 && params->device)
        r = trainer_device_new(t, &t->there);
    if (r < 0)
        return r;
    for (int i = 0; i < params->count; i++)
        numel += params->list[i]->numel;
    shards_recompute(t->shards, numel >= OPENVLA_LARGE);
    *ret = TAKE_PTR(t);
    return 0;
}

int trainer_new(struct openvla *model, int threads, const struct group *group, struct trainer **ret)
{
    int r = new_trainer(&model->params, threads, group, ret);

    if (r >= 0)
        (*ret)->model = model;
    return r;
}

int trainer_new_reward(struct qwen_vl *reward, int threads, const struct group *group, struct trainer **ret)
{
    int r;

    for (int i = 0; i < reward->params.count; i++) {
        struct param *p = reward->params.list[i];

        p->frozen = part_of(p) == TRAIN_TRUNK && !p->adapter;
    }
    r = new_trainer(&reward->params, threads, group, ret);
    if (r >= 0)
        (*ret)->reward = reward;
    return r;
}

struct trainer *trainer_free(struct trainer *t)
{
    if (!t)
        return NULL;
    for (int i = 0; i < TRAIN_PARTS; i++) {
        adamw_release(&t->parts[i].adamw);
        free(t->parts[i].ranges);
    }
    trainer_device_free(t->there);
    shards_free(t->shards);
    openvla_free(t->model);
    qwen_vl_free(t->reward);
    free(t->grad);
    free(t->masters);
    free(t);
    return NULL;
}

/* The values that passes see: the masters, rounded. */
static void round_masters(struct trainer *t)
{
    const struct part *trunk = &t->parts[TRAIN_TRUNK];

    for (int i = 0; i < trunk->n; i++)
        for (int64_t k = trunk->ranges[i].begin; k < trunk->ranges[i].end; k++) {
            uint16_t half = float_to_bf16(t->masters[k - trunk->begin]);

            cpu_kernels()->widen(t->params->values + k, &half, 1);
        }
}

int trainer_use_bf16(struct trainer *t)
{
    const struct part *trunk = &t->parts[TRAIN_TRUNK];

    if (t->masters || !trunk->n || (t->model && t->model->lora) || t->reward)
        return 0;
    t->masters = malloc((size_t)(trunk->end - trunk->begin) * sizeof *t->masters);
    if (!t->masters)
        return -ENOMEM;
    memcpy(t->masters, t->params->values + trunk->begin, (size_t)(trunk->end - trunk->begin) * sizeof *t->masters);
    round_masters(t);
    for (int i = 0; i < trunk->n; i++)
        for (int64_t k = trunk->ranges[i].begin; k < trunk->ranges[i].end; k++)
            if (t->params->values[k] != t->masters[k - trunk->begin])
                return -EDOM;
    return 0;
}

int trainer_masters_moved(struct trainer *t)
{
    trainer_device_renew(t->there, false, true);
    round_masters(t);
    return params_pack(t->params, true);
}

int trainer_fetch(struct trainer *t) { return t->there ? trainer_device_fetch(t->there, t) : 0; }

void trainer_reset(struct trainer *t)
{
    trainer_device_renew(t->there, true, false);
    for (int i = 0; i < TRAIN_PARTS; i++) {
        struct part *part = &t->parts[i];
        size_t bytes = (size_t)(part->end - part->begin) * sizeof(float);

        if (!part->n)
            continue;
        memset(part->adamw.m, 0, bytes);
        memset(part->adamw.v, 0, bytes);
        part->adamw.step = 0;
    }
    t->returns = (struct running) {0};
    t->skipped = 0;
}

/* The part's ranges counted from its own first float, with this update's decay. */
static void shifted_ranges(const struct part *part, double weight_decay, struct adamw_range *ret)
{
    for (int i = 0; i < part->n; i++)
        ret[i] = (struct adamw_range) {.begin = part->ranges[i].begin - part->begin, .end = part->ranges[i].end - part->begin,
                                       .lr_scale = 1, .weight_decay = weight_decay};
}

/* What the update is for this part: its gradient's factor, learning rate and betas, and its decay. */
float trainer_set_update(struct trainer *t, struct part *part, const struct update *update, double norm, double *ret_decay)
{
    bool adapters = t->reward ? t->reward->adapters != NULL : t->model->lora != NULL;

    /* adapters are not decayed: B = 0 is the base, not something to be drawn to */
    *ret_decay = adapters && part == &t->parts[TRAIN_TRUNK] ? 0 : update->weight_decay;
    part->adamw.lr = update->lr;
    part->adamw.beta2 = update->beta2 > 0 ? update->beta2 : .999;
    return update->clip > 0 && norm > update->clip ? (float)(update->clip / (norm + 1e-6)) : 1;
}

static int apply(struct trainer *t, struct part *part, const struct update *update, double norm)
{
    _cleanup_free_ struct adamw_range *ranges = calloc((size_t)part->n, sizeof *ranges);
    bool masters = t->masters && part == &t->parts[TRAIN_TRUNK];
    double decay;
    float scale;

    if (!ranges)
        return -ENOMEM;
    scale = trainer_set_update(t, part, update, norm, &decay);
    shifted_ranges(part, decay, ranges);
    adamw_step(&part->adamw, masters ? t->masters : t->params->values + part->begin, t->grad + part->begin, scale, ranges,
               part->n);
    if (masters)
        round_masters(t);
    return 0;
}

int trainer_update(struct trainer *t, const enum trainer_part *parts, const struct update *update, int n_parts, int samples,
                   shard_fn *fn, void *arg, double *ret_norm)
{
    _cleanup_free_ struct adamw_range *ranges = calloc((size_t)MAX(t->params->count, 1), sizeof *ranges);
    bool finite = true;
    int n = 0, r;

    if (!ranges)
        return -ENOMEM;
    for (int i = 0; i < n_parts; i++) {
        const struct part *part = &t->parts[parts[i]];

        if (!part->n)
            return -ENOENT;
        memcpy(ranges + n, part->ranges, (size_t)part->n * sizeof *ranges);
        n += part->n;
    }
    if (t->there)
        return trainer_device_update(t->there, t, ranges, n, parts, update, n_parts, samples, fn, arg, ret_norm);
    r = shards_gradient(t->shards, ranges, n, samples, fn, arg, t->grad);
    if (r < 0)
        return r;
    for (int i = 0; i < n_parts; i++) {
        ret_norm[i] = gradient_norm(t->grad, t->parts[parts[i]].ranges, t->parts[parts[i]].n);
        finite = finite && isfinite(ret_norm[i]);
    }
    if (!finite) {
        t->skipped++;
        return 0;
    }
    for (int i = 0; i < n_parts && r >= 0; i++) {
        struct part *part = &t->parts[parts[i]];

        r = apply(t, part, &update[i], ret_norm[i]);
        if (r >= 0)
            r = params_pack_span(t->params, true, part->begin, part->end);
    }
    return r;
}

double lr_cosine(double lr, double end, int64_t step, int64_t warmup, int64_t steps)
{
    double along;

    if (step < warmup)
        return lr * (double)(step + 1) / (double)warmup;
    if (end >= 1 || steps <= warmup)
        return lr;
    along = MIN(1, (double)(step - warmup) / (double)(steps - warmup));
    return lr * (end + (1 - end) * (1 + cos(M_PI * along)) / 2);
}
