/* hf_shards.c - the weight files of a model directory, opened together; index and shards must tell the same story. */
#include <errno.h>
#include <stdio.h>

#include "base/strbuf.h"
#include "nn/hf.h"

#define INDEX "model.safetensors.index.json"
#define ALONE "model.safetensors"

static int add_file(const char *path, struct hf_shards *shards, struct error *error)
{
    struct safetensors **grown = reallocarray(shards->file, (size_t)shards->n + 1, sizeof(*grown));
    int r;

    if (!grown)
        return error_set(error, ENOMEM, "out of memory");
    shards->file = grown;
    r = safetensors_open(path, &shards->file[shards->n], error);
    if (r >= 0)
        shards->n++;
    return r;
}

static int open_shard(const char *dir, const char *name, struct hf_shards *shards, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;

    strbuf_addf(&path, "%s/%s", dir, name);
    return path.failed ? error_set(error, ENOMEM, "out of memory") : add_file(path.text, shards, error);
}

int hf_shards_open_file(const char *path, struct hf_shards *ret, struct error *error)
{
    _cleanup_(hf_shards_close) struct hf_shards shards = {.total_size = -1};
    int r = add_file(path, &shards, error);

    if (r < 0)
        return r;
    *ret = shards;
    shards = (struct hf_shards) {0};
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int by_path(const void *a, const void *b)
{
    return strcmp((*(struct safetensors *const *)a)->path, (*(struct safetensors *const *)b)->path);
}

/* Every file that the index names, once. */
static int open_named(const char *dir, const json_t *map, struct hf_shards *shards, struct error *error)
{
    _cleanup_json_ json_t *opened = json_object();
    const char *tensor;
    json_t *file;

    json_object_foreach((json_t *)(uintptr_t)map, tensor, file) {
        const char *name = json_string_value(file);
        int r;

        if (!name || strchr(name, '/') || !*name)
            return error_set(error, EINVAL, "%s/" INDEX ": tensor %s: found %s, expected the name of a file in this directory",
                             dir, tensor, name ? name : "no name");
        if (json_object_get(opened, name))
            continue;
        if (json_object_set_new(opened, name, json_true()) < 0)
            return error_set(error, ENOMEM, "out of memory");
        r = open_shard(dir, name, shards, error);
        if (r == -ENOENT)
            return error_set(error, ENOENT, "%s/%s: the file is not there; " INDEX " puts tensor %s into it", dir, name, tensor);
        if (r < 0)
            return r;
    }
    qsort(shards->file, (size_t)shards->n, sizeof(struct safetensors *), by_path);
    return 0;
}

/* Where both are, transformers reads model.safetensors and leaves the index aside. */
static int check_alone(const char *dir, const struct hf_shards *shards, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;

    strbuf_addf(&path, "%s/" ALONE, dir);
    if (path.failed)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < shards->n; i++)
        if (!strcmp(shards->file[i]->path, path.text))
            return 0;
    if (access(path.text, F_OK) < 0)
        return 0;
    return error_set(error, EINVAL, "%s: " INDEX " beside it does not name it: these are two models, remove one of them",
                     path.text);
}

/* What the index promises is there, and what is there was promised: so no tensor can be in two files. */
static int check_index(const char *dir, const json_t *map, const struct hf_shards *shards, struct error *error)
{
    const char *tensor;
    json_t *file;

    for (int i = 0; i < shards->n; i++)
        for (int k = 0; k < shards->file[i]->count; k++) {
            const char *name = shards->file[i]->list[k].name, *path = shards->file[i]->path;
            const char *promised = json_string_value(json_object_get(map, name));

            if (!promised || strcmp(promised, base_name(path)))
                return error_set(error, EINVAL, "%s: tensor %s is here, " INDEX " %s%s", path, name,
                                 promised ? "puts it into " : "does not name it", promised ? promised : "");
        }
    json_object_foreach((json_t *)(uintptr_t)map, tensor, file)
        if (!hf_shards_find(shards, tensor))
            return error_set(error, ENOENT, "%s/%s: tensor %s is missing; " INDEX " puts it there", dir, json_string_value(file),
                             tensor);
    return 0;
}

static int open_indexed(const char *dir, struct hf_shards *shards, struct error *error)
{
    _cleanup_json_ json_t *index = NULL;
    const json_t *map, *total;
    int r;

    r = hf_json(dir, INDEX, &index, error);
    if (r < 0)
        return r;
    map = json_object_get(index, "weight_map");
    total = json_object_get(json_object_get(index, "metadata"), "total_size");
    if (!json_is_object(map) || !json_object_size(map))
        return error_set(error, EINVAL, "%s/" INDEX ": found no weight_map, expected tensor names with the files they are in",
                         dir);
    if (json_is_integer(total))
        shards->total_size = json_integer_value(total);
    r = open_named(dir, map, shards, error);
    if (r >= 0)
        r = check_alone(dir, shards, error);
    return r < 0 ? r : check_index(dir, map, shards, error);
}

int hf_shards_open(const char *dir, struct hf_shards *ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_(hf_shards_close) struct hf_shards shards = {.total_size = -1};
    int r;

    strbuf_addf(&path, "%s/" INDEX, dir);
    if (access(path.text, F_OK) == 0) {
        r = open_indexed(dir, &shards, error);
    } else {
        r = open_shard(dir, ALONE, &shards, error);
        if (r == -ENOENT)
            r = error_set(error, ENOENT, "%s: found neither " ALONE " nor " INDEX ", expected one of them", dir);
    }
    if (r < 0)
        return r;
    *ret = TAKE_STRUCT(shards);
    return 0;
}

void hf_shards_close(struct hf_shards *shards)
{
    for (int i = 0; i < shards->n; i++)
        safetensors_close(shards->file[i]);
    free(shards->file);
    *shards = (struct hf_shards) {0};
}

const struct st_tensor *hf_shards_find(const struct hf_shards *shards, const char *name)
{
    for (int i = 0; i < shards->n; i++) {
        const struct st_tensor *tensor = safetensors_find(shards->file[i], name);

        if (tensor)
            return tensor;
    }
    return NULL;
}

const char *hf_shards_path(const struct hf_shards *shards, const struct st_tensor *tensor, int *ret_file)
{
    for (int i = 0; i < shards->n; i++)
        if (tensor >= shards->file[i]->list && tensor < shards->file[i]->list + shards->file[i]->count) {
            if (ret_file)
                *ret_file = i;
            return shards->file[i]->path;
        }
    return NULL;
}

int hf_check_finite(const struct hf_shards *shards, const struct st_tensor *tensor, struct hf_problems *all, struct error *error)
{
    int64_t bad = st_not_finite(tensor), rest = bad, place[ARRAY_SIZE(tensor->dim)];
    char where[128];
    float value;

    if (bad < 0)
        return 0;
    (void)st_read_f32(tensor, bad, 1, &value);
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        place[d] = rest % tensor->dim[d];
        rest /= tensor->dim[d];
    }
    shape_text(place, tensor->ndim, where, sizeof(where));
    return hf_problem(all, error, EINVAL, "%s: tensor %s: value [%s] is %g, expected finite numbers",
                      hf_shards_path(shards, tensor, NULL), tensor->name, where, (double)value);
}
