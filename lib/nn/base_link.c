#include "nn/base_link.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "nn/hf.h"

#define BASE_FILE "base.json"

static int path_of(const char *dir, const char *name, char ret[PATH_MAX], struct error *error)
{
    if ((size_t)snprintf(ret, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
        return 0;
    return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
}

/* The digest of DIR's manifest.json as text. */
static int manifest_digest(const char *dir, char ret[2 * SHA256_SIZE + 1], struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    char path[PATH_MAX];
    int r = path_of(dir, "manifest.json", path, error);

    if (r < 0)
        return r;
    r = sha256_file(path, digest);
    if (r < 0)
        return error_set(error, -r, "%s: %s; what was trained on a base needs it: it must stay", path, strerror(-r));
    for (int i = 0; i < SHA256_SIZE; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

int base_link_digest(const char *dir, char ret_sha256[65], struct error *error)
{
    char path[PATH_MAX];
    int r = path_of(dir, "manifest.json", path, error);

    if (r < 0 || access(path, F_OK) < 0)
        return r;
    r = manifest_digest(dir, ret_sha256, error);
    return r < 0 ? r : 1;
}

int base_link_read(const char *dir, char ret_base[PATH_MAX], char ret_sha256[65], struct error *error)
{
    _cleanup_json_ json_t *json = NULL;
    const char *base, *wanted;
    char path[PATH_MAX];
    int r = path_of(dir, BASE_FILE, path, error);

    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return 0;
    r = hf_json(dir, BASE_FILE, &json, error);
    if (r < 0)
        return r;
    base = json_string_value(json_object_get(json, "base"));
    wanted = json_string_value(json_object_get(json, "manifest_sha256"));
    if (!base || !wanted || strlen(base) >= PATH_MAX || strlen(wanted) != 2 * SHA256_SIZE)
        return error_set(error, EBADMSG, "%s: base and manifest_sha256 must be strings, a directory and a SHA-256", path);
    snprintf(ret_base, PATH_MAX, "%s", base);
    snprintf(ret_sha256, 65, "%s", wanted);
    return 1;
}

int base_link_follow(const char *dir, char ret[PATH_MAX], struct error *error)
{
    char path[PATH_MAX], base[PATH_MAX], found[2 * SHA256_SIZE + 1], wanted[65];
    int r = base_link_read(dir, base, wanted, error);

    if (r <= 0)
        return r;
    r = path_of(dir, base, path, error);
    if (r >= 0)
        r = manifest_digest(path, found, error);
    if (r < 0)
        return r;
    if (strcmp(found, wanted))
        return error_set(error, EBADMSG, "%s: what lies in %s was trained on another base: manifest.json has SHA-256 %.12s..., "
                         "expected %.12s...",
                         path, dir, found, wanted);
    memcpy(ret, path, sizeof(path));
    return 1;
}

int base_link_write(const char *dir, const char *base, struct error *error)
{
    _cleanup_json_ json_t *json = NULL;
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX], digest[2 * SHA256_SIZE + 1];
    int r = path_of(dir, base, path, error);

    if (r >= 0)
        r = manifest_digest(path, digest, error);
    if (r >= 0)
        r = path_of(dir, BASE_FILE, path, error);
    if (r < 0)
        return r;
    json = json_pack("{s:s, s:s}", "base", base, "manifest_sha256", digest);
    text = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    r = text ? atomic_file_write(path, text, strlen(text)) : -ENOMEM;
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}
