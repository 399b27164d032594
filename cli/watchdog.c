#include "cli/watchdog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/array.h"

enum { LOOKS = 4 };         /* in a row without a word; children speak as often as we look */

struct watched {
    int pid;
    bool speaks;            /* it has said READY=1, and not STOPPING=1 */
    unsigned silent;        /* looks since its last word */
};

struct watchdog {
    int fd;
    uv_poll_t *poll;
    struct loop_timer *timer;
    char address[sizeof(struct sockaddr_un)];   /* @NAME: of the abstract name space, chosen by the kernel */
    unsigned look_ms;
    watchdog_hung_fn *on_hung; void *arg;
    struct watched *items;
    size_t n, capacity;
};

static struct watched *find(struct watchdog *w, int pid)
{
    for (size_t i = 0; i < w->n; i++)
        if (w->items[i].pid == pid)
            return &w->items[i];
    return NULL;
}

static void hear(struct watchdog *w, int pid, const char *word)
{
    struct watched *child = find(w, pid);

    if (!child)
        return;
    child->silent = 0;
    if (!strcmp(word, "READY=1"))
        child->speaks = true;
    if (!strcmp(word, "STOPPING=1"))
        child->speaks = false;
}

static void on_readable(uv_poll_t *poll, int status _unused_, int events _unused_)
{
    struct watchdog *w = poll->data;
    union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(struct ucred))]; } control;
    char word[64];
    struct iovec iov = {.iov_base = word, .iov_len = sizeof word - 1};
    ssize_t n;

    for (;;) {
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct ucred sender;
        struct cmsghdr *c;

        n = recvmsg(w->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
            return;
        word[n] = '\0';
        c = CMSG_FIRSTHDR(&message);
        if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
            continue;
        memcpy(&sender, CMSG_DATA(c), sizeof sender);       /* the kernel's word for who it is */
        hear(w, sender.pid, word);
    }
}

static void look(void *arg)
{
    struct watchdog *w = arg;

    for (size_t i = 0; i < w->n; i++) {
        struct watched *child = &w->items[i];

        if (!child->speaks || ++child->silent <= LOOKS)
            continue;
        child->speaks = false;
        w->on_hung(child->pid, w->arg);
    }
}

static int listen_to(struct watchdog *w, struct loop *loop)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t size = sizeof address;
    const int on = 1;
    int r;

    w->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (w->fd < 0 || setsockopt(w->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        bind(w->fd, (struct sockaddr *)&address, sizeof address.sun_family) < 0 ||      /* no name: the kernel finds one */
        getsockname(w->fd, (struct sockaddr *)&address, &size) < 0)
        return -errno;
    snprintf(w->address, sizeof w->address, "@%.*s", (int)(size - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
    w->poll = malloc(sizeof *w->poll);
    if (!w->poll)
        return -ENOMEM;
    r = uv_poll_init(loop_uv(loop), w->poll, w->fd);
    if (r < 0) {
        free(w->poll);
        w->poll = NULL;
        return r;
    }
    w->poll->data = w;
    return uv_poll_start(w->poll, UV_READABLE, on_readable);
}

int watchdog_new(struct loop *loop, unsigned hung_ms, watchdog_hung_fn *on_hung, void *arg, struct watchdog **ret)
{
    _cleanup_(watchdog_freep) struct watchdog *w = calloc(1, sizeof *w);
    int r;

    if (!w)
        return -ENOMEM;
    *w = (struct watchdog) {.fd = -1, .look_ms = MAX(hung_ms / LOOKS, 1u), .on_hung = on_hung, .arg = arg};
    r = listen_to(w, loop);
    if (r == 0)
        r = loop_timer_new(loop, w->look_ms, w->look_ms, look, w, &w->timer);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(w);
    return 0;
}

static void free_poll(uv_handle_t *handle) { free(handle); }

struct watchdog *watchdog_free(struct watchdog *w)
{
    if (!w)
        return NULL;
    loop_timer_free(w->timer);
    if (w->poll) {
        uv_poll_stop(w->poll);
        uv_close((uv_handle_t *)w->poll, free_poll);
    }
    if (w->fd >= 0)
        close(w->fd);
    free(w->items);
    free(w);
    return NULL;
}

static bool is_of_ours(const char *variable)
{
    static const char *const names[] = {"NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID="};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strncmp(variable, names[i], strlen(names[i])))
            return true;
    return false;
}

char **watchdog_environment(const struct watchdog *w)
{
    enum { SOCKET = sizeof w->address + 16, USEC = 48 };
    size_t n = 0, kept = 0;
    char **list, *text;

    while (environ[n])
        n++;
    list = malloc((n + 3) * sizeof *list + SOCKET + USEC);
    if (!list)
        return NULL;
    text = (char *)(list + n + 3);
    for (size_t i = 0; i < n; i++)
        if (!is_of_ours(environ[i]))
            list[kept++] = environ[i];
    snprintf(text, SOCKET, "NOTIFY_SOCKET=%s", w->address);
    snprintf(text + SOCKET, USEC, "WATCHDOG_USEC=%llu", 2000ull * w->look_ms);      /* half of it is how often they speak */
    list[kept++] = text;
    list[kept++] = text + SOCKET;
    list[kept] = NULL;
    return list;
}

int watchdog_add(struct watchdog *w, int pid)
{
    if (array_room(&w->items, w->n, &w->capacity, sizeof *w->items) < 0)
        return -ENOMEM;
    w->items[w->n++] = (struct watched) {.pid = pid};
    return 0;
}

void watchdog_remove(struct watchdog *w, int pid)
{
    struct watched *child = find(w, pid);

    if (child)
        *child = w->items[--w->n];
}
