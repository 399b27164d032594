/* source_rlds.c - data sets as TFDS and RLDS write them: one tf.train.Example an episode, every step's values in one list. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/source.h"
#include "data/tf_example.h"

#define IMAGES "image,wrist_image"

struct reading {
    int file, record;
    struct tf_records records;
};

static int rlds_open(struct source *s, struct error *error)
{
    s->state = calloc(1, sizeof(struct reading));
    if (!s->state)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < s->n_files; i++) {
        struct tf_records records;
        int n, r = tf_records_open(s->files[i], &records, error);

        if (r < 0)
            return r;
        n = tf_records_count(&records, error);
        tf_records_close(&records);
        if (n < 0)
            return n;
        s->total += n;
    }
    return 0;
}

/* Below steps/ or steps/observation/, as most data sets have it, or the full name. */
static int find(const uint8_t *bytes, size_t n, const char *name, const char *where, struct tf_feature *ret, struct error *error)
{
    static const char *const prefixes[] = {"", "steps/", "steps/observation/"};
    char full[200], names[300];
    int r = -ENOENT;

    for (size_t i = 0; i < ARRAY_SIZE(prefixes) && r == -ENOENT; i++) {
        snprintf(full, sizeof full, "%s%s", prefixes[i], name);
        r = tf_example_find(bytes, n, full, ret);
    }
    if (r == -EBADMSG)
        return error_set(error, EBADMSG, "%s: %s: no tf.train.Example, or a damaged one", where, name);
    if (r == -ENOENT) {
        tf_example_names(bytes, n, names, sizeof names);
        return error_set(error, ENOENT, "%s: no feature %s (--images, --action, --state, --instruction name others); there are: "
                         "%s", where, name, names);
    }
    return r;
}

/* A list of steps * dims numbers. */
static int numbers(const uint8_t *bytes, size_t n, const char *name, struct source_episode *e, int dims, double *ret,
                   struct error *error)
{
    struct tf_feature feature;
    int r = find(bytes, n, name, e->where, &feature, error);

    if (r < 0)
        return r;
    if (feature.kind == TF_BYTES || feature.count != (size_t)e->steps * (size_t)dims)
        return error_set(error, EINVAL, "%s: %s: %zu %s, expected %d numbers for each of %d steps", e->where, name, feature.count,
                         feature.kind == TF_BYTES ? "byte strings" : "numbers", dims, e->steps);
    return tf_feature_numbers(&feature, ret);
}

static int text(const uint8_t *bytes, size_t n, const char *name, struct source_episode *e, char *ret, size_t size,
                struct error *error)
{
    struct tf_feature feature;
    const uint8_t *at;
    size_t length;
    int r = find(bytes, n, name, e->where, &feature, error);

    if (r < 0)
        return r;
    r = tf_feature_bytes(&feature, 0, &at, &length);
    if (r < 0)
        return error_set(error, EINVAL, "%s: %s: %s, expected text", e->where, name, r == -EINVAL ? "numbers" : "an empty list");
    if (length >= size || memchr(at, 0, length))
        return error_set(error, EINVAL, "%s: %s: a text of %zu bytes, or with a NUL; expected less than %zu", e->where, name,
                         length, size);
    memcpy(ret, at, length);
    ret[length] = '\0';
    return 0;
}

static int pictures(const uint8_t *bytes, size_t n, const char *name, int camera, struct source_episode *e, struct error *error)
{
    struct tf_feature feature;
    int r = find(bytes, n, name, e->where, &feature, error);

    if (r < 0)
        return r;
    if (feature.kind != TF_BYTES || feature.count != (size_t)e->steps)
        return error_set(error, EINVAL, "%s: %s: %zu %s, expected %d pictures", e->where, name, feature.count,
                         feature.kind == TF_BYTES ? "byte strings" : "numbers", e->steps);
    for (int t = 0; t < e->steps && r >= 0; t++) {
        const uint8_t *at;
        size_t length;
        char place[700];

        snprintf(place, sizeof place, "%s: %s of step %d", e->where, name, t);
        r = tf_feature_bytes(&feature, (size_t)t, &at, &length);
        if (r < 0)
            return error_set(error, -r, "%s: not there", place);
        /* TensorFlow decodes JPEGs by the fast transform; PNGs are the same whoever decodes them */
        if (length > 2 && at[0] == 0xff && at[1] == 0xd8)
            r = image_decode_jpeg(at, length, true, place, &e->pictures[t * e->cameras + camera], error);
        else
            r = image_decode(at, length, place, &e->pictures[t * e->cameras + camera], error);
    }
    return r;
}

/* The last step's reward says whether it went well; a data set without rewards says nothing. */
static int read_success(const uint8_t *bytes, size_t n, struct source_episode *e)
{
    _cleanup_free_ double *values = NULL;
    struct tf_feature feature;

    e->success = true;
    if (tf_example_find(bytes, n, "steps/reward", &feature) < 0 || feature.kind == TF_BYTES || feature.count != (size_t)e->steps)
        return 0;
    values = calloc(feature.count + 1, sizeof *values);
    if (!values)
        return -ENOMEM;
    if (tf_feature_numbers(&feature, values) == 0)
        e->success = values[e->steps - 1] > 0;
    return 0;
}

/* 1: it has no steps. */
static int read_sizes(const struct source *s, const uint8_t *bytes, size_t n, const char *images, const char *action,
                      const char *state, struct source_episode *e, struct error *error)
{
    struct tf_feature feature, actions;
    char name[128];
    int r;

    /* as many steps as the first camera has pictures */
    if (!source_name_of(images, 0, name, sizeof name))
        return error_set(error, EINVAL, "%s: no camera is named", e->where);
    r = find(bytes, n, name, e->where, &feature, error);
    if (r >= 0)
        r = find(bytes, n, action, e->where, &actions, error);
    if (r < 0)
        return r;
    if (!feature.count && !actions.count)
        return 1;
    e->steps = feature.kind == TF_BYTES && feature.count <= SOURCE_MAX_STEPS ? (int)feature.count : 0;
    if (!e->steps)
        return error_set(error, EINVAL, "%s: %s: %zu elements that are no pictures, or too many", e->where, name, feature.count);
    e->dims = (int)MIN(actions.count / (size_t)e->steps, (size_t)SOURCE_MAX_DIMS + 1);
    for (int i = 0; source_name_of(images, i, name, sizeof name); i++) {
        if (!s->options.images && i > 0 && find(bytes, n, name, e->where, &feature, NULL) < 0)
            break;
        e->cameras++;
    }
    if (!strcmp(state, "none") || (!s->options.state && find(bytes, n, state, e->where, &feature, NULL) < 0))
        return 0;
    r = find(bytes, n, state, e->where, &feature, error);
    e->state_dims = r < 0 ? 0 : (int)MIN(feature.count / (size_t)e->steps, (size_t)SOURCE_MAX_DIMS + 1);
    return r;
}

static int read_episode(const struct source *s, const uint8_t *bytes, size_t n, struct source_episode *e, struct error *error)
{
    const char *images = s->options.images ? s->options.images : IMAGES,
               *action = s->options.action ? s->options.action : "action";
    const char *state = s->options.state ? s->options.state : "state",
               *instruction = s->options.instruction ? s->options.instruction : "language_instruction";
    char name[128];
    int r = read_sizes(s, bytes, n, images, action, state, e, error);

    if (r > 0)
        return r;
    if (r >= 0)
        r = source_episode_reserve(e, error);
    if (r >= 0)
        r = numbers(bytes, n, action, e, e->dims, e->action, error);
    if (r >= 0 && e->state_dims)
        r = numbers(bytes, n, state, e, e->state_dims, e->state, error);
    for (int i = 0; i < e->cameras && r >= 0; i++) {
        source_name_of(images, i, name, sizeof name);
        r = pictures(bytes, n, name, i, e, error);
    }
    if (r >= 0)
        r = text(bytes, n, instruction, e, e->instruction, sizeof e->instruction, error);
    if (r < 0)
        return r;
    source_name_task(e, e->instruction);
    r = read_success(bytes, n, e);
    return r < 0 ? error_set(error, -r, "%s: out of memory", e->where) : 1;
}

static int rlds_next(struct source *s, struct source_episode *e, struct error *error)
{
    struct reading *reading = s->state;
    const uint8_t *bytes;
    size_t n;
    int r;

    for (;;) {
        if (!reading->records.bytes) {
            if (reading->file >= s->n_files)
                return 0;
            r = tf_records_open(s->files[reading->file], &reading->records, error);
            if (r < 0)
                return r;
            reading->record = 0;
        }
        r = tf_records_next(&reading->records, &bytes, &n, error);
        if (r < 0)
            return r;
        if (r > 0)
            break;
        tf_records_close(&reading->records);
        reading->file++;
    }
    snprintf(e->where, sizeof e->where, "%s: episode %d", s->files[reading->file], reading->record++);
    return read_episode(s, bytes, n, e, error);
}

static void rlds_close(struct source *s)
{
    if (s->state && ((struct reading *)s->state)->records.bytes)
        tf_records_close(&((struct reading *)s->state)->records);
    free(s->state);
}

const struct source_driver source_rlds = {"rlds", ".tfrecord", rlds_open, rlds_next, rlds_close};
