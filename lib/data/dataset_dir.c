#include "data/dataset_dir.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/json_write.h"
#include "run/trajectory.h"

static int join(const char *dir, const char *file, char ret[4096], struct error *error)
{
    return snprintf(ret, 4096, "%s/%s", dir, file) < 4096 ? 0 : error_set(error, ENAMETOOLONG, "%s: the path is too long", dir);
}

/* ---- writing ------------------------------------------------------------------------------------- */

int dataset_create(const char *path, struct dataset_writer *ret, struct error *error)
{
    _cleanup_(dataset_writer_release) struct dataset_writer writer = {0};
    char journal[4096];
    int r = staged_dir_open(&writer.dir, path, error);

    if (r >= 0)
        r = join(writer.dir.temporary, "journal", journal, error);
    if (r >= 0)
        r = journal_open(journal, DATASET_RUN, JOURNAL_WRITE, &writer.journal, NULL, error);
    if (r >= 0)
        r = journal_segment(writer.journal, 0, 0, error);
    if (r < 0)
        return r;
    *ret = TAKE_STRUCT(writer);
    return 0;
}

static int same_shape(struct dataset_info *info, const Gantry__Trajectory *t, struct error *error)
{
    int cameras = (int)MAX(t->images, 1u), state = (int)(t->n_state / (t->steps + 1));

    if (!info->episodes) {
        info->height = (int)t->height;
        info->width = (int)t->width;
        info->cameras = cameras;
        info->state = state;
        info->action_dims = (int)t->action_dims;
        snprintf(info->image_chain, sizeof info->image_chain, "%s", t->image_chain);
        return 0;
    }
    if (info->height != (int)t->height || info->width != (int)t->width || info->cameras != cameras)
        return error_set(error, EINVAL, "%d pictures of %ux%u, the episodes before have %d of %dx%d", cameras, t->height,
                         t->width, info->cameras, info->height, info->width);
    if (info->state != state || info->action_dims != (int)t->action_dims)
        return error_set(error, EINVAL, "actions of %u numbers and a state of %d, the episodes before have %d and %d",
                         t->action_dims, state, info->action_dims, info->state);
    return 0;
}

int dataset_put(struct dataset_writer *w, Gantry__Trajectory *t, const uint8_t *frames, size_t n_frames, struct error *error)
{
    _cleanup_free_ uint8_t *meta = NULL;
    uint8_t digest[SHA256_SIZE];
    size_t n;
    int r = same_shape(&w->info, t, error);

    if (r < 0)
        return r;
    t->run = DATASET_RUN;
    t->episode = (uint64_t)w->info.episodes + 1;
    n = gantry__trajectory__get_packed_size(t);
    meta = malloc(n);
    if (!meta)
        return error_set(error, ENOMEM, "out of memory");
    gantry__trajectory__pack(t, meta);
    r = journal_append(w->journal, t->episode, meta, n, frames, n_frames, digest, error);
    if (r < 0)
        return r;
    w->info.episodes++;
    w->info.steps += (int)t->steps;
    return 0;
}

static int write_info(const struct dataset_writer *w, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct json_writer j = {.out = &text};
    char path[4096];
    int r;

    json_open(&j, NULL, '{');
    json_text(&j, "format", DATASET_FORMAT);
    json_text(&j, "source", w->info.source);
    json_text(&j, "name", w->info.name);
    json_text(&j, "image_chain", w->info.image_chain);
    json_signed(&j, "episodes", w->info.episodes);
    json_signed(&j, "steps", w->info.steps);
    json_signed(&j, "height", w->info.height);
    json_signed(&j, "width", w->info.width);
    json_signed(&j, "cameras", w->info.cameras);
    json_signed(&j, "state", w->info.state);
    json_signed(&j, "action_dims", w->info.action_dims);
    json_bool(&j, "gripper", w->info.gripper);
    json_signed(&j, "no_ops", w->info.no_ops);
    json_signed(&j, "failed", w->info.failed);
    json_signed(&j, "empty", w->info.empty);
    json_close(&j, '}');
    strbuf_addc(&text, '\n');
    r = text.failed ? error_set(error, ENOMEM, "out of memory") : join(w->dir.temporary, "dataset.json", path, error);
    if (r < 0)
        return r;
    r = file_write(path, text.text, text.length);
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}

int dataset_finish(struct dataset_writer *w, const char *statistics, struct error *error)
{
    char path[4096];
    int r = w->info.episodes ? 0 : error_set(error, ENODATA, "%s: no episode is left to write", w->dir.path);

    if (r >= 0)
        r = journal_sync(w->journal, error);
    if (r >= 0)
        r = journal_seal(w->journal, 0, 0, error);
    if (r >= 0)
        r = write_info(w, error);
    if (r >= 0)
        r = join(w->dir.temporary, "dataset_statistics.json", path, error);
    if (r < 0)
        return r;
    r = file_write(path, statistics, strlen(statistics));
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    w->journal = journal_close(w->journal);
    return staged_dir_commit(&w->dir, error);
}

void dataset_writer_release(struct dataset_writer *w)
{
    w->journal = journal_close(w->journal);
    staged_dir_release(&w->dir);
}

/* ---- reading ------------------------------------------------------------------------------------- */

static int read_count(const json_t *root, const char *key, int low, int *ret)
{
    json_int_t value = json_integer_value(json_object_get(root, key));

    if (!json_is_integer(json_object_get(root, key)) || value < low || value > INT32_MAX)
        return -EBADMSG;
    *ret = (int)value;
    return 0;
}

static int read_info(const char *dir, struct dataset_info *ret, struct error *error)
{
    _cleanup_(json_decrefp) json_t *root = NULL;
    const char *format, *source, *name, *chain;
    struct dataset_info info = {0};
    json_error_t why;
    char path[4096];
    int r = join(dir, "dataset.json", path, error);

    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return error_set(error, ENOENT, "%s: not there; `gantry data import` makes such a directory", path);
    root = json_load_file(path, 0, &why);
    if (!root)
        return error_set(error, EBADMSG, "%s:%d: %s", path, why.line, why.text);
    format = json_string_value(json_object_get(root, "format"));
    if (!format || strcmp(format, DATASET_FORMAT))
        return error_set(error, EINVAL, "%s: format \"%.40s\", expected \"%s\"", path, format ? format : "", DATASET_FORMAT);
    source = json_string_value(json_object_get(root, "source"));
    name = json_string_value(json_object_get(root, "name"));
    chain = json_string_value(json_object_get(root, "image_chain"));
    if (!source || !name || !chain || read_count(root, "episodes", 1, &info.episodes) < 0 ||
        read_count(root, "steps", 1, &info.steps) < 0 || read_count(root, "height", 1, &info.height) < 0 ||
        read_count(root, "width", 1, &info.width) < 0 || read_count(root, "cameras", 1, &info.cameras) < 0 ||
        read_count(root, "state", 0, &info.state) < 0 || read_count(root, "action_dims", 1, &info.action_dims) < 0 ||
        read_count(root, "no_ops", 0, &info.no_ops) < 0 || read_count(root, "failed", 0, &info.failed) < 0)
        return error_set(error, EBADMSG, "%s: a field is missing or out of range", path);
    (void)read_count(root, "empty", 0, &info.empty);        /* earlier builds refused such */
    info.gripper = !json_is_false(json_object_get(root, "gripper"));        /* earlier builds: always */
    snprintf(info.source, sizeof info.source, "%s", source);
    snprintf(info.name, sizeof info.name, "%s", name);
    snprintf(info.image_chain, sizeof info.image_chain, "%s", chain);
    *ret = info;
    return 0;
}

int dataset_open(const char *path, struct dataset_dir **ret, struct error *error)
{
    _cleanup_(dataset_closep) struct dataset_dir *dir = calloc(1, sizeof *dir);
    char journal[4096];
    size_t n = 0;
    int r;

    if (!dir || !(dir->path = strdup(path)))
        return error_set(error, ENOMEM, "out of memory");
    r = read_info(path, &dir->info, error);
    if (r >= 0)
        r = join(path, "journal", journal, error);
    if (r >= 0)
        r = journal_open(journal, DATASET_RUN, JOURNAL_READ, &dir->journal, NULL, error);
    if (r < 0)
        return r;
    r = journal_list(dir->journal, 0, JOURNAL_ALL, &dir->entries, &n);
    if (r < 0)
        return error_set(error, -r, "%s: its journal cannot be listed", path);
    if (n != (size_t)dir->info.episodes)
        return error_set(error, EBADMSG, "%s: %zu episodes in the journal, dataset.json says %d", path, n, dir->info.episodes);
    *ret = TAKE_PTR(dir);
    return 0;
}

struct dataset_dir *dataset_close(struct dataset_dir *dir)
{
    if (!dir)
        return NULL;
    journal_close(dir->journal);
    free(dir->entries);
    free(dir->path);
    free(dir);
    return NULL;
}

int dataset_get(const struct dataset_dir *dir, int i, Gantry__Trajectory **ret, uint8_t **ret_frames, size_t *ret_n,
                struct error *error)
{
    return trajectory_load(dir->journal, dir->entries[i].episode, ret, ret_frames, ret_n, error);
}

void dataset_digest(const struct dataset_dir *dir, uint8_t ret[SHA256_SIZE])
{
    struct sha256 sha;

    sha256_init(&sha);
    for (int i = 0; i < dir->info.episodes; i++)
        sha256_add(&sha, dir->entries[i].digest, SHA256_SIZE);
    sha256_end(&sha, ret);
}
