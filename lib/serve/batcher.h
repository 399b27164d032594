/* batcher.h - turns single requests into batches for a few compute threads.
 *
 * Requests wait in arrival order. Whenever a compute thread is idle it gets the oldest request's version and as many requests
 * of that version as wait, divided by the threads that are idle now, at most max_rows rows (one request of more travels alone): a
 * lone request never waits for company, and company forms by itself while the threads compute. What a row computes to does not
 * depend on its batch, so batching changes speed and nothing else. A job whose deadline passes while it waits is handed to done()
 * with DEADLINE: a server that falls behind computes what is still waited for.
 *
 *   batcher_new -> batcher_add* -> (threads: compute) -> done(jobs) on the loop -> batcher_free
 *
 * Thread rule: the loop's thread; `compute` runs on a compute thread, with a `lane` (0..threads-1) it has to itself. */
#pragma once

#include "daemon/loop.h"
#include "wire/server.h"

struct serve_job {
    struct serve_job *next;
    struct request *request;    /* taken */
    uint64_t version;
    void *model;                /* of that version; stays while the job is out */
    unsigned rows;              /* of the model's batch */
    uint64_t deadline_ms;       /* clock_mono_ms(): nobody waits for the answer after it; 0: somebody always does */
    /* compute fills these: */
    ProtobufCMessage *reply;    /* owned, by malloc; NULL: refused */
    Gantry__Status status;      /* why */
    char text[200];
    /* of a second scoring (server_shadow.c): the version that the request asked for, 0: none, and its answer, owned */
    uint64_t shadow_of;
    ProtobufCMessage *first;
};

struct batcher_options {
    unsigned threads, max_rows;
    /* Fill reply or status of each of the jobs, all of one version. */
    void (*compute)(void *state, unsigned lane, struct serve_job **jobs, unsigned n);
    void *state;
    /* Back on the loop: answer and free. */
    void (*done)(void *arg, struct serve_job *job);
    void *arg;
};

struct batcher;

/* Starts the threads. options are copied. -EINVAL: no thread, too many, or no rows; -ENOMEM, -EAGAIN: no thread to be had. */
int batcher_new(struct loop *loop, const struct batcher_options *options, struct batcher **ret);
/* Waits for the threads; jobs that still wait are handed to done() with SHUTTING_DOWN. */
struct batcher *batcher_free(struct batcher *batcher);
DEFINE_FREEP(struct batcher, batcher_free)

void batcher_add(struct batcher *batcher, struct serve_job *job);   /* takes the job */
unsigned batcher_in_flight(const struct batcher *batcher);          /* waiting and computing */

/* How long the batch that was begun first has been computed; 0: none is. */
uint64_t batcher_oldest_ms(const struct batcher *batcher);

struct batcher_totals { uint64_t jobs, rows, batches, busy_ns; };
/* Since the start; busy_ns: of all compute threads together. */
struct batcher_totals batcher_totals(const struct batcher *batcher);
