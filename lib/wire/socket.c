#include "wire/socket.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "wire/address.h"
#include "wire/security.h"

enum { CONNECT_MS = 2000, UNACKED_MS = 4000 };

struct option {
    int name, value;
};

static int set_options(void *socket, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (zmq_setsockopt(socket, options[i].name, &options[i].value, sizeof options[i].value))
            return -errno;
    return 0;
}

static int set_common(void *socket, bool tcp, uint32_t frame_max, uint32_t handshake_ms)
{
    const int64_t max = frame_max;
    const struct option common[] = {
        {ZMQ_LINGER, WIRE_LINGER_MS},
        {ZMQ_RECONNECT_IVL, 50}, {ZMQ_RECONNECT_IVL_MAX, 1000},     /* ms */
    };
    const struct option over_tcp[] = {      /* a cable that was pulled says nothing: let ZeroMQ notice and reconnect */
        {ZMQ_HEARTBEAT_IVL, 2 * WIRE_HEARTBEAT_MS}, {ZMQ_HEARTBEAT_TIMEOUT, WIRE_SILENT_MS}, {ZMQ_HEARTBEAT_TTL, WIRE_SILENT_MS},
        /* TCP tries again after .2, .6, 1.4, 3, 6.2, 12.6 s: whoever waits for the next one after healing waits as long as the
         * cut was */
        {ZMQ_TCP_MAXRT, UNACKED_MS},
        /* a connection begun while the cable was cut must not wait for TCP's next SYN (up to 32 s), nor a handshake for libzmq's
         * 30 s */
        {ZMQ_CONNECT_TIMEOUT, CONNECT_MS}, {ZMQ_HANDSHAKE_IVL, (int)handshake_ms},
        {ZMQ_IPV6, 1},
    };
    int r;

    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof max))
        return -errno;
    r = set_options(socket, common, ARRAY_SIZE(common));
    if (r == 0 && tcp)
        r = set_options(socket, over_tcp, ARRAY_SIZE(over_tcp));
    return r;
}

/* libzmq unlinks an ipc path before it binds, also under a living server: look first. */
static bool ipc_in_use(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    return fd >= 0 && (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EAGAIN);     /* EAGAIN: many wait there */
}

static int bind_failed(const char *address, int errnum, struct error *error)
{
    switch (errnum) {
    case EADDRINUSE:
        return error_set(error, EADDRINUSE, "%s is in use: another gantry serves there, or choose another port", address);
    case ENODEV:
    case EADDRNOTAVAIL:
        return error_set(error, EADDRNOTAVAIL, "%s is not an address of this host", address);
    default:
        return error_set(error, errnum, "cannot listen on %s: %s", address, zmq_strerror(errnum));
    }
}

static int configure_router(struct wire *wire, void *socket, bool tcp, unsigned credits, uint32_t frame_max)
{
    const struct option router[] = {
        {ZMQ_ROUTER_MANDATORY, 1},
        {ZMQ_BACKLOG, 1024},
        {ZMQ_RCVHWM, (int)credits + 16},        /* messages a peer may pile up before we read them */
    };
    int r;

    r = set_common(socket, tcp, frame_max, WIRE_HANDSHAKE_MOST_MS);
    if (r == 0)
        r = set_options(socket, router, ARRAY_SIZE(router));
    if (r == 0 && tcp)
        r = security_secure_server(wire->security, socket);
    return r;
}

int wire_socket_bind(struct wire *wire, const char *address, unsigned credits, uint32_t frame_max, void **ret_socket,
                     char *ret_address, struct error *error)
{
    bool tcp = !address_is_ipc(address);
    char number[ADDRESS_MAX];
    size_t n = ADDRESS_MAX;
    void *socket;
    int r;

    if (tcp && !wire->security)
        return error_set(error, EACCES, "%s: tcp needs a key: give --key FILE (`gantry keys add` makes one), or listen on ipc://",
                         address);
    address_resolve(address, number);
    if (!tcp && ipc_in_use(address + strlen("ipc://")))
        return bind_failed(address, EADDRINUSE, error);
    socket = zmq_socket(wire->zmq, ZMQ_ROUTER);
    if (!socket)
        return error_set(error, errno, "no socket: %s", zmq_strerror(errno));
    r = configure_router(wire, socket, tcp, credits, frame_max);
    if (r < 0) {
        error_set(error, -r, "%s: socket options: %s", address, zmq_strerror(-r));
    } else if (TEMP_FAILURE_RETRY(zmq_bind(socket, number)) || zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, ret_address, &n)) {
        r = bind_failed(address, errno, error);
    } else {
        address_advertised(ret_address, ret_address);
        *ret_socket = socket;
        return 0;
    }
    zmq_close(socket);
    return r;
}

int wire_socket_try(const char *address, struct error *error)
{
    void *context = zmq_ctx_new(), *socket = context ? zmq_socket(context, ZMQ_ROUTER) : NULL;
    char number[ADDRESS_MAX];
    int v6 = 1, r = 0;

    if (!socket)
        r = error_set(error, errno, "no socket: %s", zmq_strerror(errno));
    address_resolve(address, number);
    if (r == 0 && (zmq_setsockopt(socket, ZMQ_IPV6, &v6, sizeof v6) || TEMP_FAILURE_RETRY(zmq_bind(socket, number))))
        r = bind_failed(address, errno, error);
    if (socket)
        zmq_close(socket);
    if (context)
        zmq_ctx_term(context);
    return r;
}

int wire_socket_connect(struct wire *wire, const char *address, const char *server_key, uint32_t handshake_ms, void **ret_socket,
                        struct error *error)
{
    static const struct option dealer[] = {{ZMQ_IMMEDIATE, 1}};     /* queue for living connections only */
    bool tcp = !address_is_ipc(address);
    void *socket;
    int r;

    if (tcp && (!wire->security || !server_key || !*server_key))
        return error_set(error, EACCES, "%s: tcp needs a key: give --key FILE (gantry keys add), with coordinator.pub beside it",
                         address);
    socket = zmq_socket(wire->zmq, ZMQ_DEALER);
    if (!socket)
        return error_set(error, errno, "no socket: %s", zmq_strerror(errno));
    r = set_common(socket, tcp, WIRE_FRAME_MAX, handshake_ms);
    if (r == 0)
        r = set_options(socket, dealer, ARRAY_SIZE(dealer));
    if (r == 0 && tcp)
        r = security_secure_client(wire->security, socket, server_key);
    if (r < 0) {
        error_set(error, -r, "%s: socket options: %s", address, zmq_strerror(-r));
        zmq_close(socket);
        return r;
    }
    *ret_socket = socket;
    return 0;
}
