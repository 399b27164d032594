/* Decoding steps as graphs: captured once, replayed with other inputs, captured anew when shapes or weights' places change, and
 * never with another result than the step itself. On the emulated device, or the one that GANTRY_TEST_DEVICE names. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nn/device/graphs.h"
#include "nn/models/openvla_session.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/train_lab.h"

enum { N = 3, STEPS = LAB_DIMS - 1 };

static struct device *plain;       /* plain: the same, and graphs are not to be had */
static struct device_kernels no_graphs;
static uint8_t *frames;

static int setup(void **state)
{
    (void)state;
    device = test_device_open();
    no_graphs = *device->k;
    no_graphs.capture_begin = NULL;
    assert_int_equal(device_wrap(&no_graphs, device->ordinal, &plain, NULL), 0);
    device->strict = plain->strict = true;
    frames = lab_noise_frames(3, N);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(frames);
    plain = device_unref(plain);
    device = device_unref(device);
    return 0;
}

static struct openvla *make(uint64_t seed, struct device *on)
{
    struct openvla *model = lab_model(seed);

    params_use_device(&model->params, on, false);
    assert_int_equal(openvla_pack(model, false), 0);
    return model;
}

static void act(const struct openvla *model, struct openvla_session *session, int first, int n, uint64_t episode,
                struct act_result *ret)
{
    static const char *const words[N] = {"pick up the red block", "open the drawer", "x"};
    struct act_item items[N] = {0};
    int32_t *prompt[N];
    int n_prompt[N];

    for (int i = 0; i < n; i++) {
        assert_int_equal(openvla_prompt(model, words[first + i], &prompt[i], &n_prompt[i]), 0);
        items[i] = (struct act_item) {.images = {frames + (first + i) * LAB_FRAME}, .n_images = 1, .prompt = prompt[i],
                                      .n_prompt = n_prompt[i], .temperature = 1, .seed = 7, .episode = episode + (uint64_t)i};
    }
    assert_int_equal(openvla_act(model, session, items, n, ret), 0);
    for (int i = 0; i < n; i++)
        free(prompt[i]);
}

static struct openvla_session *new_session(const struct openvla *model)
{
    struct openvla_session *session = NULL;

    assert_int_equal(openvla_session_new(&model->config, N, &session), 0);
    return session;
}

static struct graph_counts counts_of(const struct openvla_session *session)
{
    struct graph_counts counts = {0};

    device_graphs_counts(session->graphs, &counts);
    return counts;
}

static void test_replays_are_the_step_itself(void **state)
{
    struct openvla *a = make(1, device), *b = make(2, device), *a0 = make(1, plain), *b0 = make(2, plain);
    struct openvla_session *session = new_session(a), *session0 = new_session(a0);
    struct act_result got[N], want[N];
    struct graph_counts counts;

    (void)state;
    for (int round = 0; round < 2; round++)
        for (int first = 0; first < 2; first++) {               /* batches of three and of two */
            memset(got, 0, sizeof got);
            memset(want, 0, sizeof want);
            act(a, session, first, N - first, (uint64_t)round, got);
            act(a0, session0, first, N - first, (uint64_t)round, want);
            assert_memory_equal(got, want, sizeof got);
        }
    counts = counts_of(session);
    assert_int_equal(counts.captured, 2);
    assert_true(counts.replayed >= 2 * STEPS);                  /* all of the second round */
    assert_int_equal(counts.refused, 0);
    assert_int_equal(counts_of(session0).captured, 0);

    memset(got, 0, sizeof got);
    memset(want, 0, sizeof want);
    act(b, session, 0, N, 5, got);                              /* another version, and the first one again */
    act(b0, session0, 0, N, 5, want);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(counts_of(session).captured, 3);
    act(a, session, 0, N, 6, got);
    act(a0, session0, 0, N, 6, want);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(counts_of(session).captured, 3);

    for (int64_t i = 0; i < a->params.numel; i++)               /* new values in the same places need no new graph */
        a->params.values[i] = a0->params.values[i] = 0.9f * a->params.values[i];
    assert_int_equal(openvla_pack(a, false), 0);
    assert_int_equal(openvla_pack(a0, false), 0);
    act(a, session, 0, N, 7, got);
    act(a0, session0, 0, N, 7, want);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(counts_of(session).captured, 3);
    openvla_session_free(session);
    openvla_session_free(session0);
    openvla_free(a);
    openvla_free(b);
    openvla_free(a0);
    openvla_free(b0);
}

/* ---- the cache by itself -------------------------------------------------------------------------------------- */

static float *to;
static float host[2];

/* Puts host[0] into device memory. */
static int pass(struct device_stream *s, const void *what)
{
    const void *sent = device_send(s, what, sizeof host[0]);

    return sent ? s->k->copy(s->stream, to, sent, sizeof host[0]) : -ENOMEM;
}

static float read_back(struct device_stream *s)
{
    float x = 0;

    assert_int_equal(s->k->download(s->stream, &x, to, sizeof x), 0);
    return x;
}

static enum graph_action once(struct device_graphs *graphs, struct device_stream *s, int key, float x, const void *what)
{
    const struct graph_input input = {host, sizeof host[0]};
    int64_t note[GRAPH_NOTE] = {key};
    enum graph_action action;

    host[0] = x;
    assert_int_equal(device_stream_begin(s), 0);
    action = device_graphs_next(graphs, s, &key, sizeof key, &input, 1);
    switch (action) {
    case GRAPH_RUN: assert_int_equal(pass(s, what), 0); break;
    case GRAPH_CAPTURE:
        if (device_graphs_begin(graphs, s, &input, 1) < 0 || device_graphs_end(graphs, s, pass(s, what), note) < 0)
            assert_int_equal(pass(s, what), 0);
        break;
    case GRAPH_REPLAY:
        note[0] = -1;
        assert_int_equal(device_graphs_launch(graphs, s, &input, 1, note), 0);
        assert_int_equal(note[0], key);
        break;
    }
    assert_true(read_back(s) == *(const float *)what);
    return action;
}

static struct device_stream *new_stream(struct device *on)
{
    struct device_stream *s = NULL;

    assert_int_equal(device_stream_new(on, &s), 0);
    assert_int_equal(s->k->alloc(sizeof host[0], (void **)&to), 0);
    return s;
}

static void test_states(void **state)
{
    struct device_graphs *graphs = device_graphs_new();
    struct device_stream *s = new_stream(device);
    struct graph_counts counts;

    (void)state;
    assert_int_equal(once(graphs, s, 1, 10, host), GRAPH_RUN);
    assert_int_equal(once(graphs, s, 1, 11, host), GRAPH_CAPTURE);
    assert_int_equal(once(graphs, s, 1, 12, host), GRAPH_REPLAY);
    assert_int_equal(once(graphs, s, 2, 13, host), GRAPH_RUN);
    assert_int_equal(once(graphs, s, 1, 14, host), GRAPH_REPLAY);
    assert_int_equal(once(graphs, s, 2, 15, host), GRAPH_CAPTURE);
    for (int key = 3; key < 3 + GRAPHS - 1; key++)              /* one place too few: the least used, 1, goes */
        (void)once(graphs, s, key, 16, host);
    assert_int_equal(once(graphs, s, 2, 17, host), GRAPH_REPLAY);
    assert_int_equal(once(graphs, s, 1, 18, host), GRAPH_RUN);
    device_graphs_counts(graphs, &counts);
    assert_int_equal(counts.captured, 2);
    assert_int_equal(counts.replayed, 3);
    assert_int_equal(counts.refused, 0);
    device_graphs_free(graphs);
    s->k->release(to);
    device_stream_free(s);
}

/* Of two inputs with the same bytes nobody could tell which one a pass sends: it is captured when they differ. */
static void test_inputs_that_are_alike(void **state)
{
    struct device_graphs *graphs = device_graphs_new();
    struct device_stream *s = new_stream(device);
    const struct graph_input two[2] = {{host, sizeof host[0]}, {host + 1, sizeof host[1]}};
    int key = 1;

    (void)state;
    host[0] = host[1] = 3;
    for (int i = 0; i < 3; i++)
        assert_int_equal(device_graphs_next(graphs, s, &key, sizeof key, two, 2), GRAPH_RUN);
    host[1] = 4;
    assert_int_equal(device_graphs_next(graphs, s, &key, sizeof key, two, 2), GRAPH_CAPTURE);
    device_graphs_free(graphs);
    s->k->release(to);
    device_stream_free(s);
}

/* What is sent beside the inputs would be of the past in a replay. */
static void test_what_cannot_be_captured_is_run(void **state)
{
    struct device_graphs *graphs = device_graphs_new();
    struct device_stream *s = new_stream(device);
    struct graph_counts counts;

    (void)state;
    host[1] = 3;
    assert_int_equal(once(graphs, s, 1, 10, host + 1), GRAPH_RUN);
    assert_int_equal(once(graphs, s, 1, 11, host + 1), GRAPH_CAPTURE);
    host[1] = 4;
    assert_int_equal(once(graphs, s, 1, 12, host + 1), GRAPH_RUN);
    device_graphs_counts(graphs, &counts);
    assert_int_equal(counts.captured, 0);
    assert_int_equal(counts.refused, 1);
    device_graphs_free(graphs);
    s->k->release(to);
    device_stream_free(s);
}

static void test_a_device_without_graphs(void **state)
{
    struct device_graphs *graphs = device_graphs_new();
    struct device_stream *s = new_stream(plain);

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(once(graphs, s, 1, (float)i, host), GRAPH_RUN);
    device_graphs_free(graphs);
    s->k->release(to);
    device_stream_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replays_are_the_step_itself),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_inputs_that_are_alike),
        cmocka_unit_test(test_what_cannot_be_captured_is_run),
        cmocka_unit_test(test_a_device_without_graphs),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
