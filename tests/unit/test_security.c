/* Keys: strangers never get in, revoked ones are shut out with their next message, roles say what they may send. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <zmq.h>

#include "proto/policy.pb-c.h"
#include "wire/address.h"
#include "wire/client_internal.h"
#include "wire/security.h"

struct fort {
    struct wire_lab lab;
    struct wire *inside, *outside;
    struct wire_server *server;
    struct wire_client *client;
    char allowed[128], server_key[SECURITY_KEY_SIZE], client_key[SECURITY_KEY_SIZE];
    unsigned requests, replies;
    Gantry__Role role;
    int result;
    char user[SECURITY_KEY_SIZE], text[WIRE_ERROR_MAX];
};

static void on_request(struct request *request, void *arg)
{
    struct fort *fort = arg;
    Gantry__ActReply reply = GANTRY__ACT_REPLY__INIT;

    fort->requests++;
    fort->role = request->role;
    snprintf(fort->user, sizeof fort->user, "%s", request->user);
    wire_reply(request, &reply.base, NULL, 0);
}

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct fort *fort = arg;

    fort->replies++;
    fort->result = result;
    snprintf(fort->text, sizeof fort->text, "%s", reply ? reply->envelope.error : "");
}

static void fort_open(struct fort *fort, bool let_in)
{
    struct wire_server_options server = {.address = "tcp://127.0.0.1:*", .on_request = on_request, .arg = fort};
    struct wire_client_options client = {.arg = fort};
    struct error error = {0};
    char path[160];

    memset(fort, 0, sizeof *fort);
    lab_open(&fort->lab);
    snprintf(fort->allowed, sizeof fort->allowed, "%s/allowed", fort->lab.dir);
    assert_int_equal(security_key_create(fort->lab.dir, "actor", fort->server_key, &error), 0);
    assert_int_equal(security_key_create(fort->lab.dir, "worker", fort->client_key, &error), 0);
    assert_int_equal(security_key_create(fort->lab.dir, "worker", fort->client_key, &error), -EEXIST);
    assert_int_equal(security_allow(fort->allowed, GANTRY__ROLE__ROLE_ACTOR, fort->server_key, "actor@here", &error), 0);
    if (let_in)
        assert_int_equal(security_allow(fort->allowed, GANTRY__ROLE__ROLE_ENV_WORKER, fort->client_key, "worker@there", &error),
                         0);

    assert_int_equal(wire_new(&fort->lab.loop, GANTRY__ROLE__ROLE_ACTOR, &fort->inside), 0);
    assert_int_equal(wire_new(&fort->lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &fort->outside), 0);
    snprintf(path, sizeof path, "%s/actor.key", fort->lab.dir);
    assert_int_equal(security_start(fort->inside, path, fort->allowed, &error), 0);
    snprintf(path, sizeof path, "%s/worker.key", fort->lab.dir);
    assert_int_equal(security_start(fort->outside, path, NULL, &error), 0);
    if (wire_server_new(fort->inside, &server, &fort->server, &error) < 0)
        fail_msg("%s", error.text);
    client.address = wire_server_address(fort->server);
    client.server_key = security_public_key(fort->inside->security);
    assert_string_equal(client.server_key, fort->server_key);
    if (wire_client_new(fort->outside, &client, &fort->client, &error) < 0)
        fail_msg("%s", error.text);
}

static void fort_close(struct fort *fort)
{
    fort->client = wire_client_free(fort->client);
    fort->server = wire_server_free(fort->server);
    uv_run(&fort->lab.loop, UV_RUN_NOWAIT);
    fort->outside = wire_free(fort->outside);
    fort->inside = wire_free(fort->inside);
    lab_close(&fort->lab);
}

static void call(struct fort *fort, Gantry__Kind kind, uint32_t deadline_ms)
{
    Gantry__ActRequest act = GANTRY__ACT_REQUEST__INIT;
    Gantry__Committed committed = GANTRY__COMMITTED__INIT;
    struct wire_call call = {
        .kind = kind,
        .body = kind == WIRE_KIND(ACT) ? &act.base : &committed.base,
        .deadline_ms = deadline_ms,
        .on_reply = on_reply,
        .arg = fort,
    };
    unsigned before = fort->replies;

    assert_int_equal(wire_call(fort->client, &call, NULL), 0);
    lab_until_count(&fort->lab, &fort->replies, before + 1);
}

static void let_in(void **state)
{
    struct fort fort;

    (void)state;
    fort_open(&fort, true);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, 0);
    assert_int_equal(fort.role, GANTRY__ROLE__ROLE_ENV_WORKER);
    assert_string_equal(fort.user, fort.client_key);
    fort_close(&fort);
}

static void stranger(void **state)
{
    struct fort fort;

    (void)state;
    fort_open(&fort, false);
    call(&fort, WIRE_KIND(ACT), 5000);
    assert_int_equal(fort.result, -EACCES);
    assert_true(!fort.requests && !wire_server_stats(fort.server)->refused);        /* not as far as a message */
    fort_close(&fort);
}

/* The connection stands; the very next message is refused; let in again, the one after it passes. */
static void revoked(void **state)
{
    struct fort fort;
    struct error error = {0};

    (void)state;
    fort_open(&fort, true);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, 0);
    assert_int_equal(security_revoke(fort.allowed, "worker@there", &error), 0);
    assert_int_equal(security_revoke(fort.allowed, "worker@there", &error), -ENOENT);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, -EACCES);
    assert_non_null(strstr(fort.text, "not let in"));
    assert_int_equal(fort.requests, 1);
    assert_int_equal(security_allow(fort.allowed, GANTRY__ROLE__ROLE_ENV_WORKER, fort.client_key, "worker@there", &error), 0);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, 0);
    assert_int_equal(unlink(fort.allowed), 0);          /* no list: nobody */
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, -EACCES);
    fort_close(&fort);
}

/* Refused at the door, a client knocks again by itself: let in later, it is served. */
static void let_in_later(void **state)
{
    struct fort fort;
    struct error error = {0};

    (void)state;
    fort_open(&fort, false);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, -EACCES);
    assert_int_equal(security_allow(fort.allowed, GANTRY__ROLE__ROLE_ENV_WORKER, fort.client_key, "worker@there", &error), 0);
    do
        call(&fort, WIRE_KIND(ACT), 60000);
    while (fort.result == -EACCES);
    assert_int_equal(fort.result, 0);
    fort_close(&fort);
}

/* Somebody else listens there: our client notices, and says so, though that one would let us in. */
static void impostor(void **state)
{
    struct wire_client_options client = {0};
    struct fort fort;
    struct error error = {0};
    char secret[SECURITY_KEY_SIZE], other[SECURITY_KEY_SIZE];

    (void)state;
    fort_open(&fort, true);
    fort.client = wire_client_free(fort.client);
    assert_int_equal(security_keypair(other, secret), 0);
    client.address = wire_server_address(fort.server);
    client.server_key = other;
    assert_int_equal(wire_client_new(fort.outside, &client, &fort.client, &error), 0);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, -EKEYREJECTED);
    assert_int_equal(fort.requests, 0);
    fort_close(&fort);
}

/* What answers a handshake with other words, as a page for people would. */
static void speak_otherwise(struct fort *fort, uint16_t port)
{
    static const char words[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, talk;

    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    while (bind(listener, (struct sockaddr *)&at, sizeof at) < 0)
        lab_settle(&fort->lab, 20);
    assert_int_equal(listen(listener, 8), 0);
    while ((talk = accept(listener, NULL, NULL)) < 0)
        lab_settle(&fort->lab, 20);
    close(listener);
    assert_int_equal(send(talk, words, sizeof words - 1, MSG_NOSIGNAL), sizeof words - 1);
    lab_settle(&fort->lab, 200);
    close(talk);
}

/* Who was spoken to in another language once does not stay away for ever. */
static void something_else_was_there(void **state)
{
    struct wire_server_options server = {.on_request = on_request};
    struct fort fort;
    struct error error = {0};
    char address[ADDRESS_MAX];

    (void)state;
    fort_open(&fort, true);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, 0);
    snprintf(address, sizeof address, "%s", wire_server_address(fort.server));
    fort.server = wire_server_free(fort.server);
    speak_otherwise(&fort, (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    server.address = address;
    server.arg = &fort;
    assert_int_equal(wire_server_new(fort.inside, &server, &fort.server, &error), 0);
    call(&fort, WIRE_KIND(ACT), 20000);
    assert_int_equal(fort.result, 0);
    fort_close(&fort);
}

static int handshake_limit(const struct fort *fort)
{
    int ms = 0;
    size_t n = sizeof ms;

    assert_int_equal(zmq_getsockopt(zsock_socket(fort->client->zsock), ZMQ_HANDSHAKE_IVL, &ms, &n), 0);
    return ms;
}

/* The first ends soon, so that one which lost a message in a cut costs little; the next may take longer, and the one after a
 * success not. */
static void handshakes_that_take_long(void **state)
{
    struct fort fort;

    (void)state;
    fort_open(&fort, true);
    for (int ms = WIRE_HANDSHAKE_FIRST_MS, i = 0; i < 4; i++, ms = MIN(2 * ms, WIRE_HANDSHAKE_MOST_MS)) {
        assert_int_equal(handshake_limit(&fort), ms);
        fort.client->reached_ms = clock_mono_ms() - (uint64_t)ms;
        client_on_connection(MONITOR_BROKEN, fort.client);
        client_on_timer(&fort.client->timer);
    }
    assert_int_equal(handshake_limit(&fort), WIRE_HANDSHAKE_MOST_MS);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, 0);               /* three of them are no wrong key */
    client_on_connection(MONITOR_DISCONNECTED, fort.client);
    client_on_timer(&fort.client->timer);
    assert_int_equal(handshake_limit(&fort), WIRE_HANDSHAKE_FIRST_MS);
    call(&fort, WIRE_KIND(ACT), 60000);
    assert_int_equal(fort.result, 0);
    fort_close(&fort);
}

/* A server that is told the list: nobody before, then those in it, and no one who has been taken out. */
static void told_the_list(void **state)
{
    struct security_entry entry = {.role = GANTRY__ROLE__ROLE_ENV_WORKER};
    struct fort fort;
    struct error error = {0};
    Gantry__Role role;
    char path[160];
    uint64_t digest;

    (void)state;
    fort_open(&fort, true);
    digest = security_list_digest(fort.inside->security);
    assert_true(digest != 0);
    assert_false(security_wants_list(fort.inside->security));
    assert_int_equal(security_list_digest(fort.outside->security), 0);
    assert_int_equal(security_revoke(fort.allowed, "worker@there", &error), 0);
    assert_true(security_list_digest(fort.inside->security) != digest);

    snprintf(path, sizeof path, "%s/worker.key", fort.lab.dir);
    assert_int_equal(security_start(fort.outside, path, "", &error), 0);
    assert_true(security_wants_list(fort.outside->security));
    assert_int_equal(security_role_of(fort.outside->security, fort.client_key, &role), -EACCES);
    memcpy(entry.key, fort.client_key, sizeof entry.key);
    assert_int_equal(security_set_list(fort.outside->security, &entry, 1, 7), 0);
    assert_int_equal(security_role_of(fort.outside->security, fort.client_key, &role), 0);
    assert_int_equal(role, GANTRY__ROLE__ROLE_ENV_WORKER);
    assert_int_equal(security_list_digest(fort.outside->security), 7);
    assert_int_equal(security_set_list(fort.outside->security, NULL, 0, 8), 0);
    assert_int_equal(security_role_of(fort.outside->security, fort.client_key, &role), -EACCES);
    fort_close(&fort);
}

static void wrong_role(void **state)
{
    struct fort fort;

    (void)state;
    fort_open(&fort, true);
    call(&fort, WIRE_KIND(COMMITTED), 60000);
    assert_int_equal(fort.result, -EACCES);
    assert_non_null(strstr(fort.text, "role env_worker may not send committed"));
    assert_int_equal(fort.requests, 0);
    fort_close(&fort);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(let_in), cmocka_unit_test(stranger), cmocka_unit_test(revoked), cmocka_unit_test(wrong_role),
        cmocka_unit_test(let_in_later), cmocka_unit_test(impostor), cmocka_unit_test(something_else_was_there),
        cmocka_unit_test(handshakes_that_take_long), cmocka_unit_test(told_the_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
