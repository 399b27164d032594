/* shards_internal.h - what shards.c and shards_device.c share. */
#pragma once

#include "train/device_sums.h"
#include "train/pool.h"
#include "train/reducer.h"
#include "train/shards.h"

struct shards {
    struct pool *pool;
    struct group group;
    int64_t numel;
    int own;                    /* shards this rank computes: first .. first+own-1 */
    int first;
    int together;               /* on a device: of a pass */
    float *grad[SHARDS];        /* NULL for other ranks' shards, and before the first gradient on this host */
    struct tape *train, *infer; /* one per thread: a shard's pass is over before the thread takes the next */
    const struct params *params;        /* where to compute; NULL: here */
    struct device_sums *sums;   /* gradients there */
    bool adding;                /* there: what the pass adds to has those of passes before in it */
    struct adamw_range *spans;  /* of the call in progress, as device_spans has them; room for the most seen */
    int n_spans, most_spans;
    float *gathered;            /* [ranks][longest message] */
    size_t gathered_size;
    bool late;                  /* ranks exchange nothing before all shards are done: the same bits, later */
    int64_t bucket;             /* floats that they exchange at once; 0: BUCKET, DEVICE_BUCKET */
    const atomic_bool *stop;    /* no pass is begun once it is true; NULL: nobody says so */

    /* the call in progress */
    const struct adamw_range *ranges;
    int n_ranges, samples, chunk;
    shard_fn *fn;
    void *arg;
    float *out;
    struct buckets buckets;     /* of several ranks: what they exchange */
    struct own_watch { struct bucket_watch buckets; struct shards *shards; int shard; } watch[SHARDS];
    struct reducer *reducer;    /* on this host, while shards are computed */
    struct outgrown { struct outgrown *next; float *grad; } *outgrown[SHARDS];  /* of passes given up after the reducer had got
                                                                                 * parts of them */
    int error[SHARDS];
    int *infer_error;           /* per thread */
};

/* What the gradients of the call in progress are of. */
void shards_set_call(struct shards *shards, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg);
/* Run fn on the tape; a tape that was too small grows and the piece is computed anew. grad NULL: inference. */
int shards_run_piece(struct shards *shards, struct tape *tape, float *grad, int shard, int first, int last);
/* The same on a device: memory there is what others do not have, so a dry run tells what the piece needs, to the byte. grad comes
 * zeroed, or with others' gradients in it (adding): a piece that outgrew its memory has spoilt them then, -ERESTART. */
int shards_run_planned(struct shards *shards, struct tape *tape, float *grad, int shard, int first, int last);
/* shards_infer of the call in progress: the pieces one after the other. */
int shards_infer_there(struct shards *shards);
/* Whoever wants to know when a bucket of this shard's gradient is whole, until shards_forget_watches. */
int shards_watch(struct shards *shards, int shard, bucket_fn *fn);
void shards_forget_watches(struct shards *shards);
