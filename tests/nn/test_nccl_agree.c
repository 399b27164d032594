/* test_nccl_agree: ranks agree on one NCCL group over the host's gather, keep it, and make a new one after any failure. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/harness/gather_desk.h"
#include "tests/harness/nccl_stand_in.h"
#include "train/device_group.h"

enum { RANKS = NCCL_RANKS, AMPLE = 60000, SHORT = 50 };

static struct gather_desk desk = GATHER_DESK;

static int gather(void *arg, const void *mine, size_t bytes,
                  void *ret_all) { return gather_desk(&desk, *(int *)arg, mine, bytes, ret_all); }

/* ---- ranks ----------------------------------------------------------------------------------------------------------- */

struct rank {
    int rank, result;
    struct group host;
    struct device_group *group;
    char why[200];
};
static struct rank ranks[RANKS];
static unsigned patience;

static int fresh(void **state)
{
    nccl_world_reset(state);
    gather_desk_reset(&desk, RANKS);
    desk.fail_at = 0;
    patience = AMPLE;
    for (int i = 0; i < RANKS; i++) {
        ranks[i] = (struct rank) {.rank = i};
        ranks[i].host = (struct group) {.rank = i, .ranks = RANKS, .gather = gather, .arg = &ranks[i].rank};
        assert_int_equal(device_group_new(&nccl_stand_in, &ranks[i].host, &ranks[i].group), 0);
    }
    return 0;
}

static int free_all(void **state _unused_)
{
    for (int i = 0; i < RANKS; i++)
        ranks[i].group = device_group_free(ranks[i].group);
    gather_desk_release(&desk);
    return 0;
}

static void *agree(void *arg)
{
    struct rank *me = arg;
    struct error error = {0};

    me->result = device_group_agree(me->group, patience, &error);
    snprintf(me->why, sizeof me->why, "%s", error.text);
    return NULL;
}

static void all_agree(void)
{
    pthread_t threads[RANKS];
    int i;

    pthread_mutex_lock(&nccl_world.lock);
    nccl_world.joined = 0;
    pthread_mutex_unlock(&nccl_world.lock);
    for (i = 0; i < RANKS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, agree, &ranks[i]), 0);
    for (i = 0; i < RANKS; i++)
        pthread_join(threads[i], NULL);
}

static void expect_whole(uint32_t epoch)
{
    for (int i = 0; i < RANKS; i++) {
        if (ranks[i].result < 0)
            fail_msg("rank %d: %s", i, ranks[i].why);
        assert_int_equal(device_group_epoch(ranks[i].group), epoch);
        assert_non_null(device_group_nccl(ranks[i].group));
        assert_false(nccl_group_broken(device_group_nccl(ranks[i].group)));
    }
}

static void test_made_once_and_kept(void **state _unused_)
{
    all_agree();
    expect_whole(1);
    all_agree();
    expect_whole(1);
    assert_int_equal(nccl_world.ids, 1);
}

static void test_a_broken_group_is_made_anew(void **state _unused_)
{
    all_agree();
    device_group_abort(ranks[2].group, "a peer is gone");
    all_agree();
    expect_whole(2);
    assert_int_equal(nccl_world.aborts, RANKS);         /* each its own, once */
}

/* A rank that was restarted knows no epoch and holds nothing: it learns the number, and the others drop what they hold. */
static void test_a_restarted_rank(void **state _unused_)
{
    all_agree();
    device_group_abort(ranks[1].group, "again");
    all_agree();
    expect_whole(2);
    device_group_free(ranks[0].group);
    assert_int_equal(device_group_new(&nccl_stand_in, &ranks[0].host, &ranks[0].group), 0);
    all_agree();
    expect_whole(3);
}

static void test_somebody_cannot_join(void **state _unused_)
{
    nccl_world.error_at = 3;
    patience = SHORT;
    all_agree();
    for (int i = 0; i < RANKS; i++) {
        assert_int_equal(ranks[i].result, -EIO);
        assert_null(device_group_nccl(ranks[i].group));
        assert_non_null(strstr(ranks[i].why, "rank 3"));
    }
    assert_non_null(strstr(ranks[3].why, "remote process exited"));
    nccl_world.error_at = -1;
    patience = AMPLE;
    all_agree();
    expect_whole(2);
}

/* The gather breaks at each of its three uses: nobody holds a group that another does not, and the next attempt works. */
static void test_the_gather_fails(void **state)
{
    for (int at = 1; at <= 3; at++) {
        free_all(state);
        fresh(state);
        desk.fail_at = at;
        all_agree();
        for (int i = 0; i < RANKS; i++) {
            assert_int_equal(ranks[i].result, -ECONNRESET);
            assert_null(device_group_nccl(ranks[i].group));
        }
        desk.fail_at = 0;
        all_agree();
        for (int i = 0; i < RANKS; i++)
            assert_int_equal(ranks[i].result, 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_once_and_kept, fresh, free_all),
        cmocka_unit_test_setup_teardown(test_a_broken_group_is_made_anew, fresh, free_all),
        cmocka_unit_test_setup_teardown(test_a_restarted_rank, fresh, free_all),
        cmocka_unit_test_setup_teardown(test_somebody_cannot_join, fresh, free_all),
        cmocka_unit_test_setup_teardown(test_the_gather_fails, fresh, free_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
