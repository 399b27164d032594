#include "cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "cli/watchdog.h"
#include "daemon/lifecycle.h"
#include "daemon/memory_available.h"

enum { MAX_CHILDREN = 2048, LOG_TAIL = 16384 };

struct child {
    struct supervisor *supervisor;
    struct child *next;
    char name[48], log[512];
    char **argv;                        /* NULL at the end; argv[0] is the path. Owned. */
    uv_process_t *process;              /* NULL: not running */
    struct loop_timer *restart;
    uint64_t started_ms, oom_kills;     /* oom_kills: memory_oom_kills when it was started */
    unsigned failures;                  /* in a row, each soon after its start */
    bool retired;                       /* supervisor_end: how it ends is no matter */
    bool told;                          /* TERM was sent; a second one would mean: leave at once */
    bool ended;                         /* and will not be started again */
};

struct supervisor {
    struct loop *loop;
    struct supervisor_options options;
    char *bin_dir, *log_dir;
    struct child *first, **tail;
    unsigned running;
    uint64_t oom_kills;             /* of memory_oom_kills: up to here each is known for a child's end */
    bool stopping, said_stopped;
    struct loop_timer *deadline;
    struct watchdog *watchdog;      /* NULL: nobody is watched */
};

static void child_start(void *arg);

static void stopped(struct supervisor *s)
{
    if (!s->stopping || s->running || s->said_stopped)
        return;
    s->said_stopped = true;
    if (s->options.on_stopped)
        s->options.on_stopped(s->options.arg);
}

/* Started again after a pause, unless it says that this would not help, or has failed too often: then everything ends. */
static bool plan_restart(struct child *child, bool failed, int status)
{
    bool soon = clock_mono_ms() - child->started_ms < STABLE_MS;
    uint64_t pause = soon || failed ? RESTART_MS : AT_ONCE_MS;

    child->failures = !soon ? 0 : child->failures + failed;
    if (failed && (status == EX_USAGE || status == EX_CONFIG || child->failures >= GIVE_UP))
        return false;
    for (unsigned i = 1; i < child->failures && pause < RESTART_MAX_MS; i++)
        pause *= 2;
    loop_timer_again(child->restart, MIN(pause, (uint64_t)RESTART_MAX_MS), 0);
    return true;
}

static void free_process(uv_handle_t *handle) { free(handle); }

/* Killed for want of memory, not by hand: since its start there was such a kill that is not known for another child's end. */
static bool is_starved(const struct child *child, int signal_number)
{
    struct supervisor *s = child->supervisor;
    uint64_t known = MAX(s->oom_kills, child->oom_kills);

    if (signal_number != SIGKILL || memory_oom_kills("") <= known)
        return false;
    s->oom_kills = known + 1;
    return true;
}

static void on_child_exit(uv_process_t *process, int64_t status, int signal_number)
{
    struct child *child = process->data;
    struct supervisor *s = child->supervisor;
    bool starved = is_starved(child, signal_number);
    bool pulled = (signal_number == SIGKILL && !starved) || signal_number == SIGTERM, ended = !signal_number &&
        (status == 0 || status == LIFECYCLE_SENT_AWAY);
    bool failed = !pulled && !ended, restarts = false;
    int pid = process->pid;
    char text[96];

    child->process = NULL;
    s->running--;
    if (s->watchdog)
        watchdog_remove(s->watchdog, pid);
    uv_close((uv_handle_t *)process, free_process);
    if (signal_number)
        snprintf(text, sizeof text, "signal %d (%s%s)", signal_number, strsignal(signal_number),
                 starved ? " for want of memory" : "");
    else
        snprintf(text, sizeof text, "exit status %d", (int)status);
    if (child->retired)
        failed = false;
    else if (!s->stopping && !ended)
        restarts = plan_restart(child, failed, (int)status);
    child->ended = !restarts;
    if (s->options.on_child_ended)
        s->options.on_child_ended(child->name, pid, failed, text, restarts, s->options.arg);
    if (!s->stopping && ended && child == s->first && s->options.on_leader_ended)
        s->options.on_leader_ended(s->options.arg);
    if (!s->stopping && failed && !restarts && s->options.on_gave_up)
        s->options.on_gave_up(child->name, text, s->options.arg);
    stopped(s);
}

/* Nothing is lost by it that would not be lost by a crash; but it would stand in the way of all others for ever. */
static void on_hung(int pid, void *arg)
{
    struct supervisor *s = arg;

    for (struct child *child = s->first; child; child = child->next)
        if (child->process && child->process->pid == pid) {
            if (s->options.on_child_hung)
                s->options.on_child_hung(child->name, pid, s->options.arg);
            uv_process_kill(child->process, SIGKILL);
        }
}

static int child_spawn(struct child *child, struct error *error)
{
    struct watchdog *watchdog = child->supervisor->watchdog;
    _cleanup_close_ int log = open(child->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    _cleanup_free_ char **environment = watchdog ? watchdog_environment(watchdog) : NULL;
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD, .data.fd = log}, {.flags = UV_INHERIT_FD, .data.fd = log},
    };
    uv_process_options_t options = {
        .exit_cb = on_child_exit, .file = child->argv[0], .args = child->argv, .stdio = stdio, .stdio_count = 3,
        .env = environment,
        .flags = UV_PROCESS_DETACHED,       /* own session: Ctrl-C on the terminal is ours alone, and means drain */
    };
    uv_process_t *process;
    int r;

    if (log < 0)
        return error_set(error, errno, "%s: cannot be opened: %m", child->log);
    process = watchdog && !environment ? NULL : calloc(1, sizeof *process);
    if (!process)
        return error_set(error, ENOMEM, "out of memory");
    process->data = child;
    child->started_ms = clock_mono_ms();
    child->oom_kills = memory_oom_kills("");
    r = uv_spawn(loop_uv(child->supervisor->loop), process, &options);
    if (r < 0) {
        uv_close((uv_handle_t *)process, free_process);
        return error_set(error, -r, "%s: cannot be started: %s", child->argv[0], strerror(-r));
    }
    child->process = process;
    child->supervisor->running++;
    if (watchdog)
        (void)watchdog_add(watchdog, process->pid);     /* out of memory: it runs unwatched */
    return 0;
}

static void child_start(void *arg)
{
    struct child *child = arg;
    struct supervisor *s = child->supervisor;
    struct error error = {0};
    int r;

    if (s->stopping || child->process)
        return;
    r = child_spawn(child, &error);
    if (r < 0 && !plan_restart(child, true, 0) && s->options.on_gave_up)
        s->options.on_gave_up(child->name, error_text(&error, r), s->options.arg);
}

int supervisor_new(struct loop *loop, const struct supervisor_options *options, struct supervisor **ret)
{
    _cleanup_(supervisor_freep) struct supervisor *s = calloc(1, sizeof *s);
    char pid[24];
    int r;

    if (!s)
        return -ENOMEM;
    s->loop = loop;
    s->options = *options;
    s->tail = &s->first;
    s->bin_dir = strdup(options->bin_dir);
    s->log_dir = strdup(options->log_dir);
    if (!s->bin_dir || !s->log_dir)
        return -ENOMEM;
    if (options->hung_ms && (r = watchdog_new(loop, options->hung_ms, on_hung, s, &s->watchdog)) < 0)
        return r;
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("GANTRY_PARENT", pid, 1);        /* lifecycle_die_with_parent checks it */
    *ret = TAKE_PTR(s);
    return 0;
}

static struct child *child_free(struct child *child)
{
    if (!child)
        return NULL;
    loop_timer_free(child->restart);
    for (char **a = child->argv; a && *a; a++)
        free(*a);
    free(child->argv);
    free(child);
    return NULL;
}
DEFINE_FREEP(struct child, child_free)

struct supervisor *supervisor_free(struct supervisor *s)
{
    if (!s)
        return NULL;
    for (struct child *child = s->first, *next; child; child = next) {
        next = child->next;
        if (child->process) {
            uv_process_kill(child->process, SIGKILL);
            uv_close((uv_handle_t *)child->process, free_process);
        }
        child_free(child);
    }
    loop_timer_free(s->deadline);
    watchdog_free(s->watchdog);
    free(s->bin_dir);
    free(s->log_dir);
    free(s);
    return NULL;
}

static char **copy_arguments(const char *path, const char *const *arguments)
{
    size_t n = 0;
    char **argv;

    while (arguments[n])
        n++;
    argv = calloc(n + 3, sizeof *argv);
    if (!argv)
        return NULL;
    argv[0] = strdup(path);
    for (size_t i = 0; i < n; i++)
        argv[i + 1] = strdup(arguments[i]);
    argv[n + 1] = strdup("--die-with-parent");
    return argv;
}

static struct child *find(struct supervisor *s, const char *name)
{
    for (struct child *child = s->first; child; child = child->next)
        if (!strcmp(child->name, name))
            return child;
    return NULL;
}

/* TERM, once: who has had it is leaving in order. */
static void tell(struct child *child)
{
    if (child->process && !child->told)
        uv_process_kill(child->process, SIGTERM);
    child->told = true;
}

int supervisor_end(struct supervisor *s, const char *name)
{
    struct child *child = find(s, name);

    if (!child || child->retired || child->ended)
        return -ENOENT;
    child->retired = true;
    child->ended = !child->process;
    loop_timer_stop(child->restart);
    tell(child);
    return 0;
}

void supervisor_leaves(struct supervisor *s, int pid)
{
    for (struct child *child = s->first; child; child = child->next)
        if (child->process && child->process->pid == pid)
            child->retired = true;
}

bool supervisor_has(struct supervisor *s, const char *name)
{
    struct child *child = find(s, name);

    return child && !child->retired && !child->ended;
}

/* A child that has ended makes room for another of its name. -EBUSY: it has not. */
static int make_room(struct supervisor *s, const char *name)
{
    for (struct child **at = &s->first; *at; at = &(*at)->next) {
        struct child *child = *at;

        if (strcmp(child->name, name))
            continue;
        if (child->process || !child->ended)
            return -EBUSY;
        *at = child->next;
        if (s->tail == &child->next)
            s->tail = at;
        child_free(child);
        return 0;
    }
    return 0;
}

int supervisor_add(struct supervisor *s, const char *name, const char *program, const char *const *arguments, struct error *error)
{
    _cleanup_(child_freep) struct child *child = calloc(1, sizeof *child);
    char path[512];
    int r;

    if (!child)
        return error_set(error, ENOMEM, "out of memory");
    r = make_room(s, name);
    if (r < 0)
        return error_set(error, -r, "%s is still running", name);
    child->supervisor = s;
    snprintf(child->name, sizeof child->name, "%s", name);
    snprintf(path, sizeof path, "%s/%s", s->bin_dir, program);
    snprintf(child->log, sizeof child->log, "%s/%s.log", s->log_dir, name);
    if (access(path, X_OK) < 0)
        return error_set(error, errno, "%s: %s; the daemons must lie beside the gantry program", path, strerror(errno));
    child->argv = copy_arguments(path, arguments);
    if (!child->argv || loop_timer_new(s->loop, 0, 0, child_start, child, &child->restart) < 0)
        return error_set(error, ENOMEM, "out of memory");
    loop_timer_stop(child->restart);
    r = child_spawn(child, error);
    if (r < 0)
        return r;
    *s->tail = child;
    s->tail = &child->next;
    TAKE_PTR(child);
    return 0;
}

static void kill_all(struct supervisor *s)
{
    for (struct child *child = s->first; child; child = child->next)
        if (child->process)
            uv_process_kill(child->process, SIGKILL);
}

static void on_stop_deadline(void *arg) { kill_all(arg); }

void supervisor_stop(struct supervisor *s)
{
    if (s->stopping)
        return;
    s->stopping = true;
    for (struct child *child = s->first; child; child = child->next) {
        loop_timer_stop(child->restart);
        tell(child);
    }
    if (s->running && loop_timer_new(s->loop, STOP_MS, 0, on_stop_deadline, s, &s->deadline) < 0)
        kill_all(s);
    stopped(s);
}

void supervisor_kill(struct supervisor *s)
{
    supervisor_stop(s);
    kill_all(s);
}

/* The children append: they go on at the start. */
void supervisor_trim_logs(const struct supervisor *s)
{
    for (const struct child *child = s->first; child; child = child->next) {
        char older[sizeof child->log + 2];
        struct stat st;

        if (stat(child->log, &st) < 0 || st.st_size <= LOG_MOST)
            continue;
        snprintf(older, sizeof older, "%s.1", child->log);
        (void)unlink(older);
        (void)file_copy(child->log, older);         /* no room for it: then it is all the more to be cut */
        (void)truncate(child->log, 0);
    }
}

/* The last line with level=error if there is one near the end, else the last line. */
void supervisor_last_words(const struct supervisor *s, const char *name, char *ret, size_t size)
{
    char path[512], tail[LOG_TAIL + 1], *line, *rest = tail, *best = NULL, *last = NULL;
    _cleanup_close_ int fd = -1;
    off_t end;
    ssize_t n;

    ret[0] = '\0';
    snprintf(path, sizeof path, "%s/%s.log", s->log_dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (end = lseek(fd, 0, SEEK_END)) < 0)
        return;
    n = pread(fd, tail, LOG_TAIL, end > LOG_TAIL ? end - LOG_TAIL : 0);
    if (n <= 0)
        return;
    tail[n] = '\0';
    while ((line = strsep(&rest, "\n"))) {
        if (strstr(line, "level=error"))
            best = line;
        if (line[0])
            last = line;
    }
    snprintf(ret, size, "%s", best ? best : last ? last : "");
}
