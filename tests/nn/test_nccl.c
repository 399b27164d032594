/* test_nccl: ranks over NCCL never hang. The library is played by tests/harness/nccl_stand_in.h;
 * the real one, where it is installed, is asked for its version. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/harness/nccl_stand_in.h"

/* ---- with NCCL's header at hand: numbers and layouts are its own -------------------------------------------------------- */

#if __has_include(<nccl.h>)
#include <limits.h>
#include <nccl.h>

#define SAME(a, b) _Static_assert((int)(a) == (int)(b), #a " is " #b)
#define PLACE(a, b) \
    _Static_assert(offsetof(struct nccl_config, a) == offsetof(ncclConfig_t, b) && \
                   sizeof(((struct nccl_config *)0)->a) == sizeof(((ncclConfig_t *)0)->b), #a " is " #b)

SAME(NCCL_SUCCESS, ncclSuccess);
SAME(NCCL_REMOTE_ERROR, ncclRemoteError);
SAME(NCCL_IN_PROGRESS, ncclInProgress);
SAME(NCCL_UINT8, ncclUint8);
SAME(NCCL_FLOAT32, ncclFloat32);
SAME(NCCL_BFLOAT16, ncclBfloat16);
SAME(NCCL_SUM, ncclSum);
SAME(NCCL_ID_BYTES, sizeof(ncclUniqueId));
SAME(NCCL_CONFIG_VERSION, NCCL_VERSION(2, 17, 0));
SAME(NCCL_CONFIG_UNDEF_INT, INT_MIN);
PLACE(size, size);
PLACE(magic, magic);
PLACE(version, version);
PLACE(blocking, blocking);
PLACE(cga_cluster_size, cgaClusterSize);
PLACE(min_ctas, minCTAs);
PLACE(max_ctas, maxCTAs);
PLACE(net_name, netName);
PLACE(split_share, splitShare);
#endif

enum { RANKS = NCCL_RANKS, NUMBERS = NCCL_NUMBERS };

/* ---- one rank's life ------------------------------------------------------------------------------------------------ */

struct rank {
    int rank, ranks;
    struct nccl_id id;
    unsigned timeout_ms, patience[2];   /* to join; for each of the two operations */
    int dies_before;                    /* does not take part in this operation any more; 0: lives */
    int joined, reduced, gathered;      /* results; 1: not reached */
    float numbers[NUMBERS];
    char all[RANKS][16], why[200];
};

static void *live(void *arg)
{
    struct rank *me = arg;
    struct nccl_group *group = NULL;
    struct error error = {0};
    struct nccl_stream stream;
    char mine[16] = {0};

    me->reduced = me->gathered = 1;
    me->joined = nccl_group_join(&nccl_stand_in, &me->id, me->rank, me->ranks, me->timeout_ms, &group, &error);
    if (me->joined < 0) {
        snprintf(me->why, sizeof me->why, "%s", error.text);
        return NULL;
    }
    stream = nccl_stand_in_stream(group);
    for (int i = 0; i < NUMBERS; i++)
        me->numbers[i] = (float)(me->rank + 1) * (float)i;
    if (me->dies_before != 1) {
        me->reduced = nccl_group_all_reduce(group, me->numbers, NUMBERS, NCCL_FLOAT32, stream.handle);
        if (me->reduced == 0)
            me->reduced = nccl_group_wait(group, &stream, me->patience[0]);
        snprintf(mine, sizeof mine, "rank %d", me->rank);
        if (me->reduced == 0 && me->dies_before != 2) {
            me->gathered = nccl_group_all_gather(group, mine, sizeof mine, me->all, stream.handle);
            if (me->gathered == 0)
                me->gathered = nccl_group_wait(group, &stream, me->patience[1]);
        }
    }
    snprintf(me->why, sizeof me->why, "%s", nccl_group_why(group));
    if (me->reduced < 0 || me->gathered < 0) {  /* broken for good */
        assert_int_equal(nccl_group_all_reduce(group, me->numbers, NUMBERS, NCCL_FLOAT32, stream.handle), -ECONNRESET);
        assert_int_equal(nccl_group_wait(group, &stream, 1), -ECONNRESET);
    }
    nccl_group_free(group);
    return NULL;
}

enum { AMPLE = 60000, SHORT = 50 };     /* ms; nobody waits for the first */

/* n of `of` ranks. Who must fail at an operation is not left waiting long for it. */
static void run(struct rank *ranks, int n, int of, unsigned timeout_ms, int fails_at)
{
    pthread_t threads[RANKS];
    struct error error = {0};
    struct nccl_id id;
    int i;

    assert_int_equal(nccl_group_make_id(&nccl_stand_in, &id, &error), 0);
    for (i = 0; i < n; i++) {
        int dies = ranks[i].dies_before;

        ranks[i] = (struct rank) {.rank = i, .ranks = of, .id = id, .timeout_ms = timeout_ms, .dies_before = dies,
                                   .patience = {fails_at == 1 ? SHORT : AMPLE, fails_at == 2 ? SHORT : AMPLE}};
        assert_int_equal(pthread_create(&threads[i], NULL, live, &ranks[i]), 0);
    }
    for (i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void check_whole(struct rank *ranks)
{
    int i, k;

    for (i = 0; i < RANKS; i++) {
        assert_int_equal(ranks[i].joined, 0);
        assert_int_equal(ranks[i].reduced, 0);
        assert_int_equal(ranks[i].gathered, 0);
        assert_string_equal(ranks[i].why, "");
        assert_true(ranks[i].numbers[7] == 70.F);       /* (1 + 2 + 3 + 4) * 7 */
        for (k = 0; k < RANKS; k++)
            assert_int_equal(ranks[i].all[k][5], '0' + k);
    }
    assert_int_equal(nccl_world.destroys, RANKS);
    assert_int_equal(nccl_world.aborts, 0);
}

static void test_whole(void **state _unused_)
{
    static struct rank ranks[RANKS];

    nccl_world.init_polls = 100;
    run(ranks, RANKS, RANKS, AMPLE, 0);
    check_whole(ranks);
}

static void test_a_rank_never_joins(void **state _unused_)
{
    static struct rank ranks[RANKS];

    run(ranks, RANKS - 1, RANKS, SHORT, 0);
    for (int i = 0; i < RANKS - 1; i++) {
        assert_int_equal(ranks[i].joined, -ETIMEDOUT);
        assert_non_null(strstr(ranks[i].why, "in time"));
    }
    assert_int_equal(nccl_world.aborts, RANKS - 1);
}

/* A peer that is gone leaves the others' kernel running for ever: they come out by the deadline, and a new group works. */
static void test_a_rank_dies(void **state)
{
    static struct rank ranks[RANKS];

    for (int at = 1; at <= 2; at++) {
        nccl_world_reset(state);
        memset(ranks, 0, sizeof ranks);
        ranks[2].dies_before = at;
        run(ranks, RANKS, RANKS, AMPLE, at);
        for (int i = 0; i < RANKS; i++)
            if (i != 2)
                assert_int_equal(at == 1 ? ranks[i].reduced : ranks[i].gathered, -ECONNRESET);
        assert_int_equal(nccl_world.aborts, RANKS - 1);

        nccl_world_reset(state);
        memset(ranks, 0, sizeof ranks);
        run(ranks, RANKS, RANKS, AMPLE, 0);
        check_whole(ranks);
    }
}

static void test_asynchronous_error(void **state _unused_)
{
    static struct rank ranks[RANKS];

    ranks[1].dies_before = 1;
    nccl_world.error_at = 0;
    run(ranks, RANKS, RANKS, SHORT, 1);
    assert_int_equal(ranks[0].joined, -EIO);
    assert_non_null(strstr(ranks[0].why, "remote process exited"));
}

/* Another thread gives the plan up while this one waits. */
static void *abort_it(void *arg)
{
    nccl_group_abort(arg, "the plan was given up");
    return NULL;
}

static void test_abort_from_outside(void **state _unused_)
{
    struct nccl_group *group;
    struct error error = {0};
    struct nccl_stream stream;
    float numbers[NUMBERS] = {0};
    struct nccl_id id;
    pthread_t thread;

    nccl_world.joined = 1;                   /* the other rank has joined and will never reduce */
    assert_int_equal(nccl_group_make_id(&nccl_stand_in, &id, &error), 0);
    assert_int_equal(nccl_group_join(&nccl_stand_in, &id, 0, 2, 1000, &group, &error), 0);
    stream = nccl_stand_in_stream(group);
    assert_int_equal(nccl_group_all_reduce(group, numbers, NUMBERS, NCCL_FLOAT32, stream.handle), 0);
    assert_int_equal(pthread_create(&thread, NULL, abort_it, group), 0);
    assert_int_equal(nccl_group_wait(group, &stream, 100000), -ECONNRESET);
    pthread_join(thread, NULL);
    assert_true(nccl_group_broken(group));
    assert_string_equal(nccl_group_why(group), "the plan was given up");
    nccl_group_free(group);
    assert_int_equal(nccl_world.aborts, 1);
    assert_int_equal(nccl_world.destroys, 0);
}

/* The caller is stuck inside the library and polls nothing: abort comes to it when it is due, once. */
static void *abort_later(void *arg)
{
    pthread_mutex_lock(&nccl_world.lock);    /* not before it is stuck */
    while (nccl_world.arrived == 0) {
        pthread_mutex_unlock(&nccl_world.lock);
        sched_yield();
        pthread_mutex_lock(&nccl_world.lock);
    }
    nccl_world.stuck = false;
    pthread_mutex_unlock(&nccl_world.lock);
    nccl_group_abort(arg, "the learner is stopping");
    pthread_mutex_lock(&nccl_world.lock);
    pthread_cond_broadcast(&nccl_world.changed);
    pthread_mutex_unlock(&nccl_world.lock);
    return NULL;
}

static void test_abort_while_inside(void **state _unused_)
{
    struct nccl_group *group;
    struct error error = {0};
    float numbers[NUMBERS] = {0};
    struct nccl_id id;
    pthread_t thread;

    nccl_world.joined = 1;
    assert_int_equal(nccl_group_make_id(&nccl_stand_in, &id, &error), 0);
    assert_int_equal(nccl_group_join(&nccl_stand_in, &id, 0, 2, 1000, &group, &error), 0);
    nccl_world.stuck = true;
    assert_int_equal(pthread_create(&thread, NULL, abort_later, group), 0);
    assert_int_equal(nccl_group_all_reduce(group, numbers, NUMBERS, NCCL_FLOAT32, nccl_stand_in_stream(group).handle),
                     -ECONNRESET);
    pthread_join(thread, NULL);
    assert_string_equal(nccl_group_why(group), "the learner is stopping");
    nccl_group_free(group);
    assert_int_equal(nccl_world.aborts, 1);
}

static void test_the_library(void **state _unused_)
{
    struct nccl_calls calls;
    struct error error = {0};
    int version = 0;

    assert_int_equal(nccl_calls_open("libnot-there.so.9", &calls, &error), -ENOENT);
    assert_non_null(strstr(error.text, "libnot-there.so.9"));
    assert_non_null(strstr(error.text, "LD_LIBRARY_PATH"));
    assert_int_equal(nccl_calls_open("libm.so.6", &calls, &error), -ENOSYS);
    assert_non_null(strstr(error.text, "ncclGetVersion"));
    if (nccl_calls_open(NULL, &calls, &error) < 0) {
        print_message("SKIP the real NCCL: %s\n", error.text);
        skip();
    }
    assert_int_equal(calls.get_version(&version), NCCL_SUCCESS);
    print_message("NCCL %d\n", version);
    assert_true(version >= (int)NCCL_CONFIG_VERSION);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_whole, nccl_world_reset),
        cmocka_unit_test_setup(test_a_rank_never_joins, nccl_world_reset),
        cmocka_unit_test_setup(test_a_rank_dies, nccl_world_reset),
        cmocka_unit_test_setup(test_asynchronous_error, nccl_world_reset),
        cmocka_unit_test_setup(test_abort_from_outside, nccl_world_reset),
        cmocka_unit_test_setup(test_abort_while_inside, nccl_world_reset),
        cmocka_unit_test(test_the_library),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
