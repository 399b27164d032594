/* test_loop.c - posts from many threads arrive once and in order, timers and signals work, nothing leaks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "daemon/loop.h"
#include "daemon/worker.h"

enum { THREADS = 4, POSTS = 5000 };

struct shared {
    struct loop *loop;
    unsigned seen[THREADS], total;
    bool out_of_order;
};

struct post { struct shared *shared; unsigned thread, number; };

static void take_post(void *arg)
{
    struct post *post = arg;
    struct shared *s = post->shared;

    s->out_of_order |= s->seen[post->thread] != post->number;
    s->seen[post->thread]++;
    if (++s->total == THREADS * POSTS)
        loop_stop(s->loop);
    free(post);
}

struct poster { struct shared *shared; unsigned thread; };

static void *post_many(void *arg)
{
    const struct poster *p = arg;

    for (unsigned i = 0; i < POSTS; i++) {
        struct post *post = malloc(sizeof *post);

        if (!post)
            abort();
        *post = (struct post) {p->shared, p->thread, i};
        if (loop_post(p->shared->loop, take_post, post) < 0)
            abort();
    }
    return NULL;
}

static void test_posts(void **state _unused_)
{
    struct shared s = {0};
    struct poster posters[THREADS];
    pthread_t threads[THREADS];

    assert_int_equal(loop_new(&s.loop), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        posters[i] = (struct poster) {&s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, &posters[i]), 0);
    }
    loop_run(s.loop);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(s.total, THREADS * POSTS);
    assert_false(s.out_of_order);
    loop_turn(s.loop, false);       /* a turn is counted when the next one begins; all may have come in one */
    loop_turn(s.loop, false);
    assert_true(loop_lag(s.loop).turns > 0);
    assert_null(loop_free(s.loop));
}

static void count(void *arg) { ++*(unsigned *)arg; }

/* What was posted is run even when the loop never turns again. */
static void test_free_runs_posts(void **state _unused_)
{
    struct loop *loop;
    unsigned n = 0;

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(loop_post(loop, count, &n), 0);
    assert_int_equal(loop_post(loop, count, &n), 0);
    loop_free(loop);
    assert_int_equal(n, 2);
}

struct repeating { struct loop *loop; struct loop_timer *timer; unsigned n; };

static void repeat(void *arg)
{
    struct repeating *r = arg;

    if (++r->n == 3) {
        r->timer = loop_timer_free(r->timer);       /* inside its own function */
        loop_stop(r->loop);
    }
}

static void test_timer(void **state _unused_)
{
    struct repeating r = {0};
    struct loop_timer *never;
    unsigned n = 0;

    assert_int_equal(loop_new(&r.loop), 0);
    assert_int_equal(loop_timer_new(r.loop, 0, 1, repeat, &r, &r.timer), 0);
    assert_int_equal(loop_timer_new(r.loop, 1, 1, count, &n, &never), 0);
    loop_timer_stop(never);
    loop_run(r.loop);
    assert_int_equal(r.n, 3);
    assert_int_equal(n, 0);
    loop_timer_free(never);
    loop_free(r.loop);
}

static void on_signal(int number, void *arg)
{
    struct repeating *r = arg;

    r->n = (unsigned)number;
    loop_stop(r->loop);
}

static void test_signal(void **state _unused_)
{
    struct repeating r = {0};
    struct loop_signal *signal;

    assert_int_equal(loop_new(&r.loop), 0);
    assert_int_equal(loop_signal_new(r.loop, SIGUSR1, on_signal, &r, &signal), 0);
    raise(SIGUSR1);
    loop_run(r.loop);
    assert_int_equal(r.n, SIGUSR1);
    loop_signal_free(signal);
    loop_free(r.loop);
}

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open;
    atomic_uint done;
    unsigned order[16];
};
struct job { struct gate *gate; unsigned number; };

static void wait_at_gate(void *arg)
{
    struct job *job = arg;
    struct gate *gate = job->gate;

    pthread_mutex_lock(&gate->lock);
    while (!gate->open)
        pthread_cond_wait(&gate->opened, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
    gate->order[atomic_fetch_add(&gate->done, 1)] = job->number;
}

static void test_worker(void **state _unused_)
{
    static struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, .open = false};
    struct job jobs[8];
    struct worker *worker;
    unsigned accepted = 0;
    int r = 0;

    assert_int_equal(worker_new("test", 1, 4, &worker), 0);
    while (accepted < 8 && r == 0) {
        jobs[accepted] = (struct job) {&gate, accepted};
        r = worker_submit(worker, wait_at_gate, &jobs[accepted]);
        accepted += r == 0;
    }
    assert_int_equal(r, -ENOBUFS);
    assert_in_range(accepted, 4, 5);        /* four wait, one may be running */
    assert_int_equal(worker_pending(worker), accepted);
    pthread_mutex_lock(&gate.lock);
    gate.open = true;
    pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.lock);
    assert_null(worker_free(worker));       /* does what was submitted */
    assert_int_equal(atomic_load(&gate.done), accepted);
    for (unsigned i = 0; i < accepted; i++)
        assert_int_equal(gate.order[i], i);
}

static void note_mask(void *arg) { pthread_sigmask(SIG_SETMASK, NULL, arg); }

/* Signals are the loop's: no job is interrupted by one. */
static void test_worker_signals(void **state _unused_)
{
    sigset_t ours, theirs;
    struct worker *worker;

    assert_int_equal(worker_new("test", 1, 1, &worker), 0);
    assert_int_equal(worker_submit(worker, note_mask, &theirs), 0);
    worker_free(worker);
    pthread_sigmask(SIG_SETMASK, NULL, &ours);
    assert_true(sigismember(&theirs, SIGTERM) && sigismember(&theirs, SIGINT) && !sigismember(&ours, SIGTERM));
}

enum { LONG_NS = 2000000 };

static void spin(void *arg _unused_)
{
    uint64_t end = clock_mono_ns() + LONG_NS;

    while (clock_mono_ns() < end)
        ;
}

/* What a turn took, whoever woke it, is told as the worst one, once. */
static void test_lag(void **state _unused_)
{
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_lag lag;

    assert_int_equal(loop_new(&loop), 0);
    for (int timed = 0; timed < 2; timed++) {
        uint64_t busy_before = loop_lag(loop).busy_ns;

        if (timed)
            assert_int_equal(loop_timer_new(loop, 0, 0, spin, NULL, &timer), 0);
        else
            assert_int_equal(loop_post(loop, spin, NULL), 0);
        loop_turn(loop, !timed);
        loop_turn(loop, false);         /* goes to sleep: the turn has ended */
        lag = loop_lag(loop);
        assert_true(lag.worst_ns >= LONG_NS);
        assert_true(lag.busy_ns - busy_before >= lag.worst_ns);
        assert_int_equal(loop_lag(loop).worst_ns, 0);
    }
    assert_true(lag.turns >= 2);
    loop_timer_free(timer);
    loop_free(loop);
}

struct order { struct loop *loop; char text[16]; unsigned n; };

static void note_a(void *arg) { struct order *o = arg; o->text[o->n++] = 'a'; }
static void note_b(void *arg) { struct order *o = arg; o->text[o->n++] = 'b'; }

static void note_p(void *arg)
{
    struct order *o = arg;

    o->text[o->n++] = 'p';
    assert_int_equal(loop_defer(o->loop, note_b, o), 0);
}

/* What a turn defers runs when all else of the turn has, in order, and needs nobody to wake the loop. */
static void test_defer(void **state _unused_)
{
    struct order o = {0};

    assert_int_equal(loop_new(&o.loop), 0);
    assert_int_equal(loop_defer(o.loop, note_a, &o), 0);
    assert_int_equal(loop_post(o.loop, note_p, &o), 0);
    assert_int_equal(loop_post(o.loop, note_a, &o), 0);
    loop_turn(o.loop, true);        /* the deferred one, then sleep: woken by the posts */
    assert_string_equal(o.text, "apa");
    loop_turn(o.loop, false);
    assert_string_equal(o.text, "apab");
    loop_turn(o.loop, false);
    assert_string_equal(o.text, "apab");
    loop_free(o.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts), cmocka_unit_test(test_defer), cmocka_unit_test(test_free_runs_posts),
        cmocka_unit_test(test_timer), cmocka_unit_test(test_signal), cmocka_unit_test(test_worker),
        cmocka_unit_test(test_worker_signals), cmocka_unit_test(test_lag),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
