#include "wire/monitor.h"

#include <errno.h>
#include <unistd.h>
#include <zmq.h>

#include "wire/zsock.h"

struct monitor {
    void *watched;
    struct zsock *zsock;
    void (*on_event)(enum monitor_event event, void *arg);
    void *arg;
};

enum {
    EVENTS = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
             ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_CONNECTED,
};

/* Two frames: event (u16) and value (u32), then the endpoint. */
static void on_in(struct zsock *z, void *arg)
{
    struct monitor *monitor = arg;
    uint8_t what[6], endpoint[256];
    uint16_t event;

    if (TEMP_FAILURE_RETRY(zmq_recv(zsock_socket(z), what, sizeof what, ZMQ_DONTWAIT)) != sizeof what ||
        TEMP_FAILURE_RETRY(zmq_recv(zsock_socket(z), endpoint, sizeof endpoint, ZMQ_DONTWAIT)) < 0)
        return;
    memcpy(&event, what, sizeof event);
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
        monitor->on_event(MONITOR_CONNECTED, monitor->arg);
    else if (event == ZMQ_EVENT_CONNECTED)
        monitor->on_event(MONITOR_REACHED, monitor->arg);
    else if (event == ZMQ_EVENT_DISCONNECTED)
        monitor->on_event(MONITOR_DISCONNECTED, monitor->arg);
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        monitor->on_event(MONITOR_DENIED, monitor->arg);
    else
        monitor->on_event(MONITOR_BROKEN, monitor->arg);
}

int monitor_new(struct wire *wire, void *socket, void (*on_event)(enum monitor_event event, void *arg), void *arg,
                struct monitor **ret)
{
    static unsigned long made;          /* names must differ; the ZeroMQ context may be another thread's */
    struct monitor *monitor = malloc(sizeof *monitor);
    void *pair = zmq_socket(wire->zmq, ZMQ_PAIR);
    int linger = 0, r = -ENOMEM;
    char name[64];

    if (!monitor || !pair)
        goto fail;
    *monitor = (struct monitor) {.watched = socket, .on_event = on_event, .arg = arg};
    zmq_setsockopt(pair, ZMQ_LINGER, &linger, sizeof linger);
    snprintf(name, sizeof name, "inproc://monitor-%lu", __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED));
    r = zmq_socket_monitor(socket, name, EVENTS) || TEMP_FAILURE_RETRY(zmq_connect(pair, name))
            ? -errno
            : zsock_new(wire->loop, pair, on_in, NULL, monitor, &monitor->zsock);
    if (r < 0) {
        zmq_socket_monitor(socket, NULL, 0);
        goto fail;
    }
    *ret = monitor;
    return 0;

fail:
    if (pair)
        zmq_close(pair);
    free(monitor);
    return r;
}

struct monitor *monitor_free(struct monitor *monitor)
{
    if (!monitor)
        return NULL;
    zmq_socket_monitor(monitor->watched, NULL, 0);
    zsock_free(monitor->zsock);
    free(monitor);
    return NULL;
}
