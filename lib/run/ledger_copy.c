#include "run/ledger_copy.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "run/rundir.h"

static bool is_writable(const char *path)
{
    char copy[RUN_PATH];

    return snprintf(copy, sizeof copy, "%s", path) < (int)sizeof copy && access(dirname(copy), W_OK) == 0;
}

static int open_copy(const char *path, struct ledger **ret, struct error *error)
{
    const char *tmp = getenv("TMPDIR");
    char dir[RUN_PATH], copy[RUN_PATH + 32];
    int r;

    if (snprintf(dir, sizeof dir, "%s/gantry-ledger-XXXXXX", tmp && *tmp ? tmp : "/tmp") >= (int)sizeof dir)
        return error_set(error, ENAMETOOLONG, "TMPDIR has a path that is too long");
    if (!mkdtemp(dir))
        return error_set(error, errno, "%s: there is no room for a copy of it: %s: %s", path, dir, strerror(errno));
    snprintf(copy, sizeof copy, "%s/ledger.sqlite", dir);
    r = file_copy(path, copy);
    if (r < 0)
        r = error_set(error, -r, "%s: cannot be copied to %s: %s", path, dir, strerror(-r));
    else
        r = ledger_open_readonly(copy, ret, error);
    (void)remove_tree(dir);
    return r;
}

int ledger_open_to_read(const char *path, struct ledger **ret, struct error *error)
{
    char log[RUN_PATH + 8];
    int r = ledger_open_readonly(path, ret, error);

    if (r >= 0 || r == -EBUSY || access(path, R_OK) < 0 || is_writable(path))
        return r;
    snprintf(log, sizeof log, "%s-wal", path);
    if (access(log, F_OK) == 0)
        return error_set(error, EACCES, "%s: was not closed, and nobody may write beside it here: copy the run's directory, "
                         "or ask where it may be written to", path);
    return open_copy(path, ret, error);
}
