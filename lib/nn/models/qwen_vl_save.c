/* qwen_vl_save.c - a model into its directory. */
#include <errno.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/base_link.h"
#include "nn/models/qwen_vl_internal.h"
#include "nn/reward_config.h"

static int read_param(void *param, int64_t first, int64_t n, float *ret)
{
    param_read(param, first, n, ret);
    return 0;
}

static struct st_write describe(const struct param *param, enum dtype dtype)
{
    struct st_write to = {.name = param->name, .dtype = dtype, .ndim = param->ndim, .values = param->value};

    if (param->half && dtype == DTYPE_BF16) {
        to.raw = param->bf16;
    } else if (param->half) {
        to.fill = read_param;
        to.context = (void *)param;
    }
    memcpy(to.dim, param->dim, sizeof(param->dim));
    return to;
}

static bool is_head(const struct param *param)
{
    return !strncmp(param->name, "reward_head.", strlen("reward_head."));
}

/* The trunk's parameters (or the head's), as the writer wants them. */
static int gather(const struct qwen_vl *model, bool head, enum dtype dtype, struct st_write *list)
{
    int n = 0;

    for (int i = 0; i < model->params.count; i++) {
        const struct param *param = model->params.list[i];

        if (param->adapter || is_head(param) != head)
            continue;
        list[n++] = describe(param, dtype);
    }
    return n;
}

static int save_head(const struct qwen_vl *model, const char *dir, struct st_write *list, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    int n = gather(model, true, DTYPE_F32, list);

    strbuf_addf(&path, "%s/%s", dir, QWEN_HEAD_FILE);
    if (path.failed)
        return error_set(error, ENOMEM, "out of memory");
    return n ? safetensors_write(path.text, list, n, error) : 0;
}

int qwen_vl_save(const struct qwen_vl *model, const char *dir, const char *dtype_text, struct error *error)
{
    _cleanup_free_ struct st_write *list = calloc((size_t)model->params.count + 1, sizeof(*list));
    struct adapted adapted = qwen_vl_adapted((struct qwen_vl *)model);
    enum dtype dtype = model->dtype;
    int n, r;

    if (dtype_text && (dtype_parse(dtype_text, &dtype) < 0 || (dtype != DTYPE_F32 && dtype != DTYPE_BF16)))
        return error_set(error, EINVAL, "weights are written as F32 or BF16, not %s", dtype_text);
    if (!list)
        return error_set(error, ENOMEM, "out of memory");
    r = save_head(model, dir, list, error);
    if (r < 0)
        return r;
    n = gather(model, false, dtype, list);
    r = hf_weights_write(dir, list, n, 0, NULL, error);
    if (r >= 0)
        r = hf_files_write(&model->files, dir, dtype_torch_name(dtype), error);
    if (r >= 0)
        r = reward_config_write(dir, model->history, error);
    return r < 0 || !model->adapters ? r : adapters_save(&adapted, dir, "F32", NULL, error);
}

int qwen_vl_save_trained(const struct qwen_vl *model, const char *dir, struct error *error)
{
    _cleanup_free_ struct st_write *list = calloc((size_t)model->params.count + 1, sizeof(*list));
    struct adapted adapted = qwen_vl_adapted((struct qwen_vl *)model);
    int r = list ? save_head(model, dir, list, error) : error_set(error, ENOMEM, "out of memory");

    if (r >= 0 && model->adapters)
        r = adapters_save(&adapted, dir, "F32", model->base, error);
    if (r >= 0)
        r = reward_config_write(dir, model->history, error);
    return r < 0 ? r : base_link_write(dir, model->base, error);
}
