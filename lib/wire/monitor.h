/* monitor.h - what happens to a DEALER's connection, as libzmq tells it. Internal to client.c. */
#pragma once

#include "wire/wire.h"

enum monitor_event {
    MONITOR_CONNECTED,          /* connection and handshake are done */
    MONITOR_DISCONNECTED,
    MONITOR_DENIED,             /* the server's ZAP handler refused our key */
};

struct monitor;

/* Before zmq_connect, so that nothing is missed. */
int monitor_new(struct wire *wire, void *socket, void (*on_event)(enum monitor_event event, void *arg), void *arg,
                struct monitor **ret);
struct monitor *monitor_free(struct monitor *monitor);      /* before the socket is closed */
