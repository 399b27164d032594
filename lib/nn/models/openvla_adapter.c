#include "nn/models/openvla_adapter.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "nn/models/openvla_internal.h"

#define BASE_FILE "base.json"

static int path_of(const char *dir, const char *name, char ret[PATH_MAX], struct error *error)
{
    if ((size_t)snprintf(ret, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
        return 0;
    return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
}

/* The digest of DIR's manifest.json as text. */
static int manifest_digest(const char *dir, char ret[2 * SHA256_SIZE + 1], struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    char path[PATH_MAX];
    int r = path_of(dir, "manifest.json", path, error);

    if (r < 0)
        return r;
    r = sha256_file(path, digest);
    if (r < 0)
        return error_set(error, -r, "%s: %s; the base that an adapter was trained on must stay", path, strerror(-r));
    for (int i = 0; i < SHA256_SIZE; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

int openvla_adapter_names(const char *dir, char ret_base[PATH_MAX], char ret_sha256[65], struct error *error)
{
    _cleanup_json_ json_t *json = NULL;
    const char *base, *wanted;
    char path[PATH_MAX];
    int r = path_of(dir, BASE_FILE, path, error);

    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return 0;
    r = hf_json(dir, BASE_FILE, &json, error);
    if (r < 0)
        return r;
    base = json_string_value(json_object_get(json, "base"));
    wanted = json_string_value(json_object_get(json, "manifest_sha256"));
    if (!base || !wanted || strlen(base) >= PATH_MAX || strlen(wanted) != 2 * SHA256_SIZE)
        return error_set(error, EBADMSG, "%s: base and manifest_sha256 must be strings, a directory and a SHA-256", path);
    snprintf(ret_base, PATH_MAX, "%s", base);
    snprintf(ret_sha256, 65, "%s", wanted);
    return 1;
}

int openvla_adapter_base(const char *dir, char ret[PATH_MAX], struct error *error)
{
    char path[PATH_MAX], base[PATH_MAX], found[2 * SHA256_SIZE + 1], wanted[65];
    int r = openvla_adapter_names(dir, base, wanted, error);

    if (r <= 0)
        return r;
    r = path_of(dir, base, path, error);
    if (r >= 0)
        r = manifest_digest(path, found, error);
    if (r < 0)
        return r;
    if (strcmp(found, wanted))
        return error_set(error, EBADMSG, "%s: the adapter in %s was trained on another base: manifest.json has SHA-256 %.12s..., "
                         "expected %.12s...",
                         path, dir, found, wanted);
    memcpy(ret, path, sizeof(path));
    return 1;
}

const char *openvla_adapter_base_name(const struct openvla *model)
{
    return model->lora ? model->lora->config.base : NULL;
}

static int save_base(const char *dir, const char *base, struct error *error)
{
    _cleanup_json_ json_t *json = NULL;
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX], digest[2 * SHA256_SIZE + 1];
    int r = path_of(dir, base, path, error);

    if (r >= 0)
        r = manifest_digest(path, digest, error);
    if (r >= 0)
        r = path_of(dir, BASE_FILE, path, error);
    if (r < 0)
        return r;
    json = json_pack("{s:s, s:s}", "base", base, "manifest_sha256", digest);
    text = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    r = text ? atomic_file_write(path, text, strlen(text)) : -ENOMEM;
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
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
    return r < 0 ? r : save_base(dir, base, error);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static int read_head(const struct head *head, const struct safetensors *file, const char *path, struct error *error)
{
    const struct param *const params[] = {head->fc1.weight, head->fc1.bias, head->fc2.weight, head->fc2.bias};

    for (size_t i = 0; i < ARRAY_SIZE(params); i++) {
        const struct st_tensor *tensor = safetensors_find(file, params[i]->name);

        if (!tensor || tensor->numel != params[i]->numel || st_read_f32(tensor, 0, tensor->numel, params[i]->value) < 0)
            return error_set(error, EINVAL, "%s: tensor %s is missing, or has not %lld values", path, params[i]->name,
                             (long long)params[i]->numel);
    }
    return 0;
}

/* The value head of DIR, if it has one, in place of the base's. */
static int load_value_head(struct openvla *model, const char *dir, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    const struct st_tensor *fc1;
    char path[PATH_MAX];
    int64_t extra;
    int r = path_of(dir, "value_head.safetensors", path, error);

    if (r < 0 || access(path, F_OK) < 0)
        return r;
    r = safetensors_open(path, &file, error);
    if (r < 0)
        return r;
    fc1 = safetensors_find(file, "value_head.fc1.weight");
    extra = fc1 && fc1->ndim == 2 ? fc1->dim[1] - model->config.hidden : -1;
    if (extra < 0 || extra > 64 || fc1->dim[0] < 1 || fc1->dim[0] > 1 << 16)
        return error_set(error, EINVAL, "%s: value_head.fc1.weight must be [width, %d or a few more]", path,
                         model->config.hidden);
    r = openvla_add_value_head(model, (int)fc1->dim[0], (int)extra, 0);
    if (r == -EEXIST && model->config.value_width == (int)fc1->dim[0] && model->config.value_inputs == (int)extra)
        r = 0;
    if (r < 0)
        return error_set(error, -r, "%s: the base has another value head: %s", path, strerror(-r));
    return read_head(&model->w->value, file, path, error);
}

int openvla_adapter_load(const char *dir, const char *base, int64_t halves_from, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    char nested[PATH_MAX];
    int r = openvla_adapter_base(base, nested, error);

    if (r != 0)
        return r < 0 ? r : error_set(error, EINVAL, "%s: its base %s is an adapter itself", dir, base);
    r = openvla_load_halves(base, halves_from, &model, error);
    if (r >= 0)
        r = load_value_head(model, dir, error);
    if (r >= 0)
        r = openvla_lora_load(model, dir, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(model);
    return 0;
}
