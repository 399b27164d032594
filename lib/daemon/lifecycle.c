#include "daemon/lifecycle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/crash.h"
#include "daemon/notify.h"

enum {
    DESCRIPTORS = 65536, DRAIN_MAX_S = 7 * 24 * 3600,
    ECHO_MS = 250,              /* people press twice no faster */
};

struct lifecycle {
    struct loop *loop;
    struct lifecycle_options options;
    enum lifecycle_phase phase;
    int exit_code;
    int signalled;              /* the TERM or INT that has come, 0: none; the next one means now */
    uint64_t signalled_ms;      /* when it had been seen to */
    char status[200];
    struct loop_signal *term, *interrupt, *hangup;
    struct loop_timer *deadline, *watchdog;
    uint64_t until_ms;          /* the phase's deadline; 0: none */
};

static const char *const phase_names[] = {"starting", "running", "draining", "stopped"};

enum lifecycle_phase lifecycle_phase(const struct lifecycle *l) { return l->phase; }
int lifecycle_exit_code(const struct lifecycle *l) { return l->exit_code; }

int lifecycle_start_failed(int r)
{
    switch (r) {
    case -EINVAL: case -ENOENT: case -ENOTDIR: case -ENAMETOOLONG: case -EROFS: case -EPERM: case -EACCES:
    case -ESTALE: case -EXDEV: case -ENOTSUP: case -EBADMSG:
        return EX_CONFIG;
    default:
        return EXIT_FAILURE;
    }
}

static void enter(struct lifecycle *l, enum lifecycle_phase phase, uint64_t deadline_ms)
{
    l->phase = phase;
    crash_phase(phase_names[phase]);
    l->until_ms = deadline_ms ? clock_mono_ms() + deadline_ms : 0;
    if (deadline_ms)
        loop_timer_again(l->deadline, deadline_ms, 0);
    else
        loop_timer_stop(l->deadline);
}

/* -> draining, or a sooner end of it; 0: no deadline. */
static void drain_within(struct lifecycle *l, const char *reason, uint64_t deadline_ms)
{
    if (l->phase == LIFECYCLE_STOPPED)
        return;
    if (l->phase == LIFECYCLE_DRAINING && (!deadline_ms || (l->until_ms && l->until_ms <= clock_mono_ms() + deadline_ms)))
        return;
    if (l->phase != LIFECYCLE_DRAINING)
        (void)notify_send("STOPPING=1");
    enter(l, LIFECYCLE_DRAINING, deadline_ms);
    log_info("draining", "reason=%s within_s=%" PRIu64, LOG_Q(reason), deadline_ms / 1000);
    if (l->options.on_drain)
        l->options.on_drain(reason, l->options.arg);
    else
        lifecycle_stop(l, 0);
}

static void on_deadline(void *arg)
{
    struct lifecycle *l = arg;

    l->until_ms = 0;
    if (l->phase == LIFECYCLE_DRAINING && l->options.on_overdue) {
        l->options.on_overdue(l->options.arg);
        return;
    }
    log_error("deadline passed", "phase=%s waiting_for=%s", phase_names[l->phase], LOG_Q(l->status));
    lifecycle_stop(l, 1);
}

static void on_watchdog(void *arg)
{
    struct lifecycle *l = arg;

    if (!l->options.is_well || l->options.is_well(l->options.arg))
        (void)notify_send("WATCHDOG=1");
}

/* timeout(1) signals its child and then its child's group: the same word twice. By the turn's clock, so that two that are
 * read together are never apart. */
static bool is_echo(const struct lifecycle *l, int number)
{
    return number == l->signalled && loop_now_ms(l->loop) < l->signalled_ms + ECHO_MS;
}

static void on_terminate(int number, void *arg)
{
    struct lifecycle *l = arg;

    if (l->phase == LIFECYCLE_DRAINING && l->signalled) {
        if (is_echo(l, number))
            return;
        log_warn("second signal, leaving now", "signal=%d", number);
        lifecycle_stop(l, 1);
    } else {
        if (number == SIGINT)   /* already draining because the run ends: go on with that */
            drain_within(l, "SIGINT", l->options.patient ? 0 : l->options.drain_ms);
        else
            drain_within(l, "SIGTERM", l->options.drain_ms);
        l->signalled = number;
        l->signalled_ms = clock_mono_ms();
    }
}

/* The level may be changed without a restart: one word in the file that $GANTRY_LOG_LEVEL_FILE names. */
static void reload_log_level(void)
{
    const char *path = getenv("GANTRY_LOG_LEVEL_FILE");
    _cleanup_free_ char *text = NULL;
    enum log_level level;
    size_t n;

    if (!path || file_read(path, 64, &text, &n) < 0)
        return;
    text[strcspn(text, " \t\r\n")] = '\0';
    if (log_level_parse(text, &level) < 0) {
        log_warn("log level not understood, kept as it was", "file=%s", LOG_Q(path));
        return;
    }
    log_set_level(level);
    log_info("log level set", "level=%s", text);
}

static void on_hangup(int number _unused_, void *arg)
{
    struct lifecycle *l = arg;

    reload_log_level();
    if (l->options.on_reload)
        l->options.on_reload(l->options.arg);
}

void lifecycle_limits(void)
{
    struct rlimit limit;

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);      /* the lowest that is free: this one */
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < MIN(limit.rlim_max, DESCRIPTORS)) {
        limit.rlim_cur = MIN(limit.rlim_max, DESCRIPTORS);
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int lifecycle_new(struct loop *loop, const struct lifecycle_options *options, struct lifecycle **ret)
{
    _cleanup_(lifecycle_freep) struct lifecycle *l = calloc(1, sizeof *l);
    uint64_t watchdog_ms = notify_watchdog_ms();
    int r;

    if (!l)
        return -ENOMEM;
    l->loop = loop;
    l->options = *options;
    signal(SIGPIPE, SIG_IGN);
    if ((r = loop_signal_new(loop, SIGTERM, on_terminate, l, &l->term)) < 0 ||
        (r = loop_signal_new(loop, SIGINT, on_terminate, l, &l->interrupt)) < 0 ||
        (r = loop_signal_new(loop, SIGHUP, on_hangup, l, &l->hangup)) < 0 ||
        (r = loop_timer_new(loop, 0, 0, on_deadline, l, &l->deadline)) < 0)
        return r;
    if (watchdog_ms && (r = loop_timer_new(loop, watchdog_ms, watchdog_ms, on_watchdog, l, &l->watchdog)) < 0)
        return r;
    enter(l, LIFECYCLE_STARTING, options->start_ms);
    *ret = TAKE_PTR(l);
    return 0;
}

struct lifecycle *lifecycle_free(struct lifecycle *l)
{
    if (!l)
        return NULL;
    loop_signal_free(l->term);
    loop_signal_free(l->interrupt);
    loop_signal_free(l->hangup);
    loop_timer_free(l->deadline);
    loop_timer_free(l->watchdog);
    free(l);
    return NULL;
}

void lifecycle_ready(struct lifecycle *l)
{
    if (l->phase != LIFECYCLE_STARTING)
        return;
    enter(l, LIFECYCLE_RUNNING, 0);
    (void)notify_send("READY=1");
}

void lifecycle_drain(struct lifecycle *l, const char *reason)
{
    if (l->phase != LIFECYCLE_DRAINING)
        drain_within(l, reason, l->options.drain_ms);
}

int lifecycle_drain_command(struct lifecycle *l, const char *argument, uint64_t slack_ms, struct error *error)
{
    uint64_t deadline_ms = l->options.patient ? 0 : l->options.drain_ms;
    uint32_t seconds;
    int n = 0;

    if (!strncmp(argument, "within", 6) && (argument[6] == ' ' || !argument[6])) {
        if (sscanf(argument + 6, " %" SCNu32 "%n", &seconds, &n) != 1 || seconds < 1 || seconds > DRAIN_MAX_S ||
            (argument[6 + n] && argument[6 + n] != ' '))
            return error_set(error, EINVAL, "'%.40s': within needs seconds, 1 to %d", argument, DRAIN_MAX_S);
        deadline_ms = seconds * 1000ull + slack_ms;
        argument += 6 + n + strspn(argument + 6 + n, " ");
    }
    drain_within(l, *argument ? argument : "asked by an operator", deadline_ms);
    return 0;
}

uint64_t lifecycle_drain_ms(const struct lifecycle *l)
{
    uint64_t now = clock_mono_ms();

    return l->until_ms > now ? l->until_ms - now : l->until_ms ? 1 : 0;
}

void lifecycle_stop(struct lifecycle *l, int exit_code)
{
    if (l->phase == LIFECYCLE_STOPPED)
        return;
    if (l->phase != LIFECYCLE_DRAINING)
        (void)notify_send("STOPPING=1");        /* the loop's last word: what is waited for from here on has no loop that turns */
    enter(l, LIFECYCLE_STOPPED, 0);
    l->exit_code = exit_code;
    loop_stop(l->loop);
}

void lifecycle_status(struct lifecycle *l, const char *format, ...)
{
    char line[sizeof l->status];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!strcmp(line, l->status))
        return;
    memcpy(l->status, line, sizeof line);
    (void)notify_status("%s", line);
}

int lifecycle_die_with_parent(void)
{
    const char *expected = getenv("GANTRY_PARENT");

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -errno;
    /* It may have died before the call; then whoever adopted us is our parent by now. */
    if (expected && strtol(expected, NULL, 10) != (long)getppid())
        return -ECHILD;
    return 0;
}
