/* adapters_load.c - adapter_model.safetensors: what is in it has a place in this model, or the line says what has not. */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/strbuf.h"
#include "nn/adapters_internal.h"
#include "nn/safetensors.h"

#define BASE_LAYER ".base_layer.weight"

static int64_t file_rank(_unused_ const struct param *weight, const char *module, const void *arg)
{
    const struct safetensors *file = arg;
    const struct st_tensor *a;
    char name[ADAPTERS_NAME + 40];

    adapters_tensor_name(module, 'A', name);
    a = safetensors_find(file, name);
    return a && a->ndim ? a->dim[0] : 0;
}

static int check_tensor(const struct st_tensor *have, const struct param *want, const char *path, struct error *error)
{
    char found[96], expected[96];

    if (have->ndim == want->ndim && !memcmp(have->dim, want->dim, (size_t)want->ndim * sizeof(want->dim[0])))
        return 0;
    shape_text(have->dim, have->ndim, found, sizeof(found));
    shape_text(want->dim, want->ndim, expected, sizeof(expected));
    return error_set(error, EINVAL, "%s: tensor %s: shape [%s], expected [%s]: the adapter is for another base", path, have->name,
                     found, expected);
}

static int read_tensor(const struct st_tensor *tensor, struct param *to, const char *path, struct error *error)
{
    if (st_read_f32(tensor, 0, tensor->numel, to->value) < 0)
        return error_set(error, EINVAL, "%s: tensor %s: %s values cannot be read", path, tensor->name, dtype_name(tensor->dtype));
    for (int64_t i = 0; i < to->numel; i++)
        if (!isfinite(to->value[i]))
            return error_set(error, EINVAL, "%s: tensor %s: value %lld is not finite", path, tensor->name, (long long)i);
    return 0;
}

/* PEFT's copy of a base weight, as of lm_head: PEFT reads it in the base's place, so it must say the same, whichever of the two
 * was rounded. */
static int check_copy(const struct adapted *model, const struct st_tensor *copy, const char *path, struct error *error)
{
    const char *end = strstr(copy->name, BASE_LAYER);
    const int prefix = (int)strlen(ADAPTERS_PREFIX);
    float here[1024], there[1024];
    const struct param *own;
    char name[ADAPTERS_NAME];

    if (strncmp(copy->name, ADAPTERS_PREFIX, prefix) ||
        snprintf(name, ADAPTERS_NAME, "%.*s.weight", (int)(end - copy->name) - prefix, copy->name + prefix) >= ADAPTERS_NAME)
        return 0;
    own = param_find(model->params, name);
    if (!own)
        return 0;               /* PEFT leaves it aside, too */
    if (copy->numel != own->numel)
        return error_set(error, EINVAL, "%s: tensor %s: %lld values, the base has %lld: the adapter is for another base", path,
                         copy->name, (long long)copy->numel, (long long)own->numel);
    for (int64_t at = 0, n; at < own->numel; at += n) {
        n = MIN(own->numel - at, (int64_t)ARRAY_SIZE(here));
        param_read(own, at, n, here);
        if (st_read_f32(copy, at, n, there) < 0)
            return error_set(error, EINVAL, "%s: tensor %s: %s values cannot be read", path, copy->name, dtype_name(copy->dtype));
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(there[i] - here[i]) <= 0x1p-8f * fabsf(here[i])))
                return error_set(error, EINVAL, "%s: tensor %s: value %lld is %g, the base has %g: the adapter is for another "
                                 "base", path, copy->name, (long long)(at + i), (double)there[i], (double)here[i]);
    }
    return 0;
}

/* A tensor is A or B of a module that this base has and that takes an adapter; where there is a B there is an A. */
static int check_half(const struct adapted *model, const struct safetensors *file, const struct st_tensor *tensor,
                      const struct peft_config *config, const char *dir, const char *path, struct error *error)
{
    const size_t prefix = strlen(ADAPTERS_PREFIX);
    const char *end = strstr(tensor->name, ".lora_A.weight") ?: strstr(tensor->name, ".lora_B.weight");
    char weight[ADAPTERS_NAME], module[ADAPTERS_NAME], a_name[ADAPTERS_NAME + 40];
    size_t n = end ? (size_t)(end - tensor->name) : 0;
    const struct param *found;

    if (!end || strlen(end) != 14 || strncmp(tensor->name, ADAPTERS_PREFIX, prefix) || n - prefix + 8 > ADAPTERS_NAME)
        return error_set(error, EINVAL, "%s: tensor %s is no A or B of a linear module", path, tensor->name);
    n -= prefix;
    memcpy(weight, tensor->name + prefix, n);
    memcpy(weight + n, ".weight", 8);
    found = param_find(model->params, weight);
    if (!found)
        return error_set(error, EINVAL, "%s: tensor %s: %s has no such module: the adapter is for another base (%s)", path,
                         tensor->name, model->dir, config->base ? config->base : "not named");
    if (!adapters_module(found, module))
        return error_set(error, EINVAL, "%s: tensor %s: %s", path, tensor->name,
                         adapters_leave_whole(found) ? "that module is trained whole and takes no adapter" :
                                                       "this model takes no adapter of that module");
    if (end[6] == 'A' && (tensor->ndim < 2 || tensor->dim[0] < 1 || tensor->dim[0] > 1 << 14))
        return error_set(error, EINVAL, "%s: tensor %s: a rank of 1 to %d comes first in its shape", path, tensor->name, 1 << 14);
    adapters_tensor_name(module, 'A', a_name);
    if (!safetensors_find(file, a_name))
        return error_set(error, ENOENT, "%s: tensor %s is missing", path, a_name);
    return peft_config_check_alpha(config, module, dir, error);
}

/* Everything in the file has its place. */
static int check_file(const struct adapted *model, const struct safetensors *file, const struct peft_config *config,
                      const char *dir, const char *path, struct error *error)
{
    for (int i = 0; i < file->count; i++) {
        const struct st_tensor *tensor = &file->list[i];
        int r = strstr(tensor->name, BASE_LAYER) ? check_copy(model, tensor, path, error)
                                                 : check_half(model, file, tensor, config, dir, path, error);

        if (r < 0)
            return r;
    }
    return 0;
}

/* Two ways to name the parts of a Qwen-VL: as the hub's files do, and as transformers has done since 4.52. A base has one. */
static const struct { const char *older, *newer; } spellings[] = {{"model.", "model.language_model."},
                                                                  {"visual.", "model.visual."}};

static bool is_newer(const char *name)
{
    return !strncmp(name, spellings[0].newer, strlen(spellings[0].newer)) ||
           !strncmp(name, spellings[1].newer, strlen(spellings[1].newer));
}

/* The file's names as the base has them. */
static int respell(const struct adapted *model, const struct peft_config *config, struct safetensors *file, const char *path,
                   struct error *error)
{
    bool newer = false, changed = false;
    const char *key;
    json_t *value;

    for (int i = 0; i < model->params->count; i++)
        newer = newer || is_newer(model->params->list[i]->name);
    for (int i = 0; i < file->count; i++) {
        char *name = file->list[i].name, *to;
        size_t n = strlen(ADAPTERS_PREFIX);

        if (strncmp(name, ADAPTERS_PREFIX, n) || is_newer(name + n) == newer)
            continue;
        for (size_t k = 0; k < ARRAY_SIZE(spellings); k++) {
            const char *from = newer ? spellings[k].older : spellings[k].newer;
            const char *into = newer ? spellings[k].newer : spellings[k].older;

            if (strncmp(name + n, from, strlen(from)))
                continue;
            if (asprintf(&to, ADAPTERS_PREFIX "%s%s", into, name + n + strlen(from)) < 0)
                return error_set(error, ENOMEM, "out of memory");
            free(name);
            file->list[i].name = to;
            changed = true;
            break;
        }
    }
    json_object_foreach(config->alpha_pattern, key, value)
        if (changed && (strstr(key, "model") || strstr(key, "visual")))
            return error_set(error, ENOTSUP, "%s: its modules are named otherwise than the base's, and alpha_pattern names %s: "
                             "name it by its end", path, key);
    return 0;
}

static int read_pairs(const struct adapted *model, const struct safetensors *file, const char *path, struct error *error)
{
    int pairs = 0, r = 0;

    for (int i = 0; i < model->params->count && r >= 0; i++) {
        struct param *p = model->params->list[i];
        const struct st_tensor *tensor;

        if (!p->adapter)
            continue;
        tensor = safetensors_find(file, p->name);
        if (!tensor)
            return error_set(error, ENOENT, "%s: tensor %s is missing", path, p->name);
        r = check_tensor(tensor, p, path, error);
        if (r >= 0)
            r = read_tensor(tensor, p, path, error);
        pairs++;
    }
    if (r >= 0 && pairs == 0)
        return error_set(error, ENOENT, "%s: no adapter in it", path);
    return r;
}

int adapters_load(const struct adapted *model, const char *dir, struct error *error)
{
    _cleanup_(peft_config_release) struct peft_config config = {0};
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    int r;

    if (*model->adapters)
        return error_set(error, EEXIST, "%s: the model has adapters already", model->dir);
    strbuf_addf(&path, "%s/" ADAPTERS_TENSORS, dir);
    r = path.failed ? error_set(error, ENOMEM, "out of memory") : peft_config_read(dir, &config, error);
    if (r >= 0)
        r = safetensors_open(path.text, &file, error);
    if (r >= 0)
        r = respell(model, &config, file, path.text, error);
    if (r >= 0)
        r = check_file(model, file, &config, dir, path.text, error);
    if (r < 0)
        return r;
    r = adapters_attach(model, &config, file_rank, file, error);
    if (r >= 0)
        r = read_pairs(model, file, path.text, error);
    return r < 0 ? adapters_undo(model, r) : 0;
}
