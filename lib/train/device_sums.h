/* device_sums.h - a minibatch's gradient added up in a device's memory: shards in the tree of shard_sum.h, ranks over NCCL.
 *
 *   device_sums_shards(one gradient per shard -> this rank's sum)
 *   several ranks: the same, and meanwhile, from the last shard's function, device_sums_bucket for each bucket; then
 *   device_sums_wait
 *
 * Shards are computed one after the other, for one fills a device. Strict numerics: a sum of neighbours is added as soon as both
 * are there, so that log2(shards) + 1 gradients are held at once. Fast: each backward adds to what those before have left, in one
 * buffer, which is what lets a model be trained whole on a device that its weights, gradient and moments just fit. Ranks exchange buckets of a fixed size, on a stream of their own that waits
 * for what made them: while one is on its way the last shard's backward goes on. Strict numerics: every rank gathers
 * all ranks' buckets and adds them in the tree itself, so that 1, 2, 4 and 8 ranks give the same bits; fast (and two ranks, for
 * whom a + b is all there is): NCCL's own sum.
 *
 * Thread rule: one thread. Failure rule: -errno, the sum is then undefined; -ECONNRESET: the group broke (nccl_group_why). */
#pragma once

#include "nn/device/device.h"
#include "train/buckets.h"
#include "train/device_group.h"

struct device_sums;
enum { DEVICE_BUCKET = 4 << 20 };       /* floats that ranks exchange at once */

/* numel: floats of a gradient. */
int device_sums_new(struct device *device, int64_t numel, struct device_sums **ret);
struct device_sums *device_sums_free(struct device_sums *sums);
DEFINE_FREEP(struct device_sums, device_sums_free)
/* Bytes of device memory for `shards` of `numel` floats and `ranks`. */
size_t device_sums_bytes(int64_t numel, int shards, int ranks, bool strict);

/* Ranges that lie side by side in the arena (what is between them is padding, and zero) as one; ret has room for n. Returns how
 * many. */
int device_spans(const struct adamw_range *ranges, int n, struct adamw_range *ret);

/* Add the gradient of shard number `shard` (0 .. shards-1 of this rank) to device memory that is laid out like the arena: zeroed,
 * or, in fast numerics, with those of the shards before in it. -ERESTART: it has spoilt these, and would get through now: all
 * shards are begun anew. */
typedef int device_shard_fn(void *arg, int shard, float *grad);
/* A shard here is what goes through one pass. leave_last: the last shard's sums with its neighbours are left to
 * device_sums_bucket. */
int device_sums_shards(struct device_sums *sums, struct device_stream *s, const struct adamw_range *spans, int n, int shards,
                       bool leave_last, device_shard_fn *fn, void *arg, float **ret);
/* What the last shard puts into this bucket has been put on the stream: it is added to its neighbours and sent to the other
 * ranks. group->device: the ranks' NCCL group, which they have agreed on. All ranks go through the same buckets in the same
 * order. */
int device_sums_bucket(struct device_sums *sums, struct device_stream *s, const struct bucket *bucket, const struct group *group);
/* r: how it went so far. All that is under way has arrived, and the sum is whole; or the group broke. */
int device_sums_wait(struct device_sums *sums, const struct group *group, int r);
