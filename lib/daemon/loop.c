#include "daemon/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

#include "base/array.h"
#include "base/clock.h"

struct posted {
    loop_fn *fn;
    void *arg;
};

struct post_queue {
    struct posted *items;
    size_t n, capacity;
};

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    uv_prepare_t before_sleep;
    uint64_t ended_ns, idle_ns; /* when the last turn ended, and all time asleep until then; 0: there was none yet */
    struct loop_lag lag;
    struct post_queue deferred; /* this thread's */
    pthread_mutex_t lock;       /* guards the two below */
    struct post_queue queue;
    bool closed;
};

struct loop_timer {
    uv_timer_t uv;
    loop_fn *fn;
    void *arg;
};

struct loop_signal {
    uv_signal_t uv;
    loop_signal_fn *fn;
    void *arg;
};

/* Run what had been posted until now; what these functions post comes in the next turn. */
static bool run_posted(struct loop *loop)
{
    struct post_queue queue;

    pthread_mutex_lock(&loop->lock);
    queue = loop->queue;
    loop->queue = (struct post_queue) {0};
    pthread_mutex_unlock(&loop->lock);
    for (size_t i = 0; i < queue.n; i++)
        queue.items[i].fn(queue.items[i].arg);
    free(queue.items);
    return queue.n > 0;
}

static void on_wake(uv_async_t *handle) { run_posted(handle->data); }

/* What these functions defer runs behind them. */
static void run_deferred(struct loop *loop)
{
    for (size_t i = 0; i < loop->deferred.n; i++)
        loop->deferred.items[i].fn(loop->deferred.items[i].arg);
    loop->deferred.n = 0;
}

static void on_before_sleep(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    uint64_t now, idle, busy;

    run_deferred(loop);
    now = clock_mono_ns();
    idle = uv_metrics_idle_time(&loop->uv);
    busy = now - loop->ended_ns - (idle - loop->idle_ns);
    if (loop->ended_ns && busy < INT64_MAX) {
        loop->lag.turns++;
        loop->lag.busy_ns += busy;
        loop->lag.worst_ns = MAX(loop->lag.worst_ns, busy);
    }
    loop->ended_ns = now;
    loop->idle_ns = idle;
}

int loop_new(struct loop **ret)
{
    struct loop *loop = calloc(1, sizeof *loop);
    int r;

    if (!loop)
        return -ENOMEM;
    r = uv_loop_init(&loop->uv);
    if (r < 0) {
        free(loop);
        return r;
    }
    r = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (r < 0) {
        uv_loop_close(&loop->uv);
        free(loop);
        return r;
    }
    uv_loop_configure(&loop->uv, UV_METRICS_IDLE_TIME);     /* a uv_check_t is called too late: after what woke the loop */
    uv_prepare_init(&loop->uv, &loop->before_sleep);
    loop->wake.data = loop->before_sleep.data = loop;
    uv_prepare_start(&loop->before_sleep, on_before_sleep);
    pthread_mutex_init(&loop->lock, NULL);
    *ret = loop;
    return 0;
}

struct loop *loop_free(struct loop *loop)
{
    enum { CLOSING_TURNS = 100 };       /* a close callback may close another handle; a chain this long is a leak */
    int r = UV_EBUSY;

    if (!loop)
        return NULL;
    while (run_posted(loop))
        ;
    pthread_mutex_lock(&loop->lock);
    loop->closed = true;
    pthread_mutex_unlock(&loop->lock);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->before_sleep, NULL);
    for (int i = 0; i < CLOSING_TURNS && r == UV_EBUSY; i++) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        r = uv_loop_close(&loop->uv);
    }
    if (r < 0) {
        uv_print_all_handles(&loop->uv, stderr);
        assert(!"loop_free: a handle was not closed");
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop->deferred.items);
    free(loop);
    return NULL;
}

uv_loop_t *loop_uv(struct loop *loop) { return &loop->uv; }
uint64_t loop_now_ms(struct loop *loop) { return uv_now(&loop->uv); }
void loop_run(struct loop *loop) { uv_run(&loop->uv, UV_RUN_DEFAULT); }
void loop_stop(struct loop *loop) { uv_stop(&loop->uv); }
void loop_turn(struct loop *loop, bool wait) { uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT); }

static int push(struct post_queue *queue, loop_fn *fn, void *arg)
{
    if (array_room(&queue->items, queue->n, &queue->capacity, sizeof *queue->items) < 0)
        return -ENOMEM;
    queue->items[queue->n++] = (struct posted) {fn, arg};
    return 0;
}

int loop_post(struct loop *loop, loop_fn *fn, void *arg)
{
    int r;

    pthread_mutex_lock(&loop->lock);
    r = loop->closed ? -ESHUTDOWN : push(&loop->queue, fn, arg);
    if (r == 0)
        uv_async_send(&loop->wake);     /* under the lock: loop_free cannot close it in between */
    pthread_mutex_unlock(&loop->lock);
    return r;
}

int loop_defer(struct loop *loop, loop_fn *fn, void *arg) { return push(&loop->deferred, fn, arg); }

static void on_timer(uv_timer_t *handle)
{
    struct loop_timer *timer = handle->data;

    timer->fn(timer->arg);
}

int loop_timer_new(struct loop *loop, uint64_t first_ms, uint64_t repeat_ms, loop_fn *fn, void *arg, struct loop_timer **ret)
{
    struct loop_timer *timer = calloc(1, sizeof *timer);

    if (!timer)
        return -ENOMEM;
    timer->fn = fn;
    timer->arg = arg;
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    loop_timer_again(timer, first_ms, repeat_ms);
    *ret = timer;
    return 0;
}

void loop_timer_again(struct loop_timer *timer, uint64_t first_ms, uint64_t repeat_ms)
{
    uv_update_time(timer->uv.loop);     /* first_ms counts from now, not from the beginning of a long turn */
    uv_timer_start(&timer->uv, on_timer, first_ms, repeat_ms);
}

void loop_timer_stop(struct loop_timer *timer) { uv_timer_stop(&timer->uv); }

static void free_handle(uv_handle_t *handle) { free(handle->data); }

struct loop_timer *loop_timer_free(struct loop_timer *timer)
{
    if (timer)
        uv_close((uv_handle_t *)&timer->uv, free_handle);
    return NULL;
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct loop_signal *signal = handle->data;

    signal->fn(number, signal->arg);
}

int loop_signal_new(struct loop *loop, int signal_number, loop_signal_fn *fn, void *arg, struct loop_signal **ret)
{
    struct loop_signal *signal = calloc(1, sizeof *signal);
    int r;

    if (!signal)
        return -ENOMEM;
    signal->fn = fn;
    signal->arg = arg;
    uv_signal_init(&loop->uv, &signal->uv);
    signal->uv.data = signal;
    r = uv_signal_start(&signal->uv, on_signal, signal_number);
    if (r < 0) {
        uv_close((uv_handle_t *)&signal->uv, free_handle);
        return r;
    }
    *ret = signal;
    return 0;
}

struct loop_signal *loop_signal_free(struct loop_signal *signal)
{
    if (signal)
        uv_close((uv_handle_t *)&signal->uv, free_handle);
    return NULL;
}

struct loop_lag loop_lag(struct loop *loop)
{
    struct loop_lag lag = loop->lag;

    loop->lag.worst_ns = 0;
    return lag;
}
