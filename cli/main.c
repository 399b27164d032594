/* gantry - the command line: finds the subcommand in the table and hands over. */
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "daemon/config.h"
#include "version.h"

static const struct cli_command commands[] = {
    {"demo", "a robot policy learns on this machine, from demonstrations to a report", cmd_demo},
    {"up", "start and watch all daemons of a run; goes on where it stopped", cmd_up},
    {"status", "what a run is doing", cmd_status},
    {"drain", "let a run finish what is in hand, and end", cmd_drain},
    {"config", "check, show and explain a run's configuration", cmd_config},
    {"eval", "policies of a finished run on fresh test states", cmd_eval},
    {"ablate", "which part of the method brings what: the ladder, over several seeds", cmd_ablate},
    {"history", "what happened, as JSON lines; check that nothing was lost or trained twice", cmd_history},
    {"deploy", "hand a run over to systemd or Slurm", cmd_deploy},
    {"keys", "who may join a run over the network", cmd_keys},
    {"model", "inspect, make and check policy directories", cmd_model},
    {"data", "recorded episodes in and out: LIBERO, RLDS, LeRobot, npz; their statistics", cmd_data},
    {"cordon", "give a member no more work", cmd_cordon},
    {"scale", "more or fewer workers and servers under gantry up", cmd_scale},
    {"prm", "swap the reward model of a running run", cmd_prm},
    {"replay", "one episode as a table of steps and a film strip", cmd_replay},
    {"sim", "the simulator suites by themselves: list, check against reference data", cmd_sim},
    {"report", "write report.html of a run again", cmd_report},
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: gantry COMMAND [ARGUMENTS]\n\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
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

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_help(stdout);
        return CLI_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("gantry %s\n", GANTRY_BUILD);
        return CLI_OK;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        char name[64];

        if (strcmp(argv[1], commands[i].name))
            continue;
        snprintf(name, sizeof(name), "gantry %s", commands[i].name);
        argv[1] = name;
        return commands[i].run(argc - 1, argv + 1);
    }
    return unknown(argv[1]);
}
