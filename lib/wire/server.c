#include "wire/server.h"

#include <errno.h>
#include <stdarg.h>
#include <utlist.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fault.h"
#include "wire/address.h"
#include "wire/peer.h"
#include "wire/security.h"
#include "wire/socket.h"
#include "wire/zsock.h"

/* A request without an answer: the public part, and how to find the way back. */
struct held {
    struct request request;
    struct peer *peer;              /* NULL: gone silent, or the server is freed; or a one-way message */
    struct held *peer_prev, *peer_next;         /* of the same peer */
    struct held *server_prev, *server_next;     /* of the same server */
    bool in_callback, taken, ended;
    uint8_t id[WIRE_PEER_ID_MAX];   /* routing id */
    size_t id_size;
    char user[WIRE_USER_MAX];
};

struct wire_server {
    struct wire *wire;
    struct zsock *zsock;
    uv_timer_t sweep;               /* looks for silent peers; its close callback frees the server */
    struct wire_server_options options;
    struct peer_table peers;
    struct held *held;              /* all requests without an answer, and one-way messages taken */
    struct wire_server_stats stats;
    char address[ADDRESS_MAX];
    bool closing;
};

/* ---- answering ---------------------------------------------------------------------------------------- */

static void leave_peer(struct held *held)
{
    if (!held->peer)
        return;
    DL_DELETE2(held->peer->held, held, peer_prev, peer_next);
    held->peer->outstanding--;
    held->request.server->stats.outstanding--;
    held->peer = NULL;
}

static void leave_server(struct held *held)
{
    leave_peer(held);
    if (held->request.server)
        DL_DELETE2(held->request.server->held, held, server_prev, server_next);
    held->request.server = NULL;
}

static void end_held(struct held *held)
{
    leave_server(held);
    held->ended = true;
    if (held->in_callback)
        return;             /* hand_over looks at it once more, then frees it */
    message_free(held->request.message);
    free(held);
}

static struct envelope reply_envelope(const struct wire *wire, const struct envelope *to)
{
    return (struct envelope) {
        .protocol = WIRE_PROTOCOL, .kind = to->kind + 1, .request = to->request,
        .epoch = wire->epoch, .run = wire->run, .version = to->version,
    };
}

static int send_reply(struct wire_server *server, const void *id, size_t id_size, const struct envelope *envelope,
                      const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts)
{
    _cleanup_(outgoing_freep) struct outgoing *out = NULL;
    int r;

    r = outgoing_new(envelope, body, parts, n_parts, &out);
    if (r < 0)
        return r;
    if (fault_point("wire.reply") == FAULT_DROP || wire_loses(envelope->kind, "send"))
        return 0;
    return outgoing_send(out, zsock_socket(server->zsock), id, id_size);
}

static int send_refusal(struct wire_server *server, const void *id, size_t id_size, const struct envelope *to, uint32_t status,
                        const char *text)
{
    struct envelope envelope = reply_envelope(server->wire, to);

    envelope.kind = WIRE_KIND(ERROR);
    envelope.status = status;
    snprintf(envelope.error, sizeof envelope.error, "%s", text);
    server->stats.refused++;
    return send_reply(server, id, id_size, &envelope, NULL, NULL, 0);
}

int wire_reply_and_keep(struct request *request, const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts)
{
    struct held *held = (struct held *)request;
    struct wire_server *server = request->server;
    struct envelope envelope;
    int r;

    if (!server || request_is_one_way(request)) {
        for (unsigned i = 0; i < n_parts; i++)
            if (parts[i].release)
                parts[i].release(parts[i].arg);
        leave_server(held);
        return server ? 0 : -EHOSTUNREACH;
    }
    envelope = reply_envelope(server->wire, &request->message->envelope);
    r = send_reply(server, held->id, held->id_size, &envelope, body, parts, n_parts);
    if (r == -EMSGSIZE)
        (void)send_refusal(server, held->id, held->id_size, &request->message->envelope, WIRE_STATUS(INTERNAL),
                           "the reply is larger than its kind allows");
    leave_server(held);
    return r;
}

int wire_reply(struct request *request, const ProtobufCMessage *body, const struct wire_part *parts, unsigned n_parts)
{
    int r = wire_reply_and_keep(request, body, parts, n_parts);

    end_held((struct held *)request);
    return r;
}

int wire_refuse(struct request *request, Gantry__Status status, const char *format, ...)
{
    struct held *held = (struct held *)request;
    char text[WIRE_ERROR_MAX];
    int r = -EHOSTUNREACH;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (request_is_one_way(request))
        r = 0;
    else if (request->server)
        r = send_refusal(request->server, held->id, held->id_size, &request->message->envelope, status, text);
    end_held(held);
    return r;
}

void request_drop(struct request *request)
{
    end_held((struct held *)request);
}

struct request *request_take(struct request *request)
{
    ((struct held *)request)->taken = true;
    return request;
}

bool request_is_one_way(const struct request *request)
{
    return request->message->envelope.request == 0;
}

/* ---- admission ---------------------------------------------------------------------------------------- */

/* May this sender say this, here and now? STATUS_OK or why not. */
static uint32_t check_sender(struct wire_server *server, const struct wire_origin *origin, Gantry__Role *ret_role,
                             struct error *error)
{
    const struct envelope *e = &origin->envelope;
    const struct wire_kind *kind = wire_kind(e->kind);
    const struct wire *wire = server->wire;

    *ret_role = GANTRY__ROLE__ROLE_NONE;
    if (!address_is_ipc(server->address)) {
        if (security_role_of(wire->security, origin->user, ret_role) < 0) {
            error_set(error, EACCES, "this key is not let in (any more): ask who runs the coordinator for `gantry keys add`");
            return WIRE_STATUS(DENIED);
        }
        if (!(kind->senders & 1u << *ret_role)) {
            error_set(error, EACCES, "a key of role %s may not send %s", wire_role_name(*ret_role), kind->name);
            return WIRE_STATUS(DENIED);
        }
    }
    if (e->run && wire->run && e->run != wire->run) {
        error_set(error, EACCES, "this is run %016lx, the message is of run %016lx", (unsigned long)wire->run,
                  (unsigned long)e->run);
        return WIRE_STATUS(DENIED);
    }
    if (e->epoch < wire->epoch && !kind->before_welcome) {
        error_set(error, ESRCH, "epoch %lu is over, this is %lu: say Hello to the coordinator again", (unsigned long)e->epoch,
                  (unsigned long)wire->epoch);
        return WIRE_STATUS(STALE_EPOCH);
    }
    return WIRE_STATUS(OK);
}

static bool is_repeated(const struct peer *peer, uint64_t request)
{
    for (const struct held *held = peer->held; held; held = held->peer_next)
        if (held->request.message->envelope.request == request)
            return true;
    return false;
}

/* The callback may free the server, and the peer with it. */
static struct peer *peer_of(struct wire_server *server, const struct wire_origin *origin, uint64_t now_ms)
{
    struct peer *peer = peer_find(&server->peers, origin->peer, origin->peer_size);
    bool comes = !peer;

    if (comes)
        peer = peer_add(&server->peers, origin->peer, origin->peer_size);
    if (!peer)
        return NULL;
    peer->heard_ms = now_ms;
    server->stats.peers = server->peers.n;
    if (comes && server->options.on_peer)
        server->options.on_peer(peer->number, true, server->options.arg);
    return peer;
}

static void hand_over(struct wire_server *server, struct peer *peer, const struct wire_origin *origin, Gantry__Role role,
                      struct message *message, uint64_t now_ms)
{
    struct held *held = calloc(1, sizeof *held);
    const struct envelope *e = &message->envelope;

    if (!held) {
        (void)send_refusal(server, origin->peer, origin->peer_size, e, WIRE_STATUS(INTERNAL), "out of memory");
        message_free(message);
        return;
    }
    held->request = (struct request) {
        .message = message, .peer = peer->number, .role = role, .received_ms = now_ms,
        .server = server,
    };
    snprintf(held->user, sizeof held->user, "%s", origin->user);
    held->request.user = held->user;
    memcpy(held->id, origin->peer, origin->peer_size);
    held->id_size = origin->peer_size;
    DL_APPEND2(server->held, held, server_prev, server_next);
    if (e->request) {
        held->peer = peer;
        DL_APPEND2(peer->held, held, peer_prev, peer_next);
        peer->outstanding++;
        server->stats.outstanding++;
    }
    held->in_callback = true;
    server->options.on_request(&held->request, server->options.arg);
    held->in_callback = false;
    if (held->ended)
        end_held(held);
    else if (!held->taken)
        (void)wire_refuse(&held->request, WIRE_STATUS(INTERNAL), "%s was not handled here", wire_kind_name(e->kind));
}

static void admit(struct wire_server *server, const struct wire_origin *origin, struct message *message)
{
    const struct envelope *e = &message->envelope;
    uint64_t now_ms = clock_mono_ms();
    struct error error = {0};
    struct peer *peer;
    Gantry__Role role;
    uint32_t status;

    status = check_sender(server, origin, &role, &error);
    if (status != WIRE_STATUS(OK)) {
        (void)send_refusal(server, origin->peer, origin->peer_size, e, status, error.text);
        message_free(message);
        return;
    }
    peer = peer_of(server, origin, now_ms);
    if (server->closing) {                      /* on_peer may have freed the server */
        message_free(message);
        return;
    }
    if (!peer || (e->request && e->kind != WIRE_KIND(PING) && peer->outstanding >= server->options.credits)) {
        server->stats.busy++;
        (void)send_refusal(server, origin->peer, origin->peer_size, e, WIRE_STATUS(BUSY),
                           peer ? "no credit left: wait for an answer first" : "too many connections");
    } else if (e->kind == WIRE_KIND(PING)) {
        struct envelope pong = reply_envelope(server->wire, e);

        (void)send_reply(server, origin->peer, origin->peer_size, &pong, NULL, NULL, 0);
    } else if (e->request && is_repeated(peer, e->request)) {
        server->stats.repeated++;
    } else {
        server->stats.received++;
        hand_over(server, peer, origin, role, message, now_ms);
        return;
    }
    message_free(message);
}

static void on_in(struct zsock *z, void *arg)
{
    struct wire_server *server = arg;
    struct message *message = NULL;
    struct wire_origin origin;
    struct error error = {0};
    int r;

    r = message_receive(zsock_socket(z), true, &origin, &message, &error);
    if (r == 0 && wire_loses(origin.envelope.kind, "arrive")) {
        message_free(message);
        return;
    }
    if (r == 0) {
        admit(server, &origin, message);
        return;
    }
    if (r == -EAGAIN || r == -ETERM)
        return;
    server->stats.malformed++;
    if (origin.envelope.request == 0 || origin.envelope.kind == WIRE_KIND(ERROR))
        return;     /* nobody waits for an answer; and two servers must not quarrel in circles */
    (void)send_refusal(server, origin.peer, origin.peer_size, &origin.envelope,
                       r == -EPROTO   ? WIRE_STATUS(PROTOCOL)
                       : r == -ENOMEM ? WIRE_STATUS(INTERNAL)
                                      : WIRE_STATUS(BAD_REQUEST),
                       error_text(&error, r));
}

/* ---- peers -------------------------------------------------------------------------------------------- */

/* Holders of its requests may still answer: ROUTER_MANDATORY says if that was in vain. */
static void forget_peer(struct wire_server *server, struct peer *peer)
{
    while (peer->held)
        leave_peer(peer->held);
    peer_remove(&server->peers, peer);
    server->stats.peers = server->peers.n;
}

static void on_sweep(uv_timer_t *timer)
{
    struct wire_server *server = timer->data;
    uint64_t now_ms = clock_mono_ms();
    struct peer *peer, *next;

    HASH_ITER(by_id, server->peers.by_id, peer, next) {
        uint64_t number = peer->number;

        if (now_ms - peer->heard_ms < WIRE_SILENT_MS)
            continue;
        forget_peer(server, peer);
        if (server->options.on_peer)
            server->options.on_peer(number, false, server->options.arg);
        if (server->closing)
            return;
    }
}

int wire_push(struct wire_server *server, uint64_t number, Gantry__Kind kind, uint64_t version, const ProtobufCMessage *body)
{
    struct peer *peer = peer_numbered(&server->peers, number);
    struct envelope envelope = {
        .protocol = WIRE_PROTOCOL, .kind = kind, .version = version, .epoch = server->wire->epoch, .run = server->wire->run,
    };

    return peer ? send_reply(server, peer->id, peer->id_size, &envelope, body, NULL, 0) : -EHOSTUNREACH;
}

/* ---- life --------------------------------------------------------------------------------------------- */

static int open_socket(struct wire_server *server, struct error *error)
{
    const struct wire_server_options *o = &server->options;
    void *socket = NULL;
    int r;

    r = address_check(o->address, error);
    if (r < 0)
        return r;
    r = wire_socket_bind(server->wire, o->address, o->credits, o->frame_max, &socket, server->address, error);
    if (r < 0)
        return r;
    r = zsock_new(server->wire->loop, socket, on_in, NULL, server, &server->zsock);
    if (r < 0)
        zmq_close(socket);
    return r;
}

int wire_server_new(struct wire *wire, const struct wire_server_options *options, struct wire_server **ret, struct error *error)
{
    struct wire_server *server = calloc(1, sizeof *server);
    int r;

    if (!server)
        return -ENOMEM;
    server->wire = wire;
    server->options = *options;
    if (!server->options.credits)
        server->options.credits = WIRE_CREDITS;
    if (!server->options.frame_max)
        server->options.frame_max = WIRE_FRAME_MAX;
    r = open_socket(server, error);
    if (r < 0) {
        free(server);
        return r;
    }
    server->options.address = server->address;      /* the caller's may go */
    uv_timer_init(wire->loop, &server->sweep);
    server->sweep.data = server;
    uv_timer_start(&server->sweep, on_sweep, WIRE_HEARTBEAT_MS, WIRE_HEARTBEAT_MS);
    *ret = server;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct wire_server *wire_server_free(struct wire_server *server)
{
    struct peer *peer, *next;

    if (!server || server->closing)
        return NULL;
    server->closing = true;
    HASH_ITER(by_id, server->peers.by_id, peer, next)
        forget_peer(server, peer);
    while (server->held)
        leave_server(server->held);
    server->zsock = zsock_free(server->zsock);
    uv_close((uv_handle_t *)&server->sweep, on_closed);
    return NULL;
}

const char *wire_server_address(const struct wire_server *server)
{
    return server->address;
}

const struct wire_server_stats *wire_server_stats(const struct wire_server *server)
{
    return &server->stats;
}
