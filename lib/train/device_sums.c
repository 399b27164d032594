#include "train/device_sums.h"

#include <errno.h>
#include <stdlib.h>

enum { ROOMS = 4, BUCKET = 4 << 20, PATIENCE_MS = 300000, PADDING = 16 };      /* of shards: log2(8) + 1; floats; param.h aligns to 16 */

struct device_sums {
    struct device *device;
    int64_t numel;
    float *room[ROOMS];
    float *gathered;                    /* [ranks][BUCKET], of a strict group of more than two */
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
    for (int i = 0; i < ROOMS; i++)
        d->device->k->release(d->room[i]);
    d->device->k->release(d->gathered);
    device_unref(d->device);
    free(d);
    return NULL;
}

size_t device_sums_bytes(int64_t numel, int shards, int ranks, bool strict)
{
    int rooms = 1;

    for (int n = shards; n > 1 && (strict || rooms < 2); n /= 2)
        rooms++;
    return ((size_t)rooms * (size_t)numel + (strict && ranks > 2 ? (size_t)ranks * (size_t)MIN(numel, (int64_t)BUCKET) : 0)) * sizeof(float);
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

int device_sums_shards(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n, int shards,
                       device_shard_fn *fn, void *arg, float **ret)
{
    int held = 0, r = 0;
    float *grad;

    for (int i = 0; i < shards && r >= 0; i++) {
        r = room(d, s, spans, n, held, &grad);
        if (r >= 0)
            r = fn(arg, i, grad);
        held++;
        /* as many pairs are complete as i + 1 has factors of two; without the tree: always the one */
        for (int k = i + 1; r >= 0 && held > 1 && (d->device->strict ? k % 2 == 0 : true); k /= 2, held--)
            r = add(d, s, spans, n, held - 2, held - 1);
    }
    *ret = d->room[0];
    return r;
}

/* The upper part of the tree, as shard_tree_sum goes. */
static int add_ranks(struct device_sums *d, struct device_stream *s, float *grad, int64_t length, int ranks)
{
    int r = 0;

    for (int stride = 1; stride < ranks; stride *= 2)
        for (int i = 0; i + stride < ranks && r >= 0; i += 2 * stride)
            r = s->k->accumulate(s->stream, DEVICE_F32, d->gathered + i * length, d->gathered + (i + stride) * length, length);
    return r < 0 ? r : s->k->copy(s->stream, grad, d->gathered, (size_t)length * sizeof(float));
}

static int exchange(struct device_sums *d, struct device_stream *s, struct nccl_group *nccl, int ranks, float *grad, int64_t length)
{
    int r;

    if (!d->device->strict || ranks == 2)
        return nccl_group_all_reduce(nccl, grad, (size_t)length, NCCL_FLOAT32, s->stream);
    r = nccl_group_all_gather(nccl, grad, (size_t)length * sizeof(float), d->gathered, s->stream);
    return r < 0 ? r : add_ranks(d, s, grad, length, ranks);
}

int device_sums_ranks(struct device_sums *d, struct device_stream *s, const struct adamw_range *spans, int n,
                      const struct group *group, float *grad)
{
    struct nccl_group *nccl = group->device ? device_group_nccl(group->device) : NULL;
    const struct nccl_stream stream = {.handle = s->stream, .done = s->k->done};
    int r = 0;

    if (!nccl)
        return -ECONNRESET;
    if (d->device->strict && group->ranks > 2 && !d->gathered)
        r = s->k->alloc((size_t)group->ranks * (size_t)MIN(d->numel, (int64_t)BUCKET) * sizeof(float), (void **)&d->gathered);
    for (int i = 0; i < n && r >= 0; i++)
        for (int64_t at = spans[i].begin; at < spans[i].end && r >= 0; at += BUCKET)
            r = exchange(d, s, nccl, group->ranks, grad + at, MIN(spans[i].end - at, (int64_t)BUCKET));
    return r < 0 ? r : nccl_group_wait(nccl, &stream, PATIENCE_MS);
}
