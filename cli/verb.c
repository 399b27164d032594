/* verb.c - the commands behind a command: gantry model check, gantry sim list. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"

/* Of a command's usage, the lines of one verb: from its own to that of the next. */
static void print_verb_usage(const char *text, const char *command, const char *verb)
{
    const char *const margin = "       ";
    char start[80];
    bool within = false;
    int n = snprintf(start, sizeof start, "%s %s", command, verb);

    for (const char *line = text, *next; *line; line = next) {
        bool begins = !strncmp(line, "usage: ", 7) || (!strncmp(line, margin, 7) && !strncmp(line + 7, "gantry ", 7));

        next = strchrnul(line, '\n');
        next += *next != '\0';
        if (begins)
            within = !strncmp(line + 7, start, (size_t)n) && !(line[7 + n] >= 'a' && line[7 + n] <= 'z');
        else if (line[0] != ' ')
            within = false;             /* what is said of all of them */
        if (within)
            fprintf(stderr, "%s%.*s", begins ? "usage: " : "", (int)(next - line) - 7 * begins, line + 7 * begins);
    }
    fprintf(stderr, "`%s --help` says more.\n", command);
}

static int wrong_usage(int (*usage)(FILE *out, int status), const char *command, const char *verb)
{
    _cleanup_free_ char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return usage(stderr, CLI_USAGE);
    (void)usage(out, CLI_USAGE);
    if (fclose(out) == 0)
        print_verb_usage(text, command, verb);
    return CLI_USAGE;
}

bool cli_asks_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help"))
            return true;
    return false;
}

int cli_verb(const struct cli_command *verbs, size_t n, int (*usage)(FILE *out, int status), int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, CLI_USAGE);
    if (cli_asks_help(argc, argv))
        return usage(stdout, CLI_OK);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(argv[1], verbs[i].name)) {
            int status = verbs[i].run(argc - 2, argv + 2);

            return status == CLI_USAGE ? wrong_usage(usage, argv[0], argv[1]) : status;
        }
    fprintf(stderr, "%s: there is no '%s'\n", argv[0], argv[1]);
    return usage(stderr, CLI_USAGE);
}

void cli_warning(const char *line, void *arg)
{
    (void)arg;
    fprintf(stderr, "warning: %s\n", line);
}
