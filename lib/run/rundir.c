#include "run/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/atomic_file.h"

enum { SOCKET_PATH_MAX = 107 };     /* sun_path, less its NUL */

int rundir_path(const char *run_dir, const char *name, char ret[RUN_PATH], struct error *error)
{
    char path[RUN_PATH];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", run_dir, name) >= sizeof path)
        return error_set(error, ENAMETOOLONG, "%s: path too long; choose a shorter run.dir", run_dir);
    memcpy(ret, path, sizeof path);
    return 0;
}

int rundir_prepare(const char *run_dir, struct error *error)
{
    static const struct { const char *name; unsigned mode; } folders[] = {
        {".", 0755}, {"sock", 0700}, {"journal", 0755}, {"policies", 0755}, {"prms", 0755}, {"tb", 0755},
    };
    char path[RUN_PATH];
    int r;

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        r = rundir_path(run_dir, folders[i].name, path, error);
        if (r < 0)
            return r;
        r = mkdir_p(i ? path : run_dir, folders[i].mode);
        if (r < 0)
            return error_set(error, -r, "%s: cannot be made: %s", path, strerror(-r));
    }
    r = rundir_path(run_dir, "sock", path, error);
    if (r == 0 && chmod(path, 0700) < 0)       /* also when it was copied here with other rights */
        r = error_set(error, errno, "%s: chmod 0700: %m", path);
    return r;
}

/* "pid host" of whoever wrote the lock file last. */
static void read_holder(int fd, char *out, size_t size)
{
    ssize_t n = pread(fd, out, size - 1, 0);

    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

int rundir_lock(const char *run_dir, const char *name, int *ret_fd, struct error *error)
{
    _cleanup_close_ int fd = -1;
    char path[RUN_PATH], line[160], host[64] = "";
    int r = rundir_path(run_dir, name, path, error);

    if (r < 0)
        return r;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_set(error, errno, "%s: cannot be opened: %m", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return error_set(error, errno, "%s: flock: %m", path);
        read_holder(fd, line, sizeof line);
        return error_set(error, EBUSY, "%s: the run directory is held by process %s: stop it first, or choose another run.dir", path,
                         line[0] ? line : "(unknown)");
    }
    (void)gethostname(host, sizeof host - 1);
    snprintf(line, sizeof line, "%d on %s\n", (int)getpid(), host);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, line, strlen(line), 0) != (ssize_t)strlen(line))
        return error_set(error, errno ? errno : EIO, "%s: cannot be written: %m", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int rundir_write_endpoint(const char *run_dir, const struct rundir_endpoint *endpoint, struct error *error)
{
    char path[RUN_PATH], text[sizeof *endpoint + 4];
    int r = rundir_path(run_dir, "endpoint", path, error);

    if (r < 0)
        return r;
    snprintf(text, sizeof text, "%s\n%s\n", endpoint->address, endpoint->public_key);
    r = atomic_file_write(path, text, strlen(text));
    return r < 0 ? error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r)) : 0;
}

int rundir_read_endpoint(const char *run_dir, struct rundir_endpoint *ret, struct error *error)
{
    struct rundir_endpoint endpoint = {0};
    _cleanup_free_ char *text = NULL;
    char path[RUN_PATH], *line, *key;
    int r = rundir_path(run_dir, "endpoint", path, error);

    if (r < 0)
        return r;
    r = file_read(path, 4096, &text, NULL);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be read: %s; is the coordinator of this run up?", path, strerror(-r));
    line = text;
    key = strchr(line, '\n');
    if (key) {
        *key++ = '\0';
        key[strcspn(key, "\n")] = '\0';
    }
    if (!*line || !key || strlen(line) >= sizeof endpoint.address || strlen(key) >= sizeof endpoint.public_key)
        return error_set(error, EBADMSG, "%s: is not an address and a key, one per line", path);
    snprintf(endpoint.address, sizeof endpoint.address, "%s", line);
    snprintf(endpoint.public_key, sizeof endpoint.public_key, "%s", key);
    *ret = endpoint;
    return 0;
}

int rundir_socket(const char *run_dir, const char *name, char ret[RUN_PATH], struct error *error)
{
    char absolute[PATH_MAX], path[RUN_PATH];

    if (!realpath(run_dir, absolute))
        return error_set(error, errno, "%s: %m", run_dir);
    if ((size_t)snprintf(path, sizeof path, "ipc://%s/sock/%s.ipc", absolute, name) >= sizeof path
        || strlen(path) - strlen("ipc://") > SOCKET_PATH_MAX)
        return error_set(error, ENAMETOOLONG, "%s/sock/%s.ipc: longer than a UNIX socket's path may be (%d): choose a shorter run.dir",
                         absolute, name, SOCKET_PATH_MAX);
    memcpy(ret, path, sizeof path);
    return 0;
}
