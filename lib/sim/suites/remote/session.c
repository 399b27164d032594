#include "sim/suites/remote/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"

enum { CHILD_FD = 3, DESCRIBE_SECONDS = 120, GOODBYE_MS = 2000, DIAL_AGAIN_MS = 200 };

/* ---- the process --------------------------------------------------------------------------------------------- */

/* Between fork and exec of a process with threads: nothing that takes a lock. */
static void become(const char *command, int fd, pid_t parent)
{
    int nothing = open("/dev/null", O_RDONLY);

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126);                     /* it has gone already */
    (void)setpgid(0, 0);
    for (int signal = 1; signal < 32; signal++)         /* a daemon's own handling is not its child's */
        (void)sigaction(signal, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
    (void)sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
    /* dup2 onto itself would leave close-on-exec set */
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
        (fd == CHILD_FD ? fcntl(fd, F_SETFD, 0) : dup2(fd, CHILD_FD)) < 0)
        _exit(126);
    execl("/usr/bin/env", "env", "GANTRY_SIM_FD=3", "/bin/sh", "-c", command, (char *)NULL);
    _exit(127);
}

static int start(const char *command, struct session *session, struct error *error)
{
    pid_t child, parent = getpid();
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set(error, errno, "socketpair: %s", strerror(errno));
    child = fork();
    if (child == 0)
        become(command, ends[1], parent);
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return error_set(error, errno, "fork: %s", strerror(errno));
    }
    (void)setpgid(child, child);        /* whoever comes first */
    session->child = child;
    session->fd = ends[0];
    return 0;
}

/* -errno of a connection that is not made; nobody listens: -ECONNREFUSED, -ENOENT. */
static int connect_to(const struct sockaddr_un *address, int *ret_fd)
{
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fault_point("remote.dial") == FAULT_DROP)
        return -ECONNREFUSED;
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int dial(const char *path, unsigned patience, struct session *session, struct error *error)
{
    uint64_t until = clock_mono_ns() + patience * 1000000000ULL;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int r;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(error, ENAMETOOLONG, "a socket's path may have %zu bytes", sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));
    while ((r = connect_to(&address, &session->fd)) < 0) {
        if ((r != -ECONNREFUSED && r != -ENOENT) || clock_mono_ns() >= until)
            return error_set(error, -r, "%s: does somebody listen there?", strerror(-r));
        (void)nanosleep(&(struct timespec){ .tv_nsec = DIAL_AGAIN_MS * 1000000L }, NULL);
    }
    return 0;
}

/* Its status, when the process ends within a second: the stream ends a moment before it. -1: it goes on. */
static int take_end(struct session *session)
{
    struct pollfd process = { .fd = (int)syscall(SYS_pidfd_open, session->child, 0), .events = POLLIN };
    int status = -1;

    if (process.fd < 0)
        return -1;
    while (poll(&process, 1, 1000) < 0 && errno == EINTR)
        ;
    close(process.fd);
    if (waitpid(session->child, &status, WNOHANG) != session->child)
        return -1;
    (void)kill(-session->child, SIGKILL);       /* whom it has started */
    session->child = 0;
    return status;
}

static void bury(struct session *session)
{
    close(session->fd);
    session->fd = -1;
    if (!session->child)
        return;
    (void)kill(-session->child, SIGKILL);       /* and whom it has started */
    while (waitpid(session->child, NULL, 0) < 0 && errno == EINTR)
        ;
    session->child = 0;
}

/* ---- questions ------------------------------------------------------------------------------------------------ */

int session_open(const char *where, unsigned patience, struct session **ret, struct error *error)
{
    struct session *session = calloc(1, sizeof(*session));
    int r;

    if (!session)
        return error_set(error, ENOMEM, "out of memory");
    *session = (struct session){ .fd = -1, .owner = getpid() };
    r = strncmp(where, "unix:", 5) == 0 ? dial(where + 5, patience, session, error) : start(where, session, error);
    if (r < 0) {
        free(session);
        return r;
    }
    *ret = session;
    return 0;
}

struct session *session_close(struct session *session)
{
    static const char goodbye[] = "{\"op\":\"close\"}";

    if (!session)
        return NULL;
    if (session_is_alive(session) && session_is_ours(session)) {
        uint64_t until = clock_mono_ns() + GOODBYE_MS * 1000000ULL;

        (void)frame_send(session->fd, goodbye, sizeof(goodbye) - 1, NULL, 0, until, NULL);
        (void)shutdown(session->fd, SHUT_WR);
        /* its end of the stream closes when it ends: what it still says is of no interest */
        while (session->child && frame_receive(session->fd, &session->answer, FRAME_BODY_MAX, until, NULL) == 0)
            ;
        bury(session);
    } else if (session_is_alive(session)) {
        close(session->fd);
    }
    frame_release(&session->answer);
    free(session);
    return NULL;
}

bool session_is_alive(const struct session *session) { return session->fd >= 0; }

bool session_is_ours(const struct session *session) { return session->owner == getpid(); }

int session_give_up(struct session *session, int r)
{
    if (session_is_alive(session))
        bury(session);
    return r;
}

/* The stream failed: say of what, with the process's own end where that is the reason. */
static int fail(struct session *session, int r, unsigned seconds, struct error *error)
{
    if (r == -ETIMEDOUT)
        error_set(error, ETIMEDOUT, "no answer within %u s", seconds);
    if (r == -EPIPE && session->child) {
        int status = take_end(session);

        if (status >= 0 && WIFSIGNALED(status))
            error_set(error, EPIPE, "its process was ended by signal %d", WTERMSIG(status));
        else if (status >= 0)
            error_set(error, EPIPE, "its process ended with status %d%s; what it said stands above", WEXITSTATUS(status),
                      WEXITSTATUS(status) == 127 ? " (there is no such command)" : "");
    }
    return session_give_up(session, r);
}

int session_ask(struct session *session, const char *head, size_t head_n, const void *body, size_t body_n, unsigned seconds,
                size_t body_max, struct error *error)
{
    uint64_t deadline = clock_mono_ns() + seconds * 1000000000ULL;
    char byte;
    int r;

    if (!session_is_alive(session))
        return error_set(error, EPIPE, "its connection has ended");
    if (recv(session->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)       /* it would be taken for this question's answer */
        return session_give_up(session, error_set(error, EPROTO, "it has said more than it was asked"));
    r = frame_send(session->fd, head, head_n, body, body_n, deadline, error);
    if (r == 0)
        r = frame_receive(session->fd, &session->answer, body_max, deadline, error);
    return r < 0 ? fail(session, r, seconds, error) : 0;
}

int session_describe(struct session *session, struct remote_description *ret, struct error *error)
{
    static const char request[] = "{\"op\":\"describe\",\"protocol\":1}";
    int r = session_ask(session, request, sizeof(request) - 1, NULL, 0, DESCRIBE_SECONDS, 0, error);

    if (r < 0)
        return r;
    r = remote_read_description(session->answer.head, session->answer.head_n, ret, error);
    return r < 0 ? session_give_up(session, r) : 0;
}
