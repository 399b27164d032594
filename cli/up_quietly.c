#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/up.h"

int up_run_quietly(const struct run_config *config)
{
    int out, status;

    fflush(stdout);
    out = dup(STDOUT_FILENO);
    if (out < 0)
        return CLI_FAILED;
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        close(out);
        return CLI_FAILED;
    }
    status = up_run(config, false);
    fflush(stdout);
    if (dup2(out, STDOUT_FILENO) < 0)
        status = CLI_FAILED;
    close(out);
    return status;
}
