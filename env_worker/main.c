/* gantry-env-worker - plays episodes in the simulator: asks the coordinator for leases, actors for actions, PRM servers for
 * scores, and delivers what it played to the learner. Keeps nothing that matters: any number may join and leave at will. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "env_worker/edge.h"
#include "version.h"
#include "wire/member_keys.h"

enum { START_MS = 0, DRAIN_MS = 30000, DEFAULT_SLOTS = 8 };

/* software | auto | N -> what sim_renderer_open takes. */
static int parse_render(const char *text, int *ret)
{
    char *end;
    long n;

    if (!text || strcmp(text, "software") == 0) {
        *ret = -1;
        return 0;
    }
    if (strcmp(text, "auto") == 0) {
        *ret = -2;
        return 0;
    }
    n = strtol(text, &end, 10);
    if (end == text || *end || n < 0 || n > 63)
        return -EINVAL;
    *ret = (int)n;
    return 0;
}

static void on_drain(const char *reason, void *arg)
{
    struct edge **edge = arg;

    if (*edge)
        env_edge_drain(*edge, reason);
}

static int run(const struct args *args)
{
    _cleanup_(loop_freep) struct loop *loop = NULL;
    _cleanup_(lifecycle_freep) struct lifecycle *lifecycle = NULL;
    _cleanup_(wire_freep) struct wire *wire = NULL;
    _cleanup_(env_edge_freep) struct edge *edge = NULL;
    char server_key[41] = "";
    struct env_edge_options options = {
        .join = args->join ? args->join : args->run_dir, .build = GANTRY_BUILD,
        .slots = args->slots ? args->slots : DEFAULT_SLOTS, .server_key = server_key, .name = args->name,
        .simulator = args->simulator,
    };
    struct error error = {0};
    int r;

    if (!options.join) {
        log_error("nothing to join", "remedy=%s", LOG_Q("give --join ENDPOINT or --run-dir DIR"));
        return EX_USAGE;
    }
    r = parse_render(args->render, &options.device);
    if (r < 0) {
        log_error("--render not understood", "value=%s want=%s", LOG_Q(args->render), LOG_Q("software, auto or a device number"));
        return EX_USAGE;
    }
    r = loop_new(&loop);
    if (r == 0)     /* a coordinator that is not up yet is waited for: no deadline for the start */
        r = lifecycle_new(loop, &(struct lifecycle_options) {
            .start_ms = START_MS, .drain_ms = DRAIN_MS, .on_drain = on_drain, .arg = &edge }, &lifecycle);
    if (r == 0)
        r = wire_new(loop_uv(loop), GANTRY__ROLE__ROLE_ENV_WORKER, &wire);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(strerror(-r)));
        return lifecycle_start_failed(r);
    }
    r = member_keys_load(wire, &(struct member_keys_options) {.key = args->key, .join = options.join}, server_key, &error);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(error_text(&error, r)));
        return lifecycle_start_failed(r);
    }
    r = env_edge_new(loop, wire, lifecycle, &options, &edge, &error);
    if (r < 0) {
        log_error("cannot start", "reason=%s", LOG_Q(error_text(&error, r)));
        return lifecycle_start_failed(r);
    }
    log_info("up", "build=%s pid=%d slots=%u join=%s", GANTRY_BUILD, (int)getpid(), options.slots, LOG_Q(options.join));
    lifecycle_status(lifecycle, "waiting for the coordinator");
    loop_run(loop);
    return lifecycle_exit_code(lifecycle);
}

int main(int argc, char **argv)
{
    static const struct args_about about = {
        .role = "env_worker",
        .doc = "Play episodes of a gantry run. Any number of workers may join a run and leave it at any time; SIGTERM "
               "finishes what is in hand first.",
        .takes = ARGS_JOIN | ARGS_RUN_DIR | ARGS_KEY | ARGS_SLOTS | ARGS_RENDER | ARGS_SIMULATOR | ARGS_NAME,
    };
    struct args args;

    args_parse(argc, argv, &about, &args);
    return run(&args);
}
