/* The tree of the virtual shards gives the same bits for 1, 2, 4 and 8 ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/macro.h"
#include "base/philox.h"
#include "nn/collective/shard_sum.h"

enum { N = 101 };

static void fill(float shard[VIRTUAL_SHARDS][N])
{
    struct philox random = philox_at(71, PHILOX_TEST, 0, 0, 0);

    for (int s = 0; s < VIRTUAL_SHARDS; s++)
        for (int i = 0; i < N; i++)
            shard[s][i] = (float)philox_normal(&random);
}

static void test_any_number_of_ranks(void **state)
{
    static float all[VIRTUAL_SHARDS][N], parts[VIRTUAL_SHARDS][N];
    float *list[VIRTUAL_SHARDS];

    (void)state;
    fill(all);
    for (int s = 0; s < VIRTUAL_SHARDS; s++)
        list[s] = all[s];
    shard_tree_sum(list, VIRTUAL_SHARDS, N);
    for (int ranks = 1; ranks <= VIRTUAL_SHARDS; ranks *= 2) {
        int each = VIRTUAL_SHARDS / ranks;

        fill(parts);
        for (int r = 0; r < ranks; r++) {
            float *own[VIRTUAL_SHARDS];

            for (int s = 0; s < each; s++)
                own[s] = parts[r * each + s];
            shard_tree_sum(own, each, N);
            list[r] = own[0];
        }
        shard_tree_sum(list, ranks, N);
        assert_memory_equal(list[0], all[0], sizeof(all[0]));
    }
}

static void test_it_is_the_documented_tree(void **state)
{
    static float shard[VIRTUAL_SHARDS][N], kept[VIRTUAL_SHARDS][N];
    float *list[VIRTUAL_SHARDS];

    (void)state;
    fill(shard);
    fill(kept);
    for (int s = 0; s < VIRTUAL_SHARDS; s++)
        list[s] = shard[s];
    shard_tree_sum(list, VIRTUAL_SHARDS, N);
    for (int i = 0; i < N; i++) {
        float want = ((kept[0][i] + kept[1][i]) + (kept[2][i] + kept[3][i])) +
                     ((kept[4][i] + kept[5][i]) + (kept[6][i] + kept[7][i]));
        assert_true(shard[0][i] == want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_ranks),
        cmocka_unit_test(test_it_is_the_documented_tree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
