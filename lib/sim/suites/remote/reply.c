#include "sim/suites/remote/reply.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/plain.h"
#include "sim/suites/remote/frame.h"

static void json_release(json_t **json) { json_decref(*json); }

static int their_error(const char *text, struct error *error)
{
    return error_set(error, EREMOTEIO, "%.319s", text && text[0] ? text : "it reports an error without a text");
}

/* An object without an "error" in it. The caller's to release, also after a failure. */
static int parse(const char *head, size_t n, json_t **ret, struct error *error)
{
    json_error_t where;
    const json_t *said;

    *ret = json_loadb(head, n, JSON_REJECT_DUPLICATES, &where);
    if (!*ret)
        return error_set(error, EBADMSG, "its answer is no JSON: %.80s (byte %d)", where.text, where.position);
    if (!json_is_object(*ret))
        return error_set(error, EBADMSG, "its answer is no JSON object");
    said = json_object_get(*ret, "error");
    if (said)
        return their_error(json_string_value(said), error);
    return 0;
}

/* A whole number of lo..hi; where it is absent, `value` if that is one, too. */
static int read_int(const json_t *object, const char *key, json_int_t lo, json_int_t hi, json_int_t value, json_int_t *ret,
                    struct error *error)
{
    const json_t *found = json_object_get(object, key);

    if (found && !json_is_integer(found))
        return error_set(error, EBADMSG, "'%s' is no whole number", key);
    if (found)
        value = json_integer_value(found);
    else if (value < lo || value > hi)
        return error_set(error, EBADMSG, "'%s' is missing", key);
    if (value < lo || value > hi)
        return error_set(error, EBADMSG, "'%s' is %lld, outside %lld..%lld", key, (long long)value, (long long)lo, (long long)hi);
    *ret = value;
    return 0;
}

static int read_bool(const json_t *object, const char *key, bool *ret, struct error *error)
{
    const json_t *found = json_object_get(object, key);

    if (found && !json_is_boolean(found))
        return error_set(error, EBADMSG, "'%s' is neither true nor false", key);
    *ret = json_is_true(found);
    return 0;
}

/* "" where it is absent. */
static int read_text(const json_t *object, const char *key, char *ret, size_t room, struct error *error)
{
    const json_t *found = json_object_get(object, key);

    if (found && !json_is_string(found))
        return error_set(error, EBADMSG, "'%s' is no text", key);
    if (found && json_string_length(found) >= room)
        return error_set(error, EBADMSG, "'%s' has %zu bytes, at most %zu are taken", key, json_string_length(found), room - 1);
    for (const char *c = found ? json_string_value(found) : ""; *c; c++)
        if (control_length(c))
            return error_set(error, EBADMSG, "'%s' holds a control character", key);
    snprintf(ret, room, "%s", found ? json_string_value(found) : "");
    return 0;
}

static int read_numbers(const json_t *object, const char *key, size_t n, double limit, float *ret, struct error *error)
{
    const json_t *found = json_object_get(object, key);

    if (n == 0)
        return 0;
    if (!json_is_array(found) || json_array_size(found) != n)
        return error_set(error, EBADMSG, "'%s' is no list of %zu numbers", key, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *number = json_array_get(found, i);

        if (!json_is_number(number) || !(fabs(json_number_value(number)) <= limit))
            return error_set(error, EBADMSG, "'%s[%zu]' is no number from %g to %g", key, i, -limit, limit);
        ret[i] = (float)json_number_value(number);
    }
    return 0;
}

/* What a step paid; NaN where it is not said. The learner takes no larger ones. */
static int read_reward(const json_t *object, float *ret, struct error *error)
{
    const json_t *found = json_object_get(object, "reward");

    *ret = NAN;
    if (!found)
        return 0;
    if (!json_is_number(found) || !(fabs(json_number_value(found)) <= 1e6))
        return error_set(error, EBADMSG, "'reward' is no number from -1e6 to 1e6");
    *ret = (float)json_number_value(found);
    return 0;
}

size_t remote_picture_bytes(const struct remote_description *what)
{
    return (size_t)what->cameras * (size_t)what->height * (size_t)what->width * 3;
}

static int read_task(const json_t *object, int i, struct remote_description *ret, struct error *error)
{
    struct sim_task_info *info = &ret->infos[i];
    json_int_t steps = 0, level = 0;
    int r;

    if (!json_is_object(object))
        return error_set(error, EBADMSG, "it is no object");
    if ((r = read_text(object, "name", ret->names[i], REMOTE_NAME_MAX, error)) < 0 ||
        (r = read_text(object, "instruction", ret->instructions[i], REMOTE_INSTRUCTION_MAX, error)) < 0 ||
        (r = read_int(object, "max_steps", 1, 100000, 0, &steps, error)) < 0 ||
        (r = read_int(object, "level", 0, 1000, 0, &level, error)) < 0)
        return r;
    if (!ret->names[i][0])
        return error_set(error, EBADMSG, "'name' is missing");
    for (int k = 0; k < i; k++)
        if (!strcmp(ret->names[k], ret->names[i]))
            return error_set(error, EBADMSG, "'name' is '%s' like that of tasks[%d]", ret->names[i], k);
    *info = (struct sim_task_info){ .name = ret->names[i], .level = (int)level, .max_steps = (int)steps, .cameras = ret->cameras,
                                    .action_dims = ret->action_dims, .proprio = ret->proprio,
                                    .no_expert = !ret->expert, .no_save = !ret->state_bytes,
                                    .instruction = ret->instructions[i][0] ? ret->instructions[i] : NULL };
    return 0;
}

static int read_tasks(const json_t *object, struct remote_description *ret, struct error *error)
{
    const json_t *tasks = json_object_get(object, "tasks"), *hz = json_object_get(object, "control_hz");
    size_t n = json_array_size(tasks);
    int r;

    if (n < 1 || n > REMOTE_TASKS_MAX)
        return error_set(error, EBADMSG, "'tasks' is no list of 1 to %d tasks", REMOTE_TASKS_MAX);
    if (hz && !(json_number_value(hz) > 0))
        return error_set(error, EBADMSG, "'control_hz' is no number above 0");
    for (size_t i = 0; i < n; i++) {
        r = read_task(json_array_get(tasks, i), (int)i, ret, error);
        if (r < 0)
            return error_prefix(error, r, "tasks[%zu]", i);
        ret->infos[i].control_hz = hz ? json_number_value(hz) : 10;
    }
    ret->n_tasks = (int)n;
    return 0;
}

int remote_read_description(const char *head, size_t n, struct remote_description *ret, struct error *error)
{
    _cleanup_(json_release) json_t *json = NULL;
    json_int_t protocol, height, width, cameras, dims, proprio, state_bytes;
    int r = parse(head, n, &json, error);

    if (r < 0)
        return r;
    if ((r = read_int(json, "protocol", 0, INT32_MAX, -1, &protocol, error)) < 0)
        return r;
    if (protocol != 1)
        return error_set(error, EBADMSG, "it speaks protocol %lld; this gantry speaks 1", (long long)protocol);
    if ((r = read_int(json, "height", 1, REMOTE_SIDE_MAX, 0, &height, error)) < 0 ||
        (r = read_int(json, "width", 1, REMOTE_SIDE_MAX, 0, &width, error)) < 0 ||
        (r = read_int(json, "cameras", 1, REMOTE_CAMERAS_MAX, 1, &cameras, error)) < 0 ||
        (r = read_int(json, "action_dims", 1, SIM_ACTION_MAX, SIM_ACTION_DIMS, &dims, error)) < 0 ||
        (r = read_int(json, "proprio", 0, REMOTE_PROPRIO_MAX, 0, &proprio, error)) < 0 ||
        (r = read_int(json, "state_bytes", 0, REMOTE_STATE_MAX, 0, &state_bytes, error)) < 0 ||
        (r = read_bool(json, "expert", &ret->expert, error)) < 0)
        return r;
    ret->height = (int)height;
    ret->width = (int)width;
    ret->cameras = (int)cameras;
    ret->action_dims = (int)dims;
    ret->proprio = (int)proprio;
    ret->state_bytes = (size_t)state_bytes;
    if (remote_picture_bytes(ret) > FRAME_BODY_MAX)
        return error_set(error, EBADMSG, "pictures of %zu bytes; at most %d", remote_picture_bytes(ret), FRAME_BODY_MAX);
    return read_tasks(json, ret, error);
}

int remote_read_observation(const char *head, size_t n, int proprio, struct remote_observation *ret, struct error *error)
{
    _cleanup_(json_release) json_t *json = NULL;
    int r = parse(head, n, &json, error);

    if (r < 0)
        return r;
    if ((r = read_bool(json, "success", &ret->success, error)) < 0 || (r = read_reward(json, &ret->reward, error)) < 0 ||
        (r = read_text(json, "instruction", ret->instruction, sizeof(ret->instruction), error)) < 0)
        return r;
    return read_numbers(json, "proprio", (size_t)proprio, 1e30, ret->proprio, error);
}

int remote_read_expert(const char *head, size_t n, int action_dims, float *ret_action, float *ret_label, struct error *error)
{
    _cleanup_(json_release) json_t *json = NULL;
    const size_t dims = (size_t)action_dims;
    float action[SIM_ACTION_MAX], label[SIM_ACTION_MAX];
    int r = parse(head, n, &json, error);

    if (r < 0)
        return r;
    if ((r = read_numbers(json, "action", dims, 1, action, error)) < 0 ||
        (r = read_numbers(json, json_object_get(json, "label") ? "label" : "action", dims, 1, label, error)) < 0)
        return r;
    memcpy(ret_action, action, sizeof(*action) * dims);
    memcpy(ret_label, label, sizeof(*label) * dims);
    return 0;
}

int remote_read_nothing(const char *head, size_t n, struct error *error)
{
    _cleanup_(json_release) json_t *json = NULL;

    return parse(head, n, &json, error);
}
