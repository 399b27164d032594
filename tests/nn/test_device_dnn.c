/* cuDNN as far as it goes without a device: the graphs of all calls that are for it, and that a refusal is counted and answered
 * by the own kernel. On a real device its numbers beside the own kernel's. (test_dnn_plans.c has what needs no library.) */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/device/dnn.h"
#include "nn/device/dnn_graph.h"
#include "tests/emulate/test_device.h"

static struct device_attention call_of(int heads, int group, int64_t dim, int64_t keys, bool causal)
{
    return (struct device_attention) {.n = 3, .heads = heads, .group = group, .dim = dim, .causal = causal,
                                      .scale = 1 / sqrtf((float)dim),
                                      .longest = keys, .longest_asking = keys, .q_rows = 3 * keys, .alike = true,
                                      .q_stride = heads * dim, .kv_stride = heads / group * dim, .out_stride = heads * dim};
}

#if GANTRY_GPU

/* A call on a device: numbers in there[0], all of q, k and v, the answer in there[1]. */
struct tried {
    struct device *device;
    struct device_stream *s;
    struct device_attention a;
    size_t bytes;
    void *there[2];
};

/* on: taken over. start: [n+1], which stays. */
static struct tried try_begin(struct device *on, struct device_attention a, int n, const int32_t *start)
{
    struct tried t = {.device = on, .a = a, .bytes = (size_t)start[n] * (size_t)a.q_stride * sizeof(uint16_t)};
    uint16_t *host = malloc(t.bytes);

    for (size_t i = 0; i < t.bytes / sizeof *host; i++)
        host[i] = (uint16_t)(0x3e00 + i * 37 % 256);            /* bf16 of some tenths */
    assert_int_equal(device_stream_new(on, &t.s), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(t.s->k->alloc(t.bytes, &t.there[i]), 0);
    assert_int_equal(t.s->k->upload(t.s->stream, t.there[0], host, t.bytes), 0);
    t.a.n = n;
    t.a.q_rows = start[n];
    t.a.start = t.a.asking = device_send(t.s, start, (size_t)(n + 1) * sizeof *start);
    t.a.q = t.a.k = t.a.v = t.there[0];
    t.a.out = t.there[1];
    free(host);
    return t;
}

static void try_once(struct tried *t, uint16_t *ret)
{
    assert_int_equal(t->s->k->zero(t->s->stream, t->there[1], t->bytes), 0);
    assert_int_equal(device_attention(t->s, DEVICE_BF16, &t->a, false), 0);
    assert_int_equal(t->s->k->download(t->s->stream, ret, t->there[1], t->bytes), 0);
}

static void try_end(struct tried *t)
{
    for (int i = 0; i < 2; i++)
        t->s->k->release(t->there[i]);
    device_stream_free(t->s);
    device_unref(t->device);
}

/* Every form there is, with the head sizes of the models: 64 and 72 of the towers, 80 of Qwen's, 128. */
static void test_graphs_are_built(void **state)
{
    static const int64_t dims[] = {16, 64, 72, 80, 128};
    struct dnn_calls calls;
    void *library;
    char why[200];
    int built = 0;

    (void)state;
    if (dnn_calls_open(NULL, &calls, &library, why, sizeof why) < 0) {
        print_message("SKIP the real cuDNN: %s\n", why);
        skip();
    }
    for (size_t d = 0; d < ARRAY_SIZE(dims); d++)
        for (int form = 0; form < 12; form++) {
            bool causal = form & 1, backward = form % 4 >= 2;
            int group = 1 << form / 4;                  /* 1, 2, 4 */
            struct device_attention a = call_of(8, group, dims[d], 290, causal);
            struct dnn_graph graph;
            struct dnn_key key;

            for (int stats = 0; stats < 2 - backward; stats++) {
                a.lse = stats ? (float *)why : NULL;
                assert_true(dnn_key_of(DEVICE_BF16, &a, backward, &key));
                if (dnn_graph_build(&calls, NULL, &key, &graph) < 0)
                    fail_msg("dim %d, group %d, causal %d, stats %d, backward %d: %s", (int)dims[d], group, causal, stats,
                             backward, graph.why);
                assert_int_equal(graph.ops, backward ? 17 + 4 * causal + 2 * (group > 1) : 10 + 4 * causal);
                assert_true(graph.uses[DNN_LSE] == (backward || stats) && graph.uses[DNN_DQ] == backward &&
                            graph.uses[DNN_MASKED] == causal);
                dnn_graph_release(&calls, &graph);
                built++;
            }
        }
    print_message("cuDNN %zu: %d graphs\n", calls.version(), built);
}

static void test_a_refused_graph_says_why(void **state)
{
    struct device_attention a = call_of(8, 1, 64, 16, false);
    struct dnn_calls calls;
    struct dnn_graph graph;
    struct dnn_key key;
    void *library;
    char why[200];

    (void)state;
    assert_int_equal(dnn_calls_open("libnot-there.so.9", &calls, &library, why, sizeof why), -ENOENT);
    assert_non_null(strstr(why, "libnot-there.so.9"));
    assert_int_equal(dnn_calls_open("libm.so.6", &calls, &library, why, sizeof why), -ENOSYS);
    assert_non_null(strstr(why, "cudnnGetVersion"));
    if (dnn_calls_open(NULL, &calls, &library, why, sizeof why) < 0)
        skip();
    assert_true(dnn_key_of(DEVICE_BF16, &a, false, &key));
    key.keys = -1;
    assert_int_equal(dnn_graph_build(&calls, NULL, &key, &graph), -EINVAL);
    assert_non_null(strstr(graph.why, "cuDNN: "));
    dnn_graph_release(&calls, &graph);
}

/* No device: cuDNN does not start. The own kernel answers, the refusal is counted and kept for the log. */
static void test_a_refusal_is_counted_and_answered(void **state)
{
    enum { N = 2, KEYS = 5, HEADS = 2, DIM = 16, NUMBERS = N * KEYS * HEADS * DIM };
    static uint16_t out[2][NUMBERS];
    int32_t start[N + 1] = {0, KEYS, 2 * KEYS};
    struct device *on = test_device_open();
    struct tried t;
    char why[200];

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE") || on->dnn)
        skip();                         /* it does start there */
    on->dnn = dnn_open(why, sizeof why);
    if (!on->dnn) {
        print_message("SKIP: %s\n", why);
        device_unref(on);
        skip();
    }
    t = try_begin(on, call_of(HEADS, 1, DIM, KEYS, false), N, start);
    for (int i = 0; i < 2; i++) {
        on->strict = i == 0;            /* strict does not even ask */
        try_once(&t, out[i]);
        assert_int_equal(device_fallbacks(on).attention, i);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_non_null(strstr(device_refusal(on), "cuDNN does not start"));
    try_end(&t);
}

/* A library that plans everything and then does not carry it out, or wants more memory than a plan may, or than there is: refused
 * like the rest, once. */
static int executed;
static bool is_full;
static const struct device_kernels *under;

static int alloc_or_full(size_t bytes, void **ret) { return is_full ? -ENOMEM : under->alloc(bytes, ret); }

static int64_t workspace_wanted;

static size_t fake_version(void) { return 91900; }
static int fake_create(void **ret) { return *ret = &executed, 0; }
static int fake_one(void *x) { return (void)x, 0; }
static int fake_two(void *x, void *y) { return (void)x, (void)y, 0; }
static int fake_new(int type, void **ret) { return (void)type, *ret = &executed, 0; }
static int fake_set(void *d, int name, int type, int64_t n, const void *values) { return (void)d, (void)name, (void)type, (void)n,
                                                                                  (void)values, 0; }
static int fake_get(void *d, int name, int type, int64_t room, int64_t *ret_n, void *ret)
{
    (void)d, (void)name, (void)type;
    *ret_n = 1;
    if (room == 1)
        *(int64_t *)ret = workspace_wanted;
    return 0;
}
static int fake_execute(void *handle, void *plan, void *pack) { return (void)handle, (void)plan, (void)pack, executed++, 5000; }
static const char *fake_string(int status) { return (void)status, "no"; }
static void fake_words(char *ret, size_t n) { snprintf(ret, n, "execution failed"); }

static void test_a_plan_that_is_not_carried_out(void **state)
{
    static const struct dnn_calls fake = {fake_version, fake_create, fake_one, fake_two, fake_new, fake_one, fake_set, fake_get,
                                          fake_one, fake_execute, fake_string, fake_words};
    enum { N = 2, KEYS = 5, HEADS = 2, DIM = 16, NUMBERS = N * KEYS * HEADS * DIM };
    enum { FAILS, TOO_LARGE, FULL, WAYS };
    static const char *const words[WAYS] = {"cuDNN does not carry out its own plan: execution failed", "cuDNN's plans work in",
                                            "MiB that a plan works in are not free"};
    int32_t start[N + 1] = {0, KEYS, 2 * KEYS};
    static uint16_t own[NUMBERS], out[NUMBERS];

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE"))
        skip();
    for (int way = FAILS; way < WAYS; way++) {
        struct device *real = test_device_open(), *on = NULL;
        struct device_kernels table = *real->k;
        struct tried t;

        under = real->k;
        table.alloc = alloc_or_full;
        assert_int_equal(device_wrap(&table, 0, &on, NULL), 0);
        executed = 0;
        workspace_wanted = way == TOO_LARGE ? (int64_t)1 << 50 : way == FULL ? 64 : 0;
        t = try_begin(on, call_of(HEADS, 1, DIM, KEYS, false), N, start);
        try_once(&t, own);
        assert_int_equal(device_fallbacks(on).attention, 0);
        on->dnn = dnn_wrap(&fake);
        is_full = way == FULL;
        for (int i = 1; i <= 3; i++) {
            try_once(&t, out);
            assert_memory_equal(out, own, sizeof out);
            assert_int_equal(device_fallbacks(on).attention, i);
            assert_int_equal(executed, way == FAILS);           /* asked once */
        }
        is_full = false;
        assert_non_null(strstr(device_refusal(on), words[way]));
        try_end(&t);
        device_unref(real);
    }
}

/* What stands for a hidden score is handed over as a number of the host: as the version wants it. What is set last before a plan is
 * carried out are ids, then pointers, as many. */
static uint64_t set_before[2][DNN_PARTS];
static int64_t n_set;
static size_t old_or_new;
static float masked;

static size_t version_told(void) { return old_or_new; }
static int set_kept(void *d, int name, int type, int64_t n, const void *values)
{
    (void)d, (void)name, (void)type;
    if (n > 1) {
        memcpy(set_before[0], set_before[1], sizeof set_before[0]);
        memcpy(set_before[1], values, (size_t)n * sizeof(uint64_t));
        n_set = n;
    }
    return 0;
}
static int execute_kept(void *handle, void *plan, void *pack)
{
    (void)handle, (void)plan, (void)pack;
    masked = 0;
    for (int64_t i = 0; i < n_set; i++)
        if (set_before[0][i] == DNN_MASKED + 1)
            masked = *(const float *)(uintptr_t)set_before[1][i];
    return 0;
}

static void test_a_hidden_score_is_what_the_version_wants(void **state)
{
    static const struct dnn_calls fake = {version_told, fake_create, fake_one, fake_two, fake_new, fake_one, set_kept, fake_get,
                                          fake_one, execute_kept, fake_string, fake_words};
    enum { N = 2, KEYS = 5, HEADS = 2, DIM = 16, NUMBERS = N * KEYS * HEADS * DIM };
    int32_t start[N + 1] = {0, KEYS, 2 * KEYS};
    static uint16_t out[NUMBERS];

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE"))
        skip();
    workspace_wanted = 0;
    for (int causal = 0; causal < 2; causal++)
        for (int old = 0; old < 2; old++) {
            struct tried t = try_begin(test_device_open(), call_of(HEADS, 1, DIM, KEYS, causal), N, start);

            t.device->dnn = dnn_wrap(&fake);
            old_or_new = old ? 90900 : 91900;
            try_once(&t, out);
            assert_true(masked == (!causal ? 0 : old ? -FLT_MAX : -INFINITY));
            try_end(&t);
        }
}

/* Lengths that differ: each piece is cuDNN's or the own kernel's, and nothing is left out or done twice. What the library does
 * here is nothing: its rows stay as they were. */
static int sequences_left;
static int execute_or_not(void *handle, void *plan, void *pack) { return (void)handle, (void)plan, (void)pack,
                                                                  --sequences_left < 0 ? 5000 : 0; }

static void test_each_piece_is_somebodys(void **state)
{
    static const struct dnn_calls fake = {fake_version, fake_create, fake_one, fake_two, fake_new, fake_one, fake_set, fake_get,
                                          fake_one, execute_or_not, fake_string, fake_words};
    enum { N = 4, ROWS = 12, HEADS = 2, DIM = 16, WIDTH = HEADS * DIM };
    int32_t start[N + 1] = {0, 5, 10, 11, 12};                  /* a piece each */
    static uint16_t own[ROWS * WIDTH], out[ROWS * WIDTH];
    struct tried t;

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE"))
        skip();
    workspace_wanted = 0;
    t = try_begin(test_device_open(), call_of(HEADS, 1, DIM, 5, true), N, start);
    t.a.alike = false;
    t.a.start_here = t.a.asking_here = start;
    try_once(&t, own);
    for (int taken = 0; taken <= N; taken++) {
        dnn_close(t.device->dnn);
        t.device->dnn = dnn_wrap(&fake);                        /* nothing is refused yet */
        sequences_left = taken;
        try_once(&t, out);
        for (int i = 0; i < ROWS * WIDTH; i++)
            assert_int_equal(out[i], i / WIDTH < start[taken] ? 0 : own[i]);
    }
    try_end(&t);
}

/* On a real device cuDNN's numbers, forward and backward, beside the own kernel's; how many shapes it refuses is told. (The
 * emulated device compares the own kernel with itself.) */
static void test_plans_agree_with_the_own_kernel(void **state)
{
    enum { N = 2, KEYS = 24, MOST = N * KEYS * 4 * 128 };
    static const struct { int heads, group; int64_t dim; bool causal, mixed; } shapes[] = {
        {2, 1, 64, true, false}, {2, 1, 72, false, false}, {4, 2, 16, true, false}, {2, 1, 128, true, true},
        {4, 1, 80, false, true}};
    struct device *on = test_device_open();
    static uint16_t host[MOST], out[2][4][MOST];        /* out, dq, dk, dv */
    int32_t starts[2][N + 1] = {{0, KEYS, 2 * KEYS}, {0, KEYS, 2 * KEYS - 8}};
    struct device_stream *s = NULL;
    char *there[8];

    (void)state;
    for (int i = 0; i < MOST; i++)
        host[i] = (uint16_t)((i * 7919 % 2 ? 0x8000 : 0) | (0x3d80 + i * 37 % 251));       /* no row is like another */
    assert_int_equal(device_stream_new(on, &s), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(s->k->alloc(sizeof host, (void **)&there[i]), 0);
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        for (int fast = 0; fast < 2; fast++) {
            struct device_attention a = call_of(shapes[i].heads, shapes[i].group, shapes[i].dim, KEYS, shapes[i].causal);

            assert_int_equal(device_stream_begin(s), 0);
            on->strict = !fast;
            a.n = N;
            a.q_rows = N * KEYS;
            a.start = a.asking = device_send(s, starts[shapes[i].mixed], sizeof starts[0]);
            a.start_here = a.asking_here = starts[shapes[i].mixed];
            a.alike = !shapes[i].mixed;
            a.q = there[0], a.k = there[0] + 64, a.v = there[0] + 128, a.out = there[1], a.dout = there[0] + 256;
            a.dq = there[2], a.dk = there[3], a.dv = there[4], a.lse = (float *)there[5], a.delta = (float *)there[6];
            assert_int_equal(s->k->upload(s->stream, there[0], host, sizeof host), 0);
            for (int k = 1; k < 5; k++)
                assert_int_equal(s->k->zero(s->stream, there[k], sizeof host), 0);
            assert_int_equal(device_attention(s, DEVICE_BF16, &a, false), 0);
            assert_int_equal(device_attention(s, DEVICE_BF16, &a, true), 0);
            for (int k = 0; k < 4; k++)
                assert_int_equal(s->k->download(s->stream, out[fast][k], there[k + 1], sizeof host), 0);
            for (int k = 0; k < 4 && fast; k++) {
                double sum = 0, norm = 0;

                for (int at = 0; at < MOST; at++) {
                    union { uint32_t bits; float x; } want = {(uint32_t)out[0][k][at] << 16},
                    got = {(uint32_t)out[1][k][at] << 16};

                    sum += (double)(got.x - want.x) * (double)(got.x - want.x);
                    norm += (double)want.x * (double)want.x;
                }
                if (!(norm > 0 && sum <= 4e-4 * norm))          /* two parts in a hundred: bf16's rounding of P and dS */
                    fail_msg("shape %zu, %s: %g of %g", i, (const char *[]) {"out", "dq", "dk", "dv"}[k], sum, norm);
            }
        }
    print_message("attentions that cuDNN refused: %llu %s\n", device_fallbacks(on).attention, device_refusal(on));
    for (int i = 0; i < 8; i++)
        s->k->release(there[i]);
    device_stream_free(s);
    device_unref(on);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#if GANTRY_GPU
        cmocka_unit_test(test_graphs_are_built),
        cmocka_unit_test(test_a_refused_graph_says_why),
        cmocka_unit_test(test_a_refusal_is_counted_and_answered),
        cmocka_unit_test(test_a_plan_that_is_not_carried_out),
        cmocka_unit_test(test_a_hidden_score_is_what_the_version_wants),
        cmocka_unit_test(test_each_piece_is_somebodys),
        cmocka_unit_test(test_plans_agree_with_the_own_kernel),
#endif
    };

    (void)call_of;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
