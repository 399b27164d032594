/* test_lifecycle.c - phases, deadlines, signals, what systemd hears, and the crash report. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/log.h"
#include "daemon/crash.h"
#include "daemon/lifecycle.h"
#include "daemon/notify.h"

struct life {
    struct loop *loop;
    struct lifecycle *lifecycle;
    unsigned drains, reloads, overdue;
    char reason[32];
};

static void on_drain(const char *reason, void *arg)
{
    struct life *l = arg;

    l->drains++;
    snprintf(l->reason, sizeof l->reason, "%s", reason);
}

static void on_reload(void *arg)
{
    struct life *l = arg;

    l->reloads++;
    loop_stop(l->loop);
}

static void begin(struct life *l, uint64_t start_ms, uint64_t drain_ms)
{
    const struct lifecycle_options options = {.start_ms = start_ms, .drain_ms = drain_ms, .on_drain = on_drain,
                                              .on_reload = on_reload, .arg = l};

    *l = (struct life) {0};
    assert_int_equal(loop_new(&l->loop), 0);
    assert_int_equal(lifecycle_new(l->loop, &options, &l->lifecycle), 0);
}

static void end(struct life *l)
{
    lifecycle_free(l->lifecycle);
    loop_free(l->loop);
}

static void test_drain_and_stop(void **state _unused_)
{
    struct life l;

    begin(&l, 0, 60000);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_STARTING);
    lifecycle_ready(l.lifecycle);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_RUNNING);
    raise(SIGTERM);
    while (l.drains == 0)
        loop_turn(l.loop, true);
    assert_string_equal(l.reason, "SIGTERM");
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_DRAINING);
    lifecycle_drain(l.lifecycle, "again");
    lifecycle_ready(l.lifecycle);                       /* too late: it stays on its way out */
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_DRAINING);
    assert_int_equal(l.drains, 1);
    assert_int_equal(raise(SIGPIPE), 0);                /* a peer that hangs up ends nobody */
    lifecycle_stop(l.lifecycle, 0);
    lifecycle_stop(l.lifecycle, 5);
    loop_run(l.loop);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 0);
    end(&l);
}

static void test_second_signal_leaves(void **state _unused_)
{
    struct life l;

    begin(&l, 0, 60000);
    lifecycle_ready(l.lifecycle);
    raise(SIGINT);
    while (l.drains == 0)
        loop_turn(l.loop, true);
    raise(SIGTERM);
    loop_run(l.loop);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_STOPPED);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 1);
    end(&l);
}

/* timeout(1) signals its child and then its child's group. The same signal later on is a second one. */
static void test_an_echo_is_not_a_second_signal(void **state _unused_)
{
    struct life l;

    begin(&l, 0, 60000);
    lifecycle_ready(l.lifecycle);
    raise(SIGTERM);
    raise(SIGTERM);
    while (l.drains == 0)
        loop_turn(l.loop, true);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_DRAINING);
    while (lifecycle_phase(l.lifecycle) == LIFECYCLE_DRAINING) {
        raise(SIGTERM);
        loop_turn(l.loop, true);
    }
    assert_int_equal(l.drains, 1);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 1);
    end(&l);
}

/* A supervisor that says TERM to a daemon which is draining by itself does not cut the drain short. */
static void test_signal_during_a_drain(void **state _unused_)
{
    struct life l;

    begin(&l, 0, 60000);
    lifecycle_ready(l.lifecycle);
    lifecycle_drain(l.lifecycle, "the run has ended");
    raise(SIGTERM);
    loop_turn(l.loop, true);
    loop_turn(l.loop, false);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_DRAINING);
    assert_int_equal(l.drains, 1);
    raise(SIGINT);
    loop_run(l.loop);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 1);
    end(&l);
}

static void test_nothing_to_finish(void **state _unused_)
{
    const struct lifecycle_options options = {.drain_ms = 60000};
    struct life l = {0};

    assert_int_equal(loop_new(&l.loop), 0);
    assert_int_equal(lifecycle_new(l.loop, &options, &l.lifecycle), 0);
    lifecycle_drain(l.lifecycle, "test");
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_STOPPED);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 0);
    loop_run(l.loop);
    end(&l);
}

static void test_deadlines(void **state _unused_)
{
    struct life l;

    begin(&l, 1, 0);            /* a start that never gets ready */
    loop_run(l.loop);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 1);
    end(&l);
    begin(&l, 60000, 1);        /* a drain that never ends */
    lifecycle_ready(l.lifecycle);
    lifecycle_drain(l.lifecycle, "test");
    loop_run(l.loop);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 1);
    end(&l);
}

static void on_overdue(void *arg)
{
    struct life *l = arg;

    l->overdue++;
    lifecycle_stop(l->lifecycle, 0);
}

static void begin_patient(struct life *l)
{
    const struct lifecycle_options options = {.drain_ms = 60000, .patient = true, .on_drain = on_drain, .on_overdue = on_overdue,
                                              .arg = l};

    *l = (struct life) {0};
    assert_int_equal(loop_new(&l->loop), 0);
    assert_int_equal(lifecycle_new(l->loop, &options, &l->lifecycle), 0);
    lifecycle_ready(l->lifecycle);
}

/* Who is asked by a person waits as long as it takes, until somebody sets a deadline; a later one than there is changes nothing. */
static void test_patience(void **state _unused_)
{
    struct error error = {0};
    struct life l;

    begin_patient(&l);
    assert_int_equal(lifecycle_drain_ms(l.lifecycle), 0);
    raise(SIGINT);
    while (l.drains == 0)
        loop_turn(l.loop, true);
    assert_int_equal(lifecycle_drain_ms(l.lifecycle), 0);
    assert_int_equal(lifecycle_drain_command(l.lifecycle, "by hand", 0, &error), 0);
    assert_int_equal(l.drains, 1);
    assert_int_equal(lifecycle_drain_command(l.lifecycle, "within 20 by hand", 5000, &error), 0);
    assert_int_equal(l.drains, 2);
    assert_string_equal(l.reason, "by hand");
    assert_in_range(lifecycle_drain_ms(l.lifecycle), 1, 25000);
    assert_true(lifecycle_drain_ms(l.lifecycle) > 20000);
    assert_int_equal(lifecycle_drain_command(l.lifecycle, "within 50", 0, &error), 0);
    assert_int_equal(l.drains, 2);
    assert_int_equal(lifecycle_drain_command(l.lifecycle, "within 1", 0, &error), 0);
    assert_int_equal(l.drains, 3);
    loop_run(l.loop);
    assert_int_equal(l.overdue, 1);
    assert_int_equal(lifecycle_exit_code(l.lifecycle), 0);
    end(&l);

    begin_patient(&l);          /* who is asked by a supervisor has its deadline, also in the middle of a patient drain */
    assert_int_equal(lifecycle_drain_command(l.lifecycle, "", 0, &error), 0);
    assert_string_equal(l.reason, "asked by an operator");
    raise(SIGTERM);
    while (l.drains == 1)
        loop_turn(l.loop, true);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_DRAINING);
    assert_in_range(lifecycle_drain_ms(l.lifecycle), 1, 60000);
    end(&l);
}

static void test_drain_commands(void **state _unused_)
{
    static const char *const bad[] = {"within", "within x", "within 0", "within -1", "within 5x", "within 99999999"};
    struct error error = {0};
    struct life l;

    begin_patient(&l);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lifecycle_drain_command(l.lifecycle, bad[i], 0, &error), -EINVAL);
        assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_RUNNING);
    }
    assert_int_equal(lifecycle_drain_command(l.lifecycle, "within-reason", 0, &error), 0);      /* a reason, not a number's name */
    assert_string_equal(l.reason, "within-reason");
    end(&l);
}

static void test_reload(void **state _unused_)
{
    struct life l;

    begin(&l, 0, 0);
    raise(SIGHUP);
    loop_run(l.loop);
    assert_int_equal(l.reloads, 1);
    assert_int_equal(lifecycle_phase(l.lifecycle), LIFECYCLE_STARTING);
    end(&l);
}

static void expect_datagram(int fd, const char *text)
{
    char bytes[600] = {0};

    assert_true(recv(fd, bytes, sizeof bytes - 1, MSG_DONTWAIT) > 0);
    assert_string_equal(bytes, text);
}

static bool as_told(void *arg) { return *(const bool *)arg; }

/* A loop that turns says so only while its owner is well. */
static void expect_words_while_well(int fd)
{
    bool well = false;
    struct loop *loop;
    struct lifecycle *lifecycle;
    char bytes[64];

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(lifecycle_new(loop, &(struct lifecycle_options) {.is_well = as_told, .arg = &well}, &lifecycle), 0);
    for (int turn = 0; turn < 3; turn++) {
        loop_turn(loop, true);                          /* there is nothing to wake it but the time for a word */
        assert_true(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    }
    well = true;
    loop_turn(loop, true);
    expect_datagram(fd, "WATCHDOG=1");
    lifecycle_stop(lifecycle, 0);
    expect_datagram(fd, "STOPPING=1");
    lifecycle_free(lifecycle);
    loop_free(loop);
}

static void test_notify(void **state _unused_)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct life l;

    snprintf(name, sizeof name, "@gantry-test-%ld", (long)getpid());
    memcpy(address.sun_path, name, strlen(name));
    address.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                     0);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "2000", 1);
    begin(&l, 0, 60000);
    lifecycle_status(l.lifecycle, "episodes %d", 3);
    lifecycle_status(l.lifecycle, "episodes %d", 3);     /* said already */
    lifecycle_ready(l.lifecycle);
    lifecycle_drain(l.lifecycle, "test");
    expect_datagram(fd, "STATUS=episodes 3");
    expect_datagram(fd, "READY=1");
    expect_datagram(fd, "STOPPING=1");
    loop_turn(l.loop, true);
    expect_datagram(fd, "WATCHDOG=1");
    end(&l);
    while (recv(fd, (char[64]) {0}, 64, MSG_DONTWAIT) > 0)      /* a slow turn says it more than once */
        ;
    begin(&l, 0, 0);
    lifecycle_stop(l.lifecycle, 1);                     /* without a drain */
    expect_datagram(fd, "STOPPING=1");
    end(&l);
    expect_words_while_well(fd);
    setenv("WATCHDOG_PID", "1", 1);                     /* meant for another process */
    assert_int_equal(notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_PID");
    assert_int_equal(notify_watchdog_ms(), 1);
    close(fd);
    assert_int_equal(notify_send("READY=1"), -ECONNREFUSED);
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
    assert_int_equal(notify_send("READY=1"), -ENOENT);
    setenv("NOTIFY_SOCKET", "vsock:2:1", 1);
    assert_int_equal(notify_send("READY=1"), -EINVAL);
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_USEC");
}

/* In a child: what a program finds it corrects for itself alone. */
static int limits_of_a_child(void)
{
    struct rlimit limit;
    struct stat null, in;

    close(STDIN_FILENO);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1;
    limit.rlim_cur = 64;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 2;
    lifecycle_limits();
    if (fstat(STDIN_FILENO, &in) < 0 || stat("/dev/null", &null) < 0 || in.st_rdev != null.st_rdev)
        return 3;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur != MIN(limit.rlim_max, 65536))
        return 4;
    return signal(SIGXFSZ, SIG_DFL) == SIG_IGN ? 0 : 5;
}

static void test_limits(void **state _unused_)
{
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(limits_of_a_child());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* A child that dies of a bug says where it was, and still dies of the signal. */
static void test_crash_report(void **state _unused_)
{
    char report[16384];
    size_t n = 0;
    ssize_t got;
    int pipes[2], status;
    pid_t child;

    assert_int_equal(pipe(pipes), 0);
    child = fork();
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        log_open("tester");
        crash_install("tester", "build-7");
        crash_phase("draining");
        log_info("the last words", "n=%d", 1);
        raise(SIGSEGV);
        _exit(0);
    }
    close(pipes[1]);
    while ((got = read(pipes[0], report + n, sizeof report - 1 - n)) > 0)
        n += (size_t)got;
    report[n] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_non_null(strstr(report, "crash report: gantry-tester build build-7\nsignal 11 "));
    assert_non_null(strstr(report, "phase draining"));
    assert_non_null(strstr(strstr(report, "last log lines"), "the last words"));
    assert_non_null(strstr(report, "backtrace:\n"));
}

/* Only the grandchild holds the pipe's other end: the end of file comes when it is dead, killed by its parent's death. */
static void test_die_with_parent(void **state _unused_)
{
    int alive[2], ready[2], status;
    pid_t child;
    char byte;

    assert_int_equal(pipe(alive), 0);
    assert_int_equal(pipe(ready), 0);
    child = fork();
    if (child == 0) {
        char pid[24];

        snprintf(pid, sizeof pid, "%ld", (long)getpid());
        setenv("GANTRY_PARENT", pid, 1);
        if (fork() == 0) {
            if (lifecycle_die_with_parent() < 0 || write(ready[1], "r", 1) != 1)
                _exit(1);
            for (;;)
                pause();
        }
        close(alive[1]);
        _exit(read(ready[0], &byte, 1) == 1 ? 0 : 1);
    }
    close(alive[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read(alive[0], &byte, 1), 0);
    setenv("GANTRY_PARENT", "1", 1);
    child = fork();
    if (child == 0)
        _exit(lifecycle_die_with_parent() == -ECHILD ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    unsetenv("GANTRY_PARENT");
    close(alive[0]);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drain_and_stop),
        cmocka_unit_test(test_second_signal_leaves),
        cmocka_unit_test(test_an_echo_is_not_a_second_signal),
        cmocka_unit_test(test_signal_during_a_drain),
        cmocka_unit_test(test_nothing_to_finish),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_drain_commands),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_crash_report),
        cmocka_unit_test(test_die_with_parent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
