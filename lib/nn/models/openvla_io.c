/* openvla_io.c - a model out of its directory. */
#include <errno.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/base_files.h"
#include "nn/base_link.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_start.h"
#include "nn/reward_config.h"
#include "nn/tokenizer.h"

static struct openvla *model_alloc(const char *dir)
{
    _cleanup_(openvla_freep) struct openvla *model = calloc(1, sizeof(*model));

    if (!model)
        return NULL;
    model->dir = strdup(dir);
    model->w = calloc(1, sizeof(*model->w));
    return model->dir && model->w ? TAKE_PTR(model) : NULL;
}

/* Widen to fp32 what the shards (or a head's file) have for parameters begin..end-1: all there, of the right shape and dtype.
 * finite: they are known to be. */
static int read_values(struct params *params, int begin, int end, const struct hf_shards *shards, bool finite, struct error *error)
{
    for (int i = begin; i < end; i++) {
        const struct st_tensor *tensor = hf_shards_find(shards, params->list[i]->name);
        int r = finite ? 0 : hf_check_finite(shards, tensor, NULL, error);

        if (r < 0)
            return r;
        if (params->list[i]->half && params->list[i]->bf16 != tensor->data)
            memcpy(params->list[i]->bf16, tensor->data, tensor->bytes);
        else if (!params->list[i]->half)
            (void)st_read_f32(tensor, 0, tensor->numel, params->list[i]->value);
    }
    return 0;
}

/* Matrices that lie as bf16 stay so, and there: those of linear ops, the embedding, and what never runs. (An odd address, which
 * a strange header may lead to, is copied from.) */
static void keep_halves(struct openvla *model, const struct hf_shards *shards, const struct oft_files *oft)
{
    for (int i = 0; i < model->w->trunk; i++) {
        struct param *p = model->params.list[i];
        const struct st_tensor *tensor = hf_shards_find(shards, p->name);

        p->half = !film_brings(oft, p) && tensor && tensor->dtype == DTYPE_BF16 && p->ndim >= 2 &&
            (p->linear || p->frozen || p == model->w->embedding);
        if (p->half && (uintptr_t)tensor->data % sizeof(uint16_t) == 0)
            p->bf16 = (uint16_t *)(uintptr_t)tensor->data;
    }
}

static int open_head(const char *dir, const char *name, struct hf_shards *ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    int r;

    strbuf_addf(&path, "%s/%s.safetensors", dir, name);
    if (access(path.text, F_OK) < 0)
        return 0;
    r = hf_shards_open_file(path.text, ret, error);
    return r < 0 ? r : 1;
}

/* Register the head of this name if its file is there. *ret_inputs: columns of fc1. */
static int load_head(struct openvla *model, const char *name, struct head *head, struct hf_shards *file, int *ret_width,
                     int *ret_inputs, struct error *error)
{
    char fc1[64];
    const struct st_tensor *tensor;
    int r;

    r = open_head(model->dir, name, file, error);
    if (r <= 0)
        return r;
    snprintf(fc1, sizeof(fc1), "%s.fc1.weight", name);
    tensor = hf_shards_find(file, fc1);
    if (!tensor || tensor->ndim != 2 || tensor->dim[0] < 1 || tensor->dim[0] > 1 << 16 || tensor->dim[1] < model->config.hidden ||
        tensor->dim[1] > model->config.hidden + 64)
        return error_set(error, EINVAL, "%s/%s.safetensors: %s must be [width, %d or a few more]", model->dir, name, fc1,
                         model->config.hidden);
    r = openvla_register_head(model, name, (int)tensor->dim[1], (int)tensor->dim[0], head);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", name);
    for (int i = model->params.count - 4; i < model->params.count; i++) {
        const struct param *param = model->params.list[i];

        tensor = hf_shards_find(file, param->name);
        if (!tensor || tensor->numel != param->numel || !dtype_is_weight(tensor->dtype))
            return error_set(error, EINVAL, "%s/%s.safetensors: tensor %s: %s %lld values, expected %lld of F32, F16 or BF16",
                             model->dir, name, param->name, tensor ? dtype_name(tensor->dtype) : "missing, found",
                             tensor ? (long long)tensor->numel : 0LL, (long long)param->numel);
    }
    *ret_width = (int)head->fc1.weight->dim[0];
    *ret_inputs = (int)head->fc1.weight->dim[1];
    return 0;
}

/* Files of a directory that is being read. */
struct parts {
    struct hf_shards trunk, value, reward;      /* trunk: the base's, where there is one */
    struct base_files *base;
    struct oft_files oft;
    int after_oft, after_value, after_reward;   /* parameters before this one are the trunk's or OFT's; or a head's, too */
};

static void parts_close(struct parts *parts)
{
    if (!parts->base)
        hf_shards_close(&parts->trunk);
    base_files_unref(parts->base);
    hf_shards_close(&parts->value);
    hf_shards_close(&parts->reward);
    oft_files_close(&parts->oft);
}

static int open_trunk(const char *dir, const char *sha256, struct parts *parts, struct error *error)
{
    int r = sha256 ? base_files_get(dir, sha256, &parts->base, error) : hf_shards_open(dir, &parts->trunk, error);

    if (r >= 0 && sha256)
        parts->trunk = *base_files_shards(parts->base);
    return r;
}

static int open_parts(struct openvla *model, const char *sha256, struct hf_problems *problems, struct parts *parts,
                      struct error *error)
{
    int value_inputs, reward_inputs, r;

    r = open_trunk(model->dir, sha256, parts, error);
    if (r >= 0)
        r = openvla_configure(model, model->dir, &parts->trunk, error);
    if (r >= 0)
        r = hf_files_read(model->dir, &model->files, error);
    if (r >= 0)
        r = openvla_register(model, &parts->trunk, problems, error);
    if (r >= 0)         /* before the heads that may come later: what learns with the trunk lies beside it in the arena */
        r = oft_register(model, model->dir, &parts->oft, error);
    if (r < 0)
        return r;
    parts->after_oft = model->params.count;
    value_inputs = reward_inputs = model->config.hidden;
    r = load_head(model, "value_head", &model->w->value, &parts->value, &model->config.value_width, &value_inputs, error);
    if (r < 0)
        return r;
    parts->after_value = model->params.count;
    r = load_head(model, "reward_head", &model->w->reward, &parts->reward, &model->config.reward_width, &reward_inputs, error);
    if (r < 0)
        return r;
    if (reward_inputs != model->config.hidden)
        return error_set(error, EINVAL, "%s/reward_head.safetensors: %d inputs, the hidden state has %d", model->dir,
                         reward_inputs, model->config.hidden);
    if (model->config.reward_width) {
        r = reward_config_read(model->dir, 0, OPENVLA_MAX_IMAGES - 2, &model->config.reward_history, error);
        if (r < 0)
            return r;
    }
    model->config.value_inputs = value_inputs - model->config.hidden;
    parts->after_reward = model->params.count;
    return 0;
}

int openvla_open(const char *dir, struct hf_problems *problems, struct openvla **ret, struct hf_shards *ret_shards,
                 struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = model_alloc(dir);
    _cleanup_(parts_close) struct parts parts = {0};
    int r = model ? open_parts(model, NULL, problems, &parts, error) : error_set(error, ENOMEM, "out of memory");

    if (r < 0)
        return r;
    if (ret_shards) {
        *ret_shards = parts.trunk;
        parts.trunk = (struct hf_shards) {0};
    }
    *ret = TAKE_PTR(model);
    return 0;
}

int openvla_open_below(const char *dir, struct openvla **ret, struct error *error)
{
    char base[PATH_MAX];
    int r = base_link_follow(dir, base, error);

    return r < 0 ? r : openvla_open(r > 0 ? base : dir, NULL, ret, NULL, error);
}

static int load(struct openvla *model, const char *sha256, int64_t halves_from, struct error *error)
{
    _cleanup_(parts_close) struct parts parts = {0};
    struct params *params = &model->params;
    bool halves;
    int r;

    r = open_parts(model, sha256, NULL, &parts, error);
    if (r < 0)
        return r;
    halves = halves_from >= 0 && params->numel >= halves_from;
    if (halves)
        keep_halves(model, &parts.trunk, &parts.oft);
    r = params_allocate(params);
    if (r < 0)
        return error_set(error, -r, "%s: %lld parameters do not fit into memory", model->dir, (long long)params->numel);
    r = read_values(params, 0, model->w->trunk, &parts.trunk, parts.base && base_files_have(parts.base, BASE_FINITE), error);
    if (r >= 0 && parts.base)
        base_files_mark(parts.base, BASE_FINITE);
    if (r >= 0)
        r = read_values(params, parts.after_oft, parts.after_value, &parts.value, false, error);
    if (r >= 0)
        r = read_values(params, parts.after_value, parts.after_reward, &parts.reward, false, error);
    if (r >= 0)
        r = oft_read(model, &parts.oft, error);
    if (r >= 0 && halves && parts.base) {
        model->base = TAKE_PTR(parts.base);
        parts.trunk = (struct hf_shards) {0};
    } else if (r >= 0 && halves) {
        model->mapped = parts.trunk;
        parts.trunk = (struct hf_shards) {0};
    }
    return r;
}

int openvla_load(const char *dir, struct openvla **ret, struct error *error)
{
    return openvla_load_halves(dir, -1, ret, error);
}

int openvla_load_alone(const char *dir, const char *sha256, int64_t from, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = model_alloc(dir);
    int r;

    if (!model)
        return error_set(error, ENOMEM, "out of memory");
    r = load(model, sha256, from, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(model);
    return 0;
}

int openvla_load_halves(const char *dir, int64_t from, struct openvla **ret, struct error *error)
{
    char base[PATH_MAX], unused[PATH_MAX], sha256[65];
    int r = base_link_follow(dir, base, error);

    if (r > 0 && (r = base_link_read(dir, unused, sha256, error)) > 0)
        return openvla_adapter_load(dir, base, sha256, from, ret, error);
    if (r == 0 && openvla_start_is_adapter(dir))
        return openvla_adapter_load(dir, dir, NULL, from, ret, error);
    if (r == 0)         /* versions may come that have it as their base */
        r = base_link_digest(dir, sha256, error);
    return r < 0 ? r : openvla_load_alone(dir, r > 0 ? sha256 : NULL, from, ret, error);
}

int openvla_plan(const char *dir, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = model_alloc(dir);
    int r;

    if (!model)
        return error_set(error, ENOMEM, "out of memory");
    r = openvla_configure(model, dir, NULL, error);
    if (r >= 0)
        r = hf_files_read(dir, &model->files, error);
    if (r >= 0)
        r = openvla_register(model, NULL, NULL, error);
    if (r >= 0 && model->config.oft.kind == OFT_TOKENS)
        model->config.oft.images = MAX(model->config.oft.images, 1);
    else
        model->config.oft = (struct oft_config) {.kind = OFT_NONE};         /* the other kinds come with files */
    if (r < 0)
        return r;
    model->w->fresh = true;
    *ret = TAKE_PTR(model);
    return 0;
}

int openvla_new(const char *dir, uint64_t seed, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    int r = openvla_plan(dir, &model, error);

    if (r < 0)
        return r;
    r = params_allocate(&model->params);
    if (r < 0)
        return error_set(error, -r, "%s: %lld parameters do not fit into memory", dir, (long long)model->params.numel);
    openvla_initialise(model, seed);
    *ret = TAKE_PTR(model);
    return 0;
}

int openvla_pack(struct openvla *model, bool training)
{
    params_use_process_device(&model->params);
    return params_pack(&model->params, training);
}

struct openvla *openvla_free(struct openvla *model)
{
    if (!model)
        return NULL;
    (void)params_free(&model->params);
    tokenizer_free(model->tokenizer);
    free(model->dir);
    hf_shards_close(&model->mapped);
    base_files_unref(model->base);
    hf_files_release(&model->files);
    openvla_free_stats(model->stats, model->n_stats);
    if (model->w) {
        free(model->w->vit[0].blocks);
        free(model->w->vit[1].blocks);
        free(model->w->layers);
        free(model->w->init);
        free(model->w->layout);
    }
    free(model->w);
    adapters_free(model->lora);
    free(model);
    return NULL;
}
