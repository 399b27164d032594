/* zsock promises: no message is ever stuck, in bursts and in lockstep; busy sockets share the loop; handles close. */
#include "tests/harness/wire_lab.h"

#include <errno.h>
#include <pthread.h>
#include <zmq.h>

#include "wire/zsock.h"

enum { BURST_TOTAL = 200000, LOCKSTEP_TOTAL = 2000 };

static void *context;

/* ROUTER that echoes on a thread of its own. */
static void *echo(void *router)
{
    for (;;) {
        zmq_msg_t id, text;

        zmq_msg_init(&id);
        zmq_msg_init(&text);
        if (zmq_msg_recv(&id, router, 0) < 0 || zmq_msg_recv(&text, router, 0) < 0)
            break;
        zmq_msg_send(&id, router, ZMQ_SNDMORE);
        zmq_msg_send(&text, router, 0);
    }
    zmq_close(router);
    return NULL;
}

struct bursts {
    unsigned sent, got, total;
    struct zsock *z;
};

static void count_in(struct zsock *z, void *arg)
{
    struct bursts *b = arg;
    char text[16];

    if (zmq_recv(zsock_socket(z), text, sizeof text, ZMQ_DONTWAIT) >= 0)
        b->got++;
}

static void burst_out(struct zsock *z, void *arg)
{
    struct bursts *b = arg;

    for (unsigned n = 1 + b->sent % 37; n && b->sent < b->total; n--, b->sent++)
        if (zmq_send(zsock_socket(z), "0123456789", 10, ZMQ_DONTWAIT) < 0)
            return;
    zsock_want_out(z, b->sent < b->total);
}

struct bench {
    struct wire_lab lab;
    pthread_t thread;
    struct bursts b;
};

static void bench_open(struct bench *bench, zsock_fn *on_out)
{
    int zero = 0, one = 1;
    void *router, *dealer;

    lab_open(&bench->lab);
    context = zmq_ctx_new();
    router = zmq_socket(context, ZMQ_ROUTER);
    zmq_setsockopt(router, ZMQ_ROUTER_MANDATORY, &one, sizeof one);     /* wait for room, drop nothing */
    assert_int_equal(zmq_bind(router, bench->lab.ipc), 0);
    assert_int_equal(pthread_create(&bench->thread, NULL, echo, router), 0);
    dealer = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
    assert_int_equal(zmq_connect(dealer, bench->lab.ipc), 0);
    assert_int_equal(zsock_new(&bench->lab.loop, dealer, count_in, on_out, &bench->b, &bench->b.z), 0);
}

static void bench_close(struct bench *bench)
{
    bench->b.z = zsock_free(bench->b.z);
    assert_null(bench->b.z);
    zmq_ctx_shutdown(context);
    pthread_join(bench->thread, NULL);
    zmq_ctx_term(context);
    lab_close(&bench->lab);
}

static void burst(void **state)
{
    struct bench bench = {.b.total = BURST_TOTAL};

    (void)state;
    bench_open(&bench, burst_out);
    zsock_want_out(bench.b.z, true);
    lab_until_count(&bench.lab, &bench.b.got, BURST_TOTAL);
    assert_int_equal(bench.b.got, bench.b.sent);
    for (int i = 0; uv_backend_timeout(&bench.lab.loop) == 0; i++) {    /* no work is left: it sleeps */
        assert_true(i < 1000);
        uv_run(&bench.lab.loop, UV_RUN_NOWAIT);
    }
    bench_close(&bench);
}

/* Two requests, then nothing until both answers are in: the second send eats the edge of the first answer. */
static void lockstep(void **state)
{
    struct bench bench = {0};

    (void)state;
    bench_open(&bench, NULL);
    while (bench.b.sent < LOCKSTEP_TOTAL) {
        assert_true(zmq_send(zsock_socket(bench.b.z), "a", 1, 0) == 1);
        assert_true(zmq_send(zsock_socket(bench.b.z), "b", 1, 0) == 1);
        bench.b.sent += 2;
        lab_until_count(&bench.lab, &bench.b.got, bench.b.sent);
    }
    bench_close(&bench);
}

/* A socket with a full inbox does at most ZSOCK_BUDGET messages a turn. */
static void budget(void **state)
{
    struct wire_lab lab;
    struct bursts b = {0};
    void *ctx = zmq_ctx_new(), *a = zmq_socket(ctx, ZMQ_PAIR), *z = zmq_socket(ctx, ZMQ_PAIR);

    (void)state;
    lab_open(&lab);
    zmq_bind(a, "inproc://budget");
    zmq_connect(z, "inproc://budget");
    for (int i = 0; i < 500; i++)
        assert_int_equal(zmq_send(a, "x", 1, 0), 1);
    assert_int_equal(zsock_new(&lab.loop, z, count_in, NULL, &b, &b.z), 0);
    while (b.got < 500) {
        unsigned before = b.got;

        uv_run(&lab.loop, UV_RUN_ONCE);
        assert_true(b.got - before <= ZSOCK_BUDGET);
    }
    zsock_free(b.z);
    zmq_close(a);
    zmq_ctx_term(ctx);
    lab_close(&lab);
}

static void free_in_callback(struct zsock *z, void *arg)
{
    bool *freed = arg;

    zsock_free(z);
    *freed = true;
}

static void freed_while_busy(void **state)
{
    struct wire_lab lab;
    struct zsock *zsock;
    bool freed = false;
    void *ctx = zmq_ctx_new(), *a = zmq_socket(ctx, ZMQ_PAIR), *z = zmq_socket(ctx, ZMQ_PAIR);

    (void)state;
    lab_open(&lab);
    zmq_bind(a, "inproc://freed");
    zmq_connect(z, "inproc://freed");
    for (int i = 0; i < 10; i++)
        zmq_send(a, "x", 1, 0);
    assert_int_equal(zsock_new(&lab.loop, z, free_in_callback, NULL, &freed, &zsock), 0);
    lab_until(&lab, &freed);
    zmq_close(a);
    zmq_ctx_term(ctx);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst),
        cmocka_unit_test(lockstep),
        cmocka_unit_test(budget),
        cmocka_unit_test(freed_while_busy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
