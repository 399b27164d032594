/* lifecycle.h - a daemon's life: starting -> running -> draining -> stopped.
 *
 *   lifecycle_new -> (open sockets, join) -> lifecycle_ready -> loop_run -> lifecycle_exit_code -> lifecycle_free
 *
 * Signals, and the admin command that means the same:
 *   TERM, INT   drain: take nothing new, finish what is in flight, then stop          `drain [within SECONDS] [REASON]`
 *   a second TERM or INT: leave now (exit status 1); the first one during a drain begun otherwise gives it a deadline at most.
 *                         The same once more at its heels (within 250 ms) is still the first: timeout(1) says all twice
 *   HUP         re-read what can be re-read: the log level from $GANTRY_LOG_LEVEL_FILE or the owner's on_reload
 *   PIPE        ignored
 * Every phase has a deadline: a start that takes longer than start_ms, or a drain longer than drain_ms, ends the
 * process with status 1 and one log line that names the phase and what it waited for (lifecycle_status). A drain that a person
 * watches has none where the owner is patient: by INT, or by `drain` without `within`.
 * systemd hears READY=1, STOPPING=1, STATUS=... and, when it asked for it, WATCHDOG=1 from the loop itself: a loop
 * that hangs, or an owner that says that its threads do (is_well), is restarted. `gantry up` listens as systemd does.
 * Thread rule: the loop's thread. */
#pragma once

#include "base/error.h"
#include "daemon/loop.h"

enum lifecycle_phase { LIFECYCLE_STARTING, LIFECYCLE_RUNNING, LIFECYCLE_DRAINING, LIFECYCLE_STOPPED };
/* The exit status of a member that an operator has drained: in order, and nobody is to start it again. 0 says so, too, to systemd
 * and `gantry up`; a Slurm worker's 0 is the run's drain, after which it waits for the run's next life. */
enum { LIFECYCLE_SENT_AWAY = 79 };

/* The exit status of a daemon that could not begin: EX_CONFIG (78), which no supervisor follows by another start, when only a
 * person can mend it: a setting, an argument, a file or a directory that will not do. Else 1: memory, an address in use, a lock
 * that a predecessor holds, a full disk. */
int lifecycle_start_failed(int r);

struct lifecycle;

struct lifecycle_options {
    uint64_t start_ms, drain_ms;        /* deadlines; 0: none */
    bool patient;                       /* what a drain waits for may take long: no deadline but by TERM or `within` */
    /* Stop taking work and call lifecycle_stop when nothing is in flight. NULL: stop at once. Called once, and again if the drain
     * gets a sooner deadline (lifecycle_drain_ms). */
    void (*on_drain)(const char *reason, void *arg);
    void (*on_overdue)(void *arg);      /* the drain's deadline has passed: stop soon. NULL: it is an error, as above */
    void (*on_reload)(void *arg);       /* HUP; NULL: nothing to re-read */
    bool (*is_well)(void *arg);         /* asked before each WATCHDOG=1; false: none is sent, and who watches ends the process. NULL:
                                         * it is well as long as its loop turns */
    void *arg;
};

/* Takes TERM, INT and HUP over, and starts the start's deadline. options are copied. -ENOMEM, or what libuv says. */
int lifecycle_new(struct loop *loop, const struct lifecycle_options *options, struct lifecycle **ret);
struct lifecycle *lifecycle_free(struct lifecycle *lifecycle);
DEFINE_FREEP(struct lifecycle, lifecycle_free)

void lifecycle_ready(struct lifecycle *lifecycle);                      /* starting -> running */
void lifecycle_drain(struct lifecycle *lifecycle, const char *reason);  /* -> draining; a second call does nothing */
/* The admin command's argument, "[within SECONDS] [REASON]"; while draining, a sooner deadline counts. The deadline is later by
 * slack_ms: for who passes the command on to another. -EINVAL: SECONDS is none. */
int lifecycle_drain_command(struct lifecycle *lifecycle, const char *argument, uint64_t slack_ms, struct error *error);
/* How long the present drain may still take; 0: it has no deadline. */
uint64_t lifecycle_drain_ms(const struct lifecycle *lifecycle);
void lifecycle_stop(struct lifecycle *lifecycle, int exit_code);        /* -> stopped: loop_run returns. The first code counts */

/* One line about what is going on: systemd's STATUS= and the line a missed deadline logs. */
void lifecycle_status(struct lifecycle *lifecycle, const char *format, ...) _printf_(2, 3);

enum lifecycle_phase lifecycle_phase(const struct lifecycle *lifecycle);
int lifecycle_exit_code(const struct lifecycle *lifecycle);

/* At the beginning of a program. The soft limit of descriptors is raised to the hard one (65536 at most): each member that is
 * connected costs one or more, shells give 1024, and nothing here calls select(2). A limit on the size of files (ulimit -f)
 * becomes an error that names the file, where it had been a death by SIGXFSZ. Of
 * descriptors 0 to 2 those that are closed become /dev/null: a file of the run in their place would get the log. */
void lifecycle_limits(void);

/* Die (SIGKILL) when the parent does; for children of `gantry up`, which puts its pid into $GANTRY_PARENT.
 * -ECHILD: it is gone already. */
int lifecycle_die_with_parent(void);
