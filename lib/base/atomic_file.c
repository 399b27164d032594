#include "base/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/fault.h"

static int write_all(int fd, const char *bytes, size_t n)
{
    int r = fault_errno("atomic_file.write");

    if (r < 0)
        return r;
    while (n) {
        ssize_t w = write(fd, bytes, n);

        if (w < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        bytes += w;
        n -= (size_t)w;
    }
    return 0;
}

int fsync_directory(const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int fsync_parent(const char *path)
{
    char copy[PATH_MAX];

    if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
        return -ENAMETOOLONG;
    return fsync_directory(dirname(copy));
}

/* A terminal, a pipe, /dev/full: a rename would put a file in its place, for everybody on this machine where root asks. What
 * /proc/self/fd leads to may have lost its name. */
static bool cannot_be_replaced(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode) || st.st_nlink == 0);
}

int atomic_file_write(const char *path, const void *bytes, size_t n)
{
    char temporary[PATH_MAX];
    _cleanup_close_ int fd = -1;
    int r;

    if (cannot_be_replaced(path))
        return file_write(path, bytes, n);
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp.%d", path, (int)getpid()) >= sizeof temporary)
        return -ENAMETOOLONG;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    r = write_all(fd, bytes, n);
    if (r == 0)
        r = fault_errno("atomic_file.fsync");
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r == 0)
        r = fault_errno("atomic_file.rename");
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(temporary);
        return r;
    }
    return fsync_parent(path);
}

static int name_of_open(int fd, char ret[PATH_MAX])
{
    char link[40];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, ret, PATH_MAX);
    if (n < 0 || n >= PATH_MAX)
        return n < 0 ? -errno : -ENAMETOOLONG;
    ret[n] = '\0';
    return 0;
}

/* What is to be replaced where a person says `path`. The kernel follows the links: it knows loops, and whose are not followed in
 * /tmp. *ret_made: nothing was there, and there is an empty file now. */
static int find_target(const char *path, char ret[PATH_MAX], bool *ret_made)
{
    _cleanup_close_ int fd = -1;
    bool made = false;
    struct stat st;
    int r;

    if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode) || cannot_be_replaced(path)) {
        *ret_made = false;
        return snprintf(ret, PATH_MAX, "%s", path) < PATH_MAX ? 0 : -ENAMETOOLONG;
    }
    fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {            /* it dangles: made first, to learn its name */
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        made = fd >= 0;
    }
    if (fd < 0)
        return -errno;
    if ((r = name_of_open(fd, ret)) == 0)
        *ret_made = made;
    return r;
}

int atomic_file_write_through(const char *path, const void *bytes, size_t n)
{
    char target[PATH_MAX];
    bool made;
    int r = find_target(path, target, &made);

    if (r == 0 && (r = atomic_file_write(target, bytes, n)) < 0 && made)
        (void)unlink(target);
    return r;
}

int atomic_file_may_write_through(const char *path)
{
    char target[PATH_MAX];
    struct stat st;
    bool made;
    int r = *path ? find_target(path, target, &made) : -ENOENT;

    if (r < 0)
        return r;
    if (made)
        (void)unlink(target);
    if (stat(target, &st) == 0 && S_ISDIR(st.st_mode))
        return -EISDIR;
    return access(cannot_be_replaced(target) ? target : dirname(target), W_OK) < 0 ? -errno : 0;
}

void file_send_off(int fd)
{
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int file_write(const char *path, const void *bytes, size_t n)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int r = fd < 0 ? -errno : write_all(fd, bytes, n);

    if (r == 0)
        file_send_off(fd);
    return r;
}

/* To the end, whatever the size was said to be: a pipe and a file of /proc have none. */
static int read_all(int fd, size_t limit, size_t expected, char **ret_bytes, size_t *ret_n)
{
    _cleanup_free_ char *bytes = NULL;
    size_t room = 0, n = 0;
    ssize_t got;

    do {
        if (n == room) {
            size_t more = room ? 2 * room : expected + 1;
            char *grown = realloc(bytes, more + 1);

            if (!grown)
                return -ENOMEM;
            bytes = grown;
            room = more;
        }
        got = read(fd, bytes + n, room - n);
        if (got < 0 && errno != EINTR)
            return -errno;
        n += got > 0 ? (size_t)got : 0;
        if (n > limit)
            return -EFBIG;
    } while (got != 0);
    bytes[n] = '\0';
    *ret_bytes = TAKE_PTR(bytes);
    if (ret_n)
        *ret_n = n;
    return 0;
}

int file_read(const char *path, size_t limit, char **ret_bytes, size_t *ret_n)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (st.st_size < 0 || (uint64_t)st.st_size > limit)
        return -EFBIG;
    return read_all(fd, limit, (size_t)st.st_size, ret_bytes, ret_n);
}

/* Where the file system knows no flags of rename, as NFS and Gluster. A directory replaces no other that has something in it; for
 * files there is a gap between the look and the rename. */
static int rename_unless_there(const char *from, const char *to)
{
    struct stat st;

    if (lstat(from, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode) && faccessat(AT_FDCWD, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    if (rename(from, to) == 0)
        return 0;
    return errno == ENOTEMPTY || errno == ENOTDIR ? -EEXIST : -errno;
}

int rename_noreplace(const char *from, const char *to)
{
    int r = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0 ? -errno : 0, s = 0;

    if (r == -EINVAL || r == -ENOSYS || r == -EOPNOTSUPP)
        r = rename_unless_there(from, to);
    if (r == 0 || r == -EEXIST)         /* who was first may not have come so far yet, and is built upon */
        s = fsync_parent(to);
    return r < 0 ? r : s;
}

int mkdir_p(const char *path, unsigned mode)
{
    char copy[PATH_MAX], *slash;

    if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
        return -ENAMETOOLONG;
    for (slash = copy; *slash && (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    if (mkdir(copy, mode) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;        /* somebody else may be removing it, too */
}

int remove_tree(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0)
        return errno == ENOENT ? 0 : -errno;
    return 0;
}
