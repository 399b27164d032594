/* test_serve_cache.c - where versions that were brought over lie: whose directory it may be, who writes into it at once, and what
 * is removed from it, which is never anybody else's. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "serve/cache.h"
#include "tests/harness/scratch.h"

#define OURS "cache/0000000000000abc-actor"

enum { PATH = VERSION_PATH + 64, POLICY = 0, PRM = 1 };

static struct error error;

__attribute__((format(printf, 1, 2))) static const char *at(const char *format, ...)
{
    static char path[4][PATH];
    static unsigned next;
    char *ret = path[next++ % 4];
    va_list args;
    int n = snprintf(ret, PATH, "%s/", scratch_dir);

    va_start(args, format);
    vsnprintf(ret + n, (size_t)(PATH - n), format, args);
    va_end(args);
    return ret;
}

static void put(const char *path, const char *text)
{
    char folder[PATH];

    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(mkdir_p(folder, 0700), 0);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void open_cache(struct cache *cache)
{
    if (cache_open(cache, at("cache"), 0xabc, "actor", &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(cache->dir, at(OURS));
}

/* --cache, or what the environment says, in this order; the first that says something. */
static void test_places(void **state _unused_)
{
    static const struct { const char *name, *below; } places[] = {
        {"CACHE_DIRECTORY", ""}, {"XDG_CACHE_HOME", "/gantry"}, {"HOME", "/.cache/gantry"}};
    char *old[3] = {NULL}, expected[PATH], deep[VERSION_PATH];
    struct cache cache;

    for (int i = 0; i < 3; i++) {
        old[i] = getenv(places[i].name) ? strdup(getenv(places[i].name)) : NULL;
        setenv(places[i].name, at("%d", i), 1);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cache_open(&cache, i ? NULL : "", 1, "prm_server", &error), 0);
        snprintf(expected, sizeof expected, "%s%s/0000000000000001-prm_server", at("%d", i), places[i].below);
        assert_string_equal(cache.dir, expected);
        cache_close(&cache);
        cache_close(&cache);                    /* no harm */
        setenv(places[i].name, "", 1);
    }
    for (int i = 0; i < 3; i++) {
        if (old[i])
            setenv(places[i].name, old[i], 1);
        else
            unsetenv(places[i].name);
        free(old[i]);
    }
    memset(deep, 'd', sizeof deep);
    deep[0] = '/';
    deep[VERSION_PATH - 128] = 0;
    assert_int_equal(cache_open(&cache, deep, 1, "actor", &error), -ENAMETOOLONG);
}

/* Weights that others may write are not loaded; what is in the way is said with the remedy. */
static void test_not_ours(void **state _unused_)
{
    struct cache cache;

    open_cache(&cache);
    cache_close(&cache);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(chmod(at(OURS), i ? 0720 : 0702), 0);
        assert_int_equal(cache_open(&cache, at("cache"), 0xabc, "actor", &error), -EPERM);
        assert_non_null(strstr(error.text, "-actor belongs to somebody else or others may write into it; give --cache DIR"));
        assert_string_equal(cache.dir, "");
    }
    assert_int_equal(chmod(at(OURS), 0755), 0);
    open_cache(&cache);
    cache_close(&cache);
    if (geteuid() == 0) {
        assert_int_equal(chown(at(OURS), 12345, -1), 0);
        assert_int_equal(cache_open(&cache, at("cache"), 0xabc, "actor", &error), -EPERM);
    }
    put(at("file"), "");
    assert_int_equal(cache_open(&cache, at("file"), 1, "actor", &error), -ENOTDIR);
    assert_non_null(strstr(error.text, "give --cache DIR"));
}

/* Caches of other runs that nobody has used for a week go; no other directory does, nor one in use, nor what is younger. */
static void test_sweep(void **state _unused_)
{
    static const char *const names[] = {
        "0000000000000001-actor", "00000000deadbeef-prm_server",                                            /* go */
        "0000000000000002-actor", "0000000000000003-actor", "0000000000000004-actor",       /* in use, young, without a lock */
        "notes", "0000000000000005-learner", "000000000000006-actor", "0000000000000007-actors", "manipulator-runs-actor",
    };
    const struct timespec then = {.tv_sec = time(NULL) - 7 * 24 * 3600 - 60}, old[2] = {then, then};
    struct cache cache, other;
    struct stat st;

    open_cache(&cache);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        put(at("cache/%s/policies/v000001/weights", names[i]), "7");
    assert_int_equal(cache_open(&other, at("cache"), 2, "actor", &error), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (i != 2 && i != 4)
            put(at("cache/%s/lock", names[i]), "");
        if (i != 3 && i != 4)
            assert_int_equal(utimensat(AT_FDCWD, at("cache/%s/lock", names[i]), old, 0), 0);
    }
    cache_close(&cache);
    assert_int_equal(utimensat(AT_FDCWD, at(OURS "/lock"), old, 0), 0);
    open_cache(&cache);
    assert_int_equal(stat(at(OURS "/lock"), &st), 0);
    assert_true(st.st_mtime > then.tv_sec);             /* used now */
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(is_there(at("cache/%s", names[i])), i >= 2);
    cache_close(&other);
    cache_close(&cache);
}

static void test_find(void **state _unused_)
{
    uint8_t digest[SHA256_SIZE];
    struct cache cache;
    char found[VERSION_PATH];

    open_cache(&cache);
    sha256_of("{}", 2, digest);
    assert_int_equal(cache_find(&cache, POLICY, 12, digest, found), 0);
    put(at(OURS "/policies/v000012/manifest.json"), "{}");
    put(at(OURS "/prms/v000012/manifest.json"), "{}");
    assert_int_equal(cache_find(&cache, POLICY, 12, digest, found), 1);
    assert_string_equal(found, at(OURS "/policies/v000012"));
    digest[31] ^= 1;                                                /* another run directory's, restored under this number */
    assert_int_equal(cache_find(&cache, POLICY, 12, digest, found), 0);
    assert_false(is_there(found));
    assert_true(is_there(at(OURS "/prms/v000012")));
    cache_remove(&cache, PRM, 12);
    assert_false(is_there(at(OURS "/prms/v000012")));

    assert_int_equal(cache_has_room(&cache, 1, &error), 0);
    assert_int_equal(cache_has_room(&cache, 1ull << 60, &error), -ENOSPC);
    assert_non_null(strstr(error.text, "the version needs 1099511627776 MB, "));
    assert_non_null(strstr(error.text, "make room or give --cache DIR"));
    cache_close(&cache);
}

/* One brings, the others are told; what lies there of the same digest is gone on from, of another it goes. */
static void test_begin_and_commit(void **state _unused_)
{
    char pull[VERSION_PATH], again[VERSION_PATH] = "mine";
    uint8_t digest[SHA256_SIZE];
    struct cache cache;
    int lock, second = 77;

    open_cache(&cache);
    sha256_of("{}", 2, digest);
    assert_int_equal(cache_begin(&cache, POLICY, 3, digest, pull, &lock, &error), 0);
    assert_string_equal(pull, at(OURS "/policies/.pull-v000003"));
    assert_int_equal(cache_begin(&cache, POLICY, 3, digest, again, &second, &error), -EAGAIN);
    assert_non_null(strstr(error.text, "another process of this host"));
    assert_true(second == 77 && !strcmp(again, "mine"));
    close(lock);
    put(at(OURS "/policies/.pull-v000003/manifest.json"), "{}");
    put(at(OURS "/policies/.pull-v000003/weights"), "7");
    assert_int_equal(cache_begin(&cache, POLICY, 3, digest, pull, &lock, &error), 0);
    assert_true(is_there(at(OURS "/policies/.pull-v000003/weights")));
    close(lock);
    digest[0] ^= 1;
    assert_int_equal(cache_begin(&cache, POLICY, 3, digest, pull, &lock, &error), 0);
    assert_false(is_there(at(OURS "/policies/.pull-v000003/weights")));
    assert_false(is_there(at(OURS "/policies/.pull-v000003/manifest.json")));

    put(at(OURS "/policies/.pull-v000003/weights"), "9");
    assert_int_equal(cache_commit(&cache, POLICY, 3, pull, &error), 0);
    assert_false(is_there(pull));
    assert_true(is_there(at(OURS "/policies/v000003/weights")));
    assert_false(is_there(at(OURS "/policies/v000003/lock")));
    close(lock);
    put(at(OURS "/policies/.pull-v000003/weights"), "late");         /* another process was first */
    assert_int_equal(cache_commit(&cache, POLICY, 3, pull, &error), 0);
    assert_false(is_there(pull));
    assert_int_equal(cache_commit(&cache, POLICY, 3, pull, &error), -ENOENT);
    assert_non_null(strstr(error.text, "renaming to"));
    cache_close(&cache);
}

static void put_base(const char *version, const char *base)
{
    char text[256];

    snprintf(text, sizeof text, "{\"base\": \"%s\", \"manifest_sha256\": \"%064x\"}", base, 0x1fe);
    put(at(OURS "/%s/base.json", version), text);
}

static void test_bases(void **state _unused_)
{
    static const struct { const char *base; int of, result, kind; uint64_t number; } cases[] = {
        {"../v000003", PRM, 1, PRM, 3}, {"../v000003", POLICY, 1, POLICY, 3}, {"../../policies/v000012", PRM, 1, POLICY, 12},
        {"../../prms/v1234567", POLICY, 1, PRM, 1234567}, {"../v", POLICY, -ENOTSUP, 0, 0}, {"../v3/..", POLICY, -ENOTSUP, 0, 0},
        {"/models/v3", POLICY, -ENOTSUP, 0, 0}, {"v3", POLICY, -ENOTSUP, 0, 0}, {"../../other/v3", POLICY, -ENOTSUP, 0, 0},
    };
    uint8_t digest[SHA256_SIZE];
    uint64_t number = 99;
    struct cache cache;
    int kind = 99;

    open_cache(&cache);
    put(at(OURS "/policies/v000005/manifest.json"), "{}");
    assert_int_equal(cache_base_of(at(OURS "/policies/v000005"), POLICY, &kind, &number, digest, &error), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        put_base("policies/v000005", cases[i].base);
        kind = 99;
        assert_int_equal(cache_base_of(at(OURS "/policies/v000005"), cases[i].of, &kind, &number, digest, &error),
                         cases[i].result);
        assert_int_equal(kind, cases[i].result == 1 ? cases[i].kind : 99);
        if (cases[i].result == 1) {
            assert_int_equal(number, cases[i].number);
            assert_true(digest[0] == 0 && digest[30] == 1 && digest[31] == 0xfe);
        } else {
            assert_non_null(strstr(error.text, "is no version of the run, and cannot be brought over"));
        }
    }
    put(at(OURS "/policies/v000005/base.json"),
        "{\"base\": \"../v000003\", \"manifest_sha256\": \"zz00000000000000000000000000000000000000000000000000000000000000\"}");
    assert_int_equal(cache_base_of(at(OURS "/policies/v000005"), POLICY, &kind, &number, digest, &error), -EBADMSG);
    cache_close(&cache);
}

/* What is kept stays with its base, whole or begun; the rest goes, but for what another process is bringing. */
static void test_retain(void **state _unused_)
{
    static const struct { const char *name; bool stays; } items[] = {
        {"policies/v000001", false}, {"policies/v000002", true}, {"policies/v000003", true}, {"policies/v000004", true},
        {"policies/.pull-v000003", true}, {"policies/.pull-v000005", false}, {"policies/.pull-v000006", true},
        {"policies/notes", true}, {"prms/v000001", true}, {"prms/v000002", true},
    };
    uint8_t digest[SHA256_SIZE] = {0};
    struct cache cache;
    char pull[VERSION_PATH];
    int lock;

    open_cache(&cache);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        put(at(OURS "/%s/weights", items[i].name), "7");
    put_base("policies/v000004", "../v000002");
    put_base("prms/v000001", "../../policies/v000001");
    assert_int_equal(cache_begin(&cache, POLICY, 6, digest, pull, &lock, &error), 0);
    cache_retain(&cache, POLICY, (const uint64_t[]) {4, 3}, 2);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        if (is_there(at(OURS "/%s", items[i].name)) != items[i].stays)
            fail_msg("%s %s", items[i].name, items[i].stays ? "is gone" : "is still there");
    close(lock);
    cache_close(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_places, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_not_ours, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_sweep, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_find, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_begin_and_commit, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_bases, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(test_retain, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
