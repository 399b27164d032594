#include "wire/client_internal.h"

#include <errno.h>
#include <unistd.h>
#include <zmq.h>

#include "wire/socket.h"

enum {
    REOPEN_MS = 1000,                               /* our key was refused: it may be let in later */
    BROKEN_MOST = 3,                                /* handshakes that end without a reason, in a row */
    SOON_MS = 1500,                                 /* who has another key ends them at once; who is overloaded or far, later */
    GIVEN_UP_MS = 3000,                             /* libzmq would have tried again by then */
};

/* ---- time and connection ------------------------------------------------------------------------------ */

static void reopen(struct wire_client *client);

void client_wake_at(struct wire_client *client, uint64_t at_ms)
{
    uint64_t now_ms;

    if (client->closing || at_ms >= client->timer_ms)
        return;
    client->timer_ms = at_ms;
    now_ms = clock_mono_ms();
    uv_update_time(client->wire->loop);         /* libuv counts from its cached time */
    uv_timer_start(&client->timer, client_on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static bool is_late(const struct call *call, uint64_t now_ms)
{
    return call->deadline_ms <= now_ms;
}

/* Sent on a connection that is gone, and not to be sent again. */
static bool is_lost(const struct call *call, uint64_t now_ms)
{
    (void)now_ms;
    return call->sent && !call->waiting && call->repeat_ms == UINT64_MAX;
}

static void reschedule(struct wire_client *client, uint64_t now_ms)
{
    uint64_t at_ms = MIN(client->heard_ms, client->sent_ms) + WIRE_HEARTBEAT_MS;
    struct call *call, *next;

    if (at_ms <= now_ms)        /* heard nothing for long: pings go on at their pace */
        at_ms = MAX(client->sent_ms + WIRE_HEARTBEAT_MS, now_ms + 1);
    at_ms = MIN(at_ms, client->reopen_ms);
    HASH_ITER(hh, client->calls, call, next)
        at_ms = MIN(at_ms, MIN(call->deadline_ms, call->repeat_ms));
    client->timer_ms = UINT64_MAX;
    client_wake_at(client, at_ms);
}

void client_on_timer(uv_timer_t *timer)
{
    struct wire_client *client = timer->data;
    uint64_t now_ms = clock_mono_ms();
    struct call *call, *next;

    client_finish_all(client, -ETIMEDOUT, is_late, now_ms);
    if (client->closing)
        return;
    if (client->reopen_ms <= now_ms)
        reopen(client);
    HASH_ITER(hh, client->calls, call, next)
        if (call->repeat_ms <= now_ms) {
            call->repeat_ms = UINT64_MAX;
            client_set_waiting(client, call, true);
        }
    if (client->n_waiting)
        client_send_waiting(client);
    if (now_ms - client->heard_ms >= WIRE_SILENT_MS) {
        client_set_up(client, false);
        if (client->closing)
            return;
    }
    if (MIN(client->heard_ms, client->sent_ms) + WIRE_HEARTBEAT_MS <= now_ms && client->sent_ms + WIRE_HEARTBEAT_MS <= now_ms)
        client_ping(client);
    reschedule(client, now_ms);
}

static void reopen_at(struct wire_client *client, uint64_t at_ms)
{
    client->reopen_ms = at_ms;
    client_wake_at(client, at_ms);
}

/* A handshake was broken off because its time was up. A message of it that was lost in a cut is sent again by TCP after 3 s, then
 * 6 s: connecting anew is sooner. A server that has a thousand handshakes to do needs more time, and gets it. */
static void handshake_late(struct wire_client *client, uint64_t now_ms)
{
    client->broken = 0;
    if (client->handshake_ms < WIRE_HANDSHAKE_MOST_MS) {
        client->handshake_ms = MIN(2 * client->handshake_ms, (uint32_t)WIRE_HANDSHAKE_MOST_MS);
        reopen_at(client, now_ms);
    }
}

/* The connection that calls were sent on is gone. */
static void lose_connection(struct wire_client *client)
{
    struct call *call, *next;

    if (!client->connected)
        return;
    client->connected = false;
    client_finish_all(client, -ECONNRESET, is_lost, 0);
    if (client->closing)
        return;
    HASH_ITER(hh, client->calls, call, next)
        client_set_waiting(client, call, true);
    if (client->socket_handshake_ms != client->handshake_ms)        /* that was for the one that took long */
        reopen_at(client, clock_mono_ms());
    client_set_up(client, false);
}

/* What ZeroMQ says about the connection: when calls are sent. Whether the server lives is judged by our own pings. */
void client_on_connection(enum monitor_event event, void *arg)
{
    struct wire_client *client = arg;
    uint64_t now_ms = clock_mono_ms();

    switch (event) {
    case MONITOR_REACHED:
        client->reached_ms = now_ms;
        if (client->reopen_ms > now_ms)         /* libzmq has not given up */
            client->reopen_ms = UINT64_MAX;
        break;
    case MONITOR_CONNECTED:
        client->connected = true;
        client->broken = 0;
        client->handshake_ms = WIRE_HANDSHAKE_FIRST_MS;
        client_ping(client);                   /* its answer says that the server is up */
        client_send_waiting(client);
        client_want_out(client);
        break;
    case MONITOR_DISCONNECTED:
        if (!client->connected)         /* a handshake that went wrong: there are ways after which libzmq never tries again */
            reopen_at(client, MIN(client->reopen_ms, now_ms + GIVEN_UP_MS));
        lose_connection(client);
        break;
    case MONITOR_DENIED:
        reopen_at(client, now_ms + REOPEN_MS);
        client_finish_all(client, -EACCES, NULL, 0);
        break;
    case MONITOR_BROKEN:                /* once may be a server that died just then */
        if (now_ms - client->reached_ms >= SOON_MS)
            handshake_late(client, now_ms);
        else if (++client->broken % BROKEN_MOST == 0)
            client_finish_all(client, -EKEYREJECTED, NULL, 0);
        break;
    }
}

/* ---- life --------------------------------------------------------------------------------------------- */

static int connect_to(struct wire_client *client, const char *address, const char *server_key, struct error *error)
{
    void *socket = NULL;
    int r;

    r = address_check(address, error);
    if (r == 0)
        r = wire_socket_connect(client->wire, address, server_key, client->handshake_ms, &socket, error);
    if (r < 0)
        return r;
    r = monitor_new(client->wire, socket, client_on_connection, client, &client->monitor);
    if (r == 0)
        r = zsock_new(client->wire->loop, socket, client_on_in, client_on_out, client, &client->zsock);
    if (r < 0) {
        client->monitor = monitor_free(client->monitor);
        zmq_close(socket);
        return error_set(error, -r, "%s: %s", address, zmq_strerror(-r));
    }
    if (TEMP_FAILURE_RETRY(zmq_connect(socket, address))) {
        r = error_set(error, errno, "cannot connect to %s: %s", address, zmq_strerror(errno));
        client->monitor = monitor_free(client->monitor);
        client->zsock = zsock_free(client->zsock);
        return r;
    }
    if (address != client->address)
        snprintf(client->address, sizeof client->address, "%s", address);
    if (server_key != client->server_key)
        snprintf(client->server_key, sizeof client->server_key, "%s", server_key ? server_key : "");
    client->reopen_ms = UINT64_MAX;
    client->socket_handshake_ms = client->handshake_ms;
    return 0;
}

int wire_client_new(struct wire *wire, const struct wire_client_options *options, struct wire_client **ret, struct error *error)
{
    struct wire_client *client = calloc(1, sizeof *client);
    int r;

    if (!client)
        return -ENOMEM;
    client->wire = wire;
    client->options = *options;
    if (!client->options.credits)
        client->options.credits = WIRE_CREDITS;
    client->heard_ms = client->sent_ms = clock_mono_ms();
    client->budget = budget_full(client->sent_ms);
    client->timer_ms = client->reopen_ms = UINT64_MAX;
    client->handshake_ms = WIRE_HANDSHAKE_FIRST_MS;
    client->jitter = clock_mono_ns() ^ (uintptr_t)client;
    r = *options->address ? connect_to(client, options->address, options->server_key, error) : 0;
    if (r < 0) {
        free(client);
        return r;
    }
    client->options.address = client->address;      /* the caller's may go */
    client->options.server_key = NULL;
    uv_timer_init(wire->loop, &client->timer);
    client->timer.data = client;
    reschedule(client, client->sent_ms);
    *ret = client;
    return 0;
}

int wire_client_move(struct wire_client *client, const char *address, const char *server_key, struct error *error)
{
    struct zsock *old = client->zsock;
    struct monitor *old_monitor = client->monitor;
    int r;

    client->zsock = NULL;
    client->monitor = NULL;
    r = connect_to(client, address, server_key, error);
    if (r < 0) {
        client->zsock = old;
        client->monitor = old_monitor;
        return r;
    }
    monitor_free(old_monitor);
    zsock_free(old);
    lose_connection(client);
    return 0;
}

static void reopen(struct wire_client *client)
{
    if (wire_client_move(client, client->address, client->server_key, NULL) < 0)
        client->reopen_ms = clock_mono_ms() + REOPEN_MS;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct wire_client *wire_client_free(struct wire_client *client)
{
    if (!client || client->closing)
        return NULL;
    client->closing = true;
    client_finish_all(client, -ECANCELED, NULL, 0);
    client->monitor = monitor_free(client->monitor);
    client->zsock = zsock_free(client->zsock);
    uv_close((uv_handle_t *)&client->timer, on_closed);
    return NULL;
}

bool wire_client_up(const struct wire_client *client)
{
    return client->up;
}

unsigned wire_client_outstanding(const struct wire_client *client)
{
    return HASH_COUNT(client->calls);
}

const char *wire_client_address(const struct wire_client *client)
{
    return client->address;
}

const char *wire_client_why(const struct wire_client *client)
{
    return client->why.text;
}
