#include "cli/run_branch.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "cli/run_open.h"

/* How many stages of the configuration have ended, and how many others there are (gantry eval adds them). */
static int count_stages(const struct run_config *config, size_t *ret_done, size_t *ret_later, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ struct ledger_stage *stages = NULL;
    size_t n, done = 0, later = 0;
    int r = run_open_ledger(config->dir, &ledger, error);

    if (r < 0)
        return r;
    if ((r = ledger_stages(ledger, &stages, &n)) < 0)
        return error_set(error, -r, "%s/ledger.sqlite: %s", config->dir, ledger_error(ledger));
    for (size_t i = 0; i < n; i++)
        if ((int)stages[i].stage < config->n_stages)
            done += stages[i].state == PROGRESS_DONE;
        else
            later++;
    *ret_done = done;
    *ret_later = later;
    return 0;
}

int run_ended(const struct run_config *config, bool *ret, struct error *error)
{
    char path[PATH_MAX];
    size_t done, later;
    int r;

    snprintf(path, sizeof path, "%s/ledger.sqlite", config->dir);
    if (access(path, F_OK) < 0) {
        *ret = false;
        return 0;
    }
    r = count_stages(config, &done, &later, error);
    if (r < 0)
        return r;
    *ret = done == (size_t)config->n_stages;
    return 0;
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
    size_t done, later;
    int r = count_stages(from, &done, &later, error);

    if (r < 0)
        return r;
    if (later)
        return error_set(error, EEXIST,
                         "%s: it was evaluated %zu times since it ended, and a run can branch off only before; evaluate a copy "
                         "of the directory instead",
                         from->dir, later);
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
