#include "sim/suites/remote/frame.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"

static int gone(struct error *error)
{
    return error_set(error, EPIPE, "the other side has ended the connection");
}

/* Until there is something to read, or room to write. */
static int wait_for(int fd, short events, uint64_t deadline, struct error *error)
{
    struct pollfd pollfd = { .fd = fd, .events = events };

    for (;;) {
        uint64_t now = clock_mono_ns();
        uint64_t left = deadline > now ? (deadline - now + 999999) / 1000000 : 0;
        int n = poll(&pollfd, 1, left > 3600000 ? 3600000 : (int)left);

        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return error_set(error, errno, "poll: %s", strerror(errno));
        if (n == 0 && clock_mono_ns() >= deadline)
            return error_set(error, ETIMEDOUT, "no answer in time");
    }
}

/* All of `parts`, which it uses up. */
static int send_all(int fd, struct iovec *parts, size_t n, uint64_t deadline, struct error *error)
{
    while (n > 0) {
        struct msghdr message = { .msg_iov = parts, .msg_iovlen = n };
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EAGAIN) {
            int r = wait_for(fd, POLLOUT, deadline, error);

            if (r < 0)
                return r;
            continue;
        }
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EPIPE || errno == ECONNRESET ? gone(error) : error_set(error, errno, "send: %s", strerror(errno));
        for (; n > 0 && (size_t)sent >= parts->iov_len; parts++, n--)
            sent -= (ssize_t)parts->iov_len;
        if (n > 0) {
            parts->iov_base = (char *)parts->iov_base + sent;
            parts->iov_len -= (size_t)sent;
        }
    }
    return 0;
}

int frame_send(int fd, const char *head, size_t head_n, const void *body, size_t body_n, uint64_t deadline, struct error *error)
{
    uint32_t sizes[2] = { htole32((uint32_t)head_n), htole32((uint32_t)body_n) };
    struct iovec parts[3] = { { sizes, sizeof(sizes) },
                              { (void *)(uintptr_t)head, head_n },
                              { (void *)(uintptr_t)body, body_n } };

    if (head_n > FRAME_HEAD_MAX || body_n > FRAME_BODY_MAX)
        return error_set(error, EPROTO, "a frame of %zu and %zu bytes; at most %d and %d", head_n, body_n, FRAME_HEAD_MAX,
                         FRAME_BODY_MAX);
    return send_all(fd, parts, body_n ? 3 : 2, deadline, error);
}

static int receive_all(int fd, void *bytes, size_t n, uint64_t deadline, struct error *error)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = recv(fd, (char *)bytes + done, n - done, MSG_DONTWAIT);

        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0 || errno == ECONNRESET) {
            return gone(error);
        } else if (errno == EAGAIN) {
            int r = wait_for(fd, POLLIN, deadline, error);

            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            return error_set(error, errno, "receive: %s", strerror(errno));
        }
    }
    return 0;
}

static int make_room(void *place, size_t *room, size_t n)
{
    void **bytes = place;
    void *grown;

    if (*room >= n)
        return 0;
    grown = realloc(*bytes, n);
    if (!grown)
        return -ENOMEM;
    *bytes = grown;
    *room = n;
    return 0;
}

int frame_receive(int fd, struct frame *frame, size_t body_max, uint64_t deadline, struct error *error)
{
    uint32_t sizes[2];
    size_t head_n, body_n;
    int r = receive_all(fd, sizes, sizeof(sizes), deadline, error);

    if (r < 0)
        return r;
    head_n = le32toh(sizes[0]);
    body_n = le32toh(sizes[1]);
    if (head_n > FRAME_HEAD_MAX || body_n > body_max)
        return error_set(error, EPROTO, "a frame that begins with lengths of %zu and %zu bytes; at most %d and %zu", head_n,
                         body_n, FRAME_HEAD_MAX, body_max);
    if (make_room(&frame->head, &frame->head_room, head_n + 1) < 0 || make_room(&frame->body, &frame->body_room, body_n) < 0)
        return error_set(error, ENOMEM, "out of memory for a frame of %zu bytes", head_n + body_n);
    r = receive_all(fd, frame->head, head_n, deadline, error);
    if (r == 0)
        r = receive_all(fd, frame->body, body_n, deadline, error);
    if (r < 0)
        return r;
    frame->head[head_n] = '\0';
    frame->head_n = head_n;
    frame->body_n = body_n;
    return 0;
}

void frame_release(struct frame *frame)
{
    free(frame->head);
    free(frame->body);
    *frame = (struct frame) {0};
}
