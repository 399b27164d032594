/* cmd_model.c - `gantry model`: what can be done with a policy directory. */
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry model inspect DIR           what is in a policy directory\n"
                 "       gantry model new DIR [--seed N]    a fresh policy: DIR has config and tokenizer, weights are added\n"
                 "       gantry model check --golden DIR    compare every tensor with the reference's numbers in DIR\n");
    return status;
}

int cmd_model(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, CLI_USAGE);
    if (!strcmp(argv[1], "--help"))
        return usage(stdout, CLI_OK);
    fprintf(stderr, "gantry model: there is no '%s'\n", argv[1]);
    return usage(stderr, CLI_USAGE);
}
