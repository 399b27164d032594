/* cli.h - the subcommands of `gantry`: one file per command, one line each in cli/main.c's table.
 *
 * A command gets its own argument vector (argv[0] is "gantry NAME", for usage lines) and returns the exit
 * status: 0 done, 1 it failed (one line on stderr says why), 2 wrong usage. That stdout could be written main() looks after. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* --help is among the words, wherever: `gantry keys init --help` asks, and makes no directory of that name. */
bool cli_asks_help(int argc, char **argv);

struct cli_command {
    const char *name;
    const char *help;                       /* one line for `gantry help`; NULL: a verb, which its command's usage has */
    int (*run)(int argc, char **argv);
};

/* argv[1] of a command that has verbs: its function, with the words behind it. `usage` for --help, none, or an unknown one; of a
 * verb that returns CLI_USAGE its own lines of it. */
int cli_verb(const struct cli_command *verbs, size_t n, int (*usage)(FILE *out, int status), int argc, char **argv);

/* For run_config_warnings: the line on stderr. */
void cli_warning(const char *line, void *arg);

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

int cmd_ablate(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_cordon(int argc, char **argv);
int cmd_data(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_deploy(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_history(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_prm(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_runs(int argc, char **argv);
int cmd_scale(int argc, char **argv);
int cmd_sim(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_up(int argc, char **argv);
