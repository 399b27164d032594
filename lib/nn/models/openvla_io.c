/* openvla_io.c - a model in and out of its directory. */
#include <errno.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/models/openvla_internal.h"
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

/* Widen to fp32 what the shards (or a head's file) have for parameters begin..end-1. */
static int read_values(struct params *params, int begin, int end, const struct hf_shards *shards, struct error *error)
{
    for (int i = begin; i < end; i++) {
        const struct st_tensor *tensor = hf_shards_find(shards, params->list[i]->name);

        if (!tensor || st_read_f32(tensor, 0, tensor->numel, params->list[i]->value) < 0)
            return error_set(error, EINVAL, "tensor %s: %s values cannot be read", params->list[i]->name,
                             tensor ? dtype_name(tensor->dtype) : "no");
    }
    return 0;
}

static int open_head(const char *dir, const char *name, struct hf_shards *ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    struct safetensors *file;
    int r;

    strbuf_addf(&path, "%s/%s.safetensors", dir, name);
    if (access(path.text, F_OK) < 0)
        return 0;
    ret->file = calloc(1, sizeof(*ret->file));
    if (!ret->file)
        return error_set(error, ENOMEM, "out of memory");
    r = safetensors_open(path.text, &file, error);
    if (r < 0)
        return r;
    ret->file[ret->n++] = file;
    return 1;
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
        if (!tensor || tensor->numel != param->numel)
            return error_set(error, EINVAL, "%s/%s.safetensors: tensor %s is missing or of another size", model->dir, name,
                             param->name);
    }
    *ret_width = (int)head->fc1.weight->dim[0];
    *ret_inputs = (int)head->fc1.weight->dim[1];
    return 0;
}

static int load(struct openvla *model, struct error *error)
{
    _cleanup_(hf_shards_close) struct hf_shards shards = {0}, value = {0}, reward = {0};
    int value_inputs, reward_inputs, trunk, after_value, r;

    r = hf_shards_open(model->dir, &shards, error);
    if (r >= 0)
        r = openvla_configure(model, model->dir, &shards, error);
    if (r >= 0)
        r = hf_files_read(model->dir, &model->files, error);
    if (r >= 0)
        r = openvla_register(model, &shards, error);
    if (r < 0)
        return r;
    trunk = model->params.count;
    value_inputs = reward_inputs = model->config.hidden;
    r = load_head(model, "value_head", &model->w->value, &value, &model->config.value_width, &value_inputs, error);
    if (r < 0)
        return r;
    after_value = model->params.count;
    r = load_head(model, "reward_head", &model->w->reward, &reward, &model->config.reward_width, &reward_inputs, error);
    if (r < 0)
        return r;
    if (reward_inputs != model->config.hidden)
        return error_set(error, EINVAL, "%s/reward_head.safetensors: %d inputs, the hidden state has %d", model->dir,
                         reward_inputs, model->config.hidden);
    model->config.value_inputs = value_inputs - model->config.hidden;
    r = params_allocate(&model->params);
    if (r < 0)
        return error_set(error, -r, "%s: %lld parameters do not fit into memory", model->dir, (long long)model->params.numel);
    r = read_values(&model->params, 0, trunk, &shards, error);
    if (r >= 0)
        r = read_values(&model->params, trunk, after_value, &value, error);
    return r < 0 ? r : read_values(&model->params, after_value, model->params.count, &reward, error);
}

int openvla_load(const char *dir, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = model_alloc(dir);
    int r;

    if (!model)
        return error_set(error, ENOMEM, "out of memory");
    r = load(model, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(model);
    return 0;
}

int openvla_new(const char *dir, uint64_t seed, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = model_alloc(dir);
    int r;

    if (!model)
        return error_set(error, ENOMEM, "out of memory");
    r = openvla_configure(model, dir, NULL, error);
    if (r >= 0)
        r = hf_files_read(dir, &model->files, error);
    if (r >= 0)
        r = openvla_register(model, NULL, error);
    if (r < 0)
        return r;
    r = params_allocate(&model->params);
    if (r < 0)
        return error_set(error, -r, "out of memory");
    openvla_initialise(model, seed);
    *ret = TAKE_PTR(model);
    return 0;
}

int openvla_pack(struct openvla *model, bool training)
{
    return params_pack(&model->params, training);
}

/* ---- saving --------------------------------------------------------------------------------------------- */

/* Parameters begin..end-1 into one file. */
static int write_params(const struct openvla *model, int begin, int end, enum dtype dtype, const char *path, struct error *error)
{
    _cleanup_free_ struct st_write *list = calloc((size_t)(end - begin) + 1, sizeof(*list));

    if (!list)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = begin; i < end; i++) {
        const struct param *param = model->params.list[i];
        struct st_write *to = &list[i - begin];

        *to = (struct st_write) {.name = param->name, .dtype = dtype, .ndim = param->ndim, .values = param->value};
        memcpy(to->dim, param->dim, sizeof(param->dim));
    }
    return safetensors_write(path, list, end - begin, error);
}

/* Behind the last parameter that fits into a shard beginning at `begin`. */
static int shard_end(const struct openvla *model, int begin, int trunk, enum dtype dtype, int64_t shard_bytes)
{
    int64_t bytes = 0;
    int end = begin;

    while (end < trunk) {
        bytes += model->params.list[end]->numel * (int64_t)dtype_size(dtype);
        if (bytes > shard_bytes && end > begin)
            break;
        end++;
    }
    return end;
}

static int write_index(const struct openvla *model, const char *dir, int shards, int trunk, enum dtype dtype,
                       int64_t shard_bytes, struct error *error)
{
    _cleanup_json_ json_t *map = json_object();
    _cleanup_json_ json_t *index = NULL;
    _cleanup_free_ char *text = NULL;
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    int64_t total = 0;
    int r;

    for (int begin = 0, shard = 1; begin < trunk; shard++) {
        int end = shard_end(model, begin, trunk, dtype, shard_bytes);
        char name[64];

        snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", shard, shards);
        for (; begin < end; begin++) {
            total += model->params.list[begin]->numel * (int64_t)dtype_size(dtype);
            json_object_set_new(map, model->params.list[begin]->name, json_string(name));
        }
    }
    index = json_pack("{s:{s:I},s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    text = index ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    strbuf_addf(&path, "%s/model.safetensors.index.json", dir);
    r = text ? atomic_file_write(path.text, text, strlen(text)) : -ENOMEM;
    return r < 0 ? error_set(error, -r, "%s: %s", path.text, strerror(-r)) : 0;
}

static int write_trunk(const struct openvla *model, const char *dir, int trunk, enum dtype dtype, int64_t shard_bytes,
                       struct error *error)
{
    int shards = 0;

    for (int begin = 0; begin < trunk; shards++)
        begin = shard_end(model, begin, trunk, dtype, shard_bytes);
    for (int begin = 0, shard = 1, end; begin < trunk; begin = end, shard++) {
        _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
        int r;

        end = shard_end(model, begin, trunk, dtype, shard_bytes);
        if (shards == 1)
            strbuf_addf(&path, "%s/model.safetensors", dir);
        else
            strbuf_addf(&path, "%s/model-%05d-of-%05d.safetensors", dir, shard, shards);
        r = write_params(model, begin, end, dtype, path.text, error);
        if (r < 0)
            return r;
    }
    return shards > 1 ? write_index(model, dir, shards, trunk, dtype, shard_bytes, error) : 0;
}

/* Index of the head's first parameter, or count. */
static int head_begin(const struct openvla *model, const struct head *head)
{
    for (int i = 0; i < model->params.count; i++)
        if (model->params.list[i] == head->fc1.weight)
            return i;
    return model->params.count;
}

int openvla_save_sharded(const struct openvla *model, const char *dir, const char *dtype_text, int64_t shard_bytes,
                         struct error *error)
{
    const struct {
        const char *name;
        const struct head *head;
    } heads[] = {{"value_head", &model->w->value}, {"reward_head", &model->w->reward}};
    int trunk = model->params.count, r;
    enum dtype dtype;

    if (dtype_parse(dtype_text, &dtype) < 0 || (dtype != DTYPE_F32 && dtype != DTYPE_BF16))
        return error_set(error, EINVAL, "weights are written as F32 or BF16, not %s", dtype_text);
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
        char path[4096];
        int begin = head_begin(model, heads[i].head);

        if (begin == model->params.count)
            continue;
        trunk = MIN(trunk, begin);
        if ((size_t)snprintf(path, sizeof(path), "%s/%s.safetensors", dir, heads[i].name) >= sizeof(path))
            return error_set(error, ENAMETOOLONG, "%s: the name is too long", dir);
        r = write_params(model, begin, begin + 4, DTYPE_F32, path, error);
        if (r < 0)
            return r;
    }
    r = write_trunk(model, dir, trunk, dtype, shard_bytes, error);
    return r < 0 ? r : hf_files_write(&model->files, dir, dtype == DTYPE_F32 ? "float32" : "bfloat16", error);
}

int openvla_save(const struct openvla *model, const char *dir, const char *dtype, struct error *error)
{
    return openvla_save_sharded(model, dir, dtype, 5000000000, error);      /* save_pretrained's default */
}

struct openvla *openvla_free(struct openvla *model)
{
    if (!model)
        return NULL;
    (void)params_free(&model->params);
    tokenizer_free(model->tokenizer);
    free(model->dir);
    hf_files_release(&model->files);
    openvla_free_stats(model->stats, model->n_stats);
    if (model->w) {
        free(model->w->vit[0].blocks);
        free(model->w->vit[1].blocks);
        free(model->w->layers);
        free(model->w->init);
    }
    free(model->w);
    free(model);
    return NULL;
}
