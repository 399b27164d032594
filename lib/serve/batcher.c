#include "serve/batcher.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/worker.h"

enum { MAX_JOBS = 256, MAX_LANES = 64 };

struct batch {
    struct batcher *batcher;
    unsigned lane, n;
    uint64_t begun_ms, busy_ns;
    struct serve_job *jobs[MAX_JOBS];
};

struct batcher {
    struct loop *loop;
    struct worker *worker;
    struct batcher_options options;
    struct serve_job *first, **last;        /* waiting, in arrival order */
    unsigned waiting, waiting_rows, computing;      /* jobs, rows, jobs */
    struct batch lanes[MAX_LANES];
    bool busy[MAX_LANES];
    bool deferred, closing;
    struct batcher_totals totals;
};

static void dispatch(struct batcher *b);

static void on_batch_done(void *arg)
{
    struct batch *batch = arg;
    struct batcher *b = batch->batcher;

    b->busy[batch->lane] = false;
    b->computing -= batch->n;
    b->totals.batches++;
    b->totals.busy_ns += batch->busy_ns;
    for (unsigned i = 0; i < batch->n; i++) {
        b->totals.jobs++;
        b->totals.rows += batch->jobs[i]->rows;
        b->options.done(b->options.arg, batch->jobs[i]);
    }
    if (!b->closing)
        dispatch(b);
}

static void compute(void *arg)
{
    struct batch *batch = arg;
    uint64_t begun = clock_mono_ns();

    batch->batcher->options.compute(batch->batcher->options.state, batch->lane, batch->jobs, batch->n);
    batch->busy_ns = clock_mono_ns() - begun;
    (void)loop_post(batch->batcher->loop, on_batch_done, batch);
}

/* Move up to `rows` rows of the oldest version into the batch; the others keep their order. */
static void fill(struct batcher *b, struct batch *batch, unsigned rows)
{
    uint64_t version = b->first->version;
    struct serve_job **at = &b->first;
    unsigned taken = 0;

    batch->n = 0;
    while (*at && batch->n < MAX_JOBS) {
        struct serve_job *job = *at;

        if (job->version != version) {
            at = &job->next;
            continue;
        }
        if (batch->n > 0 && taken + job->rows > rows)
            break;                      /* not a smaller one behind it: nobody is overtaken */
        *at = job->next;
        job->next = NULL;
        batch->jobs[batch->n++] = job;
        taken += job->rows;
        b->waiting--;
    }
    b->waiting_rows -= taken;
    for (b->last = &b->first; *b->last; b->last = &(*b->last)->next)
        ;
}

static unsigned idle_lanes(const struct batcher *b)
{
    unsigned n = 0;

    for (unsigned i = 0; i < b->options.threads; i++)
        n += !b->busy[i];
    return n;
}

/* Take out those that nobody waits for any more; done() may add others meanwhile. */
static void drop_late(struct batcher *b)
{
    uint64_t now_ms = clock_mono_ms();
    struct serve_job **at = &b->first, *job;

    while ((job = *at)) {
        if (!job->deadline_ms || now_ms < job->deadline_ms) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        if (!*at)
            b->last = at;
        b->waiting--;
        b->waiting_rows -= job->rows;
        job->status = GANTRY__STATUS__STATUS_DEADLINE;
        snprintf(job->text, sizeof job->text, "it waited here until its deadline: the server has more to do than it can");
        b->options.done(b->options.arg, job);
    }
}

static void dispatch(struct batcher *b)
{
    if (b->first)
        drop_late(b);
    for (unsigned lane = 0; lane < b->options.threads && b->first; lane++) {
        struct batch *batch = &b->lanes[lane];
        unsigned idle = idle_lanes(b), share;

        if (b->busy[lane])
            continue;
        share = (b->waiting_rows + idle - 1) / idle;
        fill(b, batch, MIN(share, b->options.max_rows));
        batch->batcher = b;
        batch->lane = lane;
        batch->begun_ms = clock_mono_ms();
        b->busy[lane] = true;
        b->computing += batch->n;
        if (worker_submit(b->worker, compute, batch) < 0)       /* cannot be: one batch a lane, capacity = lanes */
            compute(batch);
    }
}

static void on_turn(void *arg)
{
    struct batcher *b = arg;

    b->deferred = false;
    if (!b->closing)
        dispatch(b);
}

void batcher_add(struct batcher *b, struct serve_job *job)
{
    job->next = NULL;
    *b->last = job;
    b->last = &job->next;
    b->waiting++;
    b->waiting_rows += job->rows;
    /* dispatch after this turn's messages: those that arrived together travel together */
    if (!b->deferred && loop_defer(b->loop, on_turn, b) == 0)
        b->deferred = true;
}

unsigned batcher_in_flight(const struct batcher *b)
{
    return b->waiting + b->computing;
}

uint64_t batcher_oldest_ms(const struct batcher *b)
{
    uint64_t now_ms = clock_mono_ms(), oldest_ms = 0;

    for (unsigned lane = 0; lane < b->options.threads; lane++)
        if (b->busy[lane])
            oldest_ms = MAX(oldest_ms, now_ms - b->lanes[lane].begun_ms);
    return oldest_ms;
}

struct batcher_totals batcher_totals(const struct batcher *b)
{
    return b->totals;
}

int batcher_new(struct loop *loop, const struct batcher_options *options, struct batcher **ret)
{
    _cleanup_(batcher_freep) struct batcher *b = calloc(1, sizeof *b);
    int r;

    if (!b)
        return -ENOMEM;
    if (options->threads < 1 || options->threads > MAX_LANES || options->max_rows < 1)
        return -EINVAL;
    b->loop = loop;
    b->options = *options;
    b->last = &b->first;
    r = worker_new("compute", options->threads, options->threads, &b->worker);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(b);
    return 0;
}

struct batcher *batcher_free(struct batcher *b)
{
    if (!b)
        return NULL;
    b->closing = true;
    b->worker = worker_free(b->worker);
    while (b->loop && (b->computing || b->deferred))    /* what the threads posted back */
        loop_turn(b->loop, false);
    while (b->first) {
        struct serve_job *job = b->first;

        b->first = job->next;
        job->status = GANTRY__STATUS__STATUS_SHUTTING_DOWN;
        snprintf(job->text, sizeof job->text, "the server is leaving; ask another");
        b->options.done(b->options.arg, job);
    }
    free(b);
    return NULL;
}
