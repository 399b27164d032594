/* openvla_film.c - FiLM of OpenVLA-OFT+: in every block of both towers, after attention, x (1 + scale e) + shift e, where e is
 * the mean embedding of the words. On disk: vision_backbone.safetensors, or vision_backbone--STEP_checkpoint.pt as the training
 * script leaves it, which holds the towers, too: each block below ".block.", layers with adapters as base_layer, lora_A, lora_B.
 * Those values take the place of the checkpoint's; adapters are added to them in fp32, scaled as that script trains them: min(r,
 * 16) / r. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"

enum { NAME = 256, LARGEST_ALPHA = 16 };
#define PREFIX "vision_backbone."

static const char *const tower_names[2] = {"featurizer", "fused_featurizer"};

bool film_is(const struct param *param)
{
    return !param->adapter && !strncmp(param->name, PREFIX, strlen(PREFIX)) &&
        (strstr(param->name, ".scale.") || strstr(param->name, ".shift."));
}

/* A name with or without what the script's own module puts before it. */
static const struct st_tensor *find(const struct oft_files *files, const char *name)
{
    const struct st_tensor *tensor = oft_find(files, OFT_VISION, name);

    return tensor ? tensor : oft_find(files, OFT_VISION, name + strlen(PREFIX));
}

/* The file's name of a tower's parameter: "blocks.N." becomes "blocks.N.block."; `part` comes before or in place of ".weight". */
static bool spell(const char *name, const char *part, char ret[NAME])
{
    const char *blocks = strstr(name, ".blocks."), *rest = blocks ? strchr(blocks + strlen(".blocks."), '.') : NULL;
    const char *last = strrchr(name, '.');
    int n = rest ? snprintf(ret, NAME, "%.*s.block%.*s", (int)(rest - name), name, (int)(last - rest), rest)
                 : snprintf(ret, NAME, "%.*s", (int)(last - name), name);

    return n < NAME && snprintf(ret + n, (size_t)(NAME - n), "%s%s", part, strstr(part, "lora") ? "" : last) < NAME - n;
}

static const struct st_tensor *find_tower(const struct oft_files *files, const char *name, const char *part)
{
    char spelt[NAME];

    return spell(name, part, spelt) ? find(files, spelt) : NULL;
}

static const struct st_tensor *find_value(const struct oft_files *files, const char *name)
{
    const struct st_tensor *tensor = find_tower(files, name, "");

    return tensor ? tensor : find_tower(files, name, ".base_layer");
}

bool film_brings(const struct oft_files *files, const struct param *param)
{
    return files->path[OFT_VISION] && !strncmp(param->name, PREFIX, strlen(PREFIX)) && find_value(files, param->name);
}

/* ---- scale and shift -------------------------------------------------------------------------------------------- */

static int add(struct openvla *model, const struct oft_files *files, const char *name, int64_t rows, int64_t cols,
               const struct param **to, struct error *error)
{
    const struct st_tensor *tensor = files ? find(files, name) : NULL;
    int64_t dim[2] = {rows, cols};
    struct param *param;

    if (files && (!tensor || tensor->ndim != (cols ? 2 : 1) || tensor->dim[0] != rows || (cols && tensor->dim[1] != cols) ||
                  !dtype_is_weight(tensor->dtype)))
        return error_set(error, EINVAL, "%s: tensor %s: %s, expected %lld%s%.0lld values of F32, F16 or BF16",
                         files->path[OFT_VISION], name,
                         tensor ? "another shape or dtype" : "missing", (long long)rows, cols ? "x" : "", (long long)cols);
    param = param_add(&model->params, name, cols ? 2 : 1, dim, cols != 0);
    if (!param)
        return error_set(error, ENOMEM, "%s: out of memory, or it is there already", name);
    *to = param;
    return 0;
}

static int add_block(struct openvla *model, const struct oft_files *files, int tower, int block, struct error *error)
{
    const struct openvla_tower *t = &model->config.tower[tower];
    struct vit_block *b = &model->w->vit[tower].blocks[block];
    struct affine *const to[2] = {&b->gamma, &b->beta};
    static const char *const parts[2] = {"scale", "shift"};
    int r = 0;

    for (int i = 0; i < 2 && r >= 0; i++) {
        char name[NAME];

        snprintf(name, sizeof(name), PREFIX "%s.blocks.%d.%s.weight", tower_names[tower], block, parts[i]);
        r = add(model, files, name, t->dim, model->config.hidden, &to[i]->weight, error);
        snprintf(name, sizeof(name), PREFIX "%s.blocks.%d.%s.bias", tower_names[tower], block, parts[i]);
        if (r >= 0)
            r = add(model, files, name, t->dim, 0, &to[i]->bias, error);
        if (r >= 0 && block == t->depth - 1)    /* never runs */
            ((struct param *)(uintptr_t)to[i]->weight)->frozen = ((struct param *)(uintptr_t)to[i]->bias)->frozen = true;
    }
    return r;
}

int film_register(struct openvla *model, const struct oft_files *files, struct error *error)
{
    int r = 0;

    for (int tower = 0; tower < 2; tower++)
        for (int block = 0; block < model->config.tower[tower].depth && r >= 0; block++)
            r = add_block(model, files, tower, block, error);
    model->config.oft.film = r >= 0;
    return r;
}

int oft_add_film(struct openvla *model)
{
    int64_t held = model->params.numel;
    struct error error;
    int r;

    if (model->config.oft.film)
        return -EEXIST;
    if (model->config.oft.kind == OFT_NONE)
        return -EINVAL;
    r = film_register(model, NULL, &error);
    return r < 0 ? r : params_grow(&model->params, held);       /* zeros: x (1 + 0) + 0 */
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static int read_whole(const struct oft_files *files, const struct st_tensor *tensor, const struct param *param,
                      struct error *error)
{
    if (tensor->numel != param->numel || !dtype_is_weight(tensor->dtype))
        return error_set(error, EINVAL, "%s: tensor %s: %lld values of %s, expected %lld of F32, F16 or BF16",
                         files->path[OFT_VISION],
                         tensor->name, (long long)tensor->numel, dtype_name(tensor->dtype), (long long)param->numel);
    if (st_not_finite(tensor) >= 0)
        return error_set(error, EINVAL, "%s: tensor %s: a value is not finite", files->path[OFT_VISION], tensor->name);
    (void)st_read_f32(tensor, 0, tensor->numel, param->value);
    return 0;
}

/* W += scale B A. */
static int add_adapter(const struct oft_files *files, const struct st_tensor *a, const struct st_tensor *b,
                       const struct param *param, struct error *error)
{
    int64_t out = param->dim[0], in = param->numel / out, r = a->ndim ? a->dim[0] : 0;
    _cleanup_free_ float *low = malloc((size_t)MAX(a->numel + b->numel, (int64_t)1) * sizeof(*low));
    float scale, *high = low + a->numel;

    if (!low)
        return error_set(error, ENOMEM, "out of memory");
    if (r < 1 || a->numel != r * in || b->numel != out * r || st_read_f32(a, 0, a->numel, low) < 0 ||
        st_read_f32(b, 0, b->numel, high) < 0 ||
        st_not_finite(a) >= 0 || st_not_finite(b) >= 0)
        return error_set(error, EINVAL, "%s: tensors %s and %s: no adapter of [%lld,%lld] with finite values",
                         files->path[OFT_VISION], a->name, b->name, (long long)out, (long long)in);
    scale = (float)MIN(r, (int64_t)LARGEST_ALPHA) / (float)r;
    for (int64_t o = 0; o < out; o++)
        for (int64_t k = 0; k < r; k++)
            cpu_kernels()->accumulate_scaled(param->value + o * in, low + k * in, scale * high[o * r + k], in);
    return 0;
}

static int read_tower(const struct oft_files *files, const struct param *param, struct error *error)
{
    const struct st_tensor *value = find_value(files, param->name), *a, *b;
    int r;

    if (!value)
        return error_set(error, ENOENT, "%s: it holds a part of the vision towers, but not %s", files->path[OFT_VISION],
                         param->name);
    if (param->half)
        return error_set(error, ENOTSUP, "%s: %s is kept as bf16 where it lies, and cannot be replaced", files->path[OFT_VISION],
                         param->name);
    r = read_whole(files, value, param, error);
    a = find_tower(files, param->name, ".lora_A.default.weight");
    b = find_tower(files, param->name, ".lora_B.default.weight");
    if (!a != !b)
        return error_set(error, EINVAL, "%s: %s has one half of an adapter", files->path[OFT_VISION], param->name);
    return r < 0 || !a || strcmp(param->name + strlen(param->name) - 7, ".weight") != 0 ? r : add_adapter(files, a, b, param,
            error);
}

int film_read(struct openvla *model, const struct oft_files *files, struct error *error)
{
    bool towers = false;
    int r = 0;

    for (int i = 0; i < model->params.count; i++)
        towers = towers || (!film_is(model->params.list[i]) && film_brings(files, model->params.list[i]));
    for (int i = 0; i < model->params.count && r >= 0; i++) {
        const struct param *param = model->params.list[i];

        if (film_is(param))
            r = read_whole(files, find(files, param->name), param, error);
        else if (towers && !param->adapter && !strncmp(param->name, PREFIX, strlen(PREFIX)))
            r = read_tower(files, param, error);
    }
    return r;
}
