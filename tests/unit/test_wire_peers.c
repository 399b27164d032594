/* Server and client together: refusals by version, run and epoch; servers that restart, vanish, fall silent. */
#include "tests/harness/wire_side.h"

#include <errno.h>

#include "base/clock.h"
#include "base/fault.h"
#include "wire/client_internal.h"

/* ---- refusals -------------------------------------------------------------------------------------------- */

static unsigned loading;

static void load_first(struct side *side, struct request *request)
{
    if (loading) {
        loading--;
        wire_refuse(request, WIRE_STATUS(LOADING), "version 7 is on its way");
        return;
    }
    side_answer(side, request);
}

static void version_loading(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = load_first;
    loading = 1;
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -EAGAIN);
    assert_string_equal(side.text, "version 7 is on its way");
    loading = 3;
    assert_int_equal(side_act(&side, 1, 60000, WIRE_WAIT_VERSION, NULL), 0);
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
    assert_int_equal(side_act(&side, 1, 60000, WIRE_ONCE, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -ESRCH);
    assert_string_equal(side.text, "epoch 4 is over, this is 5: say Hello to the coordinator again");
    wire_set_run(side.here, 11, 6);             /* the client heard of the new epoch first: fine */
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 2);
    assert_int_equal(side.result, 0);
    wire_set_run(side.here, 12, 6);
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 3);
    assert_int_equal(side.result, -EACCES);
    assert_string_equal(side.text, "this is run 000000000000000b, the message is of run 000000000000000c");
    assert_int_equal(side.requests, 1);
    assert_true(wire_server_stats(side.server)->received == 1 && wire_server_stats(side.server)->refused == 2);
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
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
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
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    side.serve = side_keep;
    assert_int_equal(side_act(&side, 2, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    side.server = wire_server_free(side.server);                /* with the request in its hands */
    request_drop(side.kept[0]);
    while (side.up)
        uv_run(&side.lab.loop, UV_RUN_ONCE);
    assert_int_equal(side_act(&side, 3, 60000, 0, NULL), 0);         /* nobody is there: it waits */
    side.serve = side_answer;
    side_serve(&side, 0);
    lab_until_count(&side.lab, &side.replies, 3);
    assert_int_equal(side.result, 0);
    assert_true(side.up);
    side_close(&side);
}

/* A kind that must not be repeated fails when its connection goes, or is left for another. */
static void lost_underway(void **state)
{
    Gantry__LeaseRequest request = GANTRY__LEASE_REQUEST__INIT;
    struct side side;
    struct wire_call call = {
        .kind = WIRE_KIND(LEASE_REQUEST), .body = &request.base, .deadline_ms = 60000, .on_reply = side_on_reply, .arg = &side};
    struct error error = {0};

    (void)state;
    side_open(&side, 0, 0);
    side.serve = side_keep;
    assert_int_equal(wire_call(side.client, &call, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    side.server = wire_server_free(side.server);
    request_drop(side.kept[0]);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.result, -ECONNRESET);

    side_serve(&side, 0);
    assert_int_equal(wire_call(side.client, &call, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 2);
    lab_until(&side.lab, &side.up);
    assert_int_equal(wire_client_move(side.client, side.lab.ipc, NULL, &error), 0);
    assert_true(side.replies == 2 && side.result == -ECONNRESET && !side.up);
    request_drop(side.kept[1]);
    side_close(&side);
}

/* ZeroMQ takes messages a moment longer than a connection lives, and loses them: nothing is sent before it says that there is
 * another. */
static void nothing_into_a_dead_connection(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = side_keep;
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    lab_until(&side.lab, &side.up);
    client_on_connection(MONITOR_DISCONNECTED, side.client);        /* the real one lives, and would carry what is sent */
    assert_false(side.up);
    assert_int_equal(side_act(&side, 2, 60000, 0, NULL), 0);
    lab_settle(&side.lab, 50);
    assert_int_equal(side.client->n_waiting, 2);
    assert_true(side.requests == 1 && wire_server_stats(side.server)->repeated == 0);

    side.serve = side_answer;
    client_on_connection(MONITOR_CONNECTED, side.client);           /* at once, whatever their next repetition would have been */
    assert_int_equal(side.client->n_waiting, 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_true(side.result == 0 && side.requests == 2 && wire_server_stats(side.server)->repeated == 1);
    side_answer(&side, side.kept[0]);
    lab_until_count(&side.lab, &side.replies, 2);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

static void break_off(struct side *side, unsigned times)
{
    while (times--) {
        side->client->reached_ms = clock_mono_ms();
        client_on_connection(MONITOR_BROKEN, side->client);
    }
}

/* The third handshake in a row that ends at once, and no sooner, says that the server has another key; so does the sixth. */
static void handshakes_that_break(void **state)
{
    Gantry__ActRequest act = GANTRY__ACT_REQUEST__INIT;
    struct side side;
    struct wire_call call = {.kind = WIRE_KIND(ACT), .body = &act.base, .deadline_ms = 60000,
                             .on_reply = side_on_reply, .arg = &side};

    (void)state;
    side_open(&side, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(wire_call(side.client, &call, NULL), 0);
        break_off(&side, 2);
        assert_int_equal(side.replies, i);
        break_off(&side, 1);
        assert_true(side.replies == i + 1 && side.result == -EKEYREJECTED);
    }
    assert_int_equal(wire_call(side.client, &call, NULL), 0);
    break_off(&side, 2);
    client_on_connection(MONITOR_CONNECTED, side.client);
    break_off(&side, 2);
    assert_int_equal(side.replies, 2);
    lab_until_count(&side.lab, &side.replies, 3);
    assert_int_equal(side.result, 0);
    side_close(&side);
}

/* Connected, and hangs: it is down until it says something. What is to be asked once is not repeated into its silence. */
/* A reply says of which request and version it is, and under which run and epoch it was given. */
static void what_a_reply_says(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    wire_set_run(side.there, 9, 3);
    wire_set_run(side.here, 9, 3);
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_int_equal(side.envelope.kind, WIRE_KIND(ACT_REPLY));
    assert_true(side.envelope.version == 7 && side.envelope.run == 9 && side.envelope.epoch == 3 && side.envelope.request != 0);
    side_close(&side);
}

static void count_push(const struct message *message, void *arg)
{
    assert_int_equal(message->envelope.kind, WIRE_KIND(DRAIN));
    (*(unsigned *)arg)++;
}

/* Two that are here are two: what is pushed to one comes to that one. */
static void pushed_to_one_of_two(void **state)
{
    unsigned pushed = 0;
    struct wire_client_options options = {.on_push = count_push, .arg = &pushed};
    Gantry__ActRequest act = GANTRY__ACT_REQUEST__INIT;
    Gantry__Drain drain = GANTRY__DRAIN__INIT;
    struct wire_client *second;
    struct error error = {0};
    struct side side;
    struct wire_call call = {.kind = WIRE_KIND(ACT), .body = &act.base, .deadline_ms = 60000, .on_reply = side_on_reply,
                             .arg = &side};
    uint64_t first;

    (void)state;
    side_open(&side, 0, 0);
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    first = side.peer;
    options.address = side.lab.ipc;
    assert_int_equal(wire_client_new(side.here, &options, &second, &error), 0);
    assert_int_equal(wire_call(second, &call, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 2);
    assert_true(side.peer != first);
    assert_int_equal(wire_server_stats(side.server)->peers, 2);
    drain.reason = (char *)"enough";
    assert_int_equal(wire_push(side.server, side.peer, WIRE_KIND(DRAIN), 0, &drain.base), 0);
    lab_until_count(&side.lab, &pushed, 1);
    assert_int_equal(wire_push(side.server, first, WIRE_KIND(DRAIN), 0, &drain.base), 0);
    lab_until_count(&side.lab, &side.pushes, 1);
    assert_int_equal(pushed, 1);
    wire_client_free(second);
    side_close(&side);
}

static void silent_server(void **state)
{
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    lab_until(&side.lab, &side.up);
    side.client->heard_ms -= WIRE_SILENT_MS;
    client_on_timer(&side.client->timer);
    assert_false(side.up);
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, 1);
    assert_true(side.up && side.result == 0);

    assert_int_equal(side_act(&side, 2, 60000, WIRE_ONCE, NULL), 0);
    assert_true(side.client->calls->sent == 1 && side.client->calls->repeat_ms == UINT64_MAX);
    side_close(&side);
}

static void free_when_gone(uint64_t peer, bool here, void *arg)
{
    struct wire_server **server = arg;

    (void)peer;
    if (!here)
        *server = wire_server_free(*server);
}

/* Who says nothing is gone, whoever pings stays. What the silent had asked takes no place any more; who works on it may go on.
 * Hearing of it, a daemon may free its server. */
static void silent_peer(void **state)
{
    struct wire_client_options options = {0};
    struct wire_server *other;
    struct wire_server_options serve = {.on_request = side_on_request, .on_peer = free_when_gone, .arg = &other};
    struct wire_client *lively, *silent[2];
    struct error error = {0};
    char address[sizeof((struct wire_lab *)0)->ipc + 8];
    struct side side;
    bool up = false;

    (void)state;
    side_open(&side, 0, 0);
    side.serve = side_keep;
    options = (struct wire_client_options) {.address = side.lab.ipc};
    assert_int_equal(wire_client_new(side.here, &options, &lively, &error), 0);
    snprintf(address, sizeof address, "%s.other", side.lab.ipc);
    serve.address = options.address = address;
    assert_int_equal(wire_server_new(side.there, &serve, &other, &error), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(wire_client_new(side.here, &options, &silent[i], &error), 0);
    while (!up) {
        uv_run(&side.lab.loop, UV_RUN_ONCE);
        up = wire_client_up(lively) && wire_client_up(silent[0]) && wire_client_up(silent[1]);
    }
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.n_kept, 1);
    assert_true(wire_server_stats(side.server)->peers == 2 && wire_server_stats(side.server)->outstanding == 1);
    side.client = wire_client_free(side.client);
    silent[0] = wire_client_free(silent[0]);
    silent[1] = wire_client_free(silent[1]);

    while (!side.peers_gone || other)
        uv_run(&side.lab.loop, UV_RUN_ONCE);
    assert_true(side.peers_here == 2 && side.peers_gone == 1);
    assert_true(wire_server_stats(side.server)->peers == 1 && wire_server_stats(side.server)->outstanding == 0);
    assert_int_equal(wire_reply(side.kept[0], NULL, NULL, 0), -EHOSTUNREACH);
    lively = wire_client_free(lively);
    side_close(&side);
}

/* Freed as soon as somebody comes: nothing is handed over then. */
static void freed_when_somebody_comes(uint64_t peer, bool here, void *arg)
{
    struct side *side = arg;

    (void)peer;
    assert_true(here);
    side->server = wire_server_free(side->server);
    side->peers_here++;
}

static void freed_by_its_first_peer(void **state)
{
    struct wire_server_options options = {.on_request = side_on_request, .on_peer = freed_when_somebody_comes};
    char address[sizeof((struct wire_lab *)0)->ipc + 8];
    struct side side;

    (void)state;
    side_open(&side, 0, 0);
    side.server = wire_server_free(side.server);
    snprintf(address, sizeof address, "%s.other", side.lab.ipc);
    options.address = address;
    options.arg = &side;
    assert_int_equal(wire_server_new(side.there, &options, &side.server, NULL), 0);
    assert_int_equal(wire_client_move(side.client, address, NULL, NULL), 0);
    side.peers_here = 0;
    assert_int_equal(side_act(&side, 1, 60000, 0, NULL), 0);
    lab_until_count(&side.lab, &side.peers_here, 1);
    assert_true(!side.requests && !side.server);
    side_close(&side);
}

static void say_busy(struct side *side, struct request *request)
{
    (void)side;
    wire_refuse(request, WIRE_STATUS(BUSY), "later");
}

/* A server that can do nothing gets what was asked, a fifth more, a burst and a trickle; without a budget it would be
 * hundreds. */
static void repetitions_have_a_budget(void **state)
{
    enum { CALLS = 48, FOR_MS = 1500 };
    uint64_t begun = clock_mono_ms();
    struct budget budget = budget_full(1000);
    struct side side;
    unsigned taken = 0;

    (void)state;
    while (budget_take(&budget, 1000))
        taken++;
    assert_true(taken == BUDGET_BURST && budget_take(&budget, 1125) && !budget_take(&budget, 1125));
    for (int i = 0; i < 11; i++)
        budget_on_request(&budget);
    assert_true(budget_take(&budget, 1125) && budget_take(&budget, 1125) && !budget_take(&budget, 1125));

    side_open(&side, CALLS, CALLS);
    side.serve = say_busy;
    for (uint32_t i = 0; i < CALLS; i++)
        assert_int_equal(side_act(&side, i, FOR_MS, 0, NULL), 0);
    lab_until_count(&side.lab, &side.replies, CALLS);
    assert_int_equal(side.result, -ETIMEDOUT);
    assert_true(side.requests > CALLS);
    assert_true(side.requests <= CALLS * (1 + BUDGET_PER_REQUEST) + BUDGET_BURST +
                                 BUDGET_PER_SECOND * (double)(clock_mono_ms() - begun) / 1000 + 1);
    side_close(&side);
}

static void address_taken(void **state)
{
    struct side side;
    struct wire_server *second = NULL;
    struct wire_server_options options = {.on_request = side_on_request};
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
        cmocka_unit_test(version_loading),
        cmocka_unit_test(run_and_epoch),
        cmocka_unit_test(stale_epoch_heals),
        cmocka_unit_test(server_restarts),
        cmocka_unit_test(lost_underway),
        cmocka_unit_test(nothing_into_a_dead_connection),
        cmocka_unit_test(handshakes_that_break),
        cmocka_unit_test(what_a_reply_says),
        cmocka_unit_test(pushed_to_one_of_two),
        cmocka_unit_test(silent_server),
        cmocka_unit_test(silent_peer),
        cmocka_unit_test(freed_by_its_first_peer),
        cmocka_unit_test(repetitions_have_a_budget),
        cmocka_unit_test(address_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
