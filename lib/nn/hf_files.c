/* hf_files.c - the small files of a model directory, kept in memory and written out again. */
#include <errno.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/hf.h"

enum { LIMIT = 64 << 20 };

/* Whatever of these a directory has belongs to the model. */
static const char *const names[] = {
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "dataset_statistics.json",
};

static int add(struct hf_files *files, const char *name, char *bytes, size_t n)
{
    struct hf_file *grown = reallocarray(files->list, (size_t)files->n + 1, sizeof(*grown));
    char *copy = strdup(name);

    if (grown)
        files->list = grown;
    if (!grown || !copy) {
        free(copy);
        free(bytes);
        return -ENOMEM;
    }
    files->list[files->n++] = (struct hf_file) {.name = copy, .bytes = bytes, .n = n};
    return 0;
}

int hf_files_read(const char *dir, struct hf_files *ret, struct error *error)
{
    _cleanup_(hf_files_release) struct hf_files files = {0};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
        char *bytes;
        size_t n;
        int r;

        strbuf_addf(&path, "%s/%s", dir, names[i]);
        r = file_read(path.text, LIMIT, &bytes, &n);
        if (r == -ENOENT)
            continue;
        if (r >= 0)
            r = add(&files, names[i], bytes, n);
        if (r < 0)
            return error_set(error, -r, "%s: %s", path.text, strerror(-r));
    }
    *ret = files;
    files = (struct hf_files) {0};
    return 0;
}

int hf_files_copy(const struct hf_files *from, struct hf_files *ret)
{
    _cleanup_(hf_files_release) struct hf_files files = {0};

    for (int i = 0; i < from->n; i++) {
        char *bytes = malloc(from->list[i].n + 1);
        int r;

        if (!bytes)
            return -ENOMEM;
        memcpy(bytes, from->list[i].bytes, from->list[i].n);
        r = add(&files, from->list[i].name, bytes, from->list[i].n);
        if (r < 0)
            return r;
    }
    *ret = files;
    files = (struct hf_files) {0};
    return 0;
}

/* config.json says in which dtype the weights lie beside it, twice. */
static int with_dtype(const struct hf_file *config, const char *torch_dtype, char **ret)
{
    _cleanup_json_ json_t *json = json_loadb(config->bytes, config->n, 0, NULL);
    json_t *text = json_object_get(json, "text_config");

    if (!json)
        return -EINVAL;
    json_object_set_new(json, "torch_dtype", json_string(torch_dtype));
    if (json_is_object(text))
        json_object_set_new(text, "torch_dtype", json_string(torch_dtype));
    *ret = json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS);
    return *ret ? 0 : -ENOMEM;
}

int hf_files_write(const struct hf_files *files, const char *dir, const char *torch_dtype, struct error *error)
{
    for (int i = 0; i < files->n; i++) {
        const struct hf_file *file = &files->list[i];
        _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
        _cleanup_free_ char *config = NULL;
        bool is_config = !strcmp(file->name, "config.json");
        int r = is_config ? with_dtype(file, torch_dtype, &config) : 0;

        strbuf_addf(&path, "%s/%s", dir, file->name);
        if (r >= 0)
            r = atomic_file_write(path.text, config ? config : file->bytes, config ? strlen(config) : file->n);
        if (r < 0)
            return error_set(error, -r, "%s: %s", path.text, strerror(-r));
    }
    return 0;
}

void hf_files_release(struct hf_files *files)
{
    for (int i = 0; i < files->n; i++) {
        free(files->list[i].name);
        free(files->list[i].bytes);
    }
    free(files->list);
    *files = (struct hf_files) {0};
}
