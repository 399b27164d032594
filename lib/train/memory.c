#include "train/memory.h"

#include <errno.h>

#include "nn/cpu/kernels.h"
#include "nn/models/openvla_internal.h"
#include "train/shards.h"

enum { PROMPT_GUESS = 35 };         /* ids of an instruction with the real vocabulary: LIBERO's longest */

/* As openvla_load_halves keeps them. */
static bool stays_bf16(const struct openvla *model, const struct param *p, int i)
{
    return model->params.numel >= OPENVLA_LARGE && i < model->w->trunk && model->w->layout[i].dtype == DTYPE_BF16 && p->ndim >= 2 &&
           (p->linear || p->frozen || p == model->w->embedding);
}

static void add_weights(const struct openvla *model, enum memory_use use, int lora_r, struct memory_need *need)
{
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i];
        bool bf16 = use != MEMORY_FULL && stays_bf16(model, p, i);
        int64_t out = p->dim[0], in = out ? p->numel / out : 0;

        need->weights += p->numel * (int64_t)(bf16 ? sizeof(uint16_t) : sizeof(float));
        if (p->linear && !bf16) {
            need->packs += in * gemm_padded(out) * (int64_t)sizeof(float);
            need->packs += use != MEMORY_ACT ? out * gemm_padded(in) * (int64_t)sizeof(float) : 0;
        }
        if (use == MEMORY_FULL && !p->frozen)
            need->trained += p->numel;
        if (use == MEMORY_LORA && p->linear && !p->frozen && p != model->w->lm_head)
            need->trained += lora_r * (in + out);
    }
    if (use == MEMORY_LORA) {
        need->weights += need->trained * (int64_t)sizeof(float);
        need->packs += 2 * need->trained * (int64_t)sizeof(float);
    }
    if (use != MEMORY_ACT) {
        need->gradients = (SHARDS + 1) * need->trained * (int64_t)sizeof(float);
        need->optimiser = 2 * need->trained * (int64_t)sizeof(float);
    }
}

/* A dry run of one pass over n sequences. */
static int dry_run(const struct openvla *model, bool training, int n, int64_t *ret)
{
    const struct openvla_config *c = &model->config;
    _cleanup_free_ uint8_t *image = calloc((size_t)c->image_height * (size_t)c->image_width, 3);
    _cleanup_free_ struct openvla_item *items = calloc((size_t)n, sizeof(*items));
    int32_t ids[PROMPT_GUESS] = {0};
    struct openvla_pass pass;
    struct tape tape;
    int r;

    if (!image || !items)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        items[i] = (struct openvla_item) {.images = {image}, .n_images = 1, .prompt = ids, .n_prompt = PROMPT_GUESS,
                                          .actions = ids, .n_actions = training ? c->action_dims : 0};
    tape_init(&tape, training);
    tape.recycle = training;
    tape_plan(&tape);
    r = openvla_forward_tail(model, &tape, items, n, &pass);
    if (r >= 0)
        (void)openvla_logits(model, &tape, pass.hidden, !training);
    r = r < 0 ? r : tape.error;
    if (r >= 0)
        *ret = (int64_t)(MAX(tape.planned, tape.peak) + tape.scratch);
    tape_release(&tape);
    return r;
}

int memory_need(const struct openvla *model, enum memory_use use, int batch, int threads, int lora_r, struct memory_need *ret)
{
    const struct openvla_config *c = &model->config;
    struct memory_need need = {0};
    int shard = (batch + SHARDS - 1) / SHARDS, at_once = MIN(threads, MIN(batch, SHARDS)), r;

    if (batch < 1 || threads < 1)
        return -EINVAL;
    add_weights(model, use, lora_r, &need);
    r = dry_run(model, use != MEMORY_ACT, use == MEMORY_ACT ? batch : shard, &need.activations);
    if (r < 0)
        return r;
    if (use == MEMORY_ACT)
        need.cache = 2LL * c->layers * batch * (c->patches + PROMPT_GUESS + c->action_dims) * c->hidden * (int64_t)sizeof(float);
    else
        need.activations *= at_once;
    need.total = need.weights + need.packs + need.cache + need.activations + need.gradients + need.optimiser;
    *ret = need;
    return 0;
}
