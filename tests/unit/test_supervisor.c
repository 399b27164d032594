/* test_supervisor.c - how `gantry up` ends its children, and finds out which of them hang. A child is this program once more
 * (be_child, be_daemon). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/supervisor.h"
#include "daemon/lifecycle.h"
#include "daemon/notify.h"
#include "tests/harness/scratch.h"

/* Says its pid, then each TERM that it gets, and leaves by USR1 alone. What it says is its log. */
static int be_child(void)
{
    sigset_t set;
    int number = 0;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("up %d\n", (int)getpid());
    while (number != SIGUSR1) {
        sigwait(&set, &number);
        if (number == SIGTERM)
            puts("TERM");
    }
    sigdelset(&set, SIGUSR1);       /* one that came with it and was not taken yet */
    if (sigtimedwait(&set, NULL, &(struct timespec) {0}) == SIGTERM)
        puts("TERM");
    return 0;
}

/* As daemons begin: a loop that turns. */
static int be_daemon(void)
{
    struct lifecycle_options options = {0};
    struct lifecycle *lifecycle;
    struct loop *loop;

    if (loop_new(&loop) < 0 || lifecycle_new(loop, &options, &lifecycle) < 0)
        return 1;
    lifecycle_ready(lifecycle);
    printf("up %d\n", (int)getpid());
    fflush(stdout);
    loop_run(loop);
    return 0;
}

/* It has been up, and waits for something without a loop. */
static int be_leaving(void)
{
    return notify_send("READY=1") < 0 || notify_send("STOPPING=1") < 0 ? 1 : be_child();
}

struct nursery {
    struct loop *loop;
    struct supervisor *supervisor;
    char dir[SCRATCH_PATH], hung[48];
    unsigned n_hung, n_ended;
    bool stopped;
};

static void on_stopped(void *arg) { ((struct nursery *)arg)->stopped = true; }

static void on_hung(const char *name, int pid _unused_, void *arg)
{
    struct nursery *n = arg;

    n->n_hung++;
    snprintf(n->hung, sizeof n->hung, "%s", name);
}

static void on_ended(const char *name _unused_, int pid _unused_, bool crashed, const char *text _unused_, bool restarts, void *arg)
{
    ((struct nursery *)arg)->n_ended += restarts && !crashed;
}

static void begin(struct nursery *n, unsigned hung_ms)
{
    struct supervisor_options options = {.hung_ms = hung_ms, .on_child_hung = on_hung, .on_child_ended = on_ended,
                                         .on_stopped = on_stopped, .arg = n};
    char self[512], program[SCRATCH_PATH + 16];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    *n = (struct nursery) {0};
    scratch_new(n->dir);
    assert_true(length > 0);
    self[length] = '\0';
    snprintf(program, sizeof program, "%s/child", n->dir);
    assert_int_equal(symlink(self, program), 0);
    options.bin_dir = options.log_dir = n->dir;
    assert_int_equal(loop_new(&n->loop), 0);
    assert_int_equal(supervisor_new(n->loop, &options, &n->supervisor), 0);
}

static void end(struct nursery *n)
{
    supervisor_free(n->supervisor);
    loop_free(n->loop);
}

/* What a child has said; waits until it ends in `last`. */
static void said(const struct nursery *n, const char *name, const char *last, char *ret, size_t size)
{
    char path[SCRATCH_PATH + 64];

    snprintf(path, sizeof path, "%s/%s.log", n->dir, name);
    for (ret[0] = '\0';; usleep(1000)) {
        FILE *log = fopen(path, "r");
        size_t length = log ? fread(ret, 1, size - 1, log) : 0;

        if (log)
            fclose(log);
        ret[length] = '\0';
        if (length && ret[length - 1] == '\n' && strstr(ret, last))
            return;
    }
}

static int start_as(struct nursery *n, const char *name, const char *what)
{
    const char *const arguments[] = {what, NULL};
    struct error error = {0};
    char text[256];
    int pid;

    assert_int_equal(supervisor_add(n->supervisor, name, "child", arguments, &error), 0);
    said(n, name, "up ", text, sizeof text);
    assert_int_equal(sscanf(text, "up %d", &pid), 1);
    return pid;
}

static int start(struct nursery *n, const char *name) { return start_as(n, name, "--as-child"); }

static unsigned terms(const struct nursery *n, const char *name)
{
    char text[256];
    unsigned count = 0;

    said(n, name, "TERM\n", text, sizeof text);
    for (const char *at = text; (at = strstr(at, "TERM\n")); at++)
        count++;
    return count;
}

/* A daemon that hears TERM twice leaves at once, and what it held is lost. So one that `gantry scale` has sent away hears it no
 * second time when the run ends meanwhile; one that leaves by an operator's drain has not heard it yet, and gets a deadline by it. */
static void test_each_child_hears_term_once(void **state _unused_)
{
    static const char *const names[] = {"stays", "sent-away", "leaves"};
    struct nursery n;
    char text[256];
    int pids[3];

    begin(&n, 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        pids[i] = start(&n, names[i]);
    assert_int_equal(supervisor_end(n.supervisor, "sent-away"), 0);
    said(&n, "sent-away", "TERM\n", text, sizeof text);     /* taken: a second one would be seen */
    assert_int_equal(supervisor_end(n.supervisor, "sent-away"), -ENOENT);
    supervisor_leaves(n.supervisor, pids[2]);
    supervisor_stop(n.supervisor);
    supervisor_stop(n.supervisor);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        said(&n, names[i], "TERM\n", text, sizeof text);
        assert_int_equal(kill(pids[i], SIGUSR1), 0);
    }
    assert_false(n.stopped);
    while (!n.stopped)
        loop_turn(n.loop, true);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(terms(&n, names[i]), 1);
    end(&n);
}

/* Who does not leave by TERM is killed, also who heard it from supervisor_end. */
static void test_kill_means_everybody(void **state _unused_)
{
    struct nursery n;

    begin(&n, 0);
    start(&n, "stays");
    start(&n, "sent-away");
    assert_int_equal(supervisor_end(n.supervisor, "sent-away"), 0);
    supervisor_kill(n.supervisor);
    while (!n.stopped)
        loop_turn(n.loop, true);
    end(&n);
}

/* One that hangs is killed and started again. One whose loop turns is left alone, also when we have stood still ourselves; so are
 * those that have no loop yet, or none any more. */
static void test_hung(void **state _unused_)
{
    enum { HUNG_MS = 3000 };
    struct nursery n;
    uint64_t stood;
    int stops;

    begin(&n, HUNG_MS);
    start(&n, "starts");
    start_as(&n, "leaves", "--as-leaving");
    start_as(&n, "turns", "--as-daemon");
    stops = start_as(&n, "stops", "--as-daemon");
    for (int looks = 0; looks < 50; looks++)        /* it is known that they speak */
        loop_turn(n.loop, false);
    for (stood = clock_mono_ms(); clock_mono_ms() < stood + HUNG_MS + HUNG_MS / 3; usleep(10000))
        ;
    kill(stops, SIGSTOP);
    while (!n.n_ended)
        loop_turn(n.loop, true);
    assert_int_equal(n.n_hung, 1);
    assert_string_equal(n.hung, "stops");
    assert_int_equal(n.n_ended, 1);
    end(&n);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_child_hears_term_once),
        cmocka_unit_test(test_kill_means_everybody),
        cmocka_unit_test(test_hung),
    };

    if (argc > 1 && !strcmp(argv[1], "--as-child"))
        return be_child();
    if (argc > 1 && !strcmp(argv[1], "--as-daemon"))
        return be_daemon();
    if (argc > 1 && !strcmp(argv[1], "--as-leaving"))
        return be_leaving();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
