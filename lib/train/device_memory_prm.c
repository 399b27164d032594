/* device_memory_prm.c - the same of a reward model of Qwen-VL: its frozen backbone, the head and the adapters that learn. The dry
 * run is of an episode's last frames, which show the most pictures: a minibatch with early ones among them takes less. */
#include <errno.h>
#include <string.h>

#include "nn/device/mirror.h"
#include "nn/models/qwen_vl_internal.h"
#include "train/device_memory_internal.h"
#include "train/device_sums.h"
#include "train/passes.h"
#include "train/reward_items.h"
#include "train/trainer_device.h"

/* As long as LIBERO's longest. */
#define INSTRUCTION "put the white mug on the plate and put the chocolate pudding to the right of the plate"

enum { DIMS = 7 };

/* Frames that go through one pass, of an episode each, or neighbours of one. */
struct shown {
    struct qwen_item *items;
    struct qwen_prompts *prompts; int episodes;
    uint32_t *at;
    uint8_t *frames;
    float *action;
};

static void shown_release(struct shown *s)
{
    for (int i = 0; s->prompts && i < s->episodes; i++)
        qwen_prompts_release(&s->prompts[i]);
    free(s->prompts);
    free(s->items);
    free(s->at);
    free(s->frames);
    free(s->action);
}

static int show(const struct qwen_vl *model, const struct device_job *job, int n, bool apart, struct shown *ret)
{
    int past = model->history + 1, frames = past + (apart ? 1 : n), episodes = apart ? n : 1, each = apart ? 1 : n, r = 0;
    size_t picture = (size_t)job->height * (size_t)job->width * 3;

    ret->episodes = episodes;
    ret->prompts = calloc((size_t)episodes, sizeof *ret->prompts);
    ret->at = calloc((size_t)each, sizeof *ret->at);
    ret->items = calloc((size_t)n, sizeof *ret->items);
    ret->frames = calloc((size_t)(frames * episodes), picture);
    ret->action = calloc((size_t)(frames * DIMS), sizeof *ret->action);
    if (!ret->prompts || !ret->at || !ret->items || !ret->frames || !ret->action)
        return -ENOMEM;
    for (int i = 0; i < frames * DIMS; i++)
        ret->action[i] = i % 2 ? -.25f : .25f;
    for (int i = 0; i < each; i++)
        ret->at[i] = (uint32_t)(past + i);
    for (int i = 0; i < episodes && r >= 0; i++) {
        struct qwen_episode episode = {
            .instruction = job->instruction ? job->instruction : INSTRUCTION, .n = frames, .height = job->height,
            .frames = ret->frames + (size_t)(i * frames) * picture, .width = job->width, .action = ret->action, .dims = DIMS,
        };

        r = qwen_prompts_make(model, &episode, ret->at, each, &ret->prompts[i], NULL);
        if (r >= 0)
            memcpy(ret->items + i * each, ret->prompts[i].items, (size_t)each * sizeof *ret->items);
    }
    return r;
}

/* As prm_shard, backbone_chunk and qwen_vl_score go. */
static int judge(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n)
{
    struct qwen_pass pass;
    struct tensor *logit;

    return model->config.reward_width ? reward_items_logits(model, tape, items, n, &logit)
                                      : qwen_vl_forward(model, tape, items, n, &pass);
}

static int add_pass(const struct qwen_vl *model, const struct device_job *job, int n, bool learns, bool recompute,
                    struct device_need *need, int64_t *scratch)
{
    const struct qwen_vl_config *c = &model->config;
    _cleanup_(shown_release) struct shown shown = {0};
    struct tape tape;
    int64_t bytes = 0;
    int patches, r = show(model, job, n, learns, &shown);

    if (r < 0)
        return r;
    r = plan_tape(&tape, learns, job->half);
    tape.recompute = recompute && learns;
    if (r >= 0)
        r = judge(model, &tape, shown.items, n);
    if (r >= 0)
        r = tape.error;
    if (r >= 0)
        need->activations = MAX(need->activations, plan_tape_bytes(&tape));
    tape_release(&tape);
    if (r < 0 || !job->dnn || !job->half || job->strict)
        return r;
    patches = shown.items[0].pictures[0].height / c->vision.patch * (shown.items[0].pictures[0].width / c->vision.patch);
    bytes = plan_attention(n, c->heads, c->heads / c->kv_heads, c->head_dim, shown.items[0].n_ids, learns && model->adapters);
    *scratch = MAX(*scratch, bytes);
    bytes = plan_attention((int64_t)n * shown.items[0].n_pictures, c->vision.heads, 1, c->vision.dim / c->vision.heads, patches,
                           learns && model->adapters);
    *scratch = MAX(*scratch, bytes);
    return 0;
}

/* Numbers that learn: the head's, and the adapters' that are there, or will be. */
static int64_t trained_of(const struct qwen_vl *model, const struct device_job *job, int64_t *ret_more)
{
    int64_t trained = 0;

    *ret_more = 0;
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i];
        int64_t out = p->dim[0], in = out ? p->numel / out : 0;

        if (p->adapter || i >= model->w->reward_begin)
            trained += p->numel;
        else if (job->use == MEMORY_LORA && !model->adapters && p->linear && p != model->w->lm_head)
            *ret_more += job->lora_r * (in + out);
    }
    return trained + *ret_more;
}

int memory_need_device_prm(const struct qwen_vl *model, const struct device_job *job, struct device_need *ret)
{
    struct device_need need = {.together = 1};
    bool training = job->use != MEMORY_ACT;
    int ranks = MAX(job->ranks, 1), r;
    int64_t numel = 0, scratch = 0, more, trained = trained_of(model, job, &more);

    if (job->batch < 1 || SHARDS % ranks || job->height < 1 || job->width < 1)
        return -EINVAL;
    for (int i = 0; i < model->params.count; i++)
        numel += model->params.list[i]->numel;
    need.recompute = training && numel >= OPENVLA_LARGE;        /* as new_trainer has it */
    need.weights = (int64_t)mirror_bytes(&model->params, job->half) + more * (job->half ? 6 : 4);
    if (training) {
        need.optimiser = (int64_t)trainer_device_bytes(trained, false);
        need.gradients = (int64_t)device_sums_bytes(model->params.numel + more, SHARDS / ranks, ranks, job->strict);
    }
    r = add_pass(model, job, training ? PASS_CHUNK : MIN(job->batch, QWEN_SCORES_THERE), false, false, &need, &scratch);
    if (r >= 0 && training)
        r = add_pass(model, job, (job->batch + SHARDS - 1) / SHARDS, true, need.recompute, &need, &scratch);
    if (r < 0)
        return r;
    need.workspace = DEVICE_STAGING + (job->blas ? DEVICE_WORKSPACE : 0) + scratch;
    need.total = need.weights + need.gradients + need.optimiser + need.workspace + need.activations;
    *ret = need;
    return 0;
}
