/* hf_files.c - the small files of a model directory, kept in memory and written out again. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/hf.h"

enum { LIMIT = 64 << 20 };

/* Whatever of these a directory has belongs to the model; *.py is the modelling code that auto_map in config.json names. */
static const char *const names[] = {
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "config.json", "dataset_statistics.json",
    "generation_config.json", "merges.txt", "preprocessor_config.json", "processor_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json",
};

static int belongs(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(entry->d_name, names[i]))
            return 1;
    return n > 3 && !strcmp(entry->d_name + n - 3, ".py");
}

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

static int read_one(const char *dir, const char *name, struct hf_files *files, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    char *bytes;
    size_t n;
    int r;

    strbuf_addf(&path, "%s/%s", dir, name);
    r = path.failed ? -ENOMEM : file_read(path.text, LIMIT, &bytes, &n);
    if (r >= 0)
        r = add(files, name, bytes, n);
    return r < 0 ? error_set(error, -r, "%s: %s", path.text, strerror(-r)) : 0;
}

int hf_files_read(const char *dir, struct hf_files *ret, struct error *error)
{
    _cleanup_(hf_files_release) struct hf_files files = {0};
    struct dirent **entries;
    int n = scandir(dir, &entries, belongs, alphasort), r = 0;

    if (n < 0)
        return error_set(error, errno, "%s: %s", dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (r >= 0)
            r = read_one(dir, entries[i]->d_name, &files, error);
        free(entries[i]);
    }
    free(entries);
    if (r < 0)
        return r;
    *ret = TAKE_STRUCT(files);
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
        bytes[from->list[i].n] = '\0';
        r = add(&files, from->list[i].name, bytes, from->list[i].n);
        if (r < 0)
            return r;
    }
    *ret = TAKE_STRUCT(files);
    return 0;
}

/* The next "torch_dtype", or "dtype" as newer writers call it, behind `at`: where its value may begin. */
static const char *next_dtype(const char *at)
{
    static const char key[] = "dtype\"", old[] = "\"torch_";
    const size_t n_old = sizeof(old) - 1;

    for (const char *hit = at; (hit = strstr(hit, key)); hit++)
        if ((hit > at && hit[-1] == '"') || (hit >= at + n_old && !memcmp(hit - n_old, old, n_old)))
            return hit + strlen(key);
    return NULL;
}

/* The value of the dtype wherever config.json has it (it is in text_config too), in the text itself: all else stays to the byte,
 * numbers above all. Where there is none, one is put in front. */
static int with_dtype(const struct hf_file *config, const char *torch_dtype, struct strbuf *ret)
{
    const char *at = config->bytes;
    bool found = false;

    for (const char *hit; (hit = next_dtype(at)); at = hit) {
        const char *value = hit, *end;

        while (isspace((unsigned char)*value) || *value == ':')
            value++;
        end = *value == '"' ? strchr(value + 1, '"') : NULL;
        if (end) {
            strbuf_add(ret, at, (size_t)(value - at));
            strbuf_addf(ret, "\"%s\"", torch_dtype);
            hit = end + 1;
            found = true;
        } else {
            strbuf_add(ret, at, (size_t)(hit - at));        /* null, say */
        }
    }
    if (!found && *at == '{') {
        strbuf_addf(ret, "{\n  \"torch_dtype\": \"%s\",", torch_dtype);
        at++;
    }
    strbuf_adds(ret, at);
    return ret->failed ? -ENOMEM : 0;
}

int hf_files_write(const struct hf_files *files, const char *dir, const char *torch_dtype, struct error *error)
{
    for (int i = 0; i < files->n; i++) {
        const struct hf_file *file = &files->list[i];
        _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT, config = STRBUF_INIT;
        bool change = torch_dtype && !strcmp(file->name, "config.json");
        int r = change ? with_dtype(file, torch_dtype, &config) : 0;

        strbuf_addf(&path, "%s/%s", dir, file->name);
        if (r >= 0)
            r = path.failed ? -ENOMEM : file_write(path.text, change ? config.text : file->bytes,
                                                   change ? config.length : file->n);
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
