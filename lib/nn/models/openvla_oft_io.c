/* openvla_oft_io.c - the files beside an OpenVLA that make it an OpenVLA-OFT: which are there, what is in them, and back. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "base/atomic_file.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"
#include "nn/torch_file.h"

enum { LIBERO_CHUNK = 8, ALOHA_CHUNK = 25, ALOHA_DIMS = 14, MAX_WIDTH = 1 << 16 };

static const char *const file_names[OFT_FILES] = {"action_head", "proprio_projector", "scale_head", "vision_backbone"};
static const char *const kind_names[] = {"none", "l1", "tokens", "laplace"};

const char *oft_kind_name(enum oft_kind kind)
{
    return kind_names[kind];
}

/* ---- which files --------------------------------------------------------------------------------------------------------- */

void oft_files_close(struct oft_files *files)
{
    for (int i = 0; i < OFT_FILES; i++) {
        files->file[i] = safetensors_close(files->file[i]);
        files->saved[i] = torch_file_close(files->saved[i]);
        free(files->path[i]);
        files->path[i] = NULL;
    }
}

const struct st_tensor *oft_find(const struct oft_files *files, enum oft_file file, const char *name)
{
    const struct st_tensor *list;
    int n;

    if (files->file[file])
        return safetensors_find(files->file[file], name);
    list = torch_file_tensors(files->saved[file], &n);
    for (int i = 0; i < n; i++)
        if (!strcmp(list[i].name, name))
            return &list[i];
    return NULL;
}

/* The step of "--STEP_checkpoint.pt"; "latest" is behind all of them. -1: another name. */
static long saved_step(const char *text)
{
    int end = 0;
    long step;

    if (!strcmp(text, "--latest_checkpoint.pt"))
        return LONG_MAX;
    return sscanf(text, "--%ld_checkpoint.pt%n", &step, &end) == 1 && end && !text[end] ? step : -1;
}

/* NAME--STEP_checkpoint.pt with the largest step; "" if there is none. */
static int newest_saved(const char *dir, const char *name, char *ret, size_t size, struct error *error)
{
    size_t length = strlen(name);
    const struct dirent *entry;
    long newest = -1;
    DIR *d = opendir(dir);

    if (!d)
        return error_set(error, errno, "%s: %s", dir, strerror(errno));
    ret[0] = '\0';
    while ((entry = readdir(d))) {
        long step = strncmp(entry->d_name, name, length) ? -1 : saved_step(entry->d_name + length);

        if (step <= newest)
            continue;
        newest = step;
        snprintf(ret, size, "%s/%s", dir, entry->d_name);
    }
    closedir(d);
    return 0;
}

/* NAME.safetensors, else the training script's newest. */
static int open_file(const char *dir, enum oft_file file, struct oft_files *files, struct error *error)
{
    char path[4096];
    int r = 0;
    bool saved;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s.safetensors", dir, file_names[file]) >= sizeof(path))
        return error_set(error, ENAMETOOLONG, "%s: the name is too long", dir);
    saved = access(path, F_OK) < 0;
    if (saved)
        r = newest_saved(dir, file_names[file], path, sizeof(path), error);
    if (r < 0 || !path[0])
        return r;
    files->path[file] = strdup(path);
    if (!files->path[file])
        return error_set(error, ENOMEM, "out of memory");
    return saved ? torch_file_open(path, &files->saved[file], error) : safetensors_open(path, &files->file[file], error);
}

static int open_files(const char *dir, struct oft_files *files, struct error *error)
{
    int r = 0;

    for (int i = 0; i < OFT_FILES && r >= 0; i++)
        r = open_file(dir, (enum oft_file)i, files, error);
    return r;
}

int oft_look(const char *dir, int (*look)(const struct st_tensor *tensor, void *arg), void *arg, struct error *error)
{
    _cleanup_(oft_files_close) struct oft_files files = {0};
    int r = open_files(dir, &files, error);

    for (int f = 0; f < OFT_FILES; f++) {
        int n = files.file[f] ? files.file[f]->count : 0;
        const struct st_tensor *list = files.file[f] ? files.file[f]->list : files.saved[f] ? torch_file_tensors(files.saved[f], &n) : NULL;

        for (int i = 0; i < n && r >= 0; i++)
            r = look(&list[i], arg);
    }
    return r < 0 ? r : 0;
}

/* ---- config.json ------------------------------------------------------------------------------------------------------------
 */

int oft_configure(struct openvla *model, const json_t *config, struct error *error)
{
    const json_t *oft = json_object_get(config, "gantry_oft"), *kind = json_object_get(oft, "kind");
    struct oft_config *c = &model->config.oft;
    int64_t chunk, images;
    int r;

    *c = (struct oft_config){.kind = OFT_UNSAID};
    if (oft && !json_is_object(oft))
        return error_set(error, EINVAL, "gantry_oft: must be an object");
    for (size_t i = 0; kind && i < ARRAY_SIZE(kind_names); i++)
        if (json_is_string(kind) && !strcmp(json_string_value(kind), kind_names[i]))
            c->kind = (enum oft_kind)i;
    if (kind && c->kind == OFT_UNSAID)
        return error_set(error, EINVAL, "gantry_oft: kind must be none, l1, tokens or laplace");
    r = hf_integer(oft, "chunk", model->config.action_dims == ALOHA_DIMS ? ALOHA_CHUNK : LIBERO_CHUNK, &chunk, error);
    if (r >= 0)
        r = hf_integer(oft, "images", 0, &images, error);
    if (r < 0)
        return error_prefix(error, r, "gantry_oft");
    if (chunk < 1 || chunk * model->config.action_dims > OFT_MAX_SLOTS || images < 0 || images > OPENVLA_MAX_IMAGES)
        return error_set(error, EINVAL,
                         "gantry_oft: %lld actions of %d dims (at most %d numbers) from %lld pictures (at most %d)",
                         (long long)chunk, model->config.action_dims, OFT_MAX_SLOTS, (long long)images, OPENVLA_MAX_IMAGES);
    c->chunk = (int)chunk;
    c->images = (int)images;
    c->aloha = !json_object_get(oft, "chunk") && model->config.action_dims == ALOHA_DIMS;
    return 0;
}

/* ---- names and shapes ---------------------------------------------------------------------------------------------------------
 */

struct walk {
    struct openvla *model;
    const struct oft_files *files;
    enum oft_file file;
    struct error *error;
};

/* The shape in the file; -EINVAL: not there, or not of `ndim` dimensions. */
static int shape_of(const struct walk *w, const char *name, int ndim, int64_t *ret)
{
    const struct st_tensor *tensor = oft_find(w->files, w->file, name);

    if (!tensor || tensor->ndim != ndim || tensor->dim[0] < 1 || tensor->dim[0] > MAX_WIDTH)
        return error_set(w->error, EINVAL, "%s: tensor %s is missing, or has not %d dimensions", w->files->path[w->file], name,
                         ndim);
    memcpy(ret, tensor->dim, (size_t)ndim * sizeof(*ret));
    return 0;
}

static int add(const struct walk *w, const char *name, int64_t rows, int64_t cols, const struct param **to)
{
    const struct st_tensor *tensor = oft_find(w->files, w->file, name);
    int64_t dim[2] = {rows, cols};
    int ndim = cols ? 2 : 1;
    struct param *param;
    char full[128];

    if (!tensor || tensor->ndim != ndim || tensor->dim[0] != rows || (cols && tensor->dim[1] != cols) ||
        !dtype_is_weight(tensor->dtype))
        return error_set(w->error, EINVAL, "%s: tensor %s: %s, expected %lld%s%.0lld values of F32, F16 or BF16",
                         w->files->path[w->file], name, tensor ? "another shape or dtype" : "missing", (long long)rows,
                         cols ? "x" : "", (long long)cols);
    snprintf(full, sizeof(full), "%s.%s", file_names[w->file], name);
    param = param_add(&w->model->params, full, ndim, dim, cols != 0);
    if (!param)
        return error_set(w->error, ENOMEM, "%s: out of memory, or it is there already", full);
    *to = param;
    return 0;
}

/* name.weight (rows, cols) and name.bias (rows); cols 0: a norm. */
static int add_affine(const struct walk *w, const char *name, int64_t rows, int64_t cols, struct affine *to)
{
    char full[96];
    int r;

    snprintf(full, sizeof(full), "%s.weight", name);
    r = add(w, full, rows, cols, &to->weight);
    snprintf(full, sizeof(full), "%s.bias", name);
    return r < 0 ? r : add(w, full, rows, 0, &to->bias);
}

static int add_action_head(struct walk *w)
{
    struct oft_config *c = &w->model->config.oft;
    struct oft_weights *to = &w->model->w->oft;
    int64_t inputs = (int64_t)w->model->config.action_dims * w->model->config.hidden, width[2];
    int r;

    r = shape_of(w, "model.fc1.weight", 2, width);
    if (r < 0)
        return r;
    r = add_affine(w, "model.layer_norm1", inputs, 0, &to->norm1);
    if (r >= 0)
        r = add_affine(w, "model.fc1", width[0], inputs, &to->fc1);
    for (c->head_blocks = 0; r >= 0; c->head_blocks++) {
        char name[64];

        snprintf(name, sizeof(name), "model.mlp_resnet_blocks.%d.ffn.1.weight", c->head_blocks);
        if (!oft_find(w->files, w->file, name))
            break;
        if (c->head_blocks == OFT_MAX_BLOCKS)
            return error_set(w->error, EINVAL, "%s: more than %d residual blocks", w->files->path[w->file], OFT_MAX_BLOCKS);
        snprintf(name, sizeof(name), "model.mlp_resnet_blocks.%d.ffn.0", c->head_blocks);
        r = add_affine(w, name, width[0], 0, &to->block_norm[c->head_blocks]);
        snprintf(name, sizeof(name), "model.mlp_resnet_blocks.%d.ffn.1", c->head_blocks);
        if (r >= 0)
            r = add_affine(w, name, width[0], width[0], &to->block[c->head_blocks]);
    }
    if (r >= 0)
        r = add_affine(w, "model.layer_norm2", width[0], 0, &to->norm2);
    if (r >= 0)
        r = add_affine(w, "model.fc2", w->model->config.action_dims, width[0], &to->fc2);
    c->head_width = (int)width[0];
    return r;
}

static int add_proprio(struct walk *w)
{
    int64_t shape[2], hidden = w->model->config.hidden;
    int r = shape_of(w, "fc1.weight", 2, shape);

    if (r >= 0 && (shape[1] < 1 || shape[1] > OPENVLA_MAX_PROPRIO))
        r = error_set(w->error, EINVAL, "%s: a robot state of %lld numbers; 1 to %d are supported", w->files->path[w->file],
                      (long long)shape[1], OPENVLA_MAX_PROPRIO);
    if (r >= 0)
        r = add_affine(w, "fc1", hidden, shape[1], &w->model->w->oft.proprio[0]);
    if (r >= 0)
        r = add_affine(w, "fc2", hidden, hidden, &w->model->w->oft.proprio[1]);
    if (r >= 0)
        w->model->config.oft.proprio = (int)shape[1];
    return r;
}

static int add_scale_head(struct walk *w)
{
    struct head *head = &w->model->w->oft.scale;
    int64_t shape[2], inputs = (int64_t)w->model->config.action_dims * w->model->config.hidden;
    int r = shape_of(w, "fc1.weight", 2, shape);

    if (r >= 0)
        r = add_affine(w, "fc1", shape[0], inputs, &head->fc1);
    if (r >= 0)
        r = add_affine(w, "fc2", w->model->config.action_dims, shape[0], &head->fc2);
    if (r >= 0)
        w->model->config.oft.scale_width = (int)shape[0];
    return r;
}

static int add_film(struct walk *w)
{
    return film_register(w->model, w->files, w->error);
}

/* Between min and max instead of the quantiles. */
static int use_extremes(struct openvla *model, const char *dir, struct error *error)
{
    int r;

    for (int i = 0; i < model->n_stats; i++) {
        struct action_stats *s = &model->stats[i];

        if (!s->extremes)
            return error_set(error, EINVAL, "%s: dataset %s: an OpenVLA-OFT of %d dims needs min and max beside q01 and q99, or "
                             "\"gantry_oft\": {\"chunk\": N} in config.json, which says that it is not ALOHA's", dir, s->key,
                             ALOHA_DIMS);
        memcpy(s->q01, s->min, sizeof(s->q01));
        memcpy(s->q99, s->max, sizeof(s->q99));
        memcpy(s->proprio_low, s->proprio_min, sizeof(s->proprio_low));
        memcpy(s->proprio_high, s->proprio_max, sizeof(s->proprio_high));
        if ((r = openvla_check_range("action", "min", s->q01, "max", s->q99, s->mask, s->dims, error)) < 0 ||
            (r = openvla_check_range("proprio", "min", s->proprio_low, "max", s->proprio_high, NULL, s->proprio, error)) < 0)
            return error_prefix(error, r, "%s: dataset %s", dir, s->key);
    }
    return 0;
}

/* OpenVLA-OFT's code beside the weights. It answers in chunks also where it left no head (in tokens), but its scripts put the code
 * into any directory that they read, a base model's, too: it says that the kind is unknown, and not which it is. */
static bool has_code_of_chunks(const char *dir)
{
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX];
    size_t n;

    return snprintf(path, sizeof path, "%s/modeling_prismatic.py", dir) < (int)sizeof path &&
           file_read(path, 1 << 20, &text, &n) == 0 && strstr(text, "NUM_ACTIONS_CHUNK");
}

/* What the files say where config.json says nothing; what must be there for what it says. */
static int settle(struct openvla *model, const char *dir, const struct oft_files *files, struct error *error)
{
    struct oft_config *c = &model->config.oft;
    bool said_nothing = c->kind == OFT_UNSAID;

    if (c->kind == OFT_UNSAID)
        c->kind = !files->path[OFT_ACTION_HEAD] ? OFT_NONE : files->path[OFT_SCALE_HEAD] ? OFT_LAPLACE : OFT_L1;
    if (c->kind == OFT_NONE && said_nothing && files->path[OFT_VISION])
        return error_set(error, ENOENT,
                         "%s: modulated vision towers (FiLM), but no action_head beside them: the kind is unknown; say "
                         "\"gantry_oft\": {\"kind\": \"tokens\"} in config.json, or none to leave them out",
                         files->path[OFT_VISION]);
    if (c->kind == OFT_NONE && said_nothing && has_code_of_chunks(dir))
        return error_set(error, ENOENT,
                         "%s: modeling_prismatic.py is OpenVLA-OFT's, but there is no action_head: does it answer in chunks (as "
                         "SimpleVLA-RL's) or token by token? Put into config.json \"gantry_oft\": {\"kind\": \"tokens\", "
                         "\"chunk\": %d}, or \"gantry_oft\": {\"kind\": \"none\"}", dir, c->chunk);
    if (c->kind == OFT_NONE) {
        *c = (struct oft_config){.kind = OFT_NONE};
        return 0;
    }
    if ((c->kind == OFT_L1 || c->kind == OFT_LAPLACE) && !files->path[OFT_ACTION_HEAD])
        return error_set(error, ENOENT, "%s: kind %s needs action_head.safetensors or action_head--STEP_checkpoint.pt", dir,
                         kind_names[c->kind]);
    if (c->kind == OFT_LAPLACE && !files->path[OFT_SCALE_HEAD])
        return error_set(error, ENOENT, "%s: kind laplace needs scale_head.safetensors", dir);
    if (c->images == 0)
        c->images = files->path[OFT_PROPRIO] ? 2 : 1;
    return c->aloha ? use_extremes(model, dir, error) : 0;
}

int oft_register(struct openvla *model, const char *dir, struct oft_files *files, struct error *error)
{
    static int (*const adders[OFT_FILES])(struct walk * w) = {add_action_head, add_proprio, add_scale_head, add_film};
    struct walk w = {.model = model, .files = files, .error = error};
    int r = open_files(dir, files, error);

    if (r >= 0)
        r = settle(model, dir, files, error);
    for (int i = 0; i < OFT_FILES && r >= 0 && model->config.oft.kind != OFT_NONE; i++) {
        w.file = (enum oft_file)i;
        if (files->path[i])
            r = adders[i](&w);
    }
    return r;
}

static int read_head(struct openvla *model, const struct oft_files *files, enum oft_file f, struct error *error)
{
    size_t n = strlen(file_names[f]);

    for (int i = 0; i < model->params.count; i++) {
        const struct param *param = model->params.list[i];
        const struct st_tensor *tensor;

        if (strncmp(param->name, file_names[f], n) != 0 || param->name[n] != '.')
            continue;
        tensor = oft_find(files, f, param->name + n + 1);
        if (!tensor || st_not_finite(tensor) >= 0)
            return error_set(error, EINVAL, "%s: tensor %s: a value is not finite", files->path[f], param->name + n + 1);
        (void)st_read_f32(tensor, 0, tensor->numel, param->value);
    }
    return 0;
}

int oft_read(struct openvla *model, const struct oft_files *files, struct error *error)
{
    int r = 0;

    for (int f = 0; f < OFT_VISION && model->config.oft.kind != OFT_NONE && r >= 0; f++)
        r = files->path[f] ? read_head(model, files, (enum oft_file)f, error) : 0;
    return r >= 0 && model->config.oft.film ? film_read(model, files, error) : r;
}

/* ---- a model that is loaded already ------------------------------------------------------------------------------ */

/* The file's own parameter, not one that it only replaces. */
static bool is_of(const struct param *param, enum oft_file file)
{
    size_t length = strlen(file_names[file]);

    return !strncmp(param->name, file_names[file], length) && param->name[length] == '.' &&
        (file != OFT_VISION || film_is(param));
}

static int fits(const struct openvla *model, const struct oft_files *files, enum oft_file f, struct error *error)
{
    int n = 0;

    for (int i = 0; i < model->params.count; i++) {
        const struct param *param = model->params.list[i];
        const char *name = f == OFT_VISION ? param->name : param->name + strlen(file_names[f]) + 1;
        const struct st_tensor *tensor;

        if (!is_of(param, f))
            continue;
        tensor = oft_find(files, f, name);
        if (!tensor || tensor->numel != param->numel || !dtype_is_weight(tensor->dtype))
            return error_set(error, EINVAL, "%s: tensor %s: %s, the base has %lld values of it", files->path[f], name,
                             tensor ? "another shape or dtype" : "missing", (long long)param->numel);
        n++;
    }
    return n ? 0 : error_set(error, EINVAL, "%s: the base %s has no such part: it is for another one", files->path[f],
                             model->dir);
}

bool oft_trains_whole(const struct openvla *model)
{
    for (int i = 0; i < model->params.count; i++)
        for (int f = 0; f < OFT_FILES; f++)
            if (is_of(model->params.list[i], (enum oft_file)f))
                return true;
    return false;
}

int oft_read_trained(struct openvla *model, const char *dir, struct error *error)
{
    _cleanup_(oft_files_close) struct oft_files files = {0};
    int r = open_files(dir, &files, error);

    for (int f = 0; f < OFT_FILES && r >= 0; f++)
        r = files.path[f] ? fits(model, &files, (enum oft_file)f, error) : 0;
    for (int f = 0; f < OFT_VISION && r >= 0; f++)
        r = files.path[f] ? read_head(model, &files, (enum oft_file)f, error) : 0;
    return r >= 0 && files.path[OFT_VISION] ? film_read(model, &files, error) : r;
}

int oft_attach(struct openvla *model, const char *dir, const struct oft_config *how, struct error *error)
{
    _cleanup_(oft_files_close) struct oft_files files = {0};
    int64_t held = model->params.numel;
    int r;

    model->config.oft = (struct oft_config){.kind = how->kind, .chunk = how->chunk, .images = how->images};
    if (how->chunk < 1 || oft_slots(&model->config) > OFT_MAX_SLOTS)
        return error_set(error, EINVAL, "a chunk of %d actions of %d dims; 1 to %d numbers", how->chunk,
                         model->config.action_dims, OFT_MAX_SLOTS);
    r = oft_register(model, dir, &files, error);
    if (r >= 0 && params_grow(&model->params, held) < 0)
        r = error_set(error, ENOMEM, "out of memory");
    return r < 0 ? r : oft_read(model, &files, error);
}

/* ---- and back ---------------------------------------------------------------------------------------------------- */

int oft_save(const struct openvla *model, const char *dir, enum dtype dtype, struct error *error)
{
    for (int f = 0; f < OFT_FILES; f++) {
        _cleanup_free_ struct st_write *list = calloc((size_t)model->params.count + 1, sizeof(*list));
        size_t length = strlen(file_names[f]);
        char path[4096];
        int n = 0, r;

        if (!list)
            return error_set(error, ENOMEM, "out of memory");
        for (int i = 0; i < model->params.count; i++) {
            const struct param *param = model->params.list[i];

            if (!is_of(param, (enum oft_file)f))
                continue;
            list[n] =
                (struct st_write){.name = f == OFT_VISION ? param->name : param->name + length + 1, .dtype = dtype,
                                  .ndim = param->ndim, .values = param->value};
            memcpy(list[n++].dim, param->dim, sizeof(param->dim));
        }
        if ((size_t)snprintf(path, sizeof(path), "%s/%s.safetensors", dir, file_names[f]) >= sizeof(path))
            return error_set(error, ENAMETOOLONG, "%s: the name is too long", dir);
        r = n ? safetensors_write(path, list, n, error) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}
