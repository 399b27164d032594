/* Server and client together: answers, pushes, credits, deadlines, repetitions, reconnects, big frames, version refusals. */
#include "tests/harness/wire_lab.h"

#include <errno.h>

#include "base/clock.h"
#include "base/fault.h"
#include "proto/policy.pb-c.h"

struct side {
    struct wire_lab lab;
    struct wire *there, *here;          /* a wire of its own for each end */
    struct wire_server *server;
    struct wire_client *client;

    unsigned requests, replies, pushes, released, peers_gone;
    int result;                         /* of the last reply */
    uint32_t status;
    char text[WIRE_ERROR_MAX];
    uint64_t peer;
    bool up;
    void (*serve)(struct side *side, struct request *request);
    struct request *kept[64];
    unsigned n_kept;
};

static void answer(struct side *side, struct request *request)
{
    const Gantry__ActRequest *act = (const Gantry__ActRequest *)request->message->body;
    Gantry__ActReply reply = GANTRY__ACT_REPLY__INIT;

    (void)side;
    reply.value = (float)act->step;
    reply.policy_version = request->message->envelope.version;
    assert_int_equal(wire_reply(request, &reply.base, NULL, 0), 0);
}

static void keep(struct side *side, struct request *request)
{
    side->kept[side->n_kept++] = request_take(request);
}

static void on_request(struct request *request, void *arg)
{
    struct side *side = arg;

    side->requests++;
    side->peer = request->peer;
    side->serve(side, request);
}

static void on_peer(uint64_t peer, bool here, void *arg)
{
    struct side *side = arg;

    (void)peer;
    side->peers_gone += !here;
}

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct side *side = arg;

    side->replies++;
    side->result = result;
    side->status = reply ? reply->envelope.status : 0;
    snprintf(side->text, sizeof side->text, "%s", reply ? reply->envelope.error : "");
}

static void on_push(const struct message *message, void *arg)
{
    struct side *side = arg;

    assert_int_equal(message->envelope.kind, WIRE_KIND(DRAIN));
    assert_string_equal(((const Gantry__Drain *)message->body)->reason, "enough");
    side->pushes++;
}

static void on_state(bool up, void *arg)
{
    ((struct side *)arg)->up = up;
}

static void serve(struct side *side, unsigned credits)
{
    struct wire_server_options options = {
        .address = side->lab.ipc, .credits = credits, .on_request = on_request, .on_peer = on_peer, .arg = side,
    };
    struct error error = {0};

    if (wire_server_new(side->there, &options, &side->server, &error) < 0)
        fail_msg("%s", error.text);
}

static void side_open(struct side *side, unsigned server_credits, unsigned client_credits)
{
    struct wire_client_options options = {.credits = client_credits, .on_push = on_push, .on_state = on_state, .arg = side};
    struct error error = {0};

    memset(side, 0, sizeof *side);
    side->serve = answer;
    lab_open(&side->lab);
    assert_int_equal(wire_new(&side->lab.loop, GANTRY__ROLE__ROLE_ACTOR, &side->there), 0);
    assert_int_equal(wire_new(&side->lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &side->here), 0);
    serve(side, server_credits);
    options.address = side->lab.ipc;
    if (wire_client_new(side->here, &options, &side->client, &error) < 0)
        fail_msg("%s", error.text);
}

static void side_close(struct side *side)
{
    fault_arm("");
    side->client = wire_client_free(side->client);
    side->server = wire_server_free(side->server);
    uv_run(&side->lab.loop, UV_RUN_NOWAIT);
    side->here = wire_free(side->here);
    side->there = wire_free(side->there);
    lab_close(&side->lab);
}

static int act(struct side *side, uint32_t step, uint32_t deadline_ms, enum wire_call_flags flags, const struct wire_part *part)
{
    Gantry__ActRequest request = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {
        .kind = WIRE_KIND(ACT), .version = 7, .body = &request.base, .parts = part, .n_parts = part ? 1 : 0,
        .deadline_ms = deadline_ms, .flags = flags, .on_reply = on_reply, .arg = side,
    };

    request.step = step;
    return wire_call(side->client, &call, NULL);
}

/* ---- plain ------------------------------------------------------------------------------------------- */

static void burst(void **state)
{
    enum { TOTAL = 50000, CREDITS = 64 };
    struct side side;
    unsigned sent = 0;

    (void)state;
    side_open(&side, CREDITS, CREDITS);
    while (side.replies < TOTAL) {
        while (sent < TOTAL && sent - side.replies < CREDITS) {
            assert_int_equal(act(&side, sent, 60000, 0, NULL), 0);
            sent++;
        }
        lab_until_count(&side.lab, &side.replies, MIN(side.replies + 1, (unsigned)TOTAL));
    }
    assert_int_equal(side.requests, TOTAL);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

static void count_release(void *arg)
{
    __atomic_add_fetch((unsigned *)arg, 1, __ATOMIC_RELAXED);
}

static void check_image(struct side *side, struct request *request)
{
    size_t size;
    const uint8_t *image = message_part(request->message, 0, &size);

    assert_int_equal(request->message->n_parts, 1);
    assert_int_equal(size, 1 << 20);
    for (size_t i = 0; i < size; i += 4099)
        assert_int_equal(image[i], (uint8_t)(i * 7));
    answer(side, request);
}

/* A borrowed frame comes over unchanged and is released exactly once. */
static void borrowed_frame(void **state)
{
    struct side side;
    uint8_t *image = malloc(1 << 20);
    struct wire_part part = {.bytes = image, .size = 1 << 20, .release = count_release};

    (void)state;
    for (size_t i = 0; i < 1 << 20; i++)
        image[i] = (uint8_t)(i * 7);
    side_open(&side, 0, 0);
    part.arg = &side.released;
    side.serve = check_image;
    assert_int_equal(act(&side, 1, 60000, 0, &part), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    side.client = wire_client_free(side.client);
    side.server = wire_server_free(side.server);
    side.here = wire_free(side.here);
    assert_int_equal(__atomic_load_n(&side.released, __ATOMIC_RELAXED), 1);
    side_close(&side);
    free(image);
}

/* Releases happen also for calls that are refused on the spot. */
static void release_on_failure(void **state)
{
    struct side side;
    struct wire_part part = {.bytes = "x", .size = 17u << 20, .release = count_release};
    struct wire_part many[17];
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {.kind = WIRE_KIND(ACT), .body = &body.base, .parts = many, .n_parts = 17, .deadline_ms = 100};

    (void)state;
    side_open(&side, 0, 0);
    part.arg = &side.released;
    part.bytes = calloc(1, part.size);
    assert_int_equal(act(&side, 1, 1000, 0, &part), -EMSGSIZE);         /* an image has at most 16 MiB */
    assert_int_equal(side.released, 1);
    for (int i = 0; i < 17; i++)
        many[i] = (struct wire_part) {.bytes = "y", .size = 1, .release = count_release, .arg = &side.released};
    assert_int_equal(wire_call(side.client, &call, NULL), -EMSGSIZE);   /* and there are at most 16 */
    assert_int_equal(side.released, 18);
    free((void *)part.bytes);
    side_close(&side);
}

static void push(void **state)
{
    Gantry__Drain drain = GANTRY__DRAIN__INIT;
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    drain.reason = (char *)"enough";
    assert_int_equal(wire_push(side.server, 77, WIRE_KIND(DRAIN), 0, &drain.base), -EHOSTUNREACH);
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(wire_push(side.server, side.peer, WIRE_KIND(DRAIN), 0, &drain.base), 0);
    lab_until_count(&side.lab, &side.pushes, 1);
    side_close(&side);
}

static void forget(struct side *side, struct request *request)
{
    (void)side;
    (void)request;
}

/* A daemon that forgets a request is told on: the client gets INTERNAL, no credit leaks. */
static void forgotten_request(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 1, 0);
    side.serve = forget;
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(act(&side, i, 60000, 0, NULL), 0);
        lab_until_count(&side.lab, &side.replies, i);
        assert_int_equal(side.result, -EREMOTEIO);
        assert_int_equal(side.status, WIRE_STATUS(INTERNAL));
    }
    assert_int_equal(wire_server_stats(side.server)->outstanding, 0);
    side_close(&side);
}

/* ---- limits on time and number -------------------------------------------------------------------------- */

static void credits(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 3, 5);
    side.serve = keep;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(act(&side, i, 60000, i == 4 ? WIRE_ONCE : 0, NULL), 0);
    assert_int_equal(act(&side, 5, 60000, 0, NULL), -ENOBUFS);          /* the client's own credits */
    lab_until_count(&side.lab, &side.n_kept, 3);
    lab_until_count(&side.lab, &side.replies, 1);                       /* BUSY, and was told not to repeat */
    assert_int_equal(side.result, -EBUSY);
    assert_int_equal(wire_client_outstanding(side.client), 4);
    side.serve = answer;
    for (unsigned i = 0; i < 3; i++)
        answer(&side, side.kept[i]);
    lab_until_count(&side.lab, &side.replies, 5);                       /* the fourth got in by asking again */
    assert_int_equal(side.result, 0);
    assert_true(wire_server_stats(side.server)->busy >= 2);
    side_close(&side);
}

static void deadline(void **state)
{
    struct side side;
    uint64_t start_ms = clock_mono_ms();

    (void)state;
    side_open(&side, 0, 0);
    side.serve = keep;
    assert_int_equal(act(&side, 1, 150, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -ETIMEDOUT);
    assert_true(clock_mono_ms() - start_ms >= 150);
    assert_int_equal(side.n_kept, 1);
    assert_true(side.kept[0]->deadline_ms && side.kept[0]->deadline_ms <= side.kept[0]->received_ms + 150);
    assert_int_equal(request_remaining_ms(side.kept[0], side.kept[0]->deadline_ms + 1), 0);
    answer(&side, side.kept[0]);        /* too late: goes nowhere, hurts nobody */
    lab_settle(&side.lab, 50);
    assert_int_equal(side.replies, 1);
    side_close(&side);
}

static void reply_lost(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    lab_until(&side.lab, &side.up);
    assert_int_equal(fault_arm("wire.reply=drop@1"), 0);
    assert_int_equal(act(&side, 3, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    assert_true(side.requests >= 1);        /* a pong may have been the one that was dropped */
    side_close(&side);
}

static void request_lost(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    lab_until(&side.lab, &side.up);
    assert_int_equal(fault_arm("wire.request=drop@1"), 0);
    assert_int_equal(act(&side, 3, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    assert_int_equal(side.requests, 1);
    side_close(&side);
}

/* While a request is being worked on its repetitions are dropped: one answer, one piece of work. */
static void repeated_while_held(void **state)
{
    struct side side;
    unsigned repeated = 0;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = keep;
    assert_int_equal(act(&side, 3, 60000, 0, NULL), 0);
    while (!repeated) {
        uv_run(&side.lab.loop, UV_RUN_ONCE);
        repeated = (unsigned)wire_server_stats(side.server)->repeated;
    }
    assert_int_equal(side.n_kept, 1);
    answer(&side, side.kept[0]);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

static void cancelled(void **state)
{
    Gantry__ActRequest request = GANTRY__ACT_REQUEST__INIT;
    struct side side;
    struct wire_call call = {
        .kind = WIRE_KIND(ACT), .body = &request.base, .deadline_ms = 1000, .on_reply = on_reply, .arg = &side};
    uint64_t id;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = keep;
    assert_int_equal(wire_call(side.client, &call, &id), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    wire_cancel(side.client, id);
    wire_cancel(side.client, id);
    answer(&side, side.kept[0]);
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 2);
    assert_int_equal(side.replies, 0);
    side.client = wire_client_free(side.client);
    assert_int_equal(side.replies, 1);
    assert_int_equal(side.result, -ECANCELED);
    side.server = wire_server_free(side.server);
    assert_null(side.kept[1]->server);
    assert_int_equal(wire_reply(side.kept[1], NULL, NULL, 0), -EHOSTUNREACH);   /* held beyond the server's life */
    side_close(&side);
}

/* ---- refusals -------------------------------------------------------------------------------------------- */

static unsigned loading;

static void load_first(struct side *side, struct request *request)
{
    if (loading) {
        loading--;
        wire_refuse(request, WIRE_STATUS(LOADING), "version 7 is on its way");
        return;
    }
    answer(side, request);
}

static void version_loading(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = load_first;
    loading = 1;
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -EAGAIN);
    assert_string_equal(side.text, "version 7 is on its way");
    loading = 3;
    assert_int_equal(act(&side, 1, 60000, WIRE_WAIT_VERSION, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 2);
    assert_int_equal(side.result, 0);
    assert_int_equal(loading, 0);
    side_close(&side);
}

static void run_and_epoch(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    wire_set_run(side.there, 11, 5);
    wire_set_run(side.here, 11, 4);
    assert_int_equal(act(&side, 1, 60000, WIRE_ONCE, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -ESRCH);
    wire_set_run(side.here, 11, 6);             /* the client heard of the new epoch first: fine */
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 2);
    assert_int_equal(side.result, 0);
    wire_set_run(side.here, 12, 6);
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 3);
    assert_int_equal(side.result, -EACCES);
    assert_int_equal(side.requests, 1);
    side_close(&side);
}

/* A stale epoch costs nothing when the member's Hello repairs it meanwhile. */
static void heal(void *arg)
{
    wire_set_run(arg, 11, 5);
}

static void stale_epoch_heals(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    wire_set_run(side.there, 11, 5);
    wire_set_run(side.here, 11, 4);
    side.here->on_stale = heal;
    side.here->on_stale_arg = side.here;
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

/* ---- coming and going ------------------------------------------------------------------------------------- */

static void server_restarts(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    side.serve = keep;
    assert_int_equal(act(&side, 2, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    side.server = wire_server_free(side.server);                /* with the request in its hands */
    request_drop(side.kept[0]);
    while (side.up)
        uv_run(&side.lab.loop, UV_RUN_ONCE);
    assert_int_equal(act(&side, 3, 60000, 0, NULL), 0);         /* nobody is there: it waits */
    side.serve = answer;
    serve(&side, 0);
    lab_until_count(&side.lab, &side.replies, 3);
    assert_int_equal(side.result, 0);
    assert_true(side.up);
    side_close(&side);
}

/* A kind that must not be repeated fails when its connection goes. */
static void lost_underway(void **state)
{
    Gantry__LeaseRequest request = GANTRY__LEASE_REQUEST__INIT;
    struct side side;
    struct wire_call call = {
        .kind = WIRE_KIND(LEASE_REQUEST), .body = &request.base, .deadline_ms = 60000, .on_reply = on_reply, .arg = &side};

    (void)state;
    side_open(&side, 0, 0);
    side.serve = keep;
    assert_int_equal(wire_call(side.client, &call, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    side.server = wire_server_free(side.server);
    request_drop(side.kept[0]);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -ECONNRESET);
    side_close(&side);
}

static void silent_peer(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    assert_int_equal(act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(wire_server_stats(side.server)->peers, 1);
    side.client = wire_client_free(side.client);
    lab_until_count(&side.lab, &side.peers_gone, 1);
    assert_int_equal(wire_server_stats(side.server)->peers, 0);
    side_close(&side);
}

static void address_taken(void **state)
{
    struct side side;
    struct wire_server *second = NULL;
    struct wire_server_options options = {.on_request = on_request};
    char longer[200];
    struct error error = {0};

    (void)state;
    side_open(&side, 0, 0);
    options.address = side.lab.ipc;
    assert_int_equal(wire_server_new(side.there, &options, &second, &error), -EADDRINUSE);
    assert_non_null(strstr(error.text, side.lab.ipc));
    options.address = "tcp://127.0.0.1:5555";
    assert_int_equal(wire_server_new(side.there, &options, &second, &error), -EACCES);      /* no keys */
    memset(longer, 'a', sizeof longer);
    memcpy(longer, "ipc:///", 7);
    longer[sizeof longer - 1] = '\0';
    options.address = longer;
    assert_int_equal(wire_server_new(side.there, &options, &second, &error), -ENAMETOOLONG);
    options.address = "udp://x";
    assert_int_equal(wire_server_new(side.there, &options, &second, &error), -EINVAL);
    assert_null(second);
    side_close(&side);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst),
        cmocka_unit_test(borrowed_frame),
        cmocka_unit_test(release_on_failure),
        cmocka_unit_test(push),
        cmocka_unit_test(forgotten_request),
        cmocka_unit_test(credits),
        cmocka_unit_test(deadline),
        cmocka_unit_test(reply_lost),
        cmocka_unit_test(request_lost),
        cmocka_unit_test(repeated_while_held),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(version_loading),
        cmocka_unit_test(run_and_epoch),
        cmocka_unit_test(stale_epoch_heals),
        cmocka_unit_test(server_restarts),
        cmocka_unit_test(lost_underway),
        cmocka_unit_test(silent_peer),
        cmocka_unit_test(address_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
