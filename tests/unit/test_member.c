/* Membership: joins late, beats, hears what changed, comes back after the coordinator's restart, leaves with a Bye. */
#include "tests/harness/town.h"

#include <errno.h>
#include <zmq.h>

#include "base/clock.h"
#include "wire/address.h"
#include "wire/member.h"
#include "wire/socket.h"

static void joins_and_beats(void **state)
{
    struct town town;
    Gantry__Versions versions = GANTRY__VERSIONS__INIT;

    (void)state;
    town_open(&town, NULL);
    lab_settle(&town.lab, 30);                  /* the coordinator comes later */
    assert_false(member_joined(town.member));
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.welcomes, 1);
    assert_int_equal(member_id(town.member), 4);
    assert_int_equal(town.here->epoch, 1);
    assert_int_equal(town.here->run, 99);
    assert_int_equal(town.endpoints, 1);
    lab_until_count(&town.lab, &town.beats, 3);
    town.revoke = 17;
    lab_until_count(&town.lab, &town.revoked, 1);
    assert_int_equal(wire_push(town.server, town.peer, WIRE_KIND(VERSIONS), 0, &versions.base), 0);
    lab_until_count(&town.lab, &town.pushes, 1);
    town.drain = true;
    lab_until_count(&town.lab, &town.drains, 1);
    lab_until_count(&town.lab, &town.beats, town.beats + 3);
    assert_int_equal(town.drains, 1);           /* said once */
    assert_true(member_draining(town.member));
    assert_false(member_sent_away(town.member));
    town.sent_away = true;
    lab_until_count(&town.lab, &town.beats, town.beats + 2);
    assert_true(member_sent_away(town.member));
    assert_int_equal(town.hellos, 1);
    town_close(&town);
}

/* The last server goes: a list of none is a list, too, and is said once. */
static void all_servers_leave(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.beats, 2);
    town.nobody = true;
    lab_until_count(&town.lab, &town.none, 1);
    lab_until_count(&town.lab, &town.beats, town.beats + 3);
    assert_int_equal(town.none, 1);
    town_close(&town);
}

/* A beat that is not answered is not followed by others: they would only wait behind it. */
static void one_beat_at_a_time(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    town_coordinator(&town, 1);
    town.mute = true;
    lab_until_count(&town.lab, &town.beats, 1);
    for (int i = 0; i < 5; i++)
        member_beat(town.member);
    member_leave(town.member, "test", 60000, town_on_left, &town);
    lab_until_count(&town.lab, &town.left, 1);          /* what was sent before has come before */
    assert_int_equal(town.beats, 1);
    town_close(&town);
}

/* The coordinator is killed and comes back under a new epoch: Hello again, with the leases that are still played. */
static void coordinator_restarts(void **state)
{
    struct town town;
    Gantry__Versions versions = GANTRY__VERSIONS__INIT;

    (void)state;
    town_open(&town, NULL);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.beats, 2);
    assert_int_equal(town.held_leases, 0);
    town.server = wire_server_free(town.server);
    while (town.up)
        uv_run(&town.lab.loop, UV_RUN_ONCE);
    town_coordinator(&town, 2);
    lab_until_count(&town.lab, &town.welcomes, 2);
    assert_int_equal(town.again, 1);
    assert_int_equal(town.here->epoch, 2);
    assert_int_equal(town.held_leases, 1);
    wire_set_run(town.there, 99, 1);            /* what the life before it still says is not listened to */
    assert_int_equal(wire_push(town.server, town.peer, WIRE_KIND(VERSIONS), 0, &versions.base), 0);
    wire_set_run(town.there, 99, 2);
    assert_int_equal(wire_push(town.server, town.peer, WIRE_KIND(VERSIONS), 0, &versions.base), 0);
    lab_until_count(&town.lab, &town.beats, town.beats + 3);
    assert_int_equal(town.pushes, 1);
    town_close(&town);
}

/* The same coordinator says that it does not know us (it gave us up for dead). */
static void not_known(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.beats, 1);
    town.knows = false;
    lab_until_count(&town.lab, &town.welcomes, 2);
    town_close(&town);
}

static void leaves(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.beats, 1);
    member_leave(town.member, "SIGTERM", 60000, town_on_left, &town);
    lab_until_count(&town.lab, &town.left, 1);
    assert_int_equal(town.byes, 1);
    town.beats = 0;
    lab_settle(&town.lab, 100);
    assert_int_equal(town.beats, 0);
    town_close(&town);
}

/* Nobody answers the Bye: leaving ends by its deadline. */
static void leaves_alone(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    member_leave(town.member, "SIGTERM", 50, town_on_left, &town);
    lab_until_count(&town.lab, &town.left, 1);
    assert_int_equal(town.byes, 0);
    town_close(&town);
}

static void other_run(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    wire_set_run(town.here, 55, 1);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.refused, 1);
    assert_int_equal(town.refusal, -EACCES);
    assert_non_null(strstr(town.why, "this is run 0000000000000063, the message is of run 0000000000000037"));
    assert_int_equal(town.hellos, 0);
    town_close(&town);
}

/* An endpoint file by its name, which says another place once the coordinator has moved. */
static void joins_by_a_file(void **state)
{
    struct town town;
    struct error error = {0};
    struct member_options options = {.build = "test", .slots = 8, .on_welcome = town_on_welcome, .fill_heartbeat = town_fill_heartbeat,
                                     .on_refused = town_on_refused, .on_state = town_on_state, .arg = &town};
    char join[200], moved[sizeof town.lab.ipc + 8];

    (void)state;
    memset(&town, 0, sizeof town);
    lab_open(&town.lab);
    assert_int_equal(wire_new(&town.lab.loop, GANTRY__ROLE__ROLE_COORDINATOR, &town.there), 0);
    assert_int_equal(wire_new(&town.lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &town.here), 0);
    snprintf(join, sizeof join, "file:%s/endpoints/coordinator", town.lab.dir);
    options.join = join;
    assert_int_equal(member_new(town.here, &options, &town.member, &error), 0);     /* it is waited for */
    assert_string_equal(wire_client_address(member_client(town.member)), "");
    lab_settle(&town.lab, 100);
    assert_int_equal(address_publish(town.lab.dir, "coordinator", town.lab.ipc, NULL, &error), 0);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.beats, 2);

    town.server = wire_server_free(town.server);
    snprintf(moved, sizeof moved, "%s.moved", town.lab.ipc);
    assert_int_equal(address_publish(town.lab.dir, "coordinator", moved, NULL, &error), 0);
    snprintf(town.lab.ipc, sizeof town.lab.ipc, "%.80s", moved);
    town_coordinator(&town, 2);
    lab_until_count(&town.lab, &town.welcomes, 2);
    town_close(&town);
}

/* A wrong port, a closed one, a coordinator that is not up: whoever waits for it is told, once, and goes on waiting. */
static void says_that_nobody_answers(void **state)
{
    struct town town;

    (void)state;
    town_open(&town, NULL);
    town.up = true;
    lab_until_count(&town.lab, &town.states, 1);
    assert_false(town.up);
    assert_int_equal(member_id(town.member), 0);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.welcomes, 1);
    assert_true(town.up && town.states == 2);
    town_close(&town);
}

/* What the file says when it comes is judged as what it would have said at the start; without it there is nobody to say Bye to. */
static void waits_for_a_file_in_vain(void **state)
{
    struct town town;
    struct error error = {0};
    struct member_options options = {.build = "test", .on_refused = town_on_refused, .arg = &town};
    char join[200];

    (void)state;
    memset(&town, 0, sizeof town);
    lab_open(&town.lab);
    assert_int_equal(wire_new(&town.lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &town.here), 0);
    snprintf(join, sizeof join, "file:%s/endpoints/coordinator", town.lab.dir);
    options.join = join;
    assert_int_equal(member_new(town.here, &options, &town.member, &error), 0);
    member_leave(town.member, "SIGTERM", 60000, town_on_left, &town);
    assert_int_equal(town.left, 1);
    town.member = member_free(town.member);

    assert_int_equal(member_new(town.here, &options, &town.member, &error), 0);
    assert_int_equal(address_publish(town.lab.dir, "coordinator", "tcp://127.0.0.1:1",
                                     "0000000000000000000000000000000000000000", &error), 0);
    lab_until_count(&town.lab, &town.refused, 1);
    assert_int_equal(town.refusal, -EACCES);
    assert_non_null(strstr(town.why, "tcp"));
    town_close(&town);
}

/* Everything that comes is answered in another protocol. */
static void answer_in_another_protocol(void *socket)
{
    struct message *message = NULL;
    struct wire_origin origin;
    struct error error;
    struct outgoing *out;

    if (message_receive(socket, true, &origin, &message, &error) < 0)
        return;
    message_free(message);
    origin.envelope.protocol = 2 << 16;
    origin.envelope.kind++;
    assert_int_equal(outgoing_new(&origin.envelope, NULL, NULL, 0, &out), 0);
    (void)outgoing_send(out, socket, origin.peer, origin.peer_size);
    outgoing_free(out);
}

/* The coordinator is killed, another build is installed, and it comes back: who plays on hears of it, too, not only who joins. */
static void coordinator_of_another_protocol(void **state)
{
    struct town town;
    struct error error = {0};
    char address[ADDRESS_MAX];
    void *socket;

    (void)state;
    town_open(&town, NULL);
    town_coordinator(&town, 1);
    lab_until_count(&town.lab, &town.beats, 2);
    town.server = wire_server_free(town.server);
    while (town.up)
        uv_run(&town.lab.loop, UV_RUN_ONCE);
    assert_int_equal(wire_socket_bind(town.there, town.lab.ipc, 0, WIRE_FRAME_MAX, &socket, address, &error), 0);
    for (uint64_t begin_ms = clock_mono_ms(); !town.refused && clock_mono_ms() - begin_ms < 20000;) {
        uv_run(&town.lab.loop, UV_RUN_ONCE);
        answer_in_another_protocol(socket);
    }
    assert_int_equal(town.refusal, -EPROTO);
    assert_non_null(strstr(town.why, "protocol 2.0"));
    zmq_close(socket);
    town_close(&town);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_and_beats), cmocka_unit_test(coordinator_restarts), cmocka_unit_test(not_known),
        cmocka_unit_test(leaves),          cmocka_unit_test(leaves_alone),         cmocka_unit_test(other_run),
        cmocka_unit_test(says_that_nobody_answers), cmocka_unit_test(all_servers_leave), cmocka_unit_test(one_beat_at_a_time),
        cmocka_unit_test(joins_by_a_file), cmocka_unit_test(waits_for_a_file_in_vain),
        cmocka_unit_test(coordinator_of_another_protocol),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
