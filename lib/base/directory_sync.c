/* directory_sync.c - a whole directory durable at once.
 *
 * One fsync after the other pays for each with a commit of the file system's journal; those that wait at the same time share
 * one. So a few threads wait, for as long as it takes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/atomic_file.h"
#include "base/fault.h"

enum { AT_ONCE = 8 };

struct open_files {
    int *fd;
    size_t n, capacity;
    atomic_size_t next;         /* to be waited for */
    atomic_int error;           /* the first -errno */
};

static void open_files_release(struct open_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        close(files->fd[i]);
    free(files->fd);
}

/* Takes the fd, also on failure. */
static int keep(struct open_files *files, int fd)
{
    if (array_room(&files->fd, files->n, &files->capacity, sizeof *files->fd) < 0) {
        close(fd);
        return -ENOMEM;
    }
    files->fd[files->n++] = fd;
    return 0;
}

static int open_all(DIR *dir, struct open_files *files)
{
    struct dirent *item;
    int r = 0;

    while (r == 0 && (errno = 0, item = readdir(dir))) {
        struct stat st;
        int fd;

        if (fstatat(dirfd(dir), item->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
            continue;
        fd = openat(dirfd(dir), item->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        r = fd < 0 ? -errno : keep(files, fd);
    }
    return r < 0 ? r : -errno;
}

static void *wait_for_files(void *arg)
{
    struct open_files *files = arg;

    for (size_t i; (i = atomic_fetch_add(&files->next, 1)) < files->n;)
        if (fsync(files->fd[i]) < 0)
            atomic_compare_exchange_strong(&files->error, &(int) {0}, -errno);
    return NULL;
}

static int wait_together(struct open_files *files)
{
    pthread_t thread[AT_ONCE - 1];
    size_t started = 0;

    while (started < AT_ONCE - 1 && started + 1 < files->n && !pthread_create(&thread[started], NULL, wait_for_files, files))
        started++;
    (void)wait_for_files(files);        /* alone, if no thread is to be had */
    while (started > 0)
        pthread_join(thread[--started], NULL);
    return atomic_load(&files->error);
}

int directory_sync(const char *path)
{
    _cleanup_(open_files_release) struct open_files files = {0};
    DIR *dir = opendir(path);
    int r;

    if (!dir)
        return -errno;
    r = open_all(dir, &files);
    closedir(dir);
    for (size_t i = 0; i < files.n; i++)
        file_send_off(files.fd[i]);
    for (size_t i = 0; i < files.n && r == 0; i++)
        r = fault_errno("atomic_file.fsync");
    if (r == 0) {               /* the entries, too */
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        r = fd < 0 ? -errno : keep(&files, fd);
    }
    return r < 0 ? r : wait_together(&files);
}
