#include "learner/record.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/json_write.h"

#define FILE_NAME "training.json"

void record_release(struct record *record)
{
    free(record->trained);
    free(record->filtered);
    free(record->stale);
    free(record->metrics);
    free(record->data);
    *record = (struct record) {0};
}

static void write_list(struct json_writer *w, const char *key, const uint64_t *list, size_t n)
{
    json_open(w, key, '[');
    for (size_t i = 0; i < n; i++)
        json_unsigned(w, NULL, list[i]);
    json_close(w, ']');
}

int record_write(const char *dir, const struct record *record, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct json_writer w = {.out = &text};
    char path[4096];
    int r;

    json_open(&w, NULL, '{');
    write_list(&w, "trained", record->trained, record->n_trained);
    write_list(&w, "filtered", record->filtered, record->n_filtered);
    write_list(&w, "stale", record->stale, record->n_stale);
    json_bool(&w, "gate_passed", record->gate_passed);
    json_text(&w, "gate_text", record->gate_text);
    json_raw(&w, "metrics", record->metrics ? record->metrics : "{}");
    if (record->data)
        json_raw(&w, "data", record->data);
    json_close(&w, '}');
    if (text.failed || snprintf(path, sizeof path, "%s/" FILE_NAME, dir) >= (int)sizeof path)
        return error_set(error, ENOMEM, "%s/" FILE_NAME ": out of memory, or the path is too long", dir);
    r = file_write(path, text.text, text.length);
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}

static int read_list(const char *path, const json_t *root, const char *key, uint64_t **ret, size_t *ret_n, struct error *error)
{
    const json_t *array = json_object_get(root, key);
    size_t n = json_array_size(array);
    _cleanup_free_ uint64_t *list = calloc(MAX(n, (size_t)1), sizeof *list);
    bool right = json_is_array(array);

    if (!list)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < n && right; i++) {
        const json_t *item = json_array_get(array, i);

        right = json_is_integer(item) && json_integer_value(item) >= 0;
        list[i] = (uint64_t)json_integer_value(item);
    }
    if (!right)
        return error_set(error, EBADMSG, "%s: %s: expected a list of episodes", path, key);
    *ret = TAKE_PTR(list);
    *ret_n = n;
    return 0;
}

int record_read(const char *dir, struct record *ret, struct error *error)
{
    _cleanup_(record_release) struct record record = {0};
    _cleanup_(json_decrefp) json_t *root = NULL;
    char path[4096];
    json_error_t why;
    const char *gate;
    int r;

    if (snprintf(path, sizeof path, "%s/" FILE_NAME, dir) >= (int)sizeof path)
        return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
    if (access(path, F_OK) < 0)
        return error_set(error, ENOENT, "%s: not there", path);
    root = json_load_file(path, 0, &why);
    if (!json_is_object(root))
        return error_set(error, EBADMSG, "%s:%d: %s", path, root ? 1 : why.line, root ? "expected a map" : why.text);
    if ((r = read_list(path, root, "trained", &record.trained, &record.n_trained, error)) < 0 ||
        (r = read_list(path, root, "filtered", &record.filtered, &record.n_filtered, error)) < 0 ||
        (r = read_list(path, root, "stale", &record.stale, &record.n_stale, error)) < 0)
        return r;
    record.gate_passed = json_is_true(json_object_get(root, "gate_passed"));
    gate = json_string_value(json_object_get(root, "gate_text"));
    snprintf(record.gate_text, sizeof record.gate_text, "%s", gate ? gate : "");
    record.metrics = json_dumps(json_object_get(root, "metrics"), JSON_COMPACT);
    *ret = TAKE_STRUCT(record);
    return 0;
}
