#include "data/import.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/statistics.h"
#include "image/tf_image.h"

#define CHAIN_RENDER "render"
#define CHAIN_PLAIN "plain"      /* so were a run's own that are brought back */
static const double NO_OP = 1e-4; /* OpenVLA's threshold on the length of an action without its gripper */

int import_defaults(const char *format, struct import_options *ret, struct error *error)
{
    struct import_options o = {.format = format, .chain = TF_EVALUATION_CHAIN, .size = 224, .gripper = GRIPPER_LIBERO};

    if (!strcmp(format, "libero-hdf5"))
        o.drop_no_ops = true;
    else if (!strcmp(format, "npz"))
        o = (struct import_options){.format = format, .chain = CHAIN_RENDER};
    else if (strcmp(format, "rlds"))
        return error_set(error, EINVAL, "there is no format '%s': libero-hdf5, rlds, npz, lerobot", format);
    *ret = o;
    return 0;
}

struct import {
    const struct import_options *options;
    int size;
    struct dataset_writer writer;
    struct statistics statistics;
};

/* ---- pictures ------------------------------------------------------------------------------------ */

static void flip_rows(struct image *picture)
{
    size_t row = (size_t)picture->width * 3;

    for (int y = 0; y < picture->height / 2; y++) {
        uint8_t *a = picture->rgb + (size_t)y * row, *b = picture->rgb + (size_t)(picture->height - 1 - y) * row;

        for (size_t i = 0; i < row; i++) {
            uint8_t kept = a[i];

            a[i] = b[i];
            b[i] = kept;
        }
    }
}

/* LIBERO's files hold what its camera gives, bottom row first. RLDS and npz hold pictures the right way up, past the JPEG. The
 * simulators whose chain is `render` draw at the size wanted; the suite remote, whose pictures others make, scales them, as here. */
static int make_picture(const struct import *im, struct image *from, uint8_t *ret)
{
    bool camera = !strcmp(im->options->format, "libero-hdf5");
    const char *chain = im->options->chain;

    if (camera && !strcmp(chain, TF_EVALUATION_CHAIN))
        return tf_evaluation_picture(from->rgb, from->height, from->width, im->size, im->size, ret);
    if (camera)
        flip_rows(from);
    if (from->height == im->size && from->width == im->size) {
        memcpy(ret, from->rgb, (size_t)im->size * (size_t)im->size * 3);
        return 0;
    }
    if (!strcmp(chain, CHAIN_RENDER) && im->options->resize && !camera)
        return image_resize_bicubic(from->rgb, from->height, from->width, im->size, im->size, ret);
    if (!strcmp(chain, CHAIN_RENDER) || !strcmp(chain, CHAIN_PLAIN))
        return -EINVAL;
    return tf_resize_lanczos3(from->rgb, from->height, from->width, im->size, im->size, ret);
}

/* What becomes of pictures of another size than the one wanted. */
static const char *to_resize(const struct import_options *o)
{
    bool camera = !strcmp(o->format, "libero-hdf5");

    return !camera && !strcmp(o->chain, CHAIN_RENDER) ? "resizes where --size says to what"
                                                      : "does not resize: draw them at that size, or say that --size";
}

static int make_pictures(const struct import *im, const struct source_episode *e, const int *kept, int n, uint8_t *ret,
                         struct error *error)
{
    size_t one = (size_t)im->size * (size_t)im->size * 3, all = one * (size_t)e->cameras;

    for (int i = 0; i < n; i++)
        for (int c = 0; c < e->cameras; c++) {
            struct image *from = &e->pictures[kept[i] * e->cameras + c];
            int r = make_picture(im, from, ret + (size_t)i * all + (size_t)c * one);

            if (r == -EINVAL)
                return error_set(error, EINVAL, "%s: camera %d: pictures of %dx%d, wanted %dx%d; the chain %s %s", e->where, c,
                                 from->height, from->width, im->size, im->size, im->options->chain, to_resize(im->options));
            if (r < 0)
                return error_set(error, -r, "%s: out of memory", e->where);
        }
    memcpy(ret + (size_t)n * all, ret + (size_t)(n - 1) * all, all);
    return 0;
}

/* ---- numbers ------------------------------------------------------------------------------------- */

/* Steps that stay. Returns how many. */
static int choose_steps(const struct import_options *o, const struct source_episode *e, int *ret)
{
    const bool gripper = o->gripper != GRIPPER_NONE;
    int n = 0;

    for (int t = 0; t < e->steps; t++) {
        const double *action = e->action + t * e->dims;
        double square = 0;

        for (int k = 0; k < e->dims - gripper; k++)
            square += action[k] * action[k];
        if (o->drop_no_ops && sqrt(square) < NO_OP &&
            (!gripper || !n || action[e->dims - 1] == e->action[(ret[n - 1] + 1) * e->dims - 1]))
            continue;
        ret[n++] = t;
    }
    return n;
}

/* As much as policies have room for, and numbers. */
static int check_numbers(const struct source_episode *e, struct error *error)
{
    if (e->dims > IMPORT_MAX_ACTION)
        return error_set(error, EINVAL, "%s: actions of %d numbers, policies have at most %d: --action names another field",
                         e->where, e->dims, IMPORT_MAX_ACTION);
    if (e->state_dims > IMPORT_MAX_STATE)
        return error_set(error, EINVAL, "%s: a state of %d numbers, policies take at most %d: --state names another field, or "
                         "none", e->where, e->state_dims, IMPORT_MAX_STATE);
    for (int i = 0; i < e->steps * e->dims; i++)
        if (!(fabs(e->action[i]) < 1e6))
            return error_set(error, EINVAL, "%s: action of step %d: number %d is %g", e->where, i / e->dims, i % e->dims,
                             e->action[i]);
    for (int i = 0; i < e->steps * e->state_dims; i++)
        if (!(fabs(e->state[i]) < 1e6))
            return error_set(error, EINVAL, "%s: state of step %d: number %d is %g", e->where, i / e->state_dims,
                             i % e->state_dims, e->state[i]);
    return 0;
}

/* What is imitated: the action with OpenVLA's gripper. */
static void make_label(const struct import_options *o, const double *action, int dims, double *ret)
{
    memcpy(ret, action, (size_t)dims * sizeof *ret);
    if (o->gripper == GRIPPER_LIBERO)
        ret[dims - 1] = 1 - CLAMP(action[dims - 1], 0.0, 1.0);
}

struct numbers {
    float *action, *label, *state;
};

static void numbers_release(struct numbers *n)
{
    free(n->action);
    free(n->label);
    free(n->state);
}

static int make_numbers(struct import *im, const struct source_episode *e, const int *kept, int n, struct numbers *ret)
{
    size_t actions = (size_t)n * (size_t)e->dims, states = (size_t)(n + 1) * (size_t)e->state_dims;
    double label[SOURCE_MAX_DIMS];

    ret->action = malloc(actions * sizeof *ret->action);
    ret->label = malloc(actions * sizeof *ret->label);
    ret->state = malloc((states + 1) * sizeof *ret->state);
    if (!ret->action || !ret->label || !ret->state)
        return -ENOMEM;
    for (int i = 0; i <= n; i++) {
        int t = kept[MIN(i, n - 1)];

        for (int k = 0; k < e->state_dims; k++)
            ret->state[i * e->state_dims + k] = (float)e->state[t * e->state_dims + k];
        if (i == n)
            break;
        make_label(im->options, e->action + t * e->dims, e->dims, label);
        for (int k = 0; k < e->dims; k++) {
            ret->action[i * e->dims + k] = (float)e->action[t * e->dims + k];
            ret->label[i * e->dims + k] = (float)label[k];
        }
        if (statistics_add(&im->statistics, label, e->state ? e->state + t * e->state_dims : label) < 0)
            return -ENOMEM;
    }
    im->statistics.episodes++;
    return 0;
}

/* ---- episodes ------------------------------------------------------------------------------------ */

static int put(struct import *im, const struct source_episode *e, const int *kept, int n, struct error *error)
{
    size_t size = (size_t)(n + 1) * (size_t)e->cameras * (size_t)im->size * (size_t)im->size * 3;
    _cleanup_(numbers_release) struct numbers numbers = {0};
    _cleanup_free_ uint8_t *frames = malloc(size);
    Gantry__Trajectory t = GANTRY__TRAJECTORY__INIT;
    int r = !frames || make_numbers(im, e, kept, n, &numbers) < 0 ? error_set(error, ENOMEM, "%s: out of memory", e->where) : 0;

    if (r >= 0)
        r = make_pictures(im, e, kept, n, frames, error);
    if (r < 0)
        return r;
    t.purpose = GANTRY__PURPOSE__PURPOSE_DEMO;
    t.split = GANTRY__SPLIT__SPLIT_TRAIN;
    t.task = (char *)e->task;
    t.instruction = (char *)e->instruction;
    t.steps = t.max_steps = (uint32_t)n;
    t.height = t.width = (uint32_t)im->size;
    t.images = (uint32_t)e->cameras;
    t.action_dims = (uint32_t)e->dims;
    t.success = e->success;
    t.action = numbers.action;
    t.label = numbers.label;
    t.n_action = t.n_label = (size_t)n * (size_t)e->dims;
    t.label_units = true;
    t.state = numbers.state;
    t.n_state = (size_t)(n + 1) * (size_t)e->state_dims;
    t.image_chain = (char *)im->options->chain;
    r = dataset_put(&im->writer, &t, frames, size, error);
    return r < 0 ? error_prefix(error, r, "%s", e->where) : 0;
}

static void leave_out(struct import *im, const struct source_episode *e)
{
    im->writer.info.empty++;
    if (im->options->left_out)
        im->options->left_out(im->options->arg, e->where);
}

static int take(struct import *im, const struct source_episode *e, struct error *error)
{
    _cleanup_free_ int *kept = malloc((size_t)e->steps * sizeof *kept);
    int n, r = kept ? check_numbers(e, error) : error_set(error, ENOMEM, "%s: out of memory", e->where);

    if (r < 0)
        return r;
    if (!e->success && !im->options->keep_failed) {
        im->writer.info.failed++;
        return 0;
    }
    if (!im->statistics.dims) {
        im->size = im->options->size ? im->options->size : e->pictures[0].width;
        im->statistics.dims = e->dims;
        im->statistics.state = e->state_dims;
        im->statistics.gripper = im->writer.info.gripper = im->options->gripper != GRIPPER_NONE;
    }
    if (e->dims != im->statistics.dims || e->state_dims != im->statistics.state)
        return error_set(error, EINVAL, "%s: actions of %d numbers and a state of %d, the episodes before have %d and %d",
                         e->where, e->dims, e->state_dims, im->statistics.dims, im->statistics.state);
    n = choose_steps(im->options, e, kept);
    im->writer.info.no_ops += e->steps - n;
    if (!n) {
        im->writer.info.failed++; /* nothing was done in it */
        return 0;
    }
    return put(im, e, kept, n, error);
}

static void import_release(struct import *im)
{
    dataset_writer_release(&im->writer);
    statistics_release(&im->statistics);
}

static int read_all(struct import *im, struct source *source, struct error *error)
{
    const struct import_options *o = im->options;
    int total = o->limit ? MIN(o->limit, source->total) : source->total, r = 1;

    for (int done = 0; done < total && r > 0; done++) {
        struct source_episode episode;

        r = source_next(source, &episode, error);
        if (r <= 0)
            break;
        if (episode.steps)
            r = take(im, &episode, error);
        else
            leave_out(im, &episode);
        source_episode_release(&episode);
        if (r < 0)
            break;
        if (o->tell && !o->tell(o->arg, done + 1, total, im->writer.info.steps))
            return error_set(error, ECANCELED, "stopped after %d of %d episodes", done + 1, total);
        r = 1;
    }
    return r;
}

int dataset_import(const char *from, const char *to, const struct import_options *options, struct dataset_info *ret,
                   struct error *error)
{
    _cleanup_(import_release) struct import im = {.options = options};
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_(source_closep) struct source *source = NULL;
    int r;

    if (strcmp(options->chain, CHAIN_RENDER) && strcmp(options->chain, CHAIN_PLAIN) && strcmp(options->chain, CHAIN_LANCZOS) &&
        strcmp(options->chain, TF_EVALUATION_CHAIN))
        return error_set(error, EINVAL,
                         "there is no chain '%s': " CHAIN_RENDER ", " CHAIN_PLAIN ", " CHAIN_LANCZOS ", " TF_EVALUATION_CHAIN,
                         options->chain);
    if (options->source.instruction && !strcmp(options->format, "libero-hdf5"))
        return error_set(error, EINVAL, "libero-hdf5: the instruction is no field of an episode there: --instruction names none");
    r = source_open(options->format, from, &options->source, &source, error);
    if (r >= 0)
        r = dataset_create(to, &im.writer, error);
    if (r < 0)
        return r;
    snprintf(im.writer.info.source, sizeof im.writer.info.source, "%s", options->format);
    snprintf(im.writer.info.name, sizeof im.writer.info.name, "%s", options->name);
    r = read_all(&im, source, error);
    if (r < 0)
        return r;
    if (!im.writer.info.episodes)
        return error_set(error, ENODATA, "%s: of %d episodes none is left: %d did not succeed or did nothing, %d have no steps",
                         from, source->total, im.writer.info.failed, im.writer.info.empty);
    r = statistics_write(&im.statistics, options->name, &text);
    if (r < 0)
        return error_set(error, -r, "out of memory");
    *ret = im.writer.info;
    return dataset_finish(&im.writer, text.text, error);
}
