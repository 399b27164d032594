/* Ranks on devices: buckets of a gradient go to the other ranks on a stream of their own while the backward is put on the tape's;
 * whichever stream is behind (tests/emulate: lazy ones carry out nothing before somebody waits), the numbers are those of
 * exchanging afterwards. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/emulate/test_device.h"
#include "tests/harness/small_net.h"
#include "train/device_group.h"

enum { BUCKET = 500, MOST = 64 };

/* ---- NCCL on the emulated streams: the other ranks always have the same numbers as this one ------------------------------- */

struct operation {
    const float *mine;
    float *to;
    size_t count;
    int ranks;
    bool sum;
};
static struct operation operations[MOST];
static int n_operations, n_on_return, ranks, refuse_at;
static bool aborted;

static int carry_out(void *arg)
{
    const struct operation *o = arg;

    for (size_t i = 0; i < o->count && o->sum; i++)
        o->to[i] = o->mine[i] * (float)o->ranks;
    for (int i = 0; i < o->ranks && !o->sum; i++)
        memcpy(o->to + (size_t)i * o->count, o->mine, o->count * sizeof(float));
    return 0;
}

static int put(const void *mine, void *to, size_t count, bool sum, void *stream)
{
    assert_true(n_operations < MOST);
    operations[n_operations] = (struct operation) {.mine = mine, .to = to, .count = count, .ranks = ranks, .sum = sum};
    if (refuse_at && n_operations + 1 == refuse_at)
        return NCCL_REMOTE_ERROR;
    return emulate_put(stream, carry_out, &operations[n_operations++]) < 0 ? NCCL_REMOTE_ERROR : NCCL_SUCCESS;
}

static int get_version(int *ret) { return *ret = (int)NCCL_CONFIG_VERSION, NCCL_SUCCESS; }
static int get_id(struct nccl_id *ret) { return memset(ret, 0, sizeof *ret), NCCL_SUCCESS; }
static int join(void **ret, int n, struct nccl_id id, int rank, struct nccl_config *config)
{
    (void)id, (void)rank, (void)config;
    ranks = n;
    *ret = &ranks;
    return NCCL_SUCCESS;
}
static int async_error(void *comm, int *ret) { return (void)comm, *ret = NCCL_SUCCESS; }
static int leave(void *comm) { return (void)comm, NCCL_SUCCESS; }
static int abort_comm(void *comm) { return (void)comm, aborted = true, NCCL_SUCCESS; }
static int all_reduce(const void *mine, void *to, size_t count, int type, int op, void *comm, void *stream)
{
    (void)type, (void)op, (void)comm;
    return put(mine, to, count, true, stream);
}
static int all_gather(const void *mine, void *to, size_t bytes, int type, void *comm, void *stream)
{
    (void)type, (void)comm;
    return put(mine, to, bytes / sizeof(float), false, stream);
}
static const char *words(int result) { return (void)result, "remote process exited"; }

static const struct nccl_calls calls = {get_version, get_id, join, async_error, abort_comm, leave, leave, all_reduce, all_gather,
                                        words};

/* ---- one rank of several ----------------------------------------------------------------------------------------- */

static int echo(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    for (int i = 0; i < *(int *)arg; i++)
        memcpy((char *)ret_all + (size_t)i * bytes, mine, bytes);
    return 0;
}

static void note_exchanges(struct tape *tape, void *context)
{
    (void)tape, (void)context;
    n_on_return = n_operations;
}

static int shard(struct tape *tape, int number, int first, int last, void *arg)
{
    (void)number;
    return small_net_pass(arg, tape, first, last, note_exchanges, NULL);
}

static shard_fn *shard_of = shard;

/* The gradient of the first of n ranks. -errno of shards_gradient. */
static int gradient(int n, bool overlapped, unsigned lazy, bool half, float *ret)
{
    struct group group = {.rank = 0, .ranks = n, .gather = echo, .arg = &n};
    struct device_group *nccl = NULL;
    struct shards *shards = NULL;
    struct error error = {0};
    struct small_net net;
    int r;

    n_operations = 0;
    aborted = false;
    emulate_lazily(lazy);
    small_net_make(&net);
    params_use_device(&net.params, device, half);
    assert_int_equal(params_pack(&net.params, true), 0);
    assert_int_equal(device_group_new(&calls, &group, &nccl), 0);
    assert_int_equal(device_group_agree(nccl, 1000, &error), 0);
    group.device = nccl;
    assert_int_equal(shards_new(net.params.numel, 1, &group, &shards), 0);
    shards_compute_with(shards, &net.params);
    shards_exchange(shards, overlapped, BUCKET);
    memset(ret, 0, (size_t)net.params.numel * sizeof *ret);
    r = shards_gradient(shards, net.ranges, net.n_ranges, SMALL_SAMPLES, shard_of, &net, ret);
    if (r >= 0)         /* what is left of the first call is in the second's way */
        r = shards_gradient(shards, net.ranges, net.n_ranges, SMALL_SAMPLES, shard_of, &net, ret);
    shards_free(shards);
    small_net_release(&net);
    device_group_free(nccl);
    emulate_lazily(3);
    return r;
}

static void overlap_changes_nothing(int n, bool strict, bool half)
{
    static float late[1 << 14], early[1 << 14];
    int exchanges;

    device->strict = strict;
    assert_int_equal(gradient(n, false, 0, half, late), 0);
    assert_int_equal(n_on_return, n_operations / 2);            /* those of the first call */
    exchanges = n_operations;
    assert_true(late[0] != 0 && exchanges >= 2 * 7);
    for (unsigned lazy = 0; lazy < 4; lazy++) {
        assert_int_equal(gradient(n, true, lazy, half, early), 0);
        assert_memory_equal(early, late, sizeof late);
        assert_int_equal(n_operations, exchanges);
        assert_true(n_on_return > n_operations / 2 + 4);        /* most are under way when the way back ends */
    }
}

static void test_sums_by_nccl(void **state)
{
    (void)state;
    overlap_changes_nothing(2, true, false);
    overlap_changes_nothing(8, false, false);
}

static void test_sums_in_the_own_tree(void **state)
{
    (void)state;
    overlap_changes_nothing(4, true, false);
    overlap_changes_nothing(8, true, true);
}

/* The third bucket cannot be sent: the backward stops, the group is given up so that nobody waits for this rank. */
static void test_a_bucket_that_does_not_leave(void **state)
{
    static float grad[1 << 14];

    (void)state;
    device->strict = true;
    refuse_at = 3;
    assert_int_equal(gradient(2, true, 0, false, grad), -ECONNRESET);
    refuse_at = 0;
    assert_true(aborted);
    assert_int_equal(n_operations, 2);
}

/* A rank fails before it has sent anything: the others must not wait for it either. */
static int failing_shard(struct tape *tape, int number, int first, int last, void *arg)
{
    (void)tape, (void)number, (void)first, (void)last, (void)arg;
    return -EIO;
}

static void test_a_rank_that_fails_first(void **state)
{
    static float grad[1 << 14];

    (void)state;
    device->strict = true;
    shard_of = failing_shard;
    assert_int_equal(gradient(2, true, 0, false, grad), -EIO);
    shard_of = shard;
    assert_true(aborted);
    assert_int_equal(n_operations, 0);
}

static int setup(void **state)
{
    (void)state;
    if (getenv("GANTRY_TEST_DEVICE")) {
        printf("skipped: lazy streams are the emulated device's\n");
        exit(77);
    }
    device = test_device_open();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_by_nccl),
        cmocka_unit_test(test_sums_in_the_own_tree),
        cmocka_unit_test(test_a_bucket_that_does_not_leave),
        cmocka_unit_test(test_a_rank_that_fails_first),
    };

    return cmocka_run_group_tests(tests, setup, test_device_teardown);
}
