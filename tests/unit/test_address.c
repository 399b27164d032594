/* Where sockets live: addresses that can be, directories that are ours and closed, endpoint files; and what is said of an address
 * at which nobody can listen. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <zmq.h>

#include "base/atomic_file.h"
#include "wire/address.h"
#include "wire/security.h"
#include "wire/socket.h"

/* ---- directories ---------------------------------------------------------------------------------------------------------- */

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
    assert_int_equal(address_socket_dir("10.0.0.1:5555", dir[0], &error), -ENOENT);
    assert_non_null(strstr(error.text, "an address is tcp://HOST:PORT"));
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
    char dir[ADDRESS_MAX], address[ADDRESS_MAX], deep[256], link[300];
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
    snprintf(link, sizeof link, "%s/sock", deep);
    assert_int_equal(lstat(link, &st), -1);
    address_socket_dir_leave(deep);                                     /* no harm */
    lab_close(&lab);
}

/* A run directory whose path has so many bytes. */
static void run_of(const struct wire_lab *lab, size_t length, char ret[256])
{
    snprintf(ret, 256, "%s/%0*d", lab->dir, (int)(length - strlen(lab->dir) - 1), 1);
    assert_int_equal(strlen(ret), length);
    assert_int_equal(mkdir_p(ret, 0700), 0);
}

/* The longest path with sockets of its own, and one byte more. What there is no place for is said. */
static void the_longest_path(void **state)
{
    char run[256], dir[ADDRESS_MAX], found[ADDRESS_MAX], expected[300], name[ADDRESS_IPC_PATH_MAX], address[ADDRESS_MAX] = "mine";
    struct error error = {0};
    struct wire_lab lab;

    (void)state;
    lab_open(&lab);
    run_of(&lab, ADDRESS_RUN_DIR_MAX, run);
    snprintf(expected, sizeof expected, "%s/sock", run);
    assert_int_equal(address_socket_dir(run, dir, &error), 0);
    assert_string_equal(dir, expected);
    assert_int_equal(address_socket_dir_find(run, found), 0);
    assert_string_equal(found, expected);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(address_ipc(run, name, address, &error), -ENAMETOOLONG);
    assert_string_equal(address, "mine");
    address_socket_dir_leave(run);                                      /* the run's own stays */
    assert_int_equal(access(dir, F_OK), 0);

    run_of(&lab, ADDRESS_RUN_DIR_MAX + 1, run);
    assert_int_equal(address_socket_dir(run, dir, &error), 0);
    assert_int_equal(strncmp(dir, "/tmp/gantry-", 12), 0);
    address_socket_dir_leave(run);
    snprintf(run, sizeof run, "%s/absent", lab.dir);
    assert_int_equal(address_socket_dir(run, address, &error), -ENOENT);
    assert_int_equal(address_ipc(run, "a", address, &error), -ENOENT);
    assert_int_equal(address_socket_dir_find(run, address), -ENOENT);
    assert_string_equal(address, "mine");
    lab_close(&lab);
}

/* Not a directory, a way to somewhere else, or somebody else's: nothing is put there. One that was open is closed. */
static void directories_of_others(void **state)
{
    char run[2][256], sock[300], dir[ADDRESS_MAX], untouched[ADDRESS_MAX] = "mine";
    struct error error = {0};
    struct wire_lab lab;
    struct stat st;

    (void)state;
    lab_open(&lab);
    run_of(&lab, ADDRESS_RUN_DIR_MAX, run[0]);
    run_of(&lab, 150, run[1]);
    snprintf(sock, sizeof sock, "%s/sock", run[0]);
    assert_int_equal(mkdir(sock, 0701), 0);
    assert_int_equal(address_socket_dir(run[0], dir, &error), 0);
    assert_int_equal(stat(sock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(rmdir(sock), 0);
    assert_int_equal(atomic_file_write(sock, "", 0), 0);
    assert_int_equal(address_socket_dir(run[0], untouched, &error), -EPERM);
    assert_non_null(strstr(error.text, "not a directory of this user"));
    assert_int_equal(unlink(sock), 0);
    assert_int_equal(symlink(lab.dir, sock), 0);
    assert_int_equal(address_socket_dir(run[0], untouched, &error), -EPERM);
    assert_true(lstat(sock, &st) == 0 && S_ISLNK(st.st_mode));          /* no stand-in: a person's own */

    assert_int_equal(address_socket_dir(run[1], dir, &error), 0);
    address_socket_dir_leave(run[1]);
    assert_int_equal(symlink(lab.dir, dir), 0);                         /* who knows the path was there first */
    assert_int_equal(address_socket_dir(run[1], untouched, &error), -EPERM);
    assert_int_equal(unlink(dir), 0);
    if (geteuid() == 0) {
        assert_int_equal(mkdir(dir, 0777), 0);
        assert_int_equal(chown(dir, 1, 1), 0);
        assert_int_equal(address_socket_dir(run[1], untouched, &error), -EPERM);
        assert_int_equal(rmdir(dir), 0);
    }
    assert_string_equal(untouched, "mine");
    lab_close(&lab);
}

/* What is swept has a stand-in's name, and what is replaced is dead: nothing else is ours to remove. */
static void what_is_not_swept(void **state)
{
    static const struct { const char *begin, *end; } names[] = {
        {"gantry", "0f"}, {"gantry", ""}, {"gantry", "g"}, {"gantri", "f"},
    };
    char run[256], dir[ADDRESS_MAX], path[ARRAY_SIZE(names)][64], link[300], shorter[64];
    struct error error = {0};
    struct wire_lab lab;
    int living;

    (void)state;
    lab_open(&lab);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path[i], sizeof path[i], "/tmp/%s-%u-%015d%s", names[i].begin, (unsigned)geteuid(), (int)getpid(), names[i].end);
        assert_int_equal(mkdir(path[i], 0700), 0);
        snprintf(link, sizeof link, "%s/run", path[i]);
        assert_int_equal(symlink("/nowhere/at/all", link), 0);
    }
    run_of(&lab, 150, run);
    snprintf(link, sizeof link, "%s/sock", run);
    assert_int_equal(mkdir(link, 0700), 0);
    snprintf(shorter, sizeof shorter, "%s/s", lab.dir);
    assert_int_equal(symlink(link, shorter), 0);
    living = listen_at(shorter, "learner.ipc");                         /* the run was moved while it was up */
    assert_int_equal(address_socket_dir(run, dir, &error), 0);
    assert_int_equal(strncmp(dir, "/tmp/gantry-", 12), 0);
    snprintf(link, sizeof link, "%s/sock/learner.ipc", run);
    assert_int_equal(access(link, F_OK), 0);
    close(living);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        assert_int_equal(access(path[i], F_OK), 0);
        assert_int_equal(remove_tree(path[i]), 0);
    }
    assert_int_equal(remove_tree(dir), 0);
    lab_close(&lab);
}

/* ---- addresses ------------------------------------------------------------------------------------------------------------ */

static void addresses(void **state)
{
    static const char *const good[] = {
        "ipc:///a", "tcp://[::1]:77", "tcp://*:5600", "tcp://nowhere:*", "tcp://nowhere:0", "tcp://a:65535",
    };
    static const char *const bad[] = {
        "", "ipc://", "ipc:///", "ipc://relative", "ipc:/a", "tcp://", "tcp:77", "tcp://nowhere", "tcp://:77", "tcp://:*",
        "tcp://nowhere:", "tcp://nowhere:http", "tcp://nowhere:7x", "tcp://nowhere:**", "udp://nowhere:7", "/a",
    };
    static const char *const no_port[] = {"tcp://a:65536", "tcp://a:4294967297", "tcp://a:18446744073709551617"};
    char text[ADDRESS_MAX + 1];
    struct error error = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(address_check(good[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(address_check(bad[i], &error), -EINVAL);
        assert_non_null(strstr(error.text, "is not an address"));
        assert_non_null(strstr(error.text, bad[i]));
    }
    for (size_t i = 0; i < ARRAY_SIZE(no_port); i++) {                  /* not port 0, as libzmq takes it */
        assert_int_equal(address_check(no_port[i], &error), -EINVAL);
        assert_non_null(strstr(error.text, strrchr(no_port[i], ':') + 1));
        assert_non_null(strstr(error.text, "they end at 65535"));
    }
    assert_int_equal(address_check(NULL, &error), -EINVAL);
    snprintf(text, sizeof text, "tcp://%0*d:7", ADDRESS_MAX - 9, 0);
    assert_int_equal(strlen(text), ADDRESS_MAX - 1);
    assert_int_equal(address_check(text, &error), 0);
    snprintf(text, sizeof text, "tcp://%0*d:7", ADDRESS_MAX - 8, 0);
    assert_int_equal(address_check(text, &error), -EINVAL);
    assert_non_null(strstr(error.text, "shorter than 256 bytes"));
    snprintf(text, sizeof text, "ipc:///%0*d", ADDRESS_IPC_PATH_MAX - 1, 0);
    assert_int_equal(address_check(text, &error), 0);
    snprintf(text, sizeof text, "ipc:///%0*d", ADDRESS_IPC_PATH_MAX, 0);
    assert_int_equal(address_check(text, &error), -ENAMETOOLONG);
    assert_non_null(strstr(error.text, "has 108 bytes"));
}

/* What others connect to, and what is bound. */
static void names_and_numbers(void **state)
{
    static const char *const themselves[] = {"tcp://10.1.2.3:70", "tcp://[::1]:70", "ipc:///run/[::]:70", "ipc:///0.0.0.0:70"};
    static const char *const wildcards[] = {"tcp://0.0.0.0:70", "tcp://[::]:70", "tcp://*:70"};
    char address[ADDRESS_MAX], name[128] = "", expected[ADDRESS_MAX];

    (void)state;
    assert_int_equal(gethostname(name, sizeof name - 1), 0);
    snprintf(expected, sizeof expected, "tcp://%s:70", name);
    for (size_t i = 0; i < ARRAY_SIZE(wildcards); i++) {
        snprintf(address, sizeof address, "%s", wildcards[i]);
        address_advertised(address, address);
        assert_string_equal(address, expected);
    }
    for (size_t i = 0; i < ARRAY_SIZE(themselves); i++) {
        address_advertised(themselves[i], address);
        assert_string_equal(address, themselves[i]);
        address_resolve(themselves[i], address);
        assert_string_equal(address, themselves[i]);
    }
    address_advertised("tcp://[::ffff:10.1.2.3]:70", address);
    assert_string_equal(address, "tcp://10.1.2.3:70");
    address_resolve("tcp://*:70", address);
    assert_string_equal(address, "tcp://*:70");
    address_resolve("tcp://localhost:*", address);
    assert_true(!strcmp(address, "tcp://127.0.0.1:*") || !strcmp(address, "tcp://[::1]:*"));
}

static void endpoint_files(void **state)
{
    static const char key_text[] = "0123456789012345678901234567890123456789";
    static const struct { const char *text; int result; } damaged[] = {
        {"", -EBADMSG}, {"\n", -EBADMSG}, {"tcp://a:1\n", -EBADMSG}, {"tcp://a:1 short\n", -EBADMSG},
        {"tcp://a:1 01234567890123456789012345678901234567890\n", -EBADMSG}, {"tcp://a -\n", -EINVAL},
    };
    char address[ADDRESS_MAX] = "mine", key[41] = "own", path[SCRATCH_PATH + 32];
    struct error error = {0};
    struct wire_lab lab;

    (void)state;
    lab_open(&lab);
    assert_int_equal(address_lookup(lab.dir, "coordinator", address, key, &error), -ENOENT);
    assert_non_null(strstr(error.text, "is the coordinator of this run up?"));
    assert_int_equal(address_publish(lab.dir, "a/b", "tcp://a:1", NULL, &error), -ENAMETOOLONG);
    assert_int_equal(address_lookup(lab.dir, "a/b", address, key, &error), -ENAMETOOLONG);
    snprintf(path, sizeof path, "%s/endpoints", lab.dir);
    assert_int_equal(mkdir_p(path, 0700), 0);
    snprintf(path, sizeof path, "%s/endpoints/actor-1", lab.dir);
    for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
        assert_int_equal(atomic_file_write(path, damaged[i].text, strlen(damaged[i].text)), 0);
        assert_int_equal(address_lookup(lab.dir, "actor-1", address, key, &error), damaged[i].result);
    }
    assert_string_equal(address, "mine");
    assert_string_equal(key, "own");
    assert_int_equal(address_publish(path, "a", "tcp://a:1", NULL, &error), -ENOTDIR);
    assert_non_null(strstr(error.text, "cannot make"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(address_publish(lab.dir, "actor-1", "tcp://a:1", NULL, &error), -EISDIR);
    assert_non_null(strstr(error.text, "cannot write"));

    assert_int_equal(address_publish(lab.dir, "coordinator", "tcp://127.0.0.1:7000", NULL, &error), 0);
    assert_int_equal(address_lookup(lab.dir, "coordinator", address, key, &error), 0);
    assert_string_equal(address, "tcp://127.0.0.1:7000");
    assert_string_equal(key, "");
    assert_int_equal(address_publish(lab.dir, "coordinator", "tcp://a:1", key_text, &error), 0);
    assert_int_equal(address_lookup(lab.dir, "coordinator", address, key, &error), 0);
    assert_string_equal(address, "tcp://a:1");
    assert_string_equal(key, key_text);
    lab_close(&lab);
}

/* ---- sockets -------------------------------------------------------------------------------------------------------------- */

static int option(void *socket, int name)
{
    int value = -1;
    size_t n = sizeof value;

    assert_int_equal(zmq_getsockopt(socket, name, &value, &n), 0);
    return value;
}

/* Where nobody can listen is said, by the one who tries, too; a socket for it does not stay behind. */
static void where_nobody_can_listen(void **state)
{
    static const char elsewhere[] = "tcp://192.0.2.1:*";         /* of no host: RFC 5737 */
    char secret[SCRATCH_PATH + 16], allowed[SCRATCH_PATH + 16], key[SECURITY_KEY_SIZE], address[ADDRESS_MAX], other[ADDRESS_MAX];
    void *socket = NULL, *none = NULL;
    struct error error = {0};
    struct wire_lab lab;
    struct wire *wire;

    (void)state;
    lab_open(&lab);
    assert_int_equal(wire_new(&lab.loop, GANTRY__ROLE__ROLE_ACTOR, &wire), 0);
    assert_int_equal(wire_socket_connect(wire, "tcp://127.0.0.1:1", "", 100, &none, &error), -EACCES);
    assert_int_equal(security_key_create(lab.dir, "a", key, &error), 0);
    snprintf(secret, sizeof secret, "%s/a.key", lab.dir);
    snprintf(allowed, sizeof allowed, "%s/allowed", lab.dir);
    assert_int_equal(security_start(wire, secret, allowed, &error), 0);
    assert_int_equal(wire_socket_connect(wire, "tcp://127.0.0.1:1", NULL, 100, &none, &error), -EACCES);
    assert_int_equal(wire_socket_connect(wire, "tcp://127.0.0.1:1", "", 100, &none, &error), -EACCES);
    assert_non_null(strstr(error.text, "tcp needs a key"));
    assert_int_equal(wire_socket_bind(wire, elsewhere, 1, 1024, &none, other, &error), -EADDRNOTAVAIL);
    assert_non_null(strstr(error.text, "is not an address of this host"));
    assert_int_equal(wire_socket_try(elsewhere, &error), -EADDRNOTAVAIL);
    assert_int_equal(wire_socket_bind(wire, "ipc:///no/such/directory", 1, 1024, &none, other, &error), -ENOENT);
    assert_non_null(strstr(error.text, "cannot listen on ipc:///no/such/directory: No such file"));

    assert_int_equal(wire_socket_try("tcp://localhost:*", &error), 0);
    assert_int_equal(wire_socket_bind(wire, "tcp://127.0.0.1:*", 1, 1024, &socket, address, &error), 0);
    assert_int_equal(wire_socket_try(address, &error), -EADDRINUSE);
    assert_int_equal(wire_socket_bind(wire, address, 1, 1024, &none, other, &error), -EADDRINUSE);
    assert_non_null(strstr(error.text, "is in use"));
    assert_null(none);
    assert_int_equal(option(socket, ZMQ_LINGER), WIRE_LINGER_MS);
    zmq_close(socket);
    assert_int_equal(wire_socket_connect(wire, lab.ipc, NULL, 100, &socket, &error), 0);
    assert_int_equal(option(socket, ZMQ_LINGER), WIRE_LINGER_MS);
    assert_int_equal(zmq_connect(socket, lab.ipc), 0);
    assert_true(zmq_send(socket, "x", 1, ZMQ_DONTWAIT) < 0 && errno == EAGAIN);         /* nobody is there: not queued */
    zmq_close(socket);
    wire = wire_free(wire);             /* waits for sockets that were left open */
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(socket_dirs), cmocka_unit_test(socket_dirs_of_a_copy), cmocka_unit_test(socket_dirs_of_the_dead),
        cmocka_unit_test(the_longest_path), cmocka_unit_test(directories_of_others), cmocka_unit_test(what_is_not_swept),
        cmocka_unit_test(addresses), cmocka_unit_test(names_and_numbers), cmocka_unit_test(endpoint_files),
        cmocka_unit_test(where_nobody_can_listen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
