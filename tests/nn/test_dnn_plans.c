/* Attention for cuDNN, without it: how calls are cut into pieces, which are for it, how many plans the models' calls want, what a
 * plan may work in, and the cache that holds them. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/macro.h"
#include "nn/device/dnn_cache.h"

static struct device_attention call_of(int heads, int group, int64_t dim, int64_t keys, bool causal)
{
    return (struct device_attention) {.n = 3, .heads = heads, .group = group, .dim = dim, .causal = causal,
                                      .scale = 1 / sqrtf((float)dim), .longest = keys, .longest_asking = keys, .q_rows = 3 * keys,
                                      .alike = true, .q_stride = heads * dim, .kv_stride = heads / group * dim,
                                      .out_stride = heads * dim};
}

static void test_what_is_for_cudnn(void **state)
{
    struct device_attention a = call_of(4, 2, 64, 32, true);
    struct dnn_key key, other;

    (void)state;
    assert_true(dnn_key_of(DEVICE_BF16, &a, false, &key));
    assert_true(dnn_key_of(DEVICE_BF16, &a, true, &other));
    assert_true(memcmp(&key, &other, sizeof key) != 0);
    a.q = &key;                                         /* places are no part of it */
    assert_true(dnn_key_of(DEVICE_BF16, &a, false, &other));
    assert_memory_equal(&key, &other, sizeof key);
    assert_false(dnn_key_of(DEVICE_F32, &a, false, &key));
    a.alike = false;
    assert_false(dnn_key_of(DEVICE_BF16, &a, false, &key));
    a = call_of(4, 1, 44, 32, false);
    assert_false(dnn_key_of(DEVICE_BF16, &a, false, &key));     /* not a multiple of eight */
    a = call_of(4, 1, 64, 1, false);
    assert_false(dnn_key_of(DEVICE_BF16, &a, true, &key));
    a = call_of(4, 1, 64, 32, true);
    a.longest_asking = 2;                               /* the mask would begin at the wrong row */
    assert_false(dnn_key_of(DEVICE_BF16, &a, false, &key));
    a.causal = false;
    assert_true(dnn_key_of(DEVICE_BF16, &a, false, &key));
}

static void test_versions_that_compute_wrong_numbers(void **state)
{
    struct dnn_key key = {.n = 1, .heads = 8, .group = 1, .dim = 64, .keys = 290, .asking = 290, .causal = true};

    (void)state;
    assert_true(dnn_is_sound(90600, &key) && dnn_is_sound(91900, &key));
    key.backward = true;
    assert_false(dnn_is_sound(90600, &key) || dnn_is_sound(91500, &key));
    assert_true(dnn_is_sound(91501, &key));
    key.keys = 384;
    assert_true(dnn_is_sound(90600, &key));
    key = (struct dnn_key) {.n = 1, .heads = 8, .group = 1, .dim = 64, .keys = 1, .asking = 1, .causal = true};
    assert_false(dnn_is_sound(90900, &key));
    assert_true(dnn_is_sound(91002, &key));
    key.causal = false;
    assert_true(dnn_is_sound(90900, &key));
}

static void test_what_a_masked_score_becomes(void **state)
{
    (void)state;
    assert_true(dnn_masked(90600) == -FLT_MAX && dnn_masked(90900) == -FLT_MAX);
    assert_true(dnn_masked(91002) == -INFINITY && dnn_masked(91900) == -INFINITY);
}

/* ---- the cache --------------------------------------------------------------------------------------------- */

static int made, dropped;
static bool refusing;

static int make(void *arg, struct dnn_plan *ret)
{
    (void)arg;
    made++;
    if (refusing)
        return -ENOTSUP;
    ret->plan = &made;
    ret->workspace = (size_t)ret->key.keys;
    return 0;
}

static void drop(void *arg, struct dnn_plan *plan)
{
    (void)arg;
    assert_ptr_equal(plan->plan, &made);
    dropped++;
}

static const struct dnn_plan *plan_for(struct dnn_cache *cache, int64_t keys)
{
    const struct dnn_key key = {.n = 1, .heads = 2, .group = 1, .dim = 64, .keys = keys, .asking = keys};

    return dnn_cache_plan(cache, &key, make, drop, NULL);
}

static void test_plans_are_made_once_and_the_least_used_goes(void **state)
{
    static struct dnn_cache cache;

    (void)state;
    made = dropped = 0;
    for (int64_t keys = 1; keys <= DNN_PLANS; keys++)
        assert_int_equal(plan_for(&cache, keys)->workspace, keys);
    for (int64_t keys = 1; keys <= DNN_PLANS; keys++)
        assert_int_equal(plan_for(&cache, keys)->workspace, keys);
    assert_int_equal(made, DNN_PLANS);
    (void)plan_for(&cache, 1);                  /* now 2 is the least used */
    (void)plan_for(&cache, DNN_PLANS + 1);
    assert_int_equal(dropped, 1);
    (void)plan_for(&cache, 1);
    assert_int_equal(made, DNN_PLANS + 1);
    (void)plan_for(&cache, 2);
    assert_int_equal(made, DNN_PLANS + 2);

    refusing = true;
    assert_null(plan_for(&cache, 1000));
    refusing = false;
    assert_null(plan_for(&cache, 1000));        /* kept like a plan */
    assert_int_equal(made, DNN_PLANS + 3);
    assert_int_equal(cache.refused, 1);
    dnn_cache_clear(&cache, drop, NULL);
    assert_int_equal(dropped, DNN_PLANS + 2);
    assert_int_equal(cache.made, dropped);
}

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

static void test_pieces(void **state)
{
    /* 5 x 5, 3, 3 of which one asks, 1 */
    int32_t start[] = {0, 5, 10, 15, 20, 25, 28, 31, 32}, asking[] = {0, 5, 10, 15, 20, 25, 28, 29, 30};
    const int want[] = {4, 1, 1, 1, 1};
    static uint16_t numbers[64 * 32];
    static float lse[64];
    struct device_attention a = {.n = 8, .heads = 2, .group = 1, .dim = 8, .start = start, .asking = asking, .start_here = start,
                                 .asking_here = asking, .q_stride = 16, .kv_stride = 32, .out_stride = 16, .q = numbers,
                                 .k = numbers, .out = numbers, .lse = lse};
    struct device_attention piece;
    int first = 0, n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(want); i++, first += n) {
        n = dnn_piece(&a, first, &piece);
        assert_int_equal(n, want[i]);
        assert_true(piece.n == n && piece.alike && !piece.start_here && piece.start == start + first &&
                    piece.asking == asking + first);
        assert_int_equal(piece.longest, start[first + 1] - start[first]);
        assert_int_equal(piece.longest_asking, asking[first + 1] - asking[first]);
        assert_ptr_equal(piece.q, numbers + asking[first] * 16);
        assert_ptr_equal(piece.k, numbers + start[first] * 32);
        assert_ptr_equal(piece.lse, lse + asking[first] * 2);   /* a sequence's own, head after head */
        assert_null(piece.dq);
    }
    assert_int_equal(first, 8);
    a.start_here = NULL;
    assert_int_equal(dnn_piece(&a, 0, &piece), 8);
}

enum { MOST_KEYS = 4096, PROMPTS = 15, SHORTEST = 21 };

struct keys { struct dnn_key key[MOST_KEYS]; int n; };

static void note(struct keys *keys, const struct device_attention *a, bool backward)
{
    struct device_attention piece;

    for (int first = 0, i; first < a->n; first += piece.n) {
        struct dnn_key key;

        (void)dnn_piece(a, first, &piece);
        if (!dnn_key_of(DEVICE_BF16, &piece, backward, &key))
            continue;
        for (i = 0; i < keys->n && memcmp(&keys->key[i], &key, sizeof key) != 0; i++)
            ;
        assert_true(i < MOST_KEYS);
        keys->key[i] = key;
        keys->n = i == keys->n ? i + 1 : keys->n;
    }
}

/* n sequences of these lengths in turn. */
static void note_sequences(struct keys *keys, int n, int base, int first, int lengths, bool stats, bool backward)
{
    int32_t start[65] = {0};
    static float lse[65 * 600 * 32];
    struct device_attention a = {.n = n, .heads = 32, .group = 1, .dim = 128, .causal = true, .start = start, .asking = start,
                                 .start_here = start, .asking_here = start, .q_stride = 4096, .kv_stride = 4096,
                                 .out_stride = 4096, .lse = stats ? lse : NULL};

    for (int i = 0; i < n; i++)
        start[i + 1] = start[i] + base + SHORTEST + (lengths == 1 ? first : (first + i) % lengths);
    note(keys, &a, backward);
}

static void note_pictures(struct keys *keys, int n, bool stats, bool backward)
{
    static float lse[65 * 261 * 16];

    for (int tower = 0; tower < 2; tower++) {
        int32_t start[65] = {0};
        int64_t dim = tower ? 72 : 64, rows = tower ? 256 : 261;
        struct device_attention a = {.n = n, .heads = 16, .group = 1, .dim = dim, .start = start, .asking = start,
                                     .start_here = start, .asking_here = start, .q_stride = 48 * dim, .kv_stride = 48 * dim,
                                     .out_stride = 16 * dim, .lse = stats ? lse : NULL};

        for (int i = 0; i < n; i++)
            start[i + 1] = start[i] + (int32_t)rows;
        note(keys, &a, backward);
    }
}

/* OpenVLA with LIBERO's prompts (15 lengths): acting in any batch, scoring pairs of pictures, a reference's pass, learning from
 * minibatches of up to 64, imitating and by reward. All of it in one process would still find each plan once. */
static void test_the_models_plans_all_have_room(void **state)
{
    static struct keys acting, scoring, learning, all;

    (void)state;
    for (int n = 1; n <= 16; n++) {
        for (int prompt = 0; prompt < PROMPTS; prompt++)
            for (int lengths = 1; lengths <= PROMPTS; lengths += 7) {   /* all alike, and mixed in several ways */
                note_sequences(&acting, n, 256, prompt, lengths, false, false);
                note_sequences(&scoring, n, 512, prompt, lengths, false, false);
                note_sequences(&learning, n, 256 + 6, prompt, lengths, false, false);
                for (int shift = 6; shift <= 7 && n <= 8; shift++)
                    for (int backward = 0; backward < 2; backward++)
                        note_sequences(&learning, n, 256 + shift, prompt, lengths, true, backward);
            }
        note_pictures(&acting, n, false, false);
        note_pictures(&scoring, 2 * n, false, false);
        note_pictures(&learning, n, true, false);
        note_pictures(&learning, n, true, true);
    }
    for (int i = 0; i < acting.n + scoring.n + learning.n; i++) {
        const struct dnn_key *key = i < acting.n               ? &acting.key[i]
                                    : i < acting.n + scoring.n ? &scoring.key[i - acting.n]
                                                               : &learning.key[i - acting.n - scoring.n];
        int k = 0;

        while (k < all.n && memcmp(&all.key[k], key, sizeof *key) != 0)
            k++;
        all.key[k] = *key;
        all.n = MAX(all.n, k + 1);
    }
    print_message("plans: acting %d, scoring %d, learning %d, all %d of %d\n", acting.n, scoring.n, learning.n, all.n, DNN_PLANS);
    assert_in_range(acting.n, 3 * PROMPTS, DNN_PLANS);
    assert_in_range(all.n, learning.n, DNN_PLANS);
}

static void test_what_a_plan_may_work_in(void **state)
{
    struct dnn_key key = {.n = 4, .heads = 32, .group = 1, .dim = 128, .keys = 299, .asking = 299, .dq_stride = 4096,
                          .dkv_stride = 4096};
    size_t scores = (size_t)4 * 32 * 299 * 299 * 4, tiled = (size_t)4 * 32 * 384 * 384 * 4, row = (size_t)4 * 299 * 4096;

    (void)state;
    assert_in_range(dnn_plan_most(&key), scores + 1024, scores + 8192);
    assert_int_equal(dnn_lay_out(&key, 1000).bytes, 1000);
    key.backward = true;
    assert_in_range(dnn_plan_most(&key), tiled + 4 * row, tiled + 4 * row + 8192);
    assert_in_range(dnn_lay_out(&key, 1000).bytes, 6 * row + 1000, 6 * row + (size_t)4 * 299 * 32 * 4 + 5 * 256 + 1000);
    assert_true(dnn_lay_out(&key, 0).plan % 256 == 0 && dnn_lay_out(&key, 0).dv % 256 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_for_cudnn),
        cmocka_unit_test(test_versions_that_compute_wrong_numbers),
        cmocka_unit_test(test_what_a_masked_score_becomes),
        cmocka_unit_test(test_plans_are_made_once_and_the_least_used_goes),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_the_models_plans_all_have_room),
        cmocka_unit_test(test_what_a_plan_may_work_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
