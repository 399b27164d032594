/* test_keys.c - key files and the list of those let in: what is read, what is refused and how that is said; where a daemon's keys
 * come from. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zmq.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "wire/member_keys.h"
#include "wire/security.h"

enum { PATH = SCRATCH_PATH + 32 };

struct lab {
    char dir[SCRATCH_PATH], allowed[PATH];
    char keys[3][SECURITY_KEY_SIZE];    /* public ones of nobody */
};

static void set_up(struct lab *lab)
{
    char secret[SECURITY_KEY_SIZE];

    scratch_new(lab->dir);
    snprintf(lab->allowed, sizeof lab->allowed, "%s/allowed", lab->dir);
    for (size_t i = 0; i < ARRAY_SIZE(lab->keys); i++)
        assert_int_equal(security_keypair(lab->keys[i], secret), 0);
}

static void tear_down(struct lab *lab)
{
    assert_int_equal(remove_tree(lab->dir), 0);
}

static const char *in(const struct lab *lab, const char *name)
{
    static char path[PATH];

    snprintf(path, sizeof path, "%s/%s", lab->dir, name);
    return path;
}

static void put(const char *path, const char *text)
{
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

static void key_files(void **state _unused_)
{
    struct lab lab;
    struct stat st;
    struct error error = {0};
    char public_key[SECURITY_KEY_SIZE], secret[SECURITY_KEY_SIZE], back[SECURITY_KEY_SIZE] = "mine", path[PATH], text[64];

    set_up(&lab);
    assert_int_equal(security_key_create(lab.dir, "a", public_key, &error), 0);
    snprintf(path, sizeof path, "%s/a.key", lab.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(security_secret_read(path, secret, &error), 0);
    assert_int_equal(chmod(path, 0640), 0);         /* a group of units may */
    assert_int_equal(security_secret_read(path, secret, &error), 0);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(security_secret_read(path, secret, &error), -EPERM);
    assert_non_null(strstr(error.text, "mode 0644"));
    assert_non_null(strstr(error.text, "chmod 600"));
    assert_null(strstr(error.text, secret));
    snprintf(path, sizeof path, "%s/a.pub", lab.dir);
    put(path, "short\n");
    assert_int_equal(security_key_read(path, back, &error), -EINVAL);
    assert_non_null(strstr(error.text, "a.pub holds no Z85 key of 40 characters"));
    snprintf(text, sizeof text, "%.39s~\n", public_key);         /* 40 characters, and not Z85 */
    put(path, text);
    assert_int_equal(security_key_read(path, back, &error), -EINVAL);
    assert_int_equal(security_key_read(in(&lab, "absent"), back, &error), -ENOENT);
    assert_non_null(strstr(error.text, "gantry keys add"));
    assert_string_equal(back, "mine");
    snprintf(text, sizeof text, "%s\r\n", public_key);          /* came through a mail */
    put(path, text);
    assert_int_equal(security_key_read(path, back, &error), 0);
    assert_string_equal(back, public_key);
    tear_down(&lab);
}

/* A key of that name is not overwritten, and a pair that cannot be made leaves no half. */
static void key_pairs(void **state _unused_)
{
    char first[SECURITY_KEY_SIZE], second[SECURITY_KEY_SIZE] = "mine";
    struct error error = {0};
    struct stat st;
    struct lab lab;

    set_up(&lab);
    assert_int_equal(security_key_create(in(&lab, "new/deep"), "a", first, &error), 0);
    assert_int_equal(stat(in(&lab, "new/deep"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(security_key_create(in(&lab, "new/deep"), "a", second, &error), -EEXIST);
    assert_non_null(strstr(error.text, "/a.key is there already"));
    put(in(&lab, "b.pub"), "an old half\n");
    assert_int_equal(security_key_create(lab.dir, "b", first, &error), 0);
    assert_int_equal(mkdir(in(&lab, "c.pub"), 0700), 0);
    assert_int_equal(security_key_create(lab.dir, "c", second, &error), -EEXIST);
    assert_int_equal(access(in(&lab, "c.key"), F_OK), -1);
    assert_int_equal(security_key_create(in(&lab, "b.pub/deep"), "d", second, &error), -ENOTDIR);
    assert_non_null(strstr(error.text, "b.pub/deep: "));
    assert_int_equal(security_key_create(lab.dir, "no/where", second, &error), -ENOENT);
    assert_non_null(strstr(error.text, "no/where.key"));
    assert_string_equal(second, "mine");
    tear_down(&lab);
}

/* Nothing can be written: said, nothing of a pair stays, and the list is what it was. */
static void disk_full(void **state _unused_)
{
    struct rlimit limit, none;
    struct error errors[3] = {0};
    char key[SECURITY_KEY_SIZE];
    int results[3];
    struct lab lab;

    set_up(&lab);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[0], "a", NULL), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    none = (struct rlimit) {0, limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    results[0] = security_key_create(lab.dir, "a", key, &errors[0]);
    results[1] = security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[1], "b", &errors[1]);
    results[2] = security_revoke(lab.allowed, "a", &errors[2]);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    signal(SIGXFSZ, SIG_DFL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(results[i], -EFBIG);
        assert_non_null(strstr(errors[i].text, "cannot write"));
    }
    assert_int_equal(security_key_create(lab.dir, "a", key, NULL), 0);
    assert_int_equal(security_revoke(lab.allowed, "b", NULL), -ENOENT);
    assert_int_equal(security_revoke(lab.allowed, "a", NULL), 0);
    tear_down(&lab);
}

static void assert_list(const struct lab *lab, size_t n, const char *const lines[])
{
    _cleanup_free_ struct security_entry *entries = NULL;
    struct error error = {0};
    size_t n_entries;

    assert_int_equal(security_list(lab->allowed, &entries, &n_entries, &error), 0);
    assert_int_equal(n_entries, n);
    for (size_t i = 0; i < n; i++) {
        char line[192];

        snprintf(line, sizeof line, "%s %s %s", wire_role_name(entries[i].role), entries[i].key, entries[i].name);
        assert_string_equal(line, lines[i]);
    }
}

/* What is no line of the list lets nobody in, and does no harm to the others. */
static void lists(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct security_entry *entries = NULL;
    struct error error = {0};
    char lines[3][192];
    struct lab lab;
    size_t n = 7;

    set_up(&lab);
    strbuf_addf(&text, "# who\n\n \t \nactor %s a\n#actor %s b\n# actor %s b\n", lab.keys[0], lab.keys[1], lab.keys[1]);
    strbuf_addf(&text, "king %s c\nactor short d\nactor\nlearner\t%s\r\n", lab.keys[1], lab.keys[1]);
    strbuf_addf(&text, "  env_worker   %s\te more\n%s f\nactor %s", lab.keys[2], lab.keys[2], "x");
    put(lab.allowed, text.text);
    snprintf(lines[0], sizeof lines[0], "actor %s a", lab.keys[0]);
    snprintf(lines[1], sizeof lines[1], "learner %s ", lab.keys[1]);
    snprintf(lines[2], sizeof lines[2], "env_worker %s e", lab.keys[2]);
    assert_list(&lab, 3, (const char *const[]) {lines[0], lines[1], lines[2]});

    assert_int_equal(truncate(lab.allowed, SECURITY_ALLOWED_MAX + 1), 0);
    assert_int_equal(security_list(lab.allowed, &entries, &n, &error), -EFBIG);
    assert_non_null(strstr(error.text, lab.allowed));
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[0], "a", &error), -EFBIG);
    assert_int_equal(security_revoke(lab.allowed, lab.keys[0], &error), -EFBIG);
    assert_int_equal(unlink(lab.allowed), 0);
    assert_int_equal(security_list(lab.allowed, &entries, &n, &error), -ENOENT);
    assert_int_equal(security_revoke(lab.allowed, lab.keys[0], &error), -ENOENT);
    assert_null(entries);
    assert_int_equal(n, 7);
    tear_down(&lab);
}

/* One line a key: let in again, it has its new role and name alone. Shut out by name, all keys of that name are. */
static void let_in_and_shut_out(void **state _unused_)
{
    _cleanup_free_ char *text = NULL, *after = NULL;
    struct error error = {0};
    char lines[3][192];
    struct lab lab;
    size_t n;

    set_up(&lab);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[0], "a", &error), 0);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[1], "b", &error), 0);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_LEARNER, lab.keys[0], "c", &error), 0);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_LEARNER, lab.keys[2], "b", &error), 0);
    snprintf(lines[0], sizeof lines[0], "actor %s b", lab.keys[1]);
    snprintf(lines[1], sizeof lines[1], "learner %s c", lab.keys[0]);
    snprintf(lines[2], sizeof lines[2], "learner %s b", lab.keys[2]);
    assert_list(&lab, 3, (const char *const[]) {lines[0], lines[1], lines[2]});

    assert_int_equal(file_read(lab.allowed, SECURITY_ALLOWED_MAX, &text, &n), 0);
    assert_int_equal(strncmp(text, "# who may connect", 17), 0);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, "not a key", "x", &error), -EINVAL);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[0], "x y", &error), -EINVAL);
    assert_int_equal(security_allow(lab.allowed, GANTRY__ROLE__ROLE_ACTOR, lab.keys[0], "x\nactor", &error), -EINVAL);
    assert_non_null(strstr(error.text, "blanks"));
    assert_int_equal(security_revoke(lab.allowed, "d", &error), -ENOENT);
    assert_non_null(strstr(error.text, "lets in no key or name 'd'"));
    assert_int_equal(security_revoke(lab.allowed, "learner", &error), -ENOENT);
    assert_int_equal(file_read(lab.allowed, SECURITY_ALLOWED_MAX, &after, &n), 0);
    assert_string_equal(after, text);

    assert_int_equal(security_revoke(lab.allowed, "b", &error), 0);
    assert_list(&lab, 1, (const char *const[]) {lines[1]});
    assert_int_equal(security_revoke(lab.allowed, lab.keys[0], &error), 0);
    assert_list(&lab, 0, NULL);
    tear_down(&lab);
}

struct house { struct lab lab; uv_loop_t loop; struct wire *wire; char mine[PATH]; };

static void house_open(struct house *house)
{
    char key[SECURITY_KEY_SIZE];
    struct error error;

    set_up(&house->lab);
    assert_int_equal(uv_loop_init(&house->loop), 0);
    assert_int_equal(wire_new(&house->loop, GANTRY__ROLE__ROLE_ACTOR, &house->wire), 0);
    assert_int_equal(security_key_create(house->lab.dir, "me", key, &error), 0);
    snprintf(house->mine, sizeof house->mine, "%s/me.key", house->lab.dir);
}

static void house_close(struct house *house)
{
    house->wire = wire_free(house->wire);
    uv_run(&house->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&house->loop), 0);
    tear_down(&house->lab);
}

/* tcp wants a key, and who joins over it whom to trust; each is said with what to do. */
static void keys_of_a_client(void **state _unused_)
{
    struct member_keys_options options = {.join = "tcp://a:1"};
    char expected[SECURITY_KEY_SIZE] = "mine", here[PATH];
    struct error error = {0};
    struct house house;

    house_open(&house);
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), -EACCES);
    assert_non_null(strstr(error.text, "tcp://a:1: tcp needs a key: give --key FILE"));
    options = (struct member_keys_options) {.join = "/run/dir", .listen = "tcp://*:2"};
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), -EACCES);
    assert_non_null(strstr(error.text, "tcp://*:2"));
    options = (struct member_keys_options) {.key = in(&house.lab, "other.key"), .join = "/run/dir"};
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), -ENOENT);
    options = (struct member_keys_options) {.key = house.mine, .join = "tcp://a:1"};
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), -ENOENT);
    assert_non_null(strstr(error.text, "coordinator.pub"));
    assert_non_null(strstr(error.text, "copy RUN/keys/coordinator.pub there"));
    assert_string_equal(expected, "mine");

    put(in(&house.lab, "coordinator.pub"), house.lab.keys[1]);
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), 0);
    assert_string_equal(expected, house.lab.keys[1]);
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(house.lab.dir), 0);
    options.key = "me.key";
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), 0);
    assert_int_equal(chdir(here), 0);
    options = (struct member_keys_options) {.join = "/run/dir", .listen = "ipc:///somewhere"};
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), 0);
    assert_string_equal(expected, "");
    assert_int_equal(security_list_digest(house.wire->security), 0);        /* nobody is let in over tcp */
    house_close(&house);
}

/* Who listens over tcp lets in whom the run directory's list names; where that is not seen, whom the coordinator does. */
static void keys_of_a_server(void **state _unused_)
{
    struct member_keys_options options = {.listen = "tcp://*:2"};
    char expected[SECURITY_KEY_SIZE];
    struct error error = {0};
    struct house house;
    Gantry__Role role;

    house_open(&house);
    options.key = house.mine;
    options.run_dir = house.lab.dir;
    assert_int_equal(mkdir(in(&house.lab, "keys"), 0700), 0);
    put(in(&house.lab, "keys/allowed"), "");
    assert_int_equal(security_allow(in(&house.lab, "keys/allowed"), GANTRY__ROLE__ROLE_LEARNER, house.lab.keys[0], "l", NULL), 0);
    assert_int_equal(member_keys_load(house.wire, &options, expected, &error), 0);
    assert_false(security_wants_list(house.wire->security));
    assert_int_equal(security_role_of(house.wire->security, house.lab.keys[0], &role), 0);
    assert_int_equal(role, GANTRY__ROLE__ROLE_LEARNER);
    assert_int_equal(security_role_of(house.wire->security, house.lab.keys[1], &role), -EACCES);
    house_close(&house);

    for (int i = 0; i < 2; i++) {
        house_open(&house);
        options.key = house.mine;
        options.run_dir = i ? house.lab.dir : NULL;
        assert_int_equal(member_keys_load(house.wire, &options, expected, &error), 0);
        assert_true(security_wants_list(house.wire->security));
        house_close(&house);
    }
}

static void is_let_in(struct house *house, const char *key, Gantry__Role wanted)
{
    Gantry__Role role = GANTRY__ROLE__ROLE_NONE;

    assert_int_equal(security_role_of(house->wire->security, key, &role), wanted ? 0 : -EACCES);
    assert_int_equal(role, wanted);
}

static int descending(const void *a, const void *b) { return strcmp(b, a); }

/* In whatever order the file has them. */
static void all_are_found(void **state _unused_)
{
    static const Gantry__Role roles[] = {GANTRY__ROLE__ROLE_ACTOR, GANTRY__ROLE__ROLE_LEARNER, GANTRY__ROLE__ROLE_ENV_WORKER};
    const struct security_entry *entries;
    struct security_entry told[3] = {0};
    struct house house;
    size_t n = 0;

    house_open(&house);
    qsort(house.lab.keys, ARRAY_SIZE(house.lab.keys), sizeof house.lab.keys[0], descending);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(security_allow(house.lab.allowed, roles[i], house.lab.keys[i], "x", NULL), 0);
    assert_int_equal(security_start(house.wire, house.mine, house.lab.allowed, NULL), 0);
    entries = security_current(house.wire->security, &n);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < 3; i++) {
        is_let_in(&house, house.lab.keys[i], roles[i]);
        assert_string_equal(entries[i].key, house.lab.keys[2 - i]);
        memcpy(told[i].key, house.lab.keys[i], SECURITY_KEY_SIZE);
        told[i].role = roles[i];
    }
    house_close(&house);

    house_open(&house);
    assert_int_equal(security_start(house.wire, house.mine, "", NULL), 0);
    assert_int_equal(security_set_list(house.wire->security, told, 3, 5), 0);
    for (size_t i = 0; i < 3; i++)
        is_let_in(&house, told[i].key, roles[i]);
    house_close(&house);
}

/* Another key in the list, in a file that differs from the one before in one thing alone. */
static void put_list(const struct lab *lab, int key, const char *name, bool replace, struct timespec at)
{
    const struct timespec times[2] = {at, at};
    char line[192], path[PATH + 8];
    int fd;

    snprintf(line, sizeof line, "actor %s %s\n", lab->keys[key], name);
    snprintf(path, sizeof path, "%s%s", lab->allowed, replace ? ".new" : "");
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(write(fd, line, strlen(line)) == (ssize_t)strlen(line));
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    if (replace)
        assert_int_equal(rename(path, lab->allowed), 0);
}

/* Who edits the list in place, or within one tick of the clock, is understood, too. */
static void every_change_is_seen(void **state _unused_)
{
    static const struct { bool replace; const char *name; struct timespec at; } changes[] = {
        {true, "a", {1000, 5}}, {false, "a", {1000, 6}}, {false, "a", {1001, 6}}, {false, "ab", {1001, 6}},
    };
    struct house house;
    uint64_t digest;

    house_open(&house);
    put_list(&house.lab, 0, "a", false, (struct timespec) {1000, 5});
    assert_int_equal(security_start(house.wire, house.mine, house.lab.allowed, NULL), 0);
    for (int i = 0; i < (int)ARRAY_SIZE(changes); i++) {
        is_let_in(&house, house.lab.keys[i % 2], GANTRY__ROLE__ROLE_ACTOR);
        digest = security_list_digest(house.wire->security);
        put_list(&house.lab, (i + 1) % 2, changes[i].name, changes[i].replace, changes[i].at);
        is_let_in(&house, house.lab.keys[i % 2], GANTRY__ROLE__ROLE_NONE);
        is_let_in(&house, house.lab.keys[(i + 1) % 2], GANTRY__ROLE__ROLE_ACTOR);
        assert_true(security_list_digest(house.wire->security) != digest);
    }
    house_close(&house);
}

/* Without a list nobody is let in and nothing is bound; without a server's key nothing is connected, encrypted or not. */
static void no_list_no_door(void **state _unused_)
{
    struct wire_server_options server = {.address = "tcp://127.0.0.1:*"};
    struct wire_client_options client = {.address = "tcp://127.0.0.1:1", .server_key = "short"};
    struct wire_server *no_server = NULL;
    struct wire_client *no_client = NULL;
    const struct security *first;
    struct error error = {0};
    struct house house;
    Gantry__Role role;

    house_open(&house);
    assert_int_equal(security_role_of(NULL, house.lab.keys[0], &role), -EACCES);
    assert_int_equal(security_start(house.wire, house.mine, NULL, &error), 0);
    is_let_in(&house, house.lab.keys[0], GANTRY__ROLE__ROLE_NONE);
    assert_int_equal(wire_server_new(house.wire, &server, &no_server, &error), -EACCES);
    assert_int_equal(wire_client_new(house.wire, &client, &no_client, &error), -EINVAL);
    assert_true(!no_server && !no_client);

    assert_int_equal(security_allow(house.lab.allowed, GANTRY__ROLE__ROLE_ACTOR, house.lab.keys[0], "a", &error), 0);
    assert_int_equal(security_start(house.wire, house.mine, house.lab.allowed, &error), 0);
    first = house.wire->security;
    assert_int_equal(security_start(house.wire, house.mine, "", &error), -EADDRINUSE);      /* libzmq asks one handler */
    assert_non_null(strstr(error.text, "ZAP handler"));
    assert_ptr_equal(house.wire->security, first);
    is_let_in(&house, house.lab.keys[0], GANTRY__ROLE__ROLE_ACTOR);
    house_close(&house);
}

/* As libzmq asks about a connection (rfc.zeromq.org/spec/27). */
static bool ask(struct house *house, const char *mechanism, const char *key, size_t key_size, int more)
{
    static const char *const begin[] = {"1.0", "7", "gantry", "127.0.0.1", ""};
    void *socket = zmq_socket(house->wire->zmq, ZMQ_REQ);
    char frames[6][64] = {0};
    uint8_t raw[32];
    int n = -1;

    assert_non_null(zmq_z85_decode(raw, key));
    assert_int_equal(zmq_connect(socket, "inproc://zeromq.zap.01"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(begin); i++)
        assert_true(zmq_send(socket, begin[i], strlen(begin[i]), ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(socket, mechanism, strlen(mechanism), ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(socket, raw, key_size, more ? ZMQ_SNDMORE : 0) >= 0);
    while (more--)
        assert_true(zmq_send(socket, raw, sizeof raw, more ? ZMQ_SNDMORE : 0) >= 0);
    while (n < 0) {
        uv_run(&house->loop, UV_RUN_NOWAIT);
        n = zmq_recv(socket, frames[0], sizeof frames[0] - 1, ZMQ_DONTWAIT);
    }
    for (size_t i = 1; i < ARRAY_SIZE(frames); i++)
        assert_true(zmq_recv(socket, frames[i], sizeof frames[i] - 1, ZMQ_DONTWAIT) >= 0);
    zmq_close(socket);
    assert_string_equal(frames[0], "1.0");
    assert_string_equal(frames[1], "7");
    assert_string_equal(frames[4], strcmp(frames[2], "200") ? "" : key);
    return !strcmp(frames[2], "200");
}

/* At the door: a key of the list, proven by CURVE, and nothing else. Who was refused keeps nobody out. */
static void at_the_door(void **state _unused_)
{
    struct house house;

    house_open(&house);
    assert_int_equal(security_allow(house.lab.allowed, GANTRY__ROLE__ROLE_ACTOR, house.lab.keys[0], "a", NULL), 0);
    assert_int_equal(security_start(house.wire, house.mine, house.lab.allowed, NULL), 0);
    assert_true(ask(&house, "CURVE", house.lab.keys[0], 32, 0));
    assert_false(ask(&house, "CURVE", house.lab.keys[1], 32, 0));
    assert_false(ask(&house, "PLAIN", house.lab.keys[0], 32, 0));
    assert_false(ask(&house, "NULL", house.lab.keys[0], 32, 0));
    assert_false(ask(&house, "CURVE", house.lab.keys[0], 31, 0));
    assert_false(ask(&house, "CURVE", house.lab.keys[0], 32, 1));
    assert_false(ask(&house, "CURVE", house.lab.keys[0], 32, 9));
    assert_true(ask(&house, "CURVE", house.lab.keys[0], 32, 0));
    house_close(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_files), cmocka_unit_test(key_pairs), cmocka_unit_test(disk_full), cmocka_unit_test(lists),
        cmocka_unit_test(let_in_and_shut_out), cmocka_unit_test(keys_of_a_client), cmocka_unit_test(keys_of_a_server),
        cmocka_unit_test(all_are_found), cmocka_unit_test(every_change_is_seen), cmocka_unit_test(no_list_no_door),
        cmocka_unit_test(at_the_door),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
