#include "nn/models/openvla_adapter.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nn/base_files.h"
#include "nn/base_link.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"

static int path_of(const char *dir, const char *name, char ret[PATH_MAX], struct error *error)
{
    if ((size_t)snprintf(ret, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
        return 0;
    return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
}

const char *openvla_adapter_base_name(const struct openvla *model)
{
    return model->lora ? model->lora->config.base : NULL;
}

int openvla_adapter_name_base(const struct openvla *model, const char *base)
{
    char *copy = strdup(base);

    if (!copy)
        return -ENOMEM;
    free(model->lora->config.base);
    model->lora->config.base = copy;
    return 0;
}

int openvla_adapter_save(const struct openvla *model, const char *dir, struct error *error)
{
    const char *base = openvla_adapter_base_name(model);
    int r;

    if (!base)
        return error_set(error, EINVAL, "%s: no adapters, or their base has no name", model->dir);
    r = openvla_lora_save(model, dir, "F32", NULL, error);
    if (r >= 0)
        r = openvla_save_heads(model, dir, error);
    if (r >= 0)
        r = oft_save(model, dir, DTYPE_F32, error);
    return r < 0 ? r : base_link_write(dir, base, error);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static int read_head(const struct head *head, const struct hf_shards *file, const char *path, struct error *error)
{
    const struct param *const params[] = {head->fc1.weight, head->fc1.bias, head->fc2.weight, head->fc2.bias};

    for (size_t i = 0; i < ARRAY_SIZE(params); i++) {
        const struct st_tensor *tensor = hf_shards_find(file, params[i]->name);
        int r;

        if (!tensor || tensor->numel != params[i]->numel || !dtype_is_weight(tensor->dtype))
            return error_set(error, EINVAL, "%s: tensor %s: %s %lld values, expected %lld of F32, F16 or BF16", path,
                             params[i]->name, tensor ? dtype_name(tensor->dtype) : "missing, found",
                             tensor ? (long long)tensor->numel : 0LL, (long long)params[i]->numel);
        r = hf_check_finite(file, tensor, NULL, error);
        if (r < 0)
            return r;
        (void)st_read_f32(tensor, 0, tensor->numel, params[i]->value);
    }
    return 0;
}

/* The value head of DIR, if it has one, in place of the base's. */
static int load_value_head(struct openvla *model, const char *dir, struct error *error)
{
    _cleanup_(hf_shards_close) struct hf_shards file = {0};
    const struct st_tensor *fc1;
    char path[PATH_MAX];
    int64_t extra;
    int r = path_of(dir, "value_head.safetensors", path, error);

    if (r < 0 || access(path, F_OK) < 0)
        return r;
    r = hf_shards_open_file(path, &file, error);
    if (r < 0)
        return r;
    fc1 = hf_shards_find(&file, "value_head.fc1.weight");
    extra = fc1 && fc1->ndim == 2 ? fc1->dim[1] - model->config.hidden : -1;
    if (extra < 0 || extra > 64 || fc1->dim[0] < 1 || fc1->dim[0] > 1 << 16)
        return error_set(error, EINVAL, "%s: value_head.fc1.weight must be [width, %d or a few more]", path,
                         model->config.hidden);
    r = openvla_add_value_head(model, (int)fc1->dim[0], (int)extra, 0);
    if (r == -EEXIST && model->config.value_width == (int)fc1->dim[0] && model->config.value_inputs == (int)extra)
        r = 0;
    if (r < 0)
        return error_set(error, -r, "%s: the base has another value head: %s", path, strerror(-r));
    return read_head(&model->w->value, &file, path, error);
}

int openvla_adapter_load(const char *dir, const char *base, const char *sha256, int64_t halves_from, struct openvla **ret,
                         struct error *error)
{
    _cleanup_(base_files_unrefp) struct base_files *files = NULL;
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    char nested[PATH_MAX];
    int r = base_link_follow(base, nested, error);

    if (r != 0)
        return r < 0 ? r : error_set(error, EINVAL, "%s: its base %s is an adapter itself", dir, base);
    if (sha256)
        r = base_files_get(base, sha256, &files, error);
    if (r >= 0)
        r = openvla_load_alone(base, sha256, halves_from, &model, error);
    if (r >= 0)
        r = load_value_head(model, dir, error);
    if (r >= 0 && strcmp(dir, base) != 0)
        r = oft_read_trained(model, dir, error);
    if (r >= 0)
        r = openvla_lora_load(model, dir, error);
    if (r < 0)
        return r;
    if (!model->base)           /* also where no matrix lies in them: what was found out of them holds as long */
        model->base = TAKE_PTR(files);
    *ret = TAKE_PTR(model);
    return 0;
}
