#include "coordinator/drain_mark.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "run/rundir.h"

/* False: none. */
static bool mark_path(char ret[RUN_PATH])
{
    const char *dir = getenv("RUNTIME_DIRECTORY");

    return dir && snprintf(ret, RUN_PATH, "%s/drain", dir) < RUN_PATH;
}

int drain_mark_set(void)
{
    char path[RUN_PATH];

    return mark_path(path) ? atomic_file_write(path, "", 0) : 0;
}

bool drain_mark_is_set(void)
{
    char path[RUN_PATH];

    return mark_path(path) && access(path, F_OK) == 0;
}

void drain_mark_clear(void)
{
    char path[RUN_PATH];

    if (mark_path(path))
        (void)unlink(path);
}
