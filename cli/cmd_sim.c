/* cmd_sim.c - `gantry sim`: the simulator suites by themselves, without a run. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/sim.h"
#include "sim/check.h"

static int usage(FILE *out, int status)
{
    fputs("usage: gantry sim list [--suite NAME]          the tasks: steps, states, cameras, instruction\n"
          "                                               (default: tabletop)\n"
          "       gantry sim play WHAT                    play episodes and say how they end\n"
          "           --policy expert|clean|slow|random|no-op|FILE   who acts (default: expert); a file: .npy,\n"
          "                                                          .npz or text\n"
          "           -o FILE.png  --video FILE.mp4       a film strip; a video, by the ffmpeg program\n"
          "           --record FILE.txt                   the actions, as --policy reads them\n"
          "           --steps N  --camera N  --size N     (default: the task's limit, 0, 256)\n"
          "       gantry sim render WHAT [--size N] [-o PREFIX]      one PNG per camera and state\n"
          "       gantry sim bench WHAT                   env steps a second\n"
          "           --pictures 0,1,2 --processes 1,2 --slots 1,2,4,8 --seconds 3 --size 256\n"
          "       gantry sim serve [--suite NAME] [--listen PATH] [--size N] [--cameras N] [--no-save]\n"
          "                                               be a simulator for others: a run's suite.remote, a\n"
          "                                               Python program (docs/remote.md); on $GANTRY_SIM_FD,\n"
          "                                               or on the UNIX socket PATH\n"
          "       gantry sim check --suite libero --golden DIR\n"
          "                                               replay reference data of the original LIBERO:\n"
          "                                               compiled models, rollouts, predicates, pictures; exit\n"
          "                                               status 1 if anything differs\n"
          "WHAT:      --suite NAME --task N|NAME --split train|val|test --states N|A..B\n"
          "                                               (default: tabletop, 0, test, 0)\n"
          "always:    --substeps reference|onepass        how a libero substep is computed (check: both;\n"
          "                                               else by split)\n"
          "           --robosuite 1.4.0|1.4.1             which arm (default: 1.4.0, what LIBERO pins)\n"
          "           --renderer software|auto|N          what draws the pictures (default: software)\n"
          "           --cache DIR                         compiled models are kept here\n"
          "           --remote COMMAND|unix:PATH          suite remote: a simulator of your own\n"
          "                                               (docs/remote.md)\n"
          "LIBERO's files are found through LIBERO_ROOT, robosuite's through ROBOSUITE_ROOT or\n"
          "`make libero-assets`.\n",
          out);
    return status;
}

static int list(int argc, char **argv)
{
    const char *name = model_option(&argc, argv, "--suite");
    const struct sim_options options = {.remote = model_option(&argc, argv, "--remote")};
    const struct sim_task_info *infos;
    struct sim_suite *suite = NULL;
    struct error error = {0};
    int n, r;

    if (argc != 0)
        return CLI_USAGE;
    n = sim_suite_known_tasks(name ? name : "tabletop", &infos);
    if (!n) {
        r = sim_suite_open(name, &options, &suite, &error);
        if (r < 0)
            return sim_fail(&error, r);
        n = sim_suite_tasks(suite, &infos);
    }
    printf(" i  steps  Hz  cameras  test states  task\n");
    for (int i = 0; i < n; i++) {
        char states[16] = "any";

        if (infos[i].test_states)
            snprintf(states, sizeof(states), "%d", infos[i].test_states);
        printf("%2d  %5d  %2g  %7d  %11s  %s\n", i, infos[i].max_steps, infos[i].control_hz, infos[i].cameras, states,
               infos[i].name);
        if (infos[i].instruction)
            printf("%37s\"%s\"\n", "", infos[i].instruction);
    }
    sim_suite_close(suite);
    return CLI_OK;
}

static void print_line(void *user, const char *line, bool agrees)
{
    (void)user;
    printf("%s  %s\n", agrees ? "ok  " : "FAIL", line);
    fflush(stdout);
}

static int check(int argc, char **argv)
{
    const char *folder = model_option(&argc, argv, "--golden");
    struct sim_check_counts counts;
    struct sim_target target;
    struct error error = {0};
    int r = sim_target_read(&argc, argv, &target, &error);

    if (r < 0)
        return sim_fail(&error, r);
    if (argc != 0 || !folder || !*folder)
        return CLI_USAGE;
    if (strncmp(target.suite_name, "libero", 6))
        return sim_fail(&error, error_set(&error, EINVAL, "check: there is nothing to compare %s with; --suite libero, or one "
                                          "of libero's", target.suite_name));
    r = sim_check_libero(target.suite_name, &target.options, target.device, folder, print_line, NULL, &counts, &error);
    if (r < 0)
        return sim_fail(&error, r);
    printf("%d compared, %d differ\n", counts.files, counts.failed);
    return counts.failed ? CLI_FAILED : CLI_OK;
}

int cmd_sim(int argc, char **argv)
{
    static const struct cli_command verbs[] = {
        {"list", NULL, list},       {"play", NULL, sim_play}, {"render", NULL, sim_render_verb},
        {"bench", NULL, sim_bench}, {"serve", NULL, sim_serve}, {"check", NULL, check},
    };

    return cli_verb(verbs, ARRAY_SIZE(verbs), usage, argc, argv);
}
