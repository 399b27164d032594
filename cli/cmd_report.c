/* cmd_report.c - `gantry report RUN [-o FILE]`: writes RUN/summary.json and RUN/report.html again. */
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "cli/report.h"
#include "cli/run_open.h"
#include "coordinator/summary.h"
#include "run/rundir.h"

/* summary.json again from the ledger: an older one may have been made before the run was over. */
static int refresh_summary(const char *run_dir, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    char path[RUN_PATH];
    int r;

    if (!config)
        return error_set(error, ENOMEM, "out of memory");
    r = rundir_path(run_dir, "config.yaml", path, error);
    if (r == 0)
        r = run_config_load(path, config, error);
    if (r == 0)
        r = run_open_ledger(run_dir, &ledger, error);
    return r < 0 ? r : summary_write(ledger, config, run_dir, error);
}

int cmd_report(int argc, char **argv)
{
    struct error error = {0};
    char path[PATH_MAX];

    if ((argc != 2 && !(argc == 4 && !strcmp(argv[2], "-o"))) || argv[1][0] == '-') {
        fprintf(argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr,
                "usage: %s RUN [-o FILE]\n"
                "Writes one self-contained page (default RUN/report.html): curves, figures, film strips.\n"
                "The run must have ended, or be drained, wherever it is in its stages.\n", argv[0]);
        return argc > 1 && !strcmp(argv[1], "--help") ? CLI_OK : CLI_USAGE;
    }
    if (argc == 4)
        snprintf(path, sizeof path, "%s", argv[3]);
    else
        snprintf(path, sizeof path, "%s/report.html", argv[1]);
    if (refresh_summary(argv[1], &error) < 0 || report_write(argv[1], path, &error) < 0) {
        fprintf(stderr, "gantry report: %s\n", error.text);
        return CLI_FAILED;
    }
    printf("%s\n", path);
    return CLI_OK;
}
