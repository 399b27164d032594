/* Version directories: committed wholly or not at all, the first to rename wins, damage is found; the run directory's lock. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "base/strbuf.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "tests/harness/scratch.h"

static char dir[SCRATCH_PATH];
static struct error error;
static struct manifest_episode consumed[2] = {{.episode = 5, .digest = {1}}, {.episode = 9, .digest = {2}}};

static int setup(void **state)
{
    (void)state;
    scratch_new(dir);
    assert_int_equal(fault_arm(""), 0);
    return rundir_prepare(dir, &error);
}

static int teardown(void **state)
{
    (void)state;
    (void)fault_arm("");
    return remove_tree(dir);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[VERSION_PATH + 32];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

/* One attempt to commit policy version 12 whose weights are `text`. */
static int commit(const char *text)
{
    struct manifest m = {.run = 0xfeedull << 48, .number = 12, .parent = 11, .plan_digest = {3}, .group_epoch = 4, .stage = 4,
                         .iteration = 2};
    char temporary[VERSION_PATH];
    int r = version_begin(dir, 0, 12, temporary, &error);

    if (r < 0)
        return r;
    put(temporary, "model.safetensors", text);
    put(temporary, "config.json", "{}");
    m.consumed = calloc(2, sizeof *m.consumed);
    memcpy(m.consumed, consumed, sizeof consumed);
    m.n_consumed = 2;
    r = version_commit(dir, temporary, &m, &error);
    if (r < 0)
        version_discard(temporary);
    manifest_release(&m);
    return r;
}

/* 1: version 12 is there, whole; 0: it is not there at all. */
static int committed(void)
{
    char path[VERSION_PATH];
    struct manifest m;
    int r;

    assert_int_equal(version_path(dir, 0, 12, path), 0);
    if (access(path, F_OK) < 0)
        return 0;
    r = manifest_read(path, &m, &error);
    if (r == 0)
        r = manifest_verify(path, &m, NULL, &error);
    if (r < 0)
        fail_msg("%s", error.text);
    assert_int_equal(m.n_files, 2);
    manifest_release(&m);
    return 1;
}

static void test_round_trip(void **state)
{
    char path[VERSION_PATH];
    uint64_t *numbers;
    struct manifest m;
    uint8_t digest[SHA256_SIZE];
    size_t n;

    (void)state;
    assert_int_equal(commit("weights"), 0);
    assert_int_equal(version_path(dir, 0, 12, path), 0);
    assert_non_null(strstr(path, "/policies/v000012"));
    assert_int_equal(manifest_read(path, &m, &error), 0);
    assert_true(m.run == 0xfeedull << 48 && m.kind == 0 && m.number == 12 && m.parent == 11 && m.group_epoch == 4 &&
                m.iteration == 2);
    assert_int_equal(m.plan_digest[0], 3);
    assert_int_equal(m.n_consumed, 2);
    assert_memory_equal(m.consumed, consumed, sizeof consumed);
    assert_string_equal(m.files[0].name, "config.json");
    assert_string_equal(m.files[1].name, "model.safetensors");
    assert_int_equal(m.files[1].size, 7);
    sha256_of("weights", 7, digest);
    assert_memory_equal(m.files[1].sha256, digest, SHA256_SIZE);
    assert_int_equal(version_list(dir, 0, &numbers, &n), 0);
    assert_true(n == 1 && numbers[0] == 12);
    free(numbers);
    assert_int_equal(version_drop(dir, 0, 12), 0);
    assert_int_equal(version_drop(dir, 0, 12), 0);
    assert_int_equal(manifest_verify(path, &m, NULL, &error), -ENOENT);
    manifest_release(&m);
    assert_int_equal(manifest_read(path, &m, &error), 0);       /* history still reads it */
    manifest_release(&m);
}

static void test_loser_of_the_race(void **state)
{
    char path[VERSION_PATH + 32];
    _cleanup_free_ char *text = NULL;

    (void)state;
    assert_int_equal(commit("winner"), 0);
    assert_int_equal(commit("loser"), -EEXIST);
    snprintf(path, sizeof path, "%s/policies/v000012/model.safetensors", dir);
    assert_int_equal(file_read(path, 100, &text, NULL), 0);
    assert_string_equal(text, "winner");
}

static void test_every_failing_step(void **state)
{
    static const char *const points[] = {"version.fsync", "version.manifest", "version.rename", "atomic_file.write",
                                         "atomic_file.fsync", "atomic_file.rename"};

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(points); p++)
        for (int nth = p < 3 ? 1 : 3; ; nth++) {        /* the first two atomic files are this test's own weights */
            char fault[64], path[VERSION_PATH];
            int r;

            snprintf(fault, sizeof fault, "%s=enospc@%d", points[p], nth);
            assert_int_equal(fault_arm(fault), 0);
            r = commit("weights");
            assert_int_equal(fault_arm(""), 0);
            assert_int_equal(committed(), r == 0);
            if (r < 0)
                assert_int_equal(r, -ENOSPC);
            assert_int_equal(version_path(dir, 0, 12, path), 0);
            assert_int_equal(remove_tree(path), 0);
            if (r == 0)
                break;
        }
}

static void test_killed_at_every_point(void **state)
{
    static const char *const points[] = {"version.fsync",     "version.manifest",  "version.rename",    "version.renamed",
                                         "atomic_file.write", "atomic_file.fsync", "atomic_file.rename"};

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(points); p++)
        for (int nth = 1; ; nth++) {
            char fault[64], path[VERSION_PATH];
            uint64_t *numbers;
            int status;
            size_t n;
            pid_t child = fork();

            assert_true(child >= 0);
            if (child == 0) {
                snprintf(fault, sizeof fault, "%s=abort@%d", points[p], nth);
                _exit(fault_arm(fault) < 0 || commit("weights") < 0);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            (void)committed();                              /* fails when half a version is there */
            assert_int_equal(version_list(dir, 0, &numbers, &n), 0);
            assert_int_equal(n, committed());               /* what is begun is never listed */
            free(numbers);
            assert_int_equal(version_sweep(dir), 0);
            if (!committed())
                assert_int_equal(commit("weights"), 0);     /* the next process does it */
            assert_int_equal(version_path(dir, 0, 12, path), 0);
            assert_int_equal(remove_tree(path), 0);
            snprintf(path, sizeof path, "%s/policies", dir);
            assert_int_equal(rmdir(path), 0);               /* the sweep left nothing behind */
            assert_int_equal(mkdir_p(path, 0755), 0);
            if (!WIFSIGNALED(status))
                break;
            assert_true(nth < 30);
        }
}

static void flip_bits(const char *name, int step, bool parse)
{
    char folder[VERSION_PATH], path[VERSION_PATH + 32];
    _cleanup_free_ char *bytes = NULL;
    struct manifest whole;
    size_t n;
    int fd;

    assert_int_equal(version_path(dir, 0, 12, folder), 0);
    assert_int_equal(manifest_read(folder, &whole, &error), 0);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_read(path, 1 << 20, &bytes, &n), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    for (size_t bit = 0; bit < n * 8; bit += (size_t)step) {
        char flipped = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        struct manifest m = {0};
        int r;

        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)(bit / 8)), 1);
        r = parse ? manifest_read(folder, &m, &error) : manifest_verify(folder, &whole, NULL, &error);
        if (parse && r == 0)        /* still a manifest, but no longer the announced one */
            assert_memory_not_equal(m.digest, whole.digest, SHA256_SIZE);
        else
            assert_int_equal(r, -EBADMSG);
        manifest_release(&m);
        assert_int_equal(pwrite(fd, &bytes[bit / 8], 1, (off_t)(bit / 8)), 1);
    }
    close(fd);
    manifest_release(&whole);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    assert_int_equal(commit("weights"), 0);
    flip_bits("model.safetensors", 1, false);
    flip_bits("manifest.json", 1, true);
}

static void test_truncated_manifest(void **state)
{
    char folder[VERSION_PATH], path[VERSION_PATH + 32];
    _cleanup_free_ char *bytes = NULL;
    struct manifest m;
    size_t n;

    (void)state;
    assert_int_equal(commit("weights"), 0);
    assert_int_equal(version_path(dir, 0, 12, folder), 0);
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    assert_int_equal(file_read(path, 1 << 20, &bytes, &n), 0);
    for (size_t cut = 0; cut + 1 < n; cut++) {      /* the last byte is a newline */
        assert_int_equal(truncate(path, 0), 0);
        put(folder, "manifest.json", "");
        assert_int_equal(atomic_file_write(path, bytes, cut), 0);
        assert_int_equal(manifest_read(folder, &m, &error), -EBADMSG);
        assert_non_null(strstr(error.text, "manifest.json"));
    }
}

/* What reads like a manifest and is none. */
static void test_no_manifest(void **state)
{
    static const struct { const char *from, *to; } cases[] = {
        {"\"model.safetensors\"", "\".hidden\""}, {"\"model.safetensors\"", "\"../model.safetensors\""},
        {"\"model.safetensors\"", "\"\""}, {"feed000000000000", "feed00000000000x"}, {"feed000000000000", "feed"},
        {"\"kind\"", "\"number\":12,\"kind\""}, {"\"policy\"", "\"critic\""}, {"\"format\":1", "\"format\":2"},
        {"\"number\":12", "\"number\":-12"}, {"\"stage\":4", "\"stage\":4294967296"},
    };
    char folder[VERSION_PATH], path[VERSION_PATH + 32];
    _cleanup_free_ char *text = NULL;
    struct manifest m;

    (void)state;
    assert_int_equal(commit("weights"), 0);
    assert_int_equal(version_path(dir, 0, 12, folder), 0);
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    assert_int_equal(file_read(path, 1 << 20, &text, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(strbuf_release) struct strbuf other = STRBUF_INIT;
        const char *at = strstr(text, cases[i].from);

        if (!at)
            fail_msg("there is no %s in %s", cases[i].from, text);
        strbuf_add(&other, text, (size_t)(at - text));
        strbuf_adds(&other, cases[i].to);
        strbuf_adds(&other, at + strlen(cases[i].from));
        put(folder, "manifest.json", other.text);
        if (manifest_read(folder, &m, &error) != -EBADMSG)
            fail_msg("%s in place of %s is believed", cases[i].to, cases[i].from);
        assert_non_null(strstr(error.text, path));
    }
    put(folder, "manifest.json", text);
    put(folder, "model.safetensors", "weights, and more");
    assert_int_equal(manifest_read(folder, &m, &error), 0);
    assert_int_equal(manifest_verify(folder, &m, NULL, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "model.safetensors: 17 bytes, its manifest says 7"));
    manifest_release(&m);
}

static void test_import(void **state)
{
    struct manifest first = {.run = 1}, again = {.run = 2};
    char from[96], path[VERSION_PATH];

    (void)state;
    snprintf(from, sizeof from, "%s/checkpoint", dir);
    assert_int_equal(mkdir_p(from, 0755), 0);
    assert_int_equal(version_import(dir, 0, 0, from, &first, &error), -ENOENT);
    put(from, ".gitattributes", "of whoever made it");
    assert_int_equal(version_import(dir, 0, 0, from, &first, &error), -ENOENT);
    put(from, "config.json", "{\"a\":1}");
    put(from, "model.safetensors", "weights");
    assert_int_equal(fault_arm("version.fsync=eio@1"), 0);
    assert_int_equal(version_import(dir, 0, 0, from, &first, &error), -EIO);
    assert_int_equal(fault_arm(""), 0);
    snprintf(path, sizeof path, "%s/policies", dir);
    assert_int_equal(rmdir(path), 0);                       /* nothing of it stays */
    assert_int_equal(mkdir_p(path, 0755), 0);
    assert_int_equal(version_import(dir, 0, 0, from, &first, &error), 0);
    assert_int_equal(first.n_files, 2);
    put(from, "config.json", "changed since");
    assert_int_equal(version_import(dir, 0, 0, from, &again, &error), 0);
    assert_int_equal(again.run, 1);
    assert_memory_equal(first.digest, again.digest, SHA256_SIZE);
    assert_int_equal(version_path(dir, 0, 0, path), 0);
    assert_int_equal(manifest_verify(path, &again, NULL, &error), 0);
    manifest_release(&first);
    manifest_release(&again);
}

static bool is_there(const char *name)
{
    char path[VERSION_PATH];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* Only what a dead process of this host began is swept, of policies and reward models; others may still be at work. */
static void test_what_is_swept(void **state)
{
    static const char *const kinds[] = {"policies", "prms"};
    char host[64] = "", begun[2][3][160], path[VERSION_PATH];
    pid_t dead = fork();

    (void)state;
    assert_true(dead >= 0);
    if (dead == 0)
        _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    for (int kind = 0; kind < 2; kind++) {
        snprintf(begun[kind][0], sizeof begun[0][0], "%s/.tmp-%s-%d-12", kinds[kind], host, (int)dead);
        snprintf(begun[kind][1], sizeof begun[0][0], "%s/.tmp-%s-%d-12", kinds[kind], host, (int)getppid());
        snprintf(begun[kind][2], sizeof begun[0][0], "%s/.tmp-not-%s-%d-12", kinds[kind], host, (int)dead);
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof path, "%s/%s", dir, begun[kind][i]);
            assert_int_equal(mkdir_p(path, 0755), 0);
            put(path, "model.safetensors", "weights");
        }
    }
    assert_int_equal(version_sweep(dir), 0);
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < 3; i++)
            assert_int_equal(is_there(begun[kind][i]), i != 0);
    snprintf(path, sizeof path, "%s/prms", dir);
    assert_int_equal(remove_tree(path), 0);
    assert_int_equal(version_sweep(dir), 0);                /* a run from before it had reward models */
}

static bool has_weights(uint64_t number)
{
    char path[VERSION_PATH];
    struct manifest m;
    int r;

    assert_int_equal(version_path(dir, 1, number, path), 0);
    assert_int_equal(manifest_read(path, &m, &error), 0);       /* always there */
    r = manifest_verify(path, &m, NULL, &error);
    manifest_release(&m);
    return r == 0;
}

static void test_retention(void **state)
{
    const uint64_t keep[] = {2, 77};
    char from[96];

    (void)state;
    snprintf(from, sizeof from, "%s/checkpoint", dir);
    assert_int_equal(mkdir_p(from, 0755), 0);
    put(from, "model.safetensors", "weights");
    for (uint64_t number = 1; number <= 5; number++) {
        struct manifest m = {.run = 1, .parent = number - 1};

        assert_int_equal(version_import(dir, 1, number, from, &m, &error), 0);
        manifest_release(&m);
    }
    assert_int_equal(version_retain(dir, 1, keep, 2), 0);
    assert_int_equal(version_retain(dir, 1, keep, 2), 0);
    for (uint64_t number = 1; number <= 5; number++)
        assert_int_equal(has_weights(number), number == 2 || number >= 4);
}

static void test_run_directory(void **state)
{
    char path[RUN_PATH];
    int fd, second, status;
    pid_t child;

    (void)state;
    assert_int_equal(rundir_lock(dir, "coordinator.lock", &fd, &error), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool named = rundir_lock(dir, "coordinator.lock", &second, &error) == -EBUSY && strstr(error.text, " on ");

        _exit(!named);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
    close(fd);
    assert_int_equal(rundir_lock(dir, "coordinator.lock", &fd, &error), 0);
    close(fd);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(rundir_path(path, "journal", path, &error), -ENAMETOOLONG);
    assert_non_null(strstr(error.text, "shorter"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loser_of_the_race, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_failing_step, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_at_every_point, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated_manifest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_manifest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_import, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_swept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_directory, setup, teardown),
    };

    return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
