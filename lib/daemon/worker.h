/* worker.h - a few threads and a queue of jobs: the compute, render and journal threads of a daemon.
 *
 *   worker_new("journal", 1, 64, &w) -> worker_submit(w, write_it, job)* -> worker_free
 *
 * Jobs start in the order submitted; with one thread they also end in it. A job reports back with loop_post and
 * never touches a socket. The queue is bounded: when it is full, the submitter is told, nothing is dropped.
 * Signals are blocked in these threads: they are the loop's.
 *
 * Thread rule: worker_submit and worker_pending from any thread; new and free from the owner's. */
#pragma once

#include "base/macro.h"

struct worker;
typedef void worker_fn(void *arg);

/* `name` shows in top and in cores (15 bytes of it). capacity: jobs that may wait. -ENOMEM, -EAGAIN (threads). */
int worker_new(const char *name, unsigned threads, unsigned capacity, struct worker **ret);

/* -ENOBUFS: `capacity` jobs are waiting. -ESHUTDOWN: worker_free has begun. */
int worker_submit(struct worker *worker, worker_fn *fn, void *arg);

unsigned worker_pending(struct worker *worker);         /* waiting + running */

/* Does what was submitted, then joins the threads. */
struct worker *worker_free(struct worker *worker);
DEFINE_FREEP(struct worker, worker_free)
