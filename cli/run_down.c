#include "cli/run_down.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/life.h"
#include "cli/run_socket.h"
#include "cli/run_stages.h"
#include "cli/shell_word.h"
#include "run/rundir.h"

static bool answers(const char *run_dir, const char *socket)
{
    _cleanup_free_ char *text = NULL;

    return run_socket_call_at(run_dir, socket, "help", &text, NULL) == 0;
}

/* Slurm drains a job before its time limit and queues it again; whether it did nothing in the directory says. */
static const char *goes_on(const char *run_dir, const char *run, char ret[2 * RUN_PATH])
{
    struct life life;

    if (life_may_come_back(run_dir, &life))
        snprintf(ret, 2 * RUN_PATH, "Slurm's job %lu goes on when its turn comes (`squeue --job %lu` shows whether it is queued; "
                 "if not, `gantry up %s`)", life.job, life.job, run);
    else
        snprintf(ret, 2 * RUN_PATH, "`gantry up %s` goes on", run);
    return ret;
}

/* From config.yaml and ledger. Returns whether the run is finished. */
static bool describe_rest(const char *run_dir, const char *run, struct error *error)
{
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    char path[RUN_PATH], how[2 * RUN_PATH];
    struct run_stages stages;

    if (!config || rundir_path(run_dir, "config.yaml", path, NULL) < 0 || run_config_load(path, config, NULL) < 0 ||
        run_stages_read(run_dir, config, &stages, NULL) < 0) {
        error_set(error, error->errnum, "%s: no coordinator is running there; `gantry up %s` starts it", run_dir, run);
        return false;
    }
    if (run_stages_all(&stages))
        error_set(error, error->errnum, "%s: the run is finished, no coordinator is running there; `gantry report %s` writes "
                  "its page", run_dir, run);
    else if (stages.stopped[0])
        error_set(error, error->errnum, "%s: the run stopped in %s, %d of %d stages are done; `gantry up %s` tries again: %s",
                  run_dir, stages.next[0] ? stages.next : "its end", stages.done, stages.of, run, stages.stopped);
    else
        error_set(error, error->errnum, "%s: no coordinator is running there; %d of %d stages are done%s%s, and %s", run_dir,
                  stages.done, stages.of, stages.next[0] ? ", the next is " : "", stages.next, goes_on(run_dir, run, how));
    return run_stages_all(&stages);
}

bool run_down_describe(const char *run_dir, const char *asked, struct error *error)
{
    _cleanup_free_ char *where = shell_word(run_dir);
    char path[RUN_PATH];

    if (strcmp(asked, "up.sock") && answers(run_dir, "up.sock")) {
        error_set(error, error->errnum, "%s: its coordinator does not answer; `gantry up`, which is there, starts it again by "
                  "itself: %s/log/coordinator.log says more", run_dir, run_dir);
        return false;
    }
    if (!strcmp(asked, "up.sock") && answers(run_dir, "status.sock")) {
        error_set(error, error->errnum, "%s: no `gantry up` is running there, but a coordinator is: its daemons are started and "
                  "ended by whatever started it (`systemctl start 'gantry-env-worker@7'`, a Slurm array's throttle, by hand)",
                  run_dir);
        return false;
    }
    if (rundir_path(run_dir, "config.yaml", path, NULL) < 0 || access(path, F_OK) < 0) {
        error_set(error, error->errnum, "%s: there is no run in it (no config.yaml); name a run's directory", run_dir);
        return false;
    }
    return describe_rest(run_dir, where ?: run_dir, error);
}
