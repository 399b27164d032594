/* source_hdf5.c - LIBERO's demonstration files, through libhdf5. Pictures and states are those before each action.
 *
 * The robot's state is what OpenVLA's data has: end-effector position and axis-angle (obs/ee_states), fingers
 * (obs/gripper_states). */
#include <errno.h>
#define H5_USE_110_API 1        /* Debian 12 has 1.10; from 1.12 on the same names mean other functions */
#include <hdf5.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/libero_instruction.h"
#include "data/source.h"

#define IMAGES "agentview_rgb,eye_in_hand_rgb"
#define STATE "ee_states,gripper_states"

enum { MAX_DEMOS = 100000, SMALL = 1 << 20, MOST_DEFLATED = 1032 };

struct reading {
    int file, demo;
    hid_t id; /* of the open file, -1 */
    int *numbers;
    int n;                                     /* its demonstrations, ascending */
    char task[NAME_MAX + 1], instruction[256]; /* the file's */
    bool upright;                              /* its pictures begin with the top row */
};

/* ---- libhdf5's ways ------------------------------------------------------------------------------ */

static herr_t take_line(unsigned n, const H5E_error2_t *e, void *ret)
{
    (void)n;
    if (e->desc && e->maj_num != H5E_PLUGIN) /* where it looked for a filter that it has not */
        snprintf(ret, 160, "%s", e->desc);
    return 0;
}

/* What libhdf5 says of the last failure: the innermost of its lines has the cause, those around it only what was tried. */
static const char *why(char ret[160])
{
    snprintf(ret, 160, "not readable");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, take_line, ret);
    return ret;
}

struct dataset {
    hid_t id, space;
    int rank;
    hsize_t shape[8];
};

static void dataset_release(struct dataset *d)
{
    if (d->space >= 0)
        H5Sclose(d->space);
    if (d->id >= 0)
        H5Dclose(d->id);
}

/* "[81,49152]" */
static const char *shape_text(const struct dataset *d, char ret[200])
{
    int n = snprintf(ret, 200, "[");

    for (int i = 0; i < d->rank; i++)
        n += snprintf(ret + n, (size_t)(200 - n), "%s%llu", i ? "," : "", (unsigned long long)d->shape[i]);
    snprintf(ret + n, (size_t)(200 - n), "]");      /* at most eight of twenty digits */
    return ret;
}

/* An object of this file, not one that a link has fetched from another. */
static bool is_own(hid_t file, hid_t object)
{
    H5O_info_t root, info;

    return H5Oget_info(file, &root) >= 0 && H5Oget_info(object, &info) >= 0 && info.fileno == root.fileno;
}

/* Its numbers lie in this file, too. */
static bool has_own_data(hid_t id)
{
    hid_t creation = H5Dget_create_plist(id);
    bool own = creation >= 0 && H5Pget_layout(creation) != H5D_VIRTUAL && H5Pget_external_count(creation) == 0;

    if (creation >= 0)
        H5Pclose(creation);
    return own;
}

/* Does `path` lead to an object, link by link? (libhdf5 wants each to be there before it asks for the next.) */
static bool is_there(hid_t file, const char *path)
{
    char part[300];

    for (const char *slash = path; slash; slash = strchr(slash + 1, '/')) {
        const char *end = strchr(slash + 1, '/');

        snprintf(part, sizeof part, "%.*s", end ? (int)(end - path) : (int)strlen(path), path);
        if (H5Lexists(file, part, H5P_DEFAULT) <= 0)
            return false;
    }
    return true;
}

static int dataset_find(hid_t file, const char *path, const char *where, struct dataset *ret, struct error *error)
{
    struct dataset d = {.id = -1, .space = -1};
    char text[160];

    if (!is_there(file, path))
        return error_set(error, ENOENT, "%s: no dataset %s", where, path);
    d.id = H5Dopen2(file, path, H5P_DEFAULT);
    if (d.id >= 0 && (!is_own(file, d.id) || !has_own_data(d.id))) {
        dataset_release(&d);
        return error_set(error, EINVAL, "%s: %s lies in another file; what is imported must be in one", where, path);
    }
    d.space = d.id >= 0 ? H5Dget_space(d.id) : -1;
    d.rank = d.space >= 0 ? H5Sget_simple_extent_ndims(d.space) : -1;
    if (d.rank < 0 || d.rank > 8 || H5Sget_simple_extent_dims(d.space, d.shape, NULL) < 0) {
        dataset_release(&d);
        return error_set(error, EBADMSG, "%s: %s: %s", where, path, why(text));
    }
    *ret = d;
    return 0;
}

/* ---- a file -------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static herr_t add_demo(hid_t group, const char *name, const H5L_info_t *info, void *arg)
{
    struct reading *reading = arg;
    int number, end = 0, *larger;

    (void)group, (void)info;
    if (sscanf(name, "demo_%9d%n", &number, &end) != 1 || name[end] || number < 0 || reading->n >= MAX_DEMOS)
        return 0;
    larger = realloc(reading->numbers, (size_t)(reading->n + 1) * sizeof *larger);
    if (!larger)
        return -1;
    reading->numbers = larger;
    reading->numbers[reading->n++] = number;
    return 0;
}

/* A text attribute of fixed or variable length; "" when there is none. */
static void read_attribute(hid_t object, const char *name, char *ret, size_t n)
{
    hid_t id = H5Aexists(object, name) > 0 ? H5Aopen(object, name, H5P_DEFAULT) : -1, type = id >= 0 ? H5Aget_type(id) : -1;
    hid_t space = id >= 0 ? H5Aget_space(id) : -1;

    ret[0] = '\0';
    /* one text: of several all would be read */
    if (type >= 0 && H5Tget_class(type) == H5T_STRING && space >= 0 && H5Sget_simple_extent_npoints(space) == 1) {
        if (H5Tis_variable_str(type) > 0) {
            char *text = NULL;

            if (H5Aread(id, type, &text) >= 0 && text) {
                snprintf(ret, n, "%s", text);
                H5free_memory(text);
            }
        } else {
            size_t size = H5Tget_size(type);
            _cleanup_free_ char *text = size < 1 << 20 ? calloc(1, size + 1) : NULL;

            if (text && H5Aread(id, type, text) >= 0)
                snprintf(ret, n, "%s", text);
        }
    }
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (id >= 0)
        H5Aclose(id);
}

static int read_attributes(struct reading *reading, hid_t data, const char *path, struct error *error)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    char text[4096], *end;
    int r;

    snprintf(reading->task, sizeof reading->task, "%s", base);
    end = strstr(reading->task, "_demo.hdf5");
    if (!end)
        end = strstr(reading->task, ".hdf5");
    if (end)
        *end = '\0';
    read_attribute(data, "macros_image_convention", text, sizeof text);
    reading->upright = !strcmp(text, "opencv");
    read_attribute(data, "problem_info", text, sizeof text);
    r = libero_instruction(text, reading->task, reading->instruction, sizeof reading->instruction);
    if (r == -ENAMETOOLONG)
        return error_set(error, EINVAL, "%s: its instruction has more than %zu bytes", path, sizeof reading->instruction - 1);
    return r < 0 ? error_set(error, -r, "%s: out of memory", path) : 0;
}

static void close_file(struct reading *reading)
{
    if (reading->id >= 0)
        H5Fclose(reading->id);
    reading->id = -1;
    free(reading->numbers);
    reading->numbers = NULL;
    reading->n = reading->demo = 0;
}

static int open_file(struct reading *reading, const char *path, struct error *error)
{
    hid_t data = -1;
    char text[160];
    int r = 0;

    reading->id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (reading->id < 0)
        return error_set(error, EBADMSG, "%s: no HDF5 file: %s", path, why(text));
    if (H5Lexists(reading->id, "data", H5P_DEFAULT) > 0)
        data = H5Gopen2(reading->id, "data", H5P_DEFAULT);
    if (data < 0 || !is_own(reading->id, data))
        r = error_set(error, EINVAL, "%s: no group data: not a file of LIBERO's demonstrations", path);
    else if (H5Literate(data, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_demo, reading) < 0)
        r = error_set(error, EBADMSG, "%s: data: %s", path, why(text));
    else if (!reading->n)
        r = error_set(error, EINVAL, "%s: no demo_N in the group data", path);
    else
        r = read_attributes(reading, data, path, error);
    if (data >= 0)
        H5Gclose(data);
    if (r < 0)
        close_file(reading);
    else
        qsort(reading->numbers, (size_t)reading->n, sizeof *reading->numbers, by_number);
    return r;
}

static int hdf5_open(struct source *s, struct error *error)
{
    struct reading *reading = s->state = calloc(1, sizeof *reading);

    if (!reading)
        return error_set(error, ENOMEM, "out of memory");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    reading->id = -1;
    for (int i = 0; i < s->n_files; i++) {
        int r = open_file(reading, s->files[i], error);

        if (r < 0)
            return r;
        s->total += reading->n;
        close_file(reading);
    }
    return 0;
}

/* ---- a demonstration ----------------------------------------------------------------------------- */

/* Numbers (steps, dims) into columns first.. of rows of `stride`. */
static int read_numbers(hid_t file, const char *path, const char *where, int steps, int *dims, int first, int stride, double *ret,
                        struct error *error)
{
    _cleanup_(dataset_release) struct dataset d = {.id = -1, .space = -1};
    _cleanup_free_ double *values = NULL;
    char text[200];
    int r = dataset_find(file, path, where, &d, error);

    if (r < 0)
        return r;
    if (d.rank != 2 || d.shape[0] != (hsize_t)steps || d.shape[1] < 1 || d.shape[1] > SOURCE_MAX_DIMS)
        return error_set(error, EINVAL, "%s: %s: expected numbers of shape [%d,1..%d], not %s", where, path, steps,
                         SOURCE_MAX_DIMS, shape_text(&d, text));
    *dims = (int)d.shape[1];
    if (!ret || steps <= 0)
        return 0;
    values = calloc((size_t)steps * (size_t)*dims, sizeof *values);
    if (!values)
        return error_set(error, ENOMEM, "%s: out of memory", where);
    if (H5Dread(d.id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        return error_set(error, EBADMSG, "%s: %s: %s", where, path, why(text));
    for (int t = 0; t < steps; t++)
        memcpy(ret + t * stride + first, values + t * *dims, (size_t)*dims * sizeof *values);
    return 0;
}

/* What was never written reads as zeros, and takes no room: a small file could ask for all memory. */
static int check_stored(const struct dataset *d, size_t bytes, const char *path, const struct source_episode *e,
                        struct error *error)
{
    hsize_t stored = H5Dget_storage_size(d->id);

    if (bytes <= SMALL || bytes / MOST_DEFLATED <= stored)
        return 0;
    return error_set(error, EINVAL, "%s: %s: pictures of %zu bytes, of which the file holds %llu: they were never written",
                     e->where, path, bytes, (unsigned long long)stored);
}

/* u8, as they are; other numbers would be cut to it. */
static bool holds_bytes(hid_t id)
{
    hid_t type = H5Dget_type(id);
    bool is = type >= 0 && H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 1;

    if (type >= 0)
        H5Tclose(type);
    return is;
}

static void copy_rows(struct image *to, const uint8_t *from, bool upright)
{
    size_t row = (size_t)to->width * 3;

    for (int y = 0; y < to->height; y++)
        memcpy(to->rgb + (size_t)(upright ? to->height - 1 - y : y) * row, from + (size_t)y * row, row);
}

/* upright: in the file they begin with the top row; ret has the bottom row first, always. */
static int read_pictures(hid_t file, const char *path, int camera, bool upright, struct source_episode *e, struct error *error)
{
    struct dataset d;
    int r = dataset_find(file, path, e->where, &d, error);
    _cleanup_free_ uint8_t *all = NULL;
    size_t one = 0;
    char text[200];

    if (r < 0)
        return r;
    if (d.rank != 4 || d.shape[0] != (hsize_t)e->steps || d.shape[3] != 3 || d.shape[1] > IMAGE_MAX_SIDE ||
        d.shape[2] > IMAGE_MAX_SIDE)
        r = error_set(error, EINVAL, "%s: %s: expected pictures of shape [%d,height,width,3], not %s", e->where, path, e->steps,
                      shape_text(&d, text));
    else if (!holds_bytes(d.id))
        r = error_set(error, EINVAL, "%s: %s: expected pictures of bytes, 0 to 255, not of other numbers", e->where, path);
    else
        r = image_check_size((int64_t)d.shape[1], (int64_t)d.shape[2], path, error);
    if (r >= 0) {
        one = (size_t)d.shape[1] * (size_t)d.shape[2] * 3;
        r = check_stored(&d, one * (size_t)e->steps, path, e, error);
    }
    if (r >= 0) {
        all = one * (size_t)e->steps <= (size_t)2 << 30 ? malloc(one * (size_t)e->steps) : NULL;
        if (!all)
            r = error_set(error, ENOMEM, "%s: %s: no memory for %zu bytes", e->where, path, one * (size_t)e->steps);
        else if (H5Dread(d.id, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) < 0)
            r = error_set(error, EBADMSG, "%s: %s: %s", e->where, path, why(text));
    }
    for (int t = 0; t < e->steps && r >= 0; t++) {
        struct image *picture = &e->pictures[t * e->cameras + camera];

        *picture = (struct image){(int)d.shape[1], (int)d.shape[2], malloc(one)};
        if (picture->rgb)
            copy_rows(picture, all + (size_t)t * one, upright);
        else
            r = error_set(error, ENOMEM, "%s: out of memory", e->where);
    }
    dataset_release(&d);
    return r;
}

static int read_success(hid_t file, const char *demo, struct source_episode *e, struct error *error)
{
    static const char *const names[] = {"rewards", "dones"};
    _cleanup_free_ double *values = calloc((size_t)e->steps, sizeof *values);
    bool said = false;
    char path[128];

    if (!values)
        return error_set(error, ENOMEM, "%s: out of memory", e->where);
    e->success = false;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct dataset d;

        snprintf(path, sizeof path, "%s/%s", demo, names[i]);
        if (dataset_find(file, path, e->where, &d, NULL) < 0)
            continue;
        if (d.rank == 1 && d.shape[0] == (hsize_t)e->steps &&
            H5Dread(d.id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0) {
            said = true;
            e->success = e->success || values[e->steps - 1] > 0;
        }
        dataset_release(&d);
    }
    e->success = e->success || !said;
    return 0;
}

static const char *or_default(const char *option, const char *otherwise) { return option ? option : otherwise; }

/* -ENOENT of a field that nobody has asked for by name: how to do without it. */
static int or_without(int r, const char *asked, const char *hint, struct error *error)
{
    char text[sizeof error->text];

    if (r != -ENOENT || asked || !error)
        return r;
    snprintf(text, sizeof text, "%s", error->text);
    return error_set(error, ENOENT, "%s: %s", text, hint);
}

/* 1: it has no steps. */
static int read_sizes(const struct source *s, hid_t file, const char *demo, struct source_episode *e, struct error *error)
{
    const char *images = or_default(s->options.images, IMAGES), *state = or_default(s->options.state, STATE);
    struct dataset d;
    char path[300], name[128];
    int r, dims;

    snprintf(path, sizeof path, "%s/%s", demo, or_default(s->options.action, "actions"));
    r = dataset_find(file, path, e->where, &d, error);
    if (r < 0)
        return r;
    if (d.rank == 2 && !d.shape[0]) {
        dataset_release(&d);
        return 1;
    }
    e->steps = d.rank == 2 && d.shape[0] <= SOURCE_MAX_STEPS ? (int)d.shape[0] : 0;
    e->dims = d.rank == 2 && d.shape[1] <= SOURCE_MAX_DIMS ? (int)d.shape[1] : 0;
    dataset_release(&d);
    for (int i = 0; source_name_of(images, i, name, sizeof name); i++)
        e->cameras++;
    for (int i = 0; strcmp(state, "none") && source_name_of(state, i, name, sizeof name) && e->steps; i++) {
        snprintf(path, sizeof path, "%s/obs/%s", demo, name);
        r = or_without(read_numbers(file, path, e->where, e->steps, &dims, 0, 0, NULL, error), s->options.state,
                       "--state names other fields, or none", error);
        if (r < 0)
            return r;
        e->state_dims += dims;
    }
    return 0;
}

static int read_demo(const struct source *s, hid_t file, const char *demo, struct source_episode *e, struct error *error)
{
    const char *images = or_default(s->options.images, IMAGES), *state = or_default(s->options.state, STATE);
    const bool upright = ((const struct reading *)s->state)->upright;
    int r = read_sizes(s, file, demo, e, error), first = 0, dims;
    char path[300], name[128];

    if (r == 0)
        r = source_episode_reserve(e, error);
    if (r != 0)
        return r;
    snprintf(path, sizeof path, "%s/%s", demo, or_default(s->options.action, "actions"));
    r = read_numbers(file, path, e->where, e->steps, &dims, 0, e->dims, e->action, error);
    for (int i = 0; e->state_dims && source_name_of(state, i, name, sizeof name) && r >= 0; i++, first += dims) {
        snprintf(path, sizeof path, "%s/obs/%s", demo, name);
        r = read_numbers(file, path, e->where, e->steps, &dims, first, e->state_dims, e->state, error);
    }
    for (int i = 0; source_name_of(images, i, name, sizeof name) && r >= 0; i++) {
        snprintf(path, sizeof path, "%s/obs/%s", demo, name);
        r = or_without(read_pictures(file, path, i, upright, e, error), s->options.images, "--images names the cameras", error);
    }
    return r < 0 ? r : read_success(file, demo, e, error);
}

static int hdf5_next(struct source *s, struct source_episode *e, struct error *error)
{
    struct reading *reading = s->state;
    char demo[64];
    int r;

    if (reading->id >= 0 && reading->demo == reading->n) {
        close_file(reading);
        reading->file++;
    }
    if (reading->id < 0) {
        if (reading->file >= s->n_files)
            return 0;
        r = open_file(reading, s->files[reading->file], error);
        if (r < 0)
            return r;
    }
    snprintf(demo, sizeof demo, "data/demo_%d", reading->numbers[reading->demo++]);
    snprintf(e->where, sizeof e->where, "%s: %s", s->files[reading->file], demo);
    source_name_task(e, reading->task);
    snprintf(e->instruction, sizeof e->instruction, "%s", reading->instruction);
    r = read_demo(s, reading->id, demo, e, error);
    return r < 0 ? r : 1;
}

static void hdf5_close(struct source *s)
{
    if (s->state)
        close_file(s->state);
    free(s->state);
}

const struct source_driver source_hdf5 = {"libero-hdf5", ".hdf5", hdf5_open, hdf5_next, hdf5_close};
