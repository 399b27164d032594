/* gantry-learner - keeps the trajectories and makes the versions: takes each episode once, durably, and carries out the
 * coordinator's plans: imitation, the reward model, PPO. May be killed at any instant: what it acknowledged is in the journal,
 * what it committed is whole, and a plan that was cut off is carried out again to the same bits. */
#include <string.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "learner/edge.h"
#include "serve/device_use.h"
#include "version.h"
#include "wire/member_keys.h"

enum { DRAIN_MS = 30000, DEFAULT_THREADS = 2 };

static void on_drain(const char *reason, void *arg)
{
    struct edge **edge = arg;

    if (*edge)
        edge_drain(*edge, reason);
}

static int run(const struct args *args)
{
    _cleanup_(loop_freep) struct loop *loop = NULL;
    _cleanup_(lifecycle_freep) struct lifecycle *lifecycle = NULL;
    _cleanup_(wire_freep) struct wire *wire = NULL;
    _cleanup_(edge_freep) struct edge *edge = NULL;
    char server_key[41] = "";
    struct edge_options options = {
        .join = args->join ? args->join : args->run_dir, .listen = args->listen, .run_dir = args->run_dir, .build = GANTRY_BUILD,
        .threads = args->threads ? args->threads : DEFAULT_THREADS, .rank = args->rank,
        .server_key = server_key, .device = args->device ? args->device : "cpu",
    };
    struct error error = {0};
    int r;

    if (!options.join) {
        log_error("nothing to join", "remedy=%s", LOG_Q("give --join ENDPOINT or --run-dir DIR"));
        return EX_USAGE;
    }
    r = device_use(options.device, &error);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(error_text(&error, r)));
        return lifecycle_start_failed(r);
    }
    r = loop_new(&loop);
    if (r == 0)     /* a coordinator that is not up yet is waited for: no deadline for the start */
        r = lifecycle_new(loop, &(struct lifecycle_options) {.drain_ms = DRAIN_MS, .on_drain = on_drain, .arg = &edge},
                          &lifecycle);
    if (r == 0)
        r = wire_new(loop_uv(loop), GANTRY__ROLE__ROLE_LEARNER, &wire);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(strerror(-r)));
        return lifecycle_start_failed(r);
    }
    r = member_keys_load(wire, &(struct member_keys_options) {.key = args->key, .join = options.join, .listen = args->listen,
                                                              .run_dir = args->run_dir}, server_key, &error);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(error_text(&error, r)));
        return lifecycle_start_failed(r);
    }
    r = edge_new(loop, wire, lifecycle, &options, &edge, &error);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(error_text(&error, r)));
        return lifecycle_start_failed(r);
    }
    log_info("up", "build=%s pid=%d threads=%u join=%s", GANTRY_BUILD, (int)getpid(), options.threads, LOG_Q(options.join));
    lifecycle_status(lifecycle, "waiting for the coordinator");
    loop_run(loop);
    return lifecycle_exit_code(lifecycle);
}

int main(int argc, char **argv)
{
    static const struct args_about about = {
        .role = "learner",
        .doc = "Train the policies and reward models of a gantry run, and keep its trajectories (rank 0). SIGTERM gives up the "
               "update in hand, which is repeated to the same result after the next start.",
        .takes = ARGS_JOIN | ARGS_RUN_DIR | ARGS_DEVICE | ARGS_THREADS | ARGS_LISTEN | ARGS_KEY | ARGS_RANK | ARGS_NAME,
    };
    struct args args;

    args_parse(argc, argv, &about, &args);
    return run(&args);
}
