/* Version directories: begun under a temporary name, committed by one rename, thinned out by retention. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/atomic_file.h"
#include "base/fault.h"
#include "run/manifest.h"
#include "run/manifest_internal.h"

static const char *folder(int kind) { return kind ? "prms" : "policies"; }

int version_path(const char *run_dir, int kind, uint64_t number, char ret[VERSION_PATH])
{
    char path[VERSION_PATH];

    if ((size_t)snprintf(path, sizeof path, "%s/%s/v%06" PRIu64, run_dir, folder(kind), number) >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(ret, path, sizeof path);
    return 0;
}

static void host_name(char out[64])
{
    if (gethostname(out, 64) < 0)
        snprintf(out, 64, "localhost");
    out[63] = '\0';
}

int version_begin(const char *run_dir, int kind, uint64_t number, char ret_dir[VERSION_PATH], struct error *error)
{
    char dir[VERSION_PATH], host[64];
    int r;

    host_name(host);
    if ((size_t)snprintf(dir, sizeof dir, "%s/%s/.tmp-%s-%d-%" PRIu64, run_dir, folder(kind), host, (int)getpid(), number) >=
        sizeof dir)
        return error_set(error, ENAMETOOLONG, "%s: path too long", run_dir);
    r = remove_tree(dir);
    if (r == 0)
        r = mkdir_p(dir, 0755);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made: %s", dir, strerror(-r));
    memcpy(ret_dir, dir, sizeof dir);
    return 0;
}

void version_discard(const char *dir)
{
    (void)remove_tree(dir);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct manifest_file *)a)->name, ((const struct manifest_file *)b)->name);
}

/* The files that make up a version, in name order; sizes and digests not yet filled. */
static int list_files(const char *path, struct manifest_file **ret, size_t *ret_n, struct error *error)
{
    _cleanup_free_ struct manifest_file *files = NULL;
    size_t n = 0, capacity = 0;
    DIR *dir = opendir(path);
    struct dirent *item;
    int r = 0;

    if (!dir)
        return error_set(error, errno, "%s: cannot be opened: %m", path);
    while (r == 0 && (item = readdir(dir))) {
        struct stat st;

        if (item->d_name[0] == '.' || !strcmp(item->d_name, "manifest.json"))
            continue;
        if (fstatat(dirfd(dir), item->d_name, &st, 0) < 0) {
            r = error_set(error, errno, "%s/%s: cannot be read: %m", path, item->d_name);
            break;
        }
        if (!S_ISREG(st.st_mode))
            continue;
        if (array_room(&files, n, &capacity, sizeof *files) < 0) {
            r = error_set(error, ENOMEM, "%s: out of memory", path);
            break;
        }
        if (strlen(item->d_name) >= sizeof files[0].name) {
            r = error_set(error, ENAMETOOLONG, "%s/%s: file name too long", path, item->d_name);
            break;
        }
        files[n] = (struct manifest_file) {.size = (uint64_t)st.st_size};
        snprintf(files[n++].name, sizeof files[0].name, "%s", item->d_name);
    }
    closedir(dir);
    if (r < 0)
        return r;
    if (n)
        qsort(files, n, sizeof *files, by_name);
    *ret = TAKE_PTR(files);
    *ret_n = n;
    return 0;
}

/* The writers have sent the files on their way to the disk; it works while we hash. */
static int hash_files(const char *dir, struct manifest_file *files, size_t n, struct error *error)
{
    for (size_t i = 0; i < n; i++) {
        char path[VERSION_PATH + 136];
        int r;

        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        r = sha256_file(path, files[i].sha256);
        if (r < 0)
            return error_set(error, -r, "%s: cannot be read: %s", path, strerror(-r));
    }
    return 0;
}

static int make_durable(const char *dir, struct error *error)
{
    int r = fault_errno("version.fsync");

    if (r == 0)
        r = directory_sync(dir);
    return r < 0 ? error_set(error, -r, "%s: cannot be made durable: %s", dir, strerror(-r)) : 0;
}

static int put_manifest(const char *dir, struct manifest *manifest, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    char path[VERSION_PATH + 16];
    int r;

    snprintf(path, sizeof path, "%s/manifest.json", dir);
    r = fault_errno("version.manifest");
    if (r == 0)
        r = manifest_write(manifest, &text);
    if (r == 0)
        r = file_write(path, text.text, text.length);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r));
    sha256_of(text.text, text.length, manifest->digest);
    return 0;
}

int version_commit(const char *run_dir, const char *dir, struct manifest *manifest, struct error *error)
{
    _cleanup_free_ struct manifest_file *files = NULL;
    char final[VERSION_PATH];
    size_t n;
    int r;

    r = version_path(run_dir, manifest->kind, manifest->number, final);
    if (r < 0)
        return error_set(error, -r, "%s: path too long", run_dir);
    r = list_files(dir, &files, &n, error);
    if (r == 0)
        r = hash_files(dir, files, n, error);
    if (r < 0)
        return r;
    free(manifest->files);
    manifest->files = TAKE_PTR(files);
    manifest->n_files = n;
    r = put_manifest(dir, manifest, error);
    if (r == 0)
        r = make_durable(dir, error);
    if (r < 0)
        return r;
    r = fault_errno("version.rename");
    if (r == 0)
        r = rename_noreplace(dir, final);
    if (r == -EEXIST)
        return error_set(error, EEXIST, "%s: committed by somebody else first; its work is loaded, this is discarded", final);
    if (r < 0)
        return error_set(error, -r, "%s: renaming to %s failed: %s", dir, final, strerror(-r));
    (void)fault_point("version.renamed");
    return 0;
}

/* Call each(dir, name) for the entries of RUN/policies or RUN/prms. */
static int each_entry(const char *run_dir, int kind, int (*each)(const char *dir, const char *name, void *user), void *user)
{
    char path[VERSION_PATH];
    struct dirent *item;
    DIR *dir;
    int r = 0;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", run_dir, folder(kind)) >= sizeof path)
        return -ENAMETOOLONG;
    dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while (r == 0 && (item = readdir(dir)))
        r = each(path, item->d_name, user);
    closedir(dir);
    return r;
}

static int sweep_one(const char *dir, const char *name, void *user)
{
    const char *host = user;
    char path[VERSION_PATH + 264];
    size_t n = strlen(host);
    int pid;

    if (strncmp(name, ".tmp-", 5) || strncmp(name + 5, host, n) || sscanf(name + 5 + n, "-%d-", &pid) != 1)
        return 0;
    if (pid == (int)getpid() || kill(pid, 0) == 0 || errno != ESRCH)
        return 0;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return remove_tree(path);
}

int version_sweep(const char *run_dir)
{
    char host[64], path[VERSION_PATH];
    int r;

    host_name(host);
    r = each_entry(run_dir, 0, sweep_one, host);
    if (r == 0)
        r = each_entry(run_dir, 1, sweep_one, host);
    for (int kind = 0; kind <= 1 && r == 0; kind++) {       /* whoever renamed one may have died before the name was durable */
        snprintf(path, sizeof path, "%s/%s", run_dir, folder(kind));
        r = fsync_directory(path);
        r = r == -ENOENT ? 0 : r;
    }
    return r;
}

struct numbers { uint64_t *items; size_t n, capacity; };

static int list_one(const char *dir, const char *name, void *user)
{
    struct numbers *numbers = user;
    unsigned long long number;
    char back[32];

    (void)dir;
    if (sscanf(name, "v%llu", &number) != 1 || (snprintf(back, sizeof back, "v%06llu", number), strcmp(back, name)))
        return 0;
    if (array_room(&numbers->items, numbers->n, &numbers->capacity, sizeof *numbers->items) < 0)
        return -ENOMEM;
    numbers->items[numbers->n++] = number;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int version_list(const char *run_dir, int kind, uint64_t **ret, size_t *ret_n)
{
    struct numbers numbers = {0};
    int r = each_entry(run_dir, kind, list_one, &numbers);

    if (r < 0) {
        free(numbers.items);
        return r;
    }
    if (numbers.n)
        qsort(numbers.items, numbers.n, sizeof *numbers.items, by_number);
    *ret = numbers.items;
    *ret_n = numbers.n;
    return 0;
}

int version_drop(const char *run_dir, int kind, uint64_t number)
{
    _cleanup_free_ struct manifest_file *files = NULL;
    char dir[VERSION_PATH], path[VERSION_PATH + 136];
    size_t n;
    int r = version_path(run_dir, kind, number, dir);

    if (r == 0)
        r = list_files(dir, &files, &n, NULL);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        if (unlink(path) < 0 && errno != ENOENT)
            return -errno;
    }
    return n ? fsync_directory(dir) : 0;        /* most have been dropped before, and a run has thousands */
}

int version_retain(const char *run_dir, int kind, const uint64_t *keep, size_t n_keep)
{
    _cleanup_free_ uint64_t *numbers = NULL;
    size_t n;
    int r = version_list(run_dir, kind, &numbers, &n);

    for (size_t i = 0; r == 0 && i + 2 < n; i++) {
        bool kept = false;

        for (size_t j = 0; j < n_keep; j++)
            kept |= keep[j] == numbers[i];
        if (!kept)
            r = version_drop(run_dir, kind, numbers[i]);
    }
    return r;
}

int version_copy(const char *from, const char *dir, struct error *error)
{
    _cleanup_free_ struct manifest_file *files = NULL;
    char source[VERSION_PATH + 136], target[VERSION_PATH + 136];
    size_t n;
    int r = list_files(from, &files, &n, error);

    if (r == 0 && n == 0)
        r = error_set(error, ENOENT, "%s: no files in it", from);
    for (size_t i = 0; r == 0 && i < n; i++) {
        snprintf(source, sizeof source, "%s/%s", from, files[i].name);
        snprintf(target, sizeof target, "%s/%s", dir, files[i].name);
        r = file_copy(source, target);
        if (r < 0)
            r = error_set(error, -r, "%s: copying to %s failed: %s", source, target, strerror(-r));
    }
    return r;
}

int version_import(const char *run_dir, int kind, uint64_t number, const char *from, struct manifest *manifest,
                   struct error *error)
{
    char dir[VERSION_PATH], final[VERSION_PATH];
    int r = version_path(run_dir, kind, number, final);

    if (r < 0)
        return error_set(error, -r, "%s: path too long", run_dir);
    if (access(final, F_OK) == 0)
        return manifest_read(final, manifest, error);
    r = version_begin(run_dir, kind, number, dir, error);
    if (r < 0)
        return r;
    manifest->kind = kind;
    manifest->number = number;
    r = version_copy(from, dir, error);
    if (r == 0)
        r = version_commit(run_dir, dir, manifest, error);
    if (r < 0)
        version_discard(dir);
    return r == -EEXIST ? manifest_read(final, manifest, error) : r;
}
