#include "daemon/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

struct job {
    worker_fn *fn;
    void *arg;
};

struct worker {
    pthread_mutex_t lock;
    pthread_cond_t work;        /* a job came, or closing */
    bool closing;
    unsigned capacity, head, waiting, running;
    struct job *ring;           /* capacity entries from head */
    char name[16];
    unsigned n_threads;
    pthread_t threads[];
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;

    pthread_setname_np(pthread_self(), w->name);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct job job;

        while (w->waiting == 0 && !w->closing)
            pthread_cond_wait(&w->work, &w->lock);
        if (w->waiting == 0)
            break;
        job = w->ring[w->head];
        w->head = (w->head + 1) % w->capacity;
        w->waiting--;
        w->running++;
        pthread_mutex_unlock(&w->lock);
        job.fn(job.arg);
        pthread_mutex_lock(&w->lock);
        w->running--;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int worker_new(const char *name, unsigned threads, unsigned capacity, struct worker **ret)
{
    _cleanup_(worker_freep) struct worker *w = calloc(1, sizeof *w + threads * sizeof w->threads[0]);
    sigset_t all, before;
    int r = 0;

    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    snprintf(w->name, sizeof w->name, "%s", name);
    w->capacity = capacity;
    w->ring = calloc(capacity, sizeof *w->ring);
    if (!w->ring)
        return -ENOMEM;
    sigfillset(&all);       /* threads inherit the mask: signals stay with the loop */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (w->n_threads < threads && r == 0) {
        r = -pthread_create(&w->threads[w->n_threads], NULL, worker_main, w);
        if (r == 0)
            w->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(w);
    return 0;
}

int worker_submit(struct worker *w, worker_fn *fn, void *arg)
{
    int r = 0;

    pthread_mutex_lock(&w->lock);
    if (w->closing) {
        r = -ESHUTDOWN;
    } else if (w->waiting == w->capacity) {
        r = -ENOBUFS;
    } else {
        w->ring[(w->head + w->waiting++) % w->capacity] = (struct job) {fn, arg};
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

unsigned worker_pending(struct worker *w)
{
    unsigned n;

    pthread_mutex_lock(&w->lock);
    n = w->waiting + w->running;
    pthread_mutex_unlock(&w->lock);
    return n;
}

struct worker *worker_free(struct worker *w)
{
    if (!w)
        return NULL;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->lock);
    free(w->ring);
    free(w);
    return NULL;
}
