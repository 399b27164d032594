#include "serve/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "nn/base_link.h"

enum { UNUSED_S = 7 * 24 * 3600, SPARE_BYTES = 64 << 20 };

static const char *folder(int kind) { return kind ? "prms" : "policies"; }

/* ---- the place --------------------------------------------------------------------------------------------- */

static int find_root(const char *given, char ret[VERSION_PATH])
{
    const struct { const char *base, *below; } places[] = {
        {given, ""}, {getenv("CACHE_DIRECTORY"), ""}, {getenv("XDG_CACHE_HOME"), "/gantry"}, {getenv("HOME"), "/.cache/gantry"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (places[i].base && *places[i].base)
            return snprintf(ret, VERSION_PATH, "%s%s", places[i].base, places[i].below) < VERSION_PATH - 128 ? 0 : -ENAMETOOLONG;
    snprintf(ret, VERSION_PATH, "/var/tmp/gantry-%u", (unsigned)getuid());
    return 0;
}

/* Held for as long as the process uses the cache; its time says when it was used last. */
static int take_lock(const char *dir, int how)
{
    char path[VERSION_PATH + 264];
    int fd;

    snprintf(path, sizeof path, "%s/lock", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, how | LOCK_NB) < 0) {
        int r = errno == EWOULDBLOCK ? -EAGAIN : -errno;

        close(fd);
        return r;
    }
    return fd;
}

/* "0123456789abcdef-actor": nothing else is ours to remove. */
static bool is_cache_name(const char *name)
{
    return strspn(name, "0123456789abcdef") == 16 && (!strcmp(name + 16, "-actor") || !strcmp(name + 16, "-prm_server"));
}

static void sweep(const char *root, const char *ours)
{
    DIR *dir = opendir(root);
    struct dirent *item;

    while (dir && (item = readdir(dir))) {
        char path[VERSION_PATH + 264], lock[VERSION_PATH + 272];
        struct stat st;
        int fd;

        if (!is_cache_name(item->d_name) || !strcmp(item->d_name, ours))
            continue;
        snprintf(path, sizeof path, "%s/%s", root, item->d_name);
        snprintf(lock, sizeof lock, "%s/lock", path);
        if (stat(lock, &st) < 0 || st.st_mtime > time(NULL) - UNUSED_S)
            continue;
        fd = take_lock(path, LOCK_EX);
        if (fd < 0)
            continue;
        (void)remove_tree(path);
        close(fd);
    }
    if (dir)
        closedir(dir);
}

int cache_open(struct cache *cache, const char *given, uint64_t run, const char *role, struct error *error)
{
    char root[VERSION_PATH], name[48];
    struct stat st;
    int r = find_root(given, root);

    if (r < 0)
        return error_set(error, -r, "--cache %s: path too long", given ? given : "");
    cache->lock = -1;
    snprintf(name, sizeof name, "%016" PRIx64 "-%s", run, role);
    snprintf(cache->dir, sizeof cache->dir, "%s/%s", root, name);
    r = mkdir_p(cache->dir, 0700);
    if (r == 0 && stat(cache->dir, &st) < 0)
        r = -errno;
    if (r == 0 && (st.st_uid != geteuid() || st.st_mode & 022))
        r = -EPERM;
    if (r == 0)
        r = cache->lock = take_lock(cache->dir, LOCK_SH);
    if (r >= 0) {
        (void)futimens(cache->lock, NULL);
        sweep(root, name);
        return 0;
    }
    error_set(error, -r, r == -EPERM ? "%s belongs to somebody else or others may write into it; give --cache DIR"
                                     : "%s: weights cannot be kept there: %s; give --cache DIR", cache->dir, strerror(-r));
    cache->dir[0] = '\0';
    return r;
}

void cache_close(struct cache *cache)
{
    if (cache->dir[0] && cache->lock >= 0)
        close(cache->lock);
    *cache = (struct cache) {.lock = -1};
}

int cache_has_room(const struct cache *cache, uint64_t bytes, struct error *error)
{
    struct statvfs fs;
    uint64_t available;

    if (statvfs(cache->dir, &fs) < 0)
        return 0;                       /* the writes will tell */
    available = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (available >= bytes + SPARE_BYTES)
        return 0;
    return error_set(error, ENOSPC,
                     "%s: the version needs %" PRIu64 " MB, %" PRIu64 " MB are free; make room or give --cache DIR", cache->dir,
                     bytes >> 20, available >> 20);
}

/* ---- versions ----------------------------------------------------------------------------------------------- */

static bool has_digest(const char *dir, const uint8_t digest[SHA256_SIZE])
{
    char path[VERSION_PATH + 16];
    uint8_t found[SHA256_SIZE];

    snprintf(path, sizeof path, "%s/manifest.json", dir);
    return sha256_file(path, found) == 0 && !memcmp(found, digest, SHA256_SIZE);
}

int cache_find(const struct cache *cache, int kind, uint64_t number, const uint8_t digest[SHA256_SIZE], char ret[VERSION_PATH])
{
    int r = version_path(cache->dir, kind, number, ret);

    if (r < 0)
        return r;
    if (access(ret, F_OK) < 0)
        return 0;
    if (has_digest(ret, digest))
        return 1;
    return remove_tree(ret);
}

static void pull_path(const struct cache *cache, int kind, uint64_t number, char ret[VERSION_PATH])
{
    snprintf(ret, VERSION_PATH, "%s/%s/.pull-v%06" PRIu64, cache->dir, folder(kind), number);
}

int cache_begin(const struct cache *cache, int kind, uint64_t number, const uint8_t digest[SHA256_SIZE],
                char ret_dir[VERSION_PATH], int *ret_lock, struct error *error)
{
    char dir[VERSION_PATH];
    int lock = -1, r;

    pull_path(cache, kind, number, dir);
    r = mkdir_p(dir, 0700);
    if (r == 0)
        r = lock = take_lock(dir, LOCK_EX);
    if (r == -EAGAIN)
        return error_set(error, EAGAIN, "%s: another process of this host is bringing this version", dir);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made: %s; give --cache DIR", dir, strerror(-r));
    if (!has_digest(dir, digest)) {     /* what lies there belongs to no manifest, or to another's */
        DIR *files = opendir(dir);
        struct dirent *item;

        while (files && (item = readdir(files))) {
            if (item->d_name[0] != '.' && strcmp(item->d_name, "lock"))
                (void)unlinkat(dirfd(files), item->d_name, 0);
        }
        if (files)
            closedir(files);
    }
    memcpy(ret_dir, dir, sizeof dir);
    *ret_lock = lock;
    return 0;
}

int cache_commit(const struct cache *cache, int kind, uint64_t number, const char *dir, struct error *error)
{
    char final[VERSION_PATH], lock[VERSION_PATH + 8];
    int r = version_path(cache->dir, kind, number, final);

    if (r == 0)
        r = fault_errno("pull.rename");
    if (r == 0)
        r = rename(dir, final) < 0 ? -errno : 0;        /* a directory is only replaced if it is empty */
    if (r == 0) {
        snprintf(lock, sizeof lock, "%s/lock", final);
        (void)unlink(lock);
        return 0;
    }
    if (r == -EEXIST || r == -ENOTEMPTY) {
        (void)remove_tree(dir);
        return 0;
    }
    return error_set(error, -r, "%s: renaming to %s failed: %s", dir, final, strerror(-r));
}

void cache_remove(const struct cache *cache, int kind, uint64_t number)
{
    char dir[VERSION_PATH];

    if (version_path(cache->dir, kind, number, dir) == 0)
        (void)remove_tree(dir);
}

/* "../v000003" or "../../policies/v000003", seen from a version of `kind`. */
static bool parse_base(const char *base, int kind, int *ret_kind, uint64_t *ret_number)
{
    static const char *const before[] = {"../v", "../../policies/v", "../../prms/v"};

    for (int i = 0; i < (int)ARRAY_SIZE(before); i++) {
        const char *digits = base + strlen(before[i]);

        if (strncmp(base, before[i], strlen(before[i])) || strspn(digits, "0123456789") != strlen(digits) || !*digits)
            continue;
        *ret_kind = i == 0 ? kind : i - 1;
        *ret_number = strtoull(digits, NULL, 10);
        return true;
    }
    return false;
}

int cache_base_of(const char *dir, int kind, int *ret_kind, uint64_t *ret_number, uint8_t ret_digest[SHA256_SIZE],
                  struct error *error)
{
    char base[PATH_MAX], hex[SHA256_HEX];
    int r = base_link_read(dir, base, hex, error);

    if (r <= 0)
        return r;
    if (!parse_base(base, kind, ret_kind, ret_number))
        return error_set(error, ENOTSUP, "%s/base.json: the base %s is no version of the run, and cannot be brought over", dir,
                         base);
    for (int i = 0; i < SHA256_SIZE; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &ret_digest[i]) != 1)
            return error_set(error, EBADMSG, "%s/base.json: manifest_sha256 is no SHA-256", dir);
    return 1;
}

/* ---- retention ---------------------------------------------------------------------------------------------- */

static bool is_kept(const struct cache *cache, int kind, uint64_t number, const uint64_t *keep, size_t n_keep)
{
    for (size_t i = 0; i < n_keep; i++) {
        char dir[VERSION_PATH];
        uint8_t digest[SHA256_SIZE];
        uint64_t base;
        int base_kind;

        if (keep[i] == number)
            return true;
        if (version_path(cache->dir, kind, keep[i], dir) == 0 && cache_base_of(dir, kind, &base_kind, &base, digest, NULL) == 1 &&
            base_kind == kind && base == number)
            return true;
    }
    return false;
}

void cache_retain(const struct cache *cache, int kind, const uint64_t *keep, size_t n_keep)
{
    char path[VERSION_PATH];
    struct dirent *item;
    DIR *dir;

    snprintf(path, sizeof path, "%s/%s", cache->dir, folder(kind));
    dir = opendir(path);
    while (dir && (item = readdir(dir))) {
        char each[VERSION_PATH + 264];
        unsigned long long number;
        bool whole = sscanf(item->d_name, "v%llu", &number) == 1;
        int lock = -1;

        if ((!whole && sscanf(item->d_name, ".pull-v%llu", &number) != 1) || is_kept(cache, kind, number, keep, n_keep))
            continue;
        snprintf(each, sizeof each, "%s/%s", path, item->d_name);
        if (!whole && (lock = take_lock(each, LOCK_EX)) < 0)
            continue;                   /* somebody is at it */
        (void)remove_tree(each);
        if (lock >= 0)
            close(lock);
    }
    if (dir)
        closedir(dir);
}
