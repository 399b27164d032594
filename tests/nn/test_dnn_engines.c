/* Which of the graphs for attention cuDNN has engines for on the devices that gantry is built for, without a device: it is told
 * one in its own JSON, and makes whole plans down to compiled kernels, for a driver that stands in
 * (tests/emulate/stand_in_driver.c). What this does not show is the numbers. */
#include <dlfcn.h>
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macro.h"
#include "nn/device/dnn_graph.h"

#if GANTRY_GPU

#define DESCRIPTION "{\"deviceName\":\"%s\",\"deviceVer\":%d,\"multiProcessorCount\":%d,\"maxSharedMemoryPerBlockOptin\":%d,\"totalGlobalMem\":%lld," \
    "\"smClockRateKHz\":%d,\"memClockRateKHz\":%d,\"l2CacheSize\":%d,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64]," \
    "\"regsPerBlock\":65536,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536," \
    "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1," \
    "\"cudaDeviceId\":0,\"driverVer\":13000}"

/* What the models ask for: towers of 64 and 72 (DINO, SigLIP), 80 (Qwen's), whose q, k and v lie side by side; the language
 * models' 128, of which Qwen's has a head of k and v for six of q. On the way back gradients go where they belong, or, few of
 * them, beside. */
static const struct call {
    int64_t dim, rows;
    int heads, group;
    bool causal, beside;
} calls[] = {
    {128, 290, 32, 1, true, false}, {128, 605, 32, 1, false, false}, {128, 110, 12, 6, true, false},
    {64, 261, 16, 1, false, true}, {72, 256, 16, 1, false, true}, {80, 256, 16, 1, false, true},
};
enum { CALLS = ARRAY_SIZE(calls), INFERS = 1, KEEPS = 2, LEARNS = 4 };

static struct dnn_calls library;
static char why[240];

/* NULL: cuDNN and its driver are there. */
static const char *open_library(void)
{
    char self[4096] = "", path[4200];
    void *opened;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return "a sanitizer would look into the library alone";
#endif
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(path, sizeof path, "%s/../emulate/stand-in-driver/libcuda.so.1", dirname(self));
    if (!dlopen(path, RTLD_NOW | RTLD_GLOBAL))          /* by its soname it is now what cuDNN opens */
        fail_msg("%s", dlerror());
    if (dnn_calls_open(NULL, &library, &opened, why, sizeof why) < 0)
        return why;
    if (library.version() < 90800)
        return "cuDNN takes descriptions of a device from 9.8 on";
    return NULL;
}

static struct dnn_key key_of(const struct call *c, int n, bool keeps, bool backward, bool fresh)
{
    int width = c->beside ? 3 : 1;
    struct device_attention a = {.n = n, .heads = c->heads, .group = c->group, .dim = c->dim, .causal = c->causal, .scale = 1,
                                 .longest = c->rows, .longest_asking = c->rows, .q_rows = n * c->rows, .alike = true,
                                 .q_stride = width * c->heads * c->dim, .kv_stride = width * c->heads / c->group * c->dim,
                                 .out_stride = c->heads * c->dim, .lse = keeps ? (float *)4096 : NULL, .fresh = fresh};
    struct dnn_key key;

    assert_true(dnn_key_of(DEVICE_BF16, &a, backward, &key));
    return key;
}

static void has_a_plan(void *device, const char *name, const struct dnn_key *key)
{
    struct dnn_graph graph;
    void *plan = NULL;
    size_t workspace;

    if (dnn_graph_build(&library, NULL, key, &graph) < 0)
        fail_msg("%s", graph.why);
    if (dnn_plan_build(&library, NULL, device, &graph, dnn_plan_most(key), &plan, &workspace, why, sizeof why) < 0)
        fail_msg("%s: heads of %d, %d rows, group %d, causal %d, stats %d, backward %d: %s", name, (int)key->dim, (int)key->keys,
                 (int)key->group, (int)key->causal, (int)key->stats, (int)key->backward, why);
    library.descriptor_free(plan);
    dnn_graph_release(&library, &graph);
}

static void engines(const char *name, int compute, int processors, int shared, const int forms[CALLS])
{
    char json[2048];
    void *device = NULL;
    int plans = 0;

    snprintf(json, sizeof json, DESCRIPTION, name, compute, processors, shared, 80000000000ll, 1410000, 2619000, 50 << 20);
    if (dnn_describe_device(&library, json, &device, why, sizeof why) < 0)
        fail_msg("%s", why);
    for (int i = 0; i < (int)CALLS; i++)
        for (int form = INFERS; form <= LEARNS; form *= 2)
            if (forms[i] & form || getenv("GANTRY_TEST_ENGINES")) {
                struct dnn_key key = key_of(&calls[i], 4, form == KEEPS, form == LEARNS, true);

                has_a_plan(device, name, &key);
                plans++;
            }
    print_message("%s: %d plans\n", name, plans);
    library.descriptor_free(device);
}

/* A plan takes its compiler half a second: here are those that differ most, with GANTRY_TEST_ENGINES all. */
static void test_every_graph_has_an_engine(void **state)
{
    static const int most[CALLS] = {[0] = INFERS | KEEPS | LEARNS, [2] = INFERS | LEARNS, [4] = LEARNS};
    static const int some[CALLS] = {INFERS | LEARNS};
    const char *missing = open_library();

    (void)state;
    if (missing) {
        print_message("SKIP cuDNN's engines: %s\n", missing);
        skip();
    }
    engines("NVIDIA H200", 900, 132, 232448, most);
    engines("NVIDIA A100", 800, 108, 166912, some);
}

/* Of so few rows a plan works in more than the scores take: its tiles are whole. */
static void test_a_few_rows_learn_there_too(void **state)
{
    static const struct call few = {64, 5, 2, 1, true, false};
    struct dnn_key key = key_of(&few, 1, false, true, false);
    char json[2048];
    void *device = NULL;

    (void)state;
    if (!library.version)
        skip();
    snprintf(json, sizeof json, DESCRIPTION, "NVIDIA H200", 900, 132, 232448, 80000000000ll, 1410000, 2619000, 50 << 20);
    assert_int_equal(dnn_describe_device(&library, json, &device, why, sizeof why), 0);
    has_a_plan(device, "NVIDIA H200", &key);
    library.descriptor_free(device);
}

static void test_no_device_is_described_by_nonsense(void **state)
{
    void *device = NULL;

    (void)state;
    if (!library.version)
        skip();
    assert_true(dnn_describe_device(&library, "{\"deviceVer\":900}", &device, why, sizeof why) < 0);
    assert_non_null(strstr(why, "cuDNN does not know a device by this"));
    assert_null(device);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#if GANTRY_GPU
        cmocka_unit_test(test_every_graph_has_an_engine),
        cmocka_unit_test(test_a_few_rows_learn_there_too),
        cmocka_unit_test(test_no_device_is_described_by_nonsense),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
