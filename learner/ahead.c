#include "learner/ahead.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/worker.h"
#include "learner/plan_data.h"
#include "train/reference.h"

enum { PREPARED = 4, QUEUE = 1024, CHUNK = 8, PATIENCE_S = 2, NICE = 10 };

struct item {                       /* an episode; a holder is the list, or the thread that works on it */
    struct item *next;
    atomic_int holders;
    atomic_bool dropped;            /* off the list: nobody wants it any more */
    atomic_bool known;              /* numbers are there to stay */
    struct ahead *ahead;
    struct reference *reference;
    enum kl_mode kl;
    double temperature;
    uint64_t episode;
    struct dataset *data; struct step_ref *steps; int n;        /* from prepared to computed */
    size_t floats;                  /* in numbers */
    float *numbers;
};

struct ahead {
    struct journal *journal;
    int threads;
    bool modest;                    /* gives way to others */
    struct worker *preparer, *computer;
    struct shards *shards;          /* the computer's */
    sem_t room;                     /* for prepared episodes */
    sem_t passed;                   /* the last job of a thread has been done */
    pthread_mutex_t lock;           /* of what follows; the computer never takes it */
    struct item *items;
    struct reference *reference;    /* NULL: nothing can be asked yet */
    uint32_t stage;
    enum kl_mode kl;
    double temperature;
    atomic_uint_fast64_t taken;
};

/* ---- items ----------------------------------------------------------------------------------------------- */

static void release(struct item *item)
{
    if (atomic_fetch_sub(&item->holders, 1) != 1)
        return;
    reference_drop(item->reference);
    dataset_free(item->data);
    free(item->steps);
    free(item->numbers);
    free(item);
}

/* Take the items up to `last` off the list; under the lock. */
static void drop_until(struct ahead *a, uint64_t last)
{
    for (struct item **at = &a->items; *at;) {
        struct item *item = *at;

        if (item->episode > last) {
            at = &item->next;
            continue;
        }
        *at = item->next;
        atomic_store(&item->dropped, true);
        release(item);
    }
}

/* ---- the threads ----------------------------------------------------------------------------------------- */

/* Behind players and training, but with a share: a killed process is not gone, and its successor not started, before each of its
 * threads had a core, and the last one hands back all the memory. With SCHED_IDLE that was 66 s on a busy machine, with a nice
 * value of 19 it was 11 s. */
static void begin(struct ahead *a)
{
    if (a->modest)
        (void)!nice(NICE);      /* on Linux: of this thread, and of those it starts; going down is never refused */
    if (shards_new(1, a->threads, NULL, &a->shards) < 0)
        log_warn("no memory to work ahead", "threads=%d", a->threads);
}

/* A few decisions at a time, so that what is not wanted any more ends soon. */
static bool ask(const struct ahead *a, const struct item *item)
{
    int at_once = CHUNK * a->threads;
    size_t floats = item->n ? item->floats / (size_t)item->n : 0;

    for (int i = 0; i < item->n; i += at_once)
        if (atomic_load(&item->dropped) ||
            reference_pass(item->reference->model, false, a->shards, item->data, item->steps + i, MIN(at_once, item->n - i),
                           item->kl, item->temperature, item->numbers + (size_t)i * floats) < 0)
            return false;
    return true;
}

static void compute(void *arg)
{
    struct item *item = arg;
    struct ahead *a = item->ahead;

    if (!a->shards)
        begin(a);
    if (a->shards && ask(a, item))
        atomic_store(&item->known, true);
    item->data = dataset_free(item->data);
    sem_post(&a->room);
    release(item);
}

static int read_episode(struct item *item, struct error *error)
{
    int r = dataset_new(item->reference->model, &item->data);

    if (r >= 0)
        r = plan_data_add(item->ahead->journal, item->episode, item->data, error);
    if (r >= 0)
        r = dataset_decisions(item->data, &item->steps, &item->n);
    if (r < 0)
        return r;
    item->floats = (size_t)item->n * reference_floats(item->data, item->kl);
    item->numbers = malloc(MAX(item->floats, (size_t)1) * sizeof *item->numbers);
    return item->numbers ? 0 : -ENOMEM;
}

static void prepare(void *arg)
{
    struct item *item = arg;
    struct ahead *a = item->ahead;
    struct error error = {0};
    int r = -ECANCELED;

    if (atomic_load(&item->dropped)) {
        release(item);
        return;
    }
    while (sem_wait(&a->room) < 0)
        ;
    if (!atomic_load(&item->dropped))
        r = read_episode(item, &error);
    if (r >= 0)
        r = worker_submit(a->computer, compute, item);
    if (r >= 0)
        return;
    if (r != -ECANCELED)        /* the plan will meet the same, and say so */
        log_debug("an episode cannot be asked about ahead", "episode=%" PRIu64 " reason=%s", item->episode,
                  LOG_Q(error_text(&error, r)));
    sem_post(&a->room);
    release(item);
}

/* ---- from outside ---------------------------------------------------------------------------------------- */

static struct item *add_item(struct ahead *a, uint64_t episode)
{
    struct item *item = calloc(1, sizeof *item);

    if (!item)
        return NULL;
    *item = (struct item) {.next = a->items, .ahead = a, .reference = reference_hold(a->reference), .kl = a->kl,
                           .temperature = a->temperature, .episode = episode};
    atomic_init(&item->holders, 2);
    a->items = item;
    return item;
}

void ahead_add(struct ahead *a, uint32_t stage, uint64_t episode)
{
    struct item *item = NULL;

    pthread_mutex_lock(&a->lock);
    if (a->reference && a->stage == stage)
        item = add_item(a, episode);
    pthread_mutex_unlock(&a->lock);
    if (item && worker_submit(a->preparer, prepare, item) < 0)
        release(item);          /* never known; the list's share goes with its plan */
}

void ahead_offer(struct ahead *a, uint32_t stage, struct reference *reference, const struct rl_config *config)
{
    pthread_mutex_lock(&a->lock);
    if (a->reference != reference || a->stage != stage || a->kl != config->kl || a->temperature != config->temperature)
        drop_until(a, UINT64_MAX);
    reference_drop(a->reference);
    a->reference = config->kl == KL_NONE ? NULL : reference_hold(reference);
    a->stage = stage;
    a->kl = config->kl;
    a->temperature = config->temperature;
    pthread_mutex_unlock(&a->lock);
}

bool ahead_take(void *arg, uint64_t episode, size_t floats, float *ret)
{
    struct ahead *a = arg;
    struct item **at, *item;
    bool known;

    pthread_mutex_lock(&a->lock);
    for (at = &a->items; *at && (*at)->episode != episode; at = &(*at)->next)
        ;
    item = *at;
    if (item)
        *at = item->next;
    pthread_mutex_unlock(&a->lock);
    if (!item)
        return false;
    atomic_store(&item->dropped, true);
    known = atomic_load(&item->known) && item->floats == floats;
    if (known)
        memcpy(ret, item->numbers, floats * sizeof *ret);
    atomic_fetch_add(&a->taken, known);
    release(item);
    return known;
}

void ahead_forget(struct ahead *a, uint64_t last)
{
    pthread_mutex_lock(&a->lock);
    drop_until(a, last);
    pthread_mutex_unlock(&a->lock);
}

uint64_t ahead_taken(const struct ahead *a)
{
    return atomic_load(&a->taken);
}

static void pass_by(void *arg)
{
    sem_post(arg);
}

void ahead_wait(struct ahead *a)
{
    struct worker *in_turn[] = {a->preparer, a->computer};

    for (size_t i = 0; i < ARRAY_SIZE(in_turn); i++)
        if (worker_submit(in_turn[i], pass_by, &a->passed) >= 0)
            while (sem_wait(&a->passed) < 0)
                ;
}

int ahead_new(struct journal *journal, int threads, bool modest, struct ahead **ret)
{
    _cleanup_(ahead_freep) struct ahead *a = calloc(1, sizeof *a);
    int r;

    if (!a)
        return -ENOMEM;
    a->journal = journal;
    a->threads = threads;
    a->modest = modest;
    pthread_mutex_init(&a->lock, NULL);
    sem_init(&a->room, 0, PREPARED);
    sem_init(&a->passed, 0, 0);
    r = worker_new("prepare", 1, QUEUE, &a->preparer);
    if (r >= 0)
        r = worker_new("ahead", 1, PREPARED + 1, &a->computer);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(a);
    return 0;
}

/* Everything is dropped: what is in hand ends with its chunk. But a thread that gives way may not get a core soon. */
static bool has_ended(struct ahead *a)
{
    struct timespec until;
    int r;

    if (!a->computer || worker_submit(a->computer, pass_by, &a->passed) < 0)
        return true;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_S;
    do
        r = sem_clockwait(&a->passed, CLOCK_MONOTONIC, &until);
    while (r < 0 && errno == EINTR);
    return r == 0;
}

struct ahead *ahead_free(struct ahead *a)
{
    if (!a)
        return NULL;
    ahead_forget(a, UINT64_MAX);
    sem_post(&a->room);         /* whoever waits for it sees that it is over */
    worker_free(a->preparer);
    if (a->modest && !has_ended(a)) {
        log_info("a thread that works ahead gets no core; it ends with the process", "seconds=%d", PATIENCE_S);
        return NULL;
    }
    worker_free(a->computer);
    shards_free(a->shards);
    reference_drop(a->reference);
    pthread_mutex_destroy(&a->lock);
    sem_destroy(&a->room);
    sem_destroy(&a->passed);
    free(a);
    return NULL;
}
