#include "nn/device/narrow.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "nn/device/blas_plan.h"
#include "nn/device/device.h"

enum { SLOTS = 512, MOST = 384, TRIALS = NARROW_WAYS * NARROW_EACH };

struct trial { void *from, *to; bool timed; };

struct choice {
    struct blas_key key;
    bool used, made;
    enum narrow_way way;
    int begun, ended;           /* trials; number i goes the way i % NARROW_WAYS */
    struct trial trial[TRIALS];
};

struct narrow {
    pthread_mutex_t lock;
    int (*library)(struct device_stream *s, const struct device_gemm *g);
    const struct device_kernels *k; /* of the device that events were made on */
    struct choice choice[SLOTS];    /* open addressing */
    int n;
};

struct narrow *narrow_new(int (*library)(struct device_stream *s, const struct device_gemm *g))
{
    struct narrow *narrow = calloc(1, sizeof(*narrow));

    if (!narrow)
        return NULL;
    pthread_mutex_init(&narrow->lock, NULL);
    narrow->library = library;
    return narrow;
}

static void trials_release(struct narrow *narrow, struct choice *c)
{
    for (int i = 0; i < TRIALS; i++) {
        if (c->trial[i].from)
            narrow->k->event_free(c->trial[i].from);
        if (c->trial[i].to)
            narrow->k->event_free(c->trial[i].to);
        c->trial[i] = (struct trial) {0};
    }
}

struct narrow *narrow_free(struct narrow *narrow)
{
    if (!narrow)
        return NULL;
    for (int i = 0; i < SLOTS; i++)
        trials_release(narrow, &narrow->choice[i]);
    pthread_mutex_destroy(&narrow->lock);
    free(narrow);
    return NULL;
}

/* NULL: there are as many shapes as are kept. */
static struct choice *choice_for(struct narrow *narrow, const struct device_gemm *g)
{
    struct blas_key key = blas_key_of(g, false);
    struct choice *c;

    for (c = &narrow->choice[blas_key_hash(&key) % SLOTS]; c->used;
         c = c + 1 < narrow->choice + SLOTS ? c + 1 : narrow->choice)
        if (!memcmp(&c->key, &key, sizeof(key)))
            return c;
    if (narrow->n == MOST)
        return NULL;
    narrow->n++;
    c->used = true;
    c->key = key;
    return c;
}

/* The fastest of each way decides: whatever else the device or the host did in between only adds. Waits for the trials. */
static void choose(struct narrow *narrow, struct choice *c)
{
    double least[NARROW_WAYS] = {INFINITY, INFINITY};

    for (int i = 0; i < TRIALS; i++) {
        double seconds;

        if (c->trial[i].timed && narrow->k->event_seconds(c->trial[i].from, c->trial[i].to, &seconds) == 0)
            least[i % NARROW_WAYS] = fmin(least[i % NARROW_WAYS], seconds);
    }
    c->way = least[NARROW_OWN] < least[NARROW_LIBRARY] ? NARROW_OWN : NARROW_LIBRARY;
    c->made = true;
    trials_release(narrow, c);
}

/* The way that this call goes, and the trial that it is, or NULL. A capture can neither time nor wait. */
static enum narrow_way way_of(struct narrow *narrow, struct device_stream *s, struct choice *c, struct trial **ret_trial)
{
    *ret_trial = NULL;
    if (!c || (s->capturing && !c->made))
        return NARROW_LIBRARY;
    if (!c->made && c->ended == TRIALS)
        choose(narrow, c);
    if (c->made)
        return c->way;
    if (c->begun == TRIALS) /* others are at the last of them */
        return NARROW_LIBRARY;
    *ret_trial = &c->trial[c->begun];
    return (enum narrow_way)(c->begun++ % NARROW_WAYS);
}

/* NULL: this is no trial. */
static void trial_begin(struct device_stream *s, struct trial *trial)
{
    if (trial)
        trial->timed = s->k->event_new(&trial->from) == 0 && s->k->event_new(&trial->to) == 0 &&
            s->k->event_mark(s->stream, trial->from) == 0;
}

int narrow_gemm(struct narrow *narrow, struct device_stream *s, const struct device_gemm *g)
{
    struct trial *trial;
    struct choice *c;
    enum narrow_way way;
    bool refused;
    int r;

    pthread_mutex_lock(&narrow->lock);
    narrow->k = s->k;
    c = choice_for(narrow, g);
    way = way_of(narrow, s, c, &trial);
    pthread_mutex_unlock(&narrow->lock);
    trial_begin(s, trial);
    r = way == NARROW_OWN ? s->k->gemm_narrow(s->stream, g) : narrow->library(s, g);
    refused = way == NARROW_LIBRARY && r == -ENOTSUP;
    if (refused)
        r = s->k->gemm_narrow(s->stream, g);
    if (!trial)
        return r;
    trial->timed = trial->timed && r >= 0 && !refused && s->k->event_mark(s->stream, trial->to) == 0;
    pthread_mutex_lock(&narrow->lock);
    c->ended++;
    pthread_mutex_unlock(&narrow->lock);
    return r;
}

struct narrow_counts narrow_counts(struct narrow *narrow)
{
    struct narrow_counts counts = {0};

    pthread_mutex_lock(&narrow->lock);
    for (int i = 0; i < SLOTS; i++) {
        const struct choice *c = &narrow->choice[i];

        counts.open += c->used && !c->made;
        counts.chosen[c->way] += c->made;
    }
    pthread_mutex_unlock(&narrow->lock);
    return counts;
}
