/* manifest.json: writing, parsing, verifying. version.c makes and commits the directories. */
#include "run/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/json_write.h"
#include "run/manifest_internal.h"

enum { MANIFEST_FORMAT = 1, MANIFEST_MAX = 64 << 20 };

void manifest_release(struct manifest *manifest)
{
    free(manifest->consumed);
    free(manifest->files);
    *manifest = (struct manifest) {0};
}

int manifest_write(const struct manifest *m, struct strbuf *out)
{
    struct json_writer w = {.out = out};
    char hex[SHA256_HEX], run[24];

    json_open(&w, NULL, '{');
    json_signed(&w, "format", MANIFEST_FORMAT);
    snprintf(run, sizeof run, "%016" PRIx64, m->run);
    json_text(&w, "run", run);
    json_text(&w, "kind", m->kind ? "prm" : "policy");
    json_unsigned(&w, "number", m->number);
    json_unsigned(&w, "parent", m->parent);
    sha256_hex(m->plan_digest, hex);
    json_text(&w, "plan_digest", hex);
    json_unsigned(&w, "group_epoch", m->group_epoch);
    json_unsigned(&w, "stage", m->stage);
    json_unsigned(&w, "iteration", m->iteration);
    json_open(&w, "consumed", '[');
    for (size_t i = 0; i < m->n_consumed; i++) {
        json_open(&w, NULL, '{');
        json_unsigned(&w, "episode", m->consumed[i].episode);
        sha256_hex(m->consumed[i].digest, hex);
        json_text(&w, "digest", hex);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_open(&w, "files", '[');
    for (size_t i = 0; i < m->n_files; i++) {
        json_open(&w, NULL, '{');
        json_text(&w, "name", m->files[i].name);
        json_unsigned(&w, "size", m->files[i].size);
        sha256_hex(m->files[i].sha256, hex);
        json_text(&w, "sha256", hex);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return out->failed ? -ENOMEM : 0;
}

/* ---- parsing: every getter returns false when the key is missing or of the wrong kind ------------ */

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool get_digest(const json_t *object, const char *key, uint8_t ret[SHA256_SIZE])
{
    const char *hex = json_string_value(json_object_get(object, key));

    if (!hex || strlen(hex) != 2 * SHA256_SIZE)
        return false;
    for (int i = 0; i < SHA256_SIZE; i++) {
        int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool get_u64(const json_t *object, const char *key, uint64_t *ret)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

static bool get_u32(const json_t *object, const char *key, uint32_t *ret)
{
    uint64_t wide;

    if (!get_u64(object, key, &wide) || wide > UINT32_MAX)
        return false;
    *ret = (uint32_t)wide;
    return true;
}

static bool get_run(const json_t *object, uint64_t *ret)
{
    const char *hex = json_string_value(json_object_get(object, "run"));
    char *end;

    if (!hex || strlen(hex) != 16)
        return false;
    *ret = strtoull(hex, &end, 16);
    return *end == '\0';
}

bool manifest_plain_name(const char *name)
{
    return name && *name && *name != '.' && !strchr(name, '/') && strlen(name) < sizeof ((struct manifest_file *)0)->name;
}

static bool get_lists(const json_t *root, struct manifest *m)
{
    const json_t *consumed = json_object_get(root, "consumed"), *files = json_object_get(root, "files");

    if (!json_is_array(consumed) || !json_is_array(files))
        return false;
    m->consumed = calloc(json_array_size(consumed) + 1, sizeof *m->consumed);
    m->files = calloc(json_array_size(files) + 1, sizeof *m->files);
    if (!m->consumed || !m->files)
        return false;
    for (; m->n_consumed < json_array_size(consumed); m->n_consumed++) {
        const json_t *item = json_array_get(consumed, m->n_consumed);

        if (!get_u64(item, "episode", &m->consumed[m->n_consumed].episode) ||
            !get_digest(item, "digest", m->consumed[m->n_consumed].digest))
            return false;
    }
    for (; m->n_files < json_array_size(files); m->n_files++) {
        const json_t *item = json_array_get(files, m->n_files);
        const char *name = json_string_value(json_object_get(item, "name"));

        if (!manifest_plain_name(name) || !get_u64(item, "size", &m->files[m->n_files].size) ||
            !get_digest(item, "sha256", m->files[m->n_files].sha256))
            return false;
        snprintf(m->files[m->n_files].name, sizeof m->files[0].name, "%s", name);
    }
    return true;
}

static bool get_all(const json_t *root, struct manifest *m)
{
    const char *kind = json_string_value(json_object_get(root, "kind"));
    uint64_t format;

    if (!get_u64(root, "format", &format) || format != MANIFEST_FORMAT || !kind ||
        (strcmp(kind, "policy") && strcmp(kind, "prm")))
        return false;
    m->kind = !strcmp(kind, "prm");
    return get_run(root, &m->run) && get_u64(root, "number", &m->number) && get_u64(root, "parent", &m->parent)
        && get_digest(root, "plan_digest", m->plan_digest) && get_u64(root, "group_epoch", &m->group_epoch)
        && get_u32(root, "stage", &m->stage) && get_u32(root, "iteration", &m->iteration) && get_lists(root, m);
}

int manifest_read(const char *dir, struct manifest *ret, struct error *error)
{
    struct manifest m = {0};
    char path[VERSION_PATH + 16];
    _cleanup_free_ char *text = NULL;
    json_error_t where;
    json_t *root;
    size_t n;
    int r;

    snprintf(path, sizeof path, "%s/manifest.json", dir);
    r = file_read(path, MANIFEST_MAX, &text, &n);
    if (r == -ENOENT)
        return error_set(error, ENOENT, "%s: not there: %s is no committed version", path, dir);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be read: %s", path, strerror(-r));
    root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(error, EBADMSG, "%s:%d:%d: %s", path, where.line, where.column, where.text);
    if (!get_all(root, &m)) {
        json_decref(root);
        manifest_release(&m);
        return error_set(error, EBADMSG, "%s: not a manifest of format %d: a key is missing or of the wrong kind", path,
                         MANIFEST_FORMAT);
    }
    json_decref(root);
    sha256_of(text, n, m.digest);
    *ret = m;
    return 0;
}

int manifest_verify(const char *dir, const struct manifest *manifest, bool (*want)(const char *name), struct error *error)
{
    for (size_t i = 0; i < manifest->n_files; i++) {
        const struct manifest_file *file = &manifest->files[i];
        uint8_t digest[SHA256_SIZE];
        char path[VERSION_PATH + 136];
        struct stat st;
        int r;

        if (want && !want(file->name))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, file->name);
        if (stat(path, &st) < 0)
            return error_set(error, errno, "%s: cannot be read: %m", path);
        if ((uint64_t)st.st_size != file->size)
            return error_set(error, EBADMSG, "%s: %" PRIu64 " bytes, its manifest says %" PRIu64 ": restore it from a copy", path,
                             (uint64_t)st.st_size, file->size);
        r = sha256_file(path, digest);
        if (r < 0)
            return error_set(error, -r, "%s: cannot be read: %s", path, strerror(-r));
        if (memcmp(digest, file->sha256, SHA256_SIZE))
            return error_set(error, EBADMSG, "%s: its bytes are not those its manifest lists: restore it from a copy", path);
    }
    return 0;
}
