/* gantry-actor - batched policy inference: an observation in, one action's tokens out. Stateless: any request may be repeated
 * at any actor that holds the version. All there is to tell an actor from a PRM server is in act.c. */
#include "actor/act.h"

int main(int argc, char **argv)
{
    static const struct args_about about = {
        .role = "actor",
        .doc = "Answer observations of a gantry run with action tokens. Any number of actors may join a run; SIGTERM answers "
               "what is in flight first.",
        .takes = ARGS_JOIN | ARGS_RUN_DIR | ARGS_DEVICE | ARGS_THREADS | ARGS_LISTEN | ARGS_KEY | ARGS_CACHE | ARGS_NAME,
    };
    struct args args;

    args_parse(argc, argv, &about, &args);
    return serve_main(&act_kind, &args);
}
