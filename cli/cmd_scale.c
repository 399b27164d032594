/* cmd_scale.c - `gantry scale`: more or fewer env workers, actors or PRM servers on the host where `gantry up` runs. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/run_socket.h"

int cmd_scale(int argc, char **argv)
{
    _cleanup_free_ char *text = NULL;
    struct error error = {0};
    char command[128];
    int r;

    if (argc != 4) {
        bool asked = argc == 2 && !strcmp(argv[1], "--help");

        fprintf(asked ? stdout : stderr, "usage: gantry scale RUN env_worker|actor|prm_server N\n"
                "So many of them beside the `gantry up` of that run; those that go finish what they hold. Under\n"
                "systemd: systemctl start 'gantry-env-worker@7'; under Slurm: scontrol update JobId=ARRAY\n"
                "ArrayTaskThrottle=N.\n");
        return asked ? CLI_OK : CLI_USAGE;
    }
    snprintf(command, sizeof command, "scale %.40s %.20s", argv[2], argv[3]);
    r = run_socket_call_at(argv[1], "up.sock", command, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry scale: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", argv[1], text);
    return CLI_OK;
}
