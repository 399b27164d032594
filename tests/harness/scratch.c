#include "tests/harness/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"

#define SCRATCH "gantry-t."        /* tests/system/conftest.py knows it, too */

static int lock(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void sweep(const char *top)
{
    char path[SCRATCH_PATH + sizeof(((struct dirent *)0)->d_name)];
    DIR *dir = opendir(top);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        _cleanup_close_ int fd = -1;

        if (strncmp(entry->d_name, SCRATCH, strlen(SCRATCH)))
            continue;
        snprintf(path, sizeof path, "%s/%s", top, entry->d_name);
        fd = lock(path);
        if (fd >= 0)
            (void)remove_tree(path);
    }
    if (dir)
        closedir(dir);
}

static void make(const char *top, char ret[SCRATCH_PATH])
{
    struct stat locked, there;
    int fd;

    sweep(top);
    do {                        /* again where another took it for litter before it was locked */
        if (snprintf(ret, SCRATCH_PATH, "%s/" SCRATCH "XXXXXX", top) >= SCRATCH_PATH || !mkdtemp(ret)) {
            fprintf(stderr, "no directory in %s: its path is too long, or nobody may write there\n", top);
            abort();
        }
        fd = lock(ret);         /* stays open: it is ours until we end */
    } while (fd < 0 || fstat(fd, &locked) < 0 || stat(ret, &there) < 0 || locked.st_ino != there.st_ino);
}

void scratch_new(char ret[SCRATCH_PATH])
{
    const char *top = getenv("TMPDIR");

    make(top && *top ? top : "/tmp", ret);
}

void scratch_new_in_memory(char ret[SCRATCH_PATH])
{
    if (access("/dev/shm", W_OK) == 0)
        make("/dev/shm", ret);
    else
        scratch_new(ret);
}

char scratch_dir[SCRATCH_PATH];

const char *scratch_at(const char *name)
{
    static char paths[64][SCRATCH_PATH + 192];
    static int turn;
    char *ret = paths[turn++ % 64];

    if (snprintf(ret, sizeof paths[0], "%s/%s", scratch_dir, name) >= (int)sizeof paths[0])
        abort();
    return ret;
}

int scratch_set_up(void **state)
{
    (void)state;
    scratch_new(scratch_dir);
    return 0;
}

int scratch_tear_down(void **state)
{
    (void)state;
    return remove_tree(scratch_dir);
}
