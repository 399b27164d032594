#include "cli/run_socket.h"

#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macro.h"
#include "cli/run_down.h"
#include "daemon/admin.h"
#include "wire/address.h"

enum { ASK_MS = 5000, COMMAND_MS = 60000 };

/* A question can be asked again. A command that is answered late is carried out all the same, by a coordinator that waits for its disk,
 * say: who gave up on it soon would say that it failed. */
static bool is_question(const char *command) { return !strcmp(command, "status") || !strcmp(command, "help"); }

static int socket_of(const char *run_dir, const char *name, char ret[RUN_SOCKET_PATH], struct error *error)
{
    char folder[ADDRESS_MAX];
    int r;

    if (access(run_dir, F_OK) < 0)
        return error_set(error, errno, "%s: %s: name a run's directory", run_dir, strerror(errno));
    r = address_socket_dir_find(run_dir, folder);   /* root may ask a run that is another user's */
    if (r < 0)
        return error_set(error, -r, "%s: its sockets cannot be reached: %s", run_dir, strerror(-r));
    snprintf(ret, RUN_SOCKET_PATH, "%s/%s", folder, name);
    return 0;
}

int run_socket_call_at(const char *run_dir, const char *name, const char *command, char **ret_text, struct error *error)
{
    char path[RUN_SOCKET_PATH];
    int r = socket_of(run_dir, name, path, error);

    if (r == 0)
        r = admin_call(path, command, is_question(command) ? ASK_MS : COMMAND_MS, ret_text, error);
    if (r == -ETIMEDOUT && !is_question(command))
        (void)error_set(error, ETIMEDOUT, "%s: no answer to '%s' within %d s: the daemon there stands still. It may be carried out later",
                        path, command, COMMAND_MS / 1000);
    if (error && (r == -ENOENT || r == -ECONNREFUSED) && access(run_dir, F_OK) == 0)
        (void)run_down_describe(run_dir, name, error);
    return r;
}

int run_socket_call(const char *run_dir, const char *command, char **ret_text, struct error *error)
{
    return run_socket_call_at(run_dir, "status.sock", command, ret_text, error);
}

/* A coordinator that answers, not merely a directory. */
static bool answers(const char *run_dir)
{
    char *text = NULL;
    int r = run_socket_call(run_dir, "help", &text, NULL);

    free(text);
    return r == 0;
}

int run_socket_find(const char *given, char ret_dir[RUN_SOCKET_PATH], struct error *error)
{
    glob_t found = {0};
    time_t newest = 0;
    char best[RUN_SOCKET_PATH] = "";

    if (given) {
        snprintf(ret_dir, RUN_SOCKET_PATH, "%s", given);
        return 0;
    }
    if (glob("runs/*/config.yaml", 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            struct stat st;
            char *slash = strrchr(found.gl_pathv[i], '/');

            *slash = '\0';
            if (stat(found.gl_pathv[i], &st) == 0 && st.st_mtime >= newest && answers(found.gl_pathv[i])) {
                newest = st.st_mtime;
                snprintf(best, sizeof best, "%s", found.gl_pathv[i]);
            }
        }
    globfree(&found);
    if (!best[0])
        return error_set(error, ENOENT, "no run under runs/ is running; `gantry runs` lists those that are there, `gantry up` starts one");
    snprintf(ret_dir, RUN_SOCKET_PATH, "%s", best);
    return 0;
}
