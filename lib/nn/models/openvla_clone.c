/* openvla_clone.c - a deep copy of a model: what is trained while the original goes on serving. */
#include <errno.h>

#include "base/strbuf.h"
#include "nn/lora_join.h"
#include "nn/models/openvla_internal.h"
#include "nn/tokenizer.h"

static int copy_params(const struct params *from, struct params *to)
{
    int r;

    to->fast = from->fast;
    for (int i = 0; i < from->count; i++) {
        const struct param *old = from->list[i];
        struct param *param = param_add(to, old->name, old->ndim, old->dim, old->linear);

        if (!param)
            return -ENOMEM;
        param->frozen = old->frozen;
        param->half = old->half;
        param->adapter = old->adapter;
    }
    r = params_allocate(to);
    if (r < 0)
        return r;
    memcpy(to->values, from->values, (size_t)from->numel * sizeof(*from->values));
    for (int i = 0; i < from->count; i++)
        if (from->list[i]->half)
            memcpy(to->list[i]->bf16, from->list[i]->bf16, (size_t)from->list[i]->numel * sizeof(uint16_t));
    return 0;
}

/* An array of parameter pointers, each replaced by its copy. */
static void translate(const struct params *from, const struct params *to, const struct param **at, size_t n)
{
    for (size_t k = 0; k < n; k++)
        for (int i = 0; at[k] && i < from->count; i++)
            if (from->list[i] == at[k]) {
                at[k] = to->list[i];
                break;
            }
}

#define TRANSLATE(array, n) \
    translate(&from->params, &to->params, (const struct param **)(array), (n) * sizeof(*(array)) / sizeof(struct param *))
_Static_assert(sizeof(struct vit_block) % sizeof(struct param *) == 0 && sizeof(struct llama_layer) % sizeof(struct param *) == 0,
               "blocks and layers hold nothing but parameter pointers");

static void *duplicate(const void *bytes, size_t n)
{
    void *copy = malloc(MAX(n, (size_t)1));

    if (copy && n)
        memcpy(copy, bytes, n);
    return copy;
}

static int copy_weights(const struct openvla *from, struct openvla *to)
{
    struct openvla_weights *w = duplicate(from->w, sizeof(*w));

    if (!w)
        return -ENOMEM;
    to->w = w;
    w->init = duplicate(w->init, (size_t)w->trunk * sizeof(*w->init));
    w->layout = duplicate(w->layout, (size_t)w->trunk * sizeof(*w->layout));
    for (int i = 0; i < 2; i++)
        w->vit[i].blocks = duplicate(w->vit[i].blocks, (size_t)from->config.tower[i].depth * sizeof(struct vit_block));
    w->layers = duplicate(w->layers, (size_t)from->config.layers * sizeof(struct llama_layer));
    if (!w->init || !w->layout || !w->vit[0].blocks || !w->vit[1].blocks || !w->layers)
        return -ENOMEM;
    for (int i = 0; i < 2; i++) {
        const struct param **single[] = {&w->vit[i].patch.weight, &w->vit[i].patch.bias, &w->vit[i].position, &w->vit[i].cls,
                                         &w->vit[i].reg};

        for (size_t k = 0; k < ARRAY_SIZE(single); k++)
            translate(&from->params, &to->params, single[k], 1);
        TRANSLATE(w->vit[i].blocks, (size_t)from->config.tower[i].depth);
    }
    TRANSLATE(w->projector, 3);
    TRANSLATE(&w->embedding, 1);
    TRANSLATE(&w->norm, 1);
    TRANSLATE(&w->lm_head, 1);
    TRANSLATE(w->layers, (size_t)from->config.layers);
    TRANSLATE(&w->value, 1);
    TRANSLATE(&w->reward, 1);
    TRANSLATE(&w->oft, 1);
    return 0;
}

static int copy_lora(const struct openvla *from, struct openvla *to)
{
    if (!from->lora)
        return 0;
    to->lora = calloc(1, sizeof(*to->lora));
    if (!to->lora)
        return -ENOMEM;
    to->lora->n = from->lora->n;
    to->lora->was_frozen = duplicate(from->lora->was_frozen, (size_t)from->lora->n * sizeof(bool));
    if (!to->lora->was_frozen)
        return -ENOMEM;
    for (int i = 0; i < from->params.count; i++) {
        to->params.list[i]->lora = from->params.list[i]->lora;
        translate(&from->params, &to->params, &to->params.list[i]->lora.a, 1);
        translate(&from->params, &to->params, &to->params.list[i]->lora.b, 1);
    }
    (void)lora_join_all(&to->params);           /* its own, in place of the pointers to the original's */
    return peft_config_copy(&from->lora->config, &to->lora->config);
}

static int copy_stats(const struct openvla *from, struct openvla *to)
{
    to->stats = calloc((size_t)from->n_stats + 1, sizeof(*to->stats));
    if (!to->stats)
        return -ENOMEM;
    for (int i = 0; i < from->n_stats; i++) {
        to->stats[i] = from->stats[i];
        to->stats[i].key = strdup(from->stats[i].key);
        if (!to->stats[i].key)
            return -ENOMEM;
        to->n_stats++;
    }
    return 0;
}

int openvla_clone(const struct openvla *from, struct openvla **ret)
{
    _cleanup_(openvla_freep) struct openvla *to = calloc(1, sizeof(*to));
    int r;

    if (!to)
        return -ENOMEM;
    to->config = from->config;
    memcpy(to->lut, from->lut, sizeof(to->lut));
    to->dir = strdup(from->dir);
    if (!to->dir)
        return -ENOMEM;
    r = copy_params(&from->params, &to->params);
    if (r >= 0)
        r = copy_weights(from, to);
    if (r >= 0)
        r = copy_lora(from, to);
    if (r >= 0)
        r = copy_stats(from, to);
    if (r >= 0)
        r = hf_files_copy(&from->files, &to->files);
    if (r < 0)
        return r;
    to->tokenizer = tokenizer_ref(from->tokenizer);
    *ret = TAKE_PTR(to);
    return 0;
}
