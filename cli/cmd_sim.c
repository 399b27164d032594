/* cmd_sim.c - `gantry sim`: the simulator suites by themselves, without a run. */
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "sim/check.h"

static int usage(FILE *out, int status)
{
    fprintf(
        out,
        "usage: gantry sim list [--suite NAME]                  the tasks of a suite (default: tabletop)\n"
        "       gantry sim check --suite libero --golden DIR    replay reference data of the original LIBERO: compiled models,\n"
        "                                                       rollouts, predicates, pictures; exit status 1 if anything "
        "differs\n"
        "           --substeps reference|onepass                only this order of a substep (default: both)\n"
        "           --robosuite 1.4.0|1.4.1                     which arm (default: 1.4.0, what LIBERO pins)\n"
        "           --renderer software|auto|N                  what draws the pictures (default: software)\n"
        "           --cache DIR                                 compiled models are kept here\n"
        "LIBERO's files are found through LIBERO_ROOT, robosuite's through ROBOSUITE_ROOT or `make libero-assets`.\n");
    return status;
}

static int fail(const struct error *error, int r)
{
    fprintf(stderr, "gantry sim: %s\n", error_text(error, r));
    return CLI_FAILED;
}

static int list(int argc, char **argv)
{
    const char *name = model_option(&argc, argv, "--suite");
    const struct sim_task_info *infos;
    struct sim_suite *suite;
    struct error error = {0};
    int n, r;

    if (argc != 0)
        return usage(stderr, CLI_USAGE);
    r = sim_suite_open(name ? name : "tabletop", NULL, &suite, &error);
    if (r < 0)
        return fail(&error, r);
    n = sim_suite_tasks(suite, &infos);
    for (int i = 0; i < n; i++)
        printf("%2d  %-3d steps at %g Hz  %d camera%s  %s\n", i, infos[i].max_steps, infos[i].control_hz, infos[i].cameras,
               infos[i].cameras == 1 ? " " : "s", infos[i].name);
    sim_suite_close(suite);
    return CLI_OK;
}

/* software (default), auto, or the number of an EGL device. */
static bool parse_renderer(const char *text, int *ret_device)
{
    char *end;
    long device = -1;

    if (text && !strcmp(text, "auto"))
        device = -2;
    else if (text && strcmp(text, "software") != 0) {
        device = strtol(text, &end, 10);
        if (end == text || *end || device < 0 || device > 31)
            return false;
    }
    *ret_device = (int)device;
    return true;
}

static void print_line(void *user, const char *line, bool agrees)
{
    (void)user;
    printf("%s  %s\n", agrees ? "ok  " : "FAIL", line);
    fflush(stdout);
}

static int check(int argc, char **argv)
{
    const char *suite = model_option(&argc, argv, "--suite"), *folder = model_option(&argc, argv, "--golden");
    const char *substeps = model_option(&argc, argv, "--substeps");
    struct sim_options options = {.robosuite = model_option(&argc, argv, "--robosuite"),
                                  .cache = model_option(&argc, argv, "--cache")};
    const char *renderer = model_option(&argc, argv, "--renderer");
    struct sim_check_counts counts;
    struct error error = {0};
    int device, r;

    if (!parse_renderer(renderer, &device))
        return usage(stderr, CLI_USAGE);
    if (argc != 0 || !folder || !*folder || (substeps && strcmp(substeps, "reference") != 0 && strcmp(substeps, "onepass") != 0))
        return usage(stderr, CLI_USAGE);
    if (substeps)
        options.substeps = strcmp(substeps, "onepass") == 0 ? SIM_SUBSTEPS_ONEPASS : SIM_SUBSTEPS_REFERENCE;
    r = sim_check_libero(suite ? suite : "libero", &options, device, folder, print_line, NULL, &counts, &error);
    if (r < 0)
        return fail(&error, r);
    printf("%d compared, %d differ\n", counts.files, counts.failed);
    return counts.failed ? CLI_FAILED : CLI_OK;
}

int cmd_sim(int argc, char **argv)
{
    static const struct cli_command verbs[] = { {"list", NULL, list}, {"check", NULL, check} };

    return cli_verb(verbs, ARRAY_SIZE(verbs), usage, argc, argv);
}
