/* A server under hostile frames: each is refused or dropped, counted, and the next honest request is served. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <zmq.h>

#include "base/crc32c.h"
#include "base/philox.h"
#include "proto/policy.pb-c.h"

struct siege {
    struct wire_lab lab;
    struct wire *wire;
    struct wire_server *server;
    void *context, *socket;     /* the attacker: a bare DEALER */
    void (*serve)(struct siege *siege, struct request *request);        /* NULL: an answer */
    unsigned served, replies, released;
    uint64_t peer;
    int result;
};

static void on_request(struct request *request, void *arg)
{
    struct siege *siege = arg;
    Gantry__ActReply reply = GANTRY__ACT_REPLY__INIT;

    siege->served++;
    siege->peer = request->peer;
    if (siege->serve)
        siege->serve(siege, request);
    else
        wire_reply(request, &reply.base, NULL, 0);
}

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct siege *siege = arg;

    (void)reply;
    siege->replies++;
    siege->result = result;
}

static void siege_open(struct siege *siege)
{
    struct wire_server_options options = {
        .address = siege->lab.ipc, .frame_max = 1 << 20, .on_request = on_request, .arg = siege};
    int zero = 0;

    memset(siege, 0, sizeof *siege);
    lab_open(&siege->lab);
    assert_int_equal(wire_new(&siege->lab.loop, GANTRY__ROLE__ROLE_ACTOR, &siege->wire), 0);
    assert_int_equal(wire_server_new(siege->wire, &options, &siege->server, NULL), 0);
    siege->context = zmq_ctx_new();
    siege->socket = zmq_socket(siege->context, ZMQ_DEALER);
    zmq_setsockopt(siege->socket, ZMQ_LINGER, &zero, sizeof zero);
    assert_int_equal(zmq_connect(siege->socket, siege->lab.ipc), 0);
}

/* An honest client is served to the end: the server lives. */
static void siege_close(struct siege *siege)
{
    struct wire_client_options options = {.address = siege->lab.ipc, .arg = siege};
    Gantry__ActRequest act = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {.kind = WIRE_KIND(ACT), .body = &act.base, .deadline_ms = 60000, .on_reply = on_reply, .arg = siege};
    struct wire_client *client;
    unsigned before = siege->served;

    assert_int_equal(wire_client_new(siege->wire, &options, &client, NULL), 0);
    assert_int_equal(wire_call(client, &call, NULL), 0);
    lab_until_count(&siege->lab, &siege->replies, 1);
    assert_int_equal(siege->result, 0);
    assert_int_equal(siege->served, before + 1);
    wire_client_free(client);
    siege->server = wire_server_free(siege->server);
    zmq_close(siege->socket);
    zmq_ctx_term(siege->context);
    uv_run(&siege->lab.loop, UV_RUN_NOWAIT);
    siege->wire = wire_free(siege->wire);
    lab_close(&siege->lab);
}

/* Full: the server, on this very thread, must read first. */
static void send_frame(struct siege *siege, const void *bytes, size_t size, bool more)
{
    while (zmq_send(siege->socket, bytes, size, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0)
        uv_run(&siege->lab.loop, UV_RUN_ONCE);
}

/* Send frame 0 (made of e and t) and then the given frames. */
static void send_message(struct siege *siege, const struct envelope *e, const struct part_table *t, const char *const *frames,
                         unsigned n)
{
    uint8_t bytes[WIRE_ENVELOPE_MAX];
    size_t size = envelope_size(e, t);

    assert_int_equal(envelope_pack(e, t, bytes, sizeof bytes), 0);
    send_frame(siege, bytes, size, n > 0);
    for (unsigned i = 0; i < n; i++)
        send_frame(siege, frames[i], strlen(frames[i]), i + 1 < n);
}

/* The refusal that comes back; its status, 0 if it was no refusal. */
static uint32_t refusal(struct siege *siege, char text[WIRE_ERROR_MAX])
{
    struct message *message;
    struct wire_origin origin;
    uint32_t status;
    int r;

    do {
        uv_run(&siege->lab.loop, UV_RUN_ONCE);
        r = message_receive(siege->socket, false, &origin, &message, NULL);
    } while (r == -EAGAIN);
    assert_int_equal(r, 0);
    status = message->envelope.kind == WIRE_KIND(ERROR) ? message->envelope.status : 0;
    snprintf(text, WIRE_ERROR_MAX, "%s", message->envelope.error);
    message_free(message);
    return status;
}

static struct envelope act_envelope(void)
{
    return (struct envelope) {.protocol = WIRE_PROTOCOL, .kind = WIRE_KIND(ACT), .request = 42, .remaining_ms = 1000};
}

static struct part_table table_of(const char *const *frames, unsigned n)
{
    struct part_table t = {.n = n};

    for (unsigned i = 0; i < n; i++) {
        t.size[i] = (uint32_t)strlen(frames[i]);
        t.crc[i] = crc32c(0, frames[i], strlen(frames[i]));
    }
    return t;
}

static void expect(struct siege *siege, struct envelope e, struct part_table t, const char *const *frames, unsigned n,
                   uint32_t status, const char *says)
{
    char text[WIRE_ERROR_MAX];

    send_message(siege, &e, &t, frames, n);
    assert_int_equal(refusal(siege, text), status);
    if (!strstr(text, says))
        fail_msg("the refusal '%s' does not say '%s'", text, says);
}

static void refused_with_reason(void **state)
{
    const char *const frames[] = {"", "image"};
    const char *const garbage[] = {"\x0a\xff\xff\xff\xff\x0f"};         /* a field longer than the body */
    struct siege siege;
    struct envelope e;
    struct part_table t;

    (void)state;
    siege_open(&siege);
    t = table_of(frames, 2);
    t.crc[1] ^= 1;
    expect(&siege, act_envelope(), t, frames, 2, WIRE_STATUS(BAD_REQUEST), "CRC32C");
    t = table_of(frames, 2);
    t.size[1]++;
    expect(&siege, act_envelope(), t, frames, 2, WIRE_STATUS(BAD_REQUEST), "5 bytes, the envelope says 6");
    expect(&siege, act_envelope(), table_of(frames, 2), frames, 1, WIRE_STATUS(BAD_REQUEST), "announces 2");
    expect(&siege, act_envelope(), table_of(frames, 1), frames, 2, WIRE_STATUS(BAD_REQUEST), "more frames");
    expect(&siege, act_envelope(), table_of(garbage, 1), garbage, 1, WIRE_STATUS(BAD_REQUEST), "not a ActRequest");
    e = act_envelope();
    e.kind = 4711;
    expect(&siege, e, table_of(frames, 1), frames, 1, WIRE_STATUS(BAD_REQUEST), "no message kind 4711");
    e = act_envelope();
    e.protocol = 2u << 16;
    expect(&siege, e, table_of(frames, 1), frames, 1, WIRE_STATUS(PROTOCOL), "protocol 2.0");
    t = table_of(frames, 2);
    t.size[1] = 0x7fffffff;
    expect(&siege, act_envelope(), t, frames, 2, WIRE_STATUS(BAD_REQUEST), "at most");
    assert_int_equal(siege.served, 0);
    assert_int_equal(wire_server_stats(siege.server)->malformed, 8);
    siege_close(&siege);
}

/* 3,000 messages of random frames, random counts, random damage to honest ones. */
static void random_frames(void **state)
{
    struct siege siege;
    struct philox p = philox_at(7, PHILOX_TEST, 1, 2, 3);
    const char *const none[] = {""};
    struct envelope last = act_envelope();
    struct part_table t = table_of(none, 1);
    char text[WIRE_ERROR_MAX];
    uint8_t bytes[512];
    unsigned sent = 0;

    (void)state;
    last.protocol = 2u << 16;
    siege_open(&siege);
    while (sent < 3000) {
        unsigned n = 1 + philox_below(&p, 6);

        for (unsigned i = 0; i < n; i++) {
            size_t size = philox_below(&p, sizeof bytes);

            for (size_t k = 0; k < size; k++)
                bytes[k] = (uint8_t)philox_u32(&p);
            if (i == 0 && philox_below(&p, 2)) {        /* begin like an envelope */
                struct envelope e = act_envelope();
                struct part_table parts = {.n = 1 + philox_below(&p, 5)};

                e.request = 0;
                size = envelope_size(&e, &parts);
                (void)envelope_pack(&e, &parts, bytes, sizeof bytes);
                bytes[philox_below(&p, (uint32_t)size)] ^= (uint8_t)philox_u32(&p);
            }
            send_frame(&siege, bytes, size, i + 1 < n);
        }
        sent++;
    }
    /* Wait for all to be read: libzmq 4.3 aborts when a socket without linger is closed in the middle of a multipart message. */
    send_message(&siege, &last, &t, none, 1);
    while (refusal(&siege, text) != WIRE_STATUS(PROTOCOL))
        ;
    siege_close(&siege);
}

/* A frame over ZMQ_MAXMSGSIZE never reaches us: libzmq cuts the connection before it takes memory for it. */
static void oversized_frame(void **state)
{
    struct siege siege;
    char *big = calloc(1, 2 << 20);

    (void)state;
    siege_open(&siege);
    assert_true(zmq_send(siege.socket, big, 2 << 20, 0) > 0);
    lab_settle(&siege.lab, 100);
    assert_int_equal(siege.served, 0);
    assert_int_equal(wire_server_stats(siege.server)->malformed, 0);
    siege_close(&siege);
    free(big);
}

/* Replies that nobody asked for, and errors, are not answered: two servers cannot quarrel in circles. */
static void unasked(void **state)
{
    const char *const none[] = {""};
    struct siege siege;
    struct envelope e = act_envelope();
    struct part_table t = table_of(none, 1);
    struct message *message;
    struct wire_origin origin;

    (void)state;
    siege_open(&siege);
    e.kind = WIRE_KIND(ERROR);
    e.status = WIRE_STATUS(INTERNAL);
    t.crc[0] = 1;
    send_message(&siege, &e, &t, none, 1);
    lab_settle(&siege.lab, 100);
    assert_int_equal(message_receive(siege.socket, false, &origin, &message, NULL), -EAGAIN);
    siege_close(&siege);
}

/* What cannot be understood at all has no kind, and nobody to answer; all of it is read, and nothing of it stays. */
static void no_envelope(void **state)
{
    const char *const garbage[] = {"not an envelope", "and", "more"};
    struct message *message = (struct message *)garbage;
    struct wire_origin origin;
    struct error error = {0};
    void *context = zmq_ctx_new(), *to = zmq_socket(context, ZMQ_ROUTER), *from = zmq_socket(context, ZMQ_DEALER);

    (void)state;
    assert_int_equal(zmq_bind(to, "inproc://to"), 0);
    assert_int_equal(zmq_connect(from, "inproc://to"), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_true(zmq_send(from, garbage[i], strlen(garbage[i]), i < 2 ? ZMQ_SNDMORE : 0) > 0);
    memset(&origin, 0xaa, sizeof origin);
    assert_int_equal(message_receive(to, true, &origin, &message, &error), -EBADMSG);
    assert_true(origin.envelope.kind == 0 && origin.envelope.request == 0 && origin.peer_size > 0);
    assert_string_equal(origin.user, "");
    assert_ptr_equal(message, garbage);
    assert_int_equal(message_receive(to, true, &origin, &message, &error), -EAGAIN);
    zmq_close(from);
    zmq_close(to);
    zmq_ctx_term(context);
}

/* A peer that does not read is told from one that has gone, and hears the next push once it reads again. */
static void who_does_not_read(void **state)
{
    const char *const none[] = {""};
    struct siege siege;
    struct envelope e = act_envelope();
    struct part_table t = table_of(none, 1);
    char text[WIRE_ERROR_MAX];
    uint64_t last = 1ull << 40;
    struct message *message;
    struct wire_origin origin;
    int r = 0;

    (void)state;
    siege_open(&siege);
    send_message(&siege, &e, &t, none, 1);
    assert_int_equal(refusal(&siege, text), WIRE_STATUS(OK));
    for (uint64_t i = 0; r == 0; i++) {
        assert_true(i < 1000000);
        r = wire_push(siege.server, siege.peer, WIRE_KIND(WORK), i, NULL);
    }
    assert_int_equal(r, -EAGAIN);
    do {
        r = message_receive(siege.socket, false, &origin, &message, NULL);
        if (r == 0)
            message_free(message);
        else
            assert_int_equal(r, -EAGAIN);
    } while (wire_push(siege.server, siege.peer, WIRE_KIND(WORK), last, NULL) == -EAGAIN);
    do {
        r = message_receive(siege.socket, false, &origin, &message, NULL);
        if (r == 0)
            message_free(message);
    } while (r == -EAGAIN || origin.envelope.version != last);
    siege_close(&siege);
}

static void count_release(void *arg) { (*(unsigned *)arg)++; }

static void answer_one_way(struct siege *siege, struct request *request)
{
    struct wire_part part = {.bytes = "x", .size = 1, .release = count_release, .arg = &siege->released};

    assert_true(request_is_one_way(request));
    assert_int_equal(wire_reply(request, NULL, &part, 1), 0);
}

static void refuse_one_way(struct siege *siege, struct request *request)
{
    (void)siege;
    assert_int_equal(wire_refuse(request, WIRE_STATUS(BUSY), "later"), 0);
}

static struct request *taken;

static void take_one_way(struct siege *siege, struct request *request)
{
    (void)siege;
    taken = request_take(request);
}

static void forget_one_way(struct siege *siege, struct request *request)
{
    (void)siege;
    (void)request;
}

/* A message that wants no answer gets none, whatever is done with it, also if it cannot be read; nor does it take a credit. */
static void one_way(void **state)
{
    void (*const serve[])(struct siege *, struct request *) = {answer_one_way, refuse_one_way, take_one_way, forget_one_way};
    const char *const none[] = {""};
    struct siege siege;
    struct envelope e = act_envelope();
    struct part_table t = table_of(none, 1), wrong = t;
    char text[WIRE_ERROR_MAX];

    (void)state;
    wrong.crc[0] ^= 1;
    e.request = 0;
    siege_open(&siege);
    for (unsigned i = 0; i < ARRAY_SIZE(serve); i++) {
        siege.serve = serve[i];
        send_message(&siege, &e, &t, none, 1);
        lab_until_count(&siege.lab, &siege.served, i + 1);
        assert_int_equal(wire_server_stats(siege.server)->outstanding, 0);
    }
    assert_int_equal(siege.released, 1);
    assert_int_equal(wire_reply(taken, NULL, NULL, 0), 0);
    send_message(&siege, &e, &wrong, none, 1);
    siege.serve = NULL;
    e.request = 5;
    send_message(&siege, &e, &t, none, 1);
    assert_int_equal(refusal(&siege, text), WIRE_STATUS(OK));           /* the first that comes back is this one's */
    assert_true(wire_server_stats(siege.server)->malformed == 1 && wire_server_stats(siege.server)->refused == 0);
    siege_close(&siege);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_with_reason),
        cmocka_unit_test(random_frames),
        cmocka_unit_test(oversized_frame),
        cmocka_unit_test(unasked),
        cmocka_unit_test(no_envelope),
        cmocka_unit_test(who_does_not_read),
        cmocka_unit_test(one_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
