/* verb.c - the commands behind a command: gantry model check, gantry sim list. */
#include <string.h>

#include "cli/cli.h"

int cli_verb(const struct cli_command *verbs, size_t n, int (*usage)(FILE *out, int status), int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, CLI_USAGE);
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help"))
            return usage(stdout, CLI_OK);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(argv[1], verbs[i].name))
            return verbs[i].run(argc - 2, argv + 2);
    fprintf(stderr, "%s: there is no '%s'\n", argv[0], argv[1]);
    return usage(stderr, CLI_USAGE);
}

void cli_warning(const char *line, void *arg)
{
    (void)arg;
    fprintf(stderr, "warning: %s\n", line);
}
