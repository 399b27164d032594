#include <limits.h>

#include "cli/cli.h"
#include "cli/report.h"
#include "cli/run_branch.h"
#include "cli/shell_word.h"
#include "cli/up.h"

int up_report(const struct run_config *config)
{
    _cleanup_free_ char *where = shell_word(config->dir);
    struct error error = {0};
    char path[PATH_MAX];
    bool ended = false;
    int r = run_ended(config, &ended, &error);

    snprintf(path, sizeof path, "%s/report.html", config->dir);
    if (r == 0 && ended)
        r = report_write(config->dir, path, &error);
    if (r < 0) {
        fprintf(stderr, "gantry: the run's page is not written: %s; `gantry report %s` writes it\n", error_text(&error, r),
                where ?: config->dir);
        return CLI_FAILED;
    }
    if (ended)
        printf("gantry: %s\n", path);
    return CLI_OK;
}
