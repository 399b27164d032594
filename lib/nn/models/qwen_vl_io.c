/* qwen_vl_io.c - a model out of its directory. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/philox.h"
#include "base/strbuf.h"
#include "nn/base_files.h"
#include "nn/base_link.h"
#include "nn/models/qwen_vl_internal.h"
#include "nn/reward_config.h"
#include "nn/tokenizer.h"

enum { USUAL_HISTORY = 4 };

static struct qwen_vl *model_alloc(const char *dir)
{
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = calloc(1, sizeof(*model));

    if (!model)
        return NULL;
    model->dir = strdup(dir);
    model->w = calloc(1, sizeof(*model->w));
    return model->dir && model->w ? TAKE_PTR(model) : NULL;
}

/* Matrices that lie as bf16 stay so, and there. (An odd address, which a strange header may lead to, is copied from.) */
static void keep_halves(struct qwen_vl *model, const struct hf_shards *shards)
{
    for (int i = 0; i < model->w->reward_begin; i++) {
        struct param *p = model->params.list[i];
        const struct st_tensor *tensor = hf_shards_find(shards, p->name);

        p->half = tensor->dtype == DTYPE_BF16 && p->ndim >= 2 &&
                  (p->linear || p->frozen || p == model->w->embedding || p == model->w->lm_head);
        if (p->half && (uintptr_t)tensor->data % sizeof(uint16_t) == 0)
            p->bf16 = (uint16_t *)(uintptr_t)tensor->data;
    }
}

/* What the weights are saved as again: the dtype they all have, or F32. */
static enum dtype common_dtype(const struct hf_shards *shards)
{
    enum dtype dtype = shards->n && shards->file[0]->count ? shards->file[0]->list[0].dtype : DTYPE_F32;

    for (int s = 0; s < shards->n; s++)
        for (int i = 0; i < shards->file[s]->count; i++)
            if (shards->file[s]->list[i].dtype != dtype)
                return DTYPE_F32;
    return dtype;
}

static int read_trunk(struct qwen_vl *model, const struct hf_shards *shards, struct error *error)
{
    bool finite = model->below && base_files_have(model->below, BASE_FINITE);

    for (int i = 0; i < model->w->reward_begin; i++) {
        const struct param *param = model->params.list[i];
        const struct st_tensor *tensor = hf_shards_find(shards, param->name);
        int r = finite ? 0 : hf_check_finite(shards, tensor, NULL, error);

        if (r < 0)
            return r;
        if (!param->half)
            (void)st_read_f32(tensor, 0, tensor->numel, param->value);
        else if (param->bf16 != tensor->data)
            memcpy(param->bf16, tensor->data, tensor->bytes);
    }
    if (model->below)
        base_files_mark(model->below, BASE_FINITE);
    return 0;
}

/* Register the head that this file has; its values are read once there is room for them. */
static int open_head(struct qwen_vl *model, const char *path, struct safetensors **ret_file, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    const struct st_tensor *fc1;
    int r = safetensors_open(path, &file, error);

    if (r < 0)
        return r;
    fc1 = safetensors_find(file, "reward_head.fc1.weight");
    if (!fc1 || fc1->ndim != 2 || fc1->dim[0] < 1 || fc1->dim[0] > 1 << 16 || fc1->dim[1] != model->config.hidden)
        return error_set(error, EINVAL, "%s: reward_head.fc1.weight must be [width, %d]; is the head another backbone's?", path,
                         model->config.hidden);
    r = qwen_vl_register_head(model, (int)fc1->dim[0]);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", path);
    model->config.reward_width = (int)fc1->dim[0];
    *ret_file = TAKE_PTR(file);
    return 0;
}

static int read_head(struct qwen_vl *model, const char *path, const struct safetensors *file, struct error *error)
{
    for (int i = model->w->reward_begin; i < model->w->reward_begin + 4; i++) {
        const struct param *param = model->params.list[i];
        const struct st_tensor *tensor = safetensors_find(file, param->name);

        if (!tensor || tensor->numel != param->numel || !dtype_is_weight(tensor->dtype))
            return error_set(error, EINVAL, "%s: tensor %s: %s %lld values, expected %lld of F32, F16 or BF16", path, param->name,
                             tensor ? dtype_name(tensor->dtype) : "missing, found", tensor ? (long long)tensor->numel : 0LL,
                             (long long)param->numel);
        (void)st_read_f32(tensor, 0, tensor->numel, param->value);
        for (int64_t k = 0; k < param->numel; k++)
            if (!isfinite(param->value[k]))
                return error_set(error, EINVAL, "%s: tensor %s: value %lld is not finite", path, param->name, (long long)k);
    }
    return 0;
}

int qwen_vl_load_reward_head(struct qwen_vl *model, const char *path, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    int64_t held = model->params.numel;
    int r;

    if (model->config.reward_width)
        return error_set(error, EEXIST, "%s: the model has a reward head", model->dir);
    r = open_head(model, path, &file, error);
    if (r < 0)
        return r;
    r = params_grow(&model->params, held);
    return r < 0 ? error_set(error, -r, "%s: out of memory", path) : read_head(model, path, file, error);
}

static int read_adapters(struct qwen_vl *model, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    struct adapted adapted = qwen_vl_adapted(model);

    strbuf_addf(&path, "%s/adapter_config.json", model->dir);
    if (path.failed)
        return error_set(error, ENOMEM, "out of memory");
    return access(path.text, F_OK) < 0 ? 0 : adapters_load(&adapted, model->dir, error);
}

/* The directory of the backbone: the model's own, or what its base.json names; and its manifest's digest ("": it has none). */
static int find_backbone(struct qwen_vl *model, char ret[PATH_MAX], char ret_sha256[65], struct error *error)
{
    char name[PATH_MAX], nested[PATH_MAX];
    int r = base_link_follow(model->dir, ret, error);

    ret_sha256[0] = '\0';
    if (r == 0 && (size_t)snprintf(ret, PATH_MAX, "%s", model->dir) >= PATH_MAX)
        return error_set(error, ENAMETOOLONG, "%s: path too long", model->dir);
    if (r == 0)                 /* versions may come that have it as theirs */
        return base_link_digest(ret, ret_sha256, error);
    if (r < 0)
        return r;
    r = base_link_read(ret, nested, ret_sha256, error);
    if (r != 0)
        return r < 0 ? r : error_set(error, EINVAL, "%s: its base %s has a base itself", model->dir, ret);
    r = base_link_read(model->dir, name, ret_sha256, error);
    return r < 0 ? r : qwen_vl_set_base(model, name) < 0 ? error_set(error, ENOMEM, "out of memory") : 0;
}

/* Configuration, tokenizer, names and shapes; no values. share: a base's files are model->below's, and not the caller's to close. */
static int open_trunk(struct qwen_vl *model, bool share, struct hf_problems *problems, struct hf_shards *shards, struct error *error)
{
    char dir[PATH_MAX], sha256[65];
    int r = find_backbone(model, dir, sha256, error);

    if (r >= 0)
        r = qwen_vl_configure(model, dir, error);
    if (r >= 0)
        r = tokenizer_load_dir(dir, &model->tokenizer, error);
    if (r >= 0)
        r = qwen_vl_find_words(model, error);
    if (r >= 0)
        r = hf_files_read(dir, &model->files, error);
    if (r >= 0 && share && sha256[0])
        r = base_files_get(dir, sha256, &model->below, error);
    else if (r >= 0)
        r = hf_shards_open(dir, shards, error);
    if (r >= 0 && model->below)
        *shards = *base_files_shards(model->below);
    if (r >= 0)
        r = qwen_vl_register(model, shards, problems, error);
    if (r < 0)
        return r;
    model->dtype = common_dtype(shards);
    return 0;
}

int qwen_vl_open(const char *dir, struct hf_problems *problems, struct qwen_vl **ret, struct hf_shards *ret_shards,
                 struct error *error)
{
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = model_alloc(dir);
    _cleanup_(hf_shards_close) struct hf_shards shards = {0};
    int r = model ? open_trunk(model, false, problems, &shards, error) : error_set(error, ENOMEM, "out of memory");

    if (r < 0)
        return r;
    *ret_shards = shards;
    shards = (struct hf_shards) {0};
    *ret = TAKE_PTR(model);
    return 0;
}

static int load_from(struct qwen_vl *model, int64_t halves_from, struct hf_shards *shards, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *head = NULL;
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    bool halves;
    int r = open_trunk(model, true, NULL, shards, error);

    strbuf_addf(&path, "%s/%s", model->dir, QWEN_HEAD_FILE);
    if (r >= 0 && access(path.text, F_OK) == 0)
        r = open_head(model, path.text, &head, error);
    if (r < 0)
        return r;
    halves = halves_from >= 0 && model->params.numel >= halves_from;
    if (halves)
        keep_halves(model, shards);
    r = params_allocate(&model->params);
    if (r < 0)
        return error_set(error, -r, "%s: %lld parameters do not fit into memory", model->dir, (long long)model->params.numel);
    r = read_trunk(model, shards, error);
    if (halves && !model->below) {
        model->mapped = *shards;
        *shards = (struct hf_shards) {0};
    }
    if (r >= 0 && head)
        r = read_head(model, path.text, head, error);
    if (r >= 0)
        r = reward_config_read(model->dir, USUAL_HISTORY, QWEN_MAX_PICTURES - 2, &model->history, error);
    return r < 0 ? r : read_adapters(model, error);
}

static int load(struct qwen_vl *model, int64_t halves_from, struct error *error)
{
    struct hf_shards shards = {0};
    int r = load_from(model, halves_from, &shards, error);

    if (!model->below)
        hf_shards_close(&shards);
    return r;
}

int qwen_vl_load(const char *dir, struct qwen_vl **ret, struct error *error)
{
    return qwen_vl_load_halves(dir, -1, ret, error);
}

int qwen_vl_load_halves(const char *dir, int64_t from, struct qwen_vl **ret, struct error *error)
{
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = model_alloc(dir);
    int r;

    if (!model)
        return error_set(error, ENOMEM, "out of memory");
    r = load(model, from, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(model);
    return 0;
}

struct adapted qwen_vl_adapted(struct qwen_vl *model)
{
    static const struct peft_class classes[] = {
        [QWEN2_VL] = {"Qwen2VLForConditionalGeneration", "transformers.models.qwen2_vl.modeling_qwen2_vl"},
        [QWEN2_5_VL] = {"Qwen2_5_VLForConditionalGeneration", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"},
    };

    return (struct adapted) {.params = &model->params, .dir = model->dir, .class = classes[model->config.family],
                             .adapters = &model->adapters};
}

int qwen_vl_set_base(struct qwen_vl *model, const char *base)
{
    char *copy = base ? strdup(base) : NULL;

    if (base && !copy)
        return -ENOMEM;
    free(model->base);
    model->base = copy;
    return 0;
}

int qwen_vl_pack(struct qwen_vl *model, bool training)
{
    params_use_process_device(&model->params);
    return params_pack(&model->params, training);
}

int qwen_vl_add_reward_head(struct qwen_vl *model, int width, uint64_t seed)
{
    int64_t held = model->params.numel;
    const struct param *fc1;
    struct philox random;
    float bound;
    int r;

    if (model->config.reward_width || width < 1)
        return model->config.reward_width ? -EEXIST : -EINVAL;
    r = qwen_vl_register_head(model, width);
    if (r >= 0)
        r = params_grow(&model->params, held);
    if (r < 0)
        return r;
    model->config.reward_width = width;
    fc1 = model->w->reward.fc1.weight;          /* the rest is zero: the first scores are 1/2 */
    random = philox_at(seed, PHILOX_INIT, crc32c(0, fc1->name, strlen(fc1->name)), 0, 0);
    bound = 1.0f / sqrtf((float)model->config.hidden);
    for (int64_t i = 0; i < fc1->numel; i++)
        fc1->value[i] = (2.0f * philox_uniform(&random) - 1.0f) * bound;
    return 0;
}

struct qwen_vl *qwen_vl_free(struct qwen_vl *model)
{
    if (!model)
        return NULL;
    (void)params_free(&model->params);
    hf_shards_close(&model->mapped);
    base_files_unref(model->below);
    tokenizer_free(model->tokenizer);
    adapters_free(model->adapters);
    free(model->dir);
    free(model->base);
    hf_files_release(&model->files);
    if (model->w) {
        free(model->w->blocks);
        free(model->w->layers);
    }
    free(model->w);
    free(model);
    return NULL;
}
