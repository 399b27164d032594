#include "train/memory.h"

#include <errno.h>
#include <limits.h>

#include "nn/cpu/kernels.h"
#include "nn/adapters.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"
#include "nn/models/qwen_vl_internal.h"
#include "train/shards.h"

enum { PROMPT_GUESS = 35 };         /* ids of an instruction with the real vocabulary: LIBERO's longest */

enum { PICTURE_TOKENS = 64, PICTURE_SIDE_IN_GROUPS = 8 };      /* Qwen: one picture of 224 pixels with the real patches */

/* What the two models have in common. */
struct shapes {
    const struct params *params;
    const struct param *lm_head;
    bool (*stays_bf16)(const void *model, int i);       /* parameter i is left as it lies in the file */
    int (*dry_run)(const void *model, struct tape *tape, int n);
    int chunk;                                          /* sequences that a server takes through the model at once */
    const void *model;
};

static void add_weights(const struct shapes *s, enum memory_use use, int lora_r, struct memory_need *need)
{
    int64_t adapters = 0;

    for (int i = 0; i < s->params->count; i++) {
        const struct param *p = s->params->list[i];
        bool bf16 = use != MEMORY_FULL && s->stays_bf16 && s->stays_bf16(s->model, i);
        int64_t out = p->dim[0], in = out ? p->numel / out : 0;

        need->weights += p->numel * (int64_t)(bf16 ? sizeof(uint16_t) : sizeof(float));
        need->mapped += bf16 ? p->numel * (int64_t)sizeof(uint16_t) : 0;
        if (p->linear && !bf16) {
            need->packs += in * gemm_padded(out) * (int64_t)sizeof(float);
            need->packs += use != MEMORY_ACT ? out * gemm_padded(in) * (int64_t)sizeof(float) : 0;
        }
        if (!p->frozen && (use == MEMORY_FULL || (use == MEMORY_LORA && adapters_leave_whole(p))))
            need->trained += p->numel;
        else if (use == MEMORY_LORA && p->linear && !p->frozen && p != s->lm_head)
            adapters += lora_r * (in + out);
    }
    need->trained += adapters;
    need->weights += adapters * (int64_t)sizeof(float);
    need->packs += 2 * adapters * (int64_t)sizeof(float);
    if (use != MEMORY_ACT) {
        need->gradients = (SHARDS + 1) * need->trained * (int64_t)sizeof(float);
        need->optimiser = 2 * need->trained * (int64_t)sizeof(float);
    }
}

static bool is_large(const struct params *params, int64_t from)
{
    int64_t numel = 0;

    for (int i = 0; i < params->count; i++)
        numel += params->list[i]->numel;
    return numel >= from;
}

static int add_activations(const struct shapes *s, enum memory_use use, int batch, int threads, struct memory_need *need)
{
    bool training = use != MEMORY_ACT;
    int at_once = training ? MIN(threads, MIN(batch, SHARDS)) : 1, r;
    int n = training ? (batch + SHARDS - 1) / SHARDS : MIN(batch, s->chunk);
    struct tape tape;

    tape_init(&tape, training);
    tape.recycle = training;
    tape.recompute = training && is_large(s->params, OPENVLA_LARGE);        /* as new_trainer has it */
    tape_plan(&tape);
    r = s->dry_run(s->model, &tape, n);
    r = r < 0 ? r : tape.error;
    if (r >= 0)
        need->activations = at_once * (int64_t)(MAX(tape.planned, tape.peak) + tape.block + tape.scratch);
    tape_release(&tape);
    return r;
}

static int memory(const struct shapes *s, enum memory_use use, int batch, int threads, int lora_r, struct memory_need *need)
{
    if (batch < 1 || threads < 1)
        return -EINVAL;
    add_weights(s, use, lora_r, need);
    return add_activations(s, use, batch, threads, need);
}

static void sum_up(struct memory_need *need)
{
    need->total = need->weights + need->packs + need->cache + need->activations + need->gradients + need->optimiser;
}

/* ---- policies --------------------------------------------------------------------------------------------- */

/* As openvla_load_halves keeps them. */
static bool policy_stays_bf16(const void *of, int i)
{
    const struct openvla *model = of;
    const struct param *p = model->params.list[i];

    return is_large(&model->params, OPENVLA_LARGE) && i < model->w->trunk && model->w->layout[i].dtype == DTYPE_BF16 &&
           p->ndim >= 2 && (p->linear || p->frozen || p == model->w->embedding);
}

/* The arena's floats are those of the others. stays_bf16 NULL: nothing does. */
static void keep_halves(struct params *params, bool (*stays_bf16)(const void *model, int i), const void *model)
{
    int64_t floats = 0;

    for (int i = 0; i < params->count; i++)
        params->list[i]->half = stays_bf16 && stays_bf16(model, i);
    for (int i = 0; i < params->count; i++)
        floats += params->list[i]->half ? 0 : (params->list[i]->numel + 15) / 16 * 16;
    params->numel = floats;
}

void memory_keep_halves(struct openvla *model, bool keep)
{
    keep_halves(&model->params, keep ? policy_stays_bf16 : NULL, model);
}

static struct openvla_item policy_item(const struct openvla_config *c, bool training, const uint8_t *image, const int32_t *ids,
                                       const float *state)
{
    struct openvla_item item = {.images = {image}, .n_images = 1, .prompt = ids, .n_prompt = PROMPT_GUESS};

    if (c->oft.kind == OFT_NONE) {
        item.actions = ids;
        item.n_actions = training ? c->action_dims : 0;
        return item;
    }
    item.n_images = c->oft.images;
    for (int i = 0; i < item.n_images; i++)
        item.images[i] = image;
    item.proprio = c->oft.proprio ? state : NULL;
    item.slots = oft_slots(c);
    return item;
}

static int policy_dry_run(const void *of, struct tape *tape, int n)
{
    const struct openvla *model = of;
    const struct openvla_config *c = &model->config;
    _cleanup_free_ uint8_t *image = calloc((size_t)c->image_height * (size_t)c->image_width, 3);
    _cleanup_free_ struct openvla_item *items = calloc((size_t)n, sizeof(*items));
    int32_t ids[PROMPT_GUESS] = {0};
    float state[OPENVLA_MAX_PROPRIO] = {0};
    struct openvla_pass pass;
    int r;

    if (!image || !items)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        items[i] = policy_item(c, tape->training, image, ids, state);
    r = openvla_forward_tail(model, tape, items, n, &pass);
    if (r >= 0)
        (void)openvla_logits(model, tape, pass.hidden, !tape->training);
    return r;
}

int memory_need(const struct openvla *model, enum memory_use use, int batch, int threads, int lora_r, struct memory_need *ret)
{
    const struct openvla_config *c = &model->config;
    const struct shapes shapes = {&model->params, model->w->lm_head,     policy_stays_bf16,
                                  policy_dry_run, OPENVLA_PREFILL_CHUNK, model};
    struct memory_need need = {0};
    int r = memory(&shapes, use, batch, threads, lora_r, &need);

    if (r < 0)
        return r;
    if (use == MEMORY_ACT)
        need.cache = 2LL * c->layers * batch * (c->patches + PROMPT_GUESS + c->action_dims) * c->hidden * (int64_t)sizeof(float);
    sum_up(&need);
    *ret = need;
    return 0;
}

/* ---- reward models ---------------------------------------------------------------------------------------- */

/* As qwen_vl_load_halves keeps them. */
static bool prm_stays_bf16(const void *of, int i)
{
    const struct qwen_vl *model = of;
    const struct param *p = model->params.list[i];

    return is_large(&model->params, QWEN_LARGE) && i < model->w->reward_begin && model->dtype == DTYPE_BF16 && p->ndim >= 2 &&
           (p->linear || p->frozen || p == model->w->embedding || p == model->w->lm_head);
}

void memory_keep_halves_prm(struct qwen_vl *model) { keep_halves(&model->params, prm_stays_bf16, model); }

static int prm_dry_run(const void *of, struct tape *tape, int n)
{
    const struct qwen_vl *model = of;
    const struct qwen_vl_config *c = &model->config;
    int side = PICTURE_SIDE_IN_GROUPS * c->vision.patch * c->vision.merge;
    _cleanup_free_ uint8_t *image = calloc((size_t)side * (size_t)side, 3);
    _cleanup_free_ struct qwen_item *items = calloc((size_t)n, sizeof(*items));
    int32_t ids[PROMPT_GUESS + PICTURE_TOKENS + 2] = {0};
    struct qwen_pass pass;

    if (!image || !items)
        return -ENOMEM;
    ids[0] = c->vision_start_id;
    for (int i = 1; i <= PICTURE_TOKENS; i++)
        ids[i] = c->image_id;
    ids[PICTURE_TOKENS + 1] = c->vision_end_id;
    for (int i = 0; i < n; i++)
        items[i] = (struct qwen_item) {.ids = ids, .n_ids = ARRAY_SIZE(ids), .n_pictures = 1,
                                       .pictures = {{.rgb = image, .height = side, .width = side}}};
    return qwen_vl_forward(model, tape, items, n, &pass);
}

int memory_need_prm(const struct qwen_vl *model, enum memory_use use, int batch, int threads, int lora_r, struct memory_need *ret)
{
    const struct shapes shapes = {&model->params, model->w->lm_head, prm_stays_bf16, prm_dry_run, INT_MAX, model};
    struct memory_need need = {0};
    int r = memory(&shapes, use, batch, threads, lora_r, &need);

    if (r < 0)
        return r;
    sum_up(&need);
    *ret = need;
    return 0;
}
