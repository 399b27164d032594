#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/up.h"

int stdout_aside(void)
{
    int out;

    fflush(stdout);
    out = dup(STDOUT_FILENO);
    if (out >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        close(out);
        return -1;
    }
    return out;
}

int stdout_back(int out)
{
    int r;

    fflush(stdout);
    r = dup2(out, STDOUT_FILENO) < 0 ? -1 : 0;
    close(out);
    return r;
}

int up_run_quietly(const struct run_config *config)
{
    int out = stdout_aside(), status;

    if (out < 0)
        return CLI_FAILED;
    status = up_run(config, false);
    return stdout_back(out) < 0 ? CLI_FAILED : status;
}
