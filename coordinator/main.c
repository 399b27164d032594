/* gantry-coordinator - the conductor of a run: reads its configuration, keeps its ledger, tells everybody what is next.
 *
 * Restartable at any instant: what was promised is in RUN/ledger.sqlite, members say Hello again by themselves. */
#include <errno.h>
#include <sysexits.h>
#include <time.h>

#include "base/log.h"
#include "coordinator/drain_mark.h"
#include "coordinator/edge.h"
#include "daemon/args.h"
#include "daemon/crash.h"

static const struct args_about about = {
    .role = "coordinator",
    .doc = "Conduct a run: open its iterations, lease its episodes, have versions trained and served.\v"
           "The run's configuration is --config, or config.yaml in --run-dir. Started again on the same run directory it goes on "
           "where it stopped. TERM drains; a second TERM leaves at once.",
    .takes = ARGS_RUN_DIR | ARGS_CONFIG,
};

/* Each second; said once. A signal ends us: nothing has begun. */
static void wait_for_room(const struct error *why, bool *said)
{
    if (!*said)
        log_error("waiting for room", "why=%s", LOG_Q(why->text));
    *said = true;
    nanosleep(&(struct timespec) {.tv_sec = 1}, NULL);
}

static int run(const struct args *args)
{
    _cleanup_(loop_freep) struct loop *loop = NULL;
    _cleanup_(edge_freep) struct edge *edge = NULL;     /* freed before the loop: its handles are of it */
    struct error error = {0};
    bool said = false;
    int r;

    if (!args->config && !args->run_dir) {
        log_error("no run", "why=%s", LOG_Q("give --config FILE or --run-dir DIR"));
        return EX_USAGE;
    }
    crash_phase("opening the run");
    r = loop_new(&loop);
    if (r < 0)
        error_set(&error, -r, "event loop: %s", strerror(-r));
    else
        while ((r = edge_new(args->config, args->run_dir, &edge, &error)) == -EAGAIN)
            wait_for_room(&error, &said);
    if (r == 0)
        r = edge_start(edge, loop, &error);
    if (r < 0) {
        log_error("cannot start", "why=%s", LOG_Q(error_text(&error, r)));
        return r == -ENOSPC ? EX_CONFIG : lifecycle_start_failed(r);    /* a run that has begun waits for room (-EAGAIN) */
    }
    crash_phase("running");
    loop_run(loop);
    crash_phase("leaving");
    r = lifecycle_exit_code(edge->lifecycle);
    if (r == 0)
        drain_mark_clear();
    log_info("coordinator down", "exit_code=%d", r);
    return r;
}

int main(int argc, char **argv)
{
    struct args args;

    args_parse(argc, argv, &about, &args);
    return run(&args);
}
