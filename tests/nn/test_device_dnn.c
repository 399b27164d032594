/* cuDNN as far as it goes without a device: which calls are for it, the graphs of all of them, the cache of plans, and that a refusal is
 * counted and answered by the own kernel. */
#include <errno.h>
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
#include "nn/device/dnn_cache.h"
#include "nn/device/dnn_graph.h"
#include "tests/emulate/test_device.h"

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
    int32_t start[] = {0, 5, 10, 15, 20, 25, 28, 31, 32}, asking[] = {0, 5, 10, 15, 20, 25, 28, 29, 30};        /* 5 x 5, 3, 3 of which one asks, 1 */
    const int want[] = {4, 1, 1, 1, 1};
    static uint16_t numbers[64 * 32];
    static float lse[64];
    struct device_attention a = {.n = 8, .heads = 2, .group = 1, .dim = 8, .start = start, .asking = asking, .start_here = start, .asking_here = asking, .q_stride = 16,
                                 .kv_stride = 32, .out_stride = 16, .q = numbers, .k = numbers, .out = numbers, .lse = lse};
    struct device_attention piece;
    int first = 0, n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(want); i++, first += n) {
        n = dnn_piece(&a, first, &piece);
        assert_int_equal(n, want[i]);
        assert_true(piece.n == n && piece.alike && !piece.start_here && piece.start == start + first && piece.asking == asking + first);
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
    struct device_attention a = {.n = n, .heads = 32, .group = 1, .dim = 128, .causal = true, .start = start, .asking = start, .start_here = start, .asking_here = start,
                                 .q_stride = 4096, .kv_stride = 4096, .out_stride = 4096, .lse = stats ? lse : NULL};

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
        struct device_attention a = {.n = n, .heads = 16, .group = 1, .dim = dim, .start = start, .asking = start, .start_here = start, .asking_here = start,
                                     .q_stride = 48 * dim, .kv_stride = 48 * dim, .out_stride = 16 * dim, .lse = stats ? lse : NULL};

        for (int i = 0; i < n; i++)
            start[i + 1] = start[i] + (int32_t)rows;
        note(keys, &a, backward);
    }
}

/* OpenVLA with LIBERO's prompts (15 lengths): acting in any batch, scoring pairs of pictures, a reference's pass, learning from minibatches of up to 64, imitating
 * and by reward. All of it in one process would still find each plan once. */
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
        const struct dnn_key *key = i < acting.n ? &acting.key[i] : i < acting.n + scoring.n ? &scoring.key[i - acting.n] : &learning.key[i - acting.n - scoring.n];
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
    struct dnn_key key = {.n = 4, .heads = 32, .group = 1, .dim = 128, .keys = 299, .asking = 299, .dq_stride = 4096, .dkv_stride = 4096};
    size_t scores = (size_t)4 * 32 * 299 * 299 * 4, row = (size_t)4 * 299 * 4096;

    (void)state;
    assert_int_equal(dnn_plan_most(&key), scores);
    assert_int_equal(dnn_lay_out(&key, 1000).bytes, 1000);
    key.backward = true;
    assert_int_equal(dnn_plan_most(&key), 2 * scores + 4 * row);
    assert_in_range(dnn_lay_out(&key, 1000).bytes, 6 * row + 1000, 6 * row + (size_t)4 * 299 * 32 * 4 + 5 * 256 + 1000);
    assert_true(dnn_lay_out(&key, 0).plan % 256 == 0 && dnn_lay_out(&key, 0).dv % 256 == 0);
}

/* ---- the device's part ------------------------------------------------------------------------------------------ */

static struct device_attention call_of(int heads, int group, int64_t dim, int64_t keys, bool causal)
{
    return (struct device_attention) {.n = 3, .heads = heads, .group = group, .dim = dim, .causal = causal, .scale = 1 / sqrtf((float)dim),
                                      .longest = keys, .longest_asking = keys, .q_rows = 3 * keys, .alike = true,
                                      .q_stride = heads * dim, .kv_stride = heads / group * dim, .out_stride = heads * dim};
}

#if GANTRY_GPU

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
                    fail_msg("dim %d, group %d, causal %d, stats %d, backward %d: %s", (int)dims[d], group, causal, stats, backward, graph.why);
                assert_int_equal(graph.ops, backward ? 17 + 4 * causal + 2 * (group > 1) : 8 + 4 * causal + 2 * stats);
                assert_true(graph.uses[DNN_LSE] == (backward || stats) && graph.uses[DNN_DQ] == backward && graph.uses[DNN_MASKED] == causal);
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
    struct device *device = test_device_open();
    struct device_attention a = call_of(HEADS, 1, DIM, KEYS, false);
    static uint16_t host[NUMBERS], out[2][NUMBERS];
    int32_t start[N + 1] = {0, KEYS, 2 * KEYS};
    struct device_stream *s = NULL;
    void *there[2];
    char why[200];

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE") || device->dnn)
        skip();                         /* it does start there */
    device->dnn = dnn_open(why, sizeof why);
    if (!device->dnn) {
        print_message("SKIP: %s\n", why);
        device_unref(device);
        skip();
    }
    for (int i = 0; i < NUMBERS; i++)
        host[i] = (uint16_t)(0x3e00 + i * 37 % 256);            /* bf16 of some tenths */
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(s->k->alloc(sizeof host, &there[i]), 0);
    assert_int_equal(s->k->upload(s->stream, there[0], host, sizeof host), 0);
    a.n = N;
    a.q_rows = N * KEYS;
    a.start = a.asking = device_send(s, start, sizeof start);
    a.q = a.k = a.v = there[0];
    a.out = there[1];
    for (int i = 0; i < 2; i++) {
        device->strict = i == 0;        /* strict does not even ask */
        assert_int_equal(device_attention(s, DEVICE_BF16, &a, false), 0);
        assert_int_equal(s->k->download(s->stream, out[i], there[1], sizeof out[i]), 0);
        assert_int_equal(device_fallbacks(device).attention, i);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_non_null(strstr(device_refusal(device), "cuDNN does not start"));
    for (int i = 0; i < 2; i++)
        s->k->release(there[i]);
    device_stream_free(s);
    device_unref(device);
}

/* A library that plans everything and then does not carry it out, or wants more memory than a plan may, or than there is: refused like the rest, once. */
static int executed, execution = 5000;
static bool is_full;
static const struct device_kernels *under;

static int alloc_or_full(size_t bytes, void **ret) { return is_full ? -ENOMEM : under->alloc(bytes, ret); }

static int64_t workspace_wanted;

static size_t fake_version(void) { return 91900; }
static int fake_create(void **ret) { return *ret = &executed, 0; }
static int fake_one(void *x) { return (void)x, 0; }
static int fake_two(void *x, void *y) { return (void)x, (void)y, 0; }
static int fake_new(int type, void **ret) { return (void)type, *ret = &executed, 0; }
static int fake_set(void *d, int name, int type, int64_t n, const void *values) { return (void)d, (void)name, (void)type, (void)n, (void)values, 0; }
static int fake_get(void *d, int name, int type, int64_t room, int64_t *ret_n, void *ret)
{
    (void)d, (void)name, (void)type;
    *ret_n = 1;
    if (room == 1)
        *(int64_t *)ret = workspace_wanted;
    return 0;
}
static int fake_execute(void *handle, void *plan, void *pack) { return (void)handle, (void)plan, (void)pack, executed++, execution; }
static const char *fake_string(int status) { return (void)status, "no"; }
static void fake_words(char *ret, size_t n) { snprintf(ret, n, "execution failed"); }

static void test_a_plan_that_is_not_carried_out(void **state)
{
    static const struct dnn_calls fake = {fake_version, fake_create, fake_one, fake_two, fake_new, fake_one, fake_set, fake_get, fake_one, fake_execute,
                                          fake_string, fake_words};
    enum { N = 2, KEYS = 5, HEADS = 2, DIM = 16, NUMBERS = N * KEYS * HEADS * DIM };
    enum { FAILS, TOO_LARGE, FULL, WAYS };
    int32_t start[N + 1] = {0, KEYS, 2 * KEYS};
    static uint16_t host[NUMBERS], own[NUMBERS], out[NUMBERS];

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE"))
        skip();
    for (int i = 0; i < NUMBERS; i++)
        host[i] = (uint16_t)(0x3e00 + i * 37 % 256);
    for (int way = FAILS; way < WAYS; way++) {
        static const char *const words[WAYS] = {"cuDNN does not carry out its own plan: execution failed", "cuDNN's plans work in", "MiB that a plan works in are not free"};
        struct device *real = test_device_open(), *device = NULL;
        struct device_kernels table = *real->k;
        struct device_attention a = call_of(HEADS, 1, DIM, KEYS, false);
        struct device_stream *s = NULL;
        void *there[2];

        under = real->k;
        table.alloc = alloc_or_full;
        assert_int_equal(device_wrap(&table, 0, &device, NULL), 0);
        executed = 0;
        workspace_wanted = way == TOO_LARGE ? (int64_t)1 << 50 : way == FULL ? 64 : 0;
        assert_int_equal(device_stream_new(device, &s), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(s->k->alloc(sizeof host, &there[i]), 0);
        assert_int_equal(s->k->upload(s->stream, there[0], host, sizeof host), 0);
        a.n = N;
        a.q_rows = N * KEYS;
        a.start = a.asking = device_send(s, start, sizeof start);
        a.q = a.k = a.v = there[0];
        a.out = there[1];
        device->strict = false;
        assert_int_equal(device_attention(s, DEVICE_BF16, &a, false), 0);
        assert_int_equal(s->k->download(s->stream, own, there[1], sizeof own), 0);
        assert_int_equal(device_fallbacks(device).attention, 0);
        device->dnn = dnn_wrap(&fake);
        is_full = way == FULL;
        for (int i = 1; i <= 3; i++) {
            assert_int_equal(s->k->zero(s->stream, there[1], sizeof out), 0);
            assert_int_equal(device_attention(s, DEVICE_BF16, &a, false), 0);
            assert_int_equal(s->k->download(s->stream, out, there[1], sizeof out), 0);
            assert_memory_equal(out, own, sizeof out);
            assert_int_equal(device_fallbacks(device).attention, i);
            assert_int_equal(executed, way == FAILS);           /* asked once */
        }
        is_full = false;
        assert_non_null(strstr(device_refusal(device), words[way]));
        for (int i = 0; i < 2; i++)
            s->k->release(there[i]);
        device_stream_free(s);
        device_unref(device);
        device_unref(real);
    }
}

/* Lengths that differ: each piece is cuDNN's or the own kernel's, and nothing is left out or done twice. What the library does here is nothing: its rows stay
 * as they were. */
static int sequences_left;
static int execute_or_not(void *handle, void *plan, void *pack) { return (void)handle, (void)plan, (void)pack, --sequences_left < 0 ? 5000 : 0; }

static void test_each_piece_is_somebodys(void **state)
{
    struct dnn_calls fake = {fake_version, fake_create, fake_one, fake_two, fake_new, fake_one, fake_set, fake_get, fake_one, execute_or_not, fake_string, fake_words};
    enum { N = 4, ROWS = 12, HEADS = 2, DIM = 16, WIDTH = HEADS * DIM };
    int32_t start[N + 1] = {0, 5, 10, 11, 12};                  /* pieces: 1, 1 (five rows each), 1, 1 */
    static uint16_t host[ROWS * WIDTH], own[ROWS * WIDTH], out[ROWS * WIDTH];
    struct device *device;
    struct device_attention a = call_of(HEADS, 1, DIM, 5, true);
    struct device_stream *s = NULL;
    void *there[2];

    (void)state;
    if (getenv("GANTRY_TEST_DEVICE"))
        skip();
    device = test_device_open();
    workspace_wanted = 0;
    for (int i = 0; i < ROWS * WIDTH; i++)
        host[i] = (uint16_t)(0x3e00 + i * 37 % 256);
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(s->k->alloc(sizeof host, &there[i]), 0);
    assert_int_equal(s->k->upload(s->stream, there[0], host, sizeof host), 0);
    a.n = N;
    a.q_rows = ROWS;
    a.alike = false;
    a.start = a.asking = device_send(s, start, sizeof start);
    a.start_here = a.asking_here = start;
    a.q = a.k = a.v = there[0];
    a.out = there[1];
    device->strict = false;
    for (int taken = -1; taken <= N; taken++) {                 /* -1: without the library */
        sequences_left = taken;
        if (taken >= 0) {
            dnn_close(device->dnn);
            device->dnn = dnn_wrap(&fake);                      /* nothing is refused yet */
        }
        assert_int_equal(s->k->zero(s->stream, there[1], sizeof out), 0);
        assert_int_equal(device_attention(s, DEVICE_BF16, &a, false), 0);
        assert_int_equal(s->k->download(s->stream, taken < 0 ? own : out, there[1], sizeof out), 0);
        for (int i = 0; i < ROWS * WIDTH && taken >= 0; i++)
            assert_int_equal(out[i], i / WIDTH < start[taken] ? 0 : own[i]);
    }
    for (int i = 0; i < 2; i++)
        s->k->release(there[i]);
    device_stream_free(s);
    device_unref(device);
}

/* On a real device cuDNN's numbers, forward and backward, beside the own kernel's; how many shapes it refuses is told. (The emulated device
 * compares the own kernel with itself.) */
static void test_plans_agree_with_the_own_kernel(void **state)
{
    enum { N = 2, KEYS = 24, MOST = N * KEYS * 4 * 128 };
    static const struct { int heads, group; int64_t dim; bool causal, mixed; } shapes[] = {
        {2, 1, 64, true, false}, {2, 1, 72, false, false}, {4, 2, 16, true, false}, {2, 1, 128, true, true}, {4, 1, 80, false, true}};
    struct device *device = test_device_open();
    static uint16_t host[MOST], out[2][4][MOST];        /* out, dq, dk, dv */
    int32_t starts[2][N + 1] = {{0, KEYS, 2 * KEYS}, {0, KEYS, 2 * KEYS - 8}};
    struct device_stream *s = NULL;
    char *there[8];

    (void)state;
    for (int i = 0; i < MOST; i++)
        host[i] = (uint16_t)((i * 7919 % 2 ? 0x8000 : 0) | (0x3d80 + i * 37 % 251));       /* no row is like another */
    assert_int_equal(device_stream_new(device, &s), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(s->k->alloc(sizeof host, (void **)&there[i]), 0);
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        for (int fast = 0; fast < 2; fast++) {
            struct device_attention a = call_of(shapes[i].heads, shapes[i].group, shapes[i].dim, KEYS, shapes[i].causal);

            assert_int_equal(device_stream_begin(s), 0);
            device->strict = !fast;
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
                    union { uint32_t bits; float x; } want = {(uint32_t)out[0][k][at] << 16}, got = {(uint32_t)out[1][k][at] << 16};

                    sum += (double)(got.x - want.x) * (double)(got.x - want.x);
                    norm += (double)want.x * (double)want.x;
                }
                if (!(norm > 0 && sum <= 4e-4 * norm))          /* two parts in a hundred: bf16's rounding of P and dS */
                    fail_msg("shape %zu, %s: %g of %g", i, (const char *[]) {"out", "dq", "dk", "dv"}[k], sum, norm);
            }
        }
    print_message("attentions that cuDNN refused: %llu %s\n", device_fallbacks(device).attention, device_refusal(device));
    for (int i = 0; i < 8; i++)
        s->k->release(there[i]);
    device_stream_free(s);
    device_unref(device);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_are_made_once_and_the_least_used_goes),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_the_models_plans_all_have_room),
        cmocka_unit_test(test_what_a_plan_may_work_in),
#if GANTRY_GPU
        cmocka_unit_test(test_what_is_for_cudnn),
        cmocka_unit_test(test_graphs_are_built),
        cmocka_unit_test(test_a_refused_graph_says_why),
        cmocka_unit_test(test_a_refusal_is_counted_and_answered),
        cmocka_unit_test(test_a_plan_that_is_not_carried_out),
        cmocka_unit_test(test_each_piece_is_somebodys),
        cmocka_unit_test(test_plans_agree_with_the_own_kernel),
#endif
    };

    (void)call_of;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
