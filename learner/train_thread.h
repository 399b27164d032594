/* train_thread.h - the thread that carries out plans, one after the other; training itself uses `threads` more.
 *
 * Thread rule: the loop's thread calls; `trained` runs on it. */
#pragma once

#include "daemon/loop.h"
#include "learner/plan_run.h"

struct train_thread;
typedef void trained_fn(const Gantry__Plan *plan, const struct intake_version *version, int result, const char *text, void *arg);

/* The runner is taken over (its fields for settings are set; released with the thread). */
int train_thread_new(struct loop *loop, const struct plan_runner *runner, trained_fn *trained, void *arg,
                     struct train_thread **ret);
/* Stops at the next minibatch; the plan in progress is not committed. */
struct train_thread *train_thread_free(struct train_thread *thread);
DEFINE_FREEP(struct train_thread, train_thread_free)

/* Carry out this packed Plan (copied). -EBUSY: one is in progress. -EBADMSG: not a plan. */
int train_thread_run(struct train_thread *thread, const void *plan, size_t n);
/* For status: minibatches done and to do of the plan in progress; false: none is. */
bool train_thread_busy(struct train_thread *thread, long *ret_done, long *ret_total);
/* Monotone totals for the heartbeat: frames that went through an update, and time spent in plans. */
uint64_t train_thread_samples(const struct train_thread *thread);
uint64_t train_thread_ms(const struct train_thread *thread);
