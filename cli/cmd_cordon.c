/* cmd_cordon.c - `gantry cordon`: give one member no more work, without sending it away. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/run_socket.h"

int cmd_cordon(int argc, char **argv)
{
    bool undo = argc == 4 && !strcmp(argv[1], "--undo");
    _cleanup_free_ char *text = NULL;
    struct error error = {0};
    char command[64];
    int r;

    if (argc != 3 && !undo) {
        bool asked = argc == 2 && !strcmp(argv[1], "--help");

        fprintf(asked ? stdout : stderr, "usage: gantry cordon [--undo] RUN MEMBER\n"
                "A worker gets no more episodes, an actor or PRM server is asked only if there is no other; what\n"
                "they hold they finish. MEMBER is its number or name in `gantry status`. It stays so for as long as\n"
                "its process lives, over restarts of the coordinator, too.\n");
        return asked ? CLI_OK : CLI_USAGE;
    }
    snprintf(command, sizeof command, "%s %.47s", undo ? "uncordon" : "cordon", argv[argc - 1]);
    r = run_socket_call(argv[argc - 2], command, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry cordon: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", argv[argc - 2], text);
    return CLI_OK;
}
