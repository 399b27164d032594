/* cmd_history.c - `gantry history RUN`: what happened, as JSON lines; `gantry history check RUN`: do the three writers agree? */
#include "cli/cli.h"
#include "cli/run_open.h"

#include <errno.h>
#include <string.h>

#include "daemon/admin.h"
#include "run/history.h"
#include "run/rundir.h"
#include "wire/address.h"

enum { ASK_MS = 30 * 1000 };

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: gantry history RUN [AFTER]\n"
            "       gantry history check RUN\n"
            "The first prints the ledger's events as JSON lines (those after number AFTER), from the running\n"
            "coordinator or, when it is down, from the file. The second joins ledger, journal and version\n"
            "manifests and prints every contradiction: an episode that ended twice, was trained twice or is lost.\n"
            "Its exit status is 1 when there is one.\n"
            "Events count stages, and the passes of each, from 0.\n");
    return status;
}

/* -ENOENT, -ECONNREFUSED: no coordinator is up. */
static int ask_coordinator(const char *run_dir, const char *after, char **ret_text, struct error *error)
{
    char dir[ADDRESS_MAX], path[ADDRESS_MAX + 16], command[64];
    int r = address_socket_dir_find(run_dir, dir);

    if (r < 0)
        return error_set(error, -r, "%s: its sockets cannot be reached: %s", run_dir, strerror(-r));
    snprintf(path, sizeof path, "%s/status.sock", dir);
    snprintf(command, sizeof command, "history %s", after);
    return admin_call(path, command, ASK_MS, ret_text, error);
}

static int read_file(const char *run_dir, const char *after, struct strbuf *out, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    char *end;
    uint64_t first = strtoull(after, &end, 10);
    int r;

    if (*end || after[0] == '-')
        return error_set(error, EINVAL, "'%s' is not an event's number", after);
    r = run_open_ledger(run_dir, &ledger, error);
    if (r == 0 && (r = history_export(ledger, first, out)) < 0)
        r = error_set(error, -r, "%s/ledger.sqlite: %s", run_dir, ledger_error(ledger));
    return r;
}

static int export(const char *run_dir, const char *after)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    _cleanup_free_ char *text = NULL;
    struct error error = {0};
    int r = ask_coordinator(run_dir, after, &text, &error);

    if (r == -ENOENT || r == -ECONNREFUSED)
        r = read_file(run_dir, after, &out, &error);
    if (r < 0) {
        fprintf(stderr, "gantry history: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    fputs(text ? text : out.text, stdout);
    return CLI_OK;
}

/* Of a run that was stopped in the middle: what of it is done already, though no pass has ended with it. */
static void print_result(const struct history *history, const struct history_result *n)
{
    printf("%zu episodes: %zu trained, %zu kept, %zu evaluated, %zu filtered, %zu stale, %zu failed, %zu open", n->episodes,
           n->trained, n->kept, n->evaluated, n->filtered, n->stale, n->failed, n->open);
    if (n->open)
        printf(" (%zu journaled, their pass not done; %zu still to be played)", n->waiting, n->open - n->waiting);
    printf("; %zu versions; %zu contradictions%s\n", history->n_versions, n->violations,
           history->complete ? "" : " (the run has not finished)");
}

static int check(const char *run_dir)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct history_result result;
    struct error error = {0};
    struct history history;
    int r = history_load(run_dir, &history, &error);

    if (r == -EBUSY) {
        fprintf(stderr,
                "gantry history: the run is up; its ledger can be checked once it has ended or was drained (gantry drain)\n");
        return CLI_FAILED;
    }
    if (r == 0 && (r = history_check(&history, &out, &result)) < 0)
        (void)error_set(&error, -r, "out of memory");
    if (r < 0) {
        fprintf(stderr, "gantry history: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    fputs(out.text, stdout);
    print_result(&history, &result);
    history_release(&history);
    return result.violations ? CLI_FAILED : CLI_OK;
}

int cmd_history(int argc, char **argv)
{
    if (cli_asks_help(argc, argv) || (argc > 1 && !strcmp(argv[1], "-h")))
        return usage(stdout, CLI_OK);
    if (argc == 3 && !strcmp(argv[1], "check"))
        return check(argv[2]);
    if ((argc == 3 || (argc == 2 && strcmp(argv[1], "check"))) && argv[1][0] != '-')
        return export(argv[1], argc == 3 ? argv[2] : "0");
    return usage(stderr, CLI_USAGE);
}
