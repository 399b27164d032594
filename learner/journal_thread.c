#include "learner/journal_thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/worker.h"

struct written { uint64_t episode, token; int result; };

struct journal_thread {
    struct loop *loop;
    struct journal *journal;
    struct worker *worker;
    journal_appended_fn *appended;
    void *arg;
    struct written unsynced[JOURNAL_BATCH];     /* the journal thread's */
    int n_unsynced;
};

enum job_kind { JOB_SEGMENT, JOB_SEAL, JOB_APPEND };

struct job {
    struct journal_thread *thread;
    enum job_kind kind;
    uint32_t stage, iteration;
    uint64_t episode, token;
    const void *meta, *frames;
    size_t n_meta, n_frames;
};

struct report { struct journal_thread *thread; struct written written; };

/* On the loop's thread. */
static void deliver_report(void *arg)
{
    struct report *report = arg;
    struct journal_thread *thread = report->thread;

    thread->appended(report->written.episode, report->written.token, report->written.result, thread->arg);
    free(report);
}

static void tell(struct journal_thread *thread, const struct written *written)
{
    struct report *report = malloc(sizeof *report);

    if (report)
        *report = (struct report) {thread, *written};
    if (!report || loop_post(thread->loop, deliver_report, report) < 0) {
        free(report);           /* the worker hears nothing and delivers again: it will be a duplicate */
        log_error("out of memory: a journaled episode is not acknowledged", "episode=%" PRIu64, written->episode);
    }
}

/* All unsynced appends end with this result. */
static void settle(struct journal_thread *thread, int result)
{
    for (int i = 0; i < thread->n_unsynced; i++) {
        if (thread->unsynced[i].result == 0)
            thread->unsynced[i].result = result;
        tell(thread, &thread->unsynced[i]);
    }
    thread->n_unsynced = 0;
}

static void sync_now(struct journal_thread *thread)
{
    struct error error = {0};
    int r;

    if (!thread->n_unsynced)
        return;
    r = journal_sync(thread->journal, &error);
    if (r < 0)
        log_error("the journal cannot be synced; its episodes will be delivered again", "n=%d reason=%s", thread->n_unsynced,
                  LOG_Q(error_text(&error, r)));
    settle(thread, r);
}

static void append(struct journal_thread *thread, const struct job *job)
{
    uint8_t digest[SHA256_SIZE];
    struct error error = {0};
    int r = journal_append(thread->journal, job->episode, job->meta, job->n_meta, job->frames, job->n_frames, digest, &error);

    thread->unsynced[thread->n_unsynced++] = (struct written) {job->episode, job->token, 0};
    if (r == -EEXIST)           /* it is in the journal: as good as written, if it is the same; intake has checked that */
        r = 0;
    if (r < 0) {
        log_error("an episode cannot be journaled", "episode=%" PRIu64 " reason=%s", job->episode, LOG_Q(error_text(&error, r)));
        settle(thread, r);
    }
}

static void run_job(void *arg)
{
    struct job *job = arg;
    struct journal_thread *thread = job->thread;
    struct error error = {0};
    int r = 0;

    if (job->kind != JOB_APPEND)
        sync_now(thread);       /* what went before is of another segment */
    if (job->kind == JOB_SEGMENT)
        r = journal_segment(thread->journal, job->stage, job->iteration, &error);
    else if (job->kind == JOB_SEAL)
        r = journal_seal(thread->journal, job->stage, job->iteration, &error);
    else
        append(thread, job);
    if (r < 0 && r != -ENOENT)  /* sealing an iteration without episodes: nothing to seal */
        log_error(job->kind == JOB_SEAL ? "a segment cannot be sealed" : "a segment cannot be opened",
                  "stage=%u iteration=%u reason=%s", job->stage, job->iteration, LOG_Q(error_text(&error, r)));
    if (thread->n_unsynced == JOURNAL_BATCH || worker_pending(thread->worker) <= 1)
        sync_now(thread);       /* nobody is behind this job to do it */
    free(job);
}

static int submit(struct journal_thread *thread, const struct job *job)
{
    struct job *copy = malloc(sizeof *copy);
    int r;

    if (!copy)
        return -ENOMEM;
    *copy = *job;
    copy->thread = thread;
    r = worker_submit(thread->worker, run_job, copy);
    if (r < 0)
        free(copy);
    return r;
}

int journal_thread_segment(struct journal_thread *thread, uint32_t stage, uint32_t iteration)
{
    return submit(thread, &(struct job) {.kind = JOB_SEGMENT, .stage = stage, .iteration = iteration});
}

int journal_thread_seal(struct journal_thread *thread, uint32_t stage, uint32_t iteration)
{
    return submit(thread, &(struct job) {.kind = JOB_SEAL, .stage = stage, .iteration = iteration});
}

int journal_thread_append(struct journal_thread *thread, uint64_t episode, uint64_t token, const void *meta, size_t n_meta,
                          const void *frames, size_t n_frames)
{
    return submit(thread, &(struct job) {.kind = JOB_APPEND, .episode = episode, .token = token, .meta = meta, .n_meta = n_meta,
                                         .frames = frames, .n_frames = n_frames});
}

int journal_thread_new(struct loop *loop, struct journal *journal, journal_appended_fn *appended, void *arg,
                       struct journal_thread **ret)
{
    struct journal_thread *thread = calloc(1, sizeof *thread);
    int r;

    if (!thread)
        return -ENOMEM;
    *thread = (struct journal_thread) {.loop = loop, .journal = journal, .appended = appended, .arg = arg};
    r = worker_new("journal", 1, JOURNAL_QUEUE, &thread->worker);
    if (r < 0) {
        free(thread);
        return r;
    }
    *ret = thread;
    return 0;
}

struct journal_thread *journal_thread_free(struct journal_thread *thread)
{
    if (!thread)
        return NULL;
    worker_free(thread->worker);
    loop_turn(thread->loop, false);     /* reports that were posted refer to us */
    free(thread);
    return NULL;
}
