#include "train/shards_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_TAPE = 32 << 20, BLOCK = 1 << 15, BUCKET = 1 << 18 };    /* bytes; floats that one piece of the reduction adds, or
                                                                       * ranks exchange */

int shards_new(int64_t numel, int threads, const struct group *group, struct shards **ret)
{
    _cleanup_(shards_freep) struct shards *s = calloc(1, sizeof *s);
    int r;

    if (!s)
        return -ENOMEM;
    s->group = group ? *group : (struct group) {.ranks = 1};
    if (s->group.ranks < 1 || SHARDS % s->group.ranks || s->group.rank < 0 || s->group.rank >= s->group.ranks)
        return -EINVAL;
    s->numel = numel;
    s->own = SHARDS / s->group.ranks;
    s->first = s->own * s->group.rank;
    s->together = 1;
    r = pool_new(threads, &s->pool);
    if (r < 0)
        return r;
    s->train = calloc((size_t)threads, sizeof *s->train);
    s->infer = calloc((size_t)threads, sizeof *s->infer);
    s->infer_error = calloc((size_t)threads, sizeof *s->infer_error);
    if (!s->train || !s->infer || !s->infer_error)
        return -ENOMEM;
    for (int i = 0; i < threads; i++) {
        tape_init(&s->train[i], true);
        s->train[i].recycle = true;
        tape_init(&s->infer[i], false);
    }
    *ret = TAKE_PTR(s);
    return 0;
}

void shards_recompute(struct shards *s, bool on)
{
    for (int i = 0; i < pool_threads(s->pool); i++)
        s->train[i].recompute = on;
}

void shards_together(struct shards *s, int n) { s->together = CLAMP(n, 1, s->own); }

void shards_exchange(struct shards *s, bool overlapped, int64_t bucket)
{
    s->late = !overlapped;
    s->bucket = bucket;
}

void shards_stop_by(struct shards *s, const atomic_bool *stop) { s->stop = stop; }

void shards_compute_with(struct shards *s, const struct params *params) { s->params = params; }
const struct device *shards_device(const struct shards *s) { return s->params ? s->params->device : NULL; }

struct shards *shards_free(struct shards *s)
{
    if (!s)
        return NULL;
    device_sums_free(s->sums);
    free(s->spans);
    for (int i = 0; s->train && s->infer && i < pool_threads(s->pool); i++) {
        tape_release(&s->train[i]);
        tape_release(&s->infer[i]);
    }
    for (int i = 0; i < SHARDS; i++)
        free(s->grad[i]);
    pool_free(s->pool);
    free(s->train);
    free(s->infer);
    free(s->infer_error);
    free(s->gathered);
    free(s);
    return NULL;
}

static void clear_ranges(float *grad, const struct adamw_range *ranges, int n)
{
    for (int i = 0; i < n; i++)
        memset(grad + ranges[i].begin, 0, (size_t)(ranges[i].end - ranges[i].begin) * sizeof(float));
}

/* The reducer has parts of the gradient of a pass that is given up: that memory is left to it, the next pass has other. */
static int replace_gradient(struct shards *s, int shard)
{
    struct outgrown *old = calloc(1, sizeof *old);
    float *fresh = calloc((size_t)s->numel, sizeof *fresh);

    if (!old || !fresh) {
        free(old);
        free(fresh);
        return -ENOMEM;
    }
    *old = (struct outgrown) {.next = s->outgrown[shard], .grad = s->grad[shard]};
    s->outgrown[shard] = old;
    s->grad[shard] = fresh;
    return 0;
}

/* Before a pass of this shard: its gradient is zero. */
static int begin_gradient(struct shards *s, struct tape *tape, int shard)
{
    struct bucket_watch *watch = tape->watch ? &s->watch[shard].buckets : NULL;
    int r = 0;

    if (watch && watch->next > watch->began)
        r = replace_gradient(s, shard);
    else
        clear_ranges(s->grad[shard], s->ranges, s->n_ranges);
    if (watch)
        bucket_watch_again(watch);
    tape->param_grad = s->grad[shard];
    return r;
}

int shards_run_piece(struct shards *s, struct tape *tape, float *grad, int shard, int first, int last)
{
    if (s->stop && atomic_load(s->stop))
        return -ECANCELED;
    if (tape->on)
        return shards_run_planned(s, tape, grad, shard, first, last);
    for (;;) {
        size_t size = MAX(tape_room(tape), FIRST_TAPE / 2);
        int r;

        if (tape_room(tape)) {
            tape_begin(tape);
            r = grad ? begin_gradient(s, tape, shard) : 0;
            if (r < 0)
                return r;
            r = s->fn(tape, shard, first, last, s->arg);
            if (r >= 0)
                r = tape->error;
            if (r != -ENOBUFS)
                return r;
        }
        r = tape_reserve(tape, size * 2);
        if (r < 0)
            return r;
    }
}

static void shard_piece(void *arg, int piece, int worker)
{
    struct shards *s = arg;
    struct tape *tape = &s->train[worker];
    int shard = s->first + piece, r = 0;
    int first = shard_begin(s->samples, shard), last = shard_begin(s->samples, shard + 1);

    if (first == last) {
        clear_ranges(s->grad[shard], s->ranges, s->n_ranges);
    } else {
        tape->watch = s->reducer && !s->late ? s->watch[shard].buckets.tape : NULL;
        r = shards_run_piece(s, tape, s->grad[shard], shard, first, last);
        tape->watch = NULL;
    }
    if (r >= 0 && s->reducer && !s->late)
        r = bucket_watch_rest(&s->watch[shard].buckets);
    s->error[shard] = r;
}

/* One block of the tree over this rank's shards: the sum ends in the lowest one. */
static void reduce_block(struct shards *s, int64_t begin, int64_t end)
{
    float *parts[SHARDS];

    for (int i = 0; i < s->own; i++)
        parts[i] = s->grad[s->first + i] + begin;
    shard_tree_sum(parts, s->own, end - begin);
}

/* Blocks are numbered through all ranges. */
static void reduce_piece(void *arg, int piece, _unused_ int worker)
{
    struct shards *s = arg;

    for (int i = 0; i < s->n_ranges; i++) {
        int64_t length = s->ranges[i].end - s->ranges[i].begin, blocks = (length + BLOCK - 1) / BLOCK;

        if (piece < blocks) {
            int64_t begin = s->ranges[i].begin + (int64_t)piece * BLOCK, end = MIN(begin + BLOCK, s->ranges[i].end);

            reduce_block(s, begin, end);
            memcpy(s->out + begin, s->grad[s->first] + begin, (size_t)(end - begin) * sizeof(float));
            return;
        }
        piece -= (int)blocks;
    }
}

static int gather(struct shards *s, const void *mine, size_t bytes)
{
    if (bytes * (size_t)s->group.ranks > s->gathered_size) {
        float *larger = realloc(s->gathered, bytes * (size_t)s->group.ranks);

        if (!larger)
            return -ENOMEM;
        s->gathered = larger;
        s->gathered_size = bytes * (size_t)s->group.ranks;
    }
    return s->group.gather(s->group.arg, mine, bytes, s->gathered);
}

void shards_set_call(struct shards *s, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg)
{
    s->ranges = ranges;
    s->n_ranges = n_ranges;
    s->samples = samples;
    s->fn = fn;
    s->arg = arg;
}

static int have_gradients(struct shards *s)
{
    for (int i = s->first; i < s->first + s->own; i++) {
        if (!s->grad[i])
            s->grad[i] = calloc((size_t)s->numel, sizeof(float));
        if (!s->grad[i])
            return -ENOMEM;
    }
    return 0;
}

static int first_error(const struct shards *s)
{
    for (int i = s->first; i < s->first + s->own; i++)
        if (s->error[i] < 0)
            return s->error[i];
    return 0;
}

static int gradient_alone(struct shards *s)
{
    int64_t blocks = 0;
    int r;

    pool_run(s->pool, s->own, shard_piece, s);
    r = first_error(s);
    if (r < 0)
        return r;
    for (int i = 0; i < s->n_ranges; i++)
        blocks += (s->ranges[i].end - s->ranges[i].begin + BLOCK - 1) / BLOCK;
    pool_run(s->pool, (int)blocks, reduce_piece, s);
    return 0;
}

/* ---- several ranks: what is whole is added up and exchanged by a thread of its own -------------------------- */

static int bucket_here(void *arg, int bucket)
{
    const struct own_watch *watch = arg;
    const struct shards *s = watch->shards;

    reducer_whole(s->reducer, bucket, watch->shard - s->first, s->grad[watch->shard]);
    return 0;
}

void shards_forget_watches(struct shards *s)
{
    for (int i = 0; i < SHARDS; i++) {
        bucket_watch_release(&s->watch[i].buckets);
        while (s->outgrown[i]) {
            struct outgrown *next = s->outgrown[i]->next;

            free(s->outgrown[i]->grad);
            free(s->outgrown[i]);
            s->outgrown[i] = next;
        }
    }
    buckets_release(&s->buckets);
}

int shards_watch(struct shards *s, int shard, bucket_fn *fn)
{
    struct own_watch *watch = &s->watch[shard];

    watch->shards = s;
    watch->shard = shard;
    return bucket_watch_init(&watch->buckets, &s->buckets, fn, watch);
}

static int gradient_with_ranks(struct shards *s)
{
    int r = buckets_make(s->ranges, s->n_ranges, s->bucket ? s->bucket : BUCKET, &s->buckets);

    for (int i = s->first; i < s->first + s->own && r >= 0; i++)
        r = shards_watch(s, i, bucket_here);
    if (r >= 0)
        r = reducer_start(&s->buckets, &s->group, s->own, s->out, &s->reducer);
    if (r >= 0) {
        pool_run(s->pool, s->own, shard_piece, s);
        r = first_error(s);
        for (int i = s->first; i < s->first + s->own && r >= 0 && s->late; i++)
            r = bucket_watch_rest(&s->watch[i].buckets);
        r = reducer_finish(s->reducer, r);
        s->reducer = NULL;
    }
    shards_forget_watches(s);
    return r;
}

static int gradient_here(struct shards *s, float *grad)
{
    int r = have_gradients(s);

    s->out = grad;
    return r < 0 ? r : s->group.ranks > 1 ? gradient_with_ranks(s) : gradient_alone(s);
}

int shards_gradient(struct shards *s, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg,
                    float *grad)
{
    struct device_stream *stream;
    float *there;
    int r;

    if (!shards_device(s)) {
        shards_set_call(s, ranges, n_ranges, samples, fn, arg);
        return gradient_here(s, grad);
    }
    r = shards_gradient_there(s, ranges, n_ranges, samples, fn, arg, &there, &stream);
    for (int i = 0; i < n_ranges && r >= 0; i++)
        r = stream->k->download(stream->stream, grad + ranges[i].begin, there + ranges[i].begin,
                                (size_t)(ranges[i].end - ranges[i].begin) * sizeof(float));
    return r;
}

static void infer_piece(void *arg, int piece, int worker)
{
    struct shards *s = arg;
    int first = piece * s->chunk, last = MIN(first + s->chunk, s->samples);

    if (s->infer_error[worker] >= 0)
        s->infer_error[worker] = shards_run_piece(s, &s->infer[worker], NULL, piece, first, last);
}

int shards_infer(struct shards *s, int samples, int chunk, shard_fn *fn, void *arg)
{
    s->samples = samples;
    s->chunk = chunk;
    s->fn = fn;
    s->arg = arg;
    if (shards_device(s))
        return shards_infer_there(s);
    memset(s->infer_error, 0, (size_t)pool_threads(s->pool) * sizeof *s->infer_error);
    pool_run(s->pool, (samples + chunk - 1) / chunk, infer_piece, s);
    for (int i = 0; i < pool_threads(s->pool); i++)
        if (s->infer_error[i] < 0)
            return s->infer_error[i];
    return 0;
}

int shards_share(struct shards *s, void *records, size_t size)
{
    int r;

    if (s->group.ranks == 1)
        return 0;
    r = gather(s, (char *)records + (size_t)s->first * size, (size_t)s->own * size);
    if (r >= 0)
        memcpy(records, s->gathered, SHARDS * size);
    return r;
}
