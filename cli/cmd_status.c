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
#include "cli/run_open.h"
#include "cli/run_socket.h"
#include "cli/shell_word.h"
#include "run/rundir.h"

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

/* What is known without its coordinator, in place of the line that there is none. Returns whether the run is finished. */
static bool add_rest(const char *run_dir, struct error *error)
{
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ struct ledger_stage *stages = NULL;
    _cleanup_free_ char *text = NULL, *where = shell_word(run_dir);
    char path[RUN_PATH], why[400];
    size_t n = 0, done = 0;

    if (run_socket_call_at(run_dir, "up.sock", "help", &text, NULL) == 0) {
        error_set(error, error->errnum, "%s: its coordinator does not answer; `gantry up`, which is there, starts it again by "
                  "itself: %s/log/coordinator.log says more", run_dir, run_dir);
        return false;
    }

    if (!config || rundir_path(run_dir, "config.yaml", path, NULL) < 0 || run_config_load(path, config, NULL) < 0 ||
        run_open_ledger(run_dir, &ledger, NULL) < 0 || ledger_stages(ledger, &stages, &n) < 0 ||
        run_stopped(ledger, why, sizeof why) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        done += stages[i].state == PROGRESS_DONE;
    if (done >= (size_t)config->n_stages)
        error_set(error, error->errnum, "%s: the run is finished, no coordinator is running there; `gantry report %s` writes "
                  "its page", run_dir, where ?: run_dir);
    else if (why[0])
        error_set(error, error->errnum, "%s: the run stopped in %s, %zu of %d stages are done; `gantry up %s` tries again: %s",
                  run_dir, done < n ? stages[done].name : "its end", done, config->n_stages, where ?: run_dir, why);
    else
        error_set(error, error->errnum, "%s: no coordinator is running there; %zu of %d stages are done%s%s, and `gantry up %s` "
                  "goes on", run_dir, done, config->n_stages, done < n ? ", the next is " : "", done < n ? stages[done].name : "",
                  where ?: run_dir);
    return done >= (size_t)config->n_stages;
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
    if ((r == -ENOENT || r == -ECONNREFUSED) && add_rest(run_dir, &error) && seen) {
        printf("%s\n", error.text);     /* watched to its end */
        return CLI_OK;
    }
    if (r < 0)
        fprintf(stderr, "gantry status: %s\n", error_text(&error, r));
    return r < 0 ? CLI_FAILED : CLI_OK;
}
