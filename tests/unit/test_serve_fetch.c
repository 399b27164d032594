/* test_serve_fetch.c - versions brought over from a learner's shelf, over a socket, into a cache: whole, once, gone on with after
 * a stop; what is damaged is brought again. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "learner/weights.h"
#include "nn/base_link.h"
#include "proto/train.pb-c.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "serve/fetch.h"
#include "wire/address.h"

enum { WEIGHTS = 700 * 1000, RUN = 0x77, PATH = VERSION_PATH + 64 };

struct farm {
    char dir[SCRATCH_PATH], run[SCRATCH_PATH + 8], cache[SCRATCH_PATH + 8], address[ADDRESS_MAX];
    struct loop *loop;
    struct wire *there, *here;
    struct wire_server *server;
    struct weights *weights;
    struct worker *worker;
    struct fetch *fetch;
    uint8_t digest[16][SHA256_SIZE];    /* of versions, by number */

    unsigned requests, stop_after;      /* stop_after: requests that are answered; 0: all */
    unsigned gone_after;                /* likewise, before the learner has the version no more */
    atomic_bool disk_waits;             /* keeps the worker from all else */
    uint64_t asked;                     /* bytes */
    unsigned done;
    int result;
    char brought[VERSION_PATH], text[480];
};

static void on_request(struct request *request, void *arg)
{
    struct farm *farm = arg;

    farm->requests++;
    farm->asked += ((const Gantry__WeightsRequest *)request->message->body)->size;
    if (farm->stop_after && farm->requests > farm->stop_after)
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "later");
    else if (farm->gone_after && farm->requests > farm->gone_after)
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_WRONG_VERSION, "not there any more");
    else
        weights_request(farm->weights, request);
}

static void on_done(int result, uint64_t version _unused_, const char *dir, const char *text, void *arg)
{
    struct farm *farm = arg;

    farm->done++;
    farm->result = result;
    snprintf(farm->brought, sizeof farm->brought, "%s", dir);
    snprintf(farm->text, sizeof farm->text, "%s", text);
}

/* The process that brings: begins, and begins anew after a kill. */
static void actor_starts(struct farm *farm)
{
    struct error error = {0};

    assert_int_equal(worker_new("loader", 1, 8, &farm->worker), 0);
    assert_int_equal(fetch_new(farm->loop, farm->here, farm->worker, GANTRY__VERSION_KIND__VERSION_POLICY, on_done, farm,
                               &farm->fetch), 0);
    if (fetch_cache(farm->fetch, farm->cache, RUN, "actor", &error) < 0 ||
        fetch_learner(farm->fetch, farm->address, "", &error) < 0)
        fail_msg("%s", error.text);
}

static void actor_ends(struct farm *farm)
{
    fetch_cancel(farm->fetch);
    farm->worker = worker_free(farm->worker);
    loop_turn(farm->loop, false);
    farm->fetch = fetch_free(farm->fetch);
}

static void set_up(struct farm *farm)
{
    struct error error = {0};

    *farm = (struct farm) {0};
    scratch_new(farm->dir);
    snprintf(farm->run, sizeof farm->run, "%s/run", farm->dir);
    snprintf(farm->cache, sizeof farm->cache, "%s/cache", farm->dir);
    snprintf(farm->address, sizeof farm->address, "ipc://%s/learner.ipc", farm->dir);
    assert_int_equal(mkdir_p(farm->run, 0700), 0);
    assert_int_equal(rundir_prepare(farm->run, &error), 0);
    assert_int_equal(loop_new(&farm->loop), 0);
    assert_int_equal(wire_new(loop_uv(farm->loop), GANTRY__ROLE__ROLE_LEARNER, &farm->there), 0);
    assert_int_equal(wire_new(loop_uv(farm->loop), GANTRY__ROLE__ROLE_ACTOR, &farm->here), 0);
    assert_int_equal(weights_new(farm->loop, farm->run, &farm->weights), 0);
    if (wire_server_new(farm->there, &(struct wire_server_options) {.address = farm->address, .on_request = on_request,
                                                                    .arg = farm}, &farm->server, &error) < 0)
        fail_msg("%s", error.text);
    actor_starts(farm);
}

static void tear_down(struct farm *farm)
{
    actor_ends(farm);
    farm->weights = weights_free(farm->weights);
    farm->server = wire_server_free(farm->server);
    farm->here = wire_free(farm->here);
    farm->there = wire_free(farm->there);
    farm->loop = loop_free(farm->loop);
    assert_int_equal(remove_tree(farm->dir), 0);
}

static void put(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[PATH];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(atomic_file_write(path, bytes, n), 0);
}

static void assert_same(const char *a, const char *b, const char *name)
{
    _cleanup_free_ char *one = NULL, *other = NULL;
    char path[PATH];
    size_t n, m;

    snprintf(path, sizeof path, "%s/%s", a, name);
    assert_int_equal(file_read(path, 1 << 24, &one, &n), 0);
    snprintf(path, sizeof path, "%s/%s", b, name);
    assert_int_equal(file_read(path, 1 << 24, &other, &m), 0);
    assert_int_equal(n, m);
    assert_memory_equal(one, other, n);
}

static bool is_there(const char *dir, const char *name)
{
    char path[PATH];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* The learner commits a version; base: what it is an adapter on, or NULL. */
static void publish(struct farm *farm, uint64_t number, const char *base)
{
    struct manifest manifest = {.run = RUN, .number = number};
    uint8_t *weights = malloc(WEIGHTS);
    struct error error = {0};
    char dir[VERSION_PATH];

    assert_non_null(weights);
    for (size_t i = 0; i < WEIGHTS; i++)
        weights[i] = (uint8_t)(i * 7 + i / 251 + number);
    assert_int_equal(version_begin(farm->run, 0, number, dir, &error), 0);
    put(dir, "model.safetensors", weights, base ? 1000 : WEIGHTS);
    put(dir, "config.json", "{}", 2);
    put(dir, "nothing.txt", "", 0);
    put(dir, "train_state.safetensors", "moments", 7);
    if (base && base_link_write(dir, base, &error) < 0)
        fail_msg("%s", error.text);
    if (version_commit(farm->run, dir, &manifest, &error) < 0)
        fail_msg("%s", error.text);
    memcpy(farm->digest[number], manifest.digest, SHA256_SIZE);
    manifest_release(&manifest);
    free(weights);
}

static void start(struct farm *farm, uint64_t version, size_t n_keep, const uint64_t *keep)
{
    farm->done = 0;
    assert_int_equal(fetch_start(farm->fetch, version, farm->digest[version], keep, n_keep), 0);
}

/* Turns the loop until the bringing has ended; a minute is too long. */
static int bring(struct farm *farm, uint64_t version, size_t n_keep, const uint64_t *keep)
{
    uint64_t begun_ms = clock_mono_ms();
    struct loop_timer *guard;

    start(farm, version, n_keep, keep);
    assert_int_equal(loop_timer_new(farm->loop, 20, 20, (loop_fn *)fetch_tick, farm->fetch, &guard), 0);
    while (!farm->done) {
        loop_turn(farm->loop, true);
        if (clock_mono_ms() - begun_ms > 60000)
            fail_msg("waited a minute in vain");
    }
    loop_timer_free(guard);
    return farm->result;
}

static void cached(const struct farm *farm, uint64_t version, char ret[VERSION_PATH])
{
    assert_true(snprintf(ret, VERSION_PATH, "%s/%016x-actor/policies/v%06u", farm->cache, RUN, (unsigned)version) < VERSION_PATH);
}

static void test_whole_and_once(void **state _unused_)
{
    struct farm farm;
    char dir[VERSION_PATH], there[VERSION_PATH], text[160];
    uint64_t version = 0;

    set_up(&farm);
    publish(&farm, 3, NULL);
    assert_int_equal(bring(&farm, 3, 0, NULL), 0);
    cached(&farm, 3, dir);
    assert_string_equal(farm.brought, dir);
    assert_int_equal(version_path(farm.run, 0, 3, there), 0);
    assert_same(dir, there, "model.safetensors");
    assert_same(dir, there, "config.json");
    assert_same(dir, there, "nothing.txt");
    assert_same(dir, there, "manifest.json");
    assert_false(is_there(dir, "train_state.safetensors"));             /* nobody serves by it */
    assert_false(is_there(dir, "lock"));
    assert_in_range(fetch_bytes_total(farm.fetch), WEIGHTS + 2, WEIGHTS + 4096);
    assert_false(fetch_busy(farm.fetch, &version));
    assert_false(fetch_text(farm.fetch, text, sizeof text));

    farm.requests = 0;
    start(&farm, 3, 0, NULL);
    assert_int_equal(fetch_start(farm.fetch, 3, farm.digest[3], NULL, 0), -EBUSY);
    assert_true(fetch_busy(farm.fetch, &version) && version == 3);
    while (!farm.done)
        loop_turn(farm.loop, true);
    assert_int_equal(farm.result, 0);
    assert_int_equal(farm.requests, 0);                                 /* it lies there */
    tear_down(&farm);
}

/* What an adapter is on comes with it and stays beside it; what nobody keeps goes, also what was begun of it. */
static void test_base_and_retention(void **state _unused_)
{
    struct farm farm;
    char dir[16][VERSION_PATH], begun[VERSION_PATH];

    set_up(&farm);
    for (uint64_t i = 1; i <= 3; i++)
        publish(&farm, i, NULL);
    publish(&farm, 4, "../v000002");
    for (uint64_t i = 1; i <= 4; i++)
        cached(&farm, i, dir[i]);
    assert_int_equal(bring(&farm, 1, 0, NULL), 0);
    assert_int_equal(bring(&farm, 3, 1, (const uint64_t[]) {1}), 0);
    assert_true(is_there(dir[1], "config.json") && is_there(dir[3], "config.json"));
    snprintf(begun, sizeof begun, "%s/%016x-actor/policies/.pull-v000009", farm.cache, RUN);
    assert_int_equal(mkdir_p(begun, 0700), 0);
    assert_int_equal(bring(&farm, 4, 1, (const uint64_t[]) {3}), 0);
    assert_string_equal(farm.brought, dir[4]);
    assert_true(is_there(dir[2], "config.json") && is_there(dir[3], "config.json") && is_there(dir[4], "base.json"));
    assert_false(is_there(dir[1], "") || is_there(begun, ""));
    tear_down(&farm);
}

/* Killed in the middle: the next life asks for what is missing; what lies there and is something else is brought again. */
static void test_resumed(void **state _unused_)
{
    struct farm farm;
    _cleanup_free_ char *manifest = NULL;
    char dir[VERSION_PATH], there[VERSION_PATH], text[160] = "", path[PATH];
    struct stat st;
    size_t n;
    int fd;

    set_up(&farm);
    publish(&farm, 3, NULL);
    farm.stop_after = 4;                        /* the manifest, config.json, and of the weights two chunks or less */
    snprintf(path, sizeof path, "%s/%016x-actor/policies/.pull-v000003/model.safetensors", farm.cache, RUN);
    start(&farm, 3, 0, NULL);
    while (farm.requests <= farm.stop_after || stat(path, &st) < 0 || st.st_size < 256 << 10) {     /* written, too */
        loop_turn(farm.loop, true);
        fetch_tick(farm.fetch);
    }
    loop_turn(farm.loop, false);
    assert_true(fetch_text(farm.fetch, text, sizeof text));
    assert_int_equal(strncmp(text, "bringing version 3: ", 20), 0);
    assert_non_null(strstr(text, " of 1 MB, "));
    actor_ends(&farm);
    assert_int_equal(farm.done, 1);
    assert_int_equal(farm.result, -ECANCELED);

    farm.stop_after = 0;
    farm.asked = 0;
    actor_starts(&farm);
    assert_int_equal(bring(&farm, 3, 0, NULL), 0);
    assert_in_range(farm.asked, 1, WEIGHTS - (256 << 10));
    cached(&farm, 3, dir);
    assert_int_equal(version_path(farm.run, 0, 3, there), 0);
    assert_same(dir, there, "model.safetensors");

    publish(&farm, 4, NULL);
    snprintf(path, sizeof path, "%s/%016x-actor/policies/.pull-v000004", farm.cache, RUN);
    assert_int_equal(mkdir_p(path, 0700), 0);
    assert_int_equal(version_path(farm.run, 0, 4, there), 0);
    snprintf(text, sizeof text, "%s/manifest.json", there);
    assert_int_equal(file_read(text, 1 << 20, &manifest, &n), 0);
    put(path, "manifest.json", manifest, n);
    put(path, "model.safetensors", "something else", 14);
    put(path, "config.json", "[]", 2);
    put(path, "nothing.txt", "too long", 8);
    assert_int_equal(bring(&farm, 4, 0, NULL), 0);
    cached(&farm, 4, dir);
    assert_same(dir, there, "model.safetensors");
    assert_same(dir, there, "config.json");
    assert_same(dir, there, "nothing.txt");

    /* the learner's own file is damaged: asked for twice, refused, and nothing of it is a version here */
    publish(&farm, 5, NULL);
    assert_int_equal(version_path(farm.run, 0, 5, there), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", there);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "#", 1, 1000), 1);
    close(fd);
    assert_int_equal(bring(&farm, 5, 0, NULL), -EBADMSG);
    assert_non_null(strstr(farm.text, "model.safetensors: its bytes are not those its manifest lists"));
    cached(&farm, 5, dir);
    assert_false(is_there(dir, ""));
    tear_down(&farm);
}

/* A bit has turned in the cache: what is damaged goes, the version or what it is on, and only that; then it comes again. */
static void test_damaged(void **state _unused_)
{
    struct farm farm;
    char dir[16][VERSION_PATH], there[VERSION_PATH], path[PATH];

    set_up(&farm);
    publish(&farm, 1, NULL);
    publish(&farm, 2, "../v000001");
    cached(&farm, 1, dir[1]);
    cached(&farm, 2, dir[2]);
    for (int which = 1; which <= 2; which++) {
        int fd;

        assert_int_equal(bring(&farm, 2, 0, NULL), 0);
        snprintf(path, sizeof path, "%s/model.safetensors", dir[which]);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "#", 1, 500), 1);
        close(fd);
        assert_true(fetch_damaged(farm.fetch, 2, farm.digest[2]));
        assert_false(is_there(dir[which], ""));
        assert_true(is_there(dir[3 - which], ""));
        assert_int_equal(bring(&farm, 2, 0, NULL), 0);
        assert_int_equal(version_path(farm.run, 0, (uint64_t)which, there), 0);
        assert_same(dir[which], there, "model.safetensors");
    }
    assert_false(fetch_damaged(farm.fetch, 2, farm.digest[2]));         /* all of it is what it should be */
    assert_true(is_there(dir[1], "") && is_there(dir[2], ""));
    tear_down(&farm);
}

/* Ends that are said: the version is not there any more, is another one, is an adapter on what cannot be brought. */
static void test_refused(void **state _unused_)
{
    struct farm farm;
    char name[32];

    set_up(&farm);
    assert_int_equal(bring(&farm, 3, 0, NULL), -ESTALE);
    assert_non_null(strstr(farm.text, "manifest.json cannot be had from the learner"));
    publish(&farm, 3, NULL);
    farm.digest[3][0] ^= 1;
    assert_int_equal(bring(&farm, 3, 0, NULL), -EBADMSG);
    farm.digest[3][0] ^= 1;
    publish(&farm, 4, "../../policies/v000003/../v000003");
    assert_int_equal(bring(&farm, 4, 0, NULL), -ENOTSUP);
    assert_non_null(strstr(farm.text, "v000004/base.json: the base ../../policies/v000003/../v000003 is no version of the run"));
    for (unsigned i = 5; i <= 8; i++) {
        snprintf(name, sizeof name, i % 2 ? "../v%06u" : "../../policies/v%06u", i == 5 ? 3 : i - 1);
        publish(&farm, i, name);
    }
    assert_int_equal(bring(&farm, 8, 0, NULL), 0);
    publish(&farm, 9, "../v000008");
    assert_int_equal(bring(&farm, 9, 0, NULL), -ELOOP);
    tear_down(&farm);
}

/* No fault of the version: nobody to ask yet, another process of the host that brings it, somebody who thinks better of it. */
static void test_not_yet(void **state _unused_)
{
    struct error error = {0};
    struct cache other;
    struct farm farm;
    char taken[VERSION_PATH];
    int lock;

    set_up(&farm);
    publish(&farm, 3, NULL);
    assert_int_equal(cache_open(&other, farm.cache, RUN, "actor", &error), 0);
    assert_int_equal(cache_begin(&other, 0, 3, farm.digest[3], taken, &lock, &error), 0);
    assert_int_equal(bring(&farm, 3, 0, NULL), -EAGAIN);
    assert_non_null(strstr(farm.text, "another process of this host is bringing this version"));
    close(lock);
    cache_close(&other);

    fetch_cancel(farm.fetch);                   /* no harm */
    assert_int_equal(farm.done, 1);
    farm.stop_after = 1;
    farm.requests = 0;
    start(&farm, 3, 0, NULL);
    fetch_cancel(farm.fetch);                   /* the disk is at it */
    while (!farm.done)
        loop_turn(farm.loop, true);
    assert_int_equal(farm.result, -ECANCELED);
    start(&farm, 3, 0, NULL);
    while (farm.requests < 2) {
        loop_turn(farm.loop, true);
        fetch_tick(farm.fetch);
    }
    fetch_cancel(farm.fetch);
    while (!farm.done)
        loop_turn(farm.loop, true);
    assert_int_equal(farm.result, -ECANCELED);
    assert_int_equal(cache_open(&other, farm.cache, RUN, "actor", &error), 0);
    assert_int_equal(cache_begin(&other, 0, 3, farm.digest[3], taken, &lock, &error), 0);   /* another may go on with it */
    close(lock);
    cache_close(&other);
    farm.stop_after = 0;
    assert_int_equal(bring(&farm, 3, 0, NULL), 0);
    tear_down(&farm);
}

static void wait_at_the_disk(void *arg)
{
    struct farm *farm = arg;

    while (atomic_load(&farm->disk_waits))
        sched_yield();
}

/* The learner has the version no more while a part of it is being written: told when the disk is done with the files. */
static void test_gone_while_it_is_written(void **state _unused_)
{
    struct farm farm;

    set_up(&farm);
    publish(&farm, 3, NULL);
    farm.gone_after = 4;                        /* the manifest, config.json, two chunks of the weights */
    start(&farm, 3, 0, NULL);
    while (farm.requests < 2) {
        loop_turn(farm.loop, true);
        fetch_tick(farm.fetch);
    }
    atomic_store(&farm.disk_waits, true);
    assert_int_equal(worker_submit(farm.worker, wait_at_the_disk, &farm), 0);
    while (farm.requests <= farm.gone_after)
        loop_turn(farm.loop, true);
    for (int i = 0; i < 20; i++)                /* the refusal comes in; nothing else will happen */
        loop_turn(farm.loop, false);
    assert_int_equal(farm.done, 0);
    atomic_store(&farm.disk_waits, false);
    while (!farm.done)
        loop_turn(farm.loop, true);
    assert_int_equal(farm.result, -ESTALE);
    assert_non_null(strstr(farm.text, "model.safetensors cannot be had from the learner: not there any more"));
    farm.gone_after = 0;
    assert_int_equal(bring(&farm, 3, 0, NULL), 0);
    tear_down(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_and_once), cmocka_unit_test(test_base_and_retention), cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_refused), cmocka_unit_test(test_gone_while_it_is_written),
        cmocka_unit_test(test_not_yet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
