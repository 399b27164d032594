/* source_npz.c - one numpy archive an episode: what converters write, and `gantry data export`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/npy.h"
#include "data/source.h"

#define IMAGES "image,wrist_image"

static int npz_open(struct source *s, struct error *error)
{
    (void)error;
    s->total = s->n_files;
    s->state = calloc(1, sizeof(int)); /* the next file */
    return s->state ? 0 : error_set(error, ENOMEM, "out of memory");
}

/* An array of numbers (T, n) into doubles. */
static int read_numbers(const struct npy *array, const char *name, int steps, int dims, double *ret, struct error *error)
{
    if (array->kind == 'U' || array->dims != 2 || array->shape[0] != (size_t)steps || array->shape[1] != (size_t)dims)
        return error_set(error, EINVAL, "%s: expected numbers of shape [%d,%d]", name, steps, dims);
    for (size_t i = 0; i < array->count; i++)
        ret[i] = npy_number(array, i);
    return 0;
}

static int read_text(const struct zip_archive *zip, const char *name, char *ret, size_t n, bool needed, struct error *error)
{
    struct npy array = {0};
    int r = npy_read(zip, name, &array, error);

    if (r == -ENOENT && !needed) {
        error->errnum = 0;
        return 0;
    }
    if (r < 0)
        return r;
    r = array.kind == 'U' && array.count == 1 ? npy_text(&array, 0, ret, n) : -EINVAL;
    npy_release(&array);
    return r < 0 ? error_set(error, -r, "%s: expected one text of less than %zu bytes", name, n) : 0;
}

static int read_pictures(const struct zip_archive *zip, const char *name, int camera, struct source_episode *e,
                         struct error *error)
{
    struct npy array = {0};
    int r = npy_read(zip, name, &array, error);
    size_t one;

    if (r < 0)
        return r;
    one = array.dims == 4 ? array.shape[1] * array.shape[2] * 3 : 0;
    if (array.kind != 'u' || array.size != 1 || array.dims != 4 || array.shape[0] != (size_t)e->steps || array.shape[3] != 3 ||
        !one)
        r = error_set(error, EINVAL, "%s: expected u8 of shape [%d,height,width,3]", name, e->steps);
    else
        r = image_check_size((int64_t)array.shape[1], (int64_t)array.shape[2], name, error);
    for (int t = 0; one && t < e->steps && r >= 0; t++) {
        struct image *picture = &e->pictures[t * e->cameras + camera];

        *picture = (struct image){(int)array.shape[1], (int)array.shape[2], malloc(one)};
        if (picture->rgb)
            memcpy(picture->rgb, array.elements + (size_t)t * one, one);
        else
            r = error_set(error, ENOMEM, "out of memory");
    }
    npy_release(&array);
    return r;
}

/* An episode that does not say whether it succeeded did. */
static int read_success(const struct zip_archive *zip, bool *ret, struct error *error)
{
    _cleanup_(npy_release) struct npy success = {0};
    int r;

    *ret = true;
    if (!zip_find(zip, "success.npy"))
        return 0;
    r = npy_read(zip, "success", &success, error);
    if (r < 0)
        return r;
    if (success.kind == 'U' || success.count != 1)
        return error_set(error, EINVAL, "success: expected one truth value");
    *ret = npy_number(&success, 0) != 0;
    return 0;
}

static int count_or(const struct npy *array, int dim, int otherwise)
{
    return array->dims == 2 && array->shape[dim] <= INT32_MAX ? (int)array->shape[dim] : otherwise;
}

/* Sizes and numbers first, then pictures camera by camera. */
static int read_episode(const struct source *s, const struct zip_archive *zip, struct source_episode *e, struct error *error)
{
    const char *images = s->options.images && s->options.images[0] ? s->options.images : IMAGES;
    const char *action_name = s->options.action ? s->options.action : "action";
    const char *state_name = s->options.state ? s->options.state : "state";
    const char *instruction = s->options.instruction ? s->options.instruction : "instruction";
    _cleanup_(npy_release) struct npy action = {0}, state = {0};
    char name[128], entry[140];
    int r = npy_read(zip, action_name, &action, error);

    if (r < 0 || !action.count)     /* no steps */
        return r;
    e->steps = count_or(&action, 0, 0);
    e->dims = count_or(&action, 1, 0);
    snprintf(entry, sizeof entry, "%s.npy", state_name);
    if (zip_find(zip, entry)) {
        r = npy_read(zip, state_name, &state, error);
        if (r < 0)
            return r;
        e->state_dims = count_or(&state, 1, -1);
    }
    for (int i = 0; source_name_of(images, i, name, sizeof name); i++) {
        snprintf(entry, sizeof entry, "%s.npy", name);
        if (images == (const char *)IMAGES && i > 0 && !zip_find(zip, entry))
            break;
        e->cameras++;
    }
    r = source_episode_reserve(e, error);
    if (r >= 0)
        r = read_numbers(&action, action_name, e->steps, e->dims, e->action, error);
    if (r >= 0 && e->state_dims)
        r = read_numbers(&state, state_name, e->steps, e->state_dims, e->state, error);
    for (int i = 0; i < e->cameras && r >= 0; i++) {
        source_name_of(images, i, name, sizeof name);
        r = read_pictures(zip, name, i, e, error);
    }
    if (r >= 0)
        r = read_text(zip, instruction, e->instruction, sizeof e->instruction, true, error);
    if (r >= 0)
        r = read_text(zip, "task", e->task, sizeof e->task, false, error);
    return r < 0 ? r : read_success(zip, &e->success, error);
}

static int npz_next(struct source *s, struct source_episode *e, struct error *error)
{
    int *next = s->state, r;
    _cleanup_(zip_closep) struct zip_archive *zip = NULL;

    if (*next >= s->n_files)
        return 0;
    snprintf(e->where, sizeof e->where, "%s", s->files[(*next)++]);
    r = zip_open(e->where, &zip, error);
    if (r < 0)
        return r;
    r = read_episode(s, zip, e, error);
    if (r < 0)
        return strncmp(error->text, e->where, strlen(e->where)) ? error_prefix(error, r, "%s", e->where) : r;
    return 1;
}

static void npz_close(struct source *s) { free(s->state); }

const struct source_driver source_npz = {"npz", ".npz", npz_open, npz_next, npz_close};
