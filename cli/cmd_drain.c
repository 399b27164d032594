/* cmd_drain.c - `gantry drain`: let a run, or one member of it, finish what is in hand and end; `gantry up` goes on later. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/run_socket.h"
#include "cli/shell_word.h"

/* NAME of NAME#LIFE. */
static bool is_start_of(const char *word, const char *name)
{
    size_t n = strcspn(name, "#");

    return strlen(word) == n && !strncmp(word, name, n);
}

/* The process of a member, by its number or name, if it is one of this host; 0: it is not. */
static int process_of(const char *run_dir, const char *member)
{
    _cleanup_free_ char *text = NULL;
    json_t *status = run_socket_call(run_dir, "status", &text, NULL) < 0 ? NULL : json_loads(text, 0, NULL), *one;
    char here[HOST_NAME_MAX + 1] = "", number[24];
    int pid = 0;
    size_t i;

    (void)gethostname(here, sizeof here - 1);
    json_array_foreach(json_object_get(status, "members"), i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *host = json_string_value(json_object_get(one, "host"));

        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(one, "member")));
        if (!host || strcmp(host, here))
            continue;
        if (!strcmp(number, member) || (name && (!strcmp(name, member) || is_start_of(member, name))))
            pid = (int)json_integer_value(json_object_get(one, "pid"));
    }
    json_decref(status);
    return pid;
}

/* Sends the member away, and lets `gantry up` know: it must not count on a process that is leaving (gantry scale). */
static int drain_member(const char *run_dir, const char *member, char **ret_text, struct error *error)
{
    _cleanup_free_ char *noted = NULL;
    char command[64];
    int pid = process_of(run_dir, member), r;

    snprintf(command, sizeof command, "drain member %.47s", member);
    r = run_socket_call(run_dir, command, ret_text, error);
    if (r == 0 && pid) {
        snprintf(command, sizeof command, "leaves %d", pid);
        (void)run_socket_call_at(run_dir, "up.sock", command, &noted, NULL);       /* there may be none */
    }
    return r;
}

/* An update may take longer than who asked wants to wait: how far it is, and what else could be said. */
static void say_update(const char *run_dir, const char *run)
{
    _cleanup_free_ char *text = NULL, *where = shell_word(run);
    json_t *status = run_socket_call(run_dir, "status", &text, NULL) < 0 ? NULL : json_loads(text, 0, NULL);
    double done, total;

    progress_training(status, &done, &total);
    if (total > 0)
        printf("An update is in hand, %.0f/%.0f: it is finished first. `gantry drain %s --within SECONDS` waits no longer than "
               "that; what\nis not done by then is made anew by the next `gantry up`.\n", done, total, where ?: run);
    json_decref(status);
}

static int usage(FILE *out)
{
    fputs("usage: gantry drain [RUN [MEMBER]] [--within SECONDS]\n"
          "Episodes and the update in hand are finished, nothing new is begun, all daemons end. What takes\n"
          "longer than SECONDS (default: as long as it takes) is left, and done anew by the next `gantry up`.\n"
          "With MEMBER (its number or name in `gantry status`) that one finishes what it holds and leaves; the\n"
          "run goes on.\n", out);
    return out == stdout ? CLI_OK : CLI_USAGE;
}

int cmd_drain(int argc, char **argv)
{
    static const struct option options[] = {{"within", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {0}};
    _cleanup_free_ char *text = NULL;
    const char *within = NULL, *run, *member;
    struct error error = {0};
    char run_dir[RUN_SOCKET_PATH], command[80];
    int option, r;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == 'w')
            within = optarg;
        else
            return usage(option == 'h' ? stdout : stderr);
    run = optind < argc ? argv[optind] : NULL;
    member = optind + 1 < argc ? argv[optind + 1] : NULL;
    if (optind + 2 < argc || (member && within))
        return usage(stderr);
    snprintf(command, sizeof command, within ? "drain within %.20s gantry-drain" : "drain gantry-drain", within);
    r = run_socket_find(run, run_dir, &error);
    if (r == 0 && member)
        r = drain_member(run_dir, member, &text, &error);
    /* `gantry up` keeps it over a death of the coordinator; where there is none, the coordinator is asked */
    else if (r == 0 && (r = run_socket_call_at(run_dir, "up.sock", command, &text, &error)) < 0 && r != -EREMOTEIO)
        r = run_socket_call(run_dir, command, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry drain: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", run_dir, text);
    if (!member && !within)
        say_update(run_dir, run ?: run_dir);
    return CLI_OK;
}
