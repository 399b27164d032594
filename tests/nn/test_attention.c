/* Attention's promises on bits: a row is the same alone, packed with others, and decoded step by step from a cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "base/philox.h"
#include "nn/ops.h"

static float *numbers(int64_t n, uint32_t which)
{
    struct philox p = philox_at(21, PHILOX_TEST, which, 0, 0);
    float *x = calloc((size_t)n, sizeof(float));

    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)philox_normal(&p);
    return x;
}

static void decode_equals_prefill(int heads, int dim, int rows)
{
    int64_t width = heads * dim, n = rows * width;
    _cleanup_free_ float *q = numbers(n, 1), *k = numbers(n, 2), *v = numbers(n, 3);
    int32_t start[2] = {0, rows};
    struct tape whole, steps;
    struct tensor *y;
    int capacity = rows + 5, slots = 3;
    int32_t length[3] = {0}, slot = 1;
    _cleanup_free_ float *kc = numbers((int64_t)slots * capacity * width, 4), *vc = numbers((int64_t)slots * capacity * width, 5);
    struct kv_cache cache = {.k = kc, .v = vc, .slots = slots, .capacity = capacity, .width = (int)width, .length = length};

    tape_init(&whole, false);
    assert_int_equal(tape_reserve(&whole, 64 << 20), 0);
    y = op_attention(&whole, tape_input(&whole, q, rows, width), tape_input(&whole, k, rows, width),
                     tape_input(&whole, v, rows, width), (struct spans) {1, start}, heads, ATTENTION_CAUSAL);
    assert_non_null(y);

    tape_init(&steps, false);
    assert_int_equal(tape_reserve(&steps, 1 << 20), 0);
    for (int32_t i = 0; i < rows; i++) {
        struct tensor *row;

        tape_begin(&steps);
        assert_int_equal(op_kv_append(&steps, &cache, tape_input(&steps, k + i * width, 1, width),
                                      tape_input(&steps, v + i * width, 1, width), &slot, &i), 0);
        row = op_attention_decode(&steps, tape_input(&steps, q + i * width, 1, width), &cache, &slot, &i, heads);
        assert_non_null(row);
        assert_memory_equal(row->x, y->x + i * width, (size_t)width * sizeof(float));
    }
    tape_release(&whole);
    tape_release(&steps);
}

static void test_decode_equals_prefill(void **state)
{
    (void)state;
    decode_equals_prefill(4, 32, 110);
    decode_equals_prefill(4, 16, 45);
    decode_equals_prefill(3, 24, 95);
    decode_equals_prefill(2, 72, 17);
    decode_equals_prefill(1, 128, 600);
}

static void test_a_sequence_does_not_depend_on_its_neighbours(void **state)
{
    enum { HEADS = 4, DIM = 24, WIDTH = HEADS * DIM, ROWS = 90 };
    static const int32_t starts[] = {0, 17, 62, 90}, alone[] = {0, 45};
    _cleanup_free_ float *qkv = numbers(ROWS * 3 * WIDTH, 1);

    (void)state;
    for (int mask = ATTENTION_FULL; mask <= ATTENTION_CAUSAL; mask++) {
        struct tape a, b;
        struct tensor *packed, *single;

        tape_init(&a, false);
        tape_init(&b, true);        /* keeping the probabilities must not matter either */
        assert_int_equal(tape_reserve(&a, 8 << 20), 0);
        assert_int_equal(tape_reserve(&b, 8 << 20), 0);
        packed = op_attention_qkv(&a, tape_input(&a, qkv, ROWS, 3 * WIDTH), (struct spans) {3, starts}, HEADS,
                                  (enum attention_mask)mask);
        single = op_attention_qkv(&b, tape_input(&b, qkv + 17 * 3 * WIDTH, 45, 3 * WIDTH), (struct spans) {1, alone}, HEADS,
                                  (enum attention_mask)mask);
        assert_non_null(packed);
        assert_non_null(single);
        assert_memory_equal(packed->x + 17 * WIDTH, single->x, 45 * WIDTH * sizeof(float));
        tape_release(&a);
        tape_release(&b);
    }
}

static void test_bad_shapes_are_refused(void **state)
{
    static const int32_t starts[] = {0, 4};
    float x[5 * 6] = {0};
    struct tape t;

    (void)state;
    tape_init(&t, false);
    assert_int_equal(tape_reserve(&t, 1 << 20), 0);
    assert_null(op_attention_qkv(&t, tape_input(&t, x, 5, 6), (struct spans) {1, starts}, 1, ATTENTION_FULL));
    assert_int_equal(t.error, -EINVAL);
    tape_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_equals_prefill),
        cmocka_unit_test(test_a_sequence_does_not_depend_on_its_neighbours),
        cmocka_unit_test(test_bad_shapes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
