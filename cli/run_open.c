#include "cli/run_open.h"

#include <errno.h>

#include "run/rundir.h"

int run_open_ledger(const char *run_dir, struct ledger **ret, struct error *error)
{
    char path[RUN_PATH];
    int r = rundir_path(run_dir, "ledger.sqlite", path, error);

    if (r == 0)
        r = ledger_open_readonly(path, ret, error);
    if (r == -EBUSY)        /* the coordinator's, exclusively */
        return error_set(error, EBUSY, "%s: the run is up and holds its ledger; ask again when it has ended, or after gantry drain %s",
                         run_dir, run_dir);
    return r;
}

int run_open_journal(const char *run_dir, uint64_t run, struct journal **ret, struct error *error)
{
    char path[RUN_PATH];
    int r = rundir_path(run_dir, "journal", path, error);

    return r < 0 ? r : journal_open(path, run, JOURNAL_READ, ret, NULL, error);
}
