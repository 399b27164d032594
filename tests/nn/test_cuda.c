/* The mixed C and CUDA build: a kernel runs and gives the CPU's bits. Needs GPU=1 and a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/macro.h"
#include "nn/cpu/kernels.h"
#if GANTRY_GPU
#include "nn/cuda/device.h"

static void test_scale_equals_the_cpu(void **state)
{
    enum { N = 1000 };
    float host[N], back[N];
    void *device = NULL;

    (void)state;
    if (cuda_devices() == 0) {
        print_message("skipped: no CUDA device\n");
        skip();
    }
    for (int i = 0; i < N; i++)
        host[i] = 0.37f * (float)i;
    assert_int_equal(cuda_alloc(sizeof(host), &device), 0);
    assert_int_equal(cuda_upload(device, host, sizeof(host)), 0);
    assert_int_equal(cuda_scale(device, 1.1f, N), 0);
    assert_int_equal(cuda_download(back, device, sizeof(back)), 0);
    cuda_free(device);
    cpu_kernels()->scale(host, 1.1f, N);
    assert_memory_equal(back, host, sizeof(host));
}
#else
static void test_scale_equals_the_cpu(void **state)
{
    (void)state;
    print_message("skipped: built with GPU=0\n");
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scale_equals_the_cpu)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
