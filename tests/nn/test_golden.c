/* The whole model against the reference's numbers, as `gantry model check` does it, over both tiny checkpoints; the pictures;
 * the reward models. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/golden.h"

static void check(const char *name, bool fast)
{
    const char *goldens = getenv("GANTRY_GOLDENS");
    struct error error = {0};
    char dir[4096];
    int r;

    if (!goldens) {
        print_message("GANTRY_GOLDENS is not set: no reference numbers\n");
        skip();
    }
    snprintf(dir, sizeof(dir), "%s/%s", goldens, name);
    r = fast ? golden_check_fast(dir, stdout, &error) : golden_check(dir, NULL, stdout, &error);
    if (r == -ENOTSUP) {
        print_message("%s\n", error.text);
        skip();
    }
    if (r < 0)
        fail_msg("%s", error.text);
    assert_int_equal(r, 0);
}

static void test_tiny224(void **state)
{
    (void)state;
    check("openvla/tiny224", false);
}

static void test_tiny64(void **state)
{
    (void)state;
    check("openvla/tiny64", false);
}

static void test_fast_within_the_tolerances_of_bf16(void **state)
{
    (void)state;
    check("openvla/tiny64", true);
    check("openvla/tiny224", true);
}

static void test_resize(void **state)
{
    (void)state;
    check("openvla/resize", false);
}

static void test_reward_models(void **state)
{
    (void)state;
    check("prm", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny224), cmocka_unit_test(test_tiny64), cmocka_unit_test(test_resize),
        cmocka_unit_test(test_fast_within_the_tolerances_of_bf16),
        cmocka_unit_test(test_reward_models)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
