/* monitor.h - what happens to a DEALER's connection, as libzmq tells it. Internal to client.c. */
#pragma once

#include "wire/wire.h"

enum monitor_event {
    MONITOR_REACHED,            /* the connection stands, the handshake begins */
    MONITOR_CONNECTED,          /* connection and handshake are done */
    MONITOR_DISCONNECTED,       /* also in the handshake, after DENIED or BROKEN, or alone: who speaks otherwise is given up */
    MONITOR_DENIED,             /* the server's ZAP handler refused our key; libzmq does not try again by itself */
    MONITOR_BROKEN,             /* the handshake ended without a reason: most likely the server has another key than we think */
};

struct monitor;

/* Before zmq_connect, so that nothing is missed. */
int monitor_new(struct wire *wire, void *socket, void (*on_event)(enum monitor_event event, void *arg), void *arg,
                struct monitor **ret);
struct monitor *monitor_free(struct monitor *monitor);      /* before the socket is closed */
