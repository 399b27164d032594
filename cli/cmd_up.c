/* cmd_up.c - `gantry up run.yaml`: all daemons of a run on this host, started, watched and ended together.
 *
 * The same command on the same run directory goes on where it stopped. Ctrl-C drains: what is being played or
 * learnt is finished, then all leave; a second Ctrl-C leaves at once (nothing that was acknowledged is lost by that either). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/life.h"
#include "cli/preflight.h"
#include "cli/progress.h"
#include "cli/run_claim.h"
#include "cli/run_stages.h"
#include "cli/shell_word.h"
#include "cli/up.h"
#include "cli/up_config.h"
#include "cli/up_daemons.h"
#include "daemon/lifecycle.h"
#include "daemon/worker.h"
#include "run/rundir.h"
#include "wire/address.h"

enum { POLL_MS = 1000, QUIET_MS = 15000, CALL_MS = 5000, DRAIN_MS = 180000, SOCKET_PATH = ADDRESS_MAX + 16 };

struct up {
    struct run_config config;
    char run_dir[RUN_PATH];             /* absolute */
    char socket[SOCKET_PATH];           /* the coordinator's admin socket */
    char join[ADDRESS_MAX];             /* ipc://... of the coordinator: members wait there until it is up */
    char host[64];
    int lock_fd;
    struct loop *loop;
    struct lifecycle *lifecycle;
    struct life life;                   /* of the Slurm job we are */
    struct supervisor *supervisor;
    struct up_daemons daemons;
    struct admin *admin;                /* up.sock: gantry scale, drain */
    struct worker *caller;              /* one thread for calls to the coordinator: they block */
    bool over;                          /* being freed */
    struct loop_timer *poll;
    bool polling;                       /* a status call is under way */
    struct progress progress;
    uint64_t printed_ms;
    bool news;                          /* something changed that has not been printed */
    bool finished, paused;              /* said its last status */
    bool drains;                        /* it said so, or we have asked for it */
    uint64_t silent_ms;                 /* since when no status has come, or since when that was said last */
    int exit_code;
};

static void say(const char *format, ...) _printf_(1, 2);
static void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("gantry: ", stdout);
    vfprintf(stdout, format, args);
    fputc('\n', stdout);
    fflush(stdout);
    va_end(args);
}

/* ---- calls to the coordinator, on the caller's thread ------------------------------------------------------------- */

struct call {
    struct up *up;
    char command[512];
    char *text;         /* the answer; NULL: none */
    void (*done)(struct call *call);
};

static void call_done(void *arg)
{
    struct call *call = arg;

    if (call->done && !call->up->over)
        call->done(call);
    free(call->text);
    free(call);
}

static void call_run(void *arg)
{
    struct call *call = arg;

    (void)admin_call(call->up->socket, call->command, CALL_MS, &call->text, NULL);
    if (loop_post(call->up->loop, call_done, call) < 0) {
        free(call->text);
        free(call);
    }
}

/* The answer is optional: a coordinator that is just being started again has none. */
static void call_coordinator(struct up *up, void (*done)(struct call *call), const char *format, ...) _printf_(3, 4);
static void call_coordinator(struct up *up, void (*done)(struct call *call), const char *format, ...)
{
    struct call *call = calloc(1, sizeof *call);
    va_list args;

    if (!call)
        return;
    *call = (struct call) {.up = up, .done = done};
    va_start(args, format);
    vsnprintf(call->command, sizeof call->command, format, args);
    va_end(args);
    if (worker_submit(up->caller, call_run, call) < 0)
        free(call);
}

/* ---- progress ------------------------------------------------------------------------------------------------------ */

/* A coordinator that is there and does not answer: it waits for something, and its log says for what. */
static void say_silence(struct up *up, bool answered, uint64_t now)
{
    char words[600];

    if (answered || !up->silent_ms)
        up->silent_ms = now;
    if (now - up->silent_ms < QUIET_MS || lifecycle_phase(up->lifecycle) != LIFECYCLE_RUNNING)
        return;
    up->silent_ms = now;
    supervisor_last_words(up->supervisor, "coordinator", words, sizeof words);
    say("the coordinator does not answer yet%s%s", words[0] ? "; its last words: " : "", words);
}

/* Once, as the stage begins: what it learns may be worth nothing. */
static void say_doubt(const struct up *up, int64_t said, const json_t *status)
{
    _cleanup_(strbuf_release) struct strbuf line = STRBUF_INIT;

    if (!up->progress.doubtful_prm || up->progress.doubtful_prm == said)
        return;
    progress_doubt(status, &line);
    say("warning: %s", line.text);
}

static void on_status(struct call *call)
{
    _cleanup_(strbuf_release) struct strbuf line = STRBUF_INIT;
    struct up *up = call->up;
    uint64_t now = clock_mono_ms();
    const char *state;
    json_t *status;
    int64_t said;
    bool waiting, paused;

    up->polling = false;
    say_silence(up, call->text != NULL, now);
    status = call->text ? json_loads(call->text, 0, NULL) : NULL;
    if (!status)
        return;
    said = up->progress.doubtful_prm;
    up->news |= progress_update(&up->progress, status);
    say_doubt(up, said, status);
    state = json_string_value(json_object_get(status, "state"));
    up->finished = state && !strcmp(state, "finished");
    up->drains |= state && !strcmp(state, "draining");
    paused = state && !strcmp(state, "paused");         /* a full disk is said at once, and that there is room again */
    up->news |= paused != up->paused;
    up->paused = paused;
    waiting = state && !strcmp(state, "waiting");       /* most waits are over at the next look */
    if ((up->news && !waiting) || now - up->printed_ms >= (waiting ? QUIET_MS / 3 : QUIET_MS)) {
        progress_line(status, &line);
        printf("%s\n", line.text);
        fflush(stdout);
        up->news = false;
        up->printed_ms = now;
        lifecycle_status(up->lifecycle, "%s", line.text);
    }
    json_decref(status);
}

static void on_poll(void *arg)
{
    struct up *up = arg;

    if (!life_holds(up->run_dir, &up->life) && up->exit_code == CLI_OK) {
        say("a later life of this job has taken over %s: everything here ends at once", up->run_dir);
        up->exit_code = CLI_FAILED;
        supervisor_kill(up->supervisor);
    }
    supervisor_trim_logs(up->supervisor);
    if (up->polling || lifecycle_phase(up->lifecycle) == LIFECYCLE_STOPPED)
        return;
    up->polling = true;
    call_coordinator(up, on_status, "status");
}

/* ---- what happens ---------------------------------------------------------------------------------------------------- */

static void on_child_ended(const char *name, int pid, bool crashed, const char *text, bool restarts, void *arg)
{
    struct up *up = arg;
    char words[600];

    if (!strcmp(name, "coordinator") && restarts && up->drains) {       /* its next life would not know of it, and go on */
        supervisor_stop(up->supervisor);
        restarts = false;
    }
    if (restarts || crashed)
        say("%s (pid %d) ended: %s%s", name, pid, text, restarts ? "; started again" : "");
    if (crashed) {
        supervisor_last_words(up->supervisor, name, words, sizeof words);
        if (words[0])
            say("  its last words: %s", words);
    }
    if (strcmp(name, "coordinator") != 0)       /* so that its episodes need not wait for their leases to expire */
        call_coordinator(up, NULL, "exited %s %d %s %s", up->host, pid, crashed ? "crashed" : "ended", text);
}

static void on_child_hung(const char *name, int pid, void *arg)
{
    struct up *up = arg;

    say("%s (pid %d) has stood still for %d s: killed (timing.hung_ms)", name, pid, up->config.hung_ms / 1000);
}

static void on_leader_ended(void *arg)
{
    struct up *up = arg;

    supervisor_stop(up->supervisor);
}

static void on_gave_up(const char *name, const char *text, void *arg)
{
    struct up *up = arg;

    say("%s has ended for good (%s): the run stops here; see %s/log/%s.log", name, text, up->run_dir, name);
    up->exit_code = CLI_FAILED;
    supervisor_stop(up->supervisor);
}

static void on_stopped(void *arg)
{
    struct up *up = arg;
    _cleanup_free_ char *where = shell_word(up->run_dir);
    bool finished = up->finished;       /* a look each second may have missed the end; the ledger has not */
    struct run_stages stages;

    if (up->exit_code == CLI_OK && run_stages_read(up->run_dir, &up->config, &stages, NULL) == 0)
        finished = run_stages_all(&stages) && !stages.later_open;
    if (up->exit_code == CLI_OK && finished)
        say("the run is finished");
    else if (up->exit_code == CLI_OK)
        say("drained before its end; `gantry up %s/config.yaml` goes on from here", where ?: up->run_dir);
    lifecycle_stop(up->lifecycle, up->exit_code);
}

static void on_drain_answer(struct call *call)
{
    if (!call->text)            /* no coordinator to drain: the members keep what is not acknowledged for nobody */
        supervisor_stop(call->up->supervisor);
}

static void on_drain(const char *reason, void *arg)
{
    struct up *up = arg;

    uint64_t ms = lifecycle_drain_ms(up->lifecycle), within = (MAX(ms, UP_DRAIN_SLACK_MS + 1000) - UP_DRAIN_SLACK_MS + 500) / 1000;

    up->drains = true;
    if (ms) {
        say("draining (%s): what is in hand is finished, if that takes no longer than %" PRIu64 " s; once more to leave now", reason,
            within);
        call_coordinator(up, on_drain_answer, "drain within %" PRIu64 " %s", within, reason);
    } else {
        say("draining (%s): episodes and the update in hand are finished; once more to leave now", reason);
        call_coordinator(up, on_drain_answer, "drain %s", reason);
    }
}

/* ---- start ----------------------------------------------------------------------------------------------------------- */

/* As the coordinator writes it, too: from then on it can be named from any directory. */
static int write_config(const struct up *up, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    char path[RUN_PATH];
    int r = rundir_path(up->run_dir, "config.yaml", path, error);

    if (!config)
        return error_set(error, ENOMEM, "out of memory");
    *config = up->config;
    if (r == 0 && (size_t)snprintf(config->dir, sizeof config->dir, "%s", up->run_dir) >= sizeof config->dir)
        return error_set(error, ENAMETOOLONG, "run.dir %s: more than %zu characters; choose a shorter path", up->run_dir,
                         sizeof config->dir - 1);
    if (r == 0)
        r = run_config_write(config, &text);
    if (r == 0 && (r = atomic_file_write(path, text.text, text.length)) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r));
    return r;
}

static int bin_dir(char ret[RUN_PATH], struct error *error)
{
    ssize_t n = readlink("/proc/self/exe", ret, RUN_PATH - 1);
    char *slash;

    if (n < 0)
        return error_set(error, errno, "/proc/self/exe: %s", strerror(errno));
    ret[n] = '\0';
    slash = strrchr(ret, '/');
    if (slash)
        *slash = '\0';
    return 0;
}

static int watch(struct up *up, struct error *error)
{
    const struct lifecycle_options life = {.drain_ms = DRAIN_MS, .patient = true, .on_drain = on_drain, .arg = up};
    char bin[RUN_PATH], log[RUN_PATH], sockets[ADDRESS_MAX];
    struct supervisor_options options = {
        .bin_dir = bin, .log_dir = log, .hung_ms = (unsigned)up->config.hung_ms,
        .on_child_hung = on_child_hung, .on_child_ended = on_child_ended, .on_leader_ended = on_leader_ended,
        .on_gave_up = on_gave_up, .on_stopped = on_stopped, .arg = up,
    };
    int r;

    if ((r = bin_dir(bin, error)) < 0 || (r = rundir_path(up->run_dir, "log", log, error)) < 0 ||
        (r = address_socket_dir(up->run_dir, sockets, error)) < 0 ||
        (r = address_ipc(up->run_dir, "coordinator", up->join, error)) < 0)
        return r;
    snprintf(up->socket, sizeof up->socket, "%s/status.sock", sockets);
    (void)gethostname(up->host, sizeof up->host - 1);
    if ((r = lifecycle_new(up->loop, &life, &up->lifecycle)) < 0 || (r = worker_new("calls", 1, 64, &up->caller)) < 0 ||
        (r = supervisor_new(up->loop, &options, &up->supervisor)) < 0)
        return error_set(error, -r, "cannot start: %s", strerror(-r));
    up->daemons = (struct up_daemons) {.config = &up->config, .run_dir = up->run_dir, .join = up->join,
                                       .supervisor = up->supervisor, .lifecycle = up->lifecycle};
    /* Listening first: who sees a daemon of ours and asks for us is answered as soon as the loop runs. */
    if ((r = up_daemons_listen(&up->daemons, up->loop, &up->admin, error)) < 0 || (r = up_daemons_start(&up->daemons, error)) < 0)
        return r;
    if ((r = loop_timer_new(up->loop, POLL_MS / 4, POLL_MS, on_poll, up, &up->poll)) < 0)
        return error_set(error, -r, "cannot start: %s", strerror(-r));
    lifecycle_ready(up->lifecycle);
    loop_run(up->loop);
    return lifecycle_exit_code(up->lifecycle);
}

static struct up *up_free(struct up *up)
{
    if (!up)
        return NULL;
    up->over = true;                        /* answers still under way are heard by nobody: loop_free() brings them in */
    if (up->supervisor)
        supervisor_kill(up->supervisor);    /* also a coordinator that does not answer: calls to it end with it */
    worker_free(up->caller);
    loop_timer_free(up->poll);
    admin_free(up->admin);
    supervisor_free(up->supervisor);
    lifecycle_free(up->lifecycle);
    loop_free(up->loop);
    if (up->lock_fd >= 0) {
        address_socket_dir_leave(up->run_dir);
        close(up->lock_fd);
    }
    free(up);
    return NULL;
}
DEFINE_FREEP(struct up, up_free)

static int refuse(const struct error *error, int r)
{
    fprintf(stderr, "gantry up: %s\n", error_text(error, r));
    return CLI_FAILED;
}

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry up [--force] [--env-workers N] [--listen ADDRESS] RUN.yaml|RUN\n"
                 "Starts and watches all daemons of a run on this host, until it is finished. Started again, by its\n"
                 "file or its directory, it goes on where it stopped. Ctrl-C drains; a second one leaves at once.\n"
                 "At the end it writes RUN/report.html.\n"
                 "To go on further than a run went, put stages behind the last one of its file.\n"
                 "  --force            start even if memory or disk seem too small\n"
                 "  --env-workers N    instead of cluster.env_workers\n"
                 "  --listen ADDRESS   instead of cluster.listen: tcp://HOST:PORT for members on other hosts\n");
    return status;
}

int up_run(const struct run_config *config, bool force)
{
    _cleanup_(up_freep) struct up *up = calloc(1, sizeof *up);
    _cleanup_free_ char *where = NULL;
    struct preflight sums = {0};
    struct error error = {0};
    int added = -1, r;

    if (!up)
        return refuse(NULL, -ENOMEM);
    up->lock_fd = -1;
    up->config = *config;
    beside_find_model(up->config.policy_init, sizeof up->config.policy_init);
    log_open("up");
    log_set_level(LOG_LEVEL_WARN);
    if ((r = loop_new(&up->loop)) < 0 || (r = run_claim(&up->config, &up->life, up->run_dir, &up->lock_fd, &added, &error)) < 0)
        return refuse(&error, r);
    r = preflight_check(&up->config, up->run_dir, &sums, &error);
    if (r < 0 && !(force && (r == -ENOMEM || r == -ENOSPC)))
        return refuse(&error, r);
    if ((r = write_config(up, &error)) < 0)
        return refuse(&error, r);
    say("run %s in %s%s: at most about %.0f MB of memory, %.0f MB of disk", up->config.name, up->run_dir,
        added >= 0 ? ", resumed" : "", (double)sums.memory_bytes / 1048576.0, (double)sums.disk_bytes / 1048576.0);
    if (added > 0)
        say("it goes on further than before: %d stage%s, from %s on", added, added == 1 ? " is new" : "s are new",
            up->config.stages[up->config.n_stages - added].name);
    if (sums.fit[0])
        say("%s says too little for the suite %s; the run's copy says: %s", up->config.policy_init, up->config.suite, sums.fit);
    where = shell_word(up->config.dir);
    say("`gantry status %s` in another terminal shows more%s%s", where ?: up->config.dir,
        up->config.http[0] ? "; page: http://" : "", up->config.http);
    r = watch(up, &error);
    return r < 0 ? refuse(&error, r) : r;
}

/* -EINVAL: that is no number of workers, or no address. */
static int apply_options(const char *workers, const char *listen, struct run_config *config, struct error *error)
{
    char *end;
    long n = workers ? strtol(workers, &end, 10) : config->env_workers;
    int r;

    if (workers && (end == workers || *end || n < 0 || n > UP_MOST))
        return error_set(error, EINVAL, "--env-workers: '%s' is not a number from 0 to %d", workers, UP_MOST);
    config->env_workers = (int)n;
    if (!listen)
        return 0;
    if ((r = address_check(listen, error)) < 0)
        return error_prefix(error, r, "--listen");
    if ((size_t)snprintf(config->listen, sizeof config->listen, "%s", listen) >= sizeof config->listen)
        return error_set(error, ENAMETOOLONG, "--listen: '%s' is too long", listen);
    return 0;
}

int cmd_up(int argc, char **argv)
{
    static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {"env-workers", 1, NULL, 'w'},
                                            {"listen", 1, NULL, 'l'}, {"help", no_argument, NULL, 'h'}, {0}};
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    struct error error = {0};
    const char *workers = NULL, *listen = NULL;
    char path[PATH_MAX];
    bool force = false;
    int option, r;

    while ((option = getopt_long(argc, argv, "fh", options, NULL)) >= 0) {
        if (option == 'h')
            return usage(stdout, CLI_OK);
        if (option == '?')
            return usage(stderr, CLI_USAGE);
        force |= option == 'f';
        workers = option == 'w' ? optarg : workers;
        listen = option == 'l' ? optarg : listen;
    }
    if (optind + 1 != argc)
        return usage(stderr, CLI_USAGE);
    r = config ? up_config_find(argv[optind], path, &error) : -ENOMEM;
    if (r == 0)
        r = up_config_load(path, config, &error);
    if (r == 0) {
        up_config_own_dir(path, config);
        r = apply_options(workers, listen, config, &error);
    }
    if (r < 0)
        return refuse(&error, r);
    run_config_warnings(config, cli_warning, NULL);
    r = up_run(config, force);
    if (r == CLI_OK)
        (void)up_report(config);        /* what is finished is finished, also where its page finds no room; it said so */
    return r;
}
