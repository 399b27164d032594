/* buckets.h - a gradient in pieces that go to the other ranks one by one, while its backward still runs.
 *
 * Neighbouring ranges of the arena are cut into buckets of at most `most` floats, numbered from the arena's end to its beginning:
 * a backward goes that way, and every rank numbers alike. A bucket is whole when all gradients in it are (nn/tape_watch.h), and
 * is told of then, in the order of numbers. What is exchanged, and in which order, is the same with and without a backward under
 * way.
 *
 *   buckets_make -> bucket_watch_init -> tape->watch = watch.tape -> the pass, perhaps twice (bucket_watch_again in between) ->
 *   bucket_watch_rest -> bucket_watch_release -> buckets_release
 *
 * Thread rule: buckets are read by any; a watch is its tape's thread's. */
#pragma once

#include "nn/optim.h"
#include "nn/tape_watch.h"

struct bucket { int64_t begin, end; };

struct buckets {
    struct bucket *list; int n;         /* descending */
    int64_t *place; int places;         /* where ranges begin, ascending */
    struct bucket *span;                /* [places] first and last bucket that a range has a part in */
    int *inside;                        /* [n] ranges with a part in it */
};

/* Padding between ranges (param.h) is part of a bucket. -ENOMEM. */
int buckets_make(const struct adamw_range *ranges, int n, int64_t most, struct buckets *ret);
void buckets_release(struct buckets *buckets);

/* Bucket number `bucket` of the pass is whole, and all before it were told. A negative answer fails the pass. */
typedef int bucket_fn(void *arg, int bucket);

struct bucket_watch {
    const struct buckets *of;
    bucket_fn *fn;
    void *arg;
    int *left;                          /* [n] ranges that are not whole yet */
    int next, began;                    /* the first that has not been told; the same when this pass began */
    struct tape_watch *tape;
};

int bucket_watch_init(struct bucket_watch *watch, const struct buckets *of, bucket_fn *fn, void *arg);
/* The pass begins anew: what was told stays so. */
void bucket_watch_again(struct bucket_watch *watch);
/* There is nothing more to come (or there was no pass at all): the rest is told. */
int bucket_watch_rest(struct bucket_watch *watch);
void bucket_watch_release(struct bucket_watch *watch);
