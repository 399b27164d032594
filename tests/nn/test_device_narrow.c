/* Products of few rows: the own kernel beside the one for all products, a row's bits in any batch, what it takes; and who does
 * them, where there is a library: both in turns, then the faster one. On the emulated device, or the one that GANTRY_TEST_DEVICE
 * names. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "nn/device/narrow.h"
#include "nn/safetensors.h"
#include "tests/emulate/test_device.h"

enum { MOST = 1 << 18, RESULTS = 3 * 8 * 128 };

static struct device_stream *s;
static uint16_t halves[MOST];
static float bias[128];
static char *there[4]; /* A, B, C and the bias */

static int setup(void **state)
{
    struct philox random = philox_at(31, PHILOX_TEST, 0, 0, 0);

    (void)state;
    device = test_device_open();
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < MOST; i++)
        halves[i] = float_to_bf16((float)philox_normal(&random));
    for (size_t i = 0; i < ARRAY_SIZE(bias); i++)
        bias[i] = (float)philox_normal(&random);
    for (size_t i = 0; i < ARRAY_SIZE(there); i++)
        assert_int_equal(s->k->alloc(sizeof halves, (void **)&there[i]), 0);
    assert_int_equal(s->k->upload(s->stream, there[0], halves, sizeof halves), 0);
    assert_int_equal(s->k->upload(s->stream, there[1], halves + 4000, sizeof halves - 8000), 0);
    assert_int_equal(s->k->upload(s->stream, there[3], bias, sizeof bias), 0);
    assert_int_equal(s->k->wait(s->stream), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(there); i++)
        s->k->release(there[i]);
    s = device_stream_free(s);
    device = device_unref(device);
    return 0;
}

static struct device_gemm product(int64_t m, int64_t n, int64_t k, enum device_type c_type)
{
    return (struct device_gemm) {.m = m, .n = n, .k = k, .a = there[0], .b = there[1], .c = there[2], .a_row = k, .b_row = k,
                                 .c_row = n, .a_type = DEVICE_BF16, .b_type = DEVICE_BF16, .c_type = c_type,
                                 .b_transposed = true, .alpha = 1};
}

/* C's numbers after `gemm`, of random ones before; fp32. */
static void carried_out(int (*gemm)(void *stream, const struct device_gemm *g), const struct device_gemm *g, float *ret)
{
    static char raw[RESULTS * sizeof(float)];

    assert_int_equal(s->k->upload(s->stream, there[2], g->c_type == DEVICE_BF16 ? (void *)halves : (void *)bias,
                                  g->c_type == DEVICE_BF16 ? sizeof raw : sizeof bias), 0);
    if (g->c_type == DEVICE_F32)
        assert_int_equal(s->k->zero(s->stream, there[2] + sizeof bias, sizeof raw - sizeof bias), 0);
    assert_int_equal(gemm(s->stream, g), 0);
    assert_int_equal(s->k->download(s->stream, raw, there[2], sizeof raw), 0);
    for (int i = 0; i < RESULTS; i++) {
        uint32_t bits;

        if (g->c_type == DEVICE_F32) {
            memcpy(&ret[i], raw + (size_t)i * 4, 4);
            continue;
        }
        bits = 0;
        memcpy((char *)&bits + 2, raw + (size_t)i * 2, 2);
        memcpy(&ret[i], &bits, 4);
    }
}

static void equals_the_general_kernels(struct device_gemm g)
{
    static float got[RESULTS], want[RESULTS];
    float unit = g.c_type == DEVICE_BF16 ? 0x1p-8f : 2e-6f * sqrtf((float)g.k);

    assert_true(narrow_takes(&g));
    carried_out(s->k->gemm_narrow, &g, got);
    carried_out(s->k->gemm, &g, want);
    for (int i = 0; i < RESULTS; i++)
        if (fabsf(got[i] - want[i]) > unit * (1 + fabsf(want[i])))
            fail_msg("%d x %d x %d: number %d is %g, not %g", (int)g.m, (int)g.n, (int)g.k, i, (double)got[i], (double)want[i]);
}

/* k shorter than a lane's share, than a step, as long as one, longer and no multiple of it: 8 lanes up to 64, 32 beyond. */
static void test_equals_the_general_kernel(void **state)
{
    static const int64_t widths[] = {8, 64, 72, 1032, 2120}, columns[] = {1, 33}, rows[] = {1, 2, 3, 8};

    (void)state;
    for (size_t r = 0; r < ARRAY_SIZE(rows); r++)
        for (size_t w = 0; w < ARRAY_SIZE(widths); w++)
            for (size_t c = 0; c < ARRAY_SIZE(columns); c++) {
                struct device_gemm g = product(rows[r], columns[c], widths[w], (w + c) % 2 ? DEVICE_F32 : DEVICE_BF16);

                equals_the_general_kernels(g);
                g.add = true;
                g.alpha = 0.5f;
                g.a_row += 8;
                g.b_row += 16;
                g.c_row += 3;
                g.bias = (const float *)(void *)there[3];
                equals_the_general_kernels(g);
                g.bias = NULL;
                g.batch = 3;
                g.a_apart = r % 2 ? 0 : 8 * g.k;
                g.b_apart = g.n * g.b_row;
                g.c_apart = g.m * g.c_row;
                equals_the_general_kernels(g);
            }
}

/* An actor that is asked for one row and then for seven answers the same; and in any order of threads. */
static void test_a_row_has_its_bits_in_any_batch(void **state)
{
    static float alone[RESULTS], many[RESULTS];

    (void)state;
    for (int64_t m = 1; m <= NARROW_ROWS; m++) {
        struct device_gemm g = product(m, 19, 1032, DEVICE_F32), one = product(1, 19, 1032, DEVICE_F32);

        if (!getenv("GANTRY_TEST_DEVICE"))
            emulate_order((uint64_t)m);
        carried_out(s->k->gemm_narrow, &g, many);
        one.a = there[0] + (m - 1) * g.a_row * 2;
        carried_out(s->k->gemm_narrow, &one, alone);
        assert_memory_equal(alone, many + (m - 1) * g.n, 19 * sizeof(float));
    }
    if (!getenv("GANTRY_TEST_DEVICE"))
        emulate_order(0);
}

static void test_what_it_takes(void **state)
{
    struct device_gemm g = product(8, 16, 64, DEVICE_BF16), other;

    (void)state;
    assert_true(narrow_takes(&g));
#define REFUSED(change) \
    other = g; \
    other.change; \
    assert_false(narrow_takes(&other)); \
    assert_int_equal(s->k->gemm_narrow(s->stream, &other), -ENOTSUP);
    REFUSED(m = 9) REFUSED(m = 0) REFUSED(n = 0) REFUSED(k = 60) REFUSED(k = 0) REFUSED(a_row = 68) REFUSED(b_row = 68)
    REFUSED(a_type = DEVICE_F32) REFUSED(b_type = DEVICE_F32) REFUSED(a_transposed = true) REFUSED(b_transposed = false)
    REFUSED(a = there[0] + 8) REFUSED(b = there[1] + 8)
    g.batch = 2;
    g.b_apart = 1024;
    assert_true(narrow_takes(&g));
    REFUSED(a_apart = 4) REFUSED(b_apart = 1028) REFUSED(bias = bias)
}

/* Without a library and not strict, few rows are the own kernel's for few rows; strict, they have the bits of any other row. */
static void test_whose_they_are_without_a_library(void **state)
{
    static float own[RESULTS], narrow[RESULTS], got[RESULTS];
    struct device_gemm g = product(2, 33, 1032, DEVICE_F32);

    (void)state;
    if (device->blas)
        skip();
    carried_out(s->k->gemm, &g, own);
    carried_out(s->k->gemm_narrow, &g, narrow);
    assert_memory_not_equal(own, narrow, sizeof own); /* else this test could not fail */
    for (int strict = 0; strict < 2; strict++) {
        device->strict = strict;
        assert_int_equal(device_gemm(s, &g), 0);
        assert_int_equal(s->k->download(s->stream, got, there[2], 66 * sizeof(float)), 0);
        assert_memory_equal(got, strict ? own : narrow, 66 * sizeof(float));
    }
    device->strict = false;
    assert_int_equal(device_find_faster(device), 0);
    assert_null(device->narrow); /* there is no choice */
}

/* ---- who is faster ------------------------------------------------------------------------------------------------------- */

/* A library that refuses or does as it is told, a kernel, and a clock: each event says what was put between it and the last. */
static struct device_kernels timed;
static enum { NOBODY, LIBRARY, OWN } last;
static int asked[3], events;
static int librarys_answer;
static double seconds_of_library, slow_first_own;

static int library(_unused_ struct device_stream *stream, _unused_ const struct device_gemm *g)
{
    asked[LIBRARY]++;
    last = LIBRARY;
    return librarys_answer;
}

static int own_kernel(_unused_ void *stream, _unused_ const struct device_gemm *g)
{
    asked[OWN]++;
    last = OWN;
    return 0;
}

struct event { int between; };

static int event_new(void **ret)
{
    struct event *event = calloc(1, sizeof *event);

    assert_non_null(event);
    events++;
    *ret = event;
    return 0;
}

static void event_free(void *event)
{
    events--;
    free(event);
}

static int event_mark(_unused_ void *stream, void *event)
{
    ((struct event *)event)->between = (int)last;
    last = NOBODY;
    return 0;
}

static int event_seconds(void *from, void *to, double *ret)
{
    assert_int_equal(((struct event *)from)->between, NOBODY);
    *ret = ((struct event *)to)->between == LIBRARY ? seconds_of_library : 10e-6 + slow_first_own;
    slow_first_own = ((struct event *)to)->between == OWN ? 0 : slow_first_own;
    return 0;
}

/* n products of `shape` columns. */
static void ask(struct narrow *narrow, int shape, int n)
{
    struct device_gemm g = product(1, shape, 64, DEVICE_BF16);

    memset(asked, 0, sizeof asked);
    for (int i = 0; i < n; i++) {
        last = NOBODY;
        assert_int_equal(narrow_gemm(narrow, s, &g), 0);
    }
}

static void test_both_in_turns_then_the_faster(void **state)
{
    const struct device_kernels *real = s->k;
    struct narrow *narrow = narrow_new(library);

    (void)state;
    timed = *real;
    timed.gemm_narrow = own_kernel;
    timed.event_new = event_new, timed.event_free = event_free;
    timed.event_mark = event_mark, timed.event_seconds = event_seconds;
    s->k = &timed;
    seconds_of_library = 12e-6;
    slow_first_own = 1;                 /* whatever was in the way once */
    ask(narrow, 16, 2 * NARROW_EACH);
    assert_true(asked[LIBRARY] == NARROW_EACH && asked[OWN] == NARROW_EACH);
    s->capturing = true;                /* nobody may wait now: the library's, and nothing is chosen */
    ask(narrow, 16, 3);
    assert_true(asked[LIBRARY] == 3 && narrow_counts(narrow).open == 1);
    s->capturing = false;
    ask(narrow, 16, 5);
    assert_int_equal(asked[OWN], 5);
    assert_int_equal(events, 0);
    s->capturing = true;
    ask(narrow, 16, 1);
    assert_int_equal(asked[OWN], 1);
    s->capturing = false;
    seconds_of_library = 9e-6;          /* another shape is another matter */
    ask(narrow, 24, 2 * NARROW_EACH + 4);
    assert_true(asked[LIBRARY] == NARROW_EACH + 4 && asked[OWN] == NARROW_EACH);
    librarys_answer = -ENOTSUP;         /* one that it refuses is done all the same, and at last without asking */
    ask(narrow, 32, 2 * NARROW_EACH);
    assert_true(asked[LIBRARY] == NARROW_EACH && asked[OWN] == 2 * NARROW_EACH);
    ask(narrow, 32, 4);
    assert_true(asked[LIBRARY] == 0 && asked[OWN] == 4);
    librarys_answer = 0;
    ask(narrow, 40, 1);                 /* not finished when it ends */
    assert_int_equal(events, 2);
    assert_true(narrow_counts(narrow).chosen[NARROW_OWN] == 2 && narrow_counts(narrow).chosen[NARROW_LIBRARY] == 1);
    narrow_free(narrow);
    assert_int_equal(events, 0);
    s->k = real;
}

/* With the real library, clock and events. */
static void test_one_is_chosen_on_a_device(void **state)
{
    static float want[RESULTS], got[RESULTS];
    struct device_gemm g = product(1, 128, 1032, DEVICE_F32);
    struct narrow_counts counts;

    (void)state;
    if (!device->blas)
        skip();
    assert_int_equal(device_find_faster(device), 0);
    carried_out(s->k->gemm, &g, want);
    for (int i = 0; i < 2 * NARROW_EACH + 3; i++) {
        assert_int_equal(device_gemm(s, &g), 0);
        assert_int_equal(s->k->download(s->stream, got, there[2], 128 * sizeof(float)), 0);
        for (int k = 0; k < 128; k++)
            assert_float_equal(got[k], want[k], 1e-4f * (1 + fabsf(want[k])));
    }
    counts = narrow_counts(device->narrow);
    print_message("of few rows: the library's %d, the own kernel's %d\n", counts.chosen[NARROW_LIBRARY],
                  counts.chosen[NARROW_OWN]);
    assert_true(counts.open == 0 && counts.chosen[NARROW_LIBRARY] + counts.chosen[NARROW_OWN] == 1);
}

/* What the library's own failure is, nobody else makes good. */
static void test_a_failure_is_told(void **state)
{
    struct narrow *narrow = narrow_new(library);
    struct device_gemm g = product(1, 16, 64, DEVICE_BF16);

    (void)state;
    librarys_answer = -EIO;
    assert_int_equal(narrow_gemm(narrow, s, &g), -EIO);
    librarys_answer = 0;
    narrow_free(narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_the_general_kernel),
        cmocka_unit_test(test_a_row_has_its_bits_in_any_batch),
        cmocka_unit_test(test_what_it_takes),
        cmocka_unit_test(test_whose_they_are_without_a_library),
        cmocka_unit_test(test_both_in_turns_then_the_faster),
        cmocka_unit_test(test_one_is_chosen_on_a_device),
        cmocka_unit_test(test_a_failure_is_told),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
