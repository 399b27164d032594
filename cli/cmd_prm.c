/* cmd_prm.c - `gantry prm swap RUN VERSION|DIR [--at ITERATION | --shadow]`, `gantry prm rollback RUN`: score new episodes of a
 * running run with another of its reward models.
 *
 * Episodes that are being played finish on the version they began with; servers load the new one beside the old. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/run_socket.h"

struct asked { const char *at, *episodes, *margin, *rank; bool shadow; };

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry prm swap RUN VERSION|DIR [--at ITERATION | --shadow [--episodes N] [--margin M]\n"
                 "                       [--rank R]]\n"
                 "       gantry prm rollback RUN\n"
                 "New episodes are scored by that reward model of the run (a number, or its directory); running ones\n"
                 "finish on theirs.\n"
                 "--at       from that iteration of the present stage on, counted as `gantry status` does (13 of 120);\n"
                 "           it must not have begun\n"
                 "--shadow   on trial first: N finished episodes (32, at most 200) are scored by both, nothing is paid\n"
                 "           by it; then it takes over if its AUC of success against failure at the last frame is at\n"
                 "           most M (0.05) below the other's. Fewer than four successes or failures among them: if\n"
                 "           the mean rank correlation of the two over an episode's frames is R (0.8) or more.\n"
                 "           `gantry status` and `gantry history` have the figures.\n"
                 "rollback   by the one before; during a trial: the trial is given up\n"
                 "A version that no server loads is given up by itself after ten seconds; the one before goes on.\n");
    return status;
}

/* 1: help was asked for. -EINVAL: with a line in `error`, or without where getopt has said it. */
static int parse(int argc, char **argv, struct asked *asked, struct error *error)
{
    static const struct option options[] = {
        {"at", required_argument, NULL, 'a'}, {"shadow", no_argument, NULL, 's'}, {"episodes", required_argument, NULL, 'e'},
        {"margin", required_argument, NULL, 'm'}, {"rank", required_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool detail = false;
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0)
        switch (option) {
        case 'a': asked->at = optarg; break;
        case 's': asked->shadow = true; break;
        case 'e': asked->episodes = optarg, detail = true; break;
        case 'm': asked->margin = optarg, detail = true; break;
        case 'r': asked->rank = optarg, detail = true; break;
        case 'h': return 1;
        default: return -EINVAL;
        }
    if (asked->shadow && asked->at)
        return error_set(error, EINVAL, "--at and --shadow: either it takes over at an iteration, or after its trial");
    return detail && !asked->shadow ? error_set(error, EINVAL, "--episodes, --margin and --rank are of a trial: --shadow") : 0;
}

int cmd_prm(int argc, char **argv)
{
    _cleanup_free_ char *text = NULL, *absolute = NULL;
    struct error error = {0};
    struct asked asked = {.episodes = "32", .margin = "0.05", .rank = "0.8"};
    char run_dir[RUN_SOCKET_PATH], command[RUN_SOCKET_PATH + 4096];
    int r = parse(argc, argv, &asked, &error), n = argc - optind, at;
    bool swap = n == 3 && !strcmp(argv[optind], "swap");

    if (r > 0)
        return usage(stdout, CLI_OK);
    if (error.errnum) {
        fprintf(stderr, "gantry prm: %s\n", error.text);
        return CLI_USAGE;
    }
    if (r < 0 || (!swap && (n != 2 || strcmp(argv[optind], "rollback"))))
        return usage(stderr, CLI_USAGE);
    if (swap) {
        const char *named = argv[optind + 2];

        absolute = realpath(named, NULL);       /* a directory; a bare number names none, or is taken for a number there */
        at = snprintf(command, sizeof command, "prm swap %s", absolute &&
                      strspn(named, "0123456789") != strlen(named) ? absolute : named);
        if (asked.shadow && (size_t)at < sizeof command)
            snprintf(command + at, sizeof command - (size_t)at, " shadow %s %s %s", asked.episodes, asked.margin, asked.rank);
        else if (asked.at && (size_t)at < sizeof command)
            snprintf(command + at, sizeof command - (size_t)at, " at %s", asked.at);
    } else {
        snprintf(command, sizeof command, "prm rollback");
    }
    r = run_socket_find(argv[optind + 1], run_dir, &error);
    if (r == 0)
        r = run_socket_call(run_dir, command, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry prm: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", run_dir, text);
    return CLI_OK;
}
