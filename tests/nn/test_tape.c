/* The tape: a dry run's size is enough, too little fails cleanly, passes repeat to the bit, gradients add up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"
#include "nn/ops.h"

enum { ROWS = 600, DIM = 32 };

struct net { struct params params; struct param *up, *down, *norm; float x[ROWS * DIM]; };

static void net_init(struct net *net)
{
    struct philox random = philox_at(61, PHILOX_TEST, 0, 0, 0);

    *net = (struct net) {0};
    net->up = param_add(&net->params, "up", 2, (int64_t[]) {3 * DIM, DIM}, true);
    net->down = param_add(&net->params, "down", 2, (int64_t[]) {DIM, DIM}, true);
    net->norm = param_add(&net->params, "norm", 1, (int64_t[]) {DIM}, false);
    assert_null(param_add(&net->params, "up", 1, (int64_t[]) {1}, false));      /* the name is taken */
    assert_ptr_equal(param_find(&net->params, "down"), net->down);
    assert_int_equal(params_allocate(&net->params), 0);
    for (int64_t i = 0; i < net->params.numel; i++)
        net->params.values[i] = 0.2f * (float)philox_normal(&random);
    for (int i = 0; i < ROWS * DIM; i++)
        net->x[i] = (float)philox_normal(&random);
    assert_int_equal(params_pack(&net->params, true), 0);
}

static struct tensor *net_run(struct net *net, struct tape *t)
{
    static const int32_t starts[] = {0, 50, ROWS};
    struct tensor *x = tape_input(t, net->x, ROWS, DIM), *h;

    h = op_linear(t, op_rmsnorm(t, x, net->norm, 1e-6f), net->up, NULL);
    h = op_attention_qkv(t, h, (struct spans) {2, starts}, 2, ATTENTION_CAUSAL);
    return op_residual(t, x, op_linear(t, h, net->down, NULL), NULL);
}

static void test_a_dry_run_sizes_the_pass(void **state)
{
    struct net net;
    struct tape t;
    _cleanup_free_ float *grad = NULL, *once = NULL, *y1 = NULL;
    struct tensor *y;

    (void)state;
    net_init(&net);
    grad = calloc((size_t)net.params.numel, sizeof(float));
    once = calloc((size_t)net.params.numel, sizeof(float));
    y1 = calloc(ROWS * DIM, sizeof(float));
    assert_true(grad && once && y1);
    tape_init(&t, true);
    t.param_grad = grad;
    tape_plan(&t);
    y = net_run(&net, &t);
    assert_non_null(y);
    assert_null(y->x);
    assert_int_equal(tape_allocate(&t), 0);

    for (int pass = 0; pass < 2; pass++) {
        tape_begin(&t);
        y = net_run(&net, &t);
        assert_non_null(y);
        for (int i = 0; i < ROWS * DIM; i++)
            y->g[i] = 1.0f;
        tape_backward(&t);
        assert_int_equal(t.error, 0);
        if (pass == 0) {
            memcpy(y1, y->x, ROWS * DIM * sizeof(float));
            memcpy(once, grad, (size_t)net.params.numel * sizeof(float));
        }
    }
    assert_memory_equal(y1, y->x, ROWS * DIM * sizeof(float));
    for (int64_t i = 0; i < net.params.numel; i++)
        assert_true(grad[i] == 2.0f * once[i]);         /* gradients of parameters are added: exactly twice */
    tape_release(&t);
    params_free(&net.params);
}

static void test_too_little_memory_fails_cleanly(void **state)
{
    struct net net;
    struct tape t;
    size_t need;
    _cleanup_free_ float *grad = NULL;

    (void)state;
    net_init(&net);
    grad = calloc((size_t)net.params.numel, sizeof(float));
    tape_init(&t, true);
    t.param_grad = grad;
    tape_plan(&t);
    assert_non_null(net_run(&net, &t));
    assert_int_equal(tape_allocate(&t), 0);
    need = t.arena.size;
    for (size_t size = 64; size < need; size += need / 40) {
        struct tensor *y;

        tape_release(&t);
        t.param_grad = grad;
        assert_int_equal(tape_reserve(&t, size), 0);
        tape_begin(&t);
        y = net_run(&net, &t);
        tape_backward(&t);
        assert_int_equal(t.error, -ENOBUFS);            /* in the forward, or at last for the backward's scratch */
        (void)y;
    }
    assert_int_equal(tape_reserve(&t, need), 0);        /* grown: the same tape works */
    tape_begin(&t);
    assert_non_null(net_run(&net, &t));
    tape_backward(&t);
    assert_int_equal(t.error, 0);
    tape_release(&t);
    params_free(&net.params);
}

static void test_frozen_parameters_get_no_gradient(void **state)
{
    struct net net;
    struct tape t;
    _cleanup_free_ float *grad = NULL;
    struct tensor *y;

    (void)state;
    net_init(&net);
    net.up->frozen = net.norm->frozen = true;
    grad = calloc((size_t)net.params.numel, sizeof(float));
    tape_init(&t, true);
    t.param_grad = grad;
    assert_int_equal(tape_reserve(&t, 16 << 20), 0);
    y = net_run(&net, &t);
    assert_non_null(y);
    for (int i = 0; i < ROWS * DIM; i++)
        y->g[i] = 1.0f;
    tape_backward(&t);
    for (int64_t i = 0; i < net.params.numel; i++)
        if (i < net.down->offset || i >= net.down->offset + net.down->numel)
            assert_true(grad[i] == 0.0f);
    assert_true(grad[net.down->offset] != 0.0f);
    tape_release(&t);
    params_free(&net.params);
}

/* With recycled gradients a step computes the same parameter gradients. */
static void test_recycling_changes_nothing(void **state)
{
    struct net net;
    float *grad[2] = {NULL, NULL};

    (void)state;
    net_init(&net);
    for (int recycle = 0; recycle < 2; recycle++) {
        struct tape t;
        struct tensor *y;
        float *g;

        grad[recycle] = calloc((size_t)net.params.numel, sizeof(float));
        assert_non_null(grad[recycle]);
        tape_init(&t, true);
        t.param_grad = grad[recycle];
        t.recycle = recycle;
        tape_plan(&t);
        assert_non_null(net_run(&net, &t));
        assert_int_equal(tape_allocate(&t), 0);
        tape_begin(&t);
        y = net_run(&net, &t);
        assert_non_null(y);
        assert_true(recycle ? y->g == NULL : y->g != NULL);     /* 600 x 32 is large */
        g = tape_gradient(&t, y);
        assert_non_null(g);
        for (int i = 0; i < ROWS * DIM; i++)
            g[i] = net.x[i];
        tape_backward(&t);
        assert_int_equal(t.error, 0);
        tape_release(&t);
    }
    for (int64_t i = 0; i < net.params.numel; i++)
        assert_true(grad[0][i] == grad[1][i]);
    free(grad[0]);
    free(grad[1]);
    params_free(&net.params);
}

/* In inference what is kept survives, and the pass needs less memory; in training nothing is forgotten. */
static void test_keep(void **state)
{
    enum { BIG = 1000 };
    static float x[BIG];
    struct tape t;

    (void)state;
    for (int i = 0; i < BIG; i++)
        x[i] = (float)i;
    for (int training = 0; training < 2; training++) {
        tape_init(&t, training);
        for (int planning = 1; planning >= 0; planning--) {
            struct tensor *y;

            if (planning)
                tape_plan(&t);
            else
                tape_begin(&t);
            y = tape_input(&t, x, 1, BIG);
            for (int i = 0; i < 10; i++) {
                size_t mark = tape_mark(&t);
                struct tensor *h = op_add(&t, y, y);

                h = op_add(&t, h, h);
                y = tape_keep(&t, mark, op_add(&t, h, tape_input(&t, x, 1, BIG)));
            }
            assert_non_null(y);
            if (planning)
                assert_int_equal(tape_allocate(&t), 0);
            for (int i = 0; i < BIG && !planning; i++) {
                float want = x[i];

                for (int k = 0; k < 10; k++)
                    want = 4.0f * want + x[i];
                assert_true(y->x[i] == want);
            }
        }
        assert_true(training ? t.arena.size > 30 * BIG * sizeof(float) : t.arena.size < 15 * BIG * sizeof(float));
        tape_release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_dry_run_sizes_the_pass),
        cmocka_unit_test(test_too_little_memory_fails_cleanly),
        cmocka_unit_test(test_frozen_parameters_get_no_gradient),
        cmocka_unit_test(test_recycling_changes_nothing),
        cmocka_unit_test(test_keep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
