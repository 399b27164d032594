/* gantry - the command line: finds the subcommand in the table and hands over. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "daemon/config.h"
#include "daemon/lifecycle.h"
#include "version.h"

static const struct cli_command commands[] = {
    {"demo", "a robot policy learns on this machine, from demonstrations to a report", cmd_demo},
    {"up", "start and watch all daemons of a run; goes on where it stopped", cmd_up},
    {"status", "what a run is doing", cmd_status},
    {"drain", "let a run finish what is in hand, and end", cmd_drain},
    {"config", "check, show, explain and change a run's configuration", cmd_config},
    {"runs", "what runs there are, how far each is, what came of it", cmd_runs},
    {"eval", "policies of a run on fresh test states; a checkpoint on a benchmark", cmd_eval},
    {"compare", "several runs beside one another: what differs, what came of each, all curves", cmd_compare},
    {"report", "write report.html of a run again", cmd_report},
    {"replay", "one episode as a table of steps and a film strip", cmd_replay},
    {"history", "what happened, as JSON lines; check that nothing was lost or trained twice", cmd_history},
    {"ablate", "which part of the method brings what: the ladder, over several seeds", cmd_ablate},
    {"scale", "more or fewer workers and servers under gantry up", cmd_scale},
    {"cordon", "give a member no more work", cmd_cordon},
    {"prm", "swap the reward model of a running run", cmd_prm},
    {"keys", "who may join a run over the network", cmd_keys},
    {"deploy", "hand a run over to systemd or Slurm", cmd_deploy},
    {"model", "inspect, make and check policy directories", cmd_model},
    {"data", "recorded episodes in and out: LIBERO, RLDS, LeRobot, npz; their statistics", cmd_data},
    {"sim", "the simulator suites by themselves: list, play, render, check against reference data", cmd_sim},
};

/* Where in the table something else begins. */
static const struct { const char *first, *title; } parts[] = {
    {"demo", "a run"}, {"runs", "what came of it"}, {"scale", "while it runs, and on other hosts"}, {"model", "without a run"},
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: gantry COMMAND [ARGUMENTS]\n\n"
                 "To begin: `gantry demo`, ten minutes on two cores. Your own: `gantry demo --config > run.yaml`,\n"
                 "name run.dir anew in it, `gantry up run.yaml`.\n");
    for (size_t i = 0, part = 0; i < ARRAY_SIZE(commands); i++) {
        if (part < ARRAY_SIZE(parts) && !strcmp(commands[i].name, parts[part].first))
            fprintf(out, "\n%s\n", parts[part++].title);
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    fprintf(out, "\n`gantry COMMAND --help` says more. This is build %s.\n", GANTRY_BUILD);
}

static int unknown(const char *name)
{
    const char *names[ARRAY_SIZE(commands) + 1] = {NULL}, *nearest;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        names[i] = commands[i].name;
    nearest = config_nearest_word(names, name);
    fprintf(stderr, "gantry: there is no command '%s'%s%s; `gantry help` lists them\n", name,
            nearest ? "; nearest: " : "", nearest ? nearest : "");
    return CLI_USAGE;
}

/* What was printed must have gone out: a full disk or a closed pipe is no success. */
static int finish(int status)
{
    int r = fflush(stdout);

    if (r == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "gantry: standard output: %s\n", r < 0 ? strerror(errno) : "not all of it could be written");
    return status == CLI_OK ? CLI_FAILED : status;
}

int main(int argc, char **argv)
{
    static char help[] = "--help";

    lifecycle_limits();
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (argc == 3 && !strcmp(argv[1], "help")) {        /* gantry help up */
        argv[1] = argv[2];
        argv[2] = help;
    } else if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_help(stdout);
        return finish(CLI_OK);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("gantry %s\n", GANTRY_BUILD);
        return finish(CLI_OK);
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        char name[64];

        if (strcmp(argv[1], commands[i].name))
            continue;
        snprintf(name, sizeof(name), "gantry %s", commands[i].name);
        argv[1] = name;
        return finish(commands[i].run(argc - 1, argv + 1));
    }
    return unknown(argv[1]);
}
