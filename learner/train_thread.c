#include "learner/train_thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/worker.h"
#include "nn/device/device.h"

struct train_thread {
    struct loop *loop;
    struct worker *worker;
    struct plan_runner runner;
    trained_fn *trained;
    void *arg;
    Gantry__Plan *plan;         /* in progress; the train thread reads it, the loop's thread owns it */
    struct intake_version version;      /* results: written before the post, read after it */
    int result;
    struct error error;
    uint64_t took_ms, total_ms;
    uint64_t ahead;             /* episodes whose reference numbers were there already */
};

/* On the loop's thread. */
static void finished(void *arg)
{
    struct train_thread *thread = arg;
    Gantry__Plan *plan = TAKE_PTR(thread->plan);

    thread->total_ms += thread->took_ms;
    if (thread->result == 0)
        log_info("trained",
                 "objective=%s stage=%" PRIu64 " iteration=%" PRIu64 " version=%" PRIu64 " ms=%" PRIu64 " ahead=%" PRIu64,
                 plan->objective, plan->stage, plan->iteration, plan->version, thread->took_ms, thread->ahead);
    else if (thread->result != -ECANCELED)
        log_error("a plan cannot be carried out",
                  "objective=%s stage=%" PRIu64 " iteration=%" PRIu64 " version=%" PRIu64 " reason=%s", plan->objective,
                  plan->stage, plan->iteration, plan->version, LOG_Q(error_text(&thread->error, thread->result)));
    thread->trained(plan, &thread->version, thread->result, error_text(&thread->error, thread->result), thread->arg);
    gantry__plan__free_unpacked(plan, NULL);
}

static void run_job(void *arg)
{
    struct train_thread *thread = arg;
    uint64_t start = clock_mono_ms(), taken = thread->runner.ahead ? ahead_taken(thread->runner.ahead) : 0;

    thread->error = (struct error) {0};
    thread->result = plan_run(&thread->runner, thread->plan, &thread->version, &thread->error);
    if (thread->result < 0 && thread->result != -ECANCELED)
        (void)device_ask(device_process());
    thread->took_ms = clock_mono_ms() - start;
    thread->ahead = thread->runner.ahead ? ahead_taken(thread->runner.ahead) - taken : 0;
    if (loop_post(thread->loop, finished, thread) < 0)
        log_error("the loop does not hear that training has ended", "version=%" PRIu64, thread->plan->version);
}

int train_thread_run(struct train_thread *thread, const void *plan, size_t n)
{
    int r;

    if (thread->plan)
        return -EBUSY;
    thread->plan = gantry__plan__unpack(NULL, n, plan);
    if (!thread->plan)
        return -EBADMSG;
    atomic_store(&thread->runner.done, 0);
    atomic_store(&thread->runner.total, 0);
    log_info("training",
             "objective=%s stage=%" PRIu64 " iteration=%" PRIu64 " parent=%" PRIu64 " version=%" PRIu64 " episodes=%zu",
             thread->plan->objective, thread->plan->stage, thread->plan->iteration, thread->plan->parent, thread->plan->version,
             thread->plan->n_episodes);
    r = worker_submit(thread->worker, run_job, thread);
    if (r < 0) {
        gantry__plan__free_unpacked(thread->plan, NULL);
        thread->plan = NULL;
    }
    return r;
}

bool train_thread_busy(struct train_thread *thread, long *ret_done, long *ret_total)
{
    *ret_done = atomic_load(&thread->runner.done);
    *ret_total = atomic_load(&thread->runner.total);
    return thread->plan != NULL;
}

uint64_t train_thread_samples(const struct train_thread *thread)
{
    return (uint64_t)atomic_load(&((struct train_thread *)thread)->runner.samples);
}

uint64_t train_thread_ms(const struct train_thread *thread)
{
    return thread->total_ms;
}

int train_thread_new(struct loop *loop, const struct plan_runner *runner, trained_fn *trained, void *arg,
                     struct train_thread **ret)
{
    struct train_thread *thread = calloc(1, sizeof *thread);
    int r;

    if (!thread)
        return -ENOMEM;
    thread->loop = loop;
    memcpy(&thread->runner, runner, sizeof thread->runner);
    thread->trained = trained;
    thread->arg = arg;
    r = worker_new("train", 1, 2, &thread->worker);
    if (r < 0) {
        free(thread);
        return r;
    }
    *ret = thread;
    return 0;
}

struct train_thread *train_thread_free(struct train_thread *thread)
{
    if (!thread)
        return NULL;
    atomic_store(&thread->runner.stop, true);
    worker_free(thread->worker);
    loop_turn(thread->loop, false);     /* a result that was posted meanwhile refers to us */
    if (thread->plan)
        gantry__plan__free_unpacked(thread->plan, NULL);
    plan_runner_release(&thread->runner);
    free(thread);
    return NULL;
}
