/* test_admin.c - line commands over the UNIX socket, from both sides. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "daemon/admin.h"
#include "tests/harness/scratch.h"

static int echo(const char *argument, struct strbuf *out, struct error *error _unused_, void *arg _unused_)
{
    strbuf_addf(out, "<%s>\n\n\nend", argument);        /* blank lines must not end the answer */
    return 0;
}

static int refuse(const char *argument _unused_, struct strbuf *out _unused_, struct error *error, void *arg _unused_)
{
    return error_set(error, EBUSY, "not now");
}

static int large(const char *argument _unused_, struct strbuf *out, struct error *error _unused_, void *arg _unused_)
{
    for (int i = 0; i < 20000; i++)
        strbuf_addf(out, "line %d of a large answer\n", i);
    return 0;
}

static const struct admin_command commands[] = {
    {"echo", "TEXT", "say it again", echo}, {"refuse", "", "always fails", refuse}, {"large", "", "half a megabyte", large},
    {NULL, NULL, NULL, NULL},
};

struct called {
    struct loop *loop;
    const char *path, *command;
    char *text;
    struct error error;
    int result;
};

static void stop_loop(void *arg) { loop_stop(arg); }

static void *call(void *arg)
{
    struct called *c = arg;

    c->result = admin_call(c->path, c->command, 10000, &c->text, &c->error);
    if (loop_post(c->loop, stop_loop, c->loop) < 0)
        abort();
    return NULL;
}

static void call_from_thread(struct called *c)
{
    pthread_t thread;

    c->error = (struct error) {0};
    assert_int_equal(pthread_create(&thread, NULL, call, c), 0);
    loop_run(c->loop);
    pthread_join(thread, NULL);
}

static char directory[SCRATCH_PATH], path[64];

static int make_directory(void **state _unused_)
{
    scratch_new(directory);
    snprintf(path, sizeof path, "%s/status.sock", directory);
    return 0;
}

static int remove_directory(void **state _unused_) { return rmdir(directory); }

static void test_commands(void **state _unused_)
{
    struct called c = {.path = path};
    struct admin *admin;
    struct stat st;

    assert_int_equal(loop_new(&c.loop), 0);
    assert_int_equal(admin_new(c.loop, path, commands, NULL, &admin, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    c.command = "echo  a b \t";
    call_from_thread(&c);
    assert_int_equal(c.result, 0);
    assert_string_equal(c.text, "<a b>\nend\n");
    free(TAKE_PTR(c.text));
    c.command = "help";
    call_from_thread(&c);
    assert_string_equal(c.text, "echo TEXT - say it again\nrefuse - always fails\nlarge - half a megabyte\nhelp - this list\n");
    free(TAKE_PTR(c.text));
    c.command = "large";
    call_from_thread(&c);
    assert_int_equal(c.result, 0);
    assert_non_null(strstr(c.text, "line 19999 of a large answer\n"));
    free(TAKE_PTR(c.text));
    c.command = "refuse";
    call_from_thread(&c);
    assert_int_equal(c.result, -EREMOTEIO);
    assert_string_equal(c.error.text, "not now");
    c.command = "nothing";
    call_from_thread(&c);
    assert_string_equal(c.error.text, "there is no command 'nothing'; help lists them");
    admin_free(admin);
    loop_free(c.loop);
    assert_int_equal(access(path, F_OK), -1);
}

/* Two commands in one packet, then the client's end of file: two answers, then ours. */
static void test_pipelined(void **state _unused_)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct loop *loop;
    struct admin *admin;
    char reply[256] = "";
    size_t n = 0;
    ssize_t got = -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(admin_new(loop, path, commands, NULL, &admin, NULL), 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, "echo 1\r\necho 2\n", 15, 0), 15);
    shutdown(fd, SHUT_WR);
    while (got != 0) {
        got = recv(fd, reply + n, sizeof reply - 1 - n, MSG_DONTWAIT);
        if (got > 0)
            n += (size_t)got;
        else if (got < 0)
            loop_turn(loop, true);
    }
    assert_string_equal(reply, "ok\n<1>\nend\n\nok\n<2>\nend\n\n");
    close(fd);
    admin_free(admin);
    loop_free(loop);
}

static void test_address(void **state _unused_)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct loop *loop;
    struct admin *admin, *second;
    struct error error = {0};
    char *text = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(admin_call(path, "help", 100, &text, &error), -ENOENT);
    assert_non_null(strstr(error.text, "nobody answers there"));
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);                      /* a socket file left by a process that died */
    assert_int_equal(admin_call(path, "help", 100, &text, &error), -ECONNREFUSED);
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(admin_new(loop, path, commands, NULL, &admin, &error), 0);
    assert_int_equal(admin_new(loop, path, commands, NULL, &second, &error), -EADDRINUSE);
    assert_int_equal(admin_call(path, "help", 20, &text, &error), -ETIMEDOUT);      /* the loop does not turn */
    assert_null(text);
    admin_free(admin);
    loop_free(loop);
}

static int connect_from_here(int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

/* What lies at the path and is no socket is not ours to remove; a path too long for a socket is said. */
static void test_other_files(void **state _unused_)
{
    char text[] = "mine", deep[128];
    struct error error = {0};
    struct loop *loop;
    struct admin *admin;
    struct stat st;
    mode_t mask = umask(022);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    close(fd);
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(admin_new(loop, path, commands, NULL, &admin, &error), -EADDRINUSE);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, sizeof text);
    unlink(path);
    memset(deep, 'd', sizeof deep);
    deep[108] = 0;
    assert_int_equal(admin_new(loop, deep, commands, NULL, &admin, &error), -ENAMETOOLONG);
    assert_non_null(strstr(error.text, "108 bytes; a socket's path has at most 107"));
    assert_int_equal(admin_new(loop, path, commands, NULL, &admin, &error), 0);
    assert_int_equal(umask(mask), 022);
    admin_free(admin);
    loop_free(loop);
}

static void on_alarm(int signal) { (void)signal; }

/* A daemon that hangs, and so many that wait for it that no connection is taken any more: who asks now is told in time, too, however
 * often waiting is interrupted. */
static void test_hangs(void **state _unused_)
{
    struct loop *loop;
    struct admin *admin, *second;
    struct error error = {0};
    int fds[64], n = 0;
    char *text = NULL;
    const struct sigaction action = {.sa_handler = on_alarm};          /* no SA_RESTART */
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGVTALRM};
    const struct itimerspec every = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    timer_t timer;

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(admin_new(loop, path, commands, NULL, &admin, &error), 0);
    while (n < 64 && (fds[n] = connect_from_here(SOCK_NONBLOCK)) >= 0)
        n++;
    assert_in_range(n, 1, 63);
    assert_int_equal(sigaction(SIGVTALRM, &action, NULL), 0);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &every, NULL), 0);
    alarm(60);                     /* instead of for ever */
    assert_int_equal(admin_call(path, "help", 20, &text, &error), -ETIMEDOUT);
    assert_int_equal(admin_new(loop, path, commands, NULL, &second, &error), -EADDRINUSE);
    alarm(0);
    timer_delete(timer);
    while (n > 0)
        close(fds[--n]);
    admin_free(admin);
    loop_free(loop);
}

/* Answers every 5 ms with the next byte of a text that does not end, until nobody listens. */
static void *drip(void *arg)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    int fd = accept(*(int *)arg, NULL, NULL);

    while (send(fd, "x", 1, MSG_NOSIGNAL) == 1)
        nanosleep(&pause, NULL);
    close(fd);
    return NULL;
}

/* The time is the whole answer's: who sends it in drops gets no more of it with each. */
static void test_drips(void **state _unused_)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct error error = {0};
    char *text = NULL;
    pthread_t thread;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, drip, &fd), 0);
    alarm(60);                     /* instead of for ever */
    assert_int_equal(admin_call(path, "help", 50, &text, &error), -ETIMEDOUT);
    alarm(0);
    pthread_join(thread, NULL);
    assert_null(text);
    close(fd);
    unlink(path);
}

/* At most ADMIN_MAX_CLIENTS at once; one that leaves makes room, whichever. */
static void test_clients(void **state _unused_)
{
    struct called c = {.path = path, .command = "echo 1"};
    int fds[ADMIN_MAX_CLIENTS];
    struct admin *admin;

    assert_int_equal(loop_new(&c.loop), 0);
    assert_int_equal(admin_new(c.loop, path, commands, NULL, &admin, NULL), 0);
    for (int i = 0; i < ADMIN_MAX_CLIENTS; i++) {
        char reply[16];

        fds[i] = connect_from_here(0);
        assert_int_equal(send(fds[i], "echo 2\n", 7, 0), 7);
        while (recv(fds[i], reply, sizeof reply, MSG_DONTWAIT) < 0)
            loop_turn(c.loop, true);
    }
    call_from_thread(&c);
    assert_true(c.result == -EPIPE || c.result == -ECONNRESET);
    for (int i = 0; i < 3; i++) {           /* in the middle, the last, the first */
        close(fds[(const int[]) {7, ADMIN_MAX_CLIENTS - 1, 0}[i]]);
        do
            call_from_thread(&c);           /* until it has noticed */
        while (c.result == -EPIPE || c.result == -ECONNRESET);
        assert_int_equal(c.result, 0);
        assert_string_equal(c.text, "<1>\nend\n");
        free(TAKE_PTR(c.text));
        fds[(const int[]) {7, ADMIN_MAX_CLIENTS - 1, 0}[i]] = connect_from_here(0);
        loop_turn(c.loop, false);
    }
    admin_free(admin);
    loop_free(c.loop);
    for (int i = 0; i < ADMIN_MAX_CLIENTS; i++)
        close(fds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands), cmocka_unit_test(test_pipelined), cmocka_unit_test(test_address),
        cmocka_unit_test(test_other_files), cmocka_unit_test(test_hangs), cmocka_unit_test(test_drips),
        cmocka_unit_test(test_clients),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
