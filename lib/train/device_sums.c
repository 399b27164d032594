#include "train/device_sums.h"

#include <errno.h>
#include <stdlib.h>

enum { ROOMS = 4, PATIENCE_MS = 300000, PADDING = 16 };      /* of shards: log2(8) + 1; param.h aligns to 16 floats */

struct device_sums {
    struct device *device;
    int64_t numel;
    float *room[ROOMS];
    int held;                           /* rooms with sums in them, the last shard's own among them */
    void *comm, *whole;                 /* a stream for the exchange, and the event that it waits for; NULL before the first */
    float *gathered;                    /* [ranks][DEVICE_BUCKET], of a strict group of more than two */
};

int device_sums_new(struct device *device, int64_t numel, struct device_sums **ret)
{
    struct device_sums *d = calloc(1, sizeof *d);

    if (!d)
        return -ENOMEM;
    d->device = device_ref(device);
    d->numel = numel;
    *ret = d;
    return 0;
}

struct device_sums *device_sums_free(struct device_sums *d)
{
    if (!d)
        return NULL;
    d->device->k->use(d->device->ordinal, NULL, NULL, 0);
    if (d->comm) {
        d->device->k->wait(d->comm);
        d->device->k->event_free(d->whole);
        d->device->k->stream_free(d->comm);
    }
    for (int i = 0; i < ROOMS; i++)
        d->device->k->release(d->room[i]);
    d->device->k->release(d->gathered);
    device_unref(d->device);
    free(d);
    return NULL;
}

size_t device_sums_bytes(int64_t numel, int shards, int ranks, bool strict)
{
    size_t rooms = 1, gathered = strict && ranks > 2 ? (size_t)ranks * (size_t)MIN(numel, (int64_t)DEVICE_BUCKET) : 0;

    for (int n = shards; n > 1 && strict; n /= 2)
        rooms++;
    return (rooms * (size_t)numel + gathered) * sizeof(float);
}

int device_spans(const struct adamw_range *ranges, int n, struct adamw_range *ret)
{
    int spans = 0;

    for (int i = 0; i < n; i++)
        if (spans && ranges[i].begin >= ret[spans - 1].end && ranges[i].begin - ret[spans - 1].end < PADDING)
            ret[spans - 1].end = ranges[i].end;
        else
            ret[spans++] = ranges[i];
    return spans;
}

/* Zeroed as a whole when it is new: padding stays so. */
static int room(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n, int which, float **ret)
{
    size_t bytes = (size_t)d->numel * sizeof(float);
    int r = 0;

    if (!d->room[which]) {
        r = s->k->alloc(bytes, (void **)&d->room[which]);
        if (r >= 0)
            r = s->k->zero(s->stream, d->room[which], bytes);
    } else {
        for (int i = 0; i < n && r >= 0; i++)
            r = s->k->zero(s->stream, d->room[which] + spans[i].begin, (size_t)(spans[i].end - spans[i].begin) * sizeof(float));
    }
    *ret = d->room[which];
    return r;
}

static int add(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n, int to, int from)
{
    int r = 0;

    for (int i = 0; i < n && r >= 0; i++)
        r = s->k->accumulate(s->stream, DEVICE_F32, d->room[to] + spans[i].begin, d->room[from] + spans[i].begin,
                             spans[i].end - spans[i].begin);
    return r;
}

static int shards_in_a_tree(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n, int shards,
                            bool leave_last, device_shard_fn *fn, void *arg)
{
    int held = 0, r = 0;
    float *grad;

    for (int i = 0; i < shards && r >= 0; i++) {
        r = room(d, s, spans, n, held, &grad);
        d->held = ++held;
        if (r >= 0)
            r = fn(arg, i, grad);
        if (leave_last && i == shards - 1)
            break;                      /* its pairs were added bucket by bucket */
        /* as many pairs are complete as i + 1 has factors of two */
        for (int k = i + 1; r >= 0 && held > 1 && k % 2 == 0; k /= 2, held--)
            r = add(d, s, spans, n, held - 2, held - 1);
    }
    return r;
}

/* Each may outgrow its memory once. */
static int shards_in_one(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n, int shards,
                         device_shard_fn *fn, void *arg)
{
    int r = -ERESTART;
    float *grad;

    d->held = 1;
    for (int tried = 0; r == -ERESTART && tried <= shards; tried++) {
        r = room(d, s, spans, n, 0, &grad);
        for (int i = 0; i < shards && r >= 0; i++)
            r = fn(arg, i, grad);
    }
    return r;
}

int device_sums_shards(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n, int shards,
                       bool leave_last, device_shard_fn *fn, void *arg, float **ret)
{
    int r = d->device->strict ? shards_in_a_tree(d, s, spans, n, shards, leave_last, fn, arg)
                              : shards_in_one(d, s, spans, n, shards, fn, arg);

    *ret = d->room[0];
    return r;
}

/* ---- ranks: on a stream of their own ------------------------------------------------------------------------ */

/* The upper part of the tree, as shard_tree_sum goes. */
static int add_ranks(struct device_sums *d, float *grad, int64_t length, int ranks)
{
    const struct device_kernels *k = d->device->k;
    int r = 0;

    for (int stride = 1; stride < ranks; stride *= 2)
        for (int i = 0; i + stride < ranks && r >= 0; i += 2 * stride)
            r = k->accumulate(d->comm, DEVICE_F32, d->gathered + i * length, d->gathered + (i + stride) * length, length);
    return r < 0 ? r : k->copy(d->comm, grad, d->gathered, (size_t)length * sizeof(float));
}

static int exchange(struct device_sums *d, struct nccl_group *nccl, int ranks, float *grad, int64_t length)
{
    int r;

    if (!d->device->strict || ranks == 2)
        return nccl_group_all_reduce(nccl, grad, (size_t)length, NCCL_FLOAT32, d->comm);
    r = nccl_group_all_gather(nccl, grad, (size_t)length * sizeof(float), d->gathered, d->comm);
    return r < 0 ? r : add_ranks(d, grad, length, ranks);
}

static int prepare(struct device_sums *d, int ranks)
{
    const struct device_kernels *k = d->device->k;
    int r = 0;

    if (!d->comm) {
        r = k->stream_new(&d->comm);
        if (r >= 0 && (r = k->event_new(&d->whole)) < 0) {
            k->stream_free(d->comm);
            d->comm = NULL;
        }
    }
    if (r >= 0 && d->device->strict && ranks > 2 && !d->gathered)
        r = k->alloc((size_t)ranks * (size_t)MIN(d->numel, (int64_t)DEVICE_BUCKET) * sizeof(float), (void **)&d->gathered);
    return r;
}

int device_sums_bucket(struct device_sums *d, struct device_stream *s, const struct bucket *bucket, const struct group *group)
{
    struct nccl_group *nccl = group->device ? device_group_nccl(group->device) : NULL;
    int64_t length = bucket->end - bucket->begin;
    int r = nccl ? prepare(d, group->ranks) : -ECONNRESET;

    for (int h = d->held; h > 1 && r >= 0; h--)         /* the last shard completes every pair */
        r = s->k->accumulate(s->stream, DEVICE_F32, d->room[h - 2] + bucket->begin, d->room[h - 1] + bucket->begin, length);
    if (r >= 0)
        r = s->k->event_mark(s->stream, d->whole);
    if (r >= 0)
        r = s->k->stream_wait(d->comm, d->whole);
    return r < 0 ? r : exchange(d, nccl, group->ranks, d->room[0] + bucket->begin, length);
}

int device_sums_wait(struct device_sums *d, const struct group *group, int r)
{
    struct nccl_group *nccl = group->device ? device_group_nccl(group->device) : NULL;
    const struct nccl_stream stream = {.handle = d->comm, .done = d->device->k->done};

    if (r >= 0)
        r = nccl && d->comm ? nccl_group_wait(nccl, &stream, PATIENCE_MS) : -ECONNRESET;
    if (r < 0 && nccl)                  /* the others wait for a rank that will not come, also when it had sent nothing yet */
        nccl_group_abort(nccl, "a rank gave up in the middle of a step");
    if (r < 0 && d->comm)
        d->device->k->wait(d->comm);
    return r;
}
