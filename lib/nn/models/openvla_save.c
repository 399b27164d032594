/* openvla_save.c - a model into its directory: as it was read, or as one dtype in shards of one size. */
#include <errno.h>
#include <stdio.h>

#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"
#include "nn/reward_config.h"

static int read_param(void *param, int64_t first, int64_t n, float *ret)
{
    param_read(param, first, n, ret);
    return 0;
}

static struct st_write describe(const struct param *param, enum dtype dtype)
{
    struct st_write to = {.name = param->name, .dtype = dtype, .ndim = param->ndim, .values = param->value};

    if (param->half && dtype == DTYPE_BF16)
        to.raw = param->bf16;
    else if (param->half) {
        to.fill = read_param;
        to.context = (void *)param;
    }
    memcpy(to.dim, param->dim, sizeof(param->dim));
    return to;
}

/* The four tensors of a head, which training keeps in fp32. */
static int write_head(const char *name, const struct head *head, const char *dir, struct error *error)
{
    const struct param *const params[] = {head->fc1.weight, head->fc1.bias, head->fc2.weight, head->fc2.bias};
    struct st_write list[ARRAY_SIZE(params)];
    char path[4096];

    if (!params[0])
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(params); i++)
        list[i] = describe(params[i], DTYPE_F32);
    if ((size_t)snprintf(path, sizeof(path), "%s/%s.safetensors", dir, name) >= sizeof(path))
        return error_set(error, ENAMETOOLONG, "%s: the name is too long", dir);
    return safetensors_write(path, list, ARRAY_SIZE(params), error);
}

int openvla_save_heads(const struct openvla *model, const char *dir, struct error *error)
{
    int r = write_head("value_head", &model->w->value, dir, error);

    if (r >= 0)
        r = write_head("reward_head", &model->w->reward, dir, error);
    return r < 0 || !model->config.reward_history ? r : reward_config_write(dir, model->config.reward_history, error);
}

static int by_layout(const void *a, const void *b, void *layout)
{
    const struct openvla_layout *x = (struct openvla_layout *)layout + *(const int *)a,
                                *y = (struct openvla_layout *)layout + *(const int *)b;

    return x->shard != y->shard ? (x->shard < y->shard ? -1 : 1) : (x->place > y->place) - (x->place < y->place);
}

/* In the order, the dtypes and the shards of the files that were read. */
static int write_as_read(const struct openvla *model, const char *dir, struct error *error)
{
    int n = model->w->trunk;
    _cleanup_free_ struct st_write *list = calloc((size_t)n + 1, sizeof(*list));
    _cleanup_free_ int *shard = calloc((size_t)n + 1, sizeof(*shard)), *order = calloc((size_t)n + 1, sizeof(*order));

    if (!list || !shard || !order)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, (size_t)n, sizeof(*order), by_layout, model->w->layout);
    for (int i = 0; i < n; i++) {
        list[i] = describe(model->params.list[order[i]], model->w->layout[order[i]].dtype);
        shard[i] = model->w->layout[order[i]].shard;
    }
    return hf_weights_write(dir, list, n, 0, shard, error);
}

static int write_as(const struct openvla *model, const char *dir, enum dtype dtype, int64_t shard_bytes, struct error *error)
{
    int n = model->w->trunk;
    _cleanup_free_ struct st_write *list = calloc((size_t)n + 1, sizeof(*list));

    if (!list)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        list[i] = describe(model->params.list[i], dtype);
    return hf_weights_write(dir, list, n, shard_bytes, NULL, error);
}

int openvla_save_sharded(const struct openvla *model, const char *dir, const char *dtype_text, int64_t shard_bytes,
                         struct error *error)
{
    enum dtype dtype = DTYPE_F32;
    int r;

    if (dtype_text && (dtype_parse(dtype_text, &dtype) < 0 || !dtype_is_weight(dtype)))
        return error_set(error, EINVAL, "weights are written as F32, F16 or BF16, not %s", dtype_text);
    r = openvla_save_heads(model, dir, error);
    if (r >= 0)
        r = oft_save(model, dir, dtype, error);
    if (r >= 0)
        r = !dtype_text && !model->w->fresh ? write_as_read(model, dir, error) : write_as(model, dir, dtype, shard_bytes, error);
    return r < 0 ? r : hf_files_write(&model->files, dir, dtype_text || model->w->fresh ? dtype_torch_name(dtype) : NULL, error);
}

int openvla_save(const struct openvla *model, const char *dir, const char *dtype, struct error *error)
{
    return openvla_save_sharded(model, dir, dtype, 0, error);
}
