#include "cli/run_branch.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "cli/run_stages.h"

int run_ended(const struct run_config *config, bool *ret, struct error *error)
{
    struct run_stages stages;
    char path[PATH_MAX];
    int r;

    snprintf(path, sizeof path, "%s/ledger.sqlite", config->dir);
    if (access(path, F_OK) < 0) {
        *ret = false;
        return 0;
    }
    if ((r = run_stages_read(config->dir, config, &stages, error)) == 0)
        *ret = run_stages_all(&stages);
    return r;
}

static int copy_file(const char *from, const char *to)
{
    _cleanup_free_ char *bytes = NULL;
    size_t n;
    int r = file_read(from, SIZE_MAX / 2, &bytes, &n);

    return r < 0 ? r : file_write(to, bytes, n);
}

static int share_file(const char *from, const char *to)
{
    return link(from, to) == 0 ? 0 : errno == EXDEV || errno == EPERM || errno == EMLINK ? copy_file(from, to) : -errno;
}

/* The files of a directory and of those below it. */
static int share_tree(const char *from, const char *to)
{
    DIR *directory = opendir(from);
    struct dirent *entry;
    int r = directory ? mkdir_p(to, 0755) : -errno;

    while (r == 0 && (entry = readdir(directory))) {
        char source[PATH_MAX], target[PATH_MAX];
        struct stat what;

        if (entry->d_name[0] == '.')
            continue; /* and what was being written when it was last killed */
        if (snprintf(source, sizeof source, "%s/%s", from, entry->d_name) >= (int)sizeof source ||
            snprintf(target, sizeof target, "%s/%s", to, entry->d_name) >= (int)sizeof target)
            r = -ENAMETOOLONG;
        else if (lstat(source, &what) < 0)
            r = -errno;
        else
            r = S_ISDIR(what.st_mode) ? share_tree(source, target) : share_file(source, target);
    }
    if (directory)
        closedir(directory);
    return r;
}

static int write_config(const struct run_config *config, const char *path)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    int r = run_config_write(config, &text);

    return r < 0 ? r : atomic_file_write(path, text.text, text.length);
}

/* A ledger that was closed well has no log beside it; one that was not is two files that belong together. Its mark goes with
 * it. That there are more stages now it is told by the coordinator that opens it. */
static int copy_ledger(const char *from, const char *to, struct error *error)
{
    static const char *const files[] = {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-mark"};
    char source[PATH_MAX], target[PATH_MAX];
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(files) && r == 0; i++) {
        snprintf(source, sizeof source, "%s/%s", from, files[i]);
        snprintf(target, sizeof target, "%s/%s", to, files[i]);
        if (i == 0 || access(source, F_OK) == 0)
            r = copy_file(source, target);
    }
    return r < 0 ? error_set(error, -r, "%s: cannot be copied: %s", source, strerror(-r)) : 0;
}

int run_branch(const struct run_config *from, const struct run_config *to, struct error *error)
{
    static const char *const trees[] = {"journal", "policies", "prms"};
    char source[PATH_MAX], target[PATH_MAX], half[PATH_MAX];
    struct run_stages stages;
    int r = run_stages_read(from->dir, from, &stages, error);

    if (r < 0)
        return r;
    if (stages.later)
        return error_set(error, EEXIST,
                         "%s: it was evaluated %d times since it ended, and a run can branch off only before; evaluate a copy "
                         "of the directory instead",
                         from->dir, stages.later);
    snprintf(half, sizeof half, "%.300s.half", to->dir);
    if ((r = remove_tree(half)) < 0 || (r = mkdir_p(half, 0700)) < 0)
        return error_set(error, -r, "%s: %s", half, strerror(-r));
    for (size_t i = 0; i < ARRAY_SIZE(trees) && r == 0; i++) {
        snprintf(source, sizeof source, "%.300s/%s", from->dir, trees[i]);
        snprintf(target, sizeof target, "%.300s/%s", half, trees[i]);
        if (access(source, F_OK) == 0 && (r = share_tree(source, target)) < 0)
            r = error_set(error, -r, "%s: cannot be copied: %s", source, strerror(-r));
    }
    if (r == 0)
        r = copy_ledger(from->dir, half, error);
    if (r < 0)
        return r;
    snprintf(target, sizeof target, "%.300s/config.yaml", half);
    r = write_config(to, target);
    if (r == 0)
        r = rename_noreplace(half, to->dir);
    return r < 0 ? error_set(error, -r, "%s: cannot be made: %s", to->dir, strerror(-r)) : 0;
}
