/* cmd_status.c - `gantry status`: what a running run is doing, asked of its coordinator; of one that is down, how far it came. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/run_down.h"
#include "cli/run_socket.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry status [--watch | --json] [RUN]\n"
                 "RUN is a run directory; without it, the run under runs/ that is running.\n"
                 "  --watch   again each second, until the run is over (the screen is cleared on a terminal)\n"
                 "  --json    everything the coordinator says, as one JSON object; it counts stages and passes from 0\n");
    return status;
}

static int show(const char *run_dir, bool json, bool clear, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf page = STRBUF_INIT;
    _cleanup_free_ char *text = NULL;
    json_t *status;
    int r = run_socket_call(run_dir, "status", &text, error);

    if (r < 0)
        return r;
    if (json) {
        fputs(text, stdout);
        return 0;
    }
    status = json_loads(text, 0, NULL);
    if (!status)
        return error_set(error, EBADMSG, "%s: its coordinator's answer is not JSON", run_dir);
    progress_page(status, &page);
    json_decref(status);
    printf("%s%s", clear ? "\033[H\033[J" : "", page.text);
    fflush(stdout);
    return 0;
}

int cmd_status(int argc, char **argv)
{
    static const struct option options[] = {
        {"watch", no_argument, NULL, 'w'}, {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct error error = {0};
    bool watch = false, json = false, seen = false, terminal = isatty(STDOUT_FILENO) == 1;
    char run_dir[RUN_SOCKET_PATH] = "";
    int option, r;

    while ((option = getopt_long(argc, argv, "wjh", options, NULL)) >= 0)
        switch (option) {
        case 'w': watch = true; break;
        case 'j': json = true; break;
        case 'h': return usage(stdout, CLI_OK);
        default: return usage(stderr, CLI_USAGE);
        }
    if (argc > optind + 1 || (watch && json))
        return usage(stderr, CLI_USAGE);
    r = run_socket_find(argv[optind], run_dir, &error);
    if (r == 0)
        r = show(run_dir, json, watch && terminal, &error);
    while (r == 0 && watch) {
        seen = true;
        nanosleep(&(struct timespec) {.tv_sec = 1}, NULL);      /* the refresh rate of the screen, not a wait for something */
        r = show(run_dir, false, terminal, &error);
    }
    if ((r == -ENOENT || r == -ECONNREFUSED) && run_down_describe(run_dir, "status.sock", &error) && seen) {
        printf("%s\n", error.text);     /* watched to its end */
        return CLI_OK;
    }
    if (r < 0)
        fprintf(stderr, "gantry status: %s\n", error_text(&error, r));
    return r < 0 ? CLI_FAILED : CLI_OK;
}
