/* supervisor.h - starts the daemons of a run as children, starts them again when they die, ends them together.
 *
 *   supervisor_new -> supervisor_add* -> loop_run ... supervisor_stop -> on_stopped -> supervisor_free
 *
 * A child runs with --die-with-parent: it dies with us, however we die. Its output goes to RUN/log/NAME.log; what is longer
 * than LOG_MOST is put away as NAME.log.1, in place of what was put away before (supervisor_trim_logs).
 * A child whose event loop does not turn for hung_ms is killed (cli/watchdog.h), and so started again.
 * What happens when a child ends by itself:
 *   killed by KILL or TERM         started again after RESTART_MS (someone pulled the plug: not its fault), at once if it had run
 *                                  STABLE_MS
 *   status 0, LIFECYCLE_SENT_AWAY  not started again; if it is the leader, everything ends: on_leader_ended
 *   any other status or signal,    a failure: started again after a pause that doubles, up to RESTART_MAX_MS;
 *   KILL by the kernel, for want   GIVE_UP failures in a row, each within STABLE_MS of its start, or status EX_USAGE or
 *   of memory                      EX_CONFIG (starting it again would not help) end everything: on_gave_up
 * Thread rule: the loop's thread. */
#pragma once

#include "base/error.h"
#include "daemon/loop.h"

enum {
    AT_ONCE_MS = 20, RESTART_MS = 200, RESTART_MAX_MS = 10000, STABLE_MS = 10000, GIVE_UP = 5, STOP_MS = 40000,
    LOG_MOST = 32 << 20,        /* bytes */
};

struct supervisor;

struct supervisor_options {
    const char *bin_dir;        /* where gantry-coordinator and the others are */
    const char *log_dir;
    unsigned hung_ms;           /* 0: nobody is watched */
    void (*on_child_hung)(const char *name, int pid, void *arg);    /* it is about to be killed. NULL ok */
    /* A child ended: `text` is "exit status 1", "signal 9 (Killed)"; crashed: by its own fault. NULL ok. */
    void (*on_child_ended)(const char *name, int pid, bool crashed, const char *text, bool restarts, void *arg);
    void (*on_leader_ended)(void *arg);     /* the first child added has ended with status 0 */
    void (*on_gave_up)(const char *name, const char *text, void *arg);
    void (*on_stopped)(void *arg);          /* after supervisor_stop: no child is left */
    void *arg;
};

/* Strings are copied. */
int supervisor_new(struct loop *loop, const struct supervisor_options *options, struct supervisor **ret);
struct supervisor *supervisor_free(struct supervisor *supervisor);     /* children that are left are killed */
DEFINE_FREEP(struct supervisor, supervisor_free)

/* Start `program` (a file in bin_dir) under `name`. arguments end with NULL and are copied; --die-with-parent is added. A name
 * that has ended may be used again. */
int supervisor_add(struct supervisor *supervisor, const char *name, const char *program, const char *const *arguments,
                   struct error *error);

/* TERM to one child, and it is not started again. -ENOENT: no such child is running. */
int supervisor_end(struct supervisor *supervisor, const char *name);

/* The child with that process is on its way out: it is not counted on any more, nor started again, however it ends. */
void supervisor_leaves(struct supervisor *supervisor, int pid);

/* It runs, or is about to be started again. */
bool supervisor_has(struct supervisor *supervisor, const char *name);

/* No restarts any more; TERM to all that have not had it from supervisor_end (a second one means: at once), KILL to those left
 * after STOP_MS; then on_stopped (perhaps at once). */
void supervisor_stop(struct supervisor *supervisor);
void supervisor_kill(struct supervisor *supervisor);       /* KILL to all, now */

/* To be called now and then. A line that is written at this very moment may be lost. */
void supervisor_trim_logs(const struct supervisor *supervisor);

/* The last lines of a child's log that say something went wrong (or simply the last), "" if there are none. */
void supervisor_last_words(const struct supervisor *supervisor, const char *name, char *ret, size_t size);
