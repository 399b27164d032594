/* cmd_drain.c - `gantry drain`: let a run, or one member of it, finish what is in hand and end; `gantry up` goes on later. */
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
    char run_dir[RUN_SOCKET_PATH], command[64] = "drain gantry-drain";
    bool run = argc < 3;
    int r;

    if (argc > 3 || (argc == 2 && argv[1][0] == '-')) {
        bool asked = argc == 2 && !strcmp(argv[1], "--help");

        fprintf(asked ? stdout : stderr, "usage: gantry drain [RUN [MEMBER]]\n"
                "Episodes in hand are finished, nothing new is begun, all daemons end. With MEMBER (its number or name in\n"
                "`gantry status`) that one finishes what it holds and leaves; the run goes on.\n");
        return asked ? CLI_OK : CLI_USAGE;
    }
    if (!run)
        snprintf(command, sizeof command, "drain member %.47s", argv[2]);
    r = run_socket_find(argc >= 2 ? argv[1] : NULL, run_dir, &error);
    /* `gantry up` keeps it over a death of the coordinator; where there is none, the coordinator is asked */
    if (r == 0 && (!run || run_socket_call_at(run_dir, "up.sock", command, &text, NULL) < 0))
        r = run_socket_call(run_dir, command, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry drain: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", run_dir, text);
    return CLI_OK;
}
