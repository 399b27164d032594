#include "cli/run_claim.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "daemon/run_later.h"
#include "run/ledger.h"
#include "run/ledger_place.h"

/* A killed `gantry up` takes its coordinator along, but not in an instant; an earlier life of a Slurm job first has to see
 * ours. */
enum { ENDING_MS = 3000, LIFE_WAIT_MS = 30000, LOOK_MS = 100 };

static int anchor(struct run_config *config, struct error *error)
{
    char here[PATH_MAX];

    if (!getcwd(here, sizeof here))
        return error_set(error, errno, "current directory: %s", strerror(errno));
    return run_config_anchor(config, here, error);
}

/* A run directory belongs to one configuration, which may gain stages: *ret_added, -1 where there is no run yet. */
static int check_resumes(struct run_config *config, const char *run_dir, int *ret_added, struct error *error)
{
    _cleanup_free_ struct run_config *old = malloc(sizeof *old);
    char path[RUN_PATH];
    int r = rundir_path(run_dir, "config.yaml", path, error);

    if (r < 0)
        return r;
    if (!old)
        return error_set(error, ENOMEM, "out of memory");
    if (access(path, F_OK) < 0) {
        if ((r = anchor(config, error)) == 0)
            *ret_added = -1;
        return r;
    }
    if ((r = run_config_load(path, old, error)) < 0)
        return r;
    return run_later_join(run_dir, old, config, ret_added, error);
}

static int take_lock(const char *run_dir, const char *name, int wait_ms, int *ret_fd, struct error *error)
{
    int waited_ms = 0, r;

    while ((r = rundir_lock(run_dir, name, ret_fd, error)) == -EBUSY && waited_ms < wait_ms) {
        usleep(LOOK_MS * 1000);
        waited_ms += LOOK_MS;
    }
    return r;
}

/* One that was started by hand or by systemd: our members would join it, and our coordinator could not start. */
static int check_coordinator(const char *run_dir, int wait_ms, struct error *error)
{
    _cleanup_close_ int fd = -1;

    return take_lock(run_dir, "coordinator.lock", wait_ms, &fd, error);
}

/* Is it one, and of a layout that we know? */
static int check_ledger(const char *run_dir, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    char path[RUN_PATH];
    int r = rundir_path(run_dir, "ledger.sqlite", path, error);

    if (r < 0 || access(path, F_OK) < 0)
        return r;
    return ledger_open_readonly(path, &ledger, error);
}

int run_claim(struct run_config *config, struct life *life, char ret_run_dir[RUN_PATH], int *ret_lock_fd, int *ret_added,
              struct error *error)
{
    _cleanup_free_ char *absolute = NULL;
    enum ledger_place place;
    char path[RUN_PATH];
    int r;

    if ((r = ledger_place_check(config->dir, &place, error)) < 0)
        return r;
    if ((r = mkdir_p(config->dir, 0700)) < 0)
        return error_set(error, -r, "run.dir %s: cannot be made: %s; choose a place where this user may write", config->dir,
                         strerror(-r));
    absolute = realpath(config->dir, NULL);
    if (!absolute)
        return error_set(error, errno, "run.dir %s: cannot be resolved: %s; is it a link to nowhere?", config->dir,
                         strerror(errno));
    if ((size_t)snprintf(ret_run_dir, RUN_PATH, "%s", absolute) >= RUN_PATH)
        return error_set(error, ENAMETOOLONG, "run.dir %s: its path is too long; choose a shorter one", absolute);
    if ((r = life_claim(ret_run_dir, life, error)) < 0)
        return r;
    if ((r = take_lock(ret_run_dir, "up.lock", life->job ? LIFE_WAIT_MS : 0, ret_lock_fd, error)) < 0 ||
        (r = check_coordinator(ret_run_dir, life->job ? LIFE_WAIT_MS : ENDING_MS, error)) < 0 ||
        (r = check_resumes(config, ret_run_dir, ret_added, error)) < 0 ||
        (r = check_ledger(ret_run_dir, error)) < 0 || (r = rundir_prepare(ret_run_dir, error)) < 0 ||
        (r = rundir_path(ret_run_dir, "log", path, error)) < 0)
        return r;
    r = mkdir_p(path, 0755);
    return r < 0 ? error_set(error, -r, "%s: cannot be made: %s", path, strerror(-r)) : 0;
}
