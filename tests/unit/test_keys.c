/* test_keys.c - key files and the list of those let in: what is read, what is refused and how that is said; where a daemon's keys
 * come from. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

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
    struct lab lab;

    set_up(&lab);
    assert_int_equal(security_key_create(in(&lab, "new/deep"), "a", first, &error), 0);
    assert_int_equal(security_key_create(in(&lab, "new/deep"), "a", second, &error), -EEXIST);
    assert_non_null(strstr(error.text, "/a.key is there already"));
    put(in(&lab, "b.pub"), "an old half\n");
    assert_int_equal(security_key_create(lab.dir, "b", first, &error), 0);
    assert_int_equal(mkdir(in(&lab, "c.pub"), 0700), 0);
    assert_int_equal(security_key_create(lab.dir, "c", second, &error), -EEXIST);
    assert_int_equal(access(in(&lab, "c.key"), F_OK), -1);
    assert_int_equal(security_key_create(in(&lab, "b.pub"), "d", second, &error), -ENOTDIR);
    assert_non_null(strstr(error.text, "cannot make"));
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
    strbuf_addf(&text, "# who\n\nactor %s a\n#actor %s b\n# actor %s b\n", lab.keys[0], lab.keys[1], lab.keys[1]);
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
    assert_int_equal(security_allow(in(&house.lab, "keys/allowed"), GANTRY__ROLE__ROLE_LEARNER, house.lab.keys[0], "l", &error), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_files), cmocka_unit_test(key_pairs), cmocka_unit_test(disk_full), cmocka_unit_test(lists),
        cmocka_unit_test(let_in_and_shut_out), cmocka_unit_test(keys_of_a_client), cmocka_unit_test(keys_of_a_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
