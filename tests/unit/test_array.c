/* test_array.c - room for one more, and nothing moved where there is none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/array.h"

static void test_grows(void **state)
{
    uint32_t *items = NULL;
    size_t capacity = 0, changes = 0;

    (void)state;
    for (uint32_t n = 0; n < 1000; n++) {
        size_t before = capacity;

        assert_int_equal(array_room(&items, n, &capacity, sizeof *items), 0);
        assert_true(capacity > n);
        changes += capacity != before;
        items[n] = n;
    }
    assert_int_equal(changes, 7);               /* 16, 32, .. 1024: not one by one */
    for (uint32_t n = 0; n < 1000; n++)
        assert_int_equal(items[n], n);
    free(items);
}

static void test_no_room(void **state)
{
    char (*items)[64] = NULL;
    size_t capacity = 0, huge = SIZE_MAX / 64;

    (void)state;
    assert_int_equal(array_room(&items, 0, &capacity, sizeof *items), 0);
    free(items);
    items = (char (*)[64])(void *)state;        /* is not touched: twice as many cannot be said in bytes */
    assert_int_equal(array_room(&items, huge, &huge, sizeof *items), -ENOMEM);
    assert_true(items == (char (*)[64])(void *)state && huge == SIZE_MAX / 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_grows), cmocka_unit_test(test_no_room)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
