/* address_dir.c - a run's socket directory: RUN/sock, or, where that path is too long for sockets, a stand-in under /tmp.
 *
 * A stand-in holds a link `run` to its run directory. Sockets of the dead stay in it: libzmq removes none, and who is killed
 * removes nothing. It goes when nobody answers in it any more: with the run's last process, or, when the run directory is gone,
 * as soon as somebody makes the next. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "wire/address.h"

#define TOP "/tmp"
#define STAND_IN "gantry-%u-"           /* user; then HEX digits of the run directory's path */
enum { HEX = 16, STAND_IN_PATH = 64 };

/* Ours, a directory, closed to others? Creates it if it is not there. */
static int claim_dir(const char *path, struct error *error)
{
    struct stat st;

    if (mkdir(path, 0700) && errno != EEXIST)
        return error_set(error, errno, "cannot make %s: %s", path, strerror(errno));
    if (lstat(path, &st))
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return error_set(error, EPERM, "%s is there but not a directory of this user: remove it", path);
    if ((st.st_mode & 077) && chmod(path, 0700))
        return error_set(error, errno, "cannot close %s to others: %s", path, strerror(errno));
    return 0;
}

/* ---- stand-ins ------------------------------------------------------------------------------------------------------------ */

/* A name of a stand-in of this user? */
static bool is_stand_in(const char *name)
{
    char begin[32];
    size_t n = (size_t)snprintf(begin, sizeof begin, STAND_IN, (unsigned)geteuid());

    return !strncmp(name, begin, n) && strlen(name + n) == HEX && strspn(name + n, "0123456789abcdef") == HEX;
}

static bool answers(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return true;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
}

/* Somebody who answers? */
static bool holds(const char *dir)
{
    char path[32 + NAME_MAX];           /* by its descriptor, for its own path may be too long for sockets */
    DIR *entries = opendir(dir);
    struct dirent *entry;
    bool found = !entries && errno != ENOENT;

    while (entries && !found && (entry = readdir(entries))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, "run"))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dirfd(entries), entry->d_name);
        found = answers(path);
    }
    if (entries)
        closedir(entries);
    return found;
}

static bool run_is_gone(const char *dir)
{
    char link[STAND_IN_PATH + 8], run[PATH_MAX];
    struct stat st;
    ssize_t n;

    snprintf(link, sizeof link, "%s/run", dir);
    n = readlink(link, run, sizeof run - 1);
    if (n <= 0 || n == sizeof run - 1)
        return false;
    run[n] = '\0';
    return stat(run, &st) < 0 && errno == ENOENT;
}

static void sweep(void)
{
    char path[STAND_IN_PATH];
    DIR *top = opendir(TOP);
    struct dirent *entry;
    struct stat st;

    while (top && (entry = readdir(top))) {
        if (!is_stand_in(entry->d_name))
            continue;
        snprintf(path, sizeof path, TOP "/%.*s", STAND_IN_PATH - 8, entry->d_name);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && run_is_gone(path) && !holds(path))
            (void)remove_tree(path);
    }
    if (top)
        closedir(top);
}

/* RUN/sock is a link to a stand-in of ours. */
static bool links_to_stand_in(const char *sock, char ret_dir[STAND_IN_PATH])
{
    ssize_t n = readlink(sock, ret_dir, STAND_IN_PATH - 1);

    if (n <= 0)
        return false;
    ret_dir[n] = '\0';
    return !strncmp(ret_dir, TOP "/", strlen(TOP "/")) && is_stand_in(ret_dir + strlen(TOP "/"));
}

/* A run that was moved or copied has the link of the path where it was, or a directory in which nobody answers. `own`: the
 * stand-in of where it is; NULL: it needs none. */
static void drop_old(const char *sock, const char *own)
{
    char there[STAND_IN_PATH];
    struct stat st;

    if (links_to_stand_in(sock, there)) {
        if (!own || strcmp(there, own) != 0)
            (void)unlink(sock);
    } else if (own && lstat(sock, &st) == 0 && S_ISDIR(st.st_mode) && !holds(sock)) {
        (void)remove_tree(sock);
    }
}

/* The stand-in of run_dir, and RUN/sock as a link to it for people. */
static int stand_in(const char *run_dir, const char *sock, char *ret_dir, struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX], path[STAND_IN_PATH], link[STAND_IN_PATH + 8];
    int r;

    sweep();
    sha256_of(run_dir, strlen(run_dir), digest);
    sha256_hex(digest, hex);
    snprintf(path, sizeof path, TOP "/" STAND_IN "%.*s", (unsigned)geteuid(), HEX, hex);
    r = claim_dir(path, error);
    if (r < 0)
        return r;
    snprintf(link, sizeof link, "%s/run", path);
    if (symlink(run_dir, link) && errno != EEXIST)
        return error_set(error, errno, "cannot link %s to %s: %s", link, run_dir, strerror(errno));
    drop_old(sock, path);
    if (symlink(path, sock) && errno != EEXIST)
        return error_set(error, errno, "cannot link %s to %s: %s", sock, path, strerror(errno));
    snprintf(ret_dir, ADDRESS_MAX, "%s", path);
    return 0;
}

/* ---- either ---------------------------------------------------------------------------------------------------------------- */

int address_socket_dir(const char *run_dir, char ret_dir[ADDRESS_MAX], struct error *error)
{
    _cleanup_free_ char *absolute = realpath(run_dir, NULL);
    char path[PATH_MAX];
    int r;

    if (!absolute && errno == ENOENT && strchr(run_dir, ':') && !strchr(run_dir, '/'))
        return error_set(error, ENOENT, "%s: no run directory is called that, and an address is tcp://HOST:PORT", run_dir);
    if (!absolute)
        return error_set(error, errno, "run directory %s: %s", run_dir, strerror(errno));
    if ((size_t)snprintf(path, sizeof path, "%s/sock", absolute) >= sizeof path)
        return error_set(error, ENAMETOOLONG, "the run directory's path is too long: %s", run_dir);
    if (strlen(absolute) > ADDRESS_RUN_DIR_MAX)
        return stand_in(absolute, path, ret_dir, error);
    drop_old(path, NULL);
    r = claim_dir(path, error);
    if (r < 0)
        return r;
    snprintf(ret_dir, ADDRESS_MAX, "%s", path);
    return 0;
}

int address_socket_dir_find(const char *run_dir, char ret_dir[ADDRESS_MAX])
{
    _cleanup_free_ char *absolute = realpath(run_dir, NULL), *dir = NULL, *run = NULL;
    char path[PATH_MAX];

    if (!absolute)
        return -errno;
    if ((size_t)snprintf(path, sizeof path, "%s/sock", absolute) >= sizeof path)
        return -ENAMETOOLONG;
    dir = realpath(path, NULL);
    if (!dir)
        return -errno;
    if (strcmp(dir, path) == 0 && strlen(absolute) > ADDRESS_RUN_DIR_MAX)
        return -ENOENT;                 /* of when its path was shorter */
    if (strcmp(dir, path) != 0) {
        (void)snprintf(path, sizeof path, "%s/run", dir);
        run = realpath(path, NULL);
        if (!run || strcmp(run, absolute) || strlen(dir) >= ADDRESS_MAX)
            return -ENOENT;
    }
    memcpy(ret_dir, dir, strlen(dir) + 1);
    return 0;
}

void address_socket_dir_leave(const char *run_dir)
{
    char sock[PATH_MAX], dir[STAND_IN_PATH];

    if ((size_t)snprintf(sock, sizeof sock, "%s/sock", run_dir) >= sizeof sock || !links_to_stand_in(sock, dir) || holds(dir))
        return;                         /* no link: the directory is the run's own, and stays */
    (void)remove_tree(dir);
    if (access(dir, F_OK) < 0)
        (void)unlink(sock);
}
