#include "base/staged_dir.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/atomic_file.h"

/* Without the slashes at the end, which rename would follow into nothing. */
static char *plain_name(const char *path)
{
    char *copy = strdup(path);

    for (size_t n = copy ? strlen(copy) : 0; n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    return copy;
}

static int make_parent(const char *path)
{
    _cleanup_free_ char *copy = strdup(path);

    return copy ? mkdir_p(dirname(copy), 0755) : -ENOMEM;
}

int staged_dir_open(struct staged_dir *dir, const char *path, struct error *error)
{
    _cleanup_(staged_dir_release) struct staged_dir opening = {.path = plain_name(path)};
    _cleanup_free_ char *temporary = NULL;
    int r;

    if (!opening.path || asprintf(&temporary, "%s.tmp.%d", opening.path, (int)getpid()) < 0) {
        temporary = NULL;
        return error_set(error, ENOMEM, "out of memory");
    }
    if (rmdir(opening.path) < 0 && errno != ENOENT)         /* an empty directory may be there: it is replaced */
        return error_set(error, errno == ENOTEMPTY || errno == ENOTDIR ? EEXIST : errno, "%s: %s", opening.path,
                         errno == ENOTEMPTY || errno == ENOTDIR ? "is there already: name a new directory" : strerror(errno));
    r = make_parent(opening.path);
    if (r >= 0 && mkdir(temporary, 0755) < 0)
        r = -errno;
    if (r < 0)
        return error_set(error, -r, "%s: %s", temporary, strerror(-r));
    *dir = (struct staged_dir) {.path = TAKE_PTR(opening.path), .temporary = TAKE_PTR(temporary)};
    return 0;
}

int staged_dir_commit(struct staged_dir *dir, struct error *error)
{
    int r = directory_sync(dir->temporary);

    if (r >= 0)
        r = rename_noreplace(dir->temporary, dir->path);
    if (r < 0)
        return error_set(error, -r, "%s: %s", dir->path, strerror(-r));
    free(dir->temporary);
    dir->temporary = NULL;
    return 0;
}

void staged_dir_release(struct staged_dir *dir)
{
    if (dir->temporary)
        (void)remove_tree(dir->temporary);
    free(dir->temporary);
    free(dir->path);
    *dir = (struct staged_dir) {0};
}
