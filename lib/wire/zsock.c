#include "wire/zsock.h"

#include <errno.h>
#include <unistd.h>
#include <zmq.h>

enum { HANDLES = 4 };

struct zsock {
    void *socket;
    zsock_fn *on_in, *on_out;
    void *arg;
    uv_poll_t poll;         /* wakes the loop, nothing else */
    uv_prepare_t prepare;   /* just before the loop sleeps: is there work left? */
    uv_check_t check;       /* just after it woke: do some of it */
    uv_idle_t idle;         /* runs while work is left, so that the loop does not sleep */
    bool want_out, closing;
    bool touched;           /* since the socket last said that there is nothing to do: used by somebody, or its fd woke us */
    int open_handles;
};

/* What can be done now; 0 also when the context is being shut down. ZeroMQ stops with EINTR when a signal comes, or the kernel's
 * io_uring interrupts: who took that for "nothing to do" would sleep on what is there. */
static int events_of(void *socket)
{
    int events = 0;
    size_t n = sizeof events;

    return TEMP_FAILURE_RETRY(zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n)) ? 0 : events;
}

/* Asking costs a system call or two, and a loop has many sockets of which one is busy: one that nobody has used, and whose fd has
 * not become readable, says again what it said before. */
static int wanted_events(struct zsock *z)
{
    int events = z->touched ? events_of(z->socket) & (ZMQ_POLLIN | (z->want_out ? ZMQ_POLLOUT : 0)) : 0;

    z->touched = events != 0;
    return events;
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct zsock *z = handle->data;

    (void)status;
    (void)events;
    z->touched = true;
}

static void on_idle(uv_idle_t *handle)
{
    (void)handle;
}

static void on_prepare(uv_prepare_t *handle)
{
    struct zsock *z = handle->data;

    if (wanted_events(z))
        uv_idle_start(&z->idle, on_idle);
    else
        uv_idle_stop(&z->idle);
}

static void on_check(uv_check_t *handle)
{
    struct zsock *z = handle->data;

    for (int i = 0; i < ZSOCK_BUDGET && !z->closing; i++) {
        int events = wanted_events(z);

        if (!events)
            break;
        if (events & ZMQ_POLLIN)
            z->on_in(z, z->arg);
        if ((events & ZMQ_POLLOUT) && z->want_out && !z->closing)
            z->on_out(z, z->arg);
    }
}

static void on_close(uv_handle_t *handle)
{
    struct zsock *z = handle->data;

    if (--z->open_handles == 0)
        free(z);
}

static void close_handles(struct zsock *z)
{
    uv_handle_t *handles[HANDLES] = {
        (uv_handle_t *)&z->poll, (uv_handle_t *)&z->prepare, (uv_handle_t *)&z->check, (uv_handle_t *)&z->idle,
    };

    z->closing = true;
    z->open_handles = HANDLES;
    for (int i = 0; i < HANDLES; i++)
        uv_close(handles[i], on_close);
}

int zsock_new(uv_loop_t *loop, void *socket, zsock_fn *on_in, zsock_fn *on_out, void *arg, struct zsock **ret)
{
    struct zsock *z;
    size_t n = sizeof(int);
    int fd, r;

    if (zmq_getsockopt(socket, ZMQ_FD, &fd, &n))
        return -errno;
    z = calloc(1, sizeof *z);
    if (!z)
        return -ENOMEM;
    *z = (struct zsock) {.socket = socket, .on_in = on_in, .on_out = on_out, .arg = arg, .touched = true};
    r = uv_poll_init(loop, &z->poll, fd);
    if (r < 0) {
        free(z);
        return r;
    }
    uv_prepare_init(loop, &z->prepare);
    uv_check_init(loop, &z->check);
    uv_idle_init(loop, &z->idle);
    z->poll.data = z->prepare.data = z->check.data = z->idle.data = z;

    /* Level-triggered polling does not spin: asking for ZMQ_EVENTS empties the fd. */
    r = uv_poll_start(&z->poll, UV_READABLE, on_poll);
    if (r < 0) {
        close_handles(z);
        return r;
    }
    uv_prepare_start(&z->prepare, on_prepare);
    uv_check_start(&z->check, on_check);
    *ret = z;
    return 0;
}

struct zsock *zsock_free(struct zsock *z)
{
    if (!z || z->closing)
        return NULL;
    close_handles(z);       /* first: the fd belongs to libzmq and goes with the socket */
    zmq_close(z->socket);
    z->socket = NULL;
    return NULL;
}

void *zsock_socket(struct zsock *z)
{
    z->touched = true;
    return z->socket;
}

void zsock_want_out(struct zsock *z, bool want)
{
    z->want_out = want && z->on_out;
    z->touched = true;
}
