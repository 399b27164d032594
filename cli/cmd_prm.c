/* cmd_prm.c - `gantry prm swap RUN VERSION|DIR [--at ITERATION]`, `gantry prm rollback RUN`: score new episodes of a running run with
 * another of its reward models.
 *
 * Episodes that are being played finish on the version they began with; servers load the new one beside the old. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/run_socket.h"

int cmd_prm(int argc, char **argv)
{
    _cleanup_free_ char *text = NULL, *absolute = NULL;
    struct error error = {0};
    char run_dir[RUN_SOCKET_PATH], command[RUN_SOCKET_PATH + 4096];
    int r;

    bool swap = (argc == 4 || (argc == 6 && !strcmp(argv[4], "--at"))) && !strcmp(argv[1], "swap");

    if (!swap && (argc != 3 || strcmp(argv[1], "rollback"))) {
        bool asked = argc == 2 && !strcmp(argv[1], "--help");

        fprintf(asked ? stdout : stderr, "usage: gantry prm swap RUN VERSION|DIR [--at ITERATION]\n       gantry prm rollback RUN\n"
                "New episodes are scored by that reward model of the run (a number, or its directory); running ones finish on theirs.\n"
                "--at: from that iteration of the present stage on. rollback: by the one before.\n"
                "A version that no server loads is given up by itself after ten seconds; the one before goes on.\n");
        return asked ? CLI_OK : CLI_USAGE;
    }
    if (swap) {
        absolute = realpath(argv[3], NULL);     /* a directory; a bare number names none, or is taken for a number there */
        snprintf(command, sizeof command, "prm swap %s%s%s", absolute && strspn(argv[3], "0123456789") != strlen(argv[3]) ? absolute : argv[3],
                 argc == 6 ? " at " : "", argc == 6 ? argv[5] : "");
    } else {
        snprintf(command, sizeof command, "prm rollback");
    }
    r = run_socket_find(argv[2], run_dir, &error);
    if (r == 0)
        r = run_socket_call(run_dir, command, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry prm: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", run_dir, text);
    return CLI_OK;
}
