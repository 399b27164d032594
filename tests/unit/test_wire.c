/* Server and client together: answers, pushes, big frames, credits, deadlines, repetitions. */
#include "tests/harness/wire_side.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/fault.h"

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
            assert_int_equal(side_act(&side, sent, 60000, 0, NULL), 0);
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
    side_answer(side, request);
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
    assert_int_equal(side_act(&side, 1, 60000, 0, &part), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    side.client = wire_client_free(side.client);
    side.server = wire_server_free(side.server);
    side.here = wire_free(side.here);
    assert_int_equal(__atomic_load_n(&side.released, __ATOMIC_RELAXED), 1);
    side_close(&side);
    free(image);
}

static void check_order(struct side *side, struct request *request)
{
    assert_int_equal(request->message->n_parts, 3);
    for (unsigned i = 0; i < 3; i++) {
        size_t size;
        const uint8_t *bytes = message_part(request->message, i, &size);

        assert_int_equal(size, 3 - i);
        assert_memory_equal(bytes, &"abcdef"[i], size);
    }
    side_answer(side, request);
}

/* Frames come in the order they were given in, each as long as it was. */
static void frames_in_order(void **state)
{
    const struct wire_part parts[3] = {{.bytes = "abc", .size = 3}, {.bytes = "bc", .size = 2}, {.bytes = "c", .size = 1}};
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;
    struct side side;
    const struct wire_call call = {.kind = WIRE_KIND(ACT), .body = &body.base, .parts = parts, .n_parts = 3, .deadline_ms = 60000,
                                   .on_reply = side_on_reply, .arg = &side};

    (void)state;
    side_open(&side, 0, 0);
    side.serve = check_order;
    assert_int_equal(wire_call(side.client, &call, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

static void on_alarm(int signal) { (void)signal; }

/* Signals all the time, as a kernel's io_uring can bring them about, too: no wake-up is lost, no message comes apart. */
static void interrupted(void **state)
{
    enum { CALLS = 3000, CREDITS = 16 };
    const struct sigaction action = {.sa_handler = on_alarm};         /* no SA_RESTART: what waits is interrupted */
    struct itimerval every = {.it_interval.tv_usec = 200, .it_value.tv_usec = 200};
    const struct wire_part parts[3] = {{.bytes = "abc", .size = 3}, {.bytes = "bc", .size = 2}, {.bytes = "c", .size = 1}};
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;
    struct side side;
    const struct wire_call call = {.kind = WIRE_KIND(ACT), .flags = WIRE_ONCE, .body = &body.base, .parts = parts, .n_parts = 3,
                                   .deadline_ms = 60000, .on_reply = side_on_reply, .arg = &side};
    struct sigaction before;

    (void)state;
    side_open(&side, CREDITS, CREDITS);
    side.serve = check_order;
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    for (unsigned sent = 0; side.replies < CALLS;) {
        for (; sent < CALLS && sent - side.replies < CREDITS; sent++)
            assert_int_equal(wire_call(side.client, &call, NULL), 0);
        lab_until_count(&side.lab, &side.replies, side.replies + 1);
        assert_int_equal(side.result, 0);
    }
    every = (struct itimerval) {0};
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    assert_int_equal(side.requests, CALLS);
    side_close(&side);
}

/* Releases happen also for calls that are refused on the spot. */
static void release_on_failure(void **state)
{
    struct side side;
    struct wire_part part = {.bytes = "x", .size = 17u << 20, .release = count_release};
    struct wire_part many[17], over[1 + WIRE_PARTS_MAX] = {0};
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {.kind = WIRE_KIND(ACT), .body = &body.base, .parts = many, .n_parts = 17, .deadline_ms = 100};

    (void)state;
    side_open(&side, 0, 0);
    part.arg = &side.released;
    part.bytes = calloc(1, part.size);
    assert_int_equal(side_act(&side, 1, 1000, 0, &part), -EMSGSIZE);         /* an image has at most 16 MiB */
    assert_int_equal(side.released, 1);
    for (int i = 0; i < 17; i++)
        many[i] = (struct wire_part) {.bytes = "y", .size = 1, .release = count_release, .arg = &side.released};
    assert_int_equal(wire_call(side.client, &call, NULL), -EMSGSIZE);   /* and there are at most 16 */
    assert_int_equal(side.released, 18);
    call = (struct wire_call) {.kind = WIRE_KIND(SCORE), .parts = over, .n_parts = ARRAY_SIZE(over), .deadline_ms = 100};
    over[5] = over[WIRE_PARTS_MAX] = many[0];                           /* the others are copied */
    assert_int_equal(wire_call(side.client, &call, NULL), -EMSGSIZE);
    assert_int_equal(side.released, 20);
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
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.peers_here, 1);
    assert_int_equal(wire_push(side.server, side.peer, WIRE_KIND(DRAIN), 0, &drain.base), 0);
    lab_until_count(&side.lab, &side.pushes, 1);
    side_close(&side);
}

static void keep_after_reply(struct side *side, struct request *request)
{
    Gantry__ActReply reply = GANTRY__ACT_REPLY__INIT;

    side->kept[side->n_kept++] = request_take(request);
    assert_int_equal(wire_reply_and_keep(request, &reply.base, NULL, 0), 0);
    assert_int_equal(wire_server_stats(side->server)->outstanding, 0);
}

static void take_and_answer(struct side *side, struct request *request) { side_answer(side, request_take(request)); }

/* What was answered stays readable until it is dropped, and takes no credit; what was taken may be answered at once. */
static void answered_and_kept(void **state)
{
    struct wire_part part = {.bytes = "image", .size = 5};
    struct side side;
    size_t size;

    (void)state;
    side_open(&side, 1, 0);
    side.serve = keep_after_reply;
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(side_act(&side, i, 60000, WIRE_ONCE, &part), 0);
        lab_until_count(&side.lab, &side.replies, i);
        assert_int_equal(side.result, 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(((const Gantry__ActRequest *)side.kept[i]->message->body)->step, i + 1);
        assert_memory_equal(message_part(side.kept[i]->message, 0, &size), "image", 5);
        request_drop(side.kept[i]);
    }
    side.serve = take_and_answer;
    assert_int_equal(side_act(&side, 4, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 4);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

static void free_the_server(struct side *side, struct request *request)
{
    side->kept[side->n_kept++] = request_take(request);
    side->server = wire_server_free(side->server);
}

/* A server may be freed while it hands a request over; who holds one can still end it, and no borrowed frame is lost. */
static void answered_beyond_the_server(void **state)
{
    struct side side;
    struct wire_part part = {.bytes = "x", .size = 1, .release = count_release};

    (void)state;
    side_open(&side, 0, 0);
    part.arg = &side.released;
    side.serve = side_keep;
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    side.serve = free_the_server;
    assert_int_equal(side_act(&side, 2, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 2);
    assert_true(!side.kept[0]->server && !side.kept[1]->server);
    assert_int_equal(wire_reply(side.kept[0], NULL, &part, 1), -EHOSTUNREACH);
    assert_int_equal(side.released, 1);
    assert_int_equal(wire_refuse(side.kept[1], WIRE_STATUS(BUSY), "later"), -EHOSTUNREACH);
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
        assert_int_equal(side_act(&side, i, 60000, 0, NULL), 0);
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
    side.serve = side_keep;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(side_act(&side, i, 60000, i == 4 ? WIRE_ONCE : 0, NULL), 0);
    assert_int_equal(side_act(&side, 5, 60000, 0, NULL), -ENOBUFS);          /* the client's own credits */
    lab_until_count(&side.lab, &side.n_kept, 3);
    lab_until_count(&side.lab, &side.replies, 1);                       /* BUSY, and was told not to repeat */
    assert_int_equal(side.result, -EBUSY);
    assert_string_equal(side.text, "no credit left: wait for an answer first");
    assert_int_equal(wire_client_outstanding(side.client), 4);
    side.serve = side_answer;
    for (unsigned i = 0; i < 3; i++)
        side_answer(&side, side.kept[i]);
    lab_until_count(&side.lab, &side.replies, 5);                       /* the fourth got in by asking again */
    assert_int_equal(side.result, 0);
    assert_true(wire_server_stats(side.server)->busy >= 2);
    side_close(&side);
}

static void answer_too_much(struct side *side, struct request *request)
{
    static float hidden[64 << 10];
    Gantry__ActReply body = GANTRY__ACT_REPLY__INIT;

    (void)side;
    body.hidden = hidden;
    body.n_hidden = ARRAY_SIZE(hidden);
    assert_int_equal(wire_reply(request, &body.base, NULL, 0), -EMSGSIZE);
}

/* An answer that its kind does not allow: who asked is told so, and does not wait for its deadline. */
static void too_large_an_answer(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = answer_too_much;
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -EREMOTEIO);
    assert_int_equal(side.status, WIRE_STATUS(INTERNAL));
    assert_non_null(strstr(side.text, "larger than its kind allows"));
    side_close(&side);
}

static void deadline(void **state)
{
    struct side side;
    uint64_t start_ms;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = side_keep;
    lab_until(&side.lab, &side.up);         /* connecting may take as long as it likes */
    start_ms = clock_mono_ms();
    assert_int_equal(side_act(&side, 1, 500, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -ETIMEDOUT);
    assert_true(clock_mono_ms() - start_ms >= 500);
    assert_int_equal(side.n_kept, 1);
    assert_in_range(side.kept[0]->message->envelope.remaining_ms, 1, 500);
    side_answer(&side, side.kept[0]);        /* too late: goes nowhere, hurts nobody */
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
    assert_int_equal(fault_arm("act_reply.send=drop@1"), 0);
    assert_int_equal(side_act(&side, 3, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    assert_int_equal(side.requests, 2);
    side_close(&side);
}

static void request_lost(void **state)
{
    struct side side;
    uint64_t begin_ms;

    (void)state;
    side_open(&side, 0, 0);
    lab_until(&side.lab, &side.up);
    assert_int_equal(fault_arm("act.send=drop@1"), 0);
    begin_ms = clock_mono_ms();
    assert_int_equal(side_act(&side, 3, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    assert_int_equal(side.requests, 1);
    assert_true(clock_mono_ms() - begin_ms >= 750);         /* it is the repetition that came, after 1 s - 25 % */
    side_close(&side);
}

/* While a request is being worked on its repetitions are dropped: one side_answer, one piece of work. */
static void repeated_while_held(void **state)
{
    struct side side;
    unsigned repeated = 0;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = side_keep;
    assert_int_equal(side_act(&side, 3, 60000, 0, NULL), 0);
    while (!repeated) {
        uv_run(&side.lab.loop, UV_RUN_ONCE);
        repeated = (unsigned)wire_server_stats(side.server)->repeated;
    }
    assert_int_equal(side.n_kept, 1);
    side_answer(&side, side.kept[0]);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

static void cancelled(void **state)
{
    Gantry__ActRequest request = GANTRY__ACT_REQUEST__INIT;
    struct side side;
    struct wire_call call = {
        .kind = WIRE_KIND(ACT), .body = &request.base, .deadline_ms = 1000, .on_reply = side_on_reply, .arg = &side};
    uint64_t id;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = side_keep;
    assert_int_equal(wire_call(side.client, &call, &id), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    wire_cancel(side.client, id);
    wire_cancel(side.client, id);
    side_answer(&side, side.kept[0]);
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(borrowed_frame), cmocka_unit_test(frames_in_order),
        cmocka_unit_test(release_on_failure),
        cmocka_unit_test(push), cmocka_unit_test(answered_and_kept), cmocka_unit_test(answered_beyond_the_server),
        cmocka_unit_test(forgotten_request),
        cmocka_unit_test(credits),
        cmocka_unit_test(too_large_an_answer),
        cmocka_unit_test(deadline),
        cmocka_unit_test(reply_lost),
        cmocka_unit_test(request_lost),
        cmocka_unit_test(repeated_while_held),
        cmocka_unit_test(cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
