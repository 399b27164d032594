/* cmd_drain.c - `gantry drain`: let a running run finish what is in hand and end; `gantry up` goes on later. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/run_socket.h"

int cmd_drain(int argc, char **argv)
{
    _cleanup_free_ char *text = NULL;
    struct error error = {0};
    char run_dir[RUN_SOCKET_PATH];
    int r;

    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        bool asked = argc == 2 && !strcmp(argv[1], "--help");

        fprintf(asked ? stdout : stderr, "usage: gantry drain [RUN]\nEpisodes in hand are finished, nothing new is begun, all daemons end.\n");
        return asked ? CLI_OK : CLI_USAGE;
    }
    r = run_socket_find(argc == 2 ? argv[1] : NULL, run_dir, &error);
    if (r == 0)
        r = run_socket_call(run_dir, "drain gantry-drain", &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry drain: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", run_dir, text);
    return CLI_OK;
}
