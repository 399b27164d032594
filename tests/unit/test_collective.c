/* test_collective.c - ranks that others wait for are named in time. (What ranks come to together: tests/system/test_ranks.py.) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "learner/collective.h"

static void *gather(void *collective)
{
    char mine = 0, all[4];

    return (void *)(intptr_t)collective_gather(collective, &mine, 1, all);
}

/* Nobody else is there: rank 0 waits for all others, each of the others for rank 0. */
static void test_late(void **state _unused_)
{
    for (unsigned rank = 0; rank < 2; rank++) {
        struct collective *c;
        struct loop *loop;
        pthread_t thread;
        void *result;

        assert_int_equal(loop_new(&loop), 0);
        assert_int_equal(collective_new(loop, NULL, rank, 4, &c), 0);
        assert_int_equal(collective_late(c, UINT64_MAX), 0);        /* no gather goes on */
        assert_int_equal(pthread_create(&thread, NULL, gather, c), 0);
        while (!collective_late(c, UINT64_MAX))
            ;
        assert_int_equal(collective_late(c, UINT64_MAX), rank == 0 ? 0xe : 1);
        assert_int_equal(collective_late(c, 0), 0);
        collective_abort(c);
        pthread_join(thread, &result);
        assert_int_equal((intptr_t)result, -ECANCELED);
        assert_int_equal(collective_late(c, UINT64_MAX), 0);
        loop_turn(loop, false);         /* what the gather posted refers to it */
        collective_free(c);
        loop_free(loop);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_late)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
