/* Keys: strangers never get in, revoked ones are shut out with their next message, roles say what they may send. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <zmq.h>

#include "base/atomic_file.h"
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

/* Closing it is what a kill does: its file stays, nobody answers. */
static int listen_at(const char *dir, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", dir, name);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

/* Another test's process may be removing it at this moment. */
static bool is_gone(const char *path)
{
    for (int i = 0; i < 1000 && access(path, F_OK) == 0; i++)
        usleep(10 * 1000);
    return access(path, F_OK) < 0;
}

/* What killed processes left under /tmp goes with their run's directory, when the next run needs such a place; what lives
 * stays. */
static void socket_dirs_of_the_dead(void **state)
{
    enum { DEAD, LIVING, STARTED_AGAIN, NEXT, RUNS };
    struct wire_lab lab;
    struct error error = {0};
    char run[RUNS][256], dir[RUNS][ADDRESS_MAX];
    int living;

    (void)state;
    lab_open(&lab);
    for (int i = 0; i < RUNS; i++) {
        snprintf(run[i], sizeof run[i], "%s/%0100d", lab.dir, i);
        assert_int_equal(mkdir_p(run[i], 0700), 0);
        if (i != NEXT)
            assert_int_equal(address_socket_dir(run[i], dir[i], &error), 0);
    }
    close(listen_at(dir[DEAD], "learner.ipc"));
    living = listen_at(dir[LIVING], "learner.ipc");
    close(listen_at(dir[STARTED_AGAIN], "learner.ipc"));
    assert_int_equal(remove_tree(run[DEAD]), 0);
    assert_int_equal(remove_tree(run[LIVING]), 0);
    assert_int_equal(address_socket_dir(run[NEXT], dir[NEXT], &error), 0);
    assert_true(is_gone(dir[DEAD]));
    for (int i = LIVING; i < RUNS; i++)
        assert_int_equal(access(dir[i], F_OK), 0);

    close(living);
    assert_int_equal(remove_tree(run[STARTED_AGAIN]), 0);
    assert_int_equal(address_socket_dir(run[NEXT], dir[NEXT], &error), 0);
    assert_true(is_gone(dir[LIVING]));
    assert_true(is_gone(dir[STARTED_AGAIN]));
    address_socket_dir_leave(run[NEXT]);
    assert_int_equal(access(dir[NEXT], F_OK), -1);
    lab_close(&lab);
}

/* A run that was copied brings its link along: to the sockets of the run it was copied from, whose coordinator may be up. */
static void socket_dirs_of_a_copy(void **state)
{
    char run[2][256], dir[2][ADDRESS_MAX], found[ADDRESS_MAX] = "untouched", link[300], target[256] = "", old[300];
    struct error error = {0};
    struct wire_lab lab;

    (void)state;
    lab_open(&lab);
    for (int i = 0; i < 2; i++) {
        snprintf(run[i], sizeof run[i], "%s/%0100d", lab.dir, i);
        assert_int_equal(mkdir_p(run[i], 0700), 0);
    }
    assert_int_equal(address_socket_dir_find(run[0], found), -ENOENT);
    assert_int_equal(address_socket_dir(run[0], dir[0], &error), 0);
    assert_int_equal(address_socket_dir_find(run[0], found), 0);
    assert_string_equal(found, dir[0]);
    snprintf(link, sizeof link, "%s/sock", run[1]);
    assert_int_equal(symlink(dir[0], link), 0);
    assert_int_equal(address_socket_dir_find(run[1], found), -ENOENT);
    assert_string_equal(found, dir[0]);
    assert_int_equal(address_socket_dir(run[1], dir[1], &error), 0);
    assert_string_not_equal(dir[1], dir[0]);
    assert_true(readlink(link, target, sizeof target - 1) > 0);
    assert_string_equal(target, dir[1]);
    assert_int_equal(address_socket_dir_find(run[1], found), 0);
    assert_string_equal(found, dir[1]);
    address_socket_dir_leave(run[0]);
    assert_int_equal(access(dir[0], F_OK), -1);

    snprintf(link, sizeof link, "%s/short", lab.dir);                   /* moved to where no stand-in is needed */
    assert_int_equal(rename(run[1], link), 0);
    assert_int_equal(address_socket_dir(link, found, &error), 0);
    assert_string_not_equal(found, dir[1]);
    assert_int_equal(address_socket_dir_find(link, dir[0]), 0);
    assert_string_equal(found, dir[0]);
    snprintf(old, sizeof old, "%s/%0100d", lab.dir, 2);                 /* and away: what lies in it is no socket that fits */
    assert_int_equal(rename(link, old), 0);
    assert_int_equal(address_socket_dir_find(old, found), -ENOENT);
    assert_int_equal(address_socket_dir(old, dir[0], &error), 0);
    assert_string_not_equal(found, dir[0]);
    assert_int_equal(address_socket_dir_find(old, found), 0);
    assert_string_equal(found, dir[0]);
    address_socket_dir_leave(old);
    assert_int_equal(remove_tree(dir[0]), 0);
    assert_int_equal(remove_tree(dir[1]), 0);
    lab_close(&lab);
}

/* A run directory with a long path still gets sockets that fit, in a directory closed to others. */
static void socket_dirs(void **state)
{
    struct wire_lab lab;
    struct stat st;
    struct error error = {0};
    char dir[ADDRESS_MAX], address[ADDRESS_MAX], key[41], deep[256];
    int somebody;

    (void)state;
    lab_open(&lab);
    assert_int_equal(address_ipc(lab.dir, "coordinator", address, &error), 0);
    assert_non_null(strstr(address, "/sock/coordinator.ipc"));
    snprintf(deep, sizeof deep, "%s/%0100d", lab.dir, 7);
    assert_int_equal(mkdir_p(deep, 0700), 0);
    assert_int_equal(address_socket_dir(deep, dir, &error), 0);
    assert_true(strlen(dir) < 60);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(address_socket_dir(deep, dir, &error), 0);         /* again: the same */
    somebody = listen_at(dir, "learner.ipc");
    address_socket_dir_leave(deep);                                     /* somebody is there */
    assert_int_equal(access(dir, F_OK), 0);
    close(somebody);                                                    /* who has ended leaves his socket behind */
    address_socket_dir_leave(deep);
    assert_int_equal(access(dir, F_OK), -1);
    address_socket_dir_leave(deep);                                     /* no harm */

    assert_int_equal(address_lookup(lab.dir, "coordinator", address, key, &error), -ENOENT);
    assert_int_equal(address_publish(lab.dir, "coordinator", "tcp://127.0.0.1:7000", NULL, &error), 0);
    assert_int_equal(address_lookup(lab.dir, "coordinator", address, key, &error), 0);
    assert_string_equal(address, "tcp://127.0.0.1:7000");
    assert_string_equal(key, "");
    assert_int_equal(address_check("ipc://relative", NULL), -EINVAL);
    assert_int_equal(address_check("tcp://nowhere", NULL), -EINVAL);
    assert_int_equal(address_check("tcp://[::1]:77", NULL), 0);
    assert_int_equal(address_check("tcp://nowhere:*", NULL), 0);
    assert_int_equal(address_check("tcp://nowhere:http", NULL), -EINVAL);
    assert_int_equal(address_check("tcp://nowhere:65536", &error), -EINVAL);    /* not port 0 */
    assert_non_null(strstr(error.text, "they end at 65535"));
    address_advertised("tcp://10.1.2.3:70", address);
    assert_string_equal(address, "tcp://10.1.2.3:70");
    address_advertised("tcp://[::ffff:10.1.2.3]:70", address);
    assert_string_equal(address, "tcp://10.1.2.3:70");
    address_advertised("tcp://0.0.0.0:70", address);
    assert_null(strstr(address, "0.0.0.0"));
    assert_non_null(strstr(address, ":70"));
    address_resolve("tcp://localhost:*", address);
    assert_true(!strcmp(address, "tcp://127.0.0.1:*") || !strcmp(address, "tcp://[::1]:*"));
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(let_in), cmocka_unit_test(stranger), cmocka_unit_test(revoked), cmocka_unit_test(wrong_role),
        cmocka_unit_test(let_in_later), cmocka_unit_test(impostor), cmocka_unit_test(something_else_was_there),
        cmocka_unit_test(handshakes_that_take_long), cmocka_unit_test(told_the_list),
        cmocka_unit_test(socket_dirs),
        cmocka_unit_test(socket_dirs_of_a_copy),
        cmocka_unit_test(socket_dirs_of_the_dead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
