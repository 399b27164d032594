/* The CUDA kernels on the emulated device (tests/emulate), or the one that GANTRY_TEST_DEVICE names: every op against the CPU, in
 * any order of threads; and the parts of a device that need none: its names. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/device/device.h"
#include "nn/ops.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/device_grid.h"

static struct device *device;

static int setup(void **state)
{
    (void)state;
    device = test_device_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    device = device_unref(device);
    return 0;
}

static void told(const struct grid_result *r, void *arg)
{
    int *bad = arg;

    if (r->error <= r->limit)
        return;
    print_message("%s shape %d %s %s: %.3g, limit %.3g\n", r->op, r->shape, r->half ? "bf16" : "fp32", r->what, r->error,
                  r->limit);
    ++*bad;
}

static void grid(bool half)
{
    int bad = 0;

    for (int i = 0; i < device_grid_cases(); i++)
        for (int shape = 0; shape < GRID_SHAPES; shape++) {
            int r = device_grid_run(device, i, shape, half, told, &bad);

            if (r < 0) {
                print_message("%s shape %d %s: %d\n", device_grid_name(i), shape, half ? "bf16" : "fp32", r);
                bad++;
            }
        }
    assert_int_equal(bad, 0);
}

static void test_ops_equal_the_cpus_in_fp32(void **state)
{
    (void)state;
    grid(false);
}

static void test_ops_equal_the_cpus_in_bf16(void **state)
{
    (void)state;
    grid(true);
}

/* A missing barrier would show: threads run in another order. */
static void test_any_order_of_threads(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        emulate_order(seed);
        grid(false);
    }
    emulate_order(0);
}

static void test_names(void **state)
{
    static const char *const wrong[] = {"gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cudax", ""};
    struct device *d = device;
    struct error error = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(device_open(wrong[i], &d, &error), -EINVAL);
    assert_ptr_equal(d, device); /* untouched */
    assert_int_equal(device_open("cpu", &d, &error), 0);
    assert_null(d);
    assert_int_equal(device_wrap(emulated_kernels(), 1, &d, &error), -ENODEV);
    assert_non_null(strstr(error.text, "there is 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops_equal_the_cpus_in_fp32),
        cmocka_unit_test(test_ops_equal_the_cpus_in_bf16),
        cmocka_unit_test(test_any_order_of_threads),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
