/* loop.h - the one event loop of a daemon.
 *
 *   loop_new -> (timers, sockets, loop_post from other threads)* -> loop_run ... loop_stop -> loop_free
 *
 * Sockets, timers and state machines run on the loop's thread and never compute or block; compute, slot and
 * journal threads never touch a socket. They meet in loop_post: it queues a function and wakes the loop, which
 * runs it in the order posted (posts of one thread keep their order; there is no order between threads).
 *
 * A turn is the time between waking up and going to sleep again; the longest one is how late a message may be
 * served. loop_lag tells it, for the metrics.
 *
 * Thread rule: everything but loop_post is for the loop's thread. Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "base/macro.h"

struct loop;
struct loop_timer;
struct loop_signal;
typedef void loop_fn(void *arg);
typedef void loop_signal_fn(int signal_number, void *arg);

/* -ENOMEM, -EMFILE. */
int loop_new(struct loop **ret);

/* Runs what was still posted, closes every handle that is left and frees. No other thread may post any more.
 * Aborts when libuv says that a handle survived: a leak is a programming error. */
struct loop *loop_free(struct loop *loop);
DEFINE_FREEP(struct loop, loop_free)

uv_loop_t *loop_uv(struct loop *loop);      /* for lib/wire and other handles; borrowed */
uint64_t loop_now_ms(struct loop *loop);    /* monotonic (clock.h), taken when the turn began */

void loop_run(struct loop *loop);           /* until loop_stop */
void loop_stop(struct loop *loop);          /* after the current turn; also before loop_run */
/* One turn; waits for something to happen if `wait`. For tests and start-up code. */
void loop_turn(struct loop *loop, bool wait);

/* From any thread: fn(arg) runs on the loop's thread. -ENOMEM: it will not; -ESHUTDOWN: the loop is being freed. */
int loop_post(struct loop *loop, loop_fn *fn, void *arg);

/* fn(arg) at the end of this turn, just before the loop sleeps: when all messages that have come are handled. Costs nothing,
 * where a post to oneself is a system call and one more turn. It must not use sockets (wire/zsock.h asks them before).
 * -ENOMEM. */
int loop_defer(struct loop *loop, loop_fn *fn, void *arg);

/* fn(arg) after first_ms, then every repeat_ms (0: once). The timer lives until loop_timer_free (also a one-shot). */
int loop_timer_new(struct loop *loop, uint64_t first_ms, uint64_t repeat_ms, loop_fn *fn, void *arg, struct loop_timer **ret);
void loop_timer_again(struct loop_timer *timer, uint64_t first_ms, uint64_t repeat_ms);    /* re-arm with new times */
void loop_timer_stop(struct loop_timer *timer);
struct loop_timer *loop_timer_free(struct loop_timer *timer);       /* may be called inside its own fn */
DEFINE_FREEP(struct loop_timer, loop_timer_free)

/* fn(signal, arg) on the loop's thread whenever the signal arrives. */
int loop_signal_new(struct loop *loop, int signal_number, loop_signal_fn *fn, void *arg, struct loop_signal **ret);
struct loop_signal *loop_signal_free(struct loop_signal *signal);
DEFINE_FREEP(struct loop_signal, loop_signal_free)

struct loop_lag {
    uint64_t turns;         /* since the start */
    uint64_t busy_ns;       /* sum over all turns */
    uint64_t worst_ns;      /* longest turn since the last loop_lag */
};
struct loop_lag loop_lag(struct loop *loop);        /* so far; worst_ns begins anew with each call */
