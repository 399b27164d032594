/* gantry-prm-server - batched progress scoring: an episode's frames in, progress in [0,1] per frame out. Stateless; a new reward
 * model is loaded beside the old one, and each episode is scored by one version. */
#include "prm_server/score.h"

int main(int argc, char **argv)
{
    static const struct args_about about = {
        .role = "prm_server",
        .doc = "Score the progress of episodes of a gantry run. Any number of servers may join a run; SIGTERM answers what is "
               "in flight first.",
        .takes = ARGS_JOIN | ARGS_RUN_DIR | ARGS_DEVICE | ARGS_THREADS | ARGS_LISTEN | ARGS_KEY | ARGS_CACHE | ARGS_NAME,
    };
    struct args args;

    args_parse(argc, argv, &about, &args);
    return serve_main(&score_kind, &args);
}
