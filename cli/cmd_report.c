/* cmd_report.c - `gantry report RUN [-o FILE]`: writes RUN/report.html again. */
#include "cli/cli.h"

#include <limits.h>
#include <string.h>

#include "cli/report.h"

int cmd_report(int argc, char **argv)
{
    struct error error = {0};
    char path[PATH_MAX];

    if ((argc != 2 && !(argc == 4 && !strcmp(argv[2], "-o"))) || argv[1][0] == '-') {
        fprintf(argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr,
                "usage: %s RUN [-o FILE]\nWrites one self-contained page (default RUN/report.html): curves, figures, film strips.\n", argv[0]);
        return argc > 1 && !strcmp(argv[1], "--help") ? CLI_OK : CLI_USAGE;
    }
    if (argc == 4)
        snprintf(path, sizeof path, "%s", argv[3]);
    else
        snprintf(path, sizeof path, "%s/report.html", argv[1]);
    if (report_write(argv[1], path, &error) < 0) {
        fprintf(stderr, "gantry report: %s\n", error.text);
        return CLI_FAILED;
    }
    printf("%s\n", path);
    return CLI_OK;
}
