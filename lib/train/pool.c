#include "train/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t begin, done;
    uint64_t round;             /* number of pool_run calls; a worker joins each once */
    int busy;                   /* workers that have not finished this round */
    bool quit;
    pool_fn *fn;
    void *arg;
    int n;
    atomic_int next;
    int cpu;                    /* where the caller ran when it woke the others */
    int threads, started;       /* started: workers, i.e. threads-1 */
    struct worker { struct pool *pool; int index; pthread_t thread; } worker[];
};

static void work(struct pool *pool, int index)
{
    for (int i; (i = atomic_fetch_add(&pool->next, 1)) < pool->n;)
        pool->fn(pool->arg, i, index);
}

/* A thread may wake on its caller's core and be left there for a tenth of a second when strangers keep the other cores busy with
 * less urgent work: they count as occupied. Step aside once; after that we may run anywhere again. */
static void step_aside(int cpu)
{
    cpu_set_t all, others;

    if (sched_getcpu() != cpu || sched_getaffinity(0, sizeof all, &all) < 0)
        return;
    others = all;
    CPU_CLR((size_t)cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        (void)sched_setaffinity(0, sizeof all, &all);
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;
    uint64_t seen = 0;
    int cpu;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->quit)
            pthread_cond_wait(&pool->begin, &pool->lock);
        if (pool->quit)
            break;
        seen = pool->round;
        cpu = pool->cpu;
        pthread_mutex_unlock(&pool->lock);
        step_aside(cpu);
        work(pool, worker->index);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int pool_new(int threads, struct pool **ret)
{
    _cleanup_(pool_freep) struct pool *pool = NULL;

    if (threads < 1 || threads > 256)
        return -EINVAL;
    pool = calloc(1, sizeof *pool + (size_t)(threads - 1) * sizeof *pool->worker);
    if (!pool)
        return -ENOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = threads;
    for (int i = 0; i < threads - 1; i++) {
        int r;

        pool->worker[i] = (struct worker) {.pool = pool, .index = i + 1};
        r = pthread_create(&pool->worker[i].thread, NULL, worker_main, &pool->worker[i]);
        if (r)
            return -r;
        pool->started++;
    }
    *ret = TAKE_PTR(pool);
    return 0;
}

struct pool *pool_free(struct pool *pool)
{
    if (!pool)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->worker[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return NULL;
}

int pool_threads(const struct pool *pool)
{
    return pool->threads;
}

void pool_run(struct pool *pool, int n, pool_fn *fn, void *arg)
{
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->arg = arg;
    pool->n = n;
    atomic_store(&pool->next, 0);
    pool->busy = pool->started;
    pool->cpu = sched_getcpu();
    pool->round++;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    work(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
