/* cmd_drain.c - `gantry drain`: let a run, or one member of it, finish what is in hand and end; `gantry up` goes on later. */
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/run_socket.h"

#define DRAIN "drain gantry-drain"

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

int cmd_drain(int argc, char **argv)
{
    _cleanup_free_ char *text = NULL;
    struct error error = {0};
    char run_dir[RUN_SOCKET_PATH];
    bool run = argc < 3;
    int r;

    if (argc > 3 || (argc == 2 && argv[1][0] == '-')) {
        bool asked = argc == 2 && !strcmp(argv[1], "--help");

        fprintf(asked ? stdout : stderr, "usage: gantry drain [RUN [MEMBER]]\n"
                "Episodes in hand are finished, nothing new is begun, all daemons end. With MEMBER (its number or name in\n"
                "`gantry status`) that one finishes what it holds and leaves; the run goes on.\n");
        return asked ? CLI_OK : CLI_USAGE;
    }
    r = run_socket_find(argc >= 2 ? argv[1] : NULL, run_dir, &error);
    if (r == 0 && !run)
        r = drain_member(run_dir, argv[2], &text, &error);
    /* `gantry up` keeps it over a death of the coordinator; where there is none, the coordinator is asked */
    else if (r == 0 && run_socket_call_at(run_dir, "up.sock", DRAIN, &text, NULL) < 0)
        r = run_socket_call(run_dir, DRAIN, &text, &error);
    if (r < 0) {
        fprintf(stderr, "gantry drain: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    printf("%s: %s", run_dir, text);
    return CLI_OK;
}
