/* shards.h - a minibatch's gradient, the same to the bit on any number of threads and ranks.
 *
 * A minibatch is cut by index into 8 virtual shards. Each has its own tape and its own gradient, and the eight are added
 * in a fixed tree: ((0+1)+(2+3)) + ((4+5)+(6+7)). Threads only decide when a shard is computed, never what is added to
 * what. With 2, 4 or 8 ranks a rank computes its subtree and the group gathers the partial sums (struct group), bucket by bucket,
 * each as soon as the way back has made its last number (train/buckets.h).
 *
 * Thread rule: one call at a time. Failure rule: -errno; the gradient is then undefined. */
#pragma once

#include <stdatomic.h>

#include "nn/collective/shard_sum.h"
#include "nn/optim.h"
#include "nn/tape.h"

enum { SHARDS = VIRTUAL_SHARDS };

struct device_group;

/* The other learner ranks. gather: every rank gives `bytes` and receives all ranks' bytes in rank order; from one thread at a
 * time, not always the same. */
struct group {
    int rank, ranks;            /* ranks: 1, 2, 4 or 8 */
    int (*gather)(void *arg, const void *mine, size_t bytes, void *ret_all);
    void *arg;
    struct device_group *device;        /* their NCCL group, for gradients on devices; NULL: ranks compute on CPUs */
};

/* Samples shard_begin(n, s) .. shard_begin(n, s + 1) - 1 of a minibatch are shard s. */
static inline int shard_begin(int samples, int shard) { return (int)((int64_t)samples * shard / SHARDS); }
/* Which one sample i is in. */
static inline int shard_with(int samples, int i) { return (int)(((int64_t)SHARDS * (i + 1) - 1) / samples); }

struct shards;

/* numel: floats of the parameter arena. group NULL: one rank; copied. */
int shards_new(int64_t numel, int threads, const struct group *group, struct shards **ret);
struct shards *shards_free(struct shards *shards);
DEFINE_FREEP(struct shards, shards_free)

/* Train with blocks computed twice (nn/tape.h): less memory, more time, the same bits. Off at first. */
void shards_recompute(struct shards *shards, bool on);

/* On a device: so many neighbouring shards go through one pass, as the samples of the first of them (1, 2, 4 or 8, at most a
 * rank's own; 1 at first). Products of many rows are a device's business, and each pass costs as many launches. What is added to
 * what changes with it: not with strict numerics, where it is 1 whatever is said here. */
void shards_together(struct shards *shards, int n);

/* What is asked of them ends with -ECANCELED before its next pass once *stop is true; borrowed. NULL: nobody stops them. */
void shards_stop_by(struct shards *shards, const atomic_bool *stop);

/* Exchange what is whole while the rest is computed (so at first), or all of it afterwards: the same bits. bucket: floats that
 * are exchanged at once, 0: as many as suits; equal on all ranks. For measurements and tests. */
void shards_exchange(struct shards *shards, bool overlapped, int64_t bucket);

/* Passes run where these parameters are (params->device), which must outlive the shards' calls. */
void shards_compute_with(struct shards *shards, const struct params *params);
/* Where that is; NULL: on this CPU. */
const struct device *shards_device(const struct shards *shards);

/* Forward, loss and tape_backward over samples first..last-1 of the minibatch (last > first), which are those of `shard`, or
 * (shards_together) of it and its next neighbours, whose own slots stay as they are. It may be called again for the
 * same samples when the tape was too small: it must only write what depends on them (its own slots, its own shard's sums). */
typedef int shard_fn(struct tape *tape, int shard, int first, int last, void *arg);

/* Sum of all shards' gradients over `ranges`, into grad (flat, like the arena). */
int shards_gradient(struct shards *shards, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg,
                    float *grad);

/* The same on the parameters' device: *ret is in its memory, and what is still to be done is on *ret_stream; both are the
 * shards', until the next call. Ranks meet in group.device; -ECONNRESET: that broke. -ENODEV: the parameters are on no device. */
struct device_stream;
int shards_gradient_there(struct shards *shards, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn,
                          void *arg, float **ret, struct device_stream **ret_stream);

/* Inference over samples, in chunks of `chunk`, on all threads (every rank does all of them), on a device one after the other.
 * `shard` is the chunk's number. */
int shards_infer(struct shards *shards, int samples, int chunk, shard_fn *fn, void *arg);

/* Collect per-shard records (e.g. loss sums) of all ranks: records[SHARDS], `size` bytes each, those of other ranks filled in. */
int shards_share(struct shards *shards, void *records, size_t size);
