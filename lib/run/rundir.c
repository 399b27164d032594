#include "run/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "base/atomic_file.h"
#include "run/ledger_place.h"

int rundir_path(const char *run_dir, const char *name, char ret[RUN_PATH], struct error *error)
{
    char path[RUN_PATH];

    if ((size_t)snprintf(path, sizeof path, "%s/%s", run_dir, name) >= sizeof path)
        return error_set(error, ENAMETOOLONG, "run.dir is too long (%zu bytes): choose a shorter one", strlen(run_dir));
    memcpy(ret, path, sizeof path);
    return 0;
}

/* The folders' names, and the directory's own: what is fsynced in them later is nowhere without. */
static int make_durable(const char *run_dir, struct error *error)
{
    char parent[RUN_PATH];
    int r = rundir_path(run_dir, "..", parent, error);

    if (r < 0)
        return r;
    r = fsync_directory(run_dir);
    if (r == 0)
        r = fsync_directory(parent);
    return r < 0 && r != -EACCES ? error_set(error, -r, "%s: fsync: %s", run_dir, strerror(-r)) : 0;     /* a parent that we may
                                                                                                          * not read */
}

int rundir_prepare(const char *run_dir, struct error *error)
{
    static const char *const folders[] = {"journal", "policies", "prms", "tb"};
    enum ledger_place place;
    char path[RUN_PATH];
    int r = ledger_place_check(run_dir, &place, error);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        r = rundir_path(run_dir, folders[i], path, error);
        if (r == 0 && (r = mkdir_p(path, 0755)) < 0)
            r = error_set(error, -r, "%s: cannot be made: %s; run.dir must be a directory that this user may write to", path,
                          strerror(-r));
        if (r < 0)
            return r;
    }
    return make_durable(run_dir, error);
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
        return error_set(error, errno, "%s: cannot be opened: %m; run.dir must be a directory that this user may write to", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP)
            return error_set(error, ENOTSUP,
                             "%s: its file system has no locks (flock: %m): mount it with them (Lustre: -o flock; NFS: "
                             "without nolock), or choose another run.dir", path);
        if (errno != EWOULDBLOCK)
            return error_set(error, errno, "%s: flock: %m", path);
        read_holder(fd, line, sizeof line);
        return error_set(error, EBUSY, "%s: the run directory is held by process %s: stop it first, or choose another run.dir",
                         path, line[0] ? line : "(unknown)");
    }
    (void)gethostname(host, sizeof host - 1);
    snprintf(line, sizeof line, "%d on %s\n", (int)getpid(), host);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, line, strlen(line), 0) != (ssize_t)strlen(line))
        return error_set(error, errno ? errno : EIO, "%s: cannot be written: %m", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}
