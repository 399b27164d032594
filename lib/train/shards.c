#include "train/shards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "train/device_sums.h"
#include "train/pool.h"

enum { FIRST_TAPE = 32 << 20, BLOCK = 1 << 15 };    /* bytes; floats that one piece of the reduction adds */

struct shards {
    struct pool *pool;
    struct group group;
    int64_t numel;
    int own;                    /* shards this rank computes: first .. first+own-1 */
    int first;
    float *grad[SHARDS];        /* NULL for other ranks' shards, and before the first gradient on this host */
    struct tape *train, *infer; /* one per thread: a shard's pass is over before the thread takes the next */
    const struct params *params;        /* where to compute; NULL: here */
    struct device_sums *sums;   /* gradients there */
    struct adamw_range *spans;  /* of the call in progress, as device_spans has them; room for the most seen */
    int n_spans, most_spans;
    float *gathered;            /* [ranks][longest message] */
    size_t gathered_size;

    /* the call in progress */
    const struct adamw_range *ranges;
    int n_ranges, samples, chunk;
    shard_fn *fn;
    void *arg;
    float *out;
    int error[SHARDS];
    int *infer_error;           /* per thread */
};

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

void shards_compute_with(struct shards *s, const struct params *params) { s->params = params; }

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

static void clear_there(struct tape *tape, float *grad, const struct adamw_range *spans, int n)
{
    for (int i = 0; i < n; i++)
        tape_zero(tape, grad + spans[i].begin, (size_t)(spans[i].end - spans[i].begin) * sizeof(float));
}

static void clear_ranges(float *grad, const struct adamw_range *ranges, int n)
{
    for (int i = 0; i < n; i++)
        memset(grad + ranges[i].begin, 0, (size_t)(ranges[i].end - ranges[i].begin) * sizeof(float));
}

/* Memory on a device is what others do not have: a dry run tells what the piece needs, to the byte. grad comes zeroed. */
static int run_planned(struct shards *s, struct tape *tape, float *grad, int shard, int first, int last)
{
    bool dirty = false;
    int r = -ENOBUFS;

    for (int planned = 0; planned < 2 && r == -ENOBUFS; planned++) {
        if (planned || !tape_room(tape)) {
            tape_plan(tape);
            r = s->fn(tape, shard, first, last, s->arg);
            r = r < 0 ? r : tape_allocate(tape);
            if (r < 0)
                return r;
        }
        tape_begin(tape);
        if (grad && dirty)
            clear_there(tape, grad, s->spans, s->n_spans);
        r = s->fn(tape, shard, first, last, s->arg);
        r = r < 0 ? r : tape->error;
        dirty = true;
    }
    return r;
}

/* Run fn on the tape; a tape that was too small grows and the piece is computed anew. grad NULL: inference. */
static int run_piece(struct shards *s, struct tape *tape, float *grad, int shard, int first, int last)
{
    if (tape->on)
        return run_planned(s, tape, grad, shard, first, last);
    for (;;) {
        size_t size = MAX(tape_room(tape), FIRST_TAPE / 2);
        int r;

        if (tape_room(tape)) {
            tape_begin(tape);
            if (grad)
                clear_ranges(grad, s->ranges, s->n_ranges);
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
    int shard = s->first + piece;
    int first = shard_begin(s->samples, shard), last = shard_begin(s->samples, shard + 1);

    if (first == last)
        clear_ranges(s->grad[shard], s->ranges, s->n_ranges);
    s->error[shard] = 0;
    if (first == last)
        return;
    s->train[worker].param_grad = s->grad[shard];
    s->error[shard] = run_piece(s, &s->train[worker], s->grad[shard], shard, first, last);
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

/* The upper part of the tree: over the ranks' sums. */
static int reduce_ranks(struct shards *s)
{
    for (int i = 0; i < s->n_ranges && s->group.ranks > 1; i++) {
        int64_t begin = s->ranges[i].begin, length = s->ranges[i].end - begin;
        float *parts[SHARDS];
        int r = gather(s, s->out + begin, (size_t)length * sizeof(float));

        if (r < 0)
            return r;
        for (int j = 0; j < s->group.ranks; j++)
            parts[j] = s->gathered + j * length;
        shard_tree_sum(parts, s->group.ranks, length);
        memcpy(s->out + begin, s->gathered, (size_t)length * sizeof(float));
    }
    return 0;
}

static void set_call(struct shards *s, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg)
{
    s->ranges = ranges;
    s->n_ranges = n_ranges;
    s->samples = samples;
    s->fn = fn;
    s->arg = arg;
}

static int gradient_here(struct shards *s, float *grad)
{
    int64_t blocks = 0;

    for (int i = s->first; i < s->first + s->own; i++) {
        if (!s->grad[i])
            s->grad[i] = calloc((size_t)s->numel, sizeof(float));
        if (!s->grad[i])
            return -ENOMEM;
    }
    s->out = grad;
    pool_run(s->pool, s->own, shard_piece, s);
    for (int i = s->first; i < s->first + s->own; i++)
        if (s->error[i] < 0)
            return s->error[i];
    for (int i = 0; i < s->n_ranges; i++)
        blocks += (s->ranges[i].end - s->ranges[i].begin + BLOCK - 1) / BLOCK;
    pool_run(s->pool, (int)blocks, reduce_piece, s);
    return reduce_ranks(s);
}

/* ---- on a device ------------------------------------------------------------------------------------------ */

static int shard_there(void *arg, int own, float *grad)
{
    struct shards *s = arg;
    struct tape *tape = &s->train[0];
    int shard = s->first + own, first = shard_begin(s->samples, shard), last = shard_begin(s->samples, shard + 1);

    if (first == last)
        return 0;
    tape->param_grad = grad;
    return run_piece(s, tape, grad, shard, first, last);
}

static int make_spans(struct shards *s)
{
    if (s->n_ranges > s->most_spans) {
        free(s->spans);
        s->most_spans = 0;
        s->spans = calloc((size_t)s->n_ranges, sizeof *s->spans);
        if (!s->spans)
            return -ENOMEM;
        s->most_spans = s->n_ranges;
    }
    s->n_spans = device_spans(s->ranges, s->n_ranges, s->spans);
    return 0;
}

int shards_gradient_there(struct shards *s, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg,
                          float **ret, struct device_stream **ret_stream)
{
    struct tape *tape = &s->train[0];
    float *grad;
    int r;

    if (!s->params || !s->params->device)
        return -ENODEV;
    set_call(s, ranges, n_ranges, samples, fn, arg);
    r = make_spans(s);
    if (r >= 0)
        r = tape_attach(tape, s->params);
    if (r >= 0)
        r = device_stream_begin(tape->on);
    if (r >= 0 && !s->sums)
        r = device_sums_new(s->params->device, s->numel, &s->sums);
    if (r >= 0)
        r = device_sums_shards(s->sums, tape->on, s->spans, s->n_spans, s->own, shard_there, s, &grad);
    if (r >= 0 && s->group.ranks > 1)
        r = device_sums_ranks(s->sums, tape->on, s->spans, s->n_spans, &s->group, grad);
    if (r < 0)
        return r;
    *ret = grad;
    *ret_stream = tape->on;
    return 0;
}

int shards_gradient(struct shards *s, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg,
                    float *grad)
{
    struct device_stream *stream;
    float *there;
    int r;

    if (!s->params || !s->params->device) {
        set_call(s, ranges, n_ranges, samples, fn, arg);
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
    int first = piece * s->chunk, last = MIN(first + s->chunk, s->samples), r;

    if (s->infer_error[worker] < 0)
        return;
    r = s->params ? tape_attach(&s->infer[worker], s->params) : 0;
    if (r >= 0)
        r = run_piece(s, &s->infer[worker], NULL, piece, first, last);
    if (r < 0)
        s->infer_error[worker] = r;
}

int shards_infer(struct shards *s, int samples, int chunk, shard_fn *fn, void *arg)
{
    s->samples = samples;
    s->chunk = chunk;
    s->fn = fn;
    s->arg = arg;
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
