#include "train/reducer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct reducer {
    const struct buckets *buckets;
    const struct group *group;
    int own;
    float *out, *gathered;              /* gathered: [ranks][longest bucket] */
    pthread_t thread;
    int result;                         /* the thread's */
    pthread_mutex_t lock;               /* what follows */
    pthread_cond_t changed;
    int *here;                          /* [buckets] shards that have it whole */
    float *(*part)[SHARDS];             /* [buckets] where */
    bool quit;
};

static int reduce(struct reducer *d, const struct bucket *bucket, float *const parts[SHARDS])
{
    int64_t length = bucket->end - bucket->begin;
    float *list[SHARDS];
    int r;

    for (int i = 0; i < d->own; i++)
        list[i] = parts[i] + bucket->begin;
    shard_tree_sum(list, d->own, length);
    r = d->group->gather(d->group->arg, list[0], (size_t)length * sizeof(float), d->gathered);
    if (r < 0)
        return r;
    for (int i = 0; i < d->group->ranks; i++)
        list[i] = d->gathered + i * length;
    shard_tree_sum(list, d->group->ranks, length);
    memcpy(d->out + bucket->begin, d->gathered, (size_t)length * sizeof(float));
    return 0;
}

static void *reduce_all(void *arg)
{
    struct reducer *d = arg;

    for (int b = 0; b < d->buckets->n && d->result >= 0; b++) {
        bool whole;

        pthread_mutex_lock(&d->lock);
        while (d->here[b] < d->own && !d->quit)
            pthread_cond_wait(&d->changed, &d->lock);
        whole = d->here[b] == d->own && !d->quit;
        pthread_mutex_unlock(&d->lock);
        if (!whole)
            break;
        d->result = reduce(d, &d->buckets->list[b], d->part[b]);
    }
    return NULL;
}

static struct reducer *reducer_free(struct reducer *d)
{
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    free(d->gathered);
    free(d->here);
    free(d->part);
    free(d);
    return NULL;
}

int reducer_start(const struct buckets *buckets, const struct group *group, int own, float *out, struct reducer **ret)
{
    struct reducer *d = calloc(1, sizeof *d);
    int64_t longest = 0;

    if (!d)
        return -ENOMEM;
    for (int b = 0; b < buckets->n; b++)
        longest = MAX(longest, buckets->list[b].end - buckets->list[b].begin);
    d->buckets = buckets;
    d->group = group;
    d->own = own;
    d->out = out;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    d->here = calloc((size_t)buckets->n + 1, sizeof *d->here);
    d->part = calloc((size_t)buckets->n + 1, sizeof *d->part);
    d->gathered = malloc(((size_t)longest * (size_t)group->ranks + 1) * sizeof *d->gathered);
    if (!d->here || !d->part || !d->gathered) {
        reducer_free(d);
        return -ENOMEM;
    }
    if (pthread_create(&d->thread, NULL, reduce_all, d)) {
        reducer_free(d);
        return -EAGAIN;
    }
    *ret = d;
    return 0;
}

void reducer_whole(struct reducer *d, int bucket, int own, float *grad)
{
    pthread_mutex_lock(&d->lock);
    d->part[bucket][own] = grad;
    if (++d->here[bucket] == d->own)
        pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

int reducer_finish(struct reducer *d, int r)
{
    pthread_mutex_lock(&d->lock);
    d->quit = r < 0;
    pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    r = r < 0 ? r : d->result;
    reducer_free(d);
    return r;
}
