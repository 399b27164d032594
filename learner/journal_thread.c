#include "learner/journal_thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/worker.h"

enum { UNSEALED_MAX = 64 };

struct written { uint64_t episode, token; int result; };
struct segment_id { uint32_t stage, iteration; };

struct journal_thread {
    struct loop *loop;
    struct journal *journal;
    struct worker *worker;
    journal_appended_fn *appended;
    void *arg;
    struct written unsynced[JOURNAL_BATCH];     /* the journal thread's */
    int n_unsynced;
    struct segment_id current;                  /* where appends go */
    bool has_current;
    struct segment_id unsealed[UNSEALED_MAX];   /* seals that failed */
    int n_unsealed;
    atomic_bool full;
};

enum job_kind { JOB_SEGMENT, JOB_SEAL, JOB_APPEND };

struct job {
    struct journal_thread *thread;
    enum job_kind kind;
    struct segment_id segment;
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
        thread->unsynced[i].result = result;
        tell(thread, &thread->unsynced[i]);
    }
    thread->n_unsynced = 0;
}

/* What the disk said last; the first time it is full is said, not each. */
static void note_result(struct journal_thread *thread, int r)
{
    bool full = error_is_no_space(r);

    if ((r == 0 || full) && atomic_exchange(&thread->full, full) != full)
        full ? log_error("no space left for the journal: deliveries wait until there is room", "bytes=%" PRIu64 " why=%s",
                         journal_bytes(thread->journal), LOG_Q(strerror(-r)))
             : log_info("there is room for the journal again", "bytes=%" PRIu64, journal_bytes(thread->journal));
}

static void sync_now(struct journal_thread *thread)
{
    struct error error = {0};
    int r;

    if (!thread->n_unsynced)
        return;
    r = journal_sync(thread->journal, &error);
    note_result(thread, r);
    if (r < 0 && !error_is_no_space(r))
        log_error("the journal cannot be synced; its episodes will be delivered again", "n=%d reason=%s", thread->n_unsynced,
                  LOG_Q(error_text(&error, r)));
    settle(thread, r);
}

/* Appends go there from now on; what went before is synced first. */
static int open_segment(struct journal_thread *thread, struct segment_id id, struct error *error)
{
    int r;

    sync_now(thread);
    r = journal_segment(thread->journal, id.stage, id.iteration, error);
    note_result(thread, r);
    thread->has_current = r == 0;
    thread->current = id;
    return r;
}

static bool is_current(const struct journal_thread *thread, struct segment_id id)
{
    return thread->has_current && thread->current.stage == id.stage && thread->current.iteration == id.iteration;
}

static void append(struct journal_thread *thread, const struct job *job)
{
    uint8_t digest[SHA256_SIZE];
    struct error error = {0};
    int r = is_current(thread, job->segment) ? 0 : open_segment(thread, job->segment, &error);

    if (r == 0)
        r = journal_append(thread->journal, job->episode, job->meta, job->n_meta, job->frames, job->n_frames, digest, &error);
    thread->unsynced[thread->n_unsynced++] = (struct written) {job->episode, job->token, 0};
    if (r == -EEXIST)           /* it is in the journal: as good as written, if it is the same; intake has checked that */
        r = 0;
    if (r < 0) {
        note_result(thread, r);
        if (!error_is_no_space(r))
            log_error("an episode cannot be journaled", "episode=%" PRIu64 " reason=%s", job->episode,
                      LOG_Q(error_text(&error, r)));
        settle(thread, r);
    }
}

static void seal(struct journal_thread *thread, struct segment_id id)
{
    struct error error = {0};
    int r;

    sync_now(thread);
    r = journal_seal(thread->journal, id.stage, id.iteration, &error);
    thread->has_current = false;
    if (r == 0 || r == -ENOENT)     /* an iteration without episodes: nothing to seal */
        return;
    note_result(thread, r);
    if (!error_is_no_space(r))
        log_error("a segment cannot be sealed", "stage=%u iteration=%u reason=%s", id.stage, id.iteration,
                  LOG_Q(error_text(&error, r)));
    if (thread->n_unsealed < UNSEALED_MAX)
        thread->unsealed[thread->n_unsealed++] = id;
}

static void seal_again(struct journal_thread *thread)
{
    int n = thread->n_unsealed;

    thread->n_unsealed = 0;
    for (int i = 0; i < n; i++)
        seal(thread, thread->unsealed[i]);
}

static void run_job(void *arg)
{
    struct job *job = arg;
    struct journal_thread *thread = job->thread;
    struct error error = {0};
    int r = 0;

    switch (job->kind) {
    case JOB_SEGMENT: r = open_segment(thread, job->segment, &error); break;
    case JOB_SEAL: seal(thread, job->segment); break;
    case JOB_APPEND: append(thread, job); break;
    }
    if (r < 0 && !error_is_no_space(r))
        log_error("a segment cannot be opened", "stage=%u iteration=%u reason=%s", job->segment.stage, job->segment.iteration,
                  LOG_Q(error_text(&error, r)));
    if (thread->n_unsynced == JOURNAL_BATCH || worker_pending(thread->worker) <= 1) {
        bool written = thread->n_unsynced > 0;

        sync_now(thread);       /* nobody is behind this job to do it */
        if (written && !atomic_load(&thread->full))
            seal_again(thread);
    }
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
    return submit(thread, &(struct job) {.kind = JOB_SEGMENT, .segment = {stage, iteration}});
}

int journal_thread_seal(struct journal_thread *thread, uint32_t stage, uint32_t iteration)
{
    return submit(thread, &(struct job) {.kind = JOB_SEAL, .segment = {stage, iteration}});
}

int journal_thread_append(struct journal_thread *thread, uint32_t stage, uint32_t iteration, uint64_t episode, uint64_t token,
                          const void *meta, size_t n_meta, const void *frames, size_t n_frames)
{
    return submit(thread, &(struct job) {.kind = JOB_APPEND, .segment = {stage, iteration}, .episode = episode, .token = token,
                                         .meta = meta, .n_meta = n_meta, .frames = frames, .n_frames = n_frames});
}

bool journal_thread_full(const struct journal_thread *thread)
{
    return atomic_load(&thread->full);
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
